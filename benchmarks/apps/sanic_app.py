"""Sanic: one process, uvloop, no access log (sanic.dev/en/guide/running/running.html)."""

import argparse
import asyncio

from exchanges import BIG_BYTES, HELLO, MESSAGE, POOL, ROW, TEXT, postgres
from orjson import dumps
from sanic import Sanic
from sanic.response import json, raw, text

app = Sanic("anel-bench", dumps=dumps)
app.config.ACCESS_LOG = False
app.config.REQUEST_MAX_SIZE = 32 << 20


@app.get("/")
async def hello(request):
    return text(HELLO)


@app.get("/json")
async def as_json(request):
    return json(MESSAGE)


@app.get("/users/<id:str>")
async def user(request, id):
    return text(id)


@app.get("/big")
async def big(request):
    return raw(BIG_BYTES, content_type=TEXT)


@app.get("/await")
async def suspended(request):
    await asyncio.sleep(0)
    return text(HELLO)


@app.post("/length")
async def length(request):
    return text(str(len(request.body)))


@app.post("/upload", stream=True)
async def upload(request):
    total = 0
    while (piece := await request.stream.read()) is not None:
        total += len(piece)
    return text(str(total))


@app.before_server_start
async def connect(app):
    if postgres():
        import asyncpg

        app.ctx.pool = await asyncpg.create_pool(postgres(), min_size=POOL, max_size=POOL)


@app.get("/row")
async def row(request):
    found = await app.ctx.pool.fetchrow(ROW, 1)
    return json({"id": found["id"], "number": found["number"]})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    app.run(
        "127.0.0.1",
        parser.parse_args().port,
        single_process=True,
        access_log=False,
        motd=False,
    )
