"""Whom a server becomes once it listens.

Owns the user and group that the operator names, and the change to them, which nothing takes back.
Knows nothing of sockets and workers: it is called between the two, so that the port may be one that
only root opens, and the ring belongs to the user who needs no privileges.
"""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import os
import pwd
from typing import Protocol

from anel.exceptions import ConfigError, SetupError


class Owned(Protocol):
    """What may be made another user's."""

    def give_to(self, uid: int, gid: int) -> None:
        """Does so; -1 leaves the user as it is. Raises OSError."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """A user, or the one there is, with a group and the user's other groups."""

    uid: int | None
    gid: int
    groups: tuple[int, ...]
    # As the operator wrote it.
    name: str

    def own(self, paths: Owned) -> None:
        """Has the user own what the server has made, to be done before it becomes the user."""
        # Who may not do this may not do what follows either, which says so.
        with contextlib.suppress(OSError):
            paths.give_to(-1 if self.uid is None else self.uid, self.gid)

    def assume(self) -> None:
        """Changes to it for good; every thread of the process does. Raises SetupError."""
        uid = os.geteuid() if self.uid is None else self.uid
        try:
            # In this order: without the user's privileges no group can be changed.
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(uid, uid, uid)
        except OSError as error:
            raise SetupError(
                error.errno,
                f"cannot become {self.name}",
                "start as root, or leave --user and --group out",
            ) from None


def identity(user: str | int | None, group: str | int | None) -> Identity | None:
    """Finds out who is meant by names or numbers; None when nobody is named.

    Without a group it is the user's own. Raises ConfigError for what is neither a name nor a
    number, SetupError for who is not known on this machine.
    """
    uid, gid = _number("user", user), _number("group", group)
    if user is None and group is None:
        return None
    entry = _user(user, uid) if user is not None else None
    if entry is not None:
        uid = entry.pw_uid
    if group is not None:
        gid = _gid(group, gid)
    elif entry is not None:
        gid = entry.pw_gid
    if gid is None:
        raise SetupError(None, f"user {user!r} is not known here", "name a group, too")
    groups = (gid,) if entry is None else tuple(os.getgrouplist(entry.pw_name, gid))
    named = (("user", user), ("group", group))
    name = " and ".join(f"{kind} {value!r}" for kind, value in named if value is not None)
    return Identity(uid, gid, groups, name)


# The next one means "as it is" to the kernel.
_NUMBER_MAX = 2**32 - 2


def _number(kind: str, value: str | int | None) -> int | None:
    """The number that is meant; None for a name."""
    if value is None or (isinstance(value, str) and value and not value.isdecimal()):
        return None
    is_number = isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    if not is_number or not 0 <= int(value) <= _NUMBER_MAX:
        raise ConfigError(
            f"{kind} must be a name or a number from 0 to {_NUMBER_MAX}, not {value!r}"
        )
    return int(value)


def _user(user: str | int, uid: int | None) -> pwd.struct_passwd | None:
    """The user's entry; None for a number that has none."""
    try:
        return pwd.getpwnam(str(user)) if uid is None else pwd.getpwuid(uid)
    except KeyError:
        if uid is not None:
            return None
        raise SetupError(None, f"there is no user {user!r} on this machine") from None


def _gid(group: str | int, gid: int | None) -> int:
    try:
        return grp.getgrnam(str(group)).gr_gid if gid is None else gid
    except KeyError:
        raise SetupError(None, f"there is no group {group!r} on this machine") from None
