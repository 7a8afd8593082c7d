"""The post at which a process serves: its sockets, whom it tells, and who gives it orders.

Owns the words between a master and its workers, and the worker's end of their channel. A process
without a master has a post, too; it tells its user and takes orders from signals alone. Knows
nothing of the application.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import signal
import socket
import threading
from collections.abc import Sequence
from typing import Any

from anel.board import Row
from anel.listener import Listeners
from anel.rules import GRACEFUL_S, Terms
from anel.stacks import show_stacks_when_stuck
from anel.systemd import Notifier
from anel.telling import say


class Word(bytes, enum.Enum):
    """What is said on the channel, a byte a word. Its end means that the other side is gone."""

    # Of the worker: it serves; it has served as many requests as it should; it accepts nobody more.
    SERVING = b"s"
    SPENT = b"m"
    LEFT = b"l"
    # Of the master: another one serves in your place; and what you serve is out of date; nobody
    # will serve in your place, so your sockets are yours to empty.
    REPLACED = b"r"
    OUTDATED = b"o"
    RETIRED = b"e"
    # And: somebody who shared your sockets has left them.
    QUEUED = b"q"


# Where a program that is run again in the same process finds its post.
_VARIABLE = "_ANEL_POST"


class Post:
    """The post of a process that serves by itself."""

    # What stops it.
    signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM)
    # Where orders come from, besides signals.
    channel: socket.socket | None = None
    # After how many requests it wants to be replaced.
    requests_max: int | None = None
    # How often somebody wants to hear that it comes round, in seconds.
    beat_every_s: float | None = None

    def __init__(
        self, listeners: Listeners, notifier: Notifier, graceful_s: float = GRACEFUL_S
    ) -> None:
        """Takes the sockets of the one slot there is, and how long requests may take in a drain."""
        self.graceful_s = graceful_s
        self.beat_every_s = notifier.beat_every_s
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

    def note_left(self) -> None:
        """It accepts nobody more, and has left its sockets to a successor."""

    def beat(self) -> None:
        """Its loop has come round."""
        self._notifier.alive()


class WorkerPost(Post):
    """The post of a worker, whose master tells the world."""

    # Ctrl-C reaches every process of the terminal; it is the master's to act on.
    signals: Sequence[int] = (signal.SIGTERM,)

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        channel: socket.socket,
        row: Row,
        terms: Terms,
    ) -> None:
        """Takes the worker's end of the channel, its row of the board, and how it is to serve."""
        self.graceful_s = terms.graceful_s
        self.requests_max = terms.requests_max
        self.beat_every_s = terms.beat_every_s
        self._terms = terms
        self.listeners = listeners
        self.channel = channel
        self.row = row

    def announce(self) -> None:
        """Tells the master that it serves."""
        self._send(Word.SERVING)

    def note_stop(self) -> None:
        """The master knows: it passed the signal on."""

    def note_spent(self) -> None:
        """Asks the master to be replaced."""
        self._send(Word.SPENT)

    def note_left(self) -> None:
        """Tells the master, so that somebody looks into the queue."""
        self._send(Word.LEFT)

    def beat(self) -> None:
        """Tells the master, who looks at the row."""
        self.row.note_beat()

    def hand_over(self) -> dict[str, str]:
        """What the environment of the program that this process executes next has to say.

        The descriptors stay open for it.
        """
        assert self.channel is not None
        for one in (*self.listeners, self.channel):
            one.set_inheritable(True)
        told = {
            # Programs that it starts inherit the variable, but not the post.
            "pid": os.getpid(),
            "listeners": [listener.fileno() for listener in self.listeners],
            "channel": self.channel.fileno(),
            "terms": dataclasses.asdict(self._terms),
            "row": self.row.hand_over(),
        }
        return {_VARIABLE: json.dumps(told)}

    def _send(self, word: Word) -> None:
        assert self.channel is not None
        try:
            self.channel.send(word.value)
        except OSError:
            # The master is gone, which the end of the channel says, too.
            return


_current: Post | None = None


def current() -> Post | None:
    """The post of this process, if it was forked to be a worker."""
    if _current is None and (told := os.environ.pop(_VARIABLE, None)) is not None:
        _take_over(json.loads(told))
    return _current


def take(post: Post) -> None:
    """From now on this process is a worker."""
    global _current
    _current = post
    if post.beat_every_s is not None:
        # Who does not come round any more is asked for them.
        show_stacks_when_stuck()


def _take_over(told: dict[str, Any]) -> None:
    """Takes the post that this process had before it ran this program."""
    if told["pid"] != os.getpid():
        return
    listeners = [_inherited(number) for number in told["listeners"]]
    row, terms = Row.taken_over(told["row"]), Terms(**told["terms"])
    take(WorkerPost(listeners, _inherited(told["channel"]), row, terms))
    if threading.current_thread() is threading.main_thread():
        # Until now it was ignored, which programs that handlers start would inherit.
        signal.signal(signal.SIGINT, lambda _number, _frame: None)


def _inherited(number: int) -> socket.socket:
    found = socket.socket(fileno=number)
    found.set_inheritable(False)
    found.setblocking(False)
    return found
