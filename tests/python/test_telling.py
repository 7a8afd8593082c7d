"""What the server tells people, when nobody reads it; and processes that cannot be forked.

Owns the rule that neither keeps a server from going on.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import TextIO

import pytest
from anel import forking, telling
from anel.child import PARENTS

# More than the time that a reader is waited for, much less than for ever.
SOON_S = 5.0


@contextlib.contextmanager
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[io.FileIO, TextIO]]:
    """stdout is a pipe: its reading end, and the stream."""
    reader, writer = os.pipe()
    with (
        open(reader, "rb", buffering=0) as received,
        open(writer, "w", encoding="utf-8") as stream,
    ):
        monkeypatch.setattr(sys, "stdout", stream)
        yield received, stream


def test_a_line_is_written_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with piped(monkeypatch) as (reader, _):
        telling.say("one")
        telling.say("two")

        assert reader.read(100) == b"one\ntwo\n"


def test_who_reads_no_more_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    with piped(monkeypatch) as (reader, stream):
        os.set_blocking(stream.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(stream.fileno(), b"x" * 4096)
        os.set_blocking(stream.fileno(), True)
        begun = time.monotonic()

        telling.say("lost")

        assert time.monotonic() - begun < SOON_S
        # Who reads on gets what follows.
        reader.read(1 << 20)
        telling.say("heard")
        received = reader.read(1 << 20)
        assert received is not None
        assert received.endswith(b"heard\n")


def test_who_is_gone_is_told_nothing_and_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with piped(monkeypatch) as (reader, stream):
        reader.close()

        telling.say("lost")
        telling.say("lost, too")

        # Nor do those who print by themselves fail from now on.
        print("anything", file=stream, flush=True)


@pytest.mark.parametrize("stream", ["none", "closed"])
def test_a_process_without_a_stream_tells_nobody(
    monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    with open(os.devnull, "w", encoding="utf-8") as closed:
        pass
    monkeypatch.setattr(sys, "stderr", None if stream == "none" else closed)

    telling.complain("lost")


def test_a_fork_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    before = os.listdir("/proc/self/fd")

    with pytest.raises(BlockingIOError):
        forking.fork(lambda _channel: None, lambda: None)

    assert os.listdir("/proc/self/fd") == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(PARENTS)


def test_deaths_in_a_row_are_answered_later_and_later_up_to_a_bound() -> None:
    back_off = forking.BackOff()

    pauses = [back_off.pause_s(0.0) for _ in range(9)]

    assert pauses == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0]
    # Whoever lived for long died of something new.
    assert back_off.pause_s(60.0) == 0.0
    assert back_off.pause_s(0.0) == 0.1
