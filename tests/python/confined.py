"""Runs a program behind a filter of system calls: `python confined.py PROFILE PROGRAM [ARGUMENTS]`.

Owns what a container runtime does with a profile of the OCI runtime specification, by the library
that runtimes use (libseccomp, seccomp_init(3) and following). Exits with 5 where there is no such
library.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from typing import Any

NO_LIBRARY = 5

# SCMP_ACT_*: ERRNO has the error in its lower half.
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000
# SCMP_CMP_*.
_COMPARISONS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}


class _Argument(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = (
        ("index", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def _action(rule: dict[str, Any], errno_default: int) -> int:
    if rule["action"] == "SCMP_ACT_ALLOW":
        return _ALLOW
    assert rule["action"] == "SCMP_ACT_ERRNO", rule
    return int(_ERRNO | rule.get("errnoRet", errno_default))


def confine(profile: dict[str, Any]) -> None:
    """This process and what it becomes are bound by the profile, for good."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
    ]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    errno_default = profile.get("defaultErrnoRet", errno.EPERM)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    filters = library.seccomp_init(_ERRNO | errno_default)
    for rule in profile["syscalls"]:
        compared = [
            _Argument(one["index"], _COMPARISONS[one["op"]], one["value"], one.get("valueTwo", 0))
            for one in rule.get("args", [])
        ]
        arguments = (_Argument * len(compared))(*compared)
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            # Calls of other architectures, and those that the library is too old to know.
            if number < 0:
                continue
            result = library.seccomp_rule_add_array(
                filters, _action(rule, errno_default), number, len(compared), arguments
            )
            assert result == 0, f"{name}: {os.strerror(-result)}"
    result = library.seccomp_load(filters)
    assert result == 0, os.strerror(-result)


def main() -> None:
    """Confines itself and becomes the program."""
    with open(sys.argv[1], "rb") as file:
        profile = json.load(file)
    try:
        confine(profile)
    except OSError as error:
        print(error, file=sys.stderr)
        raise SystemExit(NO_LIBRARY) from None
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
