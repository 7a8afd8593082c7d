"""Context variables (PEP 567): what one request sets is for that request alone.

Every request starts from the context the server was started with, whatever its handler is, and
everything that belongs to it shares what it has set.
"""

from __future__ import annotations

import pytest
from conftest import Serve, Server, get, wait_until

PROGRAM = """
    import asyncio, contextvars, decimal, functools
    from anel import Application, Response

    app = Application()
    number = contextvars.ContextVar("number", default="unset")
    log = []

    def route(path):
        def register(handler):
            app.router.add_route(path, handler)
            return handler
        return register

    def exchange_value(request):
        before = number.get()
        number.set(request.match_dict["number"])
        return before + " " + number.get()

    @route("/sync/{number}")
    def sync(request):
        return request.Response(text=exchange_value(request))

    @route("/await_free/{number}")
    async def await_free(request):
        return request.Response(text=exchange_value(request))

    @route("/awaits/{number}")
    async def awaits(request):
        text = exchange_value(request)
        await asyncio.sleep(0)
        return request.Response(text=text.split()[0] + " " + number.get())

    @route("/awaits_nothing/{number}")
    async def awaits_nothing(request):
        async def inner():
            return exchange_value(request)
        return request.Response(text=await inner())

    @route("/raises/{number}")
    def raises(request):
        raise LookupError(exchange_value(request))

    @route("/raises_await_free/{number}")
    async def raises_await_free(request):
        raise LookupError(exchange_value(request))

    @route("/raises_before_await/{number}")
    async def raises_before_await(request):
        if request.match_dict:
            raise LookupError(exchange_value(request))
        await asyncio.sleep(0)

    @route("/raises_after_await/{number}")
    async def raises_after_await(request):
        text = exchange_value(request)
        await asyncio.sleep(0)
        raise LookupError(text)

    @route("/wrong_result/{number}")
    async def wrong_result(request):
        exchange_value(request)
        await asyncio.sleep(0)
        return 42

    def on_lookup_error(request, error):
        return request.Response(text=str(error) + " " + number.get())

    def on_value_error(request, error):
        return request.Response(text="wrong " + number.get())

    app.add_error_handler(LookupError, on_lookup_error)
    app.add_error_handler(ValueError, on_value_error)

    app.extend_request(lambda request: exchange_value(request), name="seen", property=True)

    @route("/extension/{number}")
    def extension(request):
        return request.Response(text=request.seen)

    def identified(handler):
        @functools.wraps(handler)
        def wrapper(request):
            number.set("wrapper")
            return handler(request)
        return wrapper

    @route("/wrapped/{number}")
    @identified
    async def wrapped(request):
        text = exchange_value(request)
        await asyncio.sleep(0)
        return request.Response(text=text)

    @route("/call_soon/{number}")
    def call_soon(request):
        text = exchange_value(request)
        app.loop.call_soon(lambda: log.append(number.get()))
        return request.Response(text=text)

    @route("/log")
    def read_log(request):
        return request.Response(json=log)

    @route("/done_callback/{number}")
    def done_callback(request):
        request.add_done_callback(lambda request: log.append(number.get()))
        return request.Response(text=exchange_value(request))

    @route("/late_done_callback/{number}")
    async def late_done_callback(request):
        request.add_done_callback(lambda request: log.append(number.get()))
        text = exchange_value(request)
        await asyncio.sleep(0)
        return request.Response(text=text)

    async def stream_done_callback(request):
        request.add_done_callback(lambda request: log.append(number.get()))
        exchange_value(request)
        return Response(stream=[b"a"])

    add_upload = app.router.post("/stream_done_callback/{number}", stream=True)
    add_upload(stream_done_callback)

    @route("/reset/{number}")
    def reset(request):
        before = number.get()
        number.reset(number.set("other"))
        return request.Response(text=before + " " + request.match_dict["number"])

    @route("/decimal/{number}")
    def decimal_context(request):
        before = decimal.getcontext().prec
        decimal.getcontext().prec = 5
        return request.Response(text=str(before))
"""

KINDS = [
    "sync",
    "await_free",
    "awaits",
    "awaits_nothing",
    "extension",
    "call_soon",
    "done_callback",
    "late_done_callback",
    "reset",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_starts_without_what_others_have_set(shared: Server, kind: str) -> None:
    with shared.client() as client:
        client.send(b"".join(get(f"/{kind}/{at}") for at in range(10)))

        assert [client.answer().text for _ in range(10)] == [f"unset {at}" for at in range(10)]
        assert client.ask(get("/sync/next")).text == "unset next"


@pytest.mark.parametrize(
    "kind", ["raises", "raises_await_free", "raises_before_await", "raises_after_await"]
)
def test_an_error_handler_sees_what_its_request_has_set(shared: Server, kind: str) -> None:
    with shared.client() as client:
        client.send(b"".join(get(f"/{kind}/{at}") for at in range(10)) + get("/sync/next"))

        texts = [client.answer().text for _ in range(11)]

    assert texts == [*(f"unset {at} {at}" for at in range(10)), "unset next"]


def test_an_error_handler_for_a_wrong_result_sees_what_its_request_has_set(shared: Server) -> None:
    assert shared.ask(get("/wrong_result/7")).text == "wrong 7"


@pytest.mark.parametrize("kind", ["done_callback", "late_done_callback"])
def test_a_done_callback_sees_what_its_request_has_set(shared: Server, kind: str) -> None:
    shared.ask(get(f"/{kind}/{kind}-value"))

    wait_until(lambda: f'"{kind}-value"' in shared.ask(get("/log")).text, "the callback ran")


def test_a_done_callback_of_a_streamed_exchange_sees_what_its_request_has_set(
    shared: Server,
) -> None:
    answer = shared.ask(get("/stream_done_callback/streamed", method="POST", body=b"x"))

    assert answer.text == "a"
    wait_until(lambda: "streamed" in shared.ask(get("/log")).value)


def test_a_task_sees_what_a_wrapper_of_its_handler_has_set(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/wrapped/1") + get("/wrapped/2") + get("/sync/3"))

        assert [client.answer().text for _ in range(3)] == ["wrapper 1", "wrapper 2", "unset 3"]


def test_a_callback_that_a_handler_leaves_to_the_loop_sees_what_it_has_set(shared: Server) -> None:
    shared.ask(get("/call_soon/left"))

    wait_until(lambda: '"left"' in shared.ask(get("/log")).text, "the callback ran")


def test_the_decimal_context_of_a_request_is_its_own(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/decimal/1") * 3)

        assert [client.answer().text for _ in range(3)] == ["28"] * 3


START = """
    import contextvars
    from anel import Application

    class Equal:
        "Equal to every other one: contexts that hold different ones compare equal."
        def __eq__(self, other):
            return True
        __hash__ = object.__hash__

    app = Application()
    variable = contextvars.ContextVar("variable")
    first = Equal()
    variable.set(first)

    def is_first(request):
        found = variable.get() is first
        variable.set(Equal())
        return request.Response(text=str(found))

    async def is_first_async(request):
        return is_first(request)

    app.router.add_route("/sync", is_first)
    app.router.add_route("/await_free", is_first_async)

    async def streamed(request):
        request.add_done_callback(lambda request: print("done", variable.get() is first))
        return request.Response(text="at once")

    app.router.add_route("/streamed", streamed, "POST", stream=True)
"""


def test_a_request_starts_with_what_was_set_before_the_server_started(
    serve: Serve, reactor: str
) -> None:
    server = serve(START, "--reactor", reactor)
    with server.client() as client:
        client.send(get("/sync") * 3 + get("/await_free") * 3)

        assert [client.answer().text for _ in range(6)] == ["True"] * 6


def test_an_upload_that_is_answered_at_once_ends_in_its_own_context(
    serve: Serve, reactor: str
) -> None:
    server = serve(START, "--reactor", reactor)

    assert server.ask(get("/streamed", method="POST", body=b"x")).text == "at once"
    assert server.wait_for_line("^done (.*)")[1] == "True"
    assert server.stop() == 0
    assert "cannot enter context" not in "\n".join(server.lines)


def test_the_command_line_leaves_the_context_of_the_program_empty(serve: Serve) -> None:
    server = serve(
        """
        import contextvars
        from anel import Application

        app = Application()
        app.router.add_route("/", lambda request: str(len(contextvars.copy_context())))
        """,
        "--loop",
        "auto",
    )

    # Each request would cost a copy of it.
    assert server.ask(get("/")).text == "0"


def test_values_that_a_request_has_set_are_let_go_with_it(serve: Serve, reactor: str) -> None:
    server = serve(
        """
        import contextvars, weakref
        from anel import Application

        class Value:
            pass

        app = Application()
        variable = contextvars.ContextVar("variable")
        values = weakref.WeakSet()

        def handler(request):
            alive = len(values)
            value = Value()
            values.add(value)
            variable.set(value)
            return request.Response(text=str(alive))

        app.router.add_route("/", handler)
        """,
        "--reactor",
        reactor,
    )
    with server.client() as client:
        client.send(get("/") * 3)

        assert [client.answer().text for _ in range(3)] == ["0"] * 3


def test_the_answer_to_what_is_not_http_has_a_context_of_its_own(
    serve: Serve, reactor: str
) -> None:
    server = serve(
        """
        import contextvars
        from anel import Application

        variable = contextvars.ContextVar("variable", default=b"unset")

        class Refusing(Application):
            def protocol_error_handler(self, error):
                body, _ = variable.get(), variable.set(b"refused")
                return b"HTTP/1.0 400 Bad Request\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (
                    len(body), body)

        app = Refusing()
        app.router.add_route("/", lambda request: variable.get().decode())
        """,
        "--reactor",
        reactor,
    )

    assert server.ask(b"nonsense\r\n\r\n").text == "unset"
    assert server.ask(b"nonsense\r\n\r\n").text == "unset"
    assert server.ask(get("/")).text == "unset"
