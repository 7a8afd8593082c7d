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
from anel.companions import Companion
from anel.concurrency import worker_count
from anel.exceptions import ConfigError, SetupError
from anel.failures import EXIT_BIND, EXIT_SETUP, leave
from anel.listener import Listeners, Place
from anel.master import Master
from anel.pid_file import pid_file
from anel.post import Post, current
from anel.serving import early_signals
from anel.slots import Lifetime
from anel.systemd import Notifier, handed_over

# A worker's life in requests; more is none.
_REQUESTS_MAX = 2**62


@dataclasses.dataclass(frozen=True)
class Launch:
    """A server as the operator wants it. Raises ConfigError for what is wrong."""

    host: str
    port: int
    uds: str | None = None
    fd: int | None = None
    # None: this process serves by itself.
    worker_num: int | str | None = None
    max_requests: int | None = None
    max_requests_jitter: int | None = None
    pidfile: str | None = None
    user: str | int | None = None
    group: str | int | None = None

    def __post_init__(self) -> None:
        """Checks everything before anything is done."""
        Place(self.host, self.port, self.uds, () if self.fd is None else (self.fd,))
        if self.uds is not None and self.fd is not None:
            raise ConfigError("uds and fd exclude each other")
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

    @property
    def workers(self) -> int | None:
        """How many workers a master has; None where none is needed."""
        if self.worker_num is not None:
            return worker_count(self.worker_num)
        return None if self.max_requests is None else 1

    @property
    def forks(self) -> bool:
        """Whether serving is done in other processes than this one."""
        return self.workers is not None and current() is None

    def companions(self) -> Sequence[Companion]:
        """The processes beside the workers that the options ask for. They open what they need."""
        return ()

    def serve(self, work: Callable[[Post, Sequence[int]], None]) -> None:
        """Has `work` serve at the process's post, here or in workers, until told to stop.

        It is handed the post and the signals that came before. What cannot be ends the process:
        with exit code 4 where we cannot listen, else with 3.
        """
        post = current()
        if post is not None:
            with early_signals(post.signals) as early:
                work(post, early)
        elif self.forks:
            self.fork(lambda: self.serve(work))
        else:
            with self._listening(1) as (listeners, notifier, early):
                work(Post(listeners, notifier), early)

    def fork(self, work: Callable[[], None]) -> None:
        """Has workers do this until told to stop: each has a post, so it may call `serve`.

        Ends the process as `serve` does, and with 1 when a worker did not end as it was told to.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ConfigError("workers can be started in the main thread alone")
        workers = self.workers or 1
        companions: list[Companion] = []
        with self._listening(workers, companions) as (listeners, notifier, early):
            lifetime = Lifetime(self.max_requests, self.max_requests_jitter or 0)
            master = Master(listeners, workers, work, notifier, lifetime, companions)
            code = master.run(early)
        if code != 0:
            raise SystemExit(code)

    @contextlib.contextmanager
    def _listening(
        self, slots: int, companions: list[Companion] | None = None
    ) -> Iterator[tuple[Listeners, Notifier, Sequence[int]]]:
        """Everything that is done before serving, and undone at its end.

        The companions are put into the list, if there is one.
        """
        with contextlib.ExitStack() as stack:
            # First: whoever sees the port open may tell the server to stop.
            early = stack.enter_context(early_signals(Post.signals))
            try:
                identity = privileges.identity(self.user, self.group)
                notifier = Notifier()
                listeners = self._listen(slots)
                stack.callback(listeners.close)
                if companions is not None:
                    # They may have something to open that takes privileges, too.
                    companions += self.companions()
                    for companion in companions:
                        stack.callback(companion.shed)
                stack.enter_context(pid_file(self.pidfile))
                if identity is not None:
                    identity.assume()
            except SetupError as error:
                leave(EXIT_SETUP, str(error))
            yield listeners, notifier, early

    def _listen(self, slots: int) -> Listeners:
        given: tuple[int, ...] = () if self.fd is None else (self.fd,)
        if self.fd is None and self.uds is None:
            given = handed_over()
        place = Place(self.host, self.port, self.uds, given)
        try:
            return Listeners(place, slots)
        except OSError as error:
            leave(EXIT_BIND, f"cannot listen on {place}: {error.strerror or error}")
