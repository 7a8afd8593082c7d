"""Counts what each way through the Python boundary costs, in instructions per request.

Run with an installed anel: `python benchmarks/micro/boundary.py [--requests N] [VARIANT ...]`. Each variant is
a program that is served under callgrind twice, with few and with many requests; the difference, divided by the
difference in requests, is free of start-up. Instructions are used because they repeat to a fraction of a
percent on a machine whose clock does not. They are those of user code: the kernel's are not seen.

The variants `fast-method` and `class` are the control pair of `request.Response` (src/python/raw.rs:
`add_fast_method`), `fast-method` and `keeps-request` that of the re-use of requests nobody kept,
`fast-method` and `constant-object` what making a response costs at all. `eager-task` is a task that does not
suspend, `one-await` one that does, once.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys

import callgrind

HANDLERS = {
    "constant-route": "app.router.add_constant('/', text='Hello world!')",
    "constant-object": "made = Response(text='Hello world!')\ndef handler(request): return made",
    "plain-str": "def handler(request): return 'Hello world!'",
    "fast-method": "def handler(request): return request.Response(text='Hello world!')",
    "class": "def handler(request): return Response(text='Hello world!')",
    "keeps-request": (
        "kept = None\ndef handler(request):\n    global kept\n    kept = request\n"
        "    return request.Response(text='Hello world!')"
    ),
    "await-free": "async def handler(request): return request.Response(text='Hello world!')",
    "eager-task": (
        "import functools\nasync def inner(request): return request.Response(text='Hello world!')\n"
        "handler = functools.partial(inner)"
    ),
    "one-await": (
        "import asyncio\nasync def handler(request):\n    await asyncio.sleep(0)\n"
        "    return request.Response(text='Hello world!')"
    ),
    "reads-path": (
        "def handler(request):\n    request.path\n"
        "    return request.Response(text='Hello world!')"
    ),
    "reads-header": (
        "def handler(request):\n    request.headers['Host']\n"
        "    return request.Response(text='Hello world!')"
    ),
}
PROGRAM = """
from anel import Application, Response
app = Application()
{handler}
if 'handler' in globals():
    app.router.add_route('/', handler)
app.run(host='127.0.0.1', port=0, reactor='epoll')
"""
CONNECTIONS = 20
DEPTH = 24
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"


def main() -> None:
    """Measures and prints a table and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(HANDLERS))
    parser.add_argument("--requests", type=int, default=24_000)
    arguments = parser.parse_args()
    if callgrind.version() is None:
        sys.exit("boundary.py: no valgrind: install it (apt-get install valgrind)")
    few = 20
    many = few + max(1, arguments.requests // (CONNECTIONS * DEPTH))
    counts = {}
    print(f"CPython {platform.python_version()}, instructions of user code per request, "
          f"{CONNECTIONS} connections x {DEPTH}, epoll")
    for variant in arguments.variants or HANDLERS:
        source = PROGRAM.format(handler=HANDLERS[variant])
        rounds = callgrind.per_round(
            lambda count, source=source: callgrind.served(
                source, count, REQUEST * DEPTH, DEPTH, CONNECTIONS
            ),
            few,
            many,
        )
        counts[variant] = round(rounds / (CONNECTIONS * DEPTH))
        print(f"{variant:18}{counts[variant]:8}", flush=True)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
