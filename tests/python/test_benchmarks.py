"""The benchmarks' own arithmetic: a wrong median or a lost row would be believed.

Owns the harness under `benchmarks/`, on records and servers made here. Refuses to measure anything.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import importlib
import json
import pathlib
import re
import socket
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


def module(name: str, folder: pathlib.Path = BENCHMARKS) -> Any:
    """A module of the benchmarks, which are programs and no package."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


catalogue = module("catalogue")
charts = module("charts")
clients = module("clients")
compare = module("compare")
engines = module("engines")
records = module("records")
report = module("report")
run = module("run")
table = module("table")
instructions = module("instructions", BENCHMARKS / "micro")

ENGINE = {
    "name": "one",
    "label": "One",
    "group": "python",
    "command": ["one"],
    "serves": ["hello"],
    "calls_python": True,
}
SCENARIO = {"name": "plain", "connections": 1, "depth": 1, "about": "x", "engines": ["*"]}
EXCHANGES = {"hello": {"answer": "Hello world!"}, "size": {"answer": "{body_bytes}", "repeat": 2}}


def parsed(scenarios: list[dict[str, Any]], rows: list[dict[str, Any]], **sets: list[str]) -> Any:
    """A catalogue of these rows."""
    return catalogue.Catalogue.parse(
        {"exchange": EXCHANGES, "scenario": scenarios}, {"engine": rows, "sets": sets}
    )


def sample(number: int, cpu_us: float, rate: float, **more: Any) -> dict[str, Any]:
    """A sample as `clients.run` makes it, with what `run` adds."""
    about = {
        "run": number,
        "retakes": 0,
        "disturbed": False,
        "cpu_us": cpu_us,
        "cpu_user_us": cpu_us / 4,
        "cpu_system_us": cpu_us * 3 / 4,
        "requests_per_second": rate,
        "server_load": 0.9,
        "client_load": 0.5,
        "rss_bytes": 1_000_000,
        "bytes_per_request": 150.0,
        "steal": 0.0,
        "foreign": 0.0,
    }
    latencies = {field: 10.0 * (n + 1) for n, field in enumerate(report.PERCENTILES)}
    return {**about, **latencies, **more}


def record(**results: list[dict[str, Any]]) -> dict[str, Any]:
    """A record of the scenario "plain"; the results are the samples of engines."""
    scenario = dataclasses.asdict(catalogue.make(catalogue.Scenario, SCENARIO))
    made = {
        "format": 2,
        "date": "2026-11-21T00:00:00+00:00",
        "complete": True,
        "runs": 3,
        "seconds": 1.0,
        "machine": {
            "cpu_model": "Z80",
            "processors": 2,
            "virtual": True,
            "kernel": "6.1",
            "governor": "none",
            "congestion_control": "cubic",
        },
        "source": {"commit": "abc", "clean": True},
        "tools": {"rustc": "rustc 1", "wrk": None, "strace": ["strace 6"], "perf": None},
        "python": {"version": "3.12.1", "pgo": False, "lto": False, "compiler": "GCC"},
        "python37": None,
        "processors": {"server": 0, "client": 1},
        "scenarios": {"plain": scenario},
        "engines": {
            name: {"label": name.upper(), "calls_python": name != "native", "versions": {name: "1"}}
            for name in results
        },
        "skipped": [],
        "failed": {},
        "results": {
            f"plain/{name}": {
                "scenario": "plain",
                "engine": name,
                "server_command": f"{name} <serve>",
                "client_command": "load",
                "samples": samples,
            }
            for name, samples in results.items()
        },
    }
    table.summarise(made)
    return made


def thrice(cpu_us: float, rate: float, **more: Any) -> list[dict[str, Any]]:
    """Three samples around a median, two percent to each side."""
    factors = (0.98, 1.0, 1.02)
    return [sample(n, cpu_us * f, rate * f, **more) for n, f in enumerate(factors)]


# Catalogue


def test_the_committed_files_are_right() -> None:
    read = catalogue.Catalogue.read()

    for scenario in read.scenarios:
        taking_part, left_out = read.contestants(scenario)
        assert taking_part, scenario.name
        assert not {engine.name for engine in taking_part} & set(left_out)


def test_every_program_of_an_engine_is_there() -> None:
    for engine in catalogue.Catalogue.read().engines:
        paths = [word.removeprefix("{apps}/") for word in engine.command if "{apps}/" in word]
        paths = [f"apps/{path}" for path in paths] + ([engine.conf] if engine.conf else [])
        for path in paths:
            assert (BENCHMARKS / path).exists(), f"{engine.name}: {path}"


def test_a_sweep_is_a_scenario_for_each_value() -> None:
    row = {**SCENARIO, "sweep": {"depth": [1, 8]}}

    points = parsed([row], [ENGINE]).scenarios

    assert [(p.name, p.depth, p.series, p.axis) for p in points] == [
        ("plain-1", 1, "plain", "depth"),
        ("plain-8", 8, "plain", "depth"),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depht": 2}, "no 'depht'"),
        ({"depth": "2"}, "depth is str, not int"),
        ({"exchange": "nothing"}, "no exchange nothing"),
        ({"engines": ["two"]}, "'two' names no engine"),
        ({"engines": ["@few"]}, "no set @few"),
        ({"client": "curl"}, "client is one of load, wrk"),
        ({"placement": "moon"}, "placement is one of apart, shared"),
        ({"sweep": {"depth": [1], "connections": [1]}}, "a sweep has one field"),
    ],
)
def test_a_wrong_row_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(catalogue.Mistake, match=re.escape(words)):
        parsed([{**SCENARIO, **change}], [ENGINE])


def test_a_missing_field_is_named() -> None:
    row = {name: value for name, value in ENGINE.items() if name != "label"}
    with pytest.raises(catalogue.Mistake, match="engine one: label is missing"):
        parsed([SCENARIO], [row])


def test_two_rows_of_one_name_are_refused() -> None:
    with pytest.raises(catalogue.Mistake, match="engine one: there are two"):
        parsed([SCENARIO], [ENGINE, ENGINE])


def test_patterns_choose_by_name_set_and_group_in_the_order_of_the_file() -> None:
    rows = [
        {**ENGINE, "name": "b"},
        {**ENGINE, "name": "a"},
        {**ENGINE, "name": "c", "group": "native"},
    ]
    read = parsed([SCENARIO], rows, few=["a"])

    def names(*patterns: str) -> list[str]:
        return [engine.name for engine in read.choose(patterns)]

    assert names("c", "@few") == ["a", "c"]
    assert names("group:python") == ["b", "a"]
    assert names("?") == ["b", "a", "c"]


def test_an_engine_without_pipelines_is_left_out_with_the_reason() -> None:
    row = {**ENGINE, "no_pipelines": "it answers 1 of 24"}
    read = parsed([{**SCENARIO, "depth": 24}], [ENGINE | {"name": "two"}, row])

    taking_part, left_out = read.contestants(read.scenarios[0])

    assert [engine.name for engine in taking_part] == ["two"]
    assert left_out == {"one": "no pipelines: it answers 1 of 24"}


def test_an_engine_is_not_asked_for_what_it_does_not_serve() -> None:
    read = parsed([{**SCENARIO, "exchange": "size"}], [ENGINE])
    assert read.contestants(read.scenarios[0]) == ([], {})


def test_the_command_line_chooses_engines_in_place_of_the_scenario() -> None:
    row = {**SCENARIO, "engines": ["one"]}
    read = parsed([row], [ENGINE, {**ENGINE, "name": "two"}])

    taking_part, _ = read.contestants(read.scenarios[0], ["two"])

    assert [engine.name for engine in taking_part] == ["two"]


def test_the_name_of_a_sweep_stands_for_its_scenarios() -> None:
    read = parsed([{**SCENARIO, "sweep": {"depth": [1, 8]}}], [ENGINE])

    assert len(read.choose_scenarios(["plain"])) == 2
    assert [one.name for one in read.choose_scenarios(["plain-8"])] == ["plain-8"]


def test_an_answer_knows_the_length_of_the_body_and_repeats() -> None:
    exchange = parsed([SCENARIO], [ENGINE]).exchanges["size"]
    assert exchange.body(20) == b"2020"


# The client's command


def setting(**scenario: Any) -> Any:
    """A setting that is never run."""
    row = catalogue.make(catalogue.Scenario, {**SCENARIO, **scenario})
    exchange = catalogue.Exchange("size", "{body_bytes}", method="POST", path="/length", repeat=50)
    server = argparse.Namespace(port=80)
    places = argparse.Namespace(bin=pathlib.Path("bin"))
    return clients.Setting(row, exchange, server, [1], 3.0, places)


def test_a_command_says_what_is_not_the_default() -> None:
    words = clients.command(setting(body_bytes=7, depth=2, body_framing="chunked"))

    text = " ".join(words)
    assert "--depth 2" in text
    assert "--method POST --path /length --body-bytes 7 --body-framing chunked" in text
    assert "--idle" not in text
    assert text.endswith(f"--expect-body {'7' * 50} --json --marks")


def test_a_long_answer_is_handed_over_in_a_file() -> None:
    words = clients.command(setting(body_bytes=12345))

    path = pathlib.Path(words[words.index("--expect-body-file") + 1])
    assert path.read_bytes() == b"12345" * 50


# Answers of a server


@contextlib.contextmanager
def answering(*chunks: bytes) -> Iterator[int]:
    """A server that says this to whoever comes first, and then closes; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"".join(chunks))
            connection.shutdown(socket.SHUT_WR)
            # What is left unread would make the end a reset.
            while connection.recv(65536):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join(10)
        listener.close()


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_answers_in_order_are_right() -> None:
    with answering(answer(b"0"), answer(b"1"), answer(b"2")) as port:
        engines.check_order(port, 3)


def test_answers_out_of_order_are_seen() -> None:
    swapped = answering(answer(b"0"), answer(b"2"), answer(b"1"))
    with swapped as port, pytest.raises(engines.Unavailable, match="answer 2 of 3 is b'2'"):
        engines.check_order(port, 3)


def test_a_lost_answer_is_seen() -> None:
    with (
        answering(answer(b"0")) as port,
        pytest.raises(engines.Unavailable, match="1 of 2 came"),
    ):
        engines.check_order(port, 2)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "500 No"),
        (b"HTTP/1.1 200 OK\r\n\r\nx", "no Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "within an answer"),
    ],
)
def test_a_wrong_answer_is_seen(said: bytes, words: str) -> None:
    with answering(said) as port, pytest.raises(engines.Unavailable, match=words):
        engines.check_answer(port, b"GET / HTTP/1.1\r\n\r\n", [b"x"])


# Rounds, retakes and records


class Runs:
    """A runner whose samples are made up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: pathlib.Path, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        read = parsed([SCENARIO], [ENGINE])
        places = engines.Places(sys.executable, None, None, path, path, path)
        book = records.Record.begin(path / "record.json", **ABOUT)
        arguments = argparse.Namespace(runs=1, seconds=1.0, engines=None, no_counts=True)
        self.runner = run.Runner(read, book, places, [0, 1], arguments)
        self.pair = (read.scenarios[0], read.engines[0])
        monkeypatch.setattr(run, "Server", lambda *_: contextlib.nullcontext(SERVER))
        monkeypatch.setattr(run, "check_answers", lambda *_: None)
        monkeypatch.setattr(run.clients, "run", self.next_outcome)

    def next_outcome(self, _: Any) -> Any:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return dict(outcome)

    def samples(self) -> list[dict[str, Any]]:
        self.runner.sample(*self.pair, 0)
        results = self.runner.record.data["results"]
        return results["plain/one"]["samples"] if results else []


ABOUT = {"machine": {"kernel": "6.1"}, "source": {"commit": "a"}, "python": {}, "processors": {}}
SERVER = argparse.Namespace(port=80, pid=1, command=["one"])
CALM, LOUD = sample(0, 1.0, 1.0), sample(0, 1.0, 1.0, steal=0.06)


def test_a_disturbed_sample_is_taken_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    [only] = Runs(monkeypatch, tmp_path, LOUD, LOUD, CALM).samples()
    assert (only["retakes"], only["disturbed"]) == (2, False)


def test_the_last_of_four_disturbed_samples_counts_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    runs = Runs(monkeypatch, tmp_path, LOUD, LOUD, LOUD, LOUD, CALM)

    [only] = runs.samples()

    assert (only["retakes"], only["disturbed"]) == (3, True)
    assert runs.outcomes == [CALM]


def test_a_pair_that_fails_is_named_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    runs = Runs(monkeypatch, tmp_path, *[clients.Failed("wrong body")] * 4)

    assert runs.samples() == []

    book = runs.runner.record
    assert book.data["skipped"] == ["plain/one: wrong body"]
    assert not book.is_due("plain/one", 1)


def test_a_run_that_fails_once_is_taken_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    [only] = Runs(monkeypatch, tmp_path, clients.Failed("no responses"), CALM).samples()
    assert only["retakes"] == 1


@pytest.mark.parametrize(
    ("steal", "foreign", "disturbed"), [(0.05, 0.05, False), (0.051, 0, True), (0, 0.2, True)]
)
def test_a_twentieth_is_what_others_may_have(steal: float, foreign: float, disturbed: bool) -> None:
    assert run.is_disturbed({"steal": steal, "foreign": foreign}) is disturbed


@pytest.mark.parametrize(
    ("workers", "cpus", "own"),
    [(1, [0, 1], [0]), (2, [0, 1], [0]), (2, [0, 1, 2], [0, 2]), (1, [4, 5, 6], [4])],
)
def test_workers_have_a_processor_each_where_there_are_enough(
    workers: int, cpus: list[int], own: list[int]
) -> None:
    engine = catalogue.make(catalogue.Engine, {**ENGINE, "workers": workers})
    scenario = catalogue.make(catalogue.Scenario, SCENARIO)

    assert run.server_processors(engine, scenario, cpus) == own
    assert run.client_processors(scenario, cpus) == [cpus[1]]


@pytest.mark.parametrize(
    ("workers", "cpus", "shared"),
    [(1, [0, 1, 2], [0, 1]), (2, [4, 5], [4, 5]), (3, [0, 1, 2], [0, 1, 2])],
)
def test_processors_can_be_shared_with_the_client(
    workers: int, cpus: list[int], shared: list[int]
) -> None:
    engine = catalogue.make(catalogue.Engine, {**ENGINE, "workers": workers})
    scenario = catalogue.make(catalogue.Scenario, {**SCENARIO, "placement": "shared"})

    assert run.server_processors(engine, scenario, cpus) == shared
    assert run.client_processors(scenario, cpus) == cpus[:2]


def test_an_interrupted_record_goes_on_where_it_was(tmp_path: pathlib.Path) -> None:
    book = records.Record.begin(tmp_path / "r.json", **ABOUT)
    book.add("plain/one", CALM, scenario="plain")
    book.save()

    again = records.Record.resume(tmp_path / "r.json", **ABOUT)

    assert not again.is_due("plain/one", 0)
    assert again.is_due("plain/one", 1)
    assert again.is_due("plain/two", 0)


def test_a_record_of_another_commit_is_not_continued(tmp_path: pathlib.Path) -> None:
    records.Record.begin(tmp_path / "r.json", **ABOUT).save()
    with pytest.raises(records.Refused, match="another source"):
        records.Record.resume(tmp_path / "r.json", **{**ABOUT, "source": {"commit": "b"}})


def test_a_complete_record_is_not_continued(tmp_path: pathlib.Path) -> None:
    book = records.Record.begin(tmp_path / "r.json", **ABOUT)
    book.data["complete"] = True
    book.save()
    with pytest.raises(records.Refused, match="is complete"):
        records.Record.resume(tmp_path / "r.json", **ABOUT)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"results": '])
def test_what_is_no_record_is_refused(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(records.Refused, match=re.escape(str(path))):
        records.read(path)


# Medians, tables and comparisons


def test_a_summary_is_median_least_and_greatest() -> None:
    made = record(one=[sample(n, cpu, 1.0) for n, cpu in enumerate((3.0, 1.0, 2.5))])
    assert made["results"]["plain/one"]["summary"]["cpu_us"] == {
        "median": 2.5,
        "min": 1.0,
        "max": 3.0,
    }


def test_what_was_not_measured_has_no_median() -> None:
    made = record(one=[sample(0, 1.0, 1.0, p99_us=None)])
    assert table.median(made["results"]["plain/one"], "p99_us") is None


def test_a_row_says_what_limits_it() -> None:
    limited = [
        sample(0, 1.0, 1.0, client_load=0.96),
        sample(1, 1.0, 1.0, client_load=0.97, disturbed=True),
    ]
    made = record(native=limited)

    assert table.notes(made, made["results"]["plain/native"]) == [
        "no Python",
        "client is the limit",
        "1 disturbed",
        "2 of 3 runs",
    ]


def test_a_table_has_the_cheapest_first() -> None:
    made = record(dear=thrice(2.0, 1e5), cheap=thrice(1.0, 2e5))
    lines = table.rows_as_text(made, list(made["results"].values())).splitlines()
    assert [line.split()[0] for line in lines] == ["engine", "cheap", "dear"]


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.01, "within noise"), (0.5, "cheaper"), (2.0, "dearer")]
)
def test_a_comparison_knows_noise(factor: float, verdict: str) -> None:
    before, after = record(one=thrice(1.0, 1e5)), record(one=thrice(factor, 1e5))

    line = compare.comparison(before, after).splitlines()[1]

    assert line.startswith("plain/one")
    assert line.endswith(verdict)
    assert f"{factor:.3f}" in line


def test_a_comparison_warns_of_another_kernel() -> None:
    before, after = record(one=thrice(1.0, 1e5)), record(one=thrice(1.0, 1e5))
    after["machine"]["kernel"] = "6.18"
    assert list(compare.differences(before, after)) == ["warning: kernel differs: 6.1 / 6.18"]


def test_records_without_a_common_row_are_not_compared() -> None:
    text = compare.comparison(record(one=thrice(1, 1)), record(two=thrice(1, 1)))
    assert text == "the records have no scenario and engine in common"


# The page


class Page(HTMLParser):
    """What a page consists of: words of figures and tables, and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: dict[str, list[str]] = {"figure": [], "table": []}
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        links = [value or "" for name, value in attrs if name in ("src", "href", "srcset")]
        self.fetched += [link for link in links if not link.startswith("#")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.words:
            if tag in self.open:
                self.words[tag].append(data)


def swept_record() -> dict[str, Any]:
    """A record with a scenario and a sweep, of three engines."""
    made = record(one=thrice(1.0, 2e5), two=thrice(9.0, 1e4), native=thrice(0.5, 4e5))
    for depth in (1, 8):
        name = f"depth-{depth}"
        point = {**made["scenarios"]["plain"], "series": "depth", "axis": "depth", "depth": depth}
        made["scenarios"][name] = {**point, "name": name}
        for engine in made["engines"]:
            twin = copy.deepcopy(made["results"][f"plain/{engine}"])
            made["results"][f"{name}/{engine}"] = {**twin, "scenario": name}
    return made


def test_a_page_needs_no_network() -> None:
    page = Page(report.page(swept_record(), "r.json"))

    assert page.fetched == []
    assert page.open == []


def test_a_page_has_every_row_in_a_chart_and_in_a_table() -> None:
    page = Page(report.page(swept_record(), "r.json"))

    for label in ("ONE", "TWO", "NATIVE"):
        assert any(words.startswith(label) for words in page.words["figure"])
        assert label in page.words["table"]
    assert "NATIVE, no Python" in page.words["figure"]


def test_every_chart_says_in_words_what_it_shows() -> None:
    text = report.page(swept_record(), "r.json")
    # Three charts of the scenario, three of the sweep.
    assert text.count('role="img"') == 6
    assert text.count("<desc id=") == 6


def test_the_ids_of_a_page_are_unique() -> None:
    ids = re.findall(r'id="([^"]+)"', report.page(swept_record(), "r.json"))
    assert len(ids) == len(set(ids))


def test_a_command_is_shown_as_text() -> None:
    assert "one &lt;serve&gt;" in report.page(swept_record(), "r.json")


def test_an_interrupted_record_says_so_on_its_page() -> None:
    made = swept_record()
    made["complete"] = False
    assert "interrupted" in report.page(made, "r.json")


def test_a_record_of_the_first_format_still_has_a_page(tmp_path: pathlib.Path) -> None:
    old = records.read(BENCHMARKS / "record/2026-11-21-all.json")
    table.summarise(old)
    page = Page(report.page(old, "old.json"))
    assert any("Japronto 0.1.2" in words for words in page.words["figure"])


def test_a_bar_is_as_long_as_its_share_of_the_longest() -> None:
    rows = [
        charts.Bar("long", [(3.0, "user"), (1.0, "system")], 4.0, 4.0, "4"),
        charts.Bar("short", [(1.0, "user")], 1.0, 1.0, "1"),
    ]
    widths = re.findall(r'<rect [^>]*width="([\d.]+)"', charts.bars("n", "t", rows))
    assert [float(width) for width in widths] == [247.5, 82.5, 82.5]


def test_a_curve_rises_with_its_values() -> None:
    line = charts.Curve("one", [(1, 10.0), (10, 100.0), (100, 1000.0)])

    text = charts.curves("n", "t", [line], "x", "y")

    [points] = re.findall(r'points="([^"]+)"', text)
    places = [tuple(map(float, point.split(","))) for point in points.split()]
    assert places == sorted(places)
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)


@pytest.mark.parametrize(
    ("value", "words"),
    [(2_081_234, "2.08 M"), (830_000, "830 k"), (0.4712, "0.471"), (999, "999"), (12, "12.0")],
)
def test_an_amount_has_three_digits(value: float, words: str) -> None:
    assert charts.amount(value) == words


def test_a_picture_has_its_colours_and_every_row() -> None:
    text = report.picture(swept_record(), ["plain"])

    assert "--user:" in text
    assert text.count(">ONE<") == text.count(">TWO<") == 2


def test_a_picture_of_what_was_not_measured_is_refused() -> None:
    with pytest.raises(records.Refused, match="no results of wrk"):
        report.picture(swept_record(), ["wrk"])


# Instruction counts


def counted(**cases: float) -> dict[str, Any]:
    return {"about": {"rustc": "1"}, "cases": cases}


@pytest.mark.parametrize(("now", "dearer"), [(1020.0, []), (1021.0, ["parse"]), (900.0, [])])
def test_over_two_percent_more_instructions_are_too_many(now: float, dearer: list[str]) -> None:
    assert instructions.grown(counted(parse=1000.0), counted(parse=now)) == dearer


def test_a_case_that_is_gone_or_new_has_to_be_accepted() -> None:
    assert instructions.grown(counted(old=1.0), counted(new=1.0)) == ["old", "new"]


def test_the_table_of_instructions_says_which_grew() -> None:
    lines = instructions.table(counted(a=100.0, b=100.0), counted(a=150.0, b=50.0))
    assert "+50.00%  dearer" in lines[1]
    assert "-50.00%  cheaper" in lines[2]


def test_the_least_of_some_tries_counts() -> None:
    counts = iter([120, 100, 110, 1000, 1300, 1100])
    callgrind = module("callgrind", BENCHMARKS / "micro")
    assert callgrind.per_round(lambda _: next(counts), 10, 19, tries=3) == 100


def test_accepting_some_cases_keeps_the_others(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "instructions.json"
    path.write_text(json.dumps(counted(a=1.0, b=2.0)))

    instructions.accept(path, counted(b=3.0))

    assert json.loads(path.read_text())["cases"] == {"a": 1.0, "b": 3.0}


def test_another_compiler_is_said() -> None:
    after = {"about": {"rustc": "2"}, "cases": {}}
    [warning] = instructions.differences(counted(), after)
    assert warning == "warning: another rustc: 2; the record has 1"
