"""Handles of the reactor's loop: native, and asyncio's in every respect."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from anel.loop import ReactorLoop, new_loop

variable = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def loop() -> Iterator[ReactorLoop]:
    """A loop without a worker."""
    loop = new_loop()
    yield loop
    loop.close()


@pytest.fixture
def reference() -> Iterator[asyncio.AbstractEventLoop]:
    """Asyncio's own loop."""
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


def run_ready(loop: asyncio.AbstractEventLoop) -> None:
    """Runs what is ready now."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def add(*numbers: int) -> int:
    """A callback that can be named."""
    return sum(numbers)


def test_callbacks_run_in_order_with_their_arguments(loop: ReactorLoop) -> None:
    called: list[tuple[int, ...]] = []
    loop.call_soon(lambda *numbers: called.append(numbers), 1, 2)
    loop.call_soon_threadsafe(lambda: called.append((3,)))
    loop.call_soon(lambda: called.append(()))

    run_ready(loop)

    assert called == [(1, 2), (3,), ()]


def test_a_callback_of_a_callback_waits_for_the_next_iteration(loop: ReactorLoop) -> None:
    called: list[str] = []

    def first() -> None:
        loop.call_soon(called.append, "inner")
        loop.call_soon(loop.stop)

    loop.call_soon(first)
    loop.call_soon(called.append, "outer")
    loop.run_forever()

    assert called == ["outer", "inner"]


def test_a_handle_is_a_handle_of_asyncio(loop: ReactorLoop) -> None:
    handle = loop.call_soon(add)

    assert isinstance(handle, asyncio.Handle)
    assert not isinstance(handle, asyncio.TimerHandle)


def test_a_cancelled_handle_is_not_called(loop: ReactorLoop) -> None:
    called: list[int] = []
    handle = loop.call_soon(called.append, 1)

    handle.cancel()
    handle.cancel()
    run_ready(loop)

    assert handle.cancelled()
    assert called == []


def test_a_handle_that_has_run_is_not_cancelled(loop: ReactorLoop) -> None:
    handle = loop.call_soon(add)

    run_ready(loop)

    assert not handle.cancelled()


def test_a_cancelled_handle_lets_go_of_its_callback(loop: ReactorLoop) -> None:
    class Callback:
        def __call__(self) -> None: ...

    callback = Callback()
    watched = weakref.ref(callback)
    handle = loop.call_soon(callback)
    del callback

    handle.cancel()

    assert watched() is None


@pytest.mark.parametrize("cancel", [False, True])
def test_a_handle_says_what_asyncio_would(
    loop: ReactorLoop, reference: asyncio.AbstractEventLoop, cancel: bool
) -> None:
    ours, theirs = loop.call_soon(add, 1, 2), reference.call_soon(add, 1, 2)
    if cancel:
        ours.cancel()
        theirs.cancel()

    assert type(ours) is not type(theirs)
    assert repr(ours) == repr(theirs)


def test_a_callback_runs_in_a_copy_of_the_context_it_was_left_in(loop: ReactorLoop) -> None:
    seen: list[str] = []

    def leave() -> None:
        variable.set("set")
        loop.call_soon(lambda: seen.append(variable.get()))
        variable.set("changed")

    contextvars.copy_context().run(leave)
    run_ready(loop)

    assert seen == ["set"]


def test_a_callback_runs_in_the_context_it_is_given(loop: ReactorLoop) -> None:
    context = contextvars.copy_context()

    loop.call_soon(variable.set, "set", context=context)
    run_ready(loop)

    assert context[variable] == "set"
    assert variable.get() == "unset"


def failures(loop: asyncio.AbstractEventLoop) -> list[dict[str, Any]]:
    """What the loop's exception handler is told from now on."""
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: told.append(context))
    return told


def test_what_a_callback_raises_is_told_as_asyncio_tells_it(
    loop: ReactorLoop, reference: asyncio.AbstractEventLoop
) -> None:
    def fails(number: int) -> None:
        raise ValueError(number)

    told = []
    for each in (loop, reference):
        found = failures(each)
        handle = each.call_soon(fails, 7)
        run_ready(each)
        assert found[0]["handle"] is handle
        told.append([(c.keys(), c["message"], repr(c["exception"])) for c in found])

    assert told[0] == told[1]


def test_a_callback_after_one_that_raised_is_called(loop: ReactorLoop) -> None:
    failures(loop)
    called: list[int] = []
    loop.call_soon(int, "no number")
    loop.call_soon(called.append, 1)

    run_ready(loop)

    assert called == [1]


def test_a_context_that_is_in_use_is_told_of(
    loop: ReactorLoop, caplog: pytest.LogCaptureFixture
) -> None:
    context = contextvars.copy_context()
    called: list[int] = []
    loop.call_soon(called.append, 1, context=context)

    context.run(run_ready, loop)

    # Asyncio calls exception handlers in the handle's context, which fails as well, and logs that.
    assert "is already entered" in caplog.text
    assert called == []


@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_a_callback_leaves_the_loop(
    loop: ReactorLoop, exception: type[BaseException]
) -> None:
    def leave() -> None:
        raise exception

    loop.call_soon(leave)

    with pytest.raises(exception):
        loop.run_forever()


def test_wrong_arguments_are_refused(loop: ReactorLoop) -> None:
    with pytest.raises(TypeError):
        loop.call_soon()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        loop.call_soon(add, unknown=1)  # type: ignore[call-arg]


def test_a_closed_loop_takes_no_callbacks(loop: ReactorLoop) -> None:
    loop.close()

    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(add)


def test_debug_mode_remembers_where_a_callback_was_left(loop: ReactorLoop) -> None:
    loop.set_debug(True)

    handle = loop.call_soon(add)

    assert loop.get_debug()
    assert "created at" in repr(handle)
    assert __file__ in repr(handle)


def test_debug_mode_notices_a_wrong_thread(loop: ReactorLoop) -> None:
    loop.set_debug(True)
    raised: list[BaseException] = []

    def outside() -> None:
        try:
            loop.call_soon(add)
        except RuntimeError as error:
            raised.append(error)

    def inside() -> None:
        thread = threading.Thread(target=outside)
        thread.start()
        thread.join()
        loop.stop()

    loop.call_soon(inside)
    loop.run_forever()

    assert "Non-thread-safe operation" in str(raised[0])


def test_debug_mode_can_be_left_again(loop: ReactorLoop) -> None:
    loop.set_debug(True)
    in_debug_mode = loop.call_soon(add)
    loop.set_debug(False)
    called: list[int] = []

    handle = loop.call_soon(called.append, 1)
    run_ready(loop)

    assert type(handle) is not type(in_debug_mode)
    assert not loop.get_debug()
    assert called == [1]


def test_handles_of_before_debug_mode_run_in_it(loop: ReactorLoop) -> None:
    called: list[int] = []
    loop.call_soon(called.append, 1)
    loop.slow_callback_duration = 0.0
    loop.set_debug(True)

    run_ready(loop)

    assert called == [1]


def test_a_closed_loop_is_freed_at_once() -> None:
    loop = new_loop()
    run_ready(loop)
    loop.close()
    watched = weakref.ref(loop)

    del loop

    assert watched() is None


def test_a_handle_in_a_cycle_is_collected(loop: ReactorLoop) -> None:
    class Owner:
        handle: asyncio.Handle

        def call(self) -> None: ...

    owner = Owner()
    owner.handle = loop.call_soon(owner.call)
    watched = weakref.ref(owner)
    run_ready(loop)

    del owner
    gc.collect()

    assert watched() is None
