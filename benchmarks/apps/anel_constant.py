"""A constant route: rendered once, served without calling Python. Labelled so in every chart."""

import argparse

from anel import Application


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--reactor", default="auto", choices=("auto", "io_uring", "epoll"))
    arguments = parser.parse_args()
    app = Application()
    app.router.add_constant("/", text="Hello world!")
    app.run(host="127.0.0.1", port=arguments.port, reactor=arguments.reactor)


if __name__ == "__main__":
    main()
