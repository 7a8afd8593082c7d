"""Japronto 0.1.2 under CPython 3.7, a coroutine that suspends once: the counterpart of anel_await.

Not for pipelines: two suspended coroutines of one connection abort the process.
"""

import argparse
import asyncio

from japronto import Application


async def hello(request):
    await asyncio.sleep(0)
    return request.Response(text="Hello world!")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    app = Application()
    app.router.add_route("/", hello)
    app.run(host="127.0.0.1", port=port, worker_num=1)


if __name__ == "__main__":
    main()
