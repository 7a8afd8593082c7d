"""The exchanges as a bare RSGI application: Granian's own interface."""

import asyncio

from exchanges import BIG, HELLO, JSON, MESSAGE, POOL, ROW, TEXT, USERS, postgres
from orjson import dumps

TEXT_FIELDS = [("content-type", TEXT)]
JSON_FIELDS = [("content-type", JSON)]


class App:
    """Answers every exchange; the pool is made on the loop that serves."""

    def __init__(self):
        self.pool = None

    def __rsgi_init__(self, loop):
        if postgres():
            import asyncpg

            self.pool = loop.run_until_complete(
                asyncpg.create_pool(postgres(), min_size=POOL, max_size=POOL)
            )

    async def __rsgi__(self, scope, protocol):
        path = scope.path
        if path == "/":
            protocol.response_str(200, TEXT_FIELDS, HELLO)
        elif path == "/json":
            protocol.response_bytes(200, JSON_FIELDS, dumps(MESSAGE))
        elif path == "/big":
            protocol.response_str(200, TEXT_FIELDS, BIG)
        elif path == "/length":
            protocol.response_str(200, TEXT_FIELDS, str(len(await protocol())))
        elif path == "/upload":
            total = 0
            async for piece in protocol:
                total += len(piece)
            protocol.response_str(200, TEXT_FIELDS, str(total))
        elif path == "/await":
            await asyncio.sleep(0)
            protocol.response_str(200, TEXT_FIELDS, HELLO)
        elif path == "/row":
            found = await self.pool.fetchrow(ROW, 1)
            body = dumps({"id": found["id"], "number": found["number"]})
            protocol.response_bytes(200, JSON_FIELDS, body)
        elif path.startswith(USERS):
            protocol.response_str(200, TEXT_FIELDS, path[len(USERS) :])
        else:
            protocol.response_empty(404, [])


app = App()
