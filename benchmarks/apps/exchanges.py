"""What every engine answers: the bodies of the exchanges in scenarios.toml.

Shared by the Python programs, also by Japronto's under CPython 3.7. Nothing here is done per request but
`encode`, which writes compact JSON for those whose own encoder would put blanks in it.
"""

import json
import os

HELLO = "Hello world!"
# Encoded for every answer: serialising it is part of what is measured.
MESSAGE = {"message": HELLO}
BIG = "0123456789abcdef" * 65536
USERS = "/users/"
ROW = "SELECT id, number FROM rows WHERE id = $1"
# As many as PostgreSQL has backends for without being asked.
POOL = 16

HELLO_BYTES = HELLO.encode()
BIG_BYTES = BIG.encode()
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

# json.dumps would make a new encoder for every call with separators.
encode = json.JSONEncoder(separators=(",", ":")).encode


def postgres():
    """Where the database of the run is; the benchmarks start one for the scenarios that need it."""
    return os.environ.get("ANEL_BENCH_POSTGRES")
