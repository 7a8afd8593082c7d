"""The exchanges as a bare WSGI application, for the servers that run one. No framework."""

from exchanges import BIG_BYTES, HELLO_BYTES, JSON, MESSAGE, TEXT, USERS

try:
    from orjson import dumps
except ImportError:
    from exchanges import encode

    def dumps(value):
        """Compact JSON without orjson."""
        return encode(value).encode()


# What a server asks for at once when a body comes in pieces.
PIECE_BYTES = 64 * 1024


def app(environ, start_response):
    """Answers every exchange that does not wait."""
    path = environ["PATH_INFO"]
    kind = TEXT
    if path == "/":
        body = HELLO_BYTES
    elif path == "/json":
        body, kind = dumps(MESSAGE), JSON
    elif path == "/big":
        body = BIG_BYTES
    elif path in ("/length", "/upload"):
        body = length(environ["wsgi.input"])
    elif path.startswith(USERS):
        body = path[len(USERS) :].encode("latin-1")
    else:
        start_response("404 Not Found", [("Content-Length", "0")])
        return [b""]
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def length(stream):
    total = 0
    while piece := stream.read(PIECE_BYTES):
        total += len(piece)
    return str(total).encode()
