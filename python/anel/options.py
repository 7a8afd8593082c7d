"""Every option there is: the one table that all ways to choose one are made of.

An entry of `OPTIONS` is an option of the command line with its help, a variable of the environment,
a key of `[tool.anel]`, a keyword of `Application.run()` (its type is in `RunOptions`) and a line of
`anel config`. Who heeds it asks `Choices` for it by name; a field of `Launch` is filled by its name
alone. Modules declare the options that they are about, as in `listener.OPTIONS`; the others are
declared here. `APPLICATION` has what the commands alone have, to find an application. Refuses to
know what an option does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from anel import access_log, affinity, choices, listener, loading, logs, proxies, scheduling
from anel.choices import Choices, Layer
from anel.concurrency import WORKERS_MAX
from anel.exceptions import ConfigError
from anel.limits import LIMITS
from anel.listener import Place
from anel.loops import LOOPS
from anel.rules import GRACEFUL_S
from anel.selection import Pattern
from anel.settings import Choice, CountOrAuto, Number, Setting, Switch, Text, Unit, Words
from anel.socket_path import mode
from anel.watch import DELAY_S, DELAY_S_MAX

if TYPE_CHECKING:
    import asyncio
    import os

REACTORS = ("auto", "io_uring", "epoll")

PROCESSES = "Processes"
RELOADING = "While you edit"
WATCHING = "Watching the server"
HANDLERS = "What handlers run on"

# A worker's life in requests; more is none.
_REQUESTS_MAX = 2**62
# Longer is a slip of the keyboard.
_DAY_MS = 24 * 3600 * 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Loop(Choice):
    """A loop by its name; a program may give a function that makes one."""

    def take(self, value: object, place: str) -> str | Callable[[], Any]:
        """The name or the function, unchanged."""
        return value if callable(value) else self.parse(value, place)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Address(Text):
    """Where to listen, in one word."""

    def parse(self, value: object, place: str) -> str:
        """The word, unchanged."""
        text = str(super().parse(value, place))
        try:
            Place.at(text)
        except ConfigError:
            raise self.refusal(value, place) from None
        return text


# What `anel ctl` needs to find a server.
CONTROL: tuple[Setting, ...] = (
    Text(
        name="control",
        key="control",
        group=PROCESSES,
        help="Unix socket on which `anel ctl` talks to the server.",
        kind="PATH",
        wanted="the path of a socket",
    ),
)


def _processes() -> Iterable[Setting]:
    yield CountOrAuto(
        name="worker_num",
        key="workers",
        flags=("-w",),
        hidden=("--worker-num",),
        foreign=("WEB_CONCURRENCY",),
        group=PROCESSES,
        help="Have a master keep so many workers alive; auto is one per processor. Without it, one"
        " process serves by itself.",
        minimum=1,
        maximum=WORKERS_MAX,
    )
    yield Number(
        name="max_requests",
        key="max-requests",
        group=PROCESSES,
        help="Replace a worker that has served so many requests.",
        minimum=1,
        maximum=_REQUESTS_MAX,
        can_be_off=True,
        off=None,
        wanted="a number from 1",
    )
    yield Number(
        name="max_requests_jitter",
        key="max-requests-jitter",
        group=PROCESSES,
        help="And up to so many more, at random for each.",
        minimum=0,
        maximum=_REQUESTS_MAX,
        default=0,
        wanted="a number from 0",
    )
    yield Number(
        name="graceful_timeout_ms",
        key="timeout-graceful",
        group=PROCESSES,
        help="How long open requests may take once the server, or their worker, is to end.",
        unit=Unit.MILLISECONDS,
        minimum=0,
        maximum=_DAY_MS,
        default=round(GRACEFUL_S * 1000),
    )
    yield Number(
        name="shutdown_delay_ms",
        key="shutdown-delay",
        group=PROCESSES,
        help="How long the server goes on once it was told to end, so that whoever sends it clients"
        " hears of it first.",
        unit=Unit.MILLISECONDS,
        minimum=0,
        maximum=_DAY_MS,
        default=0,
    )
    yield Number(
        name="heartbeat_timeout_ms",
        key="timeout-heartbeat",
        group=PROCESSES,
        help="Replace a worker that does not come round for so long, and show the stacks of its"
        " threads.",
        unit=Unit.MILLISECONDS,
        minimum=100,
        maximum=_DAY_MS,
        can_be_off=True,
        default=0,
    )
    yield Text(
        name="affinity",
        key="affinity",
        group=PROCESSES,
        help="Keep every worker on one processor: those of the list in turn, such as 0-3,6, or with"
        " auto all that there are.",
        check=affinity.parse,
        kind="off|auto|LIST",
        wanted="off, auto or a list of processors",
        default=affinity.OFF,
    )
    yield Choice(
        name="scheduling",
        key="scheduling",
        group=PROCESSES,
        help="Whether a worker under load waits for its turn on a processor rather than interrupt"
        " others (SCHED_BATCH), or keeps the policy it was started with.",
        names=scheduling.NAMES,
        default=scheduling.AUTO,
    )
    yield Text(
        name="pidfile",
        key="pidfile",
        group=PROCESSES,
        help="Has the number of the server's process in it.",
        kind="PATH",
        wanted="the path of a file",
    )
    yield from CONTROL
    yield Text(
        name="umask",
        key="umask",
        group=PROCESSES,
        help="What others may not do with the files that the server makes, as an octal number such"
        " as 027.",
        check=mode,
        kind="OCTAL",
        wanted="an octal number",
    )
    yield Text(
        name="user",
        key="user",
        group=PROCESSES,
        help="Name or number to run as, once the port is open. Needs root.",
        may_be_number=True,
        may_be_empty=True,
        wanted="a name or a number",
    )
    yield Text(
        name="group",
        key="group",
        group=PROCESSES,
        help="The same for the group; the user's own by default.",
        may_be_number=True,
        may_be_empty=True,
        wanted="a name or a number",
    )


def _reloading() -> Iterable[Setting]:
    yield Switch(
        name="reload",
        key="reload",
        group=RELOADING,
        help="Reload when a Python file changes.",
        default=False,
    )
    yield Words(
        name="reload_dir",
        key="reload-dir",
        group=RELOADING,
        help="Folders to watch instead of the working directory and the application's.",
        kind="PATH,...",
        repeatable=True,
        default=(),
    )
    yield Words(
        name="reload_include",
        key="reload-include",
        group=RELOADING,
        help="Patterns of files to watch beside *.py, such as *.html or static/**/*.css.",
        check=_patterns,
        kind="PATTERN,...",
        repeatable=True,
        default=(),
    )
    yield Words(
        name="reload_exclude",
        key="reload-exclude",
        group=RELOADING,
        help="Patterns of files and folders not to watch. Hidden ones, node_modules and virtual"
        " environments are left out in any case.",
        check=_patterns,
        kind="PATTERN,...",
        repeatable=True,
        default=(),
    )
    yield Number(
        name="reload_delay_ms",
        key="reload-delay",
        group=RELOADING,
        help="How long files must stay as they are before a change counts.",
        unit=Unit.MILLISECONDS,
        minimum=0,
        maximum=round(DELAY_S_MAX * 1000),
        default=round(DELAY_S * 1000),
    )


def _patterns(texts: Sequence[str]) -> None:
    for text in texts:
        Pattern.parse(text)


def _watching() -> Iterable[Setting]:
    yield _Address(
        name="metrics_bind",
        key="metrics-bind",
        group=WATCHING,
        help="Serve /metrics (Prometheus), /health and /ready there, from a process of its own.",
        kind="PLACE",
        wanted="HOST:PORT, [IPV6]:PORT, unix:PATH or fd:NUMBER",
    )


def _handlers() -> Iterable[Setting]:
    yield Choice(
        name="reactor",
        key="reactor",
        group=HANDLERS,
        help="What waits for the network.",
        names=REACTORS,
        default="auto",
    )
    yield _Loop(
        name="loop",
        key="loop",
        group=HANDLERS,
        help="The event loop that handlers run on; auto is asyncio's on the reactor.",
        names=LOOPS,
        default="auto",
    )
    yield Switch(
        name="debug",
        key="debug",
        group=HANDLERS,
        help="Log requests; show tracebacks in 500 responses.",
        default=False,
    )


APPLICATION = loading.OPTIONS

OPTIONS: tuple[Setting, ...] = (
    *listener.OPTIONS,
    *_processes(),
    *_reloading(),
    *_watching(),
    *_handlers(),
    *logs.OPTIONS,
    *access_log.OPTIONS,
    *proxies.OPTIONS,
    *LIMITS,
)

# What `anel dev` chooses instead of anybody but the command line: a server for the one who writes
# the application, and for nobody else, because its pages show tracebacks.
DEV: Mapping[str, Any] = {
    "host": "127.0.0.1",
    "worker_num": None,
    "debug": True,
    "reload": True,
    "access_log": access_log.STDOUT,
}

_BY_NAME = {option.name: option for option in OPTIONS}
_BY_PARAMETER = {option.parameter: option for option in OPTIONS}


# The ways to choose a place; those behind the first two are there only if they are chosen.
_PLACES = ("host", "port", "bind", "uds", "fd")


class RunOptions(TypedDict, total=False):
    """The keywords of `Application.run()` beside Japronto's. None is as good as absent.

    A size or a time is a number (of bytes, of seconds) or a str with a unit, as in `"16MiB"` or
    `"500ms"`.
    """

    workers: int | str | None
    bind: str | Iterable[str] | None
    uds: str | None
    uds_mode: str | None
    fd: int | None
    max_requests: int | str | None
    max_requests_jitter: int | None
    timeout_graceful: float | str | None
    shutdown_delay: float | str | None
    timeout_heartbeat: float | str | None
    affinity: str | None
    scheduling: str | None
    pidfile: str | None
    control: str | None
    umask: str | None
    user: str | int | None
    group: str | int | None
    reload_dir: str | Iterable[str] | None
    reload_include: str | Iterable[str] | None
    reload_exclude: str | Iterable[str] | None
    reload_delay: float | str | None
    metrics_bind: str | None
    reactor: str | None
    loop: str | Callable[[], asyncio.AbstractEventLoop] | None
    log_level: str | None
    trusted_proxies: str | Iterable[str] | None
    proxy_headers: str | Iterable[str] | None
    proxy_protocol: bool | None
    access_log: str | os.PathLike[str] | bool | None
    access_log_format: str | None
    access_log_sample: float | str | None
    limit_request_head: int | str | None
    limit_request_line: int | str | None
    limit_request_fields: int | None
    limit_body: int | str | None
    limit_stream: int | str | None
    limit_chunk_extension: int | str | None
    limit_trailers: int | str | None
    limit_pipeline: int | None
    limit_send_queue: int | str | None
    limit_stream_queue: int | str | None
    limit_concurrency: int | None
    limit_body_rate: int | str | None
    limit_send_rate: int | str | None
    limit_linger: int | str | None
    timeout_header: float | str | None
    timeout_body: float | str | None
    timeout_keep_alive: float | str | None
    timeout_write: float | str | None
    timeout_request: float | str | None
    timeout_linger: float | str | None


def said_by_run(worker_num: int | str | None, arguments: Mapping[str, object]) -> dict[str, Any]:
    """What a program's arguments of `run()` mean, by name; those that are None say nothing.

    Raises ConfigError for a wrong value, TypeError for an argument that there is not.
    """
    said = {}
    for parameter, value in arguments.items():
        option = _BY_PARAMETER.get(parameter)
        if option is None:
            raise TypeError(f"run() got an unexpected keyword argument {parameter!r}")
        if value is not None:
            said[option.name] = option.take(value, parameter)
    if worker_num is not None:
        if "worker_num" in said:
            raise TypeError("run() got both worker_num and workers: they are the same")
        number = _BY_NAME["worker_num"].take(worker_num, "worker_num")
        # One worker of Japronto's needs no master.
        said["worker_num"] = None if number == 1 else number
    return said


def said_by_application(**values: object) -> dict[str, Any]:
    """The same for what an application says of itself, by the names of the options."""
    return {
        name: _BY_NAME[name].take(value, name)
        for name, value in values.items()
        if value is not None
    }


def defaults() -> Choices:
    """Every option as it is when nobody chooses."""
    return Choices(
        choices.Chosen(option, option.default, Layer.DEFAULT, choices.DEFAULT) for option in OPTIONS
    )


def resolve(said: Mapping[str, Any] | None = None, own: Mapping[str, Any] | None = None) -> Choices:
    """What holds for every option, and why; see `choices.resolve`, which raises ConfigError.

    Where to listen is one choice, whatever it is made with: a port of the command line goes before
    a path of the file.
    """
    chosen = choices.resolve((*APPLICATION, *OPTIONS), said or {}, own or {})
    layers = {name: chosen.of(name).layer for name in _PLACES}
    return chosen.without([name for name in _PLACES[2:] if layers[name] > min(layers.values())])
