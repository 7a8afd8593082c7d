"""Runs engines under scenarios and writes a record: `python benchmarks/run.py --quick`.

Owns the order of runs. All engines of a scenario take turns in every round, so that a slow minute of the
machine falls on all of them; medians are taken over rounds. The server has one processor and the client
another, unless the scenario has them share two. A sample is retaken when the hypervisor took more than 5 % or others used more than 5 % of the two.
The record is written after every sample; `--resume FILE` goes on where a run was interrupted.
"""

import argparse
import contextlib
import datetime
import os
import sys

import clients
import machine
import table
from catalogue import HERE, Catalogue, Mistake
from database import Database
from engines import Places, Server, Unavailable, check_available, check_answers, check_order
from records import Record, Refused, key

DISTURBED = 0.05
RETAKES_MAX = 3


def main():
    arguments = parse_arguments()
    places = Places.find(arguments.bin)
    cpus = choose_processors()
    try:
        catalogue = Catalogue.read()
        record = open_record(arguments, places, cpus)
        runner = Runner(catalogue, record, places, cpus, arguments)
        plan = runner.make_plan()
    except (Mistake, Refused) as problem:
        sys.exit(f"run.py: {problem}")
    if arguments.list:
        say("\n".join(key(scenario, engine) for scenario, engine in plan))
        return
    complete(runner, plan)
    say(table.render(record.data))
    say(f"record: {record.path}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two rounds of one second, pipelined and plain, usual engines: to see that it works",
    )
    parser.add_argument("--runs", type=int, help="rounds (5; quick: 2)")
    parser.add_argument("--seconds", type=float, help="measured window (3; quick: 1)")
    parser.add_argument(
        "--engines",
        nargs="+",
        metavar="PATTERN",
        help="anel-*, @set or group:python, in place of each scenario's own",
    )
    parser.add_argument("--scenarios", nargs="+", metavar="PATTERN")
    parser.add_argument("--list", action="store_true", help="what would be measured, and no more")
    parser.add_argument("--no-counts", action="store_true", help="no runs under strace and perf")
    parser.add_argument("--bin", help="directory of load, control, ... (default: target/release)")
    parser.add_argument("--out", metavar="FILE")
    parser.add_argument("--resume", metavar="FILE", help="go on with an interrupted record")
    return with_defaults(parser.parse_args())


def with_defaults(arguments):
    """Fills in what was not said; a resumed record says everything itself."""
    quick = arguments.quick
    arguments.runs = arguments.runs or (2 if quick else 5)
    arguments.seconds = arguments.seconds or (1.0 if quick else 3.0)
    arguments.scenarios = arguments.scenarios or (["pipelined", "plain"] if quick else ["*"])
    arguments.engines = arguments.engines or (["@usual"] if quick else None)
    return arguments


def choose_processors():
    """The processors that this process may use: the first for servers, the second for the client."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        sys.exit("two processors are needed: one for the server, one for the client")
    return allowed


def open_record(arguments, places, cpus):
    about = {
        "machine": machine.describe(),
        "source": machine.source(),
        "tools": machine.tools(),
        "python": machine.python(places.python),
        "python37": places.python37 and machine.python(places.python37),
        "peers": places.peers and machine.python(places.peers),
        "processors": {"server": cpus[0], "client": cpus[1]},
    }
    chosen = ("runs", "seconds", "quick", "scenarios", "engines")
    if arguments.resume:
        record = Record.resume(arguments.resume, **about)
        for name in chosen:
            setattr(arguments, name, record.data["arguments"][name])
        return record
    asked = {name: getattr(arguments, name) for name in chosen}
    path = arguments.out or default_path(arguments)
    top = {"runs": arguments.runs, "seconds": arguments.seconds, "quick": arguments.quick}
    return Record.begin(path, **about, **top, arguments=asked)


def complete(runner, plan):
    """Fills the runner's record with the plan, or with as much of it as was not interrupted."""
    record = runner.record
    if not plan:
        sys.exit("nothing to measure:\n" + "\n".join(record.data["skipped"]))
    try:
        runner.measure(plan)
        record.data["complete"] = True
    except KeyboardInterrupt:
        say(f"interrupted: go on with --resume {record.path}")
    if not record.data["results"]:
        sys.exit("nothing was measured:\n" + "\n".join(record.data["skipped"]))
    table.summarise(record.data)
    record.save()


class Runner:
    """One run: a catalogue, a record to fill, and where things are."""

    def __init__(self, catalogue, record, places, cpus, arguments):
        self.catalogue = catalogue
        self.record = record
        self.places = places
        self.cpus = cpus
        self.arguments = arguments
        self.client_cpu = cpus[1]
        self.database = None

    def make_plan(self):
        """Pairs of scenario and engine that can be had; the others are named in the record."""
        plan, states = [], {}
        for scenario in self.catalogue.choose_scenarios(self.arguments.scenarios):
            try:
                clients.check_available(scenario, self.places)
            except Unavailable as problem:
                self.note(f"{scenario.name}: {problem}")
                continue
            for engine in self.contestants(scenario):
                if engine.name not in states:
                    states[engine.name] = self.is_available(engine)
                if states[engine.name]:
                    plan.append((scenario, engine))
        for scenario, engine in plan:
            self.describe(scenario, engine)
        return plan

    def contestants(self, scenario):
        """Who takes part, by the scenario or by the command line; who does not is noted."""
        chosen = self.arguments.engines
        taking_part, left_out = self.catalogue.contestants(scenario, chosen)
        for name, reason in left_out.items():
            self.note(f"{scenario.name}/{name}: {reason}")
        return taking_part

    def is_available(self, engine):
        try:
            check_available(engine, self.places)
        except Unavailable as problem:
            self.note(f"{engine.name}: {problem}")
            return False
        return True

    def describe(self, scenario, engine):
        data = self.record.data
        data["scenarios"][scenario.name] = vars(scenario)
        if engine.name not in data["engines"]:
            data["engines"][engine.name] = {
                "label": engine.label,
                "group": engine.group,
                "calls_python": engine.calls_python,
                "workers": engine.workers,
                "versions": machine.versions(engine, self.places),
            }

    def measure(self, plan):
        """All rounds of all pairs, then the counts, which are not timed."""
        with contextlib.ExitStack() as stack:
            if any(self.catalogue.exchange(scenario).needs for scenario, _ in plan):
                plan = self.start_database(stack, plan)
            for number in range(self.arguments.runs):
                for scenario, engine in plan:
                    if self.record.is_due(key(scenario, engine), number):
                        self.sample(scenario, engine, number)
                        self.record.save()
            for scenario, engine in plan:
                if self.is_countable(scenario, engine):
                    self.count(scenario, engine)
                    self.record.save()

    def start_database(self, stack, plan):
        """The plan; without the scenarios that need a database where there is none."""
        try:
            self.database = stack.enter_context(Database(self.client_cpu))
            return plan
        except Unavailable as problem:
            for scenario, _ in plan:
                if self.catalogue.exchange(scenario).needs:
                    self.note(f"{scenario.name}: {problem}")
            return [pair for pair in plan if not self.catalogue.exchange(pair[0]).needs]

    def is_countable(self, scenario, engine):
        if self.arguments.no_counts or scenario.series or scenario.client != "load":
            return False
        # Among idle connections the calls that opened them would be counted too.
        result = self.record.data["results"].get(key(scenario, engine))
        return not scenario.idle and result is not None and "syscalls" not in result

    def server(self, scenario, engine):
        needs = self.catalogue.exchange(scenario).needs
        environment = {"ANEL_BENCH_POSTGRES": self.database.address} if needs else {}
        cpus = server_processors(engine, scenario, self.cpus)
        return Server(engine, self.places, cpus, environment)

    def setting(self, scenario, server, seconds):
        """Everything that a client has to know of a run."""
        exchange = self.catalogue.exchange(scenario)
        companions = self.database.pids() if exchange.needs else []
        cpus = client_processors(scenario, self.cpus)
        return clients.Setting(
            scenario, exchange, server, cpus, seconds, self.places, companions
        )

    def check(self, scenario, engine, port):
        """Raises `Unavailable` unless the server answers this scenario rightly and in order."""
        check_answers(port, self.catalogue.exchange(scenario), scenario)
        if scenario.depth > 1 and "user" in engine.serves:
            check_order(port, scenario.depth)

    def sample(self, scenario, engine, number):
        """One run, retaken when the machine was disturbed; the last attempt counts, and says so."""
        for attempt in range(RETAKES_MAX + 1):
            try:
                with self.server(scenario, engine) as server:
                    self.check(scenario, engine, server.port)
                    setting = self.setting(scenario, server, self.arguments.seconds)
                    sample = clients.run(setting)
                if engine.counters:
                    sample["counters"] = server.counters
            except (Unavailable, clients.Failed, OSError) as problem:
                # A run may fail because the machine was busy; an engine that cannot does not change.
                if isinstance(problem, clients.Failed) and attempt < RETAKES_MAX:
                    continue
                self.record.fail(key(scenario, engine), str(problem))
                say(f"failed: {key(scenario, engine)}: {problem}")
                return
            disturbed = is_disturbed(sample)
            sample.update(run=number, retakes=attempt, disturbed=disturbed)
            if not disturbed:
                break
        self.record.add(
            key(scenario, engine),
            sample,
            scenario=scenario.name,
            engine=engine.name,
            server_command=self.shown(server.command, engine),
            client_command=self.shown(clients.command(setting)),
        )
        say(
            f"{number + 1}/{self.arguments.runs} {scenario.name:16} {engine.name:24} "
            f"{sample['cpu_us']:10.3f} us/request {sample['requests_per_second']:12,.0f} requests/s"
            f"{'  disturbed' if disturbed else ''}"
        )

    def count(self, scenario, engine):
        """System calls and instructions per request, each in a run of its own that is not timed."""
        result = self.record.data["results"][key(scenario, engine)]
        counts = (("syscalls", clients.count_syscalls), ("instructions", clients.count_instructions))
        for name, count in counts:
            if any(line.startswith(f"{name}: ") for line in self.record.data["skipped"]):
                continue
            try:
                with self.server(scenario, engine) as server:
                    result[name] = count(self.setting(scenario, server, clients.COUNT_SECONDS))
            except Unavailable as problem:
                self.note(f"{name}: {problem}")
            except (clients.Failed, OSError, ValueError) as problem:
                self.note(f"{key(scenario, engine)}: {name}: {problem}")

    def note(self, line):
        if self.record.note(line):
            say(f"skipped: {line}")

    def shown(self, words, engine=None):
        """A command as somebody else would type it in the repository."""
        text = " ".join(repr(word) if " " in word or '"' in word else word for word in words)
        places, root = self.places, str(HERE.parent) + "/"
        for place, name in (
            (places.python37, "benchmarks/.venv37/bin/python"),
            (places.peers, "benchmarks/target/peers/bin/python"),
            (places.python, "python"),
            (str(places.bin), "benchmarks/target/release"),
            (root, ""),
        ):
            text = text.replace(place, name) if place else text
        for name, value in engine.environment.items() if engine else ():
            text = f"{name}={value} {text}"
        return text


def is_disturbed(sample):
    """Whether somebody else had too much of the two processors."""
    return max(sample["steal"], sample["foreign"]) > DISTURBED


def server_processors(engine, scenario, cpus):
    """One processor for each worker where there are enough beside the client's, else one for all.

    Where it shares them with the client: as many as there are workers, two at least.
    """
    if scenario.placement == "shared":
        return cpus[: max(2, engine.workers)]
    own = [cpus[0], *cpus[2:]]
    return own[: engine.workers] if len(own) >= engine.workers else own[:1]


def client_processors(scenario, cpus):
    """The second one; both where they are shared."""
    return cpus[:2] if scenario.placement == "shared" else cpus[1:2]


def default_path(arguments):
    if arguments.quick:
        name = "quick"
    elif arguments.scenarios == ["*"] and not arguments.engines:
        name = "all"
    else:
        words = [*arguments.scenarios, *(arguments.engines or [])]
        name = "+".join(word.strip("*@").replace(":", "-") for word in words if word.strip("*@"))
    return HERE / "record" / f"{datetime.date.today().isoformat()}-{name or 'all'}.json"


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
