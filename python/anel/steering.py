"""Which sockets of a port the kernel gives new connections to.

Owns a program for sockets that share a port (SO_REUSEPORT): a new connection goes to one of the
first so many of them, at random. So one can be opened before somebody accepts from it, and emptied
before it is closed, although closing a listening socket resets whoever is in its queue, or on the
way there. And a filter for the last ones, which lets nobody begin to connect. Knows nothing of
workers.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Sequence

# <linux/socket.h>, the second since Linux 4.5; `socket` has no names for them.
_SO_ATTACH_FILTER = 26
_SO_ATTACH_REUSEPORT_CBPF = 51

# <linux/filter.h>: load a word of the ancillary data that is a random number, take the remainder of
# the division by a constant, return it: the index of a socket in the order in which they listened.
_LOAD_WORD, _REMAINDER, _RETURN = 0x20, 0x94, 0x16
_RANDOM = 0xFFFFF000 + 56


# Load a byte of the segment: its flags (RFC 9293 3.1). Take some of them, jump by what they are.
_LOAD_BYTE, _AND, _JUMP_IF_EQUAL, _RETURN_CONSTANT = 0x30, 0x54, 0x15, 0x06
_FLAGS_AT, _SYN, _SYN_AND_ACK = 13, 0x02, 0x12
_ALL_BYTES = 0xFFFFFFFF


def deafen(listener: socket.socket) -> None:
    """Has the kernel drop the first segment of new connections; those on their way still arrive.

    Whoever is dropped tries again after 1 s, and is refused once the socket is closed. Without
    such filters everything is as before.
    """
    with contextlib.suppress(OSError):
        _attach(
            listener,
            _SO_ATTACH_FILTER,
            (
                (_LOAD_BYTE, 0, 0, _FLAGS_AT),
                (_AND, 0, 0, _SYN_AND_ACK),
                (_JUMP_IF_EQUAL, 0, 1, _SYN),
                (_RETURN_CONSTANT, 0, 0, 0),
                (_RETURN_CONSTANT, 0, 0, _ALL_BYTES),
            ),
        )


def steer(listener: socket.socket, first: int) -> bool:
    """Gives new connections to the first so many sockets of this one's port.

    Returns whether the kernel does so; otherwise all of them get connections, as before.
    """
    steps = ((_LOAD_WORD, 0, 0, _RANDOM), (_REMAINDER, 0, 0, first), (_RETURN, 0, 0, 0))
    try:
        _attach(listener, _SO_ATTACH_REUSEPORT_CBPF, steps)
    except OSError:
        return False
    return True


def _attach(
    listener: socket.socket, option: int, steps: Sequence[tuple[int, int, int, int]]
) -> None:
    """Attaches a program: of each step the code, where to jump if so and if not, the operand."""
    packed = b"".join(struct.pack("=HBBI", *step) for step in steps)
    instructions = ctypes.create_string_buffer(packed, len(packed))
    # `struct sock_fprog`, which the kernel copies what it points to from.
    program = struct.pack("@HP", len(steps), ctypes.addressof(instructions))
    listener.setsockopt(socket.SOL_SOCKET, option, program)
