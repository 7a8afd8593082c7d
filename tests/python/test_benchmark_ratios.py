"""What the comparison of reactors divides by what."""

import importlib.util
import pathlib
import sys
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def ratios() -> ModuleType:
    """The module, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("ratios", BENCHMARKS / "ratios.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up.
    sys.modules["ratios"] = module
    spec.loader.exec_module(module)
    return module


def counters(**changed: int | None) -> dict[str, Any]:
    """What a server prints at its end."""
    counted = {
        "requests": 2400,
        "sends": 100,
        "submissions": 100,
        "completions": 200,
        "enters": 50,
        "calls": 60,
        "batch_max": 8,
    }
    return {"counters": {**counted, **changed}}


def test_a_server_that_counts_its_calls_is_believed(ratios: ModuleType) -> None:
    samples = [counters(), counters(calls=120, batch_max=9), counters(calls=240)]

    found = ratios.of_result({"samples": samples, "syscalls": {"all": 1.0, "io_uring_enter": 1.0}})

    assert found.calls_per_request == 120 / 2400
    assert (found.submissions_per_enter, found.completions_per_enter) == (2, 4)
    assert (found.requests_per_send, found.batch_max, found.traced) == (24, 9, False)


def test_calls_that_another_runtime_makes_are_those_that_strace_saw(ratios: ModuleType) -> None:
    samples = [counters(enters=None, calls=None, batch_max=None)]
    syscalls = {"all": 0.05, "io_uring_enter": 1 / 96, "epoll_wait": 1 / 48, "requests": 1000}

    found = ratios.of_result({"samples": samples, "syscalls": syscalls})

    assert (found.calls_per_request, found.traced) == (0.05, True)
    assert found.submissions_per_enter == pytest.approx(4)
    assert found.completions_per_enter == pytest.approx(8)
    assert found.batch_max is None


def test_what_nobody_counted_is_unknown(ratios: ModuleType) -> None:
    found = ratios.of_result({"samples": [{"cpu_us": 1.0}]})

    assert found == ratios.Ratios(None, None, None, None, None, traced=False)
