"""Which files of a program matter to a reload, as the disk has them at a moment.

Owns patterns, the folders that nobody looks into, and what tells a file from an earlier one of its
name. Knows nothing of changes.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from anel.exceptions import ConfigError

# A tree with more folders is no program but a disk, and a look at it takes half a second.
FOLDERS_MAX = 5_000

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
        if not self.roots:
            raise ConfigError("there is no folder to watch: name one (--reload-dir, reload_dir)")
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
        found = Found({}, set())
        for root in self.roots:
            if os.path.isdir(root):
                self._walk(root, found, folders_max)
                continue
            found.folders.add(os.path.dirname(root))
            if (stamp := stamp_of(root)) is not None:
                found.files[root] = stamp
        return found

    def is_of_interest(self, path: str) -> bool:
        """Whether news of this path are a reason to look: a file that is watched, or a folder."""
        name = os.path.basename(path)
        if name not in _EXCLUDED_FOLDERS and not name.startswith(".") and os.path.isdir(path):
            return True
        return any(
            path == root or (path.startswith(prefix(root)) and self._is_selected(root, path))
            for root in self.roots
        )

    def _walk(self, root: str, found: Found, folders_max: float) -> None:
        pending = [root]
        while pending:
            folder = pending.pop()
            entries = _entries(folder)
            is_environment = any(entry.name == _ENVIRONMENT for entry in entries)
            if is_environment and folder != root:
                continue
            found.folders.add(folder)
            if len(found.folders) > folders_max:
                raise ConfigError(
                    f"{root!r} has too many folders to watch: name those of the application"
                    " (--reload-dir, reload_dir)"
                )
            for entry in entries:
                if _is_folder(entry):
                    if entry.path not in found.folders and self._is_entered(root, entry.path):
                        pending.append(entry.path)
                elif self._is_selected(root, entry.path):
                    stamp = stamp_of(entry.path)
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
            parts = path.removeprefix(prefix(root)).split("/")
            verdict = judge(parts) and not any(one.matches(parts) for one in self._excludes)
            if len(known) >= _VERDICTS_MAX:
                known.clear()
            known[root, path] = verdict
        return verdict


@dataclasses.dataclass(frozen=True)
class Found:
    """What a look at the disk has found."""

    files: dict[str, Stamp]
    folders: set[str]


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


def stamp_of(path: str) -> Stamp | None:
    """None for what is no file. A link is what it leads to."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _is_usual_folder(parts: Sequence[str]) -> bool:
    return not parts[-1].startswith(".") and parts[-1] not in _EXCLUDED_FOLDERS


def prefix(root: str) -> str:
    """What paths below a folder begin with."""
    return root.rstrip("/") + "/"
