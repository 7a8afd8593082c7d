"""The exchanges as a bare ASGI application, for the servers that run one. No framework."""

import asyncio

from exchanges import (
    BIG_BYTES,
    HELLO_BYTES,
    JSON,
    MESSAGE,
    POOL,
    ROW,
    TEXT,
    USERS,
    postgres,
)
from orjson import dumps

pool = None
TEXT_BYTES, JSON_BYTES = TEXT.encode(), JSON.encode()


async def app(scope, receive, send):
    """Answers every exchange."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    path = scope["path"]
    status, kind = 200, TEXT_BYTES
    if path == "/":
        body = HELLO_BYTES
    elif path == "/json":
        body, kind = dumps(MESSAGE), JSON_BYTES
    elif path == "/big":
        body = BIG_BYTES
    elif path in ("/length", "/upload"):
        body = await length(receive)
    elif path == "/await":
        await asyncio.sleep(0)
        body = HELLO_BYTES
    elif path == "/row":
        found = await pool.fetchrow(ROW, 1)
        body, kind = dumps({"id": found["id"], "number": found["number"]}), JSON_BYTES
    elif path.startswith(USERS):
        body = path[len(USERS) :].encode()
    else:
        status, body = 404, b""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", kind),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def length(receive):
    total, more = 0, True
    while more:
        message = await receive()
        total += len(message.get("body", b""))
        more = message.get("more_body", False)
    return str(total).encode()


async def lifespan(receive, send):
    global pool
    await receive()
    if postgres():
        import asyncpg

        pool = await asyncpg.create_pool(postgres(), min_size=POOL, max_size=POOL)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if pool is not None:
        await pool.close()
    await send({"type": "lifespan.shutdown.complete"})
