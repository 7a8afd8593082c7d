"""The wire cases of `tests/cases` against a live server, under several splits of their bytes.

Owns the reading of the files and the comparison. All cases of a split are on the way at the same
time, a piece of each in turn, so that the pieces arrive apart. What is right is said by the files;
their form is described in `tests/cases/README.md`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import random
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from conftest import Client, Server, get

PROGRAM = """
    import base64
    from anel import Application

    app = Application()

    def echo(request, error=None):
        return request.Response(json={
            "method": request.method,
            "version": request.version,
            "query": request.query_string,
            "keep_alive": request.keep_alive,
            "body": None if request.body is None else request.body.decode("latin-1"),
            "headers": request.headers,
        })

    app.add_error_handler(None, echo)
    # OPTIONS about the server would be answered by it.
    app.router.add_route("*", echo)
"""

CASES = pathlib.Path(__file__).parents[1] / "cases"

# Some inputs have 64 KiB; byte by byte, as many sends prove nothing more than these do.
PIECES_MAX = 300

# RFC 9110 5.6.7.
DATE = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")

Split = Callable[[bytes], Iterable[int]]


def cases() -> list[dict[str, Any]]:
    """All cases, with their input as bytes."""
    found = []
    for path in sorted(CASES.glob("*.toml")):
        for case in tomllib.loads(path.read_text())["case"]:
            case["input"] = as_bytes(case["input"])
            found.append(case)
    return found


def as_bytes(value: Any) -> bytes:
    """A string, or a list of strings and repetitions, as Latin-1."""
    if isinstance(value, str):
        return value.encode("latin-1")
    parts = [part if isinstance(part, str) else part["repeat"] * part["times"] for part in value]
    return "".join(parts).encode("latin-1")


def every(size: int) -> Split:
    return lambda data: itertools.repeat(max(size, len(data) // PIECES_MAX))


def doubling(data: bytes) -> Iterator[int]:
    return (2**power for power in itertools.count())


def halving(data: bytes) -> Iterator[int]:
    left = len(data)
    while left > 0:
        size = max(1, left // 2)
        left -= size
        yield size


def seeded(seed: int) -> Split:
    def sizes(data: bytes) -> Iterator[int]:
        numbers = random.Random(f"{seed} {len(data)}")
        while True:
            yield max(int(2 ** numbers.uniform(0, 7)), len(data) // PIECES_MAX)

    return sizes


SPLITS: dict[str, Split] = {
    "whole": lambda data: [len(data)],
    "byte by byte": every(1),
    "by 2": every(2),
    "by 7": every(7),
    "by 64": every(64),
    "doubling": doubling,
    "halving": halving,
    **{f"seed {seed}": seeded(seed) for seed in range(8)},
}


def pieces(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


def send_all(clients: list[Client], inputs: list[list[bytes]]) -> None:
    """Sends a piece of each in turn. A refused peer may be told so before it has sent all."""
    for turn in itertools.zip_longest(*inputs):
        for client, piece in zip(clients, turn, strict=True):
            if piece is not None:
                try:
                    client.send(piece)
                except (BrokenPipeError, ConnectionResetError):
                    continue


def check(case: dict[str, Any], client: Client, *, half_closed: bool = False) -> None:
    """Reads what the server made of a case, which was sent completely."""
    requests = case.get("requests", [])
    for expected in requests:
        check_answer(expected, client)
    if case.get("wants_more"):
        if not half_closed:
            client.finish()
        assert client.answer().status == 400
        assert client.is_ended()
    elif "refuse" in case:
        answer = client.answer(case.get("refused_method", "GET"))
        assert answer.status == case["status"]
        assert answer.field("Connection") == "close"
        assert answer.field("Content-Length") != "0"
        assert DATE.fullmatch(answer.field("Date") or "")
        assert client.is_ended()
    elif half_closed or (requests and not requests[-1].get("keep_alive", True)):
        assert client.is_ended()
    else:
        probe = client.ask(get("/probe?probe"))
        assert json.loads(probe.body)["query"] == "probe"


def check_answer(expected: dict[str, Any], client: Client) -> None:
    method = expected.get("method", "GET")
    answer = client.answer(method)
    version, keep_alive = expected.get("version", "1.1"), expected.get("keep_alive", True)
    assert (answer.version, answer.status) == (f"HTTP/{version}", 200)
    # RFC 9110 6.6.1: once, which `field` sees to.
    assert DATE.fullmatch(answer.field("Date") or "")
    assert answer.field("Connection") == {
        ("1.0", True): "keep-alive",
        ("1.1", False): "close",
    }.get((version, keep_alive))
    if method == "HEAD":
        return
    seen = json.loads(answer.body)
    assert (seen["method"], seen["version"]) == (method, version)
    assert seen["keep_alive"] == keep_alive
    body = expected.get("body")
    assert seen["body"] == (None if body is None else as_bytes(body).decode("latin-1"))
    if "query" in expected or "path" in expected:
        assert seen["query"] == expected.get("query")
    if "fields" in expected:
        joined: dict[str, str] = {}
        for name, value in expected["fields"]:
            name = name.title()
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        assert seen["headers"] == joined


@pytest.mark.parametrize("split", SPLITS)
def test_every_case_is_answered_as_the_corpus_says(shared: Server, split: str) -> None:
    corpus = cases()
    clients = [shared.client() for _ in corpus]

    send_all(clients, [list(pieces(c["input"], SPLITS[split](c["input"]))) for c in corpus])

    check_all(corpus, clients)


def test_a_peer_that_sends_nothing_more_is_answered_all_the_same(shared: Server) -> None:
    corpus = cases()
    clients = [shared.client() for _ in corpus]

    for case, client in zip(corpus, clients, strict=True):
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(case["input"])
        with contextlib.suppress(OSError):
            # One that was refused may be gone already.
            client.finish()

    check_all(corpus, clients, half_closed=True)


def check_all(
    corpus: list[dict[str, Any]], clients: list[Client], *, half_closed: bool = False
) -> None:
    """`check` for every case; closes its client."""
    failures = []
    for case, client in zip(corpus, clients, strict=True):
        with client:
            try:
                check(case, client, half_closed=half_closed)
            except (AssertionError, OSError, EOFError) as failure:
                failures.append(f"{case['name']}: {failure!r:.400}")
    assert not failures, f"{len(failures)} of {len(corpus)} cases:\n" + "\n".join(failures)


def test_the_corpus_is_there() -> None:
    names = [case["name"] for case in cases()]

    assert len(names) >= 500
    assert len(set(names)) == len(names)
