"""From what the operator wants to processes that serve.

Owns the order in which a server comes to be: signals are noted, sockets opened, the pid file
written, privileges dropped; then either this process serves, or a master forks workers that do.
Knows nothing of applications: it is handed what a serving process does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence

from anel import privileges, rerun
from anel.affinity import OFF, Affinity, affinity
from anel.board import Board
from anel.companions import Companion
from anel.concurrency import worker_count
from anel.control import Control
from anel.exceptions import ConfigError, SetupError
from anel.failures import EXIT_BIND, EXIT_SETUP, leave
from anel.listener import ListenError, Listeners, Place
from anel.master import Master
from anel.observer import Observer, Serve
from anel.pid_file import pid_file
from anel.post import Post, current
from anel.reloading import Watcher, usual_folders
from anel.rules import GRACEFUL_S, Lifetime, Rules
from anel.selection import Selection
from anel.serving import early_signals
from anel.socket_path import mode
from anel.systemd import Notifier, handed_over
from anel.telling import say
from anel.watch import DELAY_S, Watch

# A worker's life in requests; more is none.
_REQUESTS_MAX = 2**62


@dataclasses.dataclass(frozen=True)
class Launch:
    """A server as the operator wants it. Raises ConfigError for what is wrong."""

    host: str
    port: int
    # Goes before the other places.
    bind: Sequence[str] = ()
    uds: str | None = None
    fd: int | None = None
    # None: this process serves by itself.
    worker_num: int | str | None = None
    max_requests: int | None = None
    max_requests_jitter: int | None = None
    # Octal numbers.
    uds_mode: str | None = None
    umask: str | None = None
    pidfile: str | None = None
    control: str | None = None
    # How long open requests may take once the server is to end.
    graceful_timeout_ms: int = round(GRACEFUL_S * 1000)
    # How long it goes on before that.
    shutdown_delay_ms: int = 0
    # After how long a worker that does not come round is replaced; 0 is never.
    heartbeat_timeout_ms: int = 0
    affinity: str = OFF
    user: str | int | None = None
    group: str | int | None = None
    reload: bool = False
    # None of these: what is usual.
    reload_dir: Sequence[str] = ()
    reload_include: Sequence[str] = ()
    reload_exclude: Sequence[str] = ()
    # How long files must stay as they are.
    reload_delay_ms: int = round(DELAY_S * 1000)
    metrics_bind: str | None = None

    def __post_init__(self) -> None:
        """Checks everything before anything is done."""
        self._places(())
        if self.uds is not None and self.fd is not None:
            raise ConfigError("uds and fd exclude each other")
        if self.bind and (self.uds is not None or self.fd is not None):
            raise ConfigError("bind excludes uds and fd: it takes unix:PATH and fd:NUMBER itself")
        if self.worker_num is not None:
            worker_count(self.worker_num)
        for name, least in (("max_requests", 1), ("max_requests_jitter", 0)):
            number = getattr(self, name)
            is_number = isinstance(number, int) and not isinstance(number, bool)
            if number is not None and not (is_number and least <= number <= _REQUESTS_MAX):
                raise ConfigError(f"{name} must be a number from {least}, not {number!r}")
        if self.max_requests_jitter and self.max_requests is None:
            raise ConfigError("max_requests_jitter needs max_requests")
        if self.pidfile is not None and not (isinstance(self.pidfile, str) and self.pidfile):
            raise ConfigError(f"pidfile must be the path of a file, not {self.pidfile!r}")
        if self.metrics_bind is not None:
            Place.at(self.metrics_bind)

    @property
    def workers(self) -> int | None:
        """How many workers a master has; None where none is needed."""
        if self.worker_num is not None:
            return worker_count(self.worker_num)
        needs_master = (
            self.max_requests,
            self.shutdown_delay_ms,
            self.heartbeat_timeout_ms,
            self.metrics_bind,
            self.control,
            self.reload,
        )
        return 1 if any(needs_master) else None

    @property
    def forks(self) -> bool:
        """Whether serving is done in other processes than this one."""
        return self.workers is not None and current() is None

    def companions(self, board: Board, serve_handlers: Serve) -> Sequence[Companion]:
        """The processes beside the workers that the options ask for. They open what they need."""
        companions: list[Companion] = []
        if self.metrics_bind is not None:
            listeners = _listen([Place.at(self.metrics_bind)], None)
            observer = Observer(listeners, board, serve_handlers)
            companions.append(observer)
            say(f"Metrics at {observer.address()}")
        return companions

    def serve(self, work: Callable[[Post, Sequence[int]], None], serve_handlers: Serve) -> None:
        """Has `work` serve at the process's post, here or in workers, until told to stop.

        It is handed the post and the signals that came before. `serve_handlers` is what companions
        serve with. What cannot be ends the process: with exit code 4 where we cannot listen, else
        with 3.
        """
        post = current()
        if post is not None:
            with early_signals(post.signals) as early:
                work(post, early)
        elif self.forks and self.reload:
            # What the program has done before this would be done no more, whatever it says now.
            rerun.check()
            self.fork(rerun.run_again, serve_handlers, rerun.source(), survives_exec=True)
        elif self.forks:
            self.fork(lambda: self.serve(work, serve_handlers), serve_handlers)
        else:
            pinned = self._affinity()
            with self._listening(None) as (listeners, notifier, early):
                pinned.pin(0)
                work(Post(listeners, notifier, self.graceful_timeout_ms / 1000), early)

    def fork(
        self,
        work: Callable[[], None],
        serve_handlers: Serve,
        source: str | None = None,
        *,
        survives_exec: bool = False,
    ) -> None:
        """Has workers do this until told to stop: each has a post, so it may call `serve`.

        `source` is the application's file or folder, which a reload watches if nothing else is
        named; `survives_exec` is for work that is done by another program in the same process. Ends
        the process as `serve` does, and with 1 when a worker did not end as it was told to.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ConfigError("workers can be started in the main thread alone")
        workers = self.workers or 1
        rules = Rules(
            Lifetime(self.max_requests, self.max_requests_jitter or 0),
            graceful_s=self.graceful_timeout_ms / 1000,
            shutdown_delay_s=self.shutdown_delay_ms / 1000,
            heartbeat_s=self.heartbeat_timeout_ms / 1000 or None,
            affinity=self._affinity(),
            is_edited=self.reload,
        )
        # What nobody reads is not counted.
        board = Board(is_counted=self.metrics_bind is not None, survives_exec=survives_exec)
        companions: list[Companion] = []
        if self.reload:
            watcher = self._watcher(source)
            companions.append(watcher)
            work = watcher.before(work)

        def open_beside() -> Sequence[Companion]:
            companions.extend(self.companions(board, serve_handlers))
            return companions

        control = Control()
        with self._listening(workers, control, open_beside) as (listeners, notifier, early):
            master = Master(listeners, workers, work, notifier, rules, board, control, companions)
            code = master.run(early)
            control.on_ended(code)
        if code != 0:
            raise SystemExit(code)

    def _affinity(self) -> Affinity:
        try:
            return affinity(self.affinity)
        except SetupError as error:
            leave(EXIT_SETUP, str(error))

    @contextlib.contextmanager
    def _listening(
        self,
        slots: int | None,
        control: Control | None = None,
        open_beside: Callable[[], Sequence[Companion]] = tuple,
    ) -> Iterator[tuple[Listeners, Notifier, Sequence[int]]]:
        """Everything that is done before serving, and undone at its end.

        `open_beside` opens what companions need, which may take privileges, too.
        """
        with contextlib.ExitStack() as stack:
            # First: whoever sees the port open may tell the server to stop.
            early = stack.enter_context(early_signals(Post.signals))
            try:
                identity = privileges.identity(self.user, self.group)
                notifier = Notifier()
                if self.umask is not None:
                    stack.callback(os.umask, os.umask(mode(self.umask)))
                if control is not None and self.control is not None:
                    # Closed last: whoever waits for the end sees it by that.
                    stack.callback(control.close)
                    _open_control(control, self.control)
                listeners = self._listen(slots)
                stack.callback(listeners.close)
                for companion in open_beside():
                    stack.callback(companion.shed)
                stack.enter_context(pid_file(self.pidfile))
                if identity is not None:
                    if control is not None:
                        identity.own(control)
                    identity.own(listeners)
                    identity.assume()
            except SetupError as error:
                leave(EXIT_SETUP, str(error))
            yield listeners, notifier, early

    def _watcher(self, source: str | None) -> Watcher:
        folders = self.reload_dir or usual_folders(rerun.START, source)
        selection = Selection(folders, self.reload_include, self.reload_exclude)
        return Watcher(Watch(selection, self.reload_delay_ms / 1000, rerun.START))

    def _places(self, handed_over: tuple[int, ...]) -> list[Place]:
        given = handed_over if self.fd is None else (self.fd,)
        place = Place(self.host, self.port, self.uds, given)
        return [Place.at(text) for text in self.bind] or [place]

    def _listen(self, slots: int | None) -> Listeners:
        is_chosen = self.bind or self.fd is not None or self.uds is not None
        path_mode = None if self.uds_mode is None else mode(self.uds_mode)
        return _listen(self._places(() if is_chosen else handed_over()), slots, path_mode)


def _open_control(control: Control, path: str) -> None:
    try:
        control.open(path)
    except OSError as error:
        leave(EXIT_BIND, f"cannot listen on {path}: {error.strerror or error}")


def _listen(places: Sequence[Place], slots: int | None, path_mode: int | None = None) -> Listeners:
    try:
        return Listeners(places, slots, path_mode)
    except ListenError as error:
        leave(EXIT_BIND, f"cannot listen on {error.place}: {error.strerror}")
