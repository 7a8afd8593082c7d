"""The command `anel ctl`: what an operator asks of a server that runs.

Owns the client's end of the control socket, what is printed and the exit codes: 0 it was done, 1
it was not, 2 wrong usage. The server's end is `control`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from anel import finding, flags, options, status
from anel.choices import Starter
from anel.failures import leave

# A master answers within milliseconds, unless it is stopped.
_ANSWER_S = 10.0

# Whatever a message has; the kernel keeps it whole.
_ANSWER_BYTES_MAX = 1 << 20

_FAILED = 1

_takes_control = flags.takes(options.CONTROL)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_wait = click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Until it has been done."
)


@click.group()
@_takes_control
def ctl(**parameters: Any) -> None:
    """Tell a server that runs what to do, or ask how it does.

    The server was started with --control PATH; so is this, before or behind the command, or both
    have ANEL_CONTROL, or control in [tool.anel].
    """
    flags.give(options.CONTROL, parameters, Starter.COMMAND)


@ctl.command("status", cls=flags.GroupedCommand)
@_takes_control
@_as_json
def _status(as_json: bool, **parameters: Any) -> None:
    """Tell how the server and its workers do."""
    with _Server.chosen(parameters) as server:
        report = server.ask(command="status")
    _print(report, as_json, "\n".join(status.lines(report)))


@ctl.command("reload", cls=flags.GroupedCommand)
@_takes_control
@_wait
@_as_json
def _reload(wait: bool, as_json: bool, **parameters: Any) -> None:
    """Replace all workers by new ones, without losing a request.

    With exit code 1 when a new one cannot start: the old ones stay.
    """
    with _Server.chosen(parameters) as server:
        answer = server.ask(command="reload", wait=wait)
        if wait:
            answer = server.next_answer(None) or _fail("the server has ended meanwhile")
    _print(answer, as_json, "reloaded" if wait else "reloading")


@ctl.command("scale", cls=flags.GroupedCommand)
@click.argument("workers", type=int)
@_takes_control
@_as_json
def _scale(workers: int, as_json: bool, **parameters: Any) -> None:
    """Have WORKERS workers from now on."""
    with _Server.chosen(parameters) as server:
        answer = server.ask(command="scale", workers=workers)
    _print(answer, as_json, f"scaling to {answer['workers_wanted']} workers")


@ctl.command("stop", cls=flags.GroupedCommand)
@_takes_control
@_wait
@_as_json
def _stop(wait: bool, as_json: bool, **parameters: Any) -> None:
    """End the server: open requests are finished, as after SIGTERM.

    With exit code 1 when the server's own is not 0.
    """
    with _Server.chosen(parameters) as server:
        answer = server.ask(command="stop", wait=wait)
        if wait:
            # Then the end of the connection: everything is closed and removed.
            while (further := server.next_answer(None)) is not None:
                answer = further
    if answer.get("code"):
        _fail(f"the server has ended with exit code {answer['code']}")
    _print(answer, as_json, "stopped" if wait else "stopping")


class _Server:
    """The connection to a server's control socket. Whatever fails ends the process."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_ANSWER_S)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            _fail(_reason(path, error))

    @classmethod
    def chosen(cls, parameters: Mapping[str, Any]) -> _Server:
        """The one that the command line, the environment or the file names."""
        flags.give(options.CONTROL, parameters, Starter.COMMAND)
        path = finding.resolve()["control"]
        if path is None:
            raise click.UsageError("Name the server's control socket: --control PATH.")
        return cls(path)

    def __enter__(self) -> _Server:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request."""
        try:
            self._socket.send(json.dumps(request).encode())
        except OSError as error:
            _fail(f"cannot ask on {self._path}: {error.strerror or error}")
        return self.next_answer(_ANSWER_S) or _fail(f"no answer on {self._path}")

    def next_answer(self, seconds: float | None) -> dict[str, Any] | None:
        """The next message, awaited for so long; None at the end of the connection."""
        self._socket.settimeout(seconds)
        try:
            message = self._socket.recv(_ANSWER_BYTES_MAX)
        except TimeoutError:
            _fail(f"no answer on {self._path} for {seconds:g} s")
        except OSError:
            message = b""
        if not message:
            return None
        answer: dict[str, Any] = json.loads(message)
        if "error" in answer:
            _fail(answer["error"])
        return answer


def _reason(path: str, error: OSError) -> str:
    """Why nobody can be asked there."""
    if isinstance(error, FileNotFoundError):
        return f"there is no control socket {path}"
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens on {path}: the server has ended"
    if isinstance(error, PermissionError):
        return f"may not connect to {path}: only the server's user and root may"
    return f"cannot connect to {path}: {error.strerror or error}"


def _fail(reason: str) -> NoReturn:
    leave(_FAILED, reason)


def _print(answer: Mapping[str, Any], as_json: bool, line: str) -> None:
    click.echo(json.dumps(answer, indent=2) if as_json else line)
