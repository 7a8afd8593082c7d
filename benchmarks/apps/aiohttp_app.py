"""aiohttp's own server on uvloop, no access log (docs.aiohttp.org/en/stable/deployment.html)."""

import argparse
import asyncio

import uvloop
from aiohttp import web
from exchanges import BIG_BYTES, HELLO, JSON, MESSAGE, POOL, ROW, postgres
from orjson import dumps


async def hello(request):
    return web.Response(text=HELLO)


async def as_json(request):
    return web.Response(body=dumps(MESSAGE), content_type=JSON)


async def user(request):
    return web.Response(text=request.match_info["id"])


async def big(request):
    return web.Response(body=BIG_BYTES, content_type="text/plain")


async def suspended(request):
    await asyncio.sleep(0)
    return web.Response(text=HELLO)


async def length(request):
    return web.Response(text=str(len(await request.read())))


async def upload(request):
    total = 0
    async for piece in request.content.iter_any():
        total += len(piece)
    return web.Response(text=str(total))


async def row(request):
    found = await request.app["pool"].fetchrow(ROW, 1)
    body = dumps({"id": found["id"], "number": found["number"]})
    return web.Response(body=body, content_type=JSON)


async def database(app):
    import asyncpg

    async with asyncpg.create_pool(postgres(), min_size=POOL, max_size=POOL) as app["pool"]:
        yield


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    app = web.Application(client_max_size=32 << 20)
    app.add_routes(
        [
            web.get("/", hello),
            web.get("/json", as_json),
            web.get("/users/{id}", user),
            web.get("/big", big),
            web.get("/await", suspended),
            web.post("/length", length),
            web.post("/upload", upload),
        ]
    )
    if postgres():
        app.cleanup_ctx.append(database)
        app.router.add_get("/row", row)
    loop = uvloop.new_event_loop()
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None, loop=loop)


if __name__ == "__main__":
    main()
