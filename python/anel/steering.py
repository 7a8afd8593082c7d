"""Which sockets of a port the kernel gives new connections to.

Owns a program for sockets that share a port (SO_REUSEPORT): a new connection goes to one of the
first so many of them, at random. So one can be opened before somebody accepts from it, and emptied
before it is closed, although closing a listening socket resets whoever is in its queue, or on the
way there. Knows nothing of workers.
"""

from __future__ import annotations

import ctypes
import socket
import struct

# <linux/socket.h>, Linux 4.5; `socket` has no name for it.
_SO_ATTACH_REUSEPORT_CBPF = 51

# <linux/filter.h>: load a word of the ancillary data that is a random number, take the remainder of
# the division by a constant, return it: the index of a socket in the order in which they listened.
_LOAD_WORD, _REMAINDER, _RETURN = 0x20, 0x94, 0x16
_RANDOM = 0xFFFFF000 + 56


def steer(listener: socket.socket, first: int) -> bool:
    """Gives new connections to the first so many sockets of this one's port.

    Returns whether the kernel does so; otherwise all of them get connections, as before.
    """
    steps = ((_LOAD_WORD, _RANDOM), (_REMAINDER, first), (_RETURN, 0))
    # `struct sock_filter`: code, two jumps that are none, operand.
    packed = b"".join(struct.pack("=HBBI", code, 0, 0, operand) for code, operand in steps)
    instructions = ctypes.create_string_buffer(packed, len(packed))
    # `struct sock_fprog`, which the kernel copies what it points to from.
    program = struct.pack("@HP", len(steps), ctypes.addressof(instructions))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)
    except OSError:
        return False
    return True
