"""Robyn with plain functions as handlers; `--constant` has it answer without Python (`const=True`).

One process, one worker; the log level is above that of its access log.
"""

import argparse
import sys

from exchanges import BIG, HELLO, JSON, MESSAGE, TEXT

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--constant", action="store_true")
arguments = parser.parse_args()
# Robyn reads the command line itself when it is imported; these are its own words.
sys.argv[1:] = ["--processes", "1", "--workers", "1", "--log-level", "ERROR", "--disable-openapi"]

from orjson import dumps  # noqa: E402
from robyn import Headers, Response, Robyn  # noqa: E402

app = Robyn(__file__)
TEXT_FIELDS = Headers({"content-type": TEXT})
JSON_FIELDS = Headers({"content-type": JSON})


@app.get("/", const=arguments.constant)
def hello(request):
    return Response(status_code=200, headers=TEXT_FIELDS, description=HELLO)


@app.get("/json")
def as_json(request):
    return Response(status_code=200, headers=JSON_FIELDS, description=dumps(MESSAGE))


@app.get("/users/:id")
def user(request):
    return Response(status_code=200, headers=TEXT_FIELDS, description=request.path_params["id"])


@app.get("/big", const=arguments.constant)
def big(request):
    return Response(status_code=200, headers=TEXT_FIELDS, description=BIG)


@app.post("/length")
def length(request):
    return Response(status_code=200, headers=TEXT_FIELDS, description=str(len(request.body)))


if __name__ == "__main__":
    app.start(host="127.0.0.1", port=arguments.port)
