"""Runs a module of CPython's own asyncio tests on one kind of loop, and tells how each test ended.

    python asyncio_suite.py io_uring test_events results.json [name ...]

Owns the exchange of the loop: what `asyncio.new_event_loop()` makes, and what the mixins that ask
for `create_event_loop()` or `new_loop()` get. The kinds are `stock` (asyncio as it is), `plain`
(anel's loop before a worker is attached) and the two reactors, where every loop has a worker of its
own that listens, so that each `select()` is a turn. Names choose tests; without them all are run.
Knows nothing of what is tested.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import os
import pathlib
import socket
import sys
import threading
import types
import unittest
from collections.abc import Callable, Iterator

from anel import Application, _core
from anel.loop import ReactorLoop, new_loop

MakeLoop = Callable[[], asyncio.AbstractEventLoop]


class ServingLoop(ReactorLoop):
    """A loop that serves from its beginning to its end. `enters` counts the waits of all."""

    enters = 0

    def __init__(self, reactor: str) -> None:
        super().__init__()
        self._made_by = (os.getpid(), threading.get_ident())
        self._listener = socket.create_server(("127.0.0.1", 0))
        app = Application()
        app.router.add_constant("/", text="hello")
        self._worker = _core.Worker(
            app, [self._listener.fileno()], app.router.freeze(), reactor=reactor
        )
        self.reactor_selector.attach(self._worker)

    def close(self) -> None:
        if not self.is_closed() and not self.is_running():
            # A forked child, or another thread, must leave the ring to those who made it.
            if self._made_by == (os.getpid(), threading.get_ident()):
                ServingLoop.enters += self._worker.counters()["enters_total"]
                self._worker.stop()
            self.reactor_selector.detach()
            self._listener.close()
        super().close()


class Result(unittest.TextTestResult):
    """Remembers how every test ended: `ok`, `skipped`, or what failed."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.ends: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        self.ends[test.id()] = "ok"
        super().startTest(test)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        self.ends[test.id()] = "skipped"
        super().addSkip(test, reason)

    def note_failures(self) -> None:
        """Enters what failed, which is known only after the run: subtests, class fixtures."""
        for test, text in self.failures + self.errors:
            # A subtest has an id of its own, a class fixture is an `_ErrorHolder`.
            test = getattr(test, "test_case", test)
            self.ends[test.id()] = text
        for test in self.unexpectedSuccesses:
            self.ends[test.id()] = "unexpected success"


def tests_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """The single tests of a suite, in order."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_of(test)
        else:
            yield test


def concerns_the_loop(test_class: type) -> bool:
    """Leaves out what runs on selectors of its own, and the futures and tasks in Python.

    What the class of a task or a future is made of is all the same to the loop.
    """
    name = test_class.__name__
    if hasattr(test_class, "create_event_loop"):
        return name.startswith("EPoll")
    return not name.startswith(("Py", "CTask_PyFuture", "GenericTask"))


def chosen(module: types.ModuleType, names: list[str]) -> unittest.TestSuite:
    """The module's tests that concern the loop, or those of these names."""
    found = unittest.defaultTestLoader.loadTestsFromModule(module)
    suite = unittest.TestSuite()
    # The suite's class runs setUpModule and the class fixtures, in the loader's order.
    suite.addTests(
        test
        for test in tests_of(found)
        if concerns_the_loop(type(test)) and (not names or test.id() in names)
    )
    return suite


def exchange_the_loop(module: types.ModuleType, make_loop: MakeLoop) -> None:
    """Makes `asyncio.new_event_loop()` and the mixins of the module give loops of this kind."""
    # The class and not an instance: the tests make and set policies of their own.
    policy = asyncio.DefaultEventLoopPolicy
    policy._loop_factory = staticmethod(make_loop)  # type: ignore[attr-defined]
    for test_class in vars(module).values():
        for factory in ("create_event_loop", "new_loop"):
            if isinstance(test_class, type) and hasattr(test_class, factory):
                setattr(test_class, factory, lambda self: make_loop())


def main(kind: str, module_name: str, output: str, names: list[str]) -> None:
    """Runs the tests and writes how they ended and how often the workers waited, as JSON."""
    module = importlib.import_module(f"test.test_asyncio.{module_name}")
    if kind != "stock":
        make_loop = new_loop if kind == "plain" else functools.partial(ServingLoop, kind)
        exchange_the_loop(module, make_loop)
    runner = unittest.TextTestRunner(resultclass=Result, verbosity=2)
    result = runner.run(chosen(module, names))
    assert isinstance(result, Result)
    result.note_failures()
    found = {"ends": result.ends, "enters": ServingLoop.enters}
    pathlib.Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
