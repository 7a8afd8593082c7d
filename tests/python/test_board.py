"""The board: rows come and go, totals stay, and readers see one moment."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest
from anel import Application, _core
from anel.board import COUNTED, Board, Column, Row, State

NAMES, HISTOGRAMS = _core.row_layout()


def count(row: Row, name: str, number: int) -> None:
    """Writes a number as the worker of the row does."""
    row.cells[NAMES.index(name)] = number


def total(board: Board, name: str = "requests_total", slot: int = 0) -> int:
    """A number of a slot, as a reader sees it."""
    return board.read().slots[slot].numbers[name]


def test_an_empty_board_says_that_the_server_starts() -> None:
    reading = Board().read()

    assert reading.state is State.STARTING
    assert reading.slots == []


def test_a_row_shows_the_process_and_its_age() -> None:
    board = Board()
    row = board.enter(0)
    row.note_pid(4711)
    row.note_state(State.SERVING)

    (process,) = board.read().processes()

    assert (process.pid, process.state) == (4711, State.SERVING)
    assert 0 <= process.age_s < 60
    assert (process.awake_s, process.beat_age_s) == (0.0, None)


def test_totals_of_a_slot_are_those_of_its_workers() -> None:
    board = Board()
    count(board.enter(1), "requests_total", 3)
    count(board.enter(1), "requests_total", 4)
    count(board.enter(0), "requests_total", 5)

    assert [total(board, slot=0), total(board, slot=1)] == [5, 7]


def test_totals_stay_when_a_worker_ends() -> None:
    board = Board()
    row = board.enter(0)
    count(row, "requests_total", 3)

    board.leave(row, died=False)

    assert total(board) == 3
    assert list(board.read().processes()) == []


def test_gauges_end_with_their_worker() -> None:
    board = Board()
    row = board.enter(0)
    count(row, "connections_open", 3)

    board.leave(row, died=False)

    assert total(board, "connections_open") == 0


def test_histograms_stay_when_a_worker_ends() -> None:
    board = Board()
    row = board.enter(0)
    # The first bucket of the first one, and its sum.
    row.cells[len(NAMES)] = 2
    name, bounds = HISTOGRAMS[0]
    row.cells[len(NAMES) + len(bounds) + 1] = 30

    board.leave(row, died=False)

    histogram = board.read().slots[0].histograms[name]
    assert (histogram.buckets[0], sum(histogram.buckets), histogram.sum) == (2, 2, 30)
    assert histogram.bounds == bounds


def test_a_row_that_was_left_is_empty_for_the_next_worker() -> None:
    board = Board()
    row = board.enter(0)
    count(row, "requests_total", 3)
    row.cells[Column.BEAT_NS] = 1
    board.leave(row, died=False)

    again = board.enter(0)

    assert list(again.cells[:COUNTED]) == [0] * COUNTED
    assert again.cells[Column.BEAT_NS] == 0
    assert total(board) == 3


def test_a_slot_counts_its_workers_and_those_that_died() -> None:
    board = Board()
    board.leave(board.enter(0), died=True)
    board.leave(board.enter(0), died=False)
    board.enter(0)

    (slot,) = board.read().slots

    assert (slot.starts, slot.deaths) == (3, 1)


def test_a_board_has_rows_for_more_workers_than_there_may_be() -> None:
    board = Board()

    for slot in [*range(1024)] * 2:
        board.enter(slot)

    assert len(list(board.read().processes())) == 2048


def test_who_finds_the_board_full_is_not_seen() -> None:
    board = Board()
    rows = [board.enter(0) for _ in range(3 * 1024)]

    row = board.enter(1)
    count(row, "requests_total", 1)
    board.leave(row, died=True)

    assert len(list(board.read().processes())) == len(rows)
    assert row.counted is None


def test_other_processes_read_what_was_written_after_the_fork() -> None:
    board = Board()
    row = board.enter(0)
    told_receiver, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(told_receiver, 1)
        os._exit(total(board))

    count(row, "requests_total", 42)
    os.write(told, b".")

    _, status = os.waitpid(child, 0)
    os.close(told_receiver)
    os.close(told)
    assert os.waitstatus_to_exitcode(status) == 42


def test_readers_never_see_a_total_go_back() -> None:
    board = Board()
    seen: list[int] = []
    is_over = threading.Event()

    def read_on() -> None:
        while not is_over.is_set():
            seen.append(total(board))

    board.enter(0)
    reader = threading.Thread(target=read_on)
    reader.start()
    for _ in range(300):
        row = board.enter(0)
        count(row, "requests_total", 1)
        board.leave(row, died=False)
    is_over.set()
    reader.join()

    assert seen == sorted(seen)
    assert total(board) == 300


def test_a_reader_gives_up_on_a_change_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    # As if the master were stopped within `enter`.
    board._cells[0] += 1
    monkeypatch.setattr("anel.board._READ_S_MAX", 0.01)

    with pytest.raises(TimeoutError):
        board.read()


def test_a_board_that_is_not_counted_has_rows_without_counters() -> None:
    row = Board(is_counted=False).enter(0)

    assert row.counted is None
    assert len(row.cells) > Column.BEAT_NS


def test_a_row_is_found_again_after_another_program_was_executed(tmp_path: pathlib.Path) -> None:
    board = Board(survives_exec=True)
    row = board.enter(0)
    told = row.hand_over()
    program = tmp_path / "program.py"
    program.write_text(
        "import json, sys\n"
        "from anel.board import Row, State\n"
        "row = Row.taken_over(json.loads(sys.argv[1]))\n"
        "row.counted[0] = 42\n"
        "row.note_state(State.SERVING)\n"
    )
    assert told is not None

    command = [sys.executable, str(program), json.dumps(told)]
    subprocess.run(command, check=True, pass_fds=[told["descriptor"]])

    (process,) = board.read().processes()
    assert process.state is State.SERVING
    assert total(board, NAMES[0]) == 42


def test_a_row_in_memory_alone_is_not_seen_by_the_next_program() -> None:
    told = Board().enter(0).hand_over()

    assert told is None
    assert Row.taken_over(told).counted is None


def test_nothing_is_read_of_counters_that_nobody_counts() -> None:
    board = Board(is_counted=False)
    board.enter(0)

    (slot,) = board.read().slots

    assert (slot.starts, slot.numbers, slot.histograms) == (1, {}, {})


@pytest.mark.parametrize(
    ("row", "error"),
    [
        pytest.param(memoryview(bytes(8 * COUNTED)).cast("Q"), ValueError, id="read-only"),
        pytest.param(memoryview(bytearray(8)).cast("Q"), ValueError, id="short"),
        pytest.param(memoryview(bytearray(8 * COUNTED)), BufferError, id="bytes"),
        pytest.param(memoryview(bytearray(16 * COUNTED)).cast("Q")[::2], ValueError, id="holes"),
    ],
)
def test_a_worker_refuses_what_is_no_row(row: memoryview, error: type[Exception]) -> None:
    with pytest.raises(error):
        _core.Worker(Application(), [], [], reactor="epoll", row=row)


def test_a_worker_publishes_what_it_counts() -> None:
    board = Board()
    row = board.enter(0)
    worker = _core.Worker(Application(), [], [], reactor="epoll", row=row.counted)

    worker.turn(0.0)
    counters = worker.counters()
    worker.stop()

    numbers = board.read().slots[0].numbers
    assert set(counters) < set(numbers)
    assert numbers["waits_total"] >= counters["waits_total"] == 1
