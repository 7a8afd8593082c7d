"""From what the operator wants to processes that serve.

Owns the order in which a server comes to be: signals are noted, sockets opened, the pid file
written, privileges dropped; then either this process serves, or a master forks workers that do.
Knows nothing of applications: it is handed what a serving process does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence

from anel import privileges
from anel.board import Board
from anel.companions import Companion
from anel.concurrency import worker_count
from anel.exceptions import ConfigError, SetupError
from anel.failures import EXIT_BIND, EXIT_SETUP, leave
from anel.listener import ListenError, Listeners, Place
from anel.master import Master
from anel.observer import Observer, Serve
from anel.pid_file import pid_file
from anel.post import Post, current
from anel.serving import early_signals
from anel.slots import Lifetime
from anel.systemd import Notifier, handed_over
from anel.telling import say

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
    pidfile: str | None = None
    user: str | int | None = None
    group: str | int | None = None
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
        is_needed = self.max_requests is not None or self.metrics_bind is not None
        return 1 if is_needed else None

    @property
    def forks(self) -> bool:
        """Whether serving is done in other processes than this one."""
        return self.workers is not None and current() is None

    def companions(self, board: Board, serve_handlers: Serve) -> Sequence[Companion]:
        """The processes beside the workers that the options ask for. They open what they need."""
        companions: list[Companion] = []
        if self.metrics_bind is not None:
            listeners = _listen([Place.at(self.metrics_bind)], 1)
            observer = Observer(listeners, board, serve_handlers)
            companions.append(observer)
            say(f"Metrics at {observer.addresses()}/metrics")
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
        elif self.forks:
            self.fork(lambda: self.serve(work, serve_handlers), serve_handlers)
        else:
            with self._listening(1) as (listeners, notifier, early):
                work(Post(listeners, notifier), early)

    def fork(self, work: Callable[[], None], serve_handlers: Serve) -> None:
        """Has workers do this until told to stop: each has a post, so it may call `serve`.

        Ends the process as `serve` does, and with 1 when a worker did not end as it was told to.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ConfigError("workers can be started in the main thread alone")
        workers = self.workers or 1
        # What nobody reads is not counted.
        board = Board(is_counted=self.metrics_bind is not None)
        companions: list[Companion] = []

        def open_beside() -> Sequence[Companion]:
            companions.extend(self.companions(board, serve_handlers))
            return companions

        with self._listening(workers, open_beside) as (listeners, notifier, early):
            lifetime = Lifetime(self.max_requests, self.max_requests_jitter or 0)
            master = Master(listeners, workers, work, notifier, lifetime, board, companions)
            code = master.run(early)
        if code != 0:
            raise SystemExit(code)

    @contextlib.contextmanager
    def _listening(
        self, slots: int, open_beside: Callable[[], Sequence[Companion]] = tuple
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
                listeners = self._listen(slots)
                stack.callback(listeners.close)
                for companion in open_beside():
                    stack.callback(companion.shed)
                stack.enter_context(pid_file(self.pidfile))
                if identity is not None:
                    identity.assume()
            except SetupError as error:
                leave(EXIT_SETUP, str(error))
            yield listeners, notifier, early

    def _places(self, handed_over: tuple[int, ...]) -> list[Place]:
        given = handed_over if self.fd is None else (self.fd,)
        place = Place(self.host, self.port, self.uds, given)
        return [Place.at(text) for text in self.bind] or [place]

    def _listen(self, slots: int) -> Listeners:
        is_chosen = self.bind or self.fd is not None or self.uds is not None
        return _listen(self._places(() if is_chosen else handed_over()), slots)


def _listen(places: Sequence[Place], slots: int) -> Listeners:
    try:
        return Listeners(places, slots)
    except ListenError as error:
        leave(EXIT_BIND, f"cannot listen on {error.place}: {error.strerror}")
