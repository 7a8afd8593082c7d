"""Constant routes: rendered once, served without calling Python. Labelled so in every chart."""

import argparse

from exchanges import BIG, HELLO

from anel import Application


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reactor", default="auto", choices=("auto", "io_uring", "epoll"))
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    app = Application()
    app.router.add_constant("/", text=HELLO)
    app.router.add_constant("/big", text=BIG)
    app.run(
        host="127.0.0.1",
        port=arguments.port,
        reactor=arguments.reactor,
        worker_num=arguments.workers,
    )


if __name__ == "__main__":
    main()
