"""Japronto's forms, files, cookies and done callbacks, and its example of a REST service."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from conftest import Answer, Serve, Server, get

PROGRAMS = pathlib.Path(__file__).parent / "japronto" / "programs"


@pytest.fixture
def run(serve_japronto: Serve, reactor: str) -> Serve:
    """`run(name, *arguments)` runs one of the programs, on each reactor."""

    def start(name: str, *arguments: str) -> Server:
        return serve_japronto(PROGRAMS / f"{name}.py", *arguments, reactor=reactor)

    return start


URLENCODED = "Content-Type: application/x-www-form-urlencoded"
MULTIPART = (
    b'--b\r\nContent-Disposition: form-data; name="field"\r\n\r\nvalue\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n\x00\xff\r\n"
    b'--b\r\nContent-Disposition: form-data; name="typed"\r\n'
    b"Content-Type: text/csv\r\n\r\n1,2\r\n--b--\r\n"
)


def test_4_an_urlencoded_form_is_a_dict(run: Serve) -> None:
    answer = run("forms").ask(get("/", URLENCODED, method="POST", body=b"a=1&b=%C3%A9&a=2"))

    assert "form: {'a': '2', 'b': '\u00e9'}\n" in answer.text


def test_4_a_multipart_form_has_fields_and_files(run: Serve) -> None:
    fields = ("Content-Type: multipart/form-data; boundary=b",)

    text = run("forms").ask(get("/", *fields, method="POST", body=MULTIPART)).text

    assert "form: {'field': 'value'}\n" in text
    assert "file file: a.bin application/octet-stream b'\\x00\\xff'\n" in text
    assert "file typed: None text/csv b'1,2'\n" in text


def test_4_another_body_is_no_form(run: Serve) -> None:
    server = run("forms")

    assert "form: None\n" in server.ask(get("/", method="POST", body=b"a=1")).text
    assert "form: None\n" in server.ask(get("/")).text


def test_4_cookies_are_a_dict(run: Serve) -> None:
    server = run("forms")

    text = server.ask(get("/", 'Cookie: a=1; b="two words"; c=%C3%A9')).text

    assert "cookies: {'a': '1', 'b': 'two words', 'c': '\u00e9'}\n" in text
    assert "cookies: {}\n" in server.ask(get("/")).text


@pytest.mark.parametrize("path", ["/callback", "/later"])
def test_7_done_callbacks_are_called_in_their_order(run: Serve, path: str) -> None:
    server = run("callback")

    assert server.ask(get(path)).text == "cb"

    server.wait_for_line("and the second")
    assert server.lines[-2:] == [f"done with {path}", "and the second"]


def test_todo_api(run: Serve, tmp_path: pathlib.Path) -> None:
    server = run("todo_api", str(tmp_path / "todo.db"))

    def ask(target: str, method: str = "GET", todo: str | None = None) -> tuple[int, Any]:
        body = None if todo is None else json.dumps({"todo": todo}).encode()
        answer: Answer = server.ask(get(target, method=method, body=body))
        return answer.status, json.loads(answer.body)

    assert ask("/todos") == (200, {"results": []})
    assert ask("/todos", "POST", "write tests") == (201, {"id": 1, "todo": "write tests"})
    assert ask("/todos", "POST", "run them") == (201, {"id": 2, "todo": "run them"})
    assert ask("/todos/2") == (200, {"id": 2, "todo": "run them"})
    assert ask("/todos/1", "DELETE") == (200, {})
    assert ask("/todos/1") == (404, {"error": "not found"})
    assert ask("/nowhere") == (404, {"error": "not found"})
    assert ask("/todos") == (200, {"results": [{"id": 2, "todo": "run them"}]})
