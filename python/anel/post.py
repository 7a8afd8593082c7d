"""The post at which a process serves: its sockets, whom it tells, and who gives it orders.

Owns the words between a master and its workers, and the worker's end of their channel. A process
without a master has a post, too; it tells its user and takes orders from signals alone. Knows
nothing of the application.
"""

from __future__ import annotations

import enum
import signal
import socket
from collections.abc import Sequence

from anel.board import Row
from anel.listener import Listeners
from anel.systemd import Notifier
from anel.telling import say


class Word(bytes, enum.Enum):
    """What is said on the channel, a byte a word. Its end means that the other side is gone."""

    # Of the worker: it serves; it has served as many requests as it should.
    SERVING = b"s"
    SPENT = b"m"
    # Of the master: another one serves in your place.
    REPLACED = b"r"


class Post:
    """The post of a process that serves by itself."""

    # What stops it.
    signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM)
    # Where orders come from, besides signals.
    channel: socket.socket | None = None
    # After how many requests it wants to be replaced.
    requests_max: int | None = None

    def __init__(self, listeners: Listeners, notifier: Notifier) -> None:
        """Takes the sockets of the one slot there is."""
        self.listeners: Sequence[socket.socket] = listeners.of(0)
        # Where it writes down how it does.
        self.row = Row.unseen()
        self._all = listeners
        self._notifier = notifier

    def announce(self) -> None:
        """It serves, and a signal would drain: whoever waits for this may send one."""
        say(f"Accepting connections on {self._all.addresses()}")
        self._notifier.ready()

    def note_stop(self) -> None:
        """Somebody told it to stop."""
        say("Termination request received")
        self._notifier.stopping()
        self._all.refuse_more()

    def note_spent(self) -> None:
        """It has served `requests_max` requests."""


class WorkerPost(Post):
    """The post of a worker, whose master tells the world."""

    # Ctrl-C reaches every process of the terminal; it is the master's to act on.
    signals: Sequence[int] = (signal.SIGTERM,)

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        channel: socket.socket,
        requests_max: int | None,
        row: Row,
    ) -> None:
        """Takes the worker's end of the channel, and its row of the board."""
        self.listeners = listeners
        self.channel = channel
        self.requests_max = requests_max
        self.row = row

    def announce(self) -> None:
        """Tells the master that it serves."""
        self._send(Word.SERVING)

    def note_stop(self) -> None:
        """The master knows: it passed the signal on."""

    def note_spent(self) -> None:
        """Asks the master to be replaced."""
        self._send(Word.SPENT)

    def _send(self, word: Word) -> None:
        assert self.channel is not None
        try:
            self.channel.send(word.value)
        except OSError:
            # The master is gone, which the end of the channel says, too.
            return


_current: Post | None = None


def current() -> Post | None:
    """The post of this process, once it was forked to be a worker."""
    return _current


def take(post: Post) -> None:
    """From now on this process is a worker."""
    global _current
    _current = post
