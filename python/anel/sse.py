"""Server-sent events (WHATWG HTML 9.2): a response that never has to end.

Owns the text format of events and the pings between them. Knows nothing of where events come from
and of how a stream is sent.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Mapping
from typing import Any

from anel import _core
from anel.encoding import dumps
from anel.streaming import is_cancelled

# A comment: EventSource passes over it, and proxies see that the connection is alive.
PING = b":\n\n"

# Long for a source that tidies up, short against the drain of a server.
_CANCEL_AGAIN_S = 1.0

# WHATWG HTML 9.2.5: what ends a line. Not what str.splitlines takes for a line end.
_LINE_END = re.compile(r"\r\n|\n|\r")
_FORBIDDEN = re.compile(r"[\r\n\0]")


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """An event as EventSource receives it.

    Attributes:
        data: A str, of any number of lines, or any JSON value; None for an event without data,
            which sets `id` or `retry` and calls nobody.
        event: The name under which scripts listen; "message" if None.
        id: What the client sends as `request.headers["Last-Event-ID"]` when it connects again, so
            that nothing between is lost.
        retry: After how many milliseconds it connects again.

    Raises TypeError for a wrong type, ValueError for a line end or NUL in `event` or `id` and for a
    negative `retry`.

    """

    data: Any
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    def __post_init__(self) -> None:
        """Refuses what would begin another line."""
        if isinstance(self.data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be a str or a JSON value, not {self.data!r}")
        for name, value in (("event", self.event), ("id", self.id)):
            if value is None:
                continue
            if not isinstance(value, str):
                raise TypeError(f"{name} must be str, not {value!r}")
            if _FORBIDDEN.search(value):
                raise ValueError(f"{name} must be one line without NUL, not {value!r}")
        _check_retry(self.retry)

    def encode(self) -> bytes:
        """The event as it is sent. TypeError or ValueError for data that has no JSON."""
        lines = []
        if self.event is not None:
            lines.append(f"event: {self.event}")
        if self.id is not None:
            lines.append(f"id: {self.id}")
        if self.retry is not None:
            lines.append(f"retry: {self.retry}")
        if self.data is not None:
            text = self.data if isinstance(self.data, str) else dumps(self.data).decode()
            lines += [f"data: {line}" for line in _LINE_END.split(text)]
        return "\n".join([*lines, "", ""]).encode()


class EventStream:
    """A response of server-sent events; a handler returns it.

    Args:
        source: An iterable or async iterable of events: `Event`; a str, which is the data; a dict
            or list, which is sent as JSON.
        retry: After how many milliseconds a client that lost the connection comes back; the
            client's own choice if None.
        ping_s: After how many seconds without an event a comment is sent, so that proxies keep the
            connection and the server notices a client that is gone; None for never. Only for async
            sources: while a sync one waits, so does the server.
        headers: Further headers, as for `Response`. Cache-Control is no-store and X-Accel-Buffering
            is no, so that proxies hand events on at once, unless they say otherwise.

    The source is closed when the client leaves. An exception in it is logged and ends the
    connection; the client comes back, with `request.headers["Last-Event-ID"]` if an event had an
    id. To keep it from coming back, answer 204.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: `retry` is negative, `ping_s` is not above 0, a header cannot be sent.

    """

    def __init__(
        self,
        source: Iterable[Event | str | dict[str, Any] | list[Any]]
        | AsyncIterable[Event | str | dict[str, Any] | list[Any]],
        *,
        retry: int | None = None,
        ping_s: float | None = 15,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    ) -> None:
        """Checks everything but the events."""
        if isinstance(source, str | bytes | bytearray | Mapping) or not isinstance(
            source, Iterable | AsyncIterable
        ):
            raise TypeError(f"source must be an iterable of events, not {source!r}")
        _check_retry(retry)
        if ping_s is not None:
            if isinstance(ping_s, bool) or not isinstance(ping_s, int | float):
                raise TypeError(f"ping_s must be seconds or None, not {ping_s!r}")
            if not ping_s > 0:
                raise ValueError(f"ping_s must be above 0, not {ping_s!r}")
        given = _core.Response(headers=headers).headers
        own = {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
        }
        self._headers = [field for field in own.items() if field[0] not in given] + given.items()
        self._source = source
        self._first = b"" if retry is None else f"retry: {retry}\n\n".encode()
        self._ping_s = ping_s

    def __anel_response__(self, _request: _core.Request) -> _core.Response:
        """The response to a request."""
        stream: Iterable[bytes] | AsyncIterable[bytes]
        if not isinstance(self._source, AsyncIterable):
            stream = _encoded(self._first, self._source)
        elif self._ping_s is None:
            stream = _encoded_later(self._first, self._source)
        else:
            stream = _with_pings(self._first, self._source, self._ping_s)
        return _core.Response(stream=stream, headers=self._headers)


def _encoded(first: bytes, source: Iterable[Any]) -> Generator[bytes, None, None]:
    yield first
    iterator = iter(source)
    try:
        for event in iterator:
            yield _event(event).encode()
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


async def _encoded_later(first: bytes, source: AsyncIterable[Any]) -> AsyncGenerator[bytes, None]:
    yield first
    iterator = aiter(source)
    try:
        async for event in iterator:
            yield _event(event).encode()
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


async def _with_pings(
    first: bytes, source: AsyncIterable[Any], ping_s: float
) -> AsyncGenerator[bytes, None]:
    """Events, and a ping whenever there was none for a while.

    The source runs in a task of its own from its beginning to its end: waiting for one event with a
    timeout would cancel the source, or move it from task to task.
    """
    # One event is made ahead; more would be made for clients that do not read.
    queue: asyncio.Queue[bytes | _End] = asyncio.Queue(1)
    pump = asyncio.get_running_loop().create_task(_pump(_encoded_later(first, source), queue))
    try:
        while True:
            try:
                async with asyncio.timeout(ping_s):
                    piece = await queue.get()
            except TimeoutError:
                piece = PING
            if isinstance(piece, _End):
                if piece.failure is not None:
                    raise piece.failure
                return
            yield piece
    finally:
        while not pump.done():
            # A source that ignores its cancellation is left alone with its next event.
            pump.cancel()
            await asyncio.wait([pump], timeout=_CANCEL_AGAIN_S)


class _End:
    """Behind the last event: why there is no other."""

    def __init__(self, failure: BaseException | None) -> None:
        self.failure = failure


async def _pump(events: AsyncGenerator[bytes, None], queue: asyncio.Queue[bytes | _End]) -> None:
    failure: BaseException | None = None
    try:
        async for event in events:
            await queue.put(event)
    except asyncio.CancelledError as exception:
        if is_cancelled():
            raise
        # The source's own: something that it awaited was cancelled.
        failure = exception
    except Exception as exception:
        failure = exception
    finally:
        await events.aclose()
    await queue.put(_End(failure))


def _event(value: Any) -> Event:
    if isinstance(value, Event):
        return value
    if isinstance(value, str | dict | list):
        return Event(value)
    raise TypeError(f"an event must be an anel.Event, str, dict or list, not {value!r}")


def _check_retry(retry: int | None) -> None:
    if retry is None:
        return
    if isinstance(retry, bool) or not isinstance(retry, int):
        raise TypeError(f"retry must be milliseconds as an int, not {retry!r}")
    if retry < 0:
        raise ValueError(f"retry must not be negative, not {retry!r}")
