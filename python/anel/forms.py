"""What HTML forms send: fields and files.

Owns `request.form` and `request.files`. The multipart format is read by the `multipart` package
(the extra `forms`), which is imported when the first multipart form arrives. Knows nothing of how
a body arrives: it is complete, and within the server's limit, when it is read here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from anel import _core, encoding
from anel.encoding import MultiDict
from anel.exceptions import ConfigError, HTTPException
from anel.request import install_attribute

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

# Each costs objects that are many times its size; forms that people fill in have less than a
# hundred. Django's number.
FIELDS_MAX = 1000
# Django's number, too.
FILES_MAX = 100
# A text field is decoded, so it exists twice; a longer text is sent as a file.
FIELD_BYTES_MAX = 1024 * 1024
# All text fields of a form together: what the multipart package keeps in memory by default.
FIELDS_BYTES_MAX = 8 * 1024 * 1024
# RFC 7578 4.8 knows three headers of a part; both numbers are the multipart package's defaults.
PART_HEADERS_MAX = 8
PART_HEADER_BYTES_MAX = 4096 + 128


class File(NamedTuple):
    """A file of a form.

    Attributes:
        type: the media type that the client says, without parameters; None if it says none.
        body: the content.
        name: the file's name, as the client says; "" when no file was chosen, None if it says none.
            It is no path: nothing keeps a client from sending "../../etc/passwd".

    """

    type: str | None
    body: bytes
    name: str | None


class Form(MultiDict[str]):
    """The text fields of a form: a dict of the last value of each name, with `getall(name)`."""

    __slots__ = ()


class Files(MultiDict[File]):
    """The files of a form: a dict of the last file of each name, with `getall(name)`."""

    __slots__ = ()


class _Parts(NamedTuple):
    form: Form | None
    files: Files | None


class _Part(NamedTuple):
    name: str
    type: str | None
    filename: str | None
    body: bytes

    @property
    def is_file(self) -> bool:
        # Japronto's rule. Browsers send a type with files only.
        return self.filename is not None or self.type is not None


def form(request: _core.Request) -> Form | None:
    """The text fields of the form in the body; None when the body is no form or there is none.

    A urlencoded form is read like a query: fields without a value are left out. Raises
    HTTPException: 400 for a form that is malformed or has too many fields, 413 for one with fields
    that are too large; ConfigError when it is a multipart form and the extra `forms` is missing.
    """
    return _parts(request).form


def files(request: _core.Request) -> Files | None:
    """The files of the multipart form in the body; None when the body is none.

    A part is a file if it has a file name or a Content-Type of its own. Raises as `form` does.
    """
    return _parts(request).files


def _parts(request: _core.Request) -> _Parts:
    memo = request._memo
    known = memo.get("parts")
    if known is None:
        try:
            known = _read(request)
        except HTTPException as error:
            known = error
        memo["parts"] = known
    if isinstance(known, HTTPException):
        # A new one each time: one that is raised again would keep the frames of every time.
        raise HTTPException(known.status, known.detail)
    parts: _Parts = known
    return parts


def _read(request: _core.Request) -> _Parts:
    if request.mime_type not in (URLENCODED, MULTIPART):
        return _Parts(None, None)
    body = request.body
    if body is None:
        return _Parts(None, None)
    if request.mime_type == URLENCODED:
        return _Parts(read_urlencoded(body, request.encoding), None)
    return _Parts(*read_multipart(body, request.headers["Content-Type"]))


def read_urlencoded(body: bytes, charset: str | None = None) -> Form:
    """Reads application/x-www-form-urlencoded (WHATWG URL 5.1).

    `charset` is that of the text before it was percent-encoded; UTF-8 unless given. Raises
    HTTPException.
    """
    if len(body) > FIELDS_BYTES_MAX:
        raise HTTPException(413, f"the form is larger than {FIELDS_BYTES_MAX} bytes")
    if body.count(b"&") >= FIELDS_MAX:
        raise HTTPException(400, f"the form has more than {FIELDS_MAX} fields")
    charset = _charset(charset)
    text = _decoded(body, charset, "the form")
    pairs = parse_qsl(text, encoding=charset)
    if any(len(value) > FIELD_BYTES_MAX for pair in pairs for value in pair):
        raise HTTPException(413, f"a field of the form is larger than {FIELD_BYTES_MAX} bytes")
    return Form(pairs)


def read_multipart(body: bytes, content_type: str) -> tuple[Form, Files]:
    """Reads multipart/form-data (RFC 7578). Raises HTTPException and ConfigError."""
    texts: list[_Part] = []
    uploads: list[tuple[str, File]] = []
    texts_bytes = 0
    for part in _split(body, content_type):
        if part.is_file:
            if len(uploads) == FILES_MAX:
                raise HTTPException(400, f"the form has more than {FILES_MAX} files")
            uploads.append((part.name, File(part.type, part.body, part.filename)))
            continue
        if len(texts) == FIELDS_MAX:
            raise HTTPException(400, f"the form has more than {FIELDS_MAX} fields")
        if len(part.body) > FIELD_BYTES_MAX:
            raise HTTPException(413, f"a field of the form is larger than {FIELD_BYTES_MAX} bytes")
        texts_bytes += len(part.body)
        if texts_bytes > FIELDS_BYTES_MAX:
            raise HTTPException(413, f"the fields have more than {FIELDS_BYTES_MAX} bytes")
        texts.append(part)
    charset = _default_charset(texts)
    pairs = [(part.name, _decoded(part.body, charset, "a field of the form")) for part in texts]
    return Form(pairs), Files(uploads)


def _split(body: bytes, content_type: str) -> Iterator[_Part]:
    multipart = _library()
    _, parameters = multipart.parse_options_header(content_type)
    try:
        parser = multipart.PushMultipartParser(
            # RFC 2046 5.1.1: a boundary is ASCII. Without one the parser refuses.
            parameters.get("boundary", "").encode("ascii"),
            max_header_size=PART_HEADER_BYTES_MAX,
            max_header_count=PART_HEADERS_MAX,
            max_segment_count=FIELDS_MAX + FILES_MAX,
            strict=True,
        )
        head: Any = None
        content = b""
        with parser:
            # Nothing would mean the end to the parser; leaving the block tells it so.
            for event in parser.parse(body) if body else ():
                if isinstance(event, multipart.MultipartSegment):
                    head, content = event, b""
                elif event is not None:
                    content += event
                else:
                    yield _Part(head.name, head.content_type, head.filename, content)
    except multipart.ParserLimitReached as error:
        raise HTTPException(400, f"the form is too complex: {error}") from error
    except (multipart.MultipartError, UnicodeEncodeError) as error:
        # Where it has a second argument, that is an exception with much of the form in it.
        reason = error.args[0] if isinstance(error, multipart.MultipartError) else error
        raise HTTPException(400, f"the form is malformed: {reason}") from error


@functools.cache
def _library() -> Any:
    try:
        import multipart
    except ImportError:
        raise ConfigError(
            "multipart forms need the multipart package: pip install 'anel[forms]'"
        ) from None
    if not hasattr(multipart, "PushMultipartParser"):
        # python-multipart has had a module of the same name.
        raise ConfigError(
            f"{multipart.__file__} is another package's: pip uninstall python-multipart, "
            "then pip install 'anel[forms]'"
        )
    return multipart


def _default_charset(texts: list[_Part]) -> str:
    # RFC 7578 4.6: a field of this name says in which charset the others are.
    for part in texts:
        if part.name == "_charset_":
            return _charset(part.body.decode("latin-1"))
    return "utf-8"


def _charset(name: str | None) -> str:
    known = "utf-8" if name is None else encoding.charset(name)
    if known is None:
        raise HTTPException(400, "the form is in a charset that is not known")
    return known


def _decoded(body: bytes, charset: str, what: str) -> str:
    try:
        return body.decode(charset)
    except ValueError:
        raise HTTPException(400, f"{what} is not {charset}") from None


install_attribute("form", property(form))
install_attribute("files", property(files))
