"""Compares reactors under one protocol core: `python benchmarks/reactors.py --quick`.

Measures what reactors/engines.toml declares as run.py measures everything, and prints per request what the
kernel was asked for: system calls, entries per enter and requests per send. The numbers are the servers' own
(`counters` of a sample), over the whole life of each process; where another runtime makes the system calls they
are strace's, from a run that is not timed.
"""

import argparse
import datetime
import json
import pathlib
import sys

import ratios
import run
import table
from catalogue import HERE, Catalogue, Mistake
from engines import Places
from records import Refused

COLUMNS = (
    "reactor",
    "CPU us",
    "min-max",
    "user",
    "sys",
    "requests/s",
    "p50 us",
    "p99 us",
    "calls/req",
    "SQE/enter",
    "CQE/enter",
    "max CQE",
    "req/send",
    "x ring",
    "",
)
REFERENCE = "ring"
LEGEND = """\
CPU us: server user + system time per request, medians; x ring: divided by the ring's in this scenario.
calls/req: system calls per request. SQE/enter, CQE/enter: submission and completion queue entries per
io_uring_enter; on epoll and tokio, ops and completions per epoll_wait, and most ops are a system call of their own.
*: with the calls that strace saw, which slows a server down so that batches grow.
max CQE: the largest batch of completions.
req/send: requests whose answers left in one send."""


def main():
    arguments = parse_arguments()
    if arguments.show:
        say(render(json.loads(pathlib.Path(arguments.show).read_text())))
        return
    try:
        record = measure(arguments)
    except (Mistake, Refused) as problem:
        sys.exit(f"reactors.py: {problem}")
    say(render(record.data))
    say(f"record: {record.path}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds of one second, pipelined and plain only")
    parser.add_argument("--runs", type=int, help="rounds (5; quick: 2)")
    parser.add_argument("--seconds", type=float, help="measured window (3; quick: 1)")
    parser.add_argument("--engines", nargs="+", metavar="PATTERN", help="ring, ring-*, tokio*, ...")
    parser.add_argument("--scenarios", nargs="+", metavar="PATTERN", help="reactors-plain, ...")
    parser.add_argument("--no-counts", action="store_true", help="no runs under strace and perf")
    parser.add_argument("--bin", help="directory of load, control, ... (default: target/release)")
    parser.add_argument("--out", metavar="FILE")
    parser.add_argument("--resume", metavar="FILE", help="go on with an interrupted record")
    parser.add_argument("--show", metavar="FILE", help="print the table of a record, and measure nothing")
    arguments = parser.parse_args()
    quick = ["reactors-pipelined", "reactors-plain"]
    arguments.scenarios = arguments.scenarios or (quick if arguments.quick else ["*"])
    # What --quick means by default are engines that are not in this catalogue.
    arguments.engines = arguments.engines or ["group:reactors"]
    name = "reactors-quick" if arguments.quick else "reactors"
    default = HERE / "record" / f"{datetime.date.today().isoformat()}-{name}.json"
    arguments.out = arguments.out or str(default)
    return run.with_defaults(arguments)


def measure(arguments):
    """A record of everything that can be had here."""
    places = Places.find(arguments.bin)
    cpus = run.choose_processors()
    record = run.open_record(arguments, places, cpus)
    runner = run.Runner(Catalogue.read(HERE / "reactors"), record, places, cpus, arguments)
    run.complete(runner, runner.make_plan())
    return record


def render(data):
    """The record as text: a table per scenario, cheapest reactor first."""
    parts = [table.header(data)]
    for name, scenario in data["scenarios"].items():
        results = [result for result in data["results"].values() if result["scenario"] == name]
        if results:
            parts.append(f"{name}: {scenario['about']}\n{rows_as_text(data, results)}")
    parts.append(LEGEND)
    if data["skipped"]:
        parts.append("\n".join(f"skipped: {line}" for line in data["skipped"]))
    return "\n\n".join(parts)


def rows_as_text(data, results):
    costs = {result["engine"]: table.median(result, "cpu_us") for result in results}
    results = sorted(results, key=lambda result: costs[result["engine"]])
    return table.align([COLUMNS, *(row(data, result, costs.get(REFERENCE)) for result in results)])


def row(data, result, reference):
    cpu = result["summary"]["cpu_us"]
    asked = ratios.of_result(result)
    notes = [data["engines"][result["engine"]]["label"]]
    if result["client_is_the_limit"]:
        notes.append("client is the limit")
    if result["disturbed"]:
        notes.append(f"{result['disturbed']} disturbed")
    return (
        result["engine"],
        f"{cpu['median']:.3f}",
        f"{cpu['min']:.3f}-{cpu['max']:.3f}",
        f"{table.median(result, 'cpu_user_us'):.3f}",
        f"{table.median(result, 'cpu_system_us'):.3f}",
        f"{table.median(result, 'requests_per_second') / 1e3:,.1f} k",
        table.number(table.median(result, "p50_us"), ".0f"),
        table.number(table.median(result, "p99_us"), ".0f"),
        marked(asked, asked.calls_per_request, ".4f"),
        marked(asked, asked.submissions_per_enter, ".1f"),
        marked(asked, asked.completions_per_enter, ".1f"),
        table.number(asked.batch_max, ".0f"),
        table.number(asked.requests_per_send, ".2f"),
        table.ratio(cpu["median"], reference),
        ", ".join(notes),
    )


def marked(asked, value, form):
    """A number that may be strace's."""
    text = table.number(value, form)
    return text + "*" if asked.traced and value is not None else text


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
