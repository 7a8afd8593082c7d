"""Responses in pieces: what asyncio has to do with them.

Owns the task that drives an async iterator and its way to end. Sync iterators are pulled by the
extension itself and never come here. Knows nothing of HTTP: pieces go into a `BodyWriter`.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any

from anel import _core
from anel.exceptions import BodyError, ClientDisconnected
from anel.request import log_failure

_FAILED = "exception in a streamed response"

# Closings of streams that were not wanted; the loop itself holds tasks only weakly.
_closing: set[asyncio.Task[None]] = set()


def StreamingResponse(  # noqa: N802 - it stands for a class of responses
    content: Iterable[bytes | str] | AsyncIterable[bytes | str],
    *,
    length: int | None = None,
    code: int = 200,
    mime_type: str | None = None,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    cookies: Any = None,
) -> _core.Response:
    """Makes a response whose body is sent in pieces, as `Response(stream=content)` does.

    With `length`, in bytes, it has a Content-Length; else it is chunked (RFC 9112 7.1). Raises
    TypeError and ValueError as `Response` does.
    """
    return _core.Response(
        stream=content,
        length=length,
        code=code,
        mime_type=mime_type,
        headers=headers,
        cookies=cookies,
    )


def start(
    loop: asyncio.AbstractEventLoop,
    writer: _core.BodyWriter,
    iterator: AsyncIterator[bytes | str],
    request: _core.Request,
    context: contextvars.Context | None,
) -> asyncio.Task[None]:
    """Sends what an async iterator gives, in a task that ends with the response."""
    task = loop.create_task(_produce(writer, iterator, request), context=context)
    # A task that is cancelled before its first step runs nothing of its coroutine.
    task.add_done_callback(lambda _task: writer.abort())
    return task


def discard(iterator: AsyncIterator[bytes | str], request: _core.Request) -> None:
    """Closes an async iterator that is not going to be read."""
    task = asyncio.get_running_loop().create_task(_close(iterator, request))
    _closing.add(task)
    task.add_done_callback(_closing.discard)


def is_cancelled() -> bool:
    """Whether somebody has cancelled the running task, which need not be why it was interrupted."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _produce(
    writer: _core.BodyWriter, iterator: AsyncIterator[bytes | str], request: _core.Request
) -> None:
    try:
        try:
            async for piece in iterator:
                if not writer.write(piece):
                    await _room(writer)
        finally:
            await _aclose(iterator)
        writer.end()
    except asyncio.CancelledError as exception:
        if not is_cancelled():
            # The iterator's own: something that it awaited was cancelled.
            log_failure(_FAILED, request, exception)
            writer.abort()
        raise
    except (ClientDisconnected, BodyError):
        # Raised by `write` for an iterator that goes on after its cancellation, and by the body of
        # the request where the stream is made of that. The client knows, and it is no fault here.
        writer.abort()
    except Exception as exception:
        log_failure(_FAILED, request, exception)
        writer.abort()


async def _room(writer: _core.BodyWriter) -> None:
    loop = asyncio.get_running_loop()
    while not writer.has_room():
        future = loop.create_future()
        writer.wait(future)
        await future


async def _close(iterator: AsyncIterator[bytes | str], request: _core.Request) -> None:
    try:
        await _aclose(iterator)
    except Exception as exception:
        log_failure(_FAILED, request, exception)


async def _aclose(iterator: AsyncIterator[bytes | str]) -> None:
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()
