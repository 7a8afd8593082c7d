"""BlackSheep, to be run by uvicorn as its documentation does (neoteroi.dev/blacksheep/getting-started)."""

import asyncio

from blacksheep import Application, Content, Request, Response, get, post
from exchanges import BIG_BYTES, HELLO_BYTES, JSON, MESSAGE, POOL, ROW, TEXT, postgres
from orjson import dumps

app = Application()
TEXT_BYTES, JSON_BYTES = TEXT.encode(), JSON.encode()


def text(body):
    return Response(200, content=Content(TEXT_BYTES, body))


def as_json(value):
    return Response(200, content=Content(JSON_BYTES, dumps(value)))


@get("/")
async def hello():
    return text(HELLO_BYTES)


@get("/json")
async def message():
    return as_json(MESSAGE)


@get("/users/{id}")
async def user(id: str):
    return text(id.encode())


@get("/big")
async def big():
    return text(BIG_BYTES)


@get("/await")
async def suspended():
    await asyncio.sleep(0)
    return text(HELLO_BYTES)


@post("/length")
async def length(request: Request):
    return text(str(len(await request.read() or b"")).encode())


@post("/upload")
async def upload(request: Request):
    total = 0
    async for piece in request.stream():
        total += len(piece)
    return text(str(total).encode())


@app.lifespan
async def database():
    if not postgres():
        yield
        return
    import asyncpg

    async with asyncpg.create_pool(postgres(), min_size=POOL, max_size=POOL) as app.pool:
        yield


@get("/row")
async def row():
    found = await app.pool.fetchrow(ROW, 1)
    return as_json({"id": found["id"], "number": found["number"]})
