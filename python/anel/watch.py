"""Which files of a program matter, and which of them have changed.

Owns the choice of files and what counts as a change: their names, stamps and bytes. A look at the
disk decides, whatever caused it; `watchfiles`, where it is installed, only says when to look, and
without it there is a look every 0.3 s. So both find the same, and neither a kernel that drops
events nor a disk that has none (NFS, shared folders of virtual machines) loses a save. Knows
nothing of what is done about a change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import hashlib
import importlib.util
import json
import logging
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from anel.exceptions import ConfigError

# How long files must stay as they are before a change counts: an editor truncates, writes and
# renames within milliseconds, and the clock of most kernels' time stamps ticks every 4 ms.
DELAY_S = 0.1
_DELAY_S_MIN = 0.02
DELAY_S_MAX = 60.0

# Between two looks without watchfiles. A look at 1000 files takes 2 ms.
_POLL_S = 0.3

# watchfiles misses what its kernel does not see, such as the target of a link. So we look anyway.
_LOOK_ANYWAY_S = 2.0

# What is written on and on counts as changed after so long, or so many delays.
_SETTLING_S_MAX = 2.0
_SETTLING_DELAYS_MAX = 10.0

# How often watchfiles returns without news. It wakes up every 50 ms in any case.
_HINT_S = 0.25

# A tree with more folders is no program but a disk, and a look at it takes a second.
_FOLDERS_MAX = 10_000

# What is larger counts as changed when it is written, whatever is in it.
_BYTES_MAX = 1 << 20

# Names of temporary files come and go, so that what is known of names must not grow for ever.
_VERDICTS_MAX = 200_000

_INCLUDED = ("*.py",)

# Besides hidden folders, and those of virtual environments whatever their names.
_EXCLUDED_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
_ENVIRONMENT = "pyvenv.cfg"

# When a file was written, its length, and which one it is: a rename keeps the first two.
Stamp: TypeAlias = tuple[int, int, int]

# About the parts of a path below a folder; and by that folder and the path.
_Judge: TypeAlias = Callable[[Sequence[str]], bool]
_Verdicts: TypeAlias = dict[tuple[str, str], bool]


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A pattern of names, or of paths below a watched folder if it has a slash.

    `*`, `?` and `[...]` stand for what they do in a shell, so never for a slash or a leading dot;
    `**` is any number of folders.
    """

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Raises ConfigError for what is no pattern."""
        parts = tuple(part for part in text.split("/") if part not in ("", "."))
        if not parts or ".." in parts or text.startswith("/"):
            raise ConfigError(
                f"{text!r} is no pattern of files to watch: use one such as '*.html' or"
                " 'static/**/*.css'"
            )
        return cls(parts if "/" in text.rstrip("/") else ("**", *parts))

    def matches(self, path: Sequence[str]) -> bool:
        """Whether it is the pattern of a path below a watched folder, given in parts."""
        return _matches(path, self.parts)


def _matches(path: Sequence[str], parts: Sequence[str]) -> bool:
    if not parts:
        return not path
    if parts[0] == "**":
        return any(_matches(path[skip:], parts[1:]) for skip in range(len(path) + 1))
    if not path or (path[0].startswith(".") and not parts[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(path[0], parts[0]) and _matches(path[1:], parts[1:])


class Selection:
    """The files below some folders that are watched.

    These are `*.py` and what matches `includes`, without what matches `excludes`, which goes for
    folders, too. Never looked into are hidden folders, virtual environments, `__pycache__` and
    `node_modules`, unless they are named as folders to watch. A "folder" may be a file.
    """

    def __init__(
        self, folders: Iterable[str], includes: Iterable[str] = (), excludes: Iterable[str] = ()
    ) -> None:
        """Raises ConfigError for a folder that is not there and for what is no pattern."""
        self.roots = tuple(dict.fromkeys(map(os.path.abspath, folders)))
        for root in self.roots:
            if not os.path.exists(root):
                raise ConfigError(f"cannot watch {root!r}: it is not there")
        self._includes = [Pattern.parse(text) for text in (*_INCLUDED, *includes)]
        self._excludes = [Pattern.parse(text) for text in excludes]
        # Names stay what they are, and every look asks for all of them.
        self._entered: _Verdicts = {}
        self._selected: _Verdicts = {}

    def scan(self, folders_max: float = float("inf")) -> Found:
        """Looks at the disk. Raises ConfigError for more than so many folders."""
        found = Found({}, {})
        for root in self.roots:
            if os.path.isdir(root):
                self._walk(root, found, folders_max)
                continue
            folder = os.path.dirname(root)
            found.folders.setdefault(folder, _inode(folder))
            if (stamp := _stamp(root)) is not None:
                found.files[root] = stamp
        return found

    def is_of_interest(self, path: str) -> bool:
        """Whether news of this path are a reason to look: a file that is watched, or a folder."""
        name = os.path.basename(path)
        if name not in _EXCLUDED_FOLDERS and not name.startswith(".") and os.path.isdir(path):
            return True
        return any(
            path == root or (path.startswith(_prefix(root)) and self._is_selected(root, path))
            for root in self.roots
        )

    def _walk(self, root: str, found: Found, folders_max: float) -> None:
        pending = [(root, _inode(root))]
        while pending:
            folder, inode = pending.pop()
            entries = _entries(folder)
            is_environment = any(entry.name == _ENVIRONMENT for entry in entries)
            if is_environment and folder != root:
                continue
            found.folders[folder] = inode
            if len(found.folders) > folders_max:
                raise ConfigError(
                    f"{root!r} has too many folders to watch: name those of the application as"
                    " reload_dir"
                )
            for entry in entries:
                if _is_folder(entry):
                    if entry.path not in found.folders and self._is_entered(root, entry.path):
                        pending.append((entry.path, entry.inode()))
                elif self._is_selected(root, entry.path):
                    stamp = _stamp(entry.path)
                    if stamp is not None:
                        found.files[entry.path] = stamp

    def _is_entered(self, root: str, path: str) -> bool:
        """Whether a folder is looked into."""
        return self._verdict(root, path, self._entered, _is_usual_folder)

    def _is_selected(self, root: str, path: str) -> bool:
        """Whether a file is watched."""
        return self._verdict(root, path, self._selected, self._is_included)

    def _is_included(self, parts: Sequence[str]) -> bool:
        return any(one.matches(parts) for one in self._includes)

    def _verdict(self, root: str, path: str, known: _Verdicts, judge: _Judge) -> bool:
        verdict = known.get((root, path))
        if verdict is None:
            parts = path.removeprefix(_prefix(root)).split("/")
            verdict = judge(parts) and not any(one.matches(parts) for one in self._excludes)
            if len(known) >= _VERDICTS_MAX:
                known.clear()
            known[root, path] = verdict
        return verdict


@dataclasses.dataclass(frozen=True)
class Found:
    """What a look at the disk has found."""

    files: dict[str, Stamp]
    # With their inodes: one that was made anew is another one, and not watched yet.
    folders: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Change:
    """Files that were written, made, renamed or removed, as absolute paths.

    `paths` are those with other bytes than before; `touched` were written and are the same.
    """

    paths: tuple[str, ...]
    touched: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The first of them, as it is named in the working directory, and how many there are."""
        paths = self.paths or self.touched
        first = min(map(_shown, paths))
        if len(paths) == 1:
            return first
        return f"{first} and {len(paths) - 1} more"

    def encode(self) -> bytes:
        """As it travels: a line."""
        return json.dumps([self.paths, self.touched]).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Change:
        """What was encoded."""
        paths, touched = json.loads(line)
        return cls(tuple(paths), tuple(touched))


class Watch:
    """Finds out what changes among some files, from the moment that it is made."""

    def __init__(self, selection: Selection, delay_s: float = DELAY_S) -> None:
        """Looks for the first time. Raises ConfigError for too many folders."""
        self._selection = selection
        self._delay_s = max(delay_s, _DELAY_S_MIN)
        self._before = selection.scan(_FOLDERS_MAX)
        self._digests: dict[str, bytes] = {}

    def run(self, channel: socket.socket, polls: bool | None = None) -> None:
        """Sends every change, encoded, until the other side has closed the channel.

        `polls` has it look again and again although watchfiles is there; without it the
        environment's WATCHFILES_FORCE_POLLING decides.
        """
        end = _End(channel)
        self._learn()
        for _ in self._occasions(end, polls):
            change = self.look(end.is_set_within)
            if change is not None:
                try:
                    channel.sendall(change.encode())
                except OSError:
                    return

    def look(self, is_over_within: Callable[[float], bool]) -> Change | None:
        """What has changed since the last look; waits until nothing changes any more.

        It is handed what waits for a number of seconds, and says whether to give up.
        """
        now = self._selection.scan()
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
            if _stamp(path) == stamp:
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
        return Change(tuple(paths), tuple(touched)) if paths or touched else None

    def _occasions(self, end: _End, polls: bool | None) -> Iterator[None]:
        """Yields whenever it is time to look, until the end."""
        if polls is None:
            polls = os.environ.get("WATCHFILES_FORCE_POLLING", "").lower() not in ("", "0", "false")
        if not polls:
            # The package may be missing, and the kernel may have no watches left.
            with contextlib.suppress(ImportError, OSError):
                yield from self._hints(end)
        while not end.is_set_within(_POLL_S):
            yield

    def _hints(self, end: _End) -> Iterator[None]:
        from watchfiles import watch

        # A program that runs itself may have logging say more than we want to hear.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        while not end.is_set():
            folders = self._before.folders
            hints = watch(
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
                        look_at = time.monotonic() + _LOOK_ANYWAY_S
                        yield
                    if self._before.folders != folders:
                        break
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


def remove_bytecode(paths: Iterable[str]) -> None:
    """Has modules be read from these sources, although bytecode of them may be there.

    Python takes bytecode for that of a source which has the same length and was written in the same
    second, so that the second of two quick saves would never be seen.
    """
    for path in paths:
        if path.endswith(".py"):
            with contextlib.suppress(OSError, NotImplementedError):
                os.unlink(importlib.util.cache_from_source(path))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        # It has gone meanwhile, or is none of ours.
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A link to a folder may lead back to where it is.
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _stamp(path: str) -> Stamp | None:
    """None for what is no file. A link is what it leads to."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _digest(path: str, stamp: Stamp) -> bytes:
    """Tells its content from others; the stamp stands for what is large or must not be read."""
    if stamp[1] <= _BYTES_MAX:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            return hashlib.blake2b(file.read(_BYTES_MAX + 1), digest_size=16).digest()
    return repr(stamp).encode()


def _is_usual_folder(parts: Sequence[str]) -> bool:
    return not parts[-1].startswith(".") and parts[-1] not in _EXCLUDED_FOLDERS


def _inode(folder: str) -> int:
    try:
        return os.stat(folder).st_ino
    except OSError:
        return 0


def _prefix(root: str) -> str:
    """What paths below a folder begin with."""
    return root.rstrip("/") + "/"


def _shown(path: str) -> str:
    name = path.removeprefix(_prefix(os.getcwd()))
    return name if name.isprintable() else ascii(name)
