"""The file watcher: the companion of a server that is reloaded when its files change.

Owns which folders are watched where nobody names any, and what the master does about a change.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
from collections.abc import Callable, Sequence

from anel.companions import Companion, Orders
from anel.telling import say
from anel.watch import Change, Watch


class Watcher(Companion):
    """Has the workers replaced whenever a file changes."""

    name = "file watcher"

    def __init__(self, watch: Watch) -> None:
        """Takes the watch that every watcher of the server begins with."""
        self._watch = watch

    def run(self, channel: socket.socket) -> None:
        """Tells the master of every change."""
        # Who ends a whole group of processes ends the master, too, and this one with it.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._watch.run(channel)

    def on_message(self, message: bytes, orders: Orders) -> None:
        """Reloads; after a touch only if somebody waits for a save."""
        change = Change.decode(message)
        if orders.awaits_change or not change.is_touch:
            say(f"{change} changed, reloading")
            orders.reload_at_once()

    def shed(self) -> None:
        """It has opened nothing."""

    def before(self, work: Callable[[], None]) -> Callable[[], None]:
        """The work of a new worker, which imports what the files say by then."""

        def renewed() -> None:
            self._watch.remove_bytecode()
            # What the master has found in a folder is what there was at the start.
            importlib.invalidate_caches()
            work()

        return renewed


def usual_folders(start: str, source: str | None) -> Sequence[str]:
    """Where the server was started, and the folder of the application's file or package."""
    folders = [start] if start else []
    if source is not None:
        source = os.path.abspath(source)
        folders.append(source if os.path.isdir(source) else os.path.dirname(source))
    return folders
