"""What has changed among the files of a program.

Owns what counts as a change: other names, other stamps, other bytes. A look at the disk decides,
whatever caused it; `watchfiles`, where it is installed, only says when to look, and without it
there is a look every 0.3 s. So both find the same, and neither a kernel that drops events nor a
disk that has none (NFS, shared folders of virtual machines) loses a save. Knows nothing of what is
done about a change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import logging
import os
import select
import socket
import time
from collections.abc import Callable, Collection, Iterator

from anel.selection import FOLDERS_MAX, Found, Selection, Stamp, prefix, stamp_of

# How long files must stay as they are before a change counts: an editor truncates, writes and
# renames within milliseconds, and the clock of most kernels' time stamps ticks every 4 ms.
DELAY_S = 0.1
_DELAY_S_MIN = 0.02
DELAY_S_MAX = 60.0

# Between two looks without watchfiles; with a thousand files one takes 10 ms.
_POLL_S = 0.3

# At least so many times as long as a look takes: a tenth of a processor is enough.
_PAUSE_LOOKS = 10

# watchfiles misses what its kernel does not see, such as the target of a link. So we look anyway.
_LOOK_ANYWAY_S = 2.0

# What is written on and on counts as changed after so long, or so many delays.
_SETTLING_S_MAX = 2.0
_SETTLING_DELAYS_MAX = 10.0

# How often watchfiles returns without news. It wakes up every 50 ms in any case.
_HINT_S = 0.25

# What is larger counts as changed when it is written, whatever is in it.
_BYTES_MAX = 1 << 20

# Bytecode names its source's second.
_SECOND_NS = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class Change:
    """Files that were written, made, renamed or removed: one of them, and how many there are.

    They have the same bytes as before if `is_touch`, so that only somebody who waits for a save
    has a reason to act.
    """

    name: str
    count: int = 1
    is_touch: bool = False

    @classmethod
    def of(cls, paths: Collection[str], start: str, *, is_touch: bool = False) -> Change:
        """The change of these files, which are named as they are in the folder `start`."""
        name = min(path.removeprefix(prefix(start)) if start else path for path in paths)
        return cls(name if name.isprintable() else ascii(name), len(paths), is_touch)

    def __str__(self) -> str:
        """As people are told of it."""
        return self.name if self.count == 1 else f"{self.name} and {self.count - 1} more"

    def encode(self) -> bytes:
        """As a message, which has room for the longest path there is."""
        return json.dumps(dataclasses.astuple(self)).encode()

    @classmethod
    def decode(cls, message: bytes) -> Change:
        """What was encoded."""
        return cls(*json.loads(message))


class Watch:
    """Finds out what changes among some files, from the moment that it is made."""

    def __init__(self, selection: Selection, delay_s: float = DELAY_S, start: str = "") -> None:
        """Looks for the first time. Raises ConfigError for too many folders."""
        self._selection = selection
        self._start = start
        self._delay_s = max(delay_s, _DELAY_S_MIN)
        # What was written in this second may have been compiled in it.
        self._began_ns = time.time_ns() - _SECOND_NS
        self._before = selection.scan(FOLDERS_MAX)
        self._digests: dict[str, bytes] = {}
        # How long the last look took.
        self._look_s = 0.0

    def run(self, channel: socket.socket, polls: bool | None = None) -> None:
        """Sends every change as a message, until the other side has closed the channel.

        `polls` has it look again and again although watchfiles is there; without it the
        environment's WATCHFILES_FORCE_POLLING decides.
        """
        end = _End(channel)
        # A master that is slow hears of everything.
        channel.setblocking(True)
        self._learn()
        for _ in self._occasions(end, polls):
            change = self.look(end.is_set_within)
            if change is not None:
                try:
                    channel.send(change.encode())
                except OSError:
                    return

    def remove_bytecode(self) -> None:
        """Has modules be read from the sources that were written since the watch began.

        Python takes bytecode for that of a source which has the same length and was written in the
        same second, so that the second of two quick saves would never be seen.
        """
        for path in self._selection.scan().files:
            with contextlib.suppress(OSError, NotImplementedError):
                # Of the inode, as a rename keeps the other one.
                if path.endswith(".py") and os.stat(path).st_ctime_ns >= self._began_ns:
                    os.unlink(importlib.util.cache_from_source(path))

    def look(self, is_over_within: Callable[[float], bool]) -> Change | None:
        """What has changed since the last look; waits until nothing changes any more.

        It is handed what waits for a number of seconds, and says whether to give up.
        """
        begun = time.monotonic()
        now = self._selection.scan()
        self._look_s = time.monotonic() - begun
        if now.files == self._before.files:
            self._before = now
            return None
        until = time.monotonic() + max(_SETTLING_S_MAX, self._delay_s * _SETTLING_DELAYS_MAX)
        while True:
            if is_over_within(self._delay_s):
                return None
            earlier, now = now, self._selection.scan()
            if now.files == earlier.files or time.monotonic() >= until:
                return self._compare(now)

    def _learn(self) -> None:
        """Reads the files as they were found first, where they still are what they were."""
        for path, stamp in self._before.files.items():
            digest = _digest(path, stamp)
            if stamp_of(path) == stamp:
                self._digests[path] = digest

    def _compare(self, now: Found) -> Change | None:
        before, self._before = self._before, now
        paths: list[str] = []
        touched: list[str] = []
        for path in before.files.keys() | now.files.keys():
            stamp = now.files.get(path)
            if stamp == before.files.get(path):
                continue
            digest = b"" if stamp is None else _digest(path, stamp)
            is_same = self._digests.get(path) == digest
            self._digests[path] = digest
            (touched if is_same else paths).append(path)
        if paths:
            return Change.of(paths, self._start)
        return Change.of(touched, self._start, is_touch=True) if touched else None

    def _occasions(self, end: _End, polls: bool | None) -> Iterator[None]:
        """Yields whenever it is time to look, until the end."""
        if polls is None:
            polls = os.environ.get("WATCHFILES_FORCE_POLLING", "").lower() not in ("", "0", "false")
        if not polls:
            # The package may be missing, the kernel may have no watches left, and watchfiles takes
            # no name that is not UTF-8.
            with contextlib.suppress(ImportError, OSError, UnicodeError):
                yield from self._hints(end)
        while not end.is_set_within(max(_POLL_S, self._look_s * _PAUSE_LOOKS)):
            yield

    def _hints(self, end: _End) -> Iterator[None]:
        import watchfiles

        # A program that runs itself may have logging say more than we want to hear.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        while not end.is_set():
            folders = self._before.folders
            hints = watchfiles.watch(
                # Not below them: folders that are left out would cost watches, and wake us up.
                *folders,
                recursive=False,
                watch_filter=self._is_of_interest,
                stop_event=end,
                yield_on_timeout=True,
                rust_timeout=round(_HINT_S * 1000),
                ignore_permission_denied=True,
            )
            # A folder may go before it is watched.
            with contextlib.closing(hints), contextlib.suppress(FileNotFoundError):
                look_at = 0.0
                for hint in hints:
                    # The first time for what came before the kernel had us watch.
                    if hint or time.monotonic() >= look_at:
                        yield
                        pause_s = max(_LOOK_ANYWAY_S, self._look_s * _PAUSE_LOOKS)
                        look_at = time.monotonic() + pause_s
                    # The kernel watches a folder, whatever its name is or was.
                    is_anew = any(
                        path in folders and change != watchfiles.Change.modified
                        for change, path in hint
                    )
                    if is_anew or self._before.folders != folders:
                        break
            if not end.is_set_within(self._delay_s):
                yield

    def _is_of_interest(self, _change: object, path: str) -> bool:
        return path in self._before.folders or self._selection.is_of_interest(path)


class _End:
    """Whether the other side has closed the channel."""

    def __init__(self, channel: socket.socket) -> None:
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)

    def is_set(self) -> bool:
        """As watchfiles asks for it. Nothing is ever sent to us, so what can be read is the end."""
        return self.is_set_within(0.0)

    def is_set_within(self, seconds: float) -> bool:
        """Waits for it so long at most."""
        return bool(self._poll.poll(seconds * 1000))


def _digest(path: str, stamp: Stamp) -> bytes:
    """Tells its content from others; the stamp stands for what is large or must not be read."""
    if stamp[1] <= _BYTES_MAX:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            return hashlib.blake2b(file.read(_BYTES_MAX + 1), digest_size=16).digest()
    return repr(stamp).encode()
