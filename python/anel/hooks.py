"""What an application does around serving: start-up and shutdown hooks, and lifespans.

Owns their order and what a failure of one means for the others. All of them run in one task on the
application's loop, in the worker, so a lifespan may hold a task group or a timeout open while it
serves. Knows nothing of signals and requests: `serving` says when to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, TypeAlias

from anel.exceptions import ConfigError

Hook: TypeAlias = Callable[..., Any]
_Phase = Literal["startup", "shutdown", "lifespan"]
_Exit: TypeAlias = Callable[
    [type[BaseException] | None, BaseException | None, TracebackType | None], Any
]

_logger = logging.getLogger("anel.error")


class StartUpFailed(Exception):
    """A start-up hook has failed. The cause is the user's exception."""


class Hooks:
    """An application's hooks, in the order in which they were registered."""

    def __init__(self) -> None:
        """Starts without hooks."""
        self._steps: list[tuple[_Phase, Hook, bool]] = []

    def __len__(self) -> int:
        """How many hooks there are."""
        return len(self._steps)

    def add(self, phase: _Phase, hook: Hook) -> None:
        """Registers a hook, or raises ConfigError when it could not be called."""
        if not callable(hook):
            raise ConfigError(f"a {phase} hook must be callable, not {hook!r}")
        if inspect.isgeneratorfunction(hook):
            raise ConfigError(f"a {phase} hook must not be a generator: {hook!r}")
        if phase == "lifespan" and inspect.isasyncgenfunction(hook):
            takes_app = _takes_app(phase, hook)
            self._steps.append((phase, contextlib.asynccontextmanager(hook), takes_app))
            return
        if inspect.isasyncgenfunction(hook):
            raise ConfigError(f"a {phase} hook must not yield; use app.lifespan for {hook!r}")
        if phase == "lifespan" and inspect.iscoroutinefunction(hook):
            raise ConfigError(f"a lifespan must yield once: {hook!r}")
        self._steps.append((phase, hook, _takes_app(phase, hook)))

    async def live(
        self, app: object, started: asyncio.Future[None], stopping: asyncio.Event
    ) -> None:
        """Starts up, sets `started`, waits for `stopping` and shuts down, in reverse order.

        A failing start raises, and the lifespans that were entered are left again; shutdown hooks
        undo a whole start, so they do not run then. What fails in the shutdown is logged, and the
        rest of it runs. A cancellation ends the wait, or the shutdown, at once.
        """
        async with contextlib.AsyncExitStack() as stack:
            for phase, hook, takes_app in self._steps:
                arguments = (app,) if takes_app else ()
                if phase == "startup":
                    await _call(hook, arguments)
                elif phase == "shutdown":
                    stack.push_async_exit(_shutdown(hook, arguments, started))
                else:
                    context = hook(*arguments)
                    if not isinstance(context, contextlib.AbstractAsyncContextManager):
                        raise ConfigError(
                            f"a lifespan must be an async function that yields, or return an async"
                            f" context manager; {_name(hook)} returned {context!r}"
                        )
                    await context.__aenter__()
                    stack.push_async_exit(_leave(hook, context, stopping))
            started.set_result(None)
            await stopping.wait()


async def _call(hook: Hook, arguments: tuple[object, ...]) -> None:
    result = hook(*arguments)
    if inspect.isawaitable(result):
        await result


def _shutdown(hook: Hook, arguments: tuple[object, ...], started: asyncio.Future[None]) -> _Exit:
    async def exit_(kind: type[BaseException] | None, _error: object, _traceback: object) -> None:
        if not started.done() or kind is asyncio.CancelledError:
            return
        try:
            await _call(hook, arguments)
        except Exception:
            _logger.exception("shutdown hook failed hook=%s", _name(hook))

    return exit_


def _leave(
    hook: Hook, context: contextlib.AbstractAsyncContextManager[Any], stopping: asyncio.Event
) -> _Exit:
    async def exit_(
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            return await context.__aexit__(kind, error, traceback)
        except Exception:
            # One that ends on its own (its task group failed, say) ends the server; in a shutdown
            # there is nothing left to end.
            if not stopping.is_set():
                raise
            _logger.exception("lifespan failed hook=%s", _name(hook))
            return None

    return exit_


def _takes_app(phase: str, hook: Hook) -> bool:
    """Whether the hook has to be given the application: it has a parameter without a default."""
    try:
        parameters = inspect.signature(hook).parameters.values()
    except (TypeError, ValueError):
        # Some callables of extension modules do not tell. They cannot know of an application.
        return False
    required = [
        parameter
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(required) > 1 or any(one.kind is one.KEYWORD_ONLY for one in required):
        names = ", ".join(parameter.name for parameter in required)
        raise ConfigError(f"a {phase} hook takes the application or nothing, not ({names})")
    return bool(required)


def _name(hook: Hook) -> str:
    return getattr(hook, "__qualname__", None) or repr(hook)
