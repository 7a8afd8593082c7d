"""The application: routes, error handling and `run()`.

Owns what a program configures and the one place where exceptions become responses. It opens no ring
and parses no byte; the extension's `Worker` is handed the finished route table and asks back
through `error_handler`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, Unpack, cast

from anel import _core, access_log, encoding, extension, logs, loops, options, proxies, script
from anel.choices import Choices
from anel.exceptions import (
    ConfigError,
    HTTPException,
    MethodNotAllowed,
    RouteNotFoundException,
    SetupError,
)
from anel.failures import EXIT_SETUP, leave, leave_with_traceback
from anel.handlers import Kind
from anel.hooks import Hook, Hooks, StartUpFailed
from anel.launch import Launch
from anel.limits import differing_limits, own_limits
from anel.loading import is_loading
from anel.loops import LoopChoice
from anel.middleware import Chain
from anel.options import RunOptions
from anel.post import Post
from anel.request import on_one_line
from anel.routing import Router, TableEntry
from anel.scheduling import AUTO, Scheduling
from anel.serving import Serving
from anel.shortcuts import RouteShortcuts

ErrorHandler: TypeAlias = Callable[[_core.Request, Any], Any]
H = TypeVar("H", bound=Hook)
M = TypeVar("M", bound=Callable[..., Any])

_logger = logging.getLogger("anel.error")


class Application(RouteShortcuts):
    """An HTTP application.

    `reaper_settings` takes Japronto's `idle_timeout` in seconds; its `check_interval` is accepted
    and not needed, because deadlines here are exact. `log_request` switches the request log on or
    off; by default it follows `debug`, unless an access log goes to stdout. `debug` also puts
    tracebacks into 500 responses. `loop` is the asyncio loop that handlers run on: "auto",
    "asyncio", "uvloop", or a function that makes one.
    `limits` replaces limits on peers and handlers by name, such as `{"body_bytes_max": 1 << 20}` or
    `{"handler_timeout_ms": "30s"}` (`anel.limits`).
    `cancel_on_disconnect` tells whether an async handler is cancelled when its client goes away.

    `trusted_proxies` are the addresses and networks of the proxies in front of the server, e.g.
    `["10.0.0.0/8", "::1"]`; "unix" is whoever connects over a Unix socket. Nobody else is believed.
    `proxy_headers` are the fields in which they name the client: "x-forwarded-for" (the default),
    "x-forwarded-host", or "forwarded" (RFC 7239); name only those that your proxy sets or removes.
    With `proxy_protocol=True` every connection begins with a header of the PROXY protocol, version
    1 or 2, and only trusted proxies may connect.

    Whoever runs the server may choose otherwise: the command line, the arguments of `run()`, the
    environment and `[tool.anel]` in pyproject.toml go before what is said here, in this order.
    """

    # Whether HEAD and OPTIONS are answered without a route of their own, and 405 instead of 404.
    _automatic_methods = True
    # Attributes of requests that an extension may replace.
    _replaceable_attributes: Container[str] = ()

    def __init__(
        self,
        *,
        reaper_settings: Mapping[str, float] | None = None,
        log_request: bool | None = None,
        protocol_factory: Callable[..., Any] | None = None,
        debug: bool = False,
        loop: LoopChoice | None = None,
        cancel_on_disconnect: bool = True,
        limits: Mapping[str, int | str] | None = None,
        trusted_proxies: proxies.Names | None = None,
        proxy_headers: proxies.Names | None = None,
        proxy_protocol: bool | None = None,
    ) -> None:
        """Raises ConfigError for what is wrong or not available."""
        if protocol_factory is not None:
            raise ConfigError(
                f"protocol_factory={protocol_factory!r} is not supported: the protocol is built in"
            )
        if log_request not in (None, True, False):
            raise ConfigError(f"log_request must be True, False or None, not {log_request!r}")
        if cancel_on_disconnect not in (True, False):
            raise ConfigError(
                f"cancel_on_disconnect must be True or False, not {cancel_on_disconnect!r}"
            )
        self._limits = own_limits(reaper_settings, limits)
        self._choices = options.said_by_application(
            loop=loop,
            debug=bool(debug) or None,
            trusted_proxies=trusted_proxies,
            proxy_headers=proxy_headers,
            proxy_protocol=proxy_protocol,
        )
        self._cancel_on_disconnect = bool(cancel_on_disconnect)
        self._proxies: proxies.Named | None = None
        self._log_request = log_request
        self._debug = bool(debug)
        # Where requests are logged anyway, debug needs not say it once more.
        self._is_logged_to_stdout = False
        self._router = Router()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_made_as: LoopChoice | None = None
        self._worker: _core.Worker | None = None
        self._hooks = Hooks()
        self._middleware = Chain(self._answer_expected)
        self._error_handlers: list[tuple[type[BaseException] | None, ErrorHandler]] = []
        self._request_extensions: dict[str, tuple[Callable[[_core.Request], Any], bool]] = {}

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The asyncio loop that handlers run on. Made on first use, so it works before `run()`.

        Raises SetupError when the loop that was chosen is not installed, ConfigError when the
        environment or the file has a mistake.
        """
        if self._loop is None or self._loop.is_closed():
            return self._make_loop(options.resolve(own=self._own)["loop"])
        return self._loop

    @property
    def router(self) -> Router:
        """The application's routes."""
        return self._router

    @property
    def debug(self) -> bool:
        """Whether 500 responses show tracebacks."""
        return self._debug

    def add_error_handler(
        self,
        typ: type[BaseException] | tuple[type[BaseException], ...] | None,
        handler: ErrorHandler,
    ) -> None:
        """Registers `handler(request, exception)` for an exception class, or with None for all.

        A tuple of classes stands for each of them, as in `except`. The first registered handler
        that fits is called. It returns a response as a handler does. Raises ConfigError.
        """
        kinds = typ if isinstance(typ, tuple) else (typ,)
        if not kinds or (
            typ is not None
            and not all(
                isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
            )
        ):
            raise ConfigError(f"typ must be an exception class, some, or None, not {typ!r}")
        if not callable(handler):
            raise ConfigError(f"an error handler must be callable, not {handler!r}")
        if inspect.iscoroutinefunction(handler):
            raise ConfigError(f"an error handler must not be async: {handler!r}")
        self._error_handlers += [(kind, handler) for kind in kinds]

    def extend_request(
        self,
        handler: Callable[[_core.Request], Any],
        *,
        name: str | None = None,
        property: bool = False,
    ) -> None:
        """Adds an attribute to all requests: a method, or with `property=True` a property.

        Its name is the handler's unless given. It is computed on every access.
        """
        if not callable(handler):
            raise ConfigError(f"a request extension must be callable, not {handler!r}")
        if property not in (True, False):
            raise ConfigError(f"property must be True or False, not {property!r}")
        chosen = name if name is not None else getattr(handler, "__name__", None)
        if not isinstance(chosen, str) or not chosen.isidentifier():
            raise ConfigError(f"a request extension needs a name, not {chosen!r}: {handler!r}")
        if chosen in self._request_extensions:
            raise ConfigError(f"request.{chosen} is extended twice")
        if not extension.install(chosen, replaceable=self._replaceable_attributes):
            raise ConfigError(f"request.{chosen} exists already and would hide the extension")
        self._request_extensions[chosen] = (handler, bool(property))

    def middleware(self, function: M) -> M:
        """Registers a middleware around all handlers; the first registered is the outermost.

        It is one of: `async def (request, call_next)`, which awaits `call_next(request)`; a plain
        function of the same, for work before the handler (the response is there only if the handler
        is plain, too); a generator function `(request)` that does `response = yield`, for both
        kinds of handlers. It returns a response or a plain value, its own or the one it was given.

        A response is there whenever the handler returned or raised what is answered on purpose:
        HTTPException, RouteNotFoundException, or what `add_error_handler` was told of in
        particular. Other exceptions, and those that only a catch-all error handler knows, pass
        through the middleware and are answered outside of it.

        Middleware sees requests that no route matches. It does not see constant routes, nor what
        the protocol refuses. Returns the function, so it decorates. Raises ConfigError.
        """
        if self._worker is not None:
            raise ConfigError(f"{function!r} comes too late: the server is already running")
        self._middleware.add(function)
        return function

    def add_middleware(self, function: Callable[..., Any]) -> None:
        """The same as `middleware`, as a call."""
        self.middleware(function)

    def on_startup(self, hook: H) -> H:
        """Registers what runs before the first connection is accepted, in registration order.

        A function or coroutine function; it is called with the application if it has a parameter.
        It runs on `loop`, in the worker. A failure ends the process with its traceback and exit
        code 3. Returns the hook, so it decorates. Raises ConfigError.
        """
        self._hooks.add("startup", hook)
        return hook

    def on_shutdown(self, hook: H) -> H:
        """Registers what runs after the last connection has ended, in reverse order.

        As `on_startup`; a failure is logged, and the other hooks run. Shutdown hooks run when the
        whole start-up has succeeded, and only then.
        """
        self._hooks.add("shutdown", hook)
        return hook

    def lifespan(self, hook: H) -> H:
        """Registers an async function that yields once: start-up before it, shutdown after.

        A function that returns an async context manager does, too. Lifespans and the other hooks
        take their places in one order. What ends a lifespan while it serves, such as a failure in
        its task group, drains the server and is raised by `run()`.
        """
        self._hooks.add("lifespan", hook)
        return hook

    def default_request_logger(self, request: _core.Request) -> None:
        """Prints address, method and path of an answered request."""
        print(request.remote_addr, request.method, on_one_line(request.path), flush=True)

    def protocol_error_handler(self, error: str) -> bytes:
        """Returns the whole response to a request that is not HTTP; `error` names what is wrong."""
        body = error.encode()
        return (
            b"HTTP/1.0 400 Bad Request\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )

    def default_error_handler(self, request: _core.Request, exception: BaseException) -> Any:
        """Answers 404, 405, 503 or 500, or as an HTTPException says; logs what is unexpected."""
        if isinstance(exception, MethodNotAllowed):
            allow = {"Allow": ", ".join(exception.allowed)}
            return _core.Response(text="Method Not Allowed", code=405, headers=allow)
        if isinstance(exception, RouteNotFoundException):
            return _core.Response(text="Not Found", code=404)
        if isinstance(exception, HTTPException):
            return _core.Response(
                text=exception.detail,
                code=exception.status,
                headers=None if exception.headers is None else dict(exception.headers),
            )
        if isinstance(exception, asyncio.CancelledError):
            return _core.Response(text="Service unavailable", code=503)
        _log(request, exception)
        text = "Internal Server Error"
        if self._debug:
            text = "".join(traceback.format_exception(exception))
        return _core.Response(text=text, code=500)

    def error_handler(self, request: _core.Request, exception: BaseException) -> Any:
        """Turns what a handler raised into a response."""
        _, handler = self._error_handler(exception)
        if handler is None:
            return self.default_error_handler(request, exception)
        try:
            return handler(request, exception)
        except Exception as failure:
            if exception not in (failure.__cause__, failure.__context__):
                # Else its traceback shows both.
                _log(request, exception)
            _log(request, failure)
            return _core.Response(text="Internal Server Error", code=500)

    def _error_handler(
        self, exception: BaseException
    ) -> tuple[type[BaseException] | None, ErrorHandler | None]:
        """The first error handler that fits, and the class it was registered for."""
        for typ, handler in self._error_handlers:
            if typ is None or isinstance(exception, typ):
                return typ, handler
        return None, None

    def _answer_expected(self, request: _core.Request, error: Exception) -> _core.Response:
        typ, _ = self._error_handler(error)
        # A catch-all is the last resort: a transaction that surrounds the handler must see the
        # exception, or it would commit.
        if typ in (None, Exception, BaseException) and not isinstance(
            error, HTTPException | RouteNotFoundException
        ):
            raise error
        _core.allow_response(request)
        return _core.as_response(request, self.error_handler(request, error))

    def run(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        worker_num: int | str | None = None,
        reload: bool = False,
        debug: bool = False,
        **others: Unpack[RunOptions],
    ) -> None:
        """Serves until SIGINT or SIGTERM, then finishes open requests and returns.

        Without host and port it is port 8080 of all addresses. `worker_num` above 1, or "auto" for
        one per processor, has a master fork so many workers and replace those that die; SIGHUP
        replaces all, one after the other. `debug` may be asked for here or by `Application`.

        `reload` runs the program again, from its first line, in a worker, and once more whenever a
        Python file below the working directory or the program's folder changes. A program that
        fails before it gets here leaves the last one serving, if there is one, until the next
        change.

        The others are the options of the command line (`anel run --help`): `--timeout-body 10s` is
        `timeout_body=10`, or `"10s"`. `loop` may be a function that makes an event loop, too. What
        the command line says goes before an argument, and that before the environment, the file
        and `Application(...)`; None and False say nothing, but `proxy_protocol=False` and
        `access_log=False` do.

        Raises ConfigError for a wrong argument, TypeError for one that there is not. Does nothing
        while the command line loads this application. A port that cannot be had ends the process
        with exit code 4, a worker that cannot start with 3, each with one line on stderr.
        """
        if is_loading():
            return
        japrontos = {"host": host, "port": port, "debug": debug or None, "reload": reload or None}
        said = options.said_by_run(worker_num, {**japrontos, **others})
        try:
            choices = options.resolve(said, self._own)
            encoding.engine()
        except ConfigError as error:
            leave(EXIT_SETUP, str(error))
        launch = Launch(**choices.arguments(Launch))
        self._check_loop(launch)
        logs.configure(choices.of("log_level"))
        self._debug = choices["debug"]
        self._is_logged_to_stdout = choices["access_log"] == access_log.STDOUT
        self._proxies = proxies.named(
            choices["trusted_proxies"], choices["proxy_headers"], choices["proxy_protocol"]
        )
        launch.serve(lambda post, early: self._work(post, early, choices), serve_handlers)
        # Also where only workers, which are other processes, did.
        script.note_serving()

    @property
    def _own(self) -> dict[str, Any]:
        """What the application says of options, by their names."""
        return self._limits | self._choices

    def _check_loop(self, launch: Launch) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        if self._loop.is_running():
            raise ConfigError("run() was called while the application's loop is running")
        if launch.forks and not launch.reload:
            raise ConfigError(
                "app.loop was used before run(), but every worker has a loop of its own: use it in"
                " app.on_startup, or do without workers"
            )

    def _work(self, post: Post, early: Sequence[int], choices: Choices) -> None:
        """Serves at this process's post."""
        scheduling = Scheduling()
        try:
            with contextlib.closing(self._event_loop(choices["loop"])) as event_loop:
                try:
                    self._worker = self._new_worker(post, choices, scheduling)
                    script.note_serving()
                    life = functools.partial(self._hooks.live, self) if self._hooks else None
                    Serving(event_loop, self._worker, post, life, early).run()
                finally:
                    scheduling.restore()
                    self._worker = None
                    self._router.thaw()
        except StartUpFailed as failure:
            leave_with_traceback(EXIT_SETUP, failure.__cause__ or failure)
        except SetupError as error:
            leave(EXIT_SETUP, str(error))

    def _new_worker(self, post: Post, choices: Choices, scheduling: Scheduling) -> _core.Worker:
        worker = _core.Worker(
            self,
            [listener.fileno() for listener in post.listeners],
            [self._in_middleware(entry) for entry in self._router.freeze()],
            reactor=choices["reactor"],
            limits=differing_limits(choices) or None,
            automatic_methods=self._automatic_methods,
            row=post.row.counted,
            access_log=access_log.wanted(choices),
            on_load=scheduling.on_load if choices["scheduling"] == AUTO else None,
        )
        if worker.reactor_notice is not None:
            print(f"anel: {worker.reactor_notice}", file=sys.stderr, flush=True)
        return worker

    def _in_middleware(self, entry: TableEntry) -> TableEntry:
        handler, kind = entry[2:4]
        if handler is None or not self._middleware:
            return entry
        around = self._middleware.around(handler, cast(Kind, kind))
        return cast(TableEntry, (*entry[:2], *around, *entry[4:]))

    @property
    def _fallback(self) -> tuple[Callable[[_core.Request], Any], str] | None:
        """What is called for a request that no route matches; None without middleware."""
        return self._middleware.around(_core.unmatched, "sync") if self._middleware else None

    def _event_loop(self, choice: LoopChoice) -> asyncio.AbstractEventLoop:
        """The loop there is, or a new one. Raises ConfigError when there is another kind."""
        if self._loop is None or self._loop.is_closed():
            return self._make_loop(choice)
        if choice != self._loop_made_as:
            raise ConfigError(
                f"run() was asked for loop={choice!r}, but the application's loop was made before"
                f" it, as {self._loop_made_as!r}: use Application(loop=...) or ANEL_LOOP"
            )
        return self._loop

    def _make_loop(self, choice: LoopChoice) -> asyncio.AbstractEventLoop:
        self._loop_made_as = choice
        self._loop = loops.make(choice)
        return self._loop

    def counters(self) -> dict[str, int]:
        """What the worker has counted since it started, by name; empty when none is running.

        Totals end in `_total`: requests_total, enters_total (`io_uring_enter` or `epoll_wait`
        calls), system_calls_total (those and all others of the reactor), submissions_total and
        completions_total (queue entries), sends_total, bytes_sent_total, ...; connections_open is a
        gauge, completions_batch_max the most completions taken at once. Within a handler
        the numbers are those of the last wait.
        """
        return {} if self._worker is None else self._worker.counters()

    @property
    def _refusal_handler(self) -> Callable[[str], bytes] | None:
        """What answers requests that are not HTTP; None for the core's own answers."""
        handler = self.protocol_error_handler
        # Neither overridden in a class nor replaced in this instance.
        own = getattr(handler, "__func__", None) is Application.protocol_error_handler
        return None if own else handler

    @property
    def _request_logger(self) -> Callable[[_core.Request], None] | None:
        """What the worker calls after an answer; None when the request log is off."""
        enabled = self._log_request
        if enabled is None:
            enabled = self._debug and not (self._is_logged_to_stdout and self._has_usual_logger)
        return self.default_request_logger if enabled else None

    @property
    def _has_usual_logger(self) -> bool:
        logger = getattr(self.default_request_logger, "__func__", None)
        return logger is Application.default_request_logger


def serve_handlers(post: Post, handlers: Mapping[str, Callable[[_core.Request], Any]]) -> None:
    """Serves these, by their paths, at a post; every option is as when nobody chooses.

    For companions, which are no part of what the operator configures.
    """
    application = Application(log_request=False)
    for path, handler in handlers.items():
        application.router.add_route(path, handler, "GET")
    application._work(post, (), options.defaults())


def _log(request: _core.Request, exception: BaseException) -> None:
    path = on_one_line(request.path)
    _logger.error("unhandled exception method=%s path=%s", request.method, path, exc_info=exception)
