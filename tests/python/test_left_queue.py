"""Who waits in the queue of a socket that one worker has left to another.

Owns what workers tell each other about it through their master. The kernel's side, which wakes one
of those who accept, cannot be had to order; so the worker here accepts nobody by itself.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest
from anel import Application, post
from anel.board import Row
from anel.post import Word, WorkerPost
from anel.rules import Terms
from conftest import DEADLINE_S, IdleWorker


class Deaf(IdleWorker):
    """A worker whose accept is armed until it winds down, and which the kernel does not wake."""

    adopted: int
    channel: socket.socket

    def is_accepting(self) -> bool:
        return "wind down" not in self.told

    def adopt(self, socket_fd: int) -> None:
        super().adopt(socket_fd)
        self.told.append("adopted")
        # What it was for: the test is over.
        self.channel.send(Word.OUTDATED.value)


@pytest.fixture
def master(
    idle_worker: type[IdleWorker], monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The master's end of the channel of this process, which is a worker with one listener."""
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE_S)
    with ours, theirs, socket.create_server(("127.0.0.1", 0)) as listener:
        theirs.setblocking(False)
        listener.setblocking(False)
        monkeypatch.setattr(post, "_current", WorkerPost([listener], theirs, Row.unseen(), Terms()))
        monkeypatch.setattr("anel._core.Worker", Deaf)
        monkeypatch.setattr(Deaf, "channel", ours, raising=False)
        yield ours


def test_who_waits_in_a_queue_that_was_left_is_accepted(master: socket.socket) -> None:
    current = post.current()
    assert current is not None
    with socket.create_connection(current.listeners[0].getsockname()) as client:
        client.settimeout(DEADLINE_S)
        select.select([current.listeners[0]], [], [], DEADLINE_S)
        master.send(Word.QUEUED.value)

        Application().run("127.0.0.1", 0)

        assert Deaf.made[0].told[0] == "adopted"
        # This worker closes whom it adopts.
        assert client.recv(1) == b""


@pytest.mark.parametrize("word", [Word.REPLACED, Word.OUTDATED])
def test_a_worker_says_that_it_has_left_its_queue_once_its_sockets_are_closed(
    master: socket.socket, word: Word
) -> None:
    current = post.current()
    assert current is not None
    master.send(word.value)

    Application().run("127.0.0.1", 0)

    assert master.recv(16) == Word.SERVING.value + Word.LEFT.value
    assert current.listeners[0].fileno() == -1


def test_a_worker_that_is_about_to_end_leaves_a_queue_alone(master: socket.socket) -> None:
    current = post.current()
    assert current is not None
    with socket.create_connection(current.listeners[0].getsockname()):
        master.send(Word.OUTDATED.value)
        master.send(Word.QUEUED.value)

        Application().run("127.0.0.1", 0)

        assert "adopted" not in Deaf.made[0].told
