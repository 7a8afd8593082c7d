"""Our protocol against h11 and llhttp: the same verdict, or a difference that is listed here.

Owns the list of intended differences, each with its reason, and the grammar of generated input.
The corpus of wire cases shows every difference of the list at least once and no other one, so the
list cannot grow stale; generated input shows no other one either. What may never happen is that two
readers accept a request and read it differently: that is how requests are smuggled.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator

import pytest
import verdicts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_wire import cases
from verdicts import Ours, Request, Verdict

# `ANEL_DIFFERENTIAL=100000` for a long search; the seed is a new one each time then.
EXAMPLES = int(os.environ.get("ANEL_DIFFERENTIAL", "0"))

PEERS: dict[str, Callable[[bytes], Verdict]] = {
    "h11": verdicts.h11_reads,
    "llhttp": verdicts.llhttp_reads,
}

# A kind and a cause. "stricter": we refuse, for this mistake, what the peer takes. "laxer": the
# peer refuses, in these words, what we take. "goes on", "ends": the connection does so for us and
# not for the peer.
Difference = tuple[str, str]

BOTH = {
    ("stricter", "AsteriskWithoutOptions"): "only OPTIONS has `*` (RFC 9112 3.2.4)",
    ("stricter", "AuthorityInvalid"): "they leave the authority of a target to others",
    ("stricter", "ChunkExtensionTooLong"): "a limit of ours",
    ("stricter", "ChunkSizeInvalid"): "seventeen digits are more than 64 bits; h11 takes a space",
    ("stricter", "ConnectUnsupported"): "they could be the front of a tunnel, we are not",
    ("stricter", "ExpectationUnsupported"): "they leave Expect to others",
    ("stricter", "FragmentInTarget"): "no form of a target has one (RFC 9112 3.2)",
    ("stricter", "HeadTooLarge"): "a limit of ours",
    ("stricter", "HostInvalid"): "400 is a MUST (RFC 9112 3.2); they leave it to others",
    ("stricter", "TargetInvalid"): "they leave the form of a target to others",
    ("stricter", "TargetTooLong"): "a limit of ours",
    ("stricter", "TooManyFields"): "a limit of ours",
    ("stricter", "TrailerTooLarge"): "a limit of ours",
    ("stricter", "TransferEncodingInHttp10"): "the framing is faulty (RFC 9112 6.1)",
    ("stricter", "VersionUnsupported"): "505 for what is not HTTP/1.0 or 1.1",
}
INTENDED: dict[str, dict[Difference, str]] = {
    "h11": {
        **BOTH,
        ("stricter", "BareLineFeed"): "h11 takes it for a line end, as RFC 9112 2.2 allows",
        ("stricter", "ChunkExtensionInvalid"): "h11 looks at no byte of an extension",
        ("stricter", "ChunkLineInvalid"): "h11 looks for the next line feed",
        ("stricter", "ContentLengthAndTransferEncoding"): "RFC 9112 6.3 lets a server refuse",
        ("stricter", "ContentLengthRepeated"): "RFC 9112 6.3 lets equal ones be merged, h11 does",
        ("stricter", "FieldValueInvalid"): "h11 refuses NUL and white space only",
        ("stricter", "MethodTooLong"): "a limit of ours",
        ("stricter", "ObsoleteLineFolding"): "h11 unfolds, as RFC 9112 5.2 allows",
        ("stricter", "TrailerInvalid"): "lines of trailers are what lines of heads are",
        ("laxer", "Only Transfer-Encoding"): "we drop trailers, so they may say anything",
        ("laxer", "bad Content-Length"): "leading zeros mean nothing; h11 takes twenty digits",
        ("laxer", "illegal chunk header"): "white space around an extension has to be taken",
        ("laxer", "no request line received"): "an empty line may precede a request",
        ("goes on", "HTTP/1.0"): "h11 does not know keep-alive of HTTP/1.0",
    },
    "llhttp": {
        **BOTH,
        ("stricter", "BareCarriageReturn"): "llhttp skips any before a request",
        ("stricter", "BareLineFeed"): "llhttp skips any before a request",
        ("stricter", "HostMissing"): "400 is a MUST (RFC 9112 3.2); llhttp leaves it to others",
        ("stricter", "HostRepeated"): "400 is a MUST (RFC 9112 3.2); llhttp leaves it to others",
        ("stricter", "RequestLineInvalid"): "llhttp takes several spaces for one",
        ("stricter", "TooManyBlankLines"): "a limit of ours",
        ("stricter", "TransferEncodingUnsupported"): "llhttp leaves other codings to others",
        ("stricter", "VersionMissing"): "llhttp speaks HTTP/0.9",
        ("laxer", "Content-Length can't be present with Transfer-Encoding"): (
            "we drop trailers, so they may say anything"
        ),
        ("laxer", "Invalid character in chunk extensions"): "we drop extensions unread",
        ("laxer", "Invalid character in chunk size"): "white space around an extension",
        ("laxer", "Invalid `Transfer-Encoding` header value"): (
            "we drop trailers, so they may say anything"
        ),
        ("laxer", "Expected HTTP/2 Connection Preface"): "PRI of HTTP/1.1 is a method like any",
        ("laxer", "Invalid method encountered"): "any token is a method; llhttp has a list",
        ("laxer", "Request has invalid `Transfer-Encoding`"): "white space around the coding",
        ("goes on", "HTTP/1.1"): "Proxy-Connection is none of ours (RFC 9112 C.2.2)",
        ("goes on", "upgrade"): "llhttp leaves what follows to whoever takes it up",
        ("ends", "HTTP/1.0"): "close wins over keep-alive, and Proxy-Connection is none of ours",
    },
}


def compare(ours: Verdict, peers: Verdict) -> Difference | None:
    """The first difference. None where they agree, or where one of them has not decided yet."""
    same = 0
    pairs = zip(ours.requests, peers.requests, strict=False)
    for same, (our, their) in enumerate(pairs, 1):
        if peers.ending == "upgraded" and same == len(peers.requests):
            # It has not looked at the body.
            their = dataclasses.replace(their, body=our.body)
        if our != their:
            names = [field.name for field in dataclasses.fields(Request)]
            return "reads", " ".join(n for n in names if getattr(our, n) != getattr(their, n))
    us = "takes" if len(ours.requests) > same else ours.ending
    them = "takes" if len(peers.requests) > same else peers.ending
    last = f"HTTP/{ours.requests[same - 1].version}" if same else "nothing"
    if them in ("closed", "upgraded"):
        # What we think of the rest, it never saw.
        return None if us == "closed" else ("goes on", "upgrade" if them == "upgraded" else last)
    if us == them or {us, them} in ({"more", "refused"}, {"more", "idle"}):
        return None
    if us == "refused":
        return "stricter", str(ours.error)
    if them == "refused":
        return "laxer", str(peers.error)
    if us == "closed":
        return "ends", last
    return us, them


@pytest.fixture(scope="module")
def ours() -> Iterator[Ours]:
    with verdicts.ours() as reader:
        yield reader


@pytest.mark.parametrize("peer", PEERS)
def test_the_corpus_shows_every_intended_difference_and_no_other(ours: Ours, peer: str) -> None:
    seen: dict[Difference, str] = {}
    for case in cases():
        difference = compare(ours.read(case["input"]), PEERS[peer](case["input"]))
        if difference is not None:
            seen.setdefault(difference, case["name"])

    unlisted = {found: name for found, name in seen.items() if found not in INTENDED[peer]}
    assert unlisted == {}
    assert INTENDED[peer].keys() - seen.keys() == set()


def test_what_is_compared_is_what_the_corpus_says(ours: Ours) -> None:
    for case in cases():
        verdict = ours.read(case["input"])

        assert len(verdict.requests) == len(case.get("requests", []))
        assert verdict.error == case.get("refuse", case.get("at_end"))


# What each part of a request may be, and what it may be in a mistaken one. `%d` and `%x` stand for
# the length of what follows.
METHODS = (
    [b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"],
    [b"get", b"TRACE", b"CONNECT", b"PROPFIND", b"M-SEARCH", b"X_y", b"G(", b"G\xc3", b"", b"PRI"],
)
SPACES = ([b" "], [b"  ", b"\t", b"\x0b", b"", b"\r"])
TARGETS = (
    [b"/", b"/a/b?c=d", b"/%41%2f?", b"//a/../b", b"http://a/b?c", b"/|^{}\"<>\\`"],
    [b"*", b"a:443", b"http://u@a/", b"https://[::1]:1", b"/#a", b"/\x80", b"/ /", b"", b"?", b"a",
     b"HTTP://a", b"http://", b"/\x7f", b"/\t", b"/" + b"a" * 8190],
)  # fmt: skip
VERSIONS = (
    [b"HTTP/1.1"] * 9 + [b"HTTP/1.0"],
    [b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1", b"HTTP/1.10", b"", b"ICE/1.0"],
)
HOSTS = (
    [b"Host: a", b"host:a:80", b"HOST: \t[::1]:8080 "],
    [b"", b"Host: a\r\nHost: a", b"Host:", b"Host: a b", b"Host: a,b", b"Host : a", b"Host: u@a"],
)
FIELDS = (
    [b"Accept: */*", b"X-A: b", b"x-a:\tc ", b"X-Empty:", b"Cookie: a=b; c=\"d\"", b"X: \xc4\x85",
     b"Connection: keep-alive", b"Connection: close", b"Connection: x, Close ,", b"TE: trailers",
     b"Expect: 100-continue", b"!#$%&'*+-.^_`|~: 1", b"X_Y: 1"],
    [b"X : y", b" X: y", b"X", b": y", b"X\xa0: y", b"(X): y", b"X: \0", b"X: a\x0bb", b"X: a\rb",
     b"X: a\r\n b", b"X: a\n b", b"X: a\nY: b", b"Connection: Upgrade\r\nUpgrade: websocket",
     b"Connection: close, keep-alive", b"Connection: \"close\"", b"Proxy-Connection: close",
     b"Expect: cake", b"X/Y: 1", b"X: \x7f", b"X: \x80", b"Connection: close\r\n , keep-alive"],
)  # fmt: skip
LENGTHS = (
    [b"%d", b" %d\t", b"0%d"],
    [b"+%d", b"-%d", b"%d,%d", b"%d, %d", b"0x%d", b"%d ;", b"%d %d", b"", b"18446744073709551616",
     b"1%d", b"%d\r\nContent-Length: %d", b"%d\r\nContent-Length: 1%d", b"%d\x0b", b"_%d", b"%d\r",
     b"%d\r\nTransfer-Encoding: identity", b"%d\r\nTransfer-Encoding: chunked", b"\r\n %d"],
)  # fmt: skip
CODINGS = (
    [b"chunked", b"Chunked", b"\tchunked"],
    [b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"identity", b"xchunked",
     b"", b"chunked,", b",chunked", b"chunked;a=b", b'"chunked"', b"chunked\x0b", b"\x0bchunked",
     b"chunked\r\nTransfer-Encoding: chunked", b"gzip\r\nTransfer-Encoding: chunked",
     b"chunked\r\nContent-Length: 3", b"cow, chunked", b"chun ked", b"chunked\r\n x", b"chunked "],
)  # fmt: skip
SIZES = (
    [b"%x", b"%X", b"0%x", b"%x;a", b"%x;a=b;c=\"d\""],
    [b"0x%x", b"+%x", b"-%x", b" %x", b"%x ", b"%x;", b"%x ;a", b"%x;a\x00", b"%x;a=\"\n\"", b"",
     b";%x", b"1%x", b"%x\xff", b"10000000000000000%x", b"%x\t", b"%xh", b"%x;" + b"a" * 300],
)  # fmt: skip
TRAILERS = (
    [b"", b"", b"X: y\r\n"],
    [b"X : y\r\n", b"X\r\n", b" X: y\r\n", b"X: a\r\n b\r\n", b"X: y\n", b"X: \0\r\n", b"\n",
     b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"GET / HTTP/1.1\r\n"],
)  # fmt: skip
BEFORE = ([b"", b"", b"\r\n"], [b"\n", b"\r", b" ", b"\r\n" * 5, b"\r\r\n"])
LINE_ENDS = [b"\n", b"\r", b"\r\r\n", b"\n\r", b"", b" \r\n", b"\r\n\r\n"]
BYTES = [b"\r", b"\n", b" ", b"\t", b":", b",", b"0", b"\0", b"\xff", b"a"]
BODIES = [b"a", b"hello", b"", b"0\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n"]

PARTS = [BEFORE, METHODS, SPACES, TARGETS, VERSIONS, HOSTS, FIELDS, LENGTHS, CODINGS, CODINGS,
         SIZES, SIZES, TRAILERS, LINE_ENDS, LINE_ENDS, BYTES]  # fmt: skip
Part = tuple[list[bytes], list[bytes]]


@st.composite
def message(draw: st.DrawFn) -> bytes:
    """A request with no mistake, or with one, of which other parts may make another."""
    mistake = draw(st.sampled_from([None, None, *range(len(PARTS))]))
    wrong = None if mistake is None else PARTS[mistake]

    def a(part: Part) -> bytes:
        return draw(st.sampled_from(part[part is wrong]))

    method, target, version = a(METHODS), a(TARGETS), a(VERSIONS)
    lines = [a(BEFORE) + method + a(SPACES) + target + b" " + version]
    fields = [a(HOSTS), *(a(FIELDS) for _ in range(draw(st.integers(0, 2)))), a(FIELDS)]
    body = draw(st.sampled_from(BODIES))
    length = b"%d" % len(body)
    if wrong in (CODINGS, SIZES, TRAILERS) or draw(st.booleans()):
        fields.append(b"Transfer-Encoding: " + a(CODINGS))
        chunks = [draw(st.sampled_from([b"hello", b"12345678901234567"])) for _ in range(2)]
        body = b"".join(_sized(a(SIZES), chunk) + b"\r\n" + chunk + b"\r\n" for chunk in chunks)
        body += b"0\r\n" + a(TRAILERS) + b"\r\n"
    elif wrong is LENGTHS or draw(st.booleans()):
        fields.append(b"Content-Length: " + a(LENGTHS).replace(b"%d", length))
    else:
        body = b""
    lines += draw(st.permutations([field for field in fields if field]))
    data = b"\r\n".join([*lines, b"", body])
    return _changed(draw, data, wrong)


def _sized(size: bytes, chunk: bytes) -> bytes:
    return size.replace(b"%x", b"%x" % len(chunk)).replace(b"%X", b"%X" % len(chunk))


def _changed(draw: st.DrawFn, data: bytes, wrong: object) -> bytes:
    if wrong is LINE_ENDS:
        lines = data.split(b"\r\n")
        at = draw(st.integers(1, len(lines) - 1))
        end = draw(st.sampled_from(LINE_ENDS))
        return b"\r\n".join(lines[:at]) + end + b"\r\n".join(lines[at:])
    if wrong is BYTES:
        at = draw(st.integers(0, len(data) - 1))
        byte = draw(st.sampled_from([b"", *BYTES]))
        return data[:at] + byte + data[at + draw(st.integers(0, 1)) :]
    return data


@st.composite
def inputs(draw: st.DrawFn) -> bytes:
    """A few requests, mistaken or not, and a good one behind them."""
    messages = [draw(message()) for _ in range(draw(st.integers(1, 3)))]
    return b"".join(messages) + b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.timeout(0 if EXAMPLES else 60)
def test_generated_input_shows_no_other_difference(ours: Ours) -> None:
    @settings(
        max_examples=EXAMPLES or 1000,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(inputs())
    def agree(data: bytes) -> None:
        verdict = ours.read(data)

        for peer, reads in PEERS.items():
            difference = compare(verdict, reads(data))
            assert difference is None or difference in INTENDED[peer], peer

    agree()
