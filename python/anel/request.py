"""Attributes of requests that are written in Python.

Owns the reading of streamed bodies, what is said of a body that is no text or no JSON, and how
attributes get onto the native request type: as functions and properties of that type, set when
`anel` is imported. A `__getattr__` would do the same with less code, but the interpreter
specialises no attribute of a type that has one. A value that is to be kept goes into
`request._memo`, a dict that belongs to one request and to the package; `request.extra` is the
user's.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from anel import _core, encoding
from anel.exceptions import CharsetError, JSONError, TextError

_logger = logging.getLogger("anel.error")


def install_attribute(name: str, attribute: Any) -> None:
    """Gives all requests an attribute: a property, or a function, which becomes a method.

    Raises TypeError when requests have one of that name already.
    """
    if hasattr(_core.Request, name):
        raise TypeError(f"requests have an attribute {name!r} already")
    setattr(_core.Request, name, attribute)


def check_callback(callback: Callable[[_core.Request], Any]) -> None:
    """Raises TypeError for what cannot be a done callback."""
    if not callable(callback):
        raise TypeError(f"a done callback must be callable, not {callback!r}")
    call = inspect.getattr_static(type(callback), "__call__", None)
    if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(call):
        raise TypeError(f"a done callback must not be async: {callback!r}")


def log_failure(event: str, request: _core.Request, exception: BaseException) -> None:
    """Logs what user code raised where its request can no longer be answered with it."""
    path = on_one_line(request.path)
    _logger.error("%s method=%s path=%s", event, request.method, path, exc_info=exception)


def on_one_line(text: str) -> str:
    """Text of a client for a log: what would begin a line, or steer a terminal, is escaped."""
    if text.isprintable():
        return text
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(shown)


def decode_text(body: bytes, charset: str | None) -> str:
    """The text of a body in the charset that the client names, else UTF-8.

    Raises CharsetError and TextError.
    """
    codec = encoding.charset(charset or "utf-8")
    if codec is None:
        raise CharsetError(charset or "")
    try:
        return body.decode(codec)
    except UnicodeDecodeError as error:
        raise TextError(codec, body, error.start, error.end, error.reason) from None


def parse_json(text: str) -> Any:
    """The JSON value of a body. Raises JSONError."""
    try:
        return encoding.loads(text)
    except json.JSONDecodeError as error:
        raise JSONError(error.msg, text, error.pos) from None
    except RecursionError:
        raise JSONError("Nested too deeply", text, 0) from None
    except ValueError:
        # `int` refuses what would take quadratic time (sys.set_int_max_str_digits).
        raise JSONError("A number has too many digits", text, 0) from None


def log_overdue(request: _core.Request) -> None:
    """Logs that a handler takes longer than `handler_timeout_ms` and is cancelled."""
    _logger.warning("handler timeout method=%s path=%s", request.method, request.path)


async def stream(self: _core.Request) -> AsyncIterator[bytes]:
    """Gives the body as it arrives, in pieces of any size; the client sends no faster.

    A body that was gathered, or read before, comes as one piece, an absent one as none. Raises
    BodyError when the body will never be complete, ClientDisconnected when the client is gone,
    RuntimeError when it was streamed before or the request is answered already.
    """
    if self._reader is None or "body" in self._memo:
        body = self.body
        if body:
            yield body
        return
    reader = self._reader
    reader.claim()
    while piece := await _next_piece(reader):
        yield piece


async def read(self: _core.Request) -> bytes | None:
    """Gives the whole body, None when there is none. `body`, `text` and `json` work then, too.

    Raises as `stream` does.
    """
    if self._reader is not None and "body" not in self._memo:
        pieces = [piece async for piece in stream(self)]
        self._keep_body(b"".join(pieces))
        self._memo["body"] = True
    return self.body


async def save(self: _core.Request, path: str | os.PathLike[str]) -> int:
    """Writes the body to a file and gives the number of bytes.

    The file appears, or is replaced, when it is complete: the bytes go to another one beside it,
    which is renamed at the end, and removed if that is not reached. Threads of the loop's default
    executor do the writing. Raises as `stream` does, and OSError.
    """
    loop = asyncio.get_running_loop()
    upload = _Upload(os.fspath(path))
    try:
        await loop.run_in_executor(None, upload.open)
        async for piece in stream(self):
            await loop.run_in_executor(None, upload.write, piece)
        await loop.run_in_executor(None, upload.finish)
    except BaseException:
        # Shielded: a task that is cancelled again would leave the file behind.
        await asyncio.shield(loop.run_in_executor(None, upload.discard))
        raise
    return upload.size_bytes


class _Upload:
    """A file that is written by one thread at a time.

    A cancelled task leaves its last call behind in a thread; the lock makes the next one wait.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # Not made of the name, which may be as long as the file system allows.
        self._part = os.path.join(os.path.dirname(path), f".{secrets.token_hex(8)}.part")
        self._descriptor = -1
        self._exists = False
        self._over = False
        self._lock = threading.Lock()
        self.size_bytes = 0

    def open(self) -> None:
        with self._lock:
            if not self._over:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._descriptor = os.open(self._part, flags, 0o666)
                self._exists = True

    def write(self, piece: bytes) -> None:
        with self._lock:
            view = memoryview(piece)
            while view and not self._over:
                written = os.write(self._descriptor, view)
                self.size_bytes += written
                view = view[written:]

    def finish(self) -> None:
        with self._lock:
            if not self._over:
                self._close()
                os.replace(self._part, self._path)
                self._over = True

    def discard(self) -> None:
        with self._lock:
            if not self._over:
                self._over = True
                self._close()
                # One that could not be made would fail again, with the path of no file.
                if self._exists:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self._part)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


async def _next_piece(reader: _core.BodyReader) -> bytes:
    """What arrives next; empty at the end."""
    loop = asyncio.get_running_loop()
    while (piece := reader.take()) is None:
        future = loop.create_future()
        reader.wait(future)
        await future
    return piece


for _method in (stream, read, save):
    install_attribute(_method.__name__, _method)
