"""Which event loop the handlers run on.

Owns the names of the choices and the making of the loop. Knows nothing of workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from anel.exceptions import ConfigError, SetupError
from anel.loop import new_loop

# "auto" is asyncio's loop with the reactor as its selector; on the others the worker is a guest.
LOOPS = ("auto", "asyncio", "uvloop")

LoopFactory: TypeAlias = Callable[[], asyncio.AbstractEventLoop]
LoopChoice: TypeAlias = str | LoopFactory


def make(choice: LoopChoice) -> asyncio.AbstractEventLoop:
    """Makes the loop. Raises SetupError when its package is missing, ConfigError if it is none."""
    if choice == "auto":
        return new_loop()
    if choice == "asyncio":
        return asyncio.SelectorEventLoop()
    loop = _uvloop()() if isinstance(choice, str) else choice()
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise ConfigError(f"loop={choice!r} must make an asyncio event loop, not {loop!r}")
    return loop


def require(choice: LoopChoice) -> None:
    """Raises SetupError when the package of a loop is missing."""
    if choice == "uvloop":
        _uvloop()


def _uvloop() -> LoopFactory:
    try:
        from uvloop import new_event_loop
    except ImportError as error:
        raise SetupError(
            None, f"the loop uvloop cannot be had ({error})", "pip install 'anel[uvloop]'"
        ) from None
    factory: LoopFactory = new_event_loop
    return factory
