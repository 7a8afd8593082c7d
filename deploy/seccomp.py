"""Writes seccomp.json: what a container may ask of the kernel, io_uring included.

Owns the recipe. The calls are those of systemd's group `@system-service`, as `systemd-analyze
syscall-filter` lists it, without those that reach out of a container (ISOLATION) and with
conditions where an argument decides (CONDITIONS). The format is that of the OCI runtime
specification, without Docker's own extensions, so that one file serves Docker, Podman, containerd
and CRI-O. Run it again with a newer systemd to have newer calls:

    python deploy/seccomp.py >deploy/seccomp.json
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

# The three calls that Docker's and containerd's default profiles refuse.
RING = {"io_uring_setup", "io_uring_enter", "io_uring_register"}

# Other namespaces, the kernel's key rings (they belong to users, not to containers), memory and
# descriptors of other processes, faults handled in user space (a help for kernel exploits), file
# handles that ignore mounts, probes. Docker's default profile refuses them for the same reasons.
ISOLATION = {
    *("setns", "unshare"),
    *("add_key", "keyctl", "request_key"),
    *("kcmp", "process_vm_readv", "process_vm_writev", "process_madvise"),
    *("userfaultfd", "uretprobe"),
    "name_to_handle_at",
    *("migrate_pages", "move_pages"),
    "swapcontext",
}

# Namespaces to be made by clone: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_NAMESPACES = 0x7E02_0000
# AF_UNIX, AF_INET, AF_INET6, and AF_NETLINK, which getaddrinfo asks for the machine's addresses.
_FAMILIES = (1, 2, 10, 16)
# PER_LINUX, and the question which one holds. Others are old gaps in the layout of memory.
_PERSONALITIES = (0, 0xFFFF_FFFF)

_ENOSYS = 38


def _equals(index: int, value: int, mask: int | None = None) -> dict[str, Any]:
    if mask is not None:
        return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}


def _allowed(names: list[str], *arguments: dict[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ALLOW"}
    return {**rule, "args": list(arguments)} if arguments else rule


CONDITIONS: dict[str, list[dict[str, Any]]] = {
    "clone": [_allowed(["clone"], _equals(0, 0, _NAMESPACES))],
    # Its flags are in memory, where a filter cannot look. The C library falls back to clone.
    "clone3": [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS}],
    "socket": [_allowed(["socket"], _equals(0, family)) for family in _FAMILIES],
    "personality": [_allowed(["personality"], _equals(0, one)) for one in _PERSONALITIES],
}


def group(name: str) -> set[str]:
    """The calls of one of systemd's groups, and of those in it."""
    command = ["systemd-analyze", "syscall-filter", name]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    calls: set[str] = set()
    for line in listed.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            calls |= group(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return calls


def profile() -> dict[str, Any]:
    """The profile, as the runtime specification has it."""
    plain = group("@system-service") - ISOLATION - CONDITIONS.keys() - RING
    conditions = [rule for rules in CONDITIONS.values() for rule in rules]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        # EPERM.
        "defaultErrnoRet": 1,
        # Calls of 32-bit programs are refused, as with SystemCallArchitectures=native.
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [_allowed(sorted(RING)), *conditions, _allowed(sorted(plain))],
    }


if __name__ == "__main__":
    json.dump(profile(), sys.stdout, indent=1)
    print()
