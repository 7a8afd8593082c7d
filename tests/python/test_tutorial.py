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
from conftest import Serve

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
]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
_HEADING = re.compile(r"(?m)^#+ (.*)$")
_DATE = re.compile(r"(?m)^Date: \w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT$")
_OPTIONS_WITH_VALUE = {"-X": "method", "-H": "header", "-d": "body"}


@dataclasses.dataclass
class Curl:
    """One curl line: what it sends and whether it prints the heads of responses."""

    method: str = ""
    header: list[str] = dataclasses.field(default_factory=list)
    body: str | None = None
    prints_head: bool = False
    urls: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def parse(cls, line: str) -> Curl:
        """Reads the options that chapters use; any other is a mistake in the chapter."""
        curl = cls()
        words = iter(shlex.split(line.removeprefix("$ curl ")))
        for word in words:
            if word == "-i":
                curl.prints_head = True
            elif word == "-H":
                curl.header.append(next(words))
            elif word in _OPTIONS_WITH_VALUE:
                setattr(curl, _OPTIONS_WITH_VALUE[word], next(words))
            elif word.startswith("-"):
                raise AssertionError(f"option {word} is not known here: {line}")
            else:
                curl.urls.append(word)
        return curl

    def request(self) -> bytes:
        """All requests of the line, one behind the other."""
        sent = b""
        for url in self.urls:
            parts = urllib.parse.urlsplit(url)
            target = parts.path or "/"
            if parts.query:
                target += f"?{parts.query}"
            lines = [f"Host: {parts.netloc}", "User-Agent: curl/8.0.0", "Accept: */*", *self.header]
            method = self.method or ("GET" if self.body is None else "POST")
            body = (self.body or "").encode()
            if self.body is not None:
                lines.append(f"Content-Length: {len(body)}")
                if not any(line.lower().startswith("content-type:") for line in self.header):
                    lines.append("Content-Type: application/x-www-form-urlencoded")
            head = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""])
            sent += head.encode() + body
        return sent

    def printed(self, answer: bytes) -> str:
        """What curl prints of these responses."""
        text = answer.decode()
        printed = ""
        while text:
            head, _, text = text.partition("\r\n\r\n")
            length = re.search(r"(?i)^content-length: (\d+)\r?$", head, re.MULTILINE)
            size = int(length[1]) if length and self.method != "HEAD" else 0
            if self.prints_head:
                printed += head.replace("\r\n", "\n") + "\n\n"
            printed += text[:size]
            text = text[size:]
        return printed


def blocks(chapter: pathlib.Path, language: str) -> list[str]:
    """The contents of the fenced blocks in this language."""
    return [text for name, text in _BLOCK.findall(chapter.read_text()) if name == language]


@pytest.mark.parametrize("chapter", PROGRAMS, ids=lambda path: path.stem)
def test_the_program_in_a_chapter_is_the_file_beside_it(chapter: pathlib.Path) -> None:
    assert blocks(chapter, "python") == [PROGRAMS[chapter].read_text()]


@pytest.mark.parametrize("chapter", PROGRAMS, ids=lambda path: path.stem)
def test_the_requests_in_a_chapter_are_answered_as_printed(
    chapter: pathlib.Path, serve: Serve, reactor: str
) -> None:
    server = serve(PROGRAMS[chapter].read_text(), "--reactor", reactor)
    exchanges = [block.partition("\n")[::2] for block in blocks(chapter, "console")]

    assert exchanges, "a chapter shows at least one request"
    for line, expected in exchanges:
        curl = Curl.parse(line)
        printed = curl.printed(server.exchange(curl.request()))
        # A block ends its last line even where the body does not.
        printed = printed.removesuffix("\n") + "\n"
        assert _DATE.sub("Date: *", printed) == _DATE.sub("Date: *", expected), line


def test_every_chapter_names_the_next() -> None:
    for chapter, following in itertools.pairwise(CHAPTERS):
        assert f"]({following.name})" in chapter.read_text().rpartition("## Next")[2]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: pathlib.Path) -> None:
    for target, anchor in _LINK.findall(document.read_text()):
        path = document.parent / target if target else document
        assert path.exists(), target
        if anchor:
            headings = _HEADING.findall(path.read_text())
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings]
