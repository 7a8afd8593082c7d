"""Starts the servers that are C extensions on the bare WSGI or ASGI application: one worker, no log.

Each as its README shows. FastPySGI and FastWSGI have Nagle's algorithm on by default; with it a pipeline waits
for delayed acknowledgements, so their `tcp_nodelay` is set. bjoern has nothing to set.
"""

import argparse

UPLOAD_BYTES_MAX = 32 << 20


def serve_bjoern(port):
    import bjoern
    from wsgi_app import app

    bjoern.run(app, "127.0.0.1", port)


def serve_fastwsgi(port):
    import fastwsgi
    from wsgi_app import app

    fastwsgi.server.tcp_nodelay = 1
    fastwsgi.server.max_content_length = UPLOAD_BYTES_MAX
    fastwsgi.run(wsgi_app=app, host="127.0.0.1", port=port, loglevel=0)


def serve_fastpysgi(port, app):
    import fastpysgi

    fastpysgi.server.tcp_nodelay = 1
    fastpysgi.server.max_content_length = UPLOAD_BYTES_MAX
    fastpysgi.run(app, host="127.0.0.1", port=port, loglevel=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "server", choices=("bjoern", "fastwsgi", "fastpysgi-wsgi", "fastpysgi-asgi")
    )
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.server == "bjoern":
        serve_bjoern(arguments.port)
    elif arguments.server == "fastwsgi":
        serve_fastwsgi(arguments.port)
    elif arguments.server == "fastpysgi-wsgi":
        from wsgi_app import app

        serve_fastpysgi(arguments.port, app)
    else:
        from asgi_app import app

        serve_fastpysgi(arguments.port, app)


if __name__ == "__main__":
    main()
