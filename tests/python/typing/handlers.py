"""Must pass `mypy --strict`: handlers of every kind, routes, error handlers and extensions."""

from __future__ import annotations

import asyncio
import functools
from http.cookies import SimpleCookie
from typing import Any

from anel import (
    Application,
    HTTPException,
    Request,
    Response,
    Route,
    RouteNotFoundException,
)

app = Application(reaper_settings={"idle_timeout": 60}, log_request=None, debug=False)


def sync(request: Request) -> Response:
    return request.Response(text="Hello world!")


async def awaits(request: Request) -> Response:
    await asyncio.sleep(0)
    return request.Response("positional", 201)


def plain(request: Request) -> dict[str, Any]:
    return {"method": request.method}


def with_status(request: Request) -> tuple[str, int]:
    return request.path, 404


def greets(request: Request, greeting: str) -> Response:
    return request.Response(text=greeting)


class Stateful:
    async def __call__(self, request: Request) -> Response:
        return request.Response(json=[1, "two", None])


def every_argument(request: Request) -> Response:
    cookies: SimpleCookie = SimpleCookie()
    cookies["name"] = "value"
    return request.Response(
        text="text",
        code=200,
        body=None,
        json=None,
        mime_type="text/html",
        encoding="utf-8",
        headers={"X-A": "1"},
        cookies=cookies,
    )


def aliases(request: Request) -> Response:
    if request.keep_alive:
        return Response(body=b"octets", status=202)
    return request.Response(body=bytearray(b"octets"), status_code=202)


def pairs(request: Request) -> Response:
    return Response(headers=[("Vary", "A"), ("Vary", "B")])


def fails(request: Request) -> Response:
    raise HTTPException(404, "not here", {"X-A": "1"})


def on_missing(request: Request, error: RouteNotFoundException) -> Response:
    return request.Response(text="Not here", code=404)


def on_anything(request: Request, error: BaseException) -> Response:
    return request.Response(text=str(error), code=500)


def user(request: Request) -> str:
    return request.headers.get("X-User", "nobody")


route: Route = app.router.add_route("/", sync)
app.router.add_route("/awaits", awaits, "GET")
app.router.add_route("/plain", plain, method="POST")
app.router.add_route("/status", with_status, methods=["GET", "HEAD"])
app.router.add_route("/partial", functools.partial(greets, greeting="hello"))
app.router.add_route("/callable", Stateful())
app.router.add_route("/every", every_argument)
app.router.add_route("/aliases", aliases)
app.router.add_route("/pairs", pairs)
app.router.add_route("/fails", fails)
app.router.add_constant("/constant", text="constant", headers={"X-A": "1"})
app.add_error_handler(RouteNotFoundException, on_missing)
app.add_error_handler(None, on_anything)
app.extend_request(user, property=True)
app.extend_request(lambda request: request.path, name="where")

if __name__ == "__main__":
    app.run("127.0.0.1", 8080, reactor="auto", debug=True)
