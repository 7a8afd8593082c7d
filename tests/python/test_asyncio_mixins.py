"""CPython's own asyncio tests pass on anel's loop, with a worker and without.

Owns the choice of the tests and the verdict. Each module of CPython's tests runs in a process of
its own (`asyncio_suite.py`), a few at a time, because most of them wait. These tests measure times,
so one that fails is asked again by itself; if it goes on failing, asyncio's own loop is asked on
this machine, and a failure that both have is not ours. There are no other exceptions.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
from conftest import REACTORS

SUITE = pathlib.Path(__file__).with_name("asyncio_suite.py")
KINDS = ["plain", *REACTORS]

# How many tests pass at least, in every version of Python: a choice that became empty would pass,
# too. The slowest come first, so that none of them is waited for alone.
MODULES = {
    "test_subprocess": 60,
    "test_ssl": 15,
    "test_tasks": 200,
    "test_taskgroups": 25,
    "test_events": 90,
    "test_sslproto": 8,
    "test_base_events": 90,
    "test_sock_lowlevel": 10,
    "test_sendfile": 15,
    "test_unix_events": 90,
    "test_streams": 50,
    "test_waitfor": 10,
    "test_locks": 50,
    "test_timeouts": 20,
    "test_queues": 30,
    "test_server": 2,
    "test_threads": 4,
    "test_context": 1,
    "test_futures2": 2,
}
if sys.version_info >= (3, 12):
    MODULES["test_eager_task_factory"] = 20

# More than processors, because a test mostly waits; few enough for those that measure times.
AT_ONCE = 4
SUITE_TIMEOUT_S = 150


@dataclasses.dataclass
class Outcome:
    """How the tests of one module ended on one kind of loop."""

    ends: dict[str, str]
    enters: int

    @property
    def failed(self) -> dict[str, str]:
        """The names of what failed, with what was printed."""
        return {name: end for name, end in self.ends.items() if end not in ("ok", "skipped")}

    @property
    def passed(self) -> int:
        """How many passed."""
        return sum(end == "ok" for end in self.ends.values())


def run(folder: pathlib.Path, kind: str, module: str, *names: str) -> Outcome:
    """Runs the tests of a module, or those of these names, in a process of its own."""
    output = folder / f"{kind}-{module}.json"
    output.unlink(missing_ok=True)
    ended = subprocess.run(
        [sys.executable, SUITE, kind, module, output, *names],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SUITE_TIMEOUT_S,
        cwd=folder,
    )
    assert ended.returncode == 0, ended.stdout.decode(errors="replace")[-4000:]
    return Outcome(**json.loads(output.read_text()))


Running = dict[tuple[str, str], "concurrent.futures.Future[Outcome]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where results and the files of the tests go."""
    return tmp_path_factory.mktemp("asyncio")


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, folder: pathlib.Path) -> Iterator[Running]:
    """The runs of all modules that were chosen, on the kinds that were chosen."""
    if importlib.util.find_spec("test.test_asyncio") is None:
        pytest.skip("this Python came without the package `test`, which has asyncio's tests")
    chosen = [
        (str(item.callspec.params["kind"]), str(item.callspec.params["module"]))
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_cpythons_tests_pass
    ]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        yield {key: pool.submit(run, folder, *key) for key in chosen}


@pytest.mark.slow
@pytest.mark.timeout(3 * SUITE_TIMEOUT_S)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("module", MODULES)
def test_cpythons_tests_pass(
    running: Running, folder: pathlib.Path, kind: str, module: str
) -> None:
    outcome = running[kind, module].result()

    if outcome.failed:
        again = run(folder, kind, module, *outcome.failed).failed
        stock = run(folder, "stock", module, *again).failed if again else {}
        assert {name: text for name, text in again.items() if name not in stock} == {}
    assert outcome.passed >= MODULES[module]
    assert (outcome.enters > 0) == (kind in REACTORS)
