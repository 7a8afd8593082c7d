"""Japronto 0.1.2 under CPython 3.7, the program that anel succeeds: plain functions, or coroutines (--async).

It sends no Date, which saves it 37 bytes a response. Two suspended coroutines of one connection abort the
process, so `/await` is not for pipelines.
"""

import argparse
import asyncio

from exchanges import BIG, HELLO, JSON, MESSAGE, encode

from japronto import Application


def hello(request):
    return request.Response(text=HELLO)


def as_json(request):
    return request.Response(text=encode(MESSAGE), mime_type=JSON)


def user(request):
    return request.Response(text=request.match_dict["id"])


def length(request):
    return request.Response(text=str(len(request.body)))


def big(request):
    return request.Response(text=BIG)


async def hello_async(request):
    return request.Response(text=HELLO)


async def suspended(request):
    await asyncio.sleep(0)
    return request.Response(text=HELLO)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--async", action="store_true", dest="coroutines")
    arguments = parser.parse_args()
    app = Application()
    if arguments.coroutines:
        app.router.add_route("/", hello_async)
        app.router.add_route("/await", suspended)
    else:
        app.router.add_route("/", hello)
        app.router.add_route("/json", as_json)
        app.router.add_route("/users/{id}", user)
        app.router.add_route("/length", length)
        app.router.add_route("/upload", length)
        app.router.add_route("/big", big)
    app.run(host="127.0.0.1", port=arguments.port, worker_num=1)


if __name__ == "__main__":
    main()
