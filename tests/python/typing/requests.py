"""Must pass `mypy --strict`: the type of each attribute is what the documentation says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, assert_type

from anel import (
    Application,
    Event,
    EventStream,
    File,
    FileResponse,
    Files,
    Form,
    Headers,
    Request,
    Response,
    ResponseHeaders,
    Route,
)


def attributes(request: Request) -> Response:
    assert_type(request.method, str)
    assert_type(request.path, str)
    assert_type(request.query_string, str | None)
    assert_type(request.query["name"], str)
    assert_type(request.query.getall("name"), list[str])
    assert_type(request.version, str)
    assert_type(request.headers, Headers)
    assert_type(request.match_dict, dict[str, Any])
    assert_type(request.body, bytes | None)
    assert_type(request.text, str | None)
    assert_type(request.json, Any)
    assert_type(request.form, Form | None)
    assert_type(request.files, Files | None)
    assert_type(request.cookies, dict[str, str])
    assert_type(request.mime_type, str | None)
    assert_type(request.encoding, str | None)
    assert_type(request.keep_alive, bool)
    assert_type(request.remote_addr, str | None)
    assert_type(request.hostname, str | None)
    assert_type(request.port, int | None)
    assert_type(request.route, Route | None)
    assert_type(request.app, Application)
    assert_type(request.extra, dict[str, Any])
    return request.Response()


def headers(request: Request) -> dict[str, str]:
    found = request.headers
    assert_type(found["Host"], str)
    assert_type(found.get("Host"), str | None)
    assert_type(found.get("Host", "default"), str)
    assert_type(found.get("Host", 7), str | int)
    assert_type(found.getall("Via"), list[str])
    assert_type(found.get_all("Via"), list[str])
    plain: dict[str, str] = found
    return plain | dict(found.items())


def response(made: Response) -> None:
    assert_type(made.code, int)
    assert_type(made.content_type, str | None)
    assert_type(made.body, bytes | None)


def changes(made: Response) -> Response:
    headers = made.headers
    assert_type(headers, ResponseHeaders)
    assert_type(headers["Vary"], str)
    assert_type(headers.get("Vary"), str | None)
    assert_type(headers.getall("Vary"), list[str])
    assert_type(headers.items(), list[tuple[str, str]])
    headers["Vary"] = "Accept"
    made.set_cookie("name", "value", max_age=60, samesite="Strict")
    made.delete_cookie("name", domain="example.org")
    return Response(headers=headers)


def upload(form: Form, files: Files) -> None:
    assert_type(form["name"], str)
    assert_type(form.getall("name"), list[str])
    assert_type(files["name"], File)
    assert_type(files.getall("name"), list[File])
    assert_type(files["name"].body, bytes)


def file(request: Request) -> FileResponse:
    return FileResponse(f"/srv/{request.match_dict['name']}", filename="ż.txt", headers={"A": "b"})


async def ticks() -> AsyncIterator[Event | str | dict[str, Any]]:
    yield Event({"n": 1}, event="tick", id="1", retry=1000)
    yield "text"
    yield {"n": 2}


def events(request: Request) -> EventStream:
    return EventStream(ticks(), retry=1000, ping_s=None)


def extensions(request: Request) -> object:
    shout: Callable[[], str] = request.shout
    return shout()
