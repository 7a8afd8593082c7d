"""anel with plain functions as handlers: the program of the README, and the other exchanges."""

import argparse

from exchanges import BIG, HELLO, MESSAGE

from anel import Application


def hello(request):
    return request.Response(text=HELLO)


def as_json(request):
    return request.Response(json=MESSAGE)


def user(request, id):
    return request.Response(text=id)


def length(request):
    return request.Response(text=str(len(request.body)))


def big(request):
    return request.Response(text=BIG)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reactor", default="auto", choices=("auto", "io_uring", "epoll"))
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    app = Application()
    app.router.add_route("/", hello)
    app.router.add_route("/json", as_json)
    app.router.add_route("/users/{id}", user)
    # Above the 20 MB of the upload; 16 MiB is the default.
    for path in ("/length", "/upload"):
        app.router.add_route(path, length, "POST", body_bytes_max=32 << 20)
    app.router.add_route("/big", big)
    app.run(
        host="127.0.0.1",
        port=arguments.port,
        reactor=arguments.reactor,
        worker_num=arguments.workers,
    )


if __name__ == "__main__":
    main()
