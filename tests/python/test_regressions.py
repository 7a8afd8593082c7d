"""One test per defect of Japronto that users met, named after what they saw.

Owns the symptoms. Where a defect is a rule of its own (headers, statuses, queries), the rule's
tests are elsewhere and the symptom is still shown here once.
"""

from __future__ import annotations

import json
import select

import pytest
from conftest import Serve, Server, get

PROGRAM = """
    import asyncio, collections, gc, http.cookies, ipaddress, json
    from anel import Application, Response, RouteNotFoundException

    app = Application()
    kept = []
    events = collections.defaultdict(asyncio.Event)

    def hello(request):
        return request.Response(text="Hello world!")

    async def slow(request):
        await asyncio.sleep(0.001)
        return request.Response(text=request.query["n"])

    async def wait(request):
        await events[request.match_dict["name"]].wait()
        return request.Response(text="waited")

    def set_event(request):
        events[request.match_dict["name"]].set()
        return request.Response(text="set")

    def fat(request):
        jar = http.cookies.SimpleCookie()
        jar["session"] = "s" * 2000
        headers = {"X-Fat": "f" * 4000}
        return request.Response(text="x", headers=headers, cookies=jar)

    def keep(request):
        view = None if request.body is None else memoryview(request.body)
        kept.append((request, view, request.headers))
        return request.Response(text=str(len(kept) - 1))

    def keep_untouched(request):
        kept.append((request, None, None))
        return request.Response(text=str(len(kept) - 1))

    def keep_in_a_traceback(request):
        try:
            raise ValueError(request)
        except ValueError as error:
            kept.append((error, None, None))
        return request.Response(text=str(len(kept) - 1))

    def recall(request):
        past, view, headers = kept[int(request.match_dict["number"])]
        if isinstance(past, ValueError):
            past = past.args[0]
        return Response(json={
            "path": past.path, "query": past.query, "body": past.text, "method": past.method,
            "view": None if view is None else bytes(view).decode(),
            "headers": dict(past.headers), "same": headers is None or headers is past.headers,
            "keep_alive": past.keep_alive, "remote_addr": past.remote_addr,
            "route": past.route.pattern, "match_dict": past.match_dict,
        })

    def forget(request):
        kept.clear()
        return request.Response(text=str(gc.collect()))

    def calls_then_raises(request):
        request.Response(text="never sent")
        raise ZeroDivisionError("after Response")

    async def calls_then_raises_later(request):
        request.Response(text="never sent")
        await asyncio.sleep(0)
        raise ZeroDivisionError("after Response")

    def returns_none(request):
        return None

    class Nothing(Exception): pass

    def raises_nothing(request):
        raise Nothing

    def handles_with_nothing(request, error):
        return None

    class Teapot(Exception): pass

    def teapot(request):
        raise Teapot

    def handles_teapot(request, error):
        return request.Response(text="teapot", code=418)

    def not_found(request, error):
        return request.Response(text="custom 404", code=404)

    def wrong_arity():
        return "never called"

    async def wrong_arity_async():
        await asyncio.sleep(0)

    def host(request):
        return request.Response(json=[request.hostname, request.port])

    def arguments(request):
        return request.Response(json=request.match_dict)

    def uses_much(request):
        ipaddress.ip_address(request.remote_addr)
        return request.Response(text=json.dumps({"headers": dict(request.headers)}))

    app.router.add_route("/", hello)
    app.router.add_route("/get", hello, "GET")
    app.router.add_route("/slow", slow)
    app.router.add_route("/wait/{name}", wait)
    app.router.add_route("/set/{name}", set_event)
    app.router.add_route("/fat", fat)
    app.router.add_route("/keep/{name}", keep)
    app.router.add_route("/keep_untouched/{name}", keep_untouched)
    app.router.add_route("/keep_in_a_traceback/{name}", keep_in_a_traceback)
    app.router.add_route("/recall/{number}", recall)
    app.router.add_route("/forget", forget)
    app.router.add_route("/calls_then_raises", calls_then_raises)
    app.router.add_route("/calls_then_raises_later", calls_then_raises_later)
    app.router.add_route("/returns_none", returns_none)
    app.router.add_route("/raises_nothing", raises_nothing)
    app.router.add_route("/teapot", teapot)
    app.router.add_route("/wrong_arity", wrong_arity)
    app.router.add_route("/wrong_arity_async", wrong_arity_async)
    app.router.add_route("/host", host)
    app.router.add_route("/many/" + "/".join("{p%d}" % n for n in range(64)), arguments)
    app.router.add_route("/uses_much", uses_much)
    app.add_error_handler(Nothing, handles_with_nothing)
    app.add_error_handler(Teapot, handles_teapot)
    app.add_error_handler(RouteNotFoundException, not_found)
"""


@pytest.mark.parametrize("depth", [11, 24, 100])
def test_pipelined_async_requests_do_not_kill_the_worker(shared: Server, depth: int) -> None:
    with shared.client() as client:
        for _ in range(3):
            client.send(b"".join(get(f"/slow?n={number}") for number in range(depth)))

            assert [client.answer().text for _ in range(depth)] == [str(n) for n in range(depth)]


def test_more_than_ten_async_requests_overlap_without_an_empty_queue(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/slow?n=first") * 2)
        for number in range(50):
            client.send(get(f"/slow?n={number}"))
            client.answer()

        assert [client.answer().text for _ in range(2)] == ["48", "49"]


def test_a_response_head_beyond_a_kilobyte_does_not_crash(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/fat") * 24)

        for _ in range(24):
            answer = client.answer()
            assert answer.field("X-Fat") == "f" * 4000
            assert answer.field("Set-Cookie") == "session=" + "s" * 2000


@pytest.mark.parametrize("body", [None, b"", b"small", b"x" * 200_000])
@pytest.mark.parametrize("how", ["keep", "keep_untouched", "keep_in_a_traceback"])
def test_a_request_that_is_kept_is_not_overwritten(
    shared: Server, how: str, body: bytes | None
) -> None:
    with shared.client() as client:
        number = client.ask(get(f"/{how}/n%61me?a=1", "X-Kept: yes", method="PUT", body=body)).text
        client.send(get("/", "X-Other: " + "o" * 500, method="POST", body=b"other" * 50) * 24)
        for _ in range(24):
            client.answer()
    for _ in range(20):
        shared.ask(get("/slow?n=1", "X-Third: t"))

    seen = json.loads(shared.ask(get(f"/recall/{number}")).body)

    text = None if body is None else body.decode()
    assert seen.pop("headers").items() >= {"X-Kept": "yes", "Host": "a"}.items()
    assert seen == {
        "path": f"/{how}/name",
        "query": {"a": "1"},
        "body": text,
        "method": "PUT",
        "view": text if how == "keep" else None,
        "same": True,
        "keep_alive": True,
        "remote_addr": "127.0.0.1",
        "route": f"/{how}/{{name}}",
        "match_dict": {"name": "name"},
    }


def test_dropping_kept_requests_does_not_crash(shared: Server) -> None:
    with shared.client() as client:
        for _ in range(3):
            client.send(get("/keep/a", method="POST", body=b"b" * 1000) * 50)
            for _ in range(50):
                client.answer()
            assert client.ask(get("/forget")).status == 200
        assert client.ask(get("/")).text == "Hello world!"


def test_the_status_428_is_sent(serve: Serve, reactor: str) -> None:
    server = serve(
        """
        from anel import Application
        app = Application()
        app.router.add_route("/", lambda request: request.Response(text="x", code=428))
        """,
        "--reactor",
        reactor,
    )

    answer = server.ask(get())

    assert (answer.status, answer.reason, answer.text) == (428, "Precondition Required", "x")


def test_a_handler_slower_than_the_idle_timeout_is_not_reaped(serve: Serve, reactor: str) -> None:
    server = serve(
        """
        import asyncio
        from anel import Application
        app = Application(reaper_settings={"idle_timeout": 0.05, "check_interval": 1})

        async def slow(request):
            await asyncio.sleep(0.3)
            return request.Response(text="slow")

        app.router.add_route("/", slow)
        """,
        "--reactor",
        reactor,
    )

    with server.client() as client:
        client.send(get("/") * 2)

        assert client.answer().text == "slow"
        assert client.answer().text == "slow"
        assert client.is_ended()


def test_apachebench_keeps_its_connection(shared: Server) -> None:
    with shared.client() as client:
        for _ in range(3):
            answer = client.ask(get("/", "Connection: Keep-Alive", version="1.0"))

            assert answer.version == "HTTP/1.0"
            assert answer.field("Connection") == "keep-alive"


def test_connection_close_is_understood_in_any_case(shared: Server) -> None:
    with shared.client() as client:
        answer = client.ask(get("/", "Connection: Close"))

        assert answer.field("Connection") == "close"
        assert client.is_ended()


def test_bytes_behind_the_last_request_do_not_destroy_its_answer(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/") + get("/", "Connection: close") + get("/") * 50)

        assert client.answer().text == "Hello world!"
        assert client.answer().text == "Hello world!"
        assert client.is_ended()


@pytest.mark.parametrize("method", ["ET", "T", "G", "GE", "GETGET", "get", "XGET", "GET-GET"])
def test_a_method_that_is_part_of_an_allowed_one_does_not_match(
    shared: Server, method: str
) -> None:
    assert shared.ask(get("/get")).status == 200
    assert shared.ask(get("/get", method=method)).status == 404


def test_more_than_ten_placeholders_do_not_abort(shared: Server) -> None:
    values = [f"v{number}" for number in range(64)]

    answer = shared.ask(get("/many/" + "/".join(values)))

    assert json.loads(answer.body) == {f"p{n}": value for n, value in enumerate(values)}


def test_a_host_without_a_port_has_a_hostname(shared: Server) -> None:
    answer = shared.ask(get("/host", "Host: example.com"))

    assert json.loads(answer.body) == ["example.com", None]


@pytest.mark.parametrize("path", ["/calls_then_raises", "/calls_then_raises_later"])
def test_an_exception_behind_response_is_answered_and_not_masked(shared: Server, path: str) -> None:
    answer = shared.ask(get(path))

    assert (answer.status, answer.text) == (500, "Internal Server Error")
    shared.wait_for_line("ZeroDivisionError: after Response")


def test_an_error_handler_that_returns_none_does_not_recurse(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/raises_nothing") + get("/"))

        assert client.answer().status == 500
        assert client.answer().text == "Hello world!"


def test_a_catch_all_that_returns_none_does_not_recurse(serve: Serve, reactor: str) -> None:
    server = serve(
        """
        from anel import Application
        app = Application()
        app.add_error_handler(None, lambda request, error: None)
        app.router.add_route("/none", lambda request: None)
        """,
        "--reactor",
        reactor,
    )

    assert server.ask(get("/none")).status == 500
    assert server.ask(get("/nowhere")).status == 500


def test_a_handler_that_returns_none_says_so(shared: Server) -> None:
    assert shared.ask(get("/returns_none")).status == 500
    shared.wait_for_line("View did not return Response instance, but None")


@pytest.mark.parametrize("path", ["/wrong_arity", "/wrong_arity_async"])
def test_a_handler_that_takes_no_request_is_a_500(shared: Server, path: str) -> None:
    assert shared.ask(get(path)).status == 500
    shared.wait_for_line("TypeError: .*takes 0 positional arguments")


def test_error_handlers_and_a_custom_404_are_used(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/teapot") + get("/nowhere"))

        teapot, missing = client.answer(), client.answer()
        assert (teapot.status, teapot.text) == (418, "teapot")
        assert (missing.status, missing.text) == (404, "custom 404")


def test_answers_that_are_done_are_sent_before_a_refusal(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/") * 3 + b"NOT HTTP\r\n\r\n")

        assert [client.answer().text for _ in range(3)] == ["Hello world!"] * 3
        refusal = client.answer()
        assert (refusal.status, refusal.field("Connection")) == (400, "close")
        assert client.is_ended()


def test_answers_that_are_awaited_are_sent_before_a_refusal(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/slow?n=1") + get("/") + b"NOT HTTP\r\n\r\n")

        assert [client.answer().text for _ in range(2)] == ["1", "Hello world!"]
        assert client.answer().status == 400
        assert client.is_ended()


def test_answers_before_one_that_waits_are_not_held_back(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/") * 3 + get("/wait/gathered") + get("/"))

        assert [client.answer().text for _ in range(3)] == ["Hello world!"] * 3
        assert client.is_silent()
        shared.ask(get("/set/gathered"))
        assert [client.answer().text for _ in range(2)] == ["waited", "Hello world!"]


def test_a_half_closed_connection_is_answered(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/slow?n=1") + get("/"))
        client.finish()

        assert [client.answer().text for _ in range(2)] == ["1", "Hello world!"]
        assert client.is_ended()


def test_an_expectation_is_answered_before_the_body_comes(shared: Server) -> None:
    with shared.client() as client:
        head, body = b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n", b"body"
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + head)

        assert client.answer(skip_continue=False).status == 100
        client.send(body)
        assert client.answer().text == "Hello world!"


def test_length_and_chunks_at_once_are_refused(shared: Server) -> None:
    fields = ["Content-Length: 5", "Transfer-Encoding: chunked"]
    with shared.client() as client:
        client.send(get("/", *fields, method="POST") + b"0\r\n\r\n" + get("/"))

        assert client.answer().status == 400
        assert client.is_ended()


def test_two_lengths_are_refused(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/", "Content-Length: 5", "Content-Length: 0", method="POST"))

        assert client.answer().status == 400
        assert client.is_ended()


def test_a_slow_reader_does_not_grow_the_server(shared: Server) -> None:
    with shared.client(receive_buffer=4096) as client:
        requests = get("/fat", "X-Large: " + "l" * 4000) * 40
        client.send(requests)
        before = shared.resident_kib()
        taken = 0
        while taken < 400 * len(requests) and select.select([], [client.socket], [], 0.5)[1]:
            taken += client.socket.send(requests)

        assert taken < 400 * len(requests), "16,000 requests were taken, and nothing was read"
        assert shared.ask(get("/")).status == 200
        assert shared.resident_kib() - before < 16 * 1024


@pytest.mark.parametrize("path", ["/uses_much", "/slow?n=1"])
def test_thousands_of_short_connections_do_not_crash(shared: Server, path: str) -> None:
    for _ in range(50):
        clients = [shared.client() for _ in range(40)]
        for client in clients:
            client.send(get(path))
        for number, client in enumerate(clients):
            if number % 4 == 0:
                client.reset()
                continue
            with client:
                assert client.answer().status == 200
