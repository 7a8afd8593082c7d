"""A worker under load waits for its turn on a processor, and only then."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anel.scheduling import Scheduling
from conftest import DEADLINE_S, Serve, Server, get, wait_until

# Each answer is the policy of the thread that makes it, and takes long enough for the next requests
# to come meanwhile.
PROGRAM = """
    import os, time
    from anel import Application

    def policy(request):
        time.sleep(0.0002)
        return request.Response(text=str(os.sched_getscheduler(0)))

    app = Application()
    app.router.add_route("/", policy)
    if "ANEL_TEST_POLICY" in os.environ:
        os.sched_setscheduler(0, int(os.environ["ANEL_TEST_POLICY"]), os.sched_param(0))
    app.run()
    print(f"left with {os.sched_getscheduler(0)}", flush=True)
"""
CLIENTS = 64
OTHER, BATCH = str(os.SCHED_OTHER), str(os.SCHED_BATCH)


def policies(server: Server) -> Iterator[str]:
    """What many clients are told that all ask at once, again and again."""
    clients = [server.client() for _ in range(CLIENTS)]
    try:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            for client in clients:
                client.send(get("/"))
            for client in clients:
                yield client.answer().text
    finally:
        for client in clients:
            client.socket.close()


def ask(server: Server) -> str:
    return server.ask(get("/")).text


@pytest.mark.parametrize("reactor", ["io_uring", "epoll"])
def test_a_worker_waits_for_its_turn_while_many_ask_at_once(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM, "--reactor", reactor)
    assert ask(server) == OTHER

    assert BATCH in policies(server)

    # What was found ends by itself, and a single client does not bring it back.
    wait_until(lambda: ask(server) == OTHER, "the policy that the worker was started with")
    assert {ask(server) for _ in range(200)} == {OTHER}


def test_workers_of_a_master_do_so_too_and_the_master_does_not(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "1")

    assert BATCH in policies(server)

    assert os.sched_getscheduler(server.process.pid) == os.SCHED_OTHER


def test_a_worker_keeps_its_policy_when_the_operator_says_so(serve: Serve) -> None:
    changing = serve(PROGRAM)
    needed = next(number for number, told in enumerate(policies(changing), 1) if told == BATCH)
    server = serve(PROGRAM, "--scheduling", "fixed")

    told = policies(server)

    assert {next(told) for _ in range(4 * needed)} == {OTHER}


def test_a_policy_that_somebody_has_chosen_stays(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANEL_TEST_POLICY", BATCH)
    server = serve(PROGRAM)

    told = policies(server)

    assert {next(told) for _ in range(CLIENTS * 64)} == {BATCH}


def test_a_program_goes_on_with_the_policy_it_had(serve: Serve) -> None:
    server = serve(PROGRAM)
    assert BATCH in policies(server)

    assert server.stop() == 0

    assert f"left with {OTHER}" in server.lines


def in_a_thread(act: Callable[[], None]) -> list[int]:
    """The policy of a thread of its own before and after."""
    seen: list[int] = []

    def work() -> None:
        seen.append(os.sched_getscheduler(0))
        act()
        seen.append(os.sched_getscheduler(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return seen


def test_the_thread_that_is_told_changes_alone() -> None:
    scheduling = Scheduling()

    assert in_a_thread(lambda: scheduling.on_load(True)) == [os.SCHED_OTHER, os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_what_was_not_changed_is_not_restored() -> None:
    def act() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        scheduling = Scheduling()
        scheduling.on_load(True)
        scheduling.on_load(False)
        scheduling.restore()

    assert in_a_thread(act) == [os.SCHED_OTHER, os.SCHED_BATCH]


def test_a_policy_that_was_chosen_meanwhile_stays() -> None:
    def act() -> None:
        scheduling = Scheduling()
        scheduling.on_load(True)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        scheduling.on_load(False)

    assert in_a_thread(act) == [os.SCHED_OTHER, os.SCHED_IDLE]


def test_a_sandbox_that_forbids_it_costs_speed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    scheduling = Scheduling()

    scheduling.on_load(True)
    scheduling.on_load(False)
    scheduling.restore()

    assert os.sched_getscheduler(0) == os.SCHED_OTHER
