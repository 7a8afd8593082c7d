"""Runs engines under scenarios and writes a record: `python benchmarks/run.py --quick`.

Owns the order of runs. All engines of a scenario take turns in every round, so that a slow minute
of the machine falls on all of them; medians are taken over rounds. The server has one processor and
the client another. A sample is retaken when the hypervisor took more than 5 % or others used more
than 5 % of the two.
"""

import argparse
import datetime
import fnmatch
import json
import os
import pathlib
import sys

import clients
import machine
import table
from engines import (
    HERE,
    Places,
    Server,
    Unavailable,
    check_available,
    load_engines,
    load_scenarios,
)

DISTURBED = 0.05
RETAKES_MAX = 3


def main():
    arguments = parse_arguments()
    places = Places.find(arguments.bin)
    cpus = choose_processors()
    record = begin_record(arguments, places, cpus)
    plan = make_plan(arguments, places, record)
    if not plan:
        sys.exit("nothing to measure:\n" + "\n".join(record["skipped"]))
    try:
        measure_all(record, plan, places, cpus, arguments)
    except KeyboardInterrupt:
        # Minutes of samples are worth keeping; the record says that it is not whole.
        note(record, "interrupted: the record holds what was measured until then")
    table.summarise(record)
    path = pathlib.Path(arguments.out or default_path(arguments))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    say(table.render(record))
    say(f"record: {path.name}")


def measure_all(record, plan, places, cpus, arguments):
    """All rounds of all pairs, then the counts, which are not timed."""
    for number in range(arguments.runs):
        for scenario, engine in plan:
            one_sample(record, scenario, engine, places, cpus, arguments, number)
    for scenario, engine in plan:
        # Among idle connections the calls that opened them would be counted too.
        countable = scenario.client == "load" and not scenario.idle
        if countable and key(scenario, engine) in record["results"]:
            one_count(record, scenario, engine, places, cpus)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two rounds of one second, pipelined and plain only: to see that it works",
    )
    parser.add_argument("--runs", type=int, help="rounds (5; quick: 2)")
    parser.add_argument("--seconds", type=float, help="measured window (3; quick: 1)")
    parser.add_argument("--engines", nargs="+", default=["*"], metavar="PATTERN")
    parser.add_argument("--scenarios", nargs="+", metavar="PATTERN")
    parser.add_argument("--bin", help="directory of load, control, ... (default: target/release)")
    parser.add_argument("--out", metavar="FILE")
    arguments = parser.parse_args()
    quick = arguments.quick
    arguments.runs = arguments.runs or (2 if quick else 5)
    arguments.seconds = arguments.seconds or (1.0 if quick else 3.0)
    arguments.scenarios = arguments.scenarios or (["pipelined", "plain"] if quick else ["*"])
    return arguments


def choose_processors():
    """The server's and the client's processor: two of those this process may use."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        sys.exit("two processors are needed: one for the server, one for the client")
    return allowed[:2]


def begin_record(arguments, places, cpus):
    return {
        "format": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "source": machine.source(),
        "tools": machine.tools(),
        "python": machine.python(places.python, ["anel"]),
        "python37": places.python37 and machine.python(places.python37, ["japronto", "uvloop"]),
        "processors": {"server": cpus[0], "client": cpus[1]},
        "runs": arguments.runs,
        "seconds": arguments.seconds,
        "quick": arguments.quick,
        "scenarios": {},
        "engines": {},
        "skipped": [],
        "results": {},
    }


def make_plan(arguments, places, record):
    """Pairs of scenario and engine that can be had; the others are named in the record."""
    skipped = record["skipped"]
    scenarios = [row for row in load_scenarios() if matches(row.name, arguments.scenarios)]
    engines = []
    for engine in load_engines():
        wanted = any(scenario.takes(engine) for scenario in scenarios)
        if wanted and matches(engine.name, arguments.engines):
            try:
                check_available(engine, places)
                engines.append(engine)
            except Unavailable as problem:
                skipped.append(f"{engine.name}: {problem}")
    plan = []
    for scenario in scenarios:
        try:
            clients.check_available(scenario, places)
        except Unavailable as problem:
            skipped.append(f"{scenario.name}: {problem}")
            continue
        plan.extend((scenario, engine) for engine in engines if scenario.takes(engine))
    for line in skipped:
        say(f"skipped: {line}")
    for scenario, engine in plan:
        record["scenarios"][scenario.name] = vars(scenario)
        record["engines"][engine.name] = {
            "label": engine.label,
            "calls_python": engine.calls_python,
        }
    return plan


def one_sample(record, scenario, engine, places, cpus, arguments, number):
    """One run, retaken when the machine was disturbed; the last attempt counts, and says so."""
    for attempt in range(RETAKES_MAX + 1):
        try:
            with Server(engine, places, cpus[0]) as server:
                sample = clients.run(scenario, server, cpus, arguments.seconds, places)
                server_words = server.command
                client_words = clients.command(
                    scenario, server.port, cpus[1], arguments.seconds, places
                )
        except (Unavailable, clients.Failed, OSError) as problem:
            note(record, f"{scenario.name}/{engine.name}: {problem}")
            return
        disturbed = max(sample["steal"], sample["foreign"]) > DISTURBED
        sample.update(run=number, retakes=attempt, disturbed=disturbed)
        if not disturbed:
            break
    result = record["results"].setdefault(
        key(scenario, engine),
        {
            "scenario": scenario.name,
            "engine": engine.name,
            "server_command": shown(server_words, places),
            "client_command": shown(client_words, places),
            "samples": [],
        },
    )
    result["samples"].append(sample)
    say(
        f"{number + 1}/{arguments.runs} {scenario.name:14} {engine.name:24} "
        f"{sample['cpu_us']:8.3f} us/request {sample['requests_per_second']:12,.0f} requests/s"
        f"{'  disturbed' if disturbed else ''}"
    )


def one_count(record, scenario, engine, places, cpus):
    """System calls and instructions per request, each in a run of its own that is not timed."""
    result = record["results"][key(scenario, engine)]
    counts = (("syscalls", clients.count_syscalls), ("instructions", clients.count_instructions))
    for name, count in counts:
        if any(line.startswith(f"{name}: ") for line in record["skipped"]):
            continue
        try:
            with Server(engine, places, cpus[0]) as server:
                result[name] = count(scenario, server, cpus, places)
        except Unavailable as problem:
            note(record, f"{name}: {problem}")
        except (clients.Failed, OSError, ValueError) as problem:
            note(record, f"{scenario.name}/{engine.name}: {name}: {problem}")


def note(record, line):
    if line not in record["skipped"]:
        record["skipped"].append(line)
        say(f"skipped: {line}")


def key(scenario, engine):
    return f"{scenario.name}/{engine.name}"


def shown(words, places):
    """A command as somebody else would type it in the repository."""
    text = " ".join(repr(word) if " " in word else word for word in words)
    for place, name in (
        (places.python37, "python3.7"),
        (places.python, "python"),
        (str(places.bin), "target/release"),
        (str(HERE.parent) + "/", ""),
    ):
        text = text.replace(place, name) if place else text
    return text


def default_path(arguments):
    if arguments.quick:
        name = "quick"
    elif arguments.scenarios == ["*"]:
        name = "all"
    else:
        name = "+".join(word.strip("*") for word in arguments.scenarios)
    return HERE / "record" / f"{datetime.date.today().isoformat()}-{name}.json"


def matches(name, patterns):
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
