"""Instructions per request of the core and of the Python boundary, held against the committed record.

`python benchmarks/micro/instructions.py` (`make bench-check`) counts, prints a table, and fails when a case
takes over 2 % more than the record says. `--accept` writes what was counted as the new record. Instructions
repeat where times do not, so this says on any machine whether a change made the core dearer; it does not say
what an instruction costs. Counts of different compilers, interpreters or processors differ by themselves: the
record names its own, and what is not the same is said.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import callgrind

HERE = Path(__file__).resolve().parent
RECORD = HERE.parent / "record" / "instructions.json"
GROWTH_MAX = 0.02
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"

PROGRAM = """
from anel import Application
app = Application()
{handler}
app.run(host="127.0.0.1", port=0, reactor="epoll")
"""
SYNC = """
def hello(request):
    return request.Response(text="Hello world!")
app.router.add_route("/", hello)
"""
# The whole turn with Python: the handler, and requests per write.
PYTHON_CASES = {
    "python-sync-24": (SYNC, 24),
    "python-async-24": ("async " + SYNC.lstrip(), 24),
    "python-constant-24": ('app.router.add_constant("/", text="Hello world!")', 24),
}
# Per case: requests that a round stands for.
REQUESTS = {
    "turn-24": 24,
    "turn-16-browser": 16,
    "turn-24-targets": 24,
    "turn-24-unlike": 24,
    **{name: depth for name, (_, depth) in PYTHON_CASES.items()},
}
# Few is enough for all to be warm: free lists, specialised bytecode, grown buffers.
CORE_ROUNDS = (2_000, 12_000)
PYTHON_ROUNDS = (200, 1_000)
PYTHON_TRIES = 3


def main() -> None:
    """Counts, compares, and says so with the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="all of them by default")
    parser.add_argument("--accept", action="store_true", help="write the record anew")
    parser.add_argument("--record", type=Path, default=RECORD)
    arguments = parser.parse_args()
    if callgrind.version() is None:
        sys.stdout.write("skipped: instructions: no valgrind (make bench-setup)\n")
        return
    try:
        now = {"about": about(), "cases": counts(arguments.cases)}
    except callgrind.Failed as problem:
        sys.exit(f"instructions: {problem}")
    if arguments.accept:
        accept(arguments.record, now)
        return
    if not arguments.record.exists():
        sys.exit(f"instructions: there is no {arguments.record.name}: make bench-check ACCEPT=1")
    before = json.loads(arguments.record.read_text())
    if arguments.cases:
        chosen = {name: before["cases"][name] for name in now["cases"] if name in before["cases"]}
        before = {**before, "cases": chosen}
    sys.stdout.write("\n".join([*differences(before, now), *table(before, now)]) + "\n")
    dearer = grown(before, now)
    if dearer:
        sys.exit(f"dearer by over {GROWTH_MAX:.0%}: {', '.join(dearer)}\n"
                 "If that is meant: make bench-check ACCEPT=1, and say why in the commit.")


def accept(path: Path, now: dict) -> None:
    """Writes the counted cases into the record; the others stay as they are."""
    known = json.loads(path.read_text())["cases"] if path.exists() else {}
    cases = {**known, **now["cases"]}
    path.write_text(json.dumps({"about": now["about"], "cases": cases}, indent=1) + "\n")
    sys.stdout.write(f"{path.name}: {len(now['cases'])} cases\n")


def about() -> dict[str, str | None]:
    """What the counts depend on besides the code."""
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True)
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "valgrind": callgrind.version(),
        "rustc": rustc.stdout.strip(),
        "python": f"{platform.python_version()}, {platform.python_compiler()}",
        "cpu": model[0].partition(":")[2].strip() if model else platform.machine(),
        "libc": " ".join(platform.libc_ver()),
    }


def counts(chosen: list[str]) -> dict[str, float]:
    """Instructions per request of every case, or of the chosen ones."""
    program = build()
    names = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    for name in chosen:
        if name not in {*names, *PYTHON_CASES}:
            sys.exit(f"no case {name}: there are {', '.join([*names, *PYTHON_CASES])}")
    found = {}
    for name in chosen or [*names, *PYTHON_CASES]:
        if name in PYTHON_CASES:
            rounds = callgrind.per_round(
                lambda many, name=name: python(name, many), *PYTHON_ROUNDS, PYTHON_TRIES
            )
        else:
            rounds = callgrind.per_round(
                lambda many, name=name: callgrind.count([program, name, str(many)]), *CORE_ROUNDS
            )
        found[name] = round(rounds / REQUESTS.get(name, 1), 1)
        sys.stderr.write(f"{name:20}{found[name]:12,.1f}\n")
    return found


def build() -> str:
    """The program of the core's cases, built if need be."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target" / "micro"))
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "--manifest-path", HERE / "Cargo.toml"],
        check=True,
        env={**os.environ, "CARGO_TARGET_DIR": str(target)},
    )
    return str(target / "release" / "anel-micro")


def python(name: str, rounds: int) -> int:
    """Instructions of a served program after so many rounds."""
    handler, depth = PYTHON_CASES[name]
    return callgrind.served(PROGRAM.format(handler=handler), rounds, REQUEST * depth, depth)


def differences(before: dict, now: dict) -> list[str]:
    """What makes the counts hard to compare."""
    return [
        f"warning: another {name}: {now['about'].get(name)}; the record has {known}"
        for name, known in before["about"].items()
        if now["about"].get(name) != known
    ]


def table(before: dict, now: dict) -> list[str]:
    """A line for every case of either."""
    lines = [f"{'instructions per request':24}{'record':>12}{'now':>12}{'growth':>10}"]
    for name in {**before["cases"], **now["cases"]}:
        old, new = before["cases"].get(name), now["cases"].get(name)
        cells = [f"{value:12,.1f}" if value is not None else f"{'-':>12}" for value in (old, new)]
        lines.append(f"{name:24}{''.join(cells)}{words(old, new)}")
    return lines


def words(old: float | None, new: float | None) -> str:
    """How much a case grew, and what to think of it."""
    if old is None:
        return "       new: accept it"
    if new is None:
        return "       gone: accept that"
    change = new / old - 1
    verdict = ""
    if change > GROWTH_MAX:
        verdict = "  dearer"
    elif change < -GROWTH_MAX:
        verdict = "  cheaper: accept it, to hold it"
    return f"{change:+10.2%}{verdict}"


def grown(before: dict, now: dict) -> list[str]:
    """The cases that take over 2 % more than in the record, or are in it no longer or not yet."""
    names = {**before["cases"], **now["cases"]}
    return [
        name
        for name in names
        if name not in now["cases"]
        or name not in before["cases"]
        or now["cases"][name] > before["cases"][name] * (1 + GROWTH_MAX)
    ]


if __name__ == "__main__":
    main()
