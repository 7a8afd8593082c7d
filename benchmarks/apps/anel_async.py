"""anel with coroutine functions as handlers.

Those of the first exchanges never await, so they are driven to their end without a Task; `/await` suspends
once, `/row` waits for PostgreSQL, `/upload` reads its body as it comes.
"""

import argparse
import asyncio

from exchanges import BIG, HELLO, MESSAGE, POOL, ROW, postgres

from anel import Application

app = Application()


async def hello(request):
    return request.Response(text=HELLO)


async def as_json(request):
    return request.Response(json=MESSAGE)


async def user(request, id):
    return request.Response(text=id)


async def length(request):
    return request.Response(text=str(len(request.body)))


async def upload(request):
    total = 0
    async for piece in request.stream():
        total += len(piece)
    return request.Response(text=str(total))


async def big(request):
    return request.Response(text=BIG)


async def suspended(request):
    await asyncio.sleep(0)
    return request.Response(text=HELLO)


def add_row():
    """The route that needs a database, where the run has one."""
    import asyncpg

    pool = None

    @app.lifespan
    async def database(app):
        nonlocal pool
        async with asyncpg.create_pool(postgres(), min_size=POOL, max_size=POOL) as pool:
            yield

    async def row(request):
        found = await pool.fetchrow(ROW, 1)
        return request.Response(json={"id": found["id"], "number": found["number"]})

    app.router.add_route("/row", row)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reactor", default="auto", choices=("auto", "io_uring", "epoll"))
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    app.router.add_route("/", hello)
    app.router.add_route("/json", as_json)
    app.router.add_route("/users/{id}", user)
    app.router.add_route("/length", length, "POST")
    # Above the 20 MB of the upload; 16 MiB is the default.
    app.router.add_route("/upload", upload, "POST", stream=True, body_bytes_max=32 << 20)
    app.router.add_route("/big", big)
    app.router.add_route("/await", suspended)
    if postgres():
        add_row()
    app.run(
        host="127.0.0.1",
        port=arguments.port,
        reactor=arguments.reactor,
        worker_num=arguments.workers,
    )


if __name__ == "__main__":
    main()
