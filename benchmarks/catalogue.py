"""Engines, scenarios and exchanges as engines.toml and scenarios.toml declare them.

Owns reading and checking the two files, sweeps, and the patterns that choose among engines. Knows nothing of
this machine: whether an engine can be had is `engines.py`'s to find out. A mistake in a file is a `Mistake`
that names the row.
"""

import dataclasses
import fnmatch
import pathlib
import tomllib
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent
GROUPS = ("anel", "python", "native", "reactors", "switches")
CLIENTS = ("load", "wrk")
PLACEMENTS = ("apart", "shared")
NEEDS = ("", "postgres")


class Mistake(ValueError):
    """A row of a file is wrong; the text says which and how."""


@dataclass(frozen=True)
class Exchange:
    """One request and its only right answer."""

    name: str
    answer: str
    method: str = "GET"
    path: str = "/"
    repeat: int = 1
    needs: str = ""

    def body(self, body_bytes):
        """The bytes of the right answer to a request with a body of this length."""
        return self.answer.replace("{body_bytes}", str(body_bytes)).encode() * self.repeat


@dataclass(frozen=True)
class Engine:
    """A row of engines.toml."""

    name: str
    label: str
    group: str
    command: list
    serves: list
    calls_python: bool
    workers: int = 1
    conf: str = ""
    environment: dict = field(default_factory=dict)
    package: str = ""
    versions: list = field(default_factory=list)
    no_pipelines: str = ""
    # Whether its last line of output is a JSON object of what it counted, for the record.
    counters: bool = False


@dataclass(frozen=True)
class Scenario:
    """A row of scenarios.toml, or one value of its sweep."""

    name: str
    connections: int
    depth: int
    about: str
    client: str = "load"
    exchange: str = "hello"
    idle: int = 0
    headers: str = "minimal"
    body_bytes: int = 0
    body_framing: str = "length"
    requests_per_connection: int = 0
    sources: int = 1
    buffer_bytes: int = 8192
    placement: str = "apart"
    engines: list = field(default_factory=lambda: ["@usual"])
    # Of a sweep: the name of the row, and the field that differs.
    series: str = ""
    axis: str = ""


@dataclass(frozen=True)
class Catalogue:
    """Everything that the two files declare, in their order."""

    exchanges: dict
    scenarios: list
    engines: list
    sets: dict

    @classmethod
    def read(cls, folder=HERE):
        """The catalogue of the two files in `folder`; `Mistake` when a row is wrong."""
        texts = [(folder / name).read_text() for name in ("scenarios.toml", "engines.toml")]
        return cls.parse(*map(tomllib.loads, texts))

    @classmethod
    def parse(cls, scenarios, engines):
        """The catalogue of two parsed files."""
        exchanges = {
            name: make(Exchange, {"name": name, **row})
            for name, row in scenarios.get("exchange", {}).items()
        }
        rows = [make(Engine, row) for row in engines.get("engine", [])]
        points = [point for row in scenarios.get("scenario", []) for point in swept(row)]
        catalogue = cls(exchanges, points, rows, engines.get("sets", {}))
        catalogue.check()
        return catalogue

    def check(self):
        """Raises `Mistake` for what no single row shows."""
        for kind, rows in (("scenario", self.scenarios), ("engine", self.engines)):
            names = [row.name for row in rows]
            for name in names:
                if names.count(name) > 1:
                    raise Mistake(f"{kind} {name}: there are two")
        for exchange in self.exchanges.values():
            require(exchange.needs in NEEDS, exchange, f"needs {exchange.needs!r}?")
        for engine in self.engines:
            require(engine.group in GROUPS, engine, f"group is one of {', '.join(GROUPS)}")
            for name in engine.serves:
                require(name in self.exchanges, engine, f"serves {name}, which is no exchange")
        for scenario in self.scenarios:
            require(scenario.client in CLIENTS, scenario, f"client is one of {', '.join(CLIENTS)}")
            placed = scenario.placement in PLACEMENTS
            require(placed, scenario, f"placement is one of {', '.join(PLACEMENTS)}")
            known = scenario.exchange in self.exchanges
            require(known, scenario, f"there is no exchange {scenario.exchange}")
            for pattern in scenario.engines:
                require(self.choose([pattern]), scenario, f"{pattern!r} names no engine")

    def choose(self, patterns):
        """The engines that some pattern names: `anel-*`, `@set` or `group:python`; in file order."""
        wanted = set()
        for pattern in patterns:
            if pattern.startswith("@"):
                if pattern[1:] not in self.sets:
                    raise Mistake(f"there is no set {pattern}: there are {', '.join(self.sets)}")
                wanted.update(engine.name for engine in self.choose(self.sets[pattern[1:]]))
            elif pattern.startswith("group:"):
                group = pattern.removeprefix("group:")
                wanted.update(engine.name for engine in self.engines if engine.group == group)
            else:
                names = (engine.name for engine in self.engines)
                wanted.update(name for name in names if fnmatch.fnmatch(name, pattern))
        return [engine for engine in self.engines if engine.name in wanted]

    def choose_scenarios(self, patterns):
        """The scenarios that some pattern names; the name of a sweep stands for all its values."""
        return [
            scenario
            for scenario in self.scenarios
            for name in [{scenario.name, scenario.series} - {""}]
            if any(fnmatch.fnmatch(word, pattern) for word in name for pattern in patterns)
        ]

    def exchange(self, scenario):
        """What this scenario asks."""
        return self.exchanges[scenario.exchange]

    def contestants(self, scenario, patterns=None):
        """The engines of a scenario, and those that are left out of it: {name: why}.

        `patterns` choose in place of the scenario's own.
        """
        taking_part, left_out = [], {}
        for engine in self.choose(patterns or scenario.engines):
            # What an engine does not serve was never asked of it, so nothing is missing.
            if scenario.exchange not in engine.serves:
                continue
            if scenario.depth > 1 and engine.no_pipelines:
                left_out[engine.name] = f"no pipelines: {engine.no_pipelines}"
            else:
                taking_part.append(engine)
        return taking_part, left_out


def swept(row):
    """The scenarios of a row: one, or one for each value of its sweep."""
    row = dict(row)
    sweep = row.pop("sweep", None)
    if sweep is None:
        return [make(Scenario, row)]
    if len(sweep) != 1:
        raise Mistake(f"scenario {row.get('name')}: a sweep has one field")
    [(axis, values)] = sweep.items()
    name = row.get("name")
    return [
        make(Scenario, {**row, "name": f"{name}-{value}", axis: value, "series": name, "axis": axis})
        for value in values
    ]


def make(kind, row):
    """A dataclass of a table; `Mistake` for a field that is missing or unknown."""
    name = f"{kind.__name__.lower()} {row.get('name', '(no name)')}"
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for word in row:
        if word not in fields:
            raise Mistake(f"{name}: there is no {word!r}; there are {', '.join(fields)}")
    for word, one in fields.items():
        optional = (
            one.default is not dataclasses.MISSING
            or one.default_factory is not dataclasses.MISSING
        )
        if word not in row and not optional:
            raise Mistake(f"{name}: {word} is missing")
    for word, value in row.items():
        wanted = fields[word].type
        if type(value) is not wanted:
            raise Mistake(f"{name}: {word} is {type(value).__name__}, not {wanted.__name__}")
    return kind(**row)


def require(holds, row, words):
    if not holds:
        raise Mistake(f"{type(row).__name__.lower()} {row.name}: {words}")
