"""Japronto 0.1.2, sync handler, under CPython 3.7: the program that anel succeeds.

Answers the same body as every other app here. It sends no Date, which saves it 37 bytes a response.
"""

import argparse

from japronto import Application


def hello(request):
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
