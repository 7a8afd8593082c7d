"""How a worker comes to be: what it is given, and what of its master's it lets go of.

Owns the first steps of a worker process, up to its post. Knows nothing of when workers are started.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from anel.board import Board
from anel.forking import Child, fork
from anel.listener import Listeners
from anel.post import WorkerPost, take
from anel.rules import Rules


class Starter:
    """Starts workers."""

    def __init__(
        self, listeners: Listeners, rules: Rules, board: Board, work: Callable[[], None]
    ) -> None:
        """Takes what a worker does once it has its post."""
        self._listeners = listeners
        self._rules = rules
        self._board = board
        self._work = work

    def start(self, slot: int, shed: Callable[[], None]) -> Child:
        """Starts one for a slot. `shed` closes, in the worker, what is the master's alone.

        Raises OSError when the machine has no room for another process.
        """
        terms = self._rules.draw()
        row = self._board.enter(slot)

        def work(channel: socket.socket) -> None:
            self._rules.affinity.pin(slot)
            take(WorkerPost(self._listeners.of(slot), channel, row, terms))
            self._work()

        def shed_all() -> None:
            shed()
            self._listeners.keep(slot)

        try:
            worker = fork(work, shed_all)
        except OSError:
            self._board.leave(row, died=False)
            raise
        worker.row = row
        row.note_pid(worker.pid)
        return worker
