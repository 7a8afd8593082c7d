"""Three readers of one input: ours, h11, and llhttp by way of httptools.

Owns the way to a common form of what each of them sees. Refuses to judge. Ours is asked through the
example `verdicts` of the crate, which drives the protocol as the server does; a live server would
say the same, a hundred times slower.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import struct
import subprocess
from collections.abc import Iterator
from typing import Any, Literal

import h11
import httptools

ROOT = pathlib.Path(__file__).parents[2]

EXTENSIONS = "Invalid character in chunk extensions"

Ending = Literal["idle", "closed", "more", "refused", "upgraded"]


@dataclasses.dataclass
class Request:
    """A complete request. Names of fields are in lower case, values without white space around."""

    method: bytes
    target: bytes
    version: str
    fields: list[tuple[bytes, bytes]]
    body: bytes


@dataclasses.dataclass
class Verdict:
    """What a reader made of an input: complete requests, then how it ended.

    `idle`: the next request may come; `closed`: nothing more is looked at; `more`: within a
    request; `upgraded`: what follows the head of the last request is no HTTP. `error` is what a
    refusal is called by who refuses.
    """

    requests: list[Request]
    ending: Ending
    error: str | None = None


class Ours:
    """The crate's protocol, in a process that answers one input after the other."""

    def __init__(self, program: str) -> None:
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdout is not None
        self._lines = self._process.stdout
        self._reader = open(self._lines.fileno(), "rb", closefd=False)  # noqa: SIM115

    def read(self, data: bytes) -> Verdict:
        """The verdict of the protocol under its default limits."""
        assert self._process.stdin is not None
        self._process.stdin.write(struct.pack(">I", len(data)) + data)
        verdict = json.loads(self._reader.readline())
        requests = [_from_json(request) for request in verdict["requests"]]
        return Verdict(requests, verdict["ending"], verdict["error"])

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._reader.close()
        self._lines.close()


def _from_json(request: dict[str, Any]) -> Request:
    return Request(
        method=bytes.fromhex(request["method"]),
        target=bytes.fromhex(request["target"]),
        version=request["version"],
        fields=[_field(bytes.fromhex(n), bytes.fromhex(v)) for n, v in request["fields"]],
        body=bytes.fromhex(request["body"]),
    )


def _field(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    name, value = name.lower(), value.strip(b" \t")
    # h11 gives the coding in lower case.
    return name, value.lower() if name == b"transfer-encoding" else value


@contextlib.contextmanager
def ours() -> Iterator[Ours]:
    """Builds the example if it is not there; cargo knows where."""
    command = ["cargo", "build", "--quiet", "--example", "verdicts", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert built.returncode == 0, built.stderr
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    programs = [message["executable"] for message in messages if message.get("executable")]
    reader = Ours(programs[-1])
    try:
        yield reader
    finally:
        reader.close()


def h11_reads(data: bytes) -> Verdict:
    """The verdict of h11, as a server that answers every request with an empty 404."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=32 * 1024)
    if data:
        # No bytes would be the end.
        connection.receive_data(data)
    requests: list[Request] = []
    begun: Request | None = None
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            # Behind a colon it quotes.
            return Verdict(requests, "refused", str(error).partition(":")[0])
        if isinstance(event, h11.Request):
            version = event.http_version.decode()
            fields = [_field(name, value) for name, value in event.headers]
            begun = Request(event.method, event.target, version, fields, b"")
        elif isinstance(event, h11.Data):
            assert begun is not None
            begun.body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert begun is not None
            requests.append(begun)
            begun = None
            connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return Verdict(requests, "closed")
            connection.start_next_cycle()
        else:
            assert event is h11.NEED_DATA, event
            idle = begun is None and not connection.trailing_data[0]
            return Verdict(requests, "idle" if idle else "more")


class _Listener:
    """Takes the callbacks of httptools."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.begun: Request | None = None
        self.in_head = False
        self.closed = False
        self.parser: Any = None

    def on_message_begin(self) -> None:
        if not self.closed:
            self.begun = Request(b"", b"", "", [], b"")
            self.in_head = True

    def on_url(self, url: bytes) -> None:
        if self.begun is not None:
            self.begun.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here, too.
        if self.begun is not None and self.in_head:
            self.begun.fields.append(_field(name, value))

    def on_headers_complete(self) -> None:
        self.in_head = False
        if self.begun is not None:
            self.begun.method = self.parser.get_method()
            self.begun.version = self.parser.get_http_version()

    def on_body(self, body: bytes) -> None:
        if self.begun is not None:
            self.begun.body += body

    def on_message_complete(self) -> None:
        if self.begun is not None:
            self.requests.append(self.begun)
            self.begun = None
            self.closed = not self.parser.should_keep_alive()


def llhttp_reads(data: bytes) -> Verdict:
    """The verdict of llhttp."""
    listener = _Listener()
    listener.parser = parser = httptools.HttpRequestParser(listener)
    error = None
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        return Verdict(listener.requests, "upgraded")
    except httptools.HttpParserError as failure:
        error = str(failure)
        if error.startswith(EXTENSIONS):
            # It goes on with where in them.
            error = EXTENSIONS
    if listener.closed:
        return Verdict(listener.requests, "closed")
    if error is not None:
        return Verdict(listener.requests, "refused", error)
    return Verdict(listener.requests, "idle" if listener.begun is None else "more")
