"""socketify (uWebSockets) with plain functions as handlers, as its README shows."""

import argparse

from exchanges import BIG_BYTES, HELLO_BYTES, JSON, MESSAGE, TEXT
from orjson import dumps
from socketify import App, AppListenOptions


def hello(response, request):
    response.write_header("Content-Type", TEXT)
    response.end(HELLO_BYTES)


def as_json(response, request):
    response.write_header("Content-Type", JSON)
    response.end(dumps(MESSAGE))


def user(response, request):
    response.write_header("Content-Type", TEXT)
    response.end(request.get_parameter(0))


def big(response, request):
    response.write_header("Content-Type", TEXT)
    response.end(BIG_BYTES)


def length(response, request):
    total = 0

    def on_data(response, piece, is_last):
        nonlocal total
        total += len(piece) if piece else 0
        if is_last:
            response.write_header("Content-Type", TEXT)
            response.end(str(total))

    response.on_data(on_data)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    app = App()
    app.get("/", hello)
    app.get("/json", as_json)
    app.get("/users/:id", user)
    app.get("/big", big)
    app.post("/length", length)
    app.post("/upload", length)
    app.listen(AppListenOptions(port, "127.0.0.1"), lambda config: None)
    app.run()


if __name__ == "__main__":
    main()
