"""A coroutine that suspends once: a real asyncio Task for every request."""

import argparse
import asyncio

from anel import Application


async def hello(request):
    await asyncio.sleep(0)
    return request.Response(text="Hello world!")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reactor", default="auto", choices=("auto", "io_uring", "epoll"))
    arguments = parser.parse_args()
    app = Application()
    app.router.add_route("/", hello)
    app.run(host="127.0.0.1", port=arguments.port, reactor=arguments.reactor)


if __name__ == "__main__":
    main()
