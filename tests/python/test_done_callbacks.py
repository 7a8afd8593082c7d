"""Done callbacks and disconnects: how a request ends, and who hears of it.

Owns `add_done_callback`, `disconnect_reason`, `is_disconnected` and `cancel_on_disconnect`. The
program notes what happens under the name that the client gave; `/noted` tells it.
"""

from __future__ import annotations

import json
import signal

import pytest
from conftest import Serve, Server, get, wait_until

PROGRAM = """
    import asyncio, collections, contextlib
    from anel import Application, Response

    app = Application()
    notes = collections.defaultdict(list)
    gates = collections.defaultdict(asyncio.Event)
    kept = {}

    def route(handler):
        app.router.add_route("/" + handler.__name__, handler)
        return handler

    @route
    def noted(request):
        return notes[request.query["of"]]

    @route
    async def open_gate(request):
        gates[request.query["of"]].set()
        return "open"

    def watch(request, *names):
        name = request.query["as"]
        for number in names or (1,):
            request.add_done_callback(
                lambda r, number=number: notes[name].append([number, r.path, r.disconnect_reason]))
        return name

    @route
    def sync(request):
        watch(request, 1, 2, 3)
        return request.Response(text="done")

    @route
    async def await_free(request):
        watch(request, 1, 2)
        return "done"

    @route
    async def awaits(request):
        name = watch(request, 1, 2)
        await asyncio.sleep(0)
        notes[name].append("handler")
        return "done"

    @route
    def streams(request):
        name = watch(request)
        def pieces():
            yield "first"
            notes[name].append("streamed")
        return Response(stream=pieces())

    @route
    async def streams_late(request):
        name = watch(request)
        async def pieces():
            yield "first"
            await gates[name].wait()
            notes[name].append("streamed")
        await asyncio.sleep(0)
        return Response(stream=pieces())

    @route
    def fails(request):
        watch(request)
        raise ValueError("the handler fails")

    @route
    async def fails_late(request):
        watch(request)
        await asyncio.sleep(0)
        raise ValueError("the handler fails late")

    @route
    def bad_callback(request):
        def bad(request):
            raise LookupError("in the callback")
        request.add_done_callback(bad)
        watch(request)
        return "answered"

    @route
    def not_callable(request):
        try:
            request.add_done_callback(7)
        except TypeError as error:
            return str(error)

    @route
    def async_callback(request):
        async def callback(request):
            pass
        try:
            request.add_done_callback(callback)
        except TypeError as error:
            return str(error)

    @route
    def keeps(request):
        kept["request"] = request
        return "kept"

    @route
    def too_late(request):
        try:
            kept["request"].add_done_callback(print)
        except RuntimeError as error:
            return str(error)

    @route
    def within(request):
        def callback(request):
            try:
                request.add_done_callback(print)
            except RuntimeError as error:
                notes["within"].append(str(error))
        request.add_done_callback(callback)
        return "done"

    @route
    async def waits(request):
        name = watch(request)
        kept[name] = request
        notes[name].append("started")
        try:
            await gates[name].wait()
        except asyncio.CancelledError:
            notes[name].append("cancelled")
            raise
        finally:
            notes[name].append(["finally", request.is_disconnected(), request.disconnect_reason])
        return "through"

    @route
    async def ignores_cancellation(request):
        name = watch(request)
        notes[name].append("started")
        with contextlib.suppress(asyncio.CancelledError):
            await gates[name].wait()
        return "dropped"

    @route
    async def fails_in_cleanup(request):
        name = watch(request)
        notes[name].append("started")
        try:
            await gates[name].wait()
        finally:
            raise LookupError("in the cleanup")

    @route
    def reason_of(request):
        r = kept[request.query["of"]]
        return [r.is_disconnected(), r.disconnect_reason]

    @route
    def in_order(request):
        name = request.query["as"]
        request.add_done_callback(lambda r: notes["order"].append(name))
        return name

    @route
    async def in_order_late(request):
        name = request.query["as"]
        request.add_done_callback(lambda r: notes["order"].append(name))
        await asyncio.sleep(0)
        return name

    @route
    def dropped(request):
        return str(app.counters()["answers_dropped_total"])
"""

GOES_ON = """
    app._cancel_on_disconnect = False
"""


def noted(server: Server, name: str) -> str:
    return json.dumps(json.loads(server.ask(get(f"/noted?of={name}")).text))


@pytest.mark.parametrize(
    ("target", "notes"),
    [
        ("sync", '[[1, "/sync", null], [2, "/sync", null], [3, "/sync", null]]'),
        ("await_free", '[[1, "/await_free", null], [2, "/await_free", null]]'),
        ("awaits", '["handler", [1, "/awaits", null], [2, "/awaits", null]]'),
        ("streams", '["streamed", [1, "/streams", null]]'),
        ("fails", '[[1, "/fails", null]]'),
        ("fails_late", '[[1, "/fails_late", null]]'),
    ],
)
def test_callbacks_run_once_and_in_order(shared: Server, target: str, notes: str) -> None:
    name = f"once_{target}"

    shared.ask(get(f"/{target}?as={name}"))

    assert noted(shared, name) == notes


def test_the_callbacks_of_a_stream_wait_for_its_end(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/streams_late?as=end"))
        client.head()
        assert client.chunk() == b"first"
        assert noted(shared, "end") == "[]"

        shared.ask(get("/open_gate?of=end"))

        assert client.chunk() == b""
    assert noted(shared, "end") == '["streamed", [1, "/streams_late", null]]'


def test_head_runs_the_callbacks_of_a_stream_that_is_not_sent(shared: Server) -> None:
    shared.ask(get("/streams?as=head", method="HEAD"), method="HEAD")

    assert noted(shared, "head") == '[[1, "/streams", null]]'


def test_a_callback_that_fails_is_logged_and_harms_nobody(shared: Server) -> None:
    answer = shared.ask(get("/bad_callback?as=bad"))

    assert answer.text == "answered"
    assert noted(shared, "bad") == '[[1, "/bad_callback", null]]'
    shared.wait_for_line("exception in a done callback method=GET path=/bad_callback")
    shared.wait_for_line("LookupError: in the callback")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/not_callable", "a done callback must be callable, not 7"),
        ("/async_callback", "a done callback must not be async: <function"),
    ],
)
def test_what_cannot_be_called_back_is_a_type_error(shared: Server, target: str, said: str) -> None:
    assert shared.ask(get(target)).text.startswith(said)


def test_a_request_that_is_over_takes_no_callback(shared: Server) -> None:
    shared.ask(get("/keeps"))

    answer = shared.ask(get("/too_late"))

    assert answer.text == "add_done_callback() came too late: the exchange is over"


def test_a_callback_cannot_add_another(shared: Server) -> None:
    shared.ask(get("/within"))

    assert noted(shared, "within") == (
        '["add_done_callback() came too late: the exchange is over"]'
    )


def test_pipelined_requests_call_back_each_for_itself(shared: Server) -> None:
    targets = [f"/in_order?as={n}" if n % 3 else f"/in_order_late?as={n}" for n in range(12)]
    with shared.client() as client:
        client.send(b"".join(get(target) for target in targets))

        assert [client.answer().text for _ in targets] == [str(n) for n in range(12)]

    called = noted(shared, "order")
    assert sorted(called.strip("[]").split(", ")) == sorted(f'"{n}"' for n in range(12))


def test_a_client_that_leaves_cancels_the_handler_and_then_calls_back(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/waits?as=leaves"))
        wait_until(lambda: "started" in noted(shared, "leaves"))
        client.reset()

    wait_until(lambda: noted(shared, "leaves").count("peer_reset") == 2)
    assert noted(shared, "leaves") == (
        '["started", "cancelled", ["finally", true, "peer_reset"], [1, "/waits", "peer_reset"]]'
    )


def test_the_reason_is_known_afterwards(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/waits?as=afterwards"))
        wait_until(lambda: "started" in noted(shared, "afterwards"))
        client.reset()
    wait_until(lambda: "/waits" in noted(shared, "afterwards"))

    assert shared.ask(get("/reason_of?of=afterwards")).text == '[true,"peer_reset"]'


def test_an_answered_request_has_no_reason(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/waits?as=answered"))
        wait_until(lambda: "started" in noted(shared, "answered"))
        shared.ask(get("/open_gate?of=answered"))
        assert client.answer().text == "through"

    assert shared.ask(get("/reason_of?of=answered")).text == "[false,null]"


def test_a_stream_whose_client_leaves_calls_back_with_the_reason(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/streams_late?as=stream_leaves"))
        client.head()
        assert client.chunk() == b"first"
        client.reset()

    wait_until(lambda: noted(shared, "stream_leaves") != "[]")
    assert noted(shared, "stream_leaves") == '[[1, "/streams_late", "peer_reset"]]'


def test_what_a_cancelled_handler_raises_is_logged(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/fails_in_cleanup?as=cleanup"))
        wait_until(lambda: "started" in noted(shared, "cleanup"))
        client.reset()

    shared.wait_for_line("LookupError: in the cleanup")
    wait_until(lambda: "/fails_in_cleanup" in noted(shared, "cleanup"))


def test_the_answer_to_a_client_that_is_gone_is_counted_as_dropped(shared: Server) -> None:
    before = int(shared.ask(get("/dropped")).text)
    with shared.client() as client:
        client.send(get("/ignores_cancellation?as=ignores"))
        wait_until(lambda: "started" in noted(shared, "ignores"))
        client.reset()

    wait_until(lambda: "/ignores_cancellation" in noted(shared, "ignores"))
    assert int(shared.ask(get("/dropped")).text) == before + 1


def test_a_handler_may_go_on_without_its_client(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM + GOES_ON, "--reactor", reactor)
    before = int(server.ask(get("/dropped")).text)
    with server.client() as client:
        client.send(get("/waits?as=goes_on"))
        wait_until(lambda: "started" in noted(server, "goes_on"))
        client.reset()
    wait_until(lambda: server.ask(get("/reason_of?of=goes_on")).text == '[true,"peer_reset"]')
    assert noted(server, "goes_on") == '["started"]'

    server.ask(get("/open_gate?of=goes_on"))

    wait_until(lambda: "/waits" in noted(server, "goes_on"))
    assert noted(server, "goes_on") == (
        '["started", ["finally", true, "peer_reset"], [1, "/waits", "peer_reset"]]'
    )
    assert int(server.ask(get("/dropped")).text) == before + 1


def test_the_end_of_the_server_calls_back(serve: Serve, reactor: str) -> None:
    program = (
        PROGRAM
        + """
    @route
    async def tells(request):
        request.add_done_callback(lambda r: print("told", r.disconnect_reason, flush=True))
        print("started", flush=True)
        await asyncio.sleep(3600)
    """
    )
    server = serve(program, "--reactor", reactor)
    with server.client() as client:
        client.send(get("/tells"))
        server.wait_for_line("started")

        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGINT)

        server.wait_for_line("told")
        server.wait()
