"""The chapters of the tutorial and the README tell the truth: what they print is what happens.

Owns the reading of documents: programs, curl lines and the responses below them, links. Programs
are started as a user starts them; requests are sent as curl would send them, without needing curl.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import re
import shlex
import urllib.parse

import pytest
from anel.cli import main
from conftest import Serve, Server

ROOT = pathlib.Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "tutorial").glob("[0-9]*.md"))
PROGRAMS = {path: path.with_suffix(".py") for path in CHAPTERS}
PROGRAMS[ROOT / "README.md"] = ROOT / "examples" / "hello.py"
DOCUMENTS = [
    *CHAPTERS,
    *ROOT.glob("*.md"),
    *(ROOT / "src").rglob("*.md"),
    *(ROOT / "tests" / "cases").glob("*.md"),
    *(ROOT / "benchmarks").glob("*.md"),
    ROOT / "deploy" / "README.md",
]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A request and its answer, or a command that serves the program: `anel run NN_name.py ...`.
_STEP = re.compile(r"(?ms)^```console\n(\$ .*?\n)(.*?)^```$|^    \$ anel run \d\d_\w+\.py (.*?)$")
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
_HEADING = re.compile(r"(?m)^#+ (.*)$")
_DATE = re.compile(r"(?m)^Date: \w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT$")
_LENGTH = re.compile(rb"(?im)^content-length: (\d+)\r?$")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding: chunked\r?$")
# A command in an indented block, at a prompt or in a unit of systemd.
_COMMAND = re.compile(r"(?m)^    (?:\$ |ExecStart=\S*/)(?:anel|python -m anel) (.*)$")
_BOUNDARY = "------------------------0123456789abcdef"

COMMANDS = sorted({line for path in DOCUMENTS for line in _COMMAND.findall(path.read_text())})


@dataclasses.dataclass
class Curl:
    """One curl line: what it sends and whether it prints the heads of responses."""

    method: str = ""
    header: list[str] = dataclasses.field(default_factory=list)
    body: str | None = None
    form: list[str] = dataclasses.field(default_factory=list)
    prints_head: bool = False
    urls: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def parse(cls, line: str) -> Curl:
        """Reads the options that chapters use; any other is a mistake in the chapter."""
        curl = cls()
        words = iter(shlex.split(line.removeprefix("$ curl ")))
        for word in words:
            match word:
                case "-i":
                    curl.prints_head = True
                case "-I":
                    curl.method, curl.prints_head = "HEAD", True
                case "-X":
                    curl.method = next(words)
                case "-H":
                    curl.header.append(next(words))
                case "-d":
                    curl.body = next(words)
                case "-F":
                    curl.form.append(next(words))
                case _ if word.startswith("-"):
                    raise AssertionError(f"option {word} is not known here: {line}")
                case _:
                    curl.urls.append(word)
        return curl

    def port(self) -> int | None:
        """The one port that is asked."""
        (port,) = {urllib.parse.urlsplit(url).port for url in self.urls}
        return port

    def request(self) -> bytes:
        """All requests of the line, one behind the other."""
        content_type, body = "application/x-www-form-urlencoded", self.body
        if self.form:
            content_type = f"multipart/form-data; boundary={_BOUNDARY}"
            body = "".join(map(_part, self.form)) + f"--{_BOUNDARY}--\r\n"
        sent = b""
        for url in self.urls:
            parts = urllib.parse.urlsplit(url)
            target = parts.path or "/"
            if parts.query:
                target += f"?{parts.query}"
            lines = [f"Host: {parts.netloc}", "User-Agent: curl/8.0.0", "Accept: */*", *self.header]
            if body is not None:
                lines.append(f"Content-Length: {len(body.encode())}")
                if not any(line.lower().startswith("content-type:") for line in self.header):
                    lines.append(f"Content-Type: {content_type}")
            method = self.method or ("GET" if body is None else "POST")
            head = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""])
            sent += (head + (body or "")).encode()
        return sent

    def printed(self, answer: bytes) -> str:
        """What curl prints of these responses."""
        printed = b""
        while answer:
            head, _, answer = answer.partition(b"\r\n\r\n")
            if self.prints_head:
                printed += head.replace(b"\r\n", b"\n") + b"\n\n"
            if self.method != "HEAD":
                body, answer = _body(head, answer)
                printed += body
        return printed.decode()


def _part(field: str) -> str:
    """What curl makes of `-F 'name=content;filename=...;type=...'`."""
    name, _, rest = field.partition("=")
    content, *options = rest.split(";")
    lines = [f'Content-Disposition: form-data; name="{name}"']
    for option in options:
        known, _, value = option.partition("=")
        if known == "filename":
            lines[0] += f'; filename="{value}"'
        else:
            assert known == "type", f"{known}= is not known here: {field}"
            lines.append(f"Content-Type: {value}")
    return "\r\n".join([f"--{_BOUNDARY}", *lines, "", content, ""])


def _body(head: bytes, rest: bytes) -> tuple[bytes, bytes]:
    """The body below a head, and what follows it."""
    if not _CHUNKED.search(head):
        length = _LENGTH.search(head)
        assert length is not None, head
        size = int(length[1])
        assert len(rest) >= size, f"{size - len(rest)} bytes are missing"
        return rest[:size], rest[size:]
    body = b""
    while True:
        line, end, rest = rest.partition(b"\r\n")
        assert end, "the last chunk is missing"
        size = int(line, 16)
        body += rest[:size]
        assert rest[size : size + 2] == b"\r\n", "a chunk is cut off"
        rest = rest[size + 2 :]
        if size == 0:
            return body, rest


def blocks(chapter: pathlib.Path, language: str) -> list[str]:
    """The contents of the fenced blocks in this language."""
    return [text for name, text in _BLOCK.findall(chapter.read_text()) if name == language]


@pytest.mark.parametrize("chapter", PROGRAMS, ids=lambda path: path.stem)
def test_the_program_in_a_chapter_is_the_file_beside_it(chapter: pathlib.Path) -> None:
    assert blocks(chapter, "python") == [PROGRAMS[chapter].read_text()]


@dataclasses.dataclass
class Session:
    """How a chapter starts its program, and the requests and answers that it shows of it."""

    options: list[str] = dataclasses.field(default_factory=list)
    exchanges: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @classmethod
    def all_of(cls, chapter: pathlib.Path) -> list[Session]:
        """The first is the program as it is; one that shows nothing is none."""
        sessions = [cls()]
        for line, answer, options in _STEP.findall(chapter.read_text()):
            if line:
                sessions[-1].exchanges.append((line.rstrip(), answer))
            else:
                sessions.append(cls(shlex.split(options, comments=True)))
        return [session for session in sessions if session.exchanges]

    def on_free_ports(self) -> list[str]:
        """The options, for ports that the kernel picks."""
        words = [re.sub(r"^(127\.0\.0\.1):\d+$", r"\1:0", word) for word in self.options]
        for name in ("--host", "--port"):
            if name in words:
                del words[words.index(name) : words.index(name) + 2]
        return words


@pytest.mark.parametrize("chapter", PROGRAMS, ids=lambda path: path.stem)
def test_the_requests_in_a_chapter_are_answered_as_printed(
    chapter: pathlib.Path, serve: Serve, reactor: str
) -> None:
    sessions = Session.all_of(chapter)

    assert sessions, "a chapter shows at least one request"
    for session in sessions:
        options = [*session.on_free_ports(), "--reactor", reactor]
        server = serve(PROGRAMS[chapter].read_text(), *options)
        for line, expected in session.exchanges:
            curl = Curl.parse(line)
            place = server
            if curl.port() != 8080:
                metrics = server.wait_for_line(r"^Metrics at http://127\.0\.0\.1:(\d+)/metrics$")
                place = Server(server.process, int(metrics[1]))
            printed = curl.printed(place.exchange(curl.request()))
            # A block ends its last line even where the body does not, and shows no blank line
            # there.
            printed = printed.rstrip("\n") + "\n"
            assert _DATE.sub("Date: *", printed) == _DATE.sub("Date: *", expected), line


def test_every_chapter_names_the_next() -> None:
    for chapter, following in itertools.pairwise(CHAPTERS):
        assert f"]({following.name})" in chapter.read_text().rpartition("## Next")[2]


def test_contributing_lists_the_targets_of_make() -> None:
    targets = re.findall(r"(?m)^([a-z-]+):.*## ", (ROOT / "Makefile").read_text())
    listed = re.findall(r"(?m)^    make ([a-z-]+)", (ROOT / "CONTRIBUTING.md").read_text())

    assert sorted(listed) == sorted(targets)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_only_options_that_there_are(command: str) -> None:
    name, *arguments = shlex.split(command, comments=True)
    if name not in main.commands:
        name, arguments = "run", [name, *arguments]

    context = main.commands[name].make_context(name, arguments)

    assert context.command.name == name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: pathlib.Path) -> None:
    for target, anchor in _LINK.findall(document.read_text()):
        path = document.parent / target if target else document
        assert path.exists(), target
        if anchor:
            headings = _HEADING.findall(path.read_text())
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings]
