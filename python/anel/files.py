"""Responses that are files.

Owns conditional requests and ranges (RFC 9110 13 and 14), and the way of a file from its descriptor
to the body. The file is opened once, and everything that is said about it is what that descriptor
says. Which files may be sent is the program's to decide: no path is checked here, and no directory
is served.
"""

from __future__ import annotations

import datetime
import errno
import mimetypes
import os
import re
import secrets
import stat
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from email.utils import formatdate, parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from anel import _core
from anel.exceptions import HTTPException

# A body up to this size is read at once: one piece of a stream would be as large.
WHOLE_BYTES_MAX = 64 * 1024
# As much as the server takes from a stream before other connections have their turn.
PIECE_BYTES = 64 * 1024
# RFC 9110 14.2 lets a server ignore what asks for more than it needs; viewers of large documents
# ask for a handful. Ranges never overlap when they are sent, so they are never more than the file.
RANGES_MAX = 16
# RFC 9110 15.3.7.2: a gap that is smaller than the head of another part is sent along. Such a head
# has about a hundred bytes.
RANGE_GAP_BYTES = 100

# What says that there is no such file; a path too long or with a loop of links is one of them.
_NOT_THERE = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO, errno.ENODEV}
)
_OWN = frozenset({"accept-ranges", "content-length", "content-range"})
# RFC 9110 8.8.3.
_TAG = r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")'
# One of a list, perhaps empty, and the comma or the end behind it (RFC 9110 5.6.1).
_LISTED_TAG = re.compile(rf"[ \t]*(?:{_TAG}[ \t]*)?(?:,|\Z)")
# RFC 9110 14.1.1: first and last position, or only how many bytes at the end.
_RANGE = re.compile(r"[ \t]*(?:([0-9]*)-([0-9]*)[ \t]*)?(?:,|\Z)")
# RFC 8187 3.2.1, attr-char.
_ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"
_COMPRESSED = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
}


class FileResponse:
    """A file as a response; a handler returns it.

    It has an ETag (of the time of change, size and inode), Last-Modified and Accept-Ranges. For GET
    and HEAD the request's conditions are respected: 304 when the client has the file already, 412
    when it has another; for GET also Range and If-Range: 206 with one part or several, 416 when
    there is no such part. A Range that is malformed, or has more than 16 parts, is ignored.

    The file is opened when the object is returned: HTTPException 404 when it is not there or no
    regular file, 403 when it may not be read. Up to 64 KiB are read at once, more in pieces while
    it is sent. A file that becomes shorter meanwhile ends the connection, so that the client
    notices; one that grows is sent as long as it was.

    An object may be kept and returned any number of times; the file is opened for each request.

    Args:
        path: Where the file is. It is opened as it is: a path made of what a client sent has to be
            checked before.
        filename: The name under which the client saves it (Content-Disposition: attachment,
            RFC 6266). Separators and control characters become "_".
        mime_type: The media type; what the name says unless given. `text/*` without a charset is
            said to be UTF-8.
        headers: Further headers, as for `Response`. ETag and Last-Modified among them take the
            place of those that are made here, also in conditions.
        cookies: As for `Response`.
        code: The status, where it is not 200. Then there are no conditions and no ranges.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A header that cannot be sent or is made here, a status that has no such body.

    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        *,
        filename: str | None = None,
        mime_type: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        cookies: Any = None,
        code: int = 200,
    ) -> None:
        """Checks everything but the file."""
        self._path = os.fspath(path)
        names = [os.fsdecode(self._path)]
        fields = []
        if filename is not None:
            fields.append(("Content-Disposition", _disposition(filename)))
            names.insert(0, filename)
        fields.append(("Content-Type", _content_type(names, mime_type)))
        # Responses of their own find what is wrong with the headers, now and not at each request.
        _core.Response(headers=fields)
        given = _core.Response(code=code, headers=headers, cookies=cookies).headers
        for own in _OWN.intersection(map(str.lower, given)):
            raise ValueError(f"header {own} is made by FileResponse, remove {given[own]!r}")
        if not 200 <= code <= 599 or code in (204, 205, 206, 304):
            raise ValueError(f"a response with status {code} cannot be a file")
        self._etag = given.get("ETag")
        if self._etag is not None and not re.fullmatch(_TAG, self._etag):
            raise ValueError(f"ETag must be an entity tag (RFC 9110 8.8.3), not {self._etag!r}")
        self._modified = _date(given.get("Last-Modified"))
        if self._modified is None and "Last-Modified" in given:
            raise ValueError(f"Last-Modified must be a date, not {given['Last-Modified']!r}")
        self._fields = [field for field in fields if field[0] not in given]
        # Cookies are lines of `given`, too.
        self._given = given.items()
        self._code = code

    def __repr__(self) -> str:
        """The path."""
        return f"<FileResponse {self._path!r}>"

    def __anel_response__(self, request: _core.Request) -> _core.Response:
        """The response to this request. Raises HTTPException."""
        descriptor, status = _open(self._path)
        source = _Descriptor(descriptor)
        try:
            return self._response(request, source, status)
        except BaseException:
            source.close()
            raise

    def _response(
        self, request: _core.Request, source: _Descriptor, status: os.stat_result
    ) -> _core.Response:
        etag, modified, validators = self._validators(status)
        size = status.st_size
        code, wanted = self._code, [(0, size)]
        if code == 200 and request.method in ("GET", "HEAD"):
            validators.append(("Accept-Ranges", "bytes"))
            if _is_known(request.headers, etag, modified):
                source.close()
                return _core.Response(code=304, headers=validators + self._given)
            if request.method == "GET":
                ranges = _ranges(request.headers, etag, modified, size)
                if ranges is not None:
                    code, wanted = 206, ranges
        fields = self._fields + validators + self._given
        sections: list[bytes | tuple[int, int]] = [*wanted]
        if code == 206:
            if len(wanted) == 1:
                fields.append(("Content-Range", _content_range(*wanted[0], size)))
            else:
                fields, sections = _multipart(fields, wanted, size)
        return _body(request, source, sections, code, fields)

    def _validators(self, status: os.stat_result) -> tuple[str, int, list[tuple[str, str]]]:
        """ETag, time of change in seconds, and the fields that say them unless given."""
        etag, modified, fields = self._etag, self._modified, []
        if etag is None:
            etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'
            fields.append(("ETag", etag))
        if modified is None:
            # RFC 9110 8.8.2.1: never later than the response.
            modified = min(int(status.st_mtime), int(time.time()))
            fields.append(("Last-Modified", formatdate(modified, usegmt=True)))
        return etag, modified, fields


class _Descriptor:
    """An open file that is closed by whoever is done with it first, and at last by its end."""

    def __init__(self, number: int) -> None:
        self.number = number

    def read(self, begin: int, length: int) -> bytes:
        """Up to so many bytes; OSError when there is none any more."""
        piece = os.pread(self.number, length, begin)
        if not piece:
            raise OSError(errno.EIO, "the file has become shorter while it was sent")
        return piece

    def close(self) -> None:
        """Closes it; once is enough."""
        if self.number >= 0:
            number, self.number = self.number, -1
            os.close(number)

    def __del__(self) -> None:
        self.close()


class _Pieces:
    """What a large body consists of: bytes as they are, and parts of a file."""

    def __init__(self, source: _Descriptor, sections: list[bytes | tuple[int, int]]) -> None:
        self._source = source
        self._pieces = _pieces(source, sections)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        # A generator that has not begun runs nothing when it is closed, so it cannot own the file.
        self._pieces.close()
        self._source.close()


def _pieces(
    source: _Descriptor, sections: list[bytes | tuple[int, int]]
) -> Generator[bytes, None, None]:
    for section in sections:
        if isinstance(section, bytes):
            yield section
            continue
        begin, end = section
        while begin < end:
            piece = source.read(begin, min(PIECE_BYTES, end - begin))
            begin += len(piece)
            yield piece
    source.close()


def _body(
    request: _core.Request,
    source: _Descriptor,
    sections: list[bytes | tuple[int, int]],
    code: int,
    fields: list[tuple[str, str]],
) -> _core.Response:
    length = sum(
        len(section) if isinstance(section, bytes) else section[1] - section[0]
        for section in sections
    )
    pieces = _Pieces(source, sections)
    # A response to HEAD says the length and closes the stream without a look at it.
    if length <= WHOLE_BYTES_MAX and request.method != "HEAD":
        return _core.Response(body=b"".join(pieces), code=code, headers=fields)
    return _core.Response(stream=pieces, length=length, code=code, headers=fields)


def _open(path: str | bytes) -> tuple[int, os.stat_result]:
    try:
        # Without waiting, as it would for the other end of a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except PermissionError:
        raise HTTPException(403) from None
    except ValueError:
        # A NUL in the path: no file has one in its name.
        raise HTTPException(404) from None
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise HTTPException(404) from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise HTTPException(404)
    return descriptor, status


def _is_known(headers: _core.Headers, etag: str, modified: int) -> bool:
    """Whether the client has the file: 304. Raises HTTPException 412 (RFC 9110 13.2.2)."""
    if (wanted := headers.get("If-Match")) is not None:
        if not _matches(wanted, etag, strong=True):
            raise HTTPException(412)
    elif (since := _date(headers.get("If-Unmodified-Since"))) is not None and modified > since:
        raise HTTPException(412)
    if (known := headers.get("If-None-Match")) is not None:
        return _matches(known, etag, strong=False)
    since = _date(headers.get("If-Modified-Since"))
    return since is not None and modified <= since


def _matches(field: str, etag: str, *, strong: bool) -> bool:
    """Whether a list of entity tags has this one (RFC 9110 8.8.3.2). A malformed one has none."""
    if field.strip() == "*":
        return True
    if strong and etag.startswith("W/"):
        return False
    found = False
    at = 0
    while at < len(field):
        tag = _LISTED_TAG.match(field, at)
        if tag is None:
            return False
        if tag[2] == etag.removeprefix("W/") and not (strong and tag[1]):
            found = True
        at = tag.end()
    return found


def _ranges(
    headers: _core.Headers, etag: str, modified: int, size: int
) -> list[tuple[int, int]] | None:
    """The parts to send, each from a byte to behind another; None for the whole file.

    Raises HTTPException 416.
    """
    field = headers.get("Range")
    if field is None or not _is_current(headers.get("If-Range"), etag, modified):
        return None
    unit, _, specs = field.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    asked = _asked(specs, size)
    if asked is None or len(asked) > RANGES_MAX:
        return None
    wanted = [(begin, end) for begin, end in asked if begin < end]
    if not wanted and any(begin <= end for begin, end in asked):
        # The last bytes of an empty file: a Content-Range cannot say that, but 200 can.
        return None
    if not wanted:
        raise HTTPException(416, headers={"Content-Range": f"bytes */{size}"})
    return _coalesced(wanted)


def _asked(specs: str, size: int) -> list[tuple[int, int]] | None:
    """What a Range asks for, cut to the file; None if it is malformed (RFC 9110 14.1.1).

    What the file does not have ends before it begins.
    """
    asked = []
    at = 0
    while at < len(specs):
        spec = _RANGE.match(specs, at)
        if spec is None:
            return None
        at = spec.end()
        if len(spec[0]) > 64:
            # No file has so many bytes, and int() would take its time.
            return None
        first, last = spec[1], spec[2]
        if first is None:
            continue  # RFC 9110 5.6.1: an empty element of a list
        if first:
            begin = int(first)
            end = int(last) + 1 if last else max(size, begin)
            if end <= begin and last:
                return None
            asked.append((begin, min(end, size)) if begin < size else (1, 0))
        elif last:
            length = int(last)
            asked.append((max(0, size - length), size) if length else (1, 0))
        else:
            return None
    return asked or None


def _coalesced(wanted: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins what overlaps or nearly touches; keeps the order asked for (RFC 9110 15.3.7.2)."""
    joined: list[list[int]] = []
    for begin, end, order in sorted((*part, order) for order, part in enumerate(wanted)):
        if joined and begin - joined[-1][1] <= RANGE_GAP_BYTES:
            joined[-1][1] = max(joined[-1][1], end)
            joined[-1][2] = min(joined[-1][2], order)
        else:
            joined.append([begin, end, order])
    return [(begin, end) for begin, end, _ in sorted(joined, key=lambda part: part[2])]


def _is_current(condition: str | None, etag: str, modified: int) -> bool:
    """Whether an If-Range holds (RFC 9110 13.1.5): only what is the same to the byte."""
    if condition is None:
        return True
    condition = condition.strip()
    if condition.startswith(('"', "W/")):
        return condition == etag and not etag.startswith("W/")
    # RFC 9110 8.8.2.2: a file may change twice in a second, so one that has just changed is not
    # told by its date.
    return _date(condition) == modified and modified < int(time.time())


def _content_range(begin: int, end: int, size: int) -> str:
    return f"bytes {begin}-{end - 1}/{size}"


def _multipart(
    fields: list[tuple[str, str]], wanted: list[tuple[int, int]], size: int
) -> tuple[list[tuple[str, str]], list[bytes | tuple[int, int]]]:
    """Fields and body of a response with several parts (RFC 9110 14.6)."""
    # So long that it is in no file.
    boundary = secrets.token_hex(16)
    types = [value for name, value in fields if name.lower() == "content-type"]
    sections: list[bytes | tuple[int, int]] = []
    begin_of_line = ""
    for begin, end in wanted:
        lines = [f"{begin_of_line}--{boundary}", *(f"Content-Type: {value}" for value in types)]
        lines += [f"Content-Range: {_content_range(begin, end, size)}", "", ""]
        sections += ["\r\n".join(lines).encode("latin-1"), (begin, end)]
        begin_of_line = "\r\n"
    sections.append(f"\r\n--{boundary}--\r\n".encode())
    others = [field for field in fields if field[0].lower() != "content-type"]
    return [("Content-Type", f"multipart/byteranges; boundary={boundary}"), *others], sections


def _date(value: str | None) -> int | None:
    """Seconds of an HTTP date in any of its forms (RFC 9110 5.6.7); None when it is none."""
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    # The form of asctime says no zone; it is always UTC.
    return int((date if date.tzinfo else date.replace(tzinfo=datetime.UTC)).timestamp())


def _content_type(names: list[str], mime_type: str | None) -> str:
    if mime_type is None:
        guesses = (_guessed(name) for name in names)
        mime_type = next(filter(None, guesses), "application/octet-stream")
    if not isinstance(mime_type, str):
        raise TypeError(f"mime_type must be str, not {mime_type!r}")
    if mime_type.startswith("text/") and "charset=" not in mime_type.lower():
        return f"{mime_type}; charset=utf-8"
    return mime_type


def _guessed(name: str) -> str | None:
    # Behind a slash nothing is taken for a URL.
    guessed, compression = mimetypes.guess_type("/" + os.path.basename(name))
    if compression is None:
        return guessed
    # What is inside is not what is sent.
    return _COMPRESSED.get(compression, "application/octet-stream")


def _disposition(filename: str) -> str:
    """Content-Disposition for a download (RFC 6266, with names beyond ASCII as in RFC 8187)."""
    if not isinstance(filename, str):
        raise TypeError(f"filename must be str, not {filename!r}")
    name = re.sub(r"[\x00-\x1f\x7f/\\]", "_", filename)
    # Some browsers decode percent signs here, and few unescape quotes: neither is sent as it is.
    plain = re.sub(r'[^\x20-\x7e]|["%]', "_", name)
    value = f'attachment; filename="{plain}"'
    if plain != name:
        coded = quote(name, safe=_ATTRIBUTE_CHARACTERS, errors="replace")
        value += f"; filename*=UTF-8''{coded}"
    return value
