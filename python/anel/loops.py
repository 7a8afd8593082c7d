"""Which event loop the handlers run on.

Owns the names of the choices, where a choice comes from and the making of the loop. Knows nothing
of workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TypeAlias

from anel.exceptions import ConfigError, SetupError
from anel.loop import new_loop

# "auto" is asyncio's loop with the reactor as its selector; on the others the worker is a guest.
LOOPS = ("auto", "asyncio", "uvloop")

LoopFactory: TypeAlias = Callable[[], asyncio.AbstractEventLoop]
LoopChoice: TypeAlias = str | LoopFactory

# No context variable: every request starts from the context of the server, and copies one that is
# not empty.
_preferred: str | None = None


def check(choice: LoopChoice | None) -> None:
    """Raises ConfigError unless it is a name of `LOOPS`, a function that makes a loop, or None."""
    if choice is not None and choice not in LOOPS and not callable(choice):
        names = ", ".join(LOOPS)
        raise ConfigError(f"loop must be one of {names}, or make a loop, not {choice!r}")


@contextlib.contextmanager
def preferring(name: str | None) -> Iterator[None]:
    """Meanwhile applications choose this loop before all others. None changes nothing."""
    global _preferred
    before = _preferred
    if name is not None:
        _preferred = name
    try:
        yield
    finally:
        _preferred = before


def choose(own: LoopChoice | None) -> LoopChoice:
    """The command line's choice, else the application's own, else the environment's, else "auto".

    Raises SetupError when the environment's ANEL_LOOP names none.
    """
    chosen = _preferred or own
    if chosen is None:
        chosen = os.environ.get("ANEL_LOOP") or "auto"
        if chosen not in LOOPS:
            names = ", ".join(LOOPS)
            raise SetupError(None, f"ANEL_LOOP must be one of {names}, not {chosen!r}")
    return chosen


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
