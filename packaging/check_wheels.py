"""Tries every wheel in dist/ as a new user would: `python packaging/check_wheels.py`.

Owns the way from a wheel to a served request: an empty environment, `pip install`, then what the
README shows, with its own program, request and answer. Nothing of the checkout is imported. A
wheel whose CPython is not on this machine is named; with ANEL_NO_SKIPS=1 that is a failure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Bounds what hangs: pip fetches the requirements within this time.
DEADLINE_S = 120.0

_DATE = re.compile(r"(?m)^Date: .*$")
_TAG = re.compile(r"-cp(\d)(\d+)-")


class CheckError(Exception):
    """What is wrong with a wheel."""


@dataclasses.dataclass(frozen=True)
class Readme:
    """The program that the README shows, its request, and the answer."""

    program: str
    request: str
    answer: str

    @classmethod
    def read(cls) -> Readme:
        """Of several the first."""
        text = (ROOT / "README.md").read_text()
        program = re.search(r"(?ms)^```python\n(.*?)^```$", text)
        shown = re.search(r"(?ms)^```console\n\$ (curl [^\n]*)\n(.*?)^```$", text)
        if program is None or shown is None:
            raise CheckError("the README shows no program, or no request")
        return cls(program[1], shown[1], shown[2])


class Installed:
    """A wheel in an environment of its own, and a folder to work in."""

    def __init__(self, wheel: pathlib.Path, python: str, folder: pathlib.Path) -> None:
        """Installs it, with what it requires."""
        self.folder = folder
        self._bin = folder / "venv" / "bin"
        self.run(python, "-m", "venv", str(folder / "venv"))
        self.run("python", "-m", "pip", "install", "--quiet", str(wheel))
        self.run("python", "-m", "pip", "check")

    def command(self, *words: str) -> list[str]:
        """The words, with a program of the environment's where it has one."""
        own = self._bin / words[0]
        return [str(own) if own.exists() else words[0], *words[1:]]

    def run(self, *words: str) -> str:
        """What a command prints."""
        ended = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        if ended.returncode != 0:
            raise CheckError(f"{shlex.join(words)}: {ended.stdout}{ended.stderr}")
        return ended.stdout

    @contextlib.contextmanager
    def serving(self, *words: str) -> Iterator[None]:
        """While this command serves; it has to end well when it is told to."""
        log = self.folder / "log"
        with log.open("w+") as output:
            server = subprocess.Popen(
                self.command(*words),
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                _await_serving(server, log)
                yield
                server.send_signal(signal.SIGTERM)
                if server.wait(DEADLINE_S) != 0:
                    raise CheckError(f"{shlex.join(words)} ended with {server.returncode}")
            except CheckError as error:
                raise CheckError(f"{error}\n{log.read_text()}") from None
            finally:
                server.kill()
                server.wait(DEADLINE_S)


def check(installed: Installed, version: str) -> None:
    """What the README says of a wheel with this version. Raises CheckError."""
    readme = Readme.read()
    where = installed.run("python", "-c", "import anel; print(anel.__file__)")
    if not where.startswith(str(installed.folder)):
        raise CheckError(f"not the wheel is imported, but {where}")
    if installed.run("anel", "--version").split()[-1] != version:
        raise CheckError(f"anel --version is not {version}")
    if "auto:" not in installed.run("anel", "doctor"):
        raise CheckError("anel doctor does not tell which reactor auto is")

    port = _free_port()
    # The README's own choice is every address and a port that may be in use here.
    script = readme.program.replace("app.run()", f'app.run("127.0.0.1", {port})')
    if script == readme.program:
        raise CheckError("the program of the README does not call app.run()")
    japronto = readme.program.replace("from anel import", "from japronto import")
    (installed.folder / "script.py").write_text(script)
    (installed.folder / "program.py").write_text(readme.program)
    (installed.folder / "for_japronto.py").write_text(japronto)
    options = ["--host", "127.0.0.1", "--port", str(port)]
    for words in (
        ["python", "script.py"],
        ["anel", "program.py", "--port", str(port)],
        ["anel", "program.py", "--port", str(port), "--reactor", "epoll"],
        ["anel", "program.py", "--port", str(port), "--workers", "2"],
        ["python", "-m", "anel", "run", "program:app", "--port", str(port)],
        ["anel", "run", "--japronto", *options, "for_japronto.py"],
    ):
        with installed.serving(*words):
            request = readme.request.replace(":8080", f":{port}")
            answer = installed.run(*shlex.split(request), "--silent", "--max-time", "10")
            expected = _DATE.sub("Date: *", readme.answer)
            if _DATE.sub("Date: *", answer).replace("\r", "").rstrip() != expected.rstrip():
                raise CheckError(f"{shlex.join(words)} answers {answer!r}")
        print(f"  {shlex.join(words)}")


def _environment() -> dict[str, str]:
    # The checkout's own package is not to be found.
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _await_serving(server: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while "Accepting connections on " not in log.read_text():
        if server.poll() is not None:
            raise CheckError(f"it ended with {server.returncode} instead of serving")
        if time.monotonic() > deadline:
            raise CheckError("it does not serve")
        time.sleep(0.01)


def _python_for(wheel: pathlib.Path) -> tuple[str, str | None]:
    """The version that a wheel is for, and its interpreter if this machine has one."""
    tag = _TAG.search(wheel.name)
    if tag is None:
        raise CheckError(f"{wheel.name} is not for one version of CPython")
    version = f"{tag[1]}.{tag[2]}"
    finder = ["sh", str(ROOT / "packaging" / "python.sh"), version]
    found = subprocess.run(finder, check=True, capture_output=True, text=True).stdout.strip()
    return version, found or None


def main() -> int:
    """Tries every wheel; the exit status."""
    wheels = sorted((ROOT / "dist").glob("anel-*.whl"))
    if not wheels:
        print("anel: no wheels in dist/: run `make wheels`", file=sys.stderr)
        return 1
    failed = 0
    for wheel in wheels:
        python_version, python = _python_for(wheel)
        print(wheel.name)
        if python is None:
            print(f"  skipped: no CPython {python_version} on this machine")
            failed += os.environ.get("ANEL_NO_SKIPS") == "1"
            continue
        with tempfile.TemporaryDirectory(prefix="anel-wheel-") as folder:
            try:
                installed = Installed(wheel, python, pathlib.Path(folder))
                check(installed, wheel.name.split("-")[1])
            except (CheckError, subprocess.TimeoutExpired) as error:
                print(f"  {error}", file=sys.stderr)
                failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
