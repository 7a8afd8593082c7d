"""Responses in pieces: their form on the wire, their pace, and their end.

Owns what `Response(stream=...)` promises. Producers count what they made and note how they ended;
`/count` and `/ends` tell, so no test has to guess from the outside.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest
from anel import Response, StreamingResponse
from conftest import Serve, Server, get, wait_until

PROGRAM = """
    import asyncio, collections, contextvars, itertools
    from anel import Application, Response, StreamingResponse

    app = Application()
    counts = collections.Counter()
    ends = collections.defaultdict(list)
    gates = collections.defaultdict(asyncio.Event)

    def route(handler):
        app.router.add_route("/" + handler.__name__, handler)
        return handler

    @route
    def count(request):
        return str(counts[request.query["of"]])

    @route
    def noted(request):
        return ends[request.query["of"]]

    @route
    async def open_gate(request):
        gates[request.query["of"]].set()
        return "open"

    def noting(name, pieces):
        try:
            for piece in pieces:
                counts[name] += 1
                yield piece
        except GeneratorExit:
            ends[name].append("closed")
            raise
        else:
            ends[name].append("complete")

    async def noting_async(name, pieces, pause=None):
        try:
            for piece in pieces:
                counts[name] += 1
                yield piece
                if pause is not None:
                    await pause()
        except GeneratorExit:
            ends[name].append("closed")
            raise
        except asyncio.CancelledError:
            ends[name].append("cancelled")
            raise
        else:
            ends[name].append("complete")

    PIECES = [b"one ", "two \\N{SNOWMAN} ", b"", bytearray(b"three "), memoryview(b"four")]

    @route
    def sync(request):
        return Response(stream=noting("sync", PIECES))

    @route
    async def asynchronous(request):
        return request.Response(stream=noting_async("asynchronous", PIECES))

    @route
    async def late(request):
        await asyncio.sleep(0)
        return request.Response(stream=noting("late", PIECES))

    @route
    async def late_asynchronous(request):
        await asyncio.sleep(0)
        return Response(stream=noting_async("late_asynchronous", PIECES))

    variable = contextvars.ContextVar("variable")

    @route
    def in_context(request):
        variable.set("sync")
        return Response(stream=(variable.get() for _ in range(2)))

    @route
    async def in_context_async(request):
        async def pieces():
            yield variable.get()
        variable.set("async")
        return Response(stream=pieces())

    @route
    def a_list(request):
        return Response(stream=["a", "b"])

    again = Response(stream=["a", "b"])

    @route
    def the_same_list(request):
        return again

    spent = Response(stream=iter(["a", "b"]))

    @route
    def the_same_iterator(request):
        return spent

    @route
    def with_length(request):
        return Response(stream=[b"12345", b"67890"], length=10)

    @route
    def with_header(request):
        return Response(stream=[b"12345"], headers={"Content-Length": "5"})

    @route
    def by_function(request):
        return StreamingResponse(
            ["a,b\\n"], length=4, code=201, mime_type="text/csv", headers={"X-A": "b"})

    @route
    def in_latin_1(request):
        return Response(stream=["\\xe9"], mime_type="text/plain", encoding="latin-1")

    @route
    def no_content(request):
        return Response(stream=noting("no_content", ["x"]), code=204)

    @route
    async def head_async(request):
        return Response(stream=noting_async("head_async", ["x"]))

    @route
    def short(request):
        return Response(stream=[b"123"], length=5)

    @route
    def long(request):
        return Response(stream=noting("long", itertools.repeat(b"123")), length=5)

    @route
    async def long_async(request):
        return Response(stream=noting_async("long_async", itertools.repeat(b"123")), length=5)

    @route
    def fails(request):
        def pieces():
            yield b"before"
            raise ZeroDivisionError("in a stream")
        return Response(stream=pieces())

    @route
    async def fails_async(request):
        async def pieces():
            yield b"before"
            await asyncio.sleep(0)
            raise ZeroDivisionError("in an async stream")
        return Response(stream=pieces())

    @route
    def wrong_piece(request):
        return Response(stream=noting("wrong_piece", [b"before", 7]))

    @route
    async def wrong_piece_async(request):
        return Response(stream=noting_async("wrong_piece_async", [b"before", 7]))

    @route
    def cannot_begin(request):
        class Broken:
            def __iter__(self):
                raise LookupError("cannot begin")
        return Response(stream=Broken())

    @route
    def a_generator(request):
        return noting("a_generator", ["x"])

    @route
    def a_generator_async(request):
        return noting_async("a_generator_async", ["x"])

    def in_pieces(request, exception):
        return Response(stream=["handled: ", str(exception)], code=422)

    class Unprocessable(Exception):
        pass

    app.add_error_handler(Unprocessable, in_pieces)

    @route
    def failing_handler(request):
        raise Unprocessable("in pieces")

    @route
    def endless(request):
        name = request.query["as"]
        return Response(stream=noting(name, itertools.repeat(b"x" * 10_000)))

    @route
    async def endless_async(request):
        name = request.query["as"]
        return Response(stream=noting_async(name, itertools.repeat(b"x" * 10_000)))

    @route
    async def endless_and_kind(request):
        name = request.query["as"]
        pause = lambda: asyncio.sleep(0)
        return Response(stream=noting_async(name, itertools.repeat(b"x" * 10_000), pause))

    @route
    async def waits(request):
        name = request.query["as"]
        return Response(stream=noting_async(name, ["first", "second"], gates[name].wait))

    @route
    def tiny(request):
        return Response(stream=noting("tiny", itertools.repeat("", 100_000)))

    @route
    def plain(request):
        return "plain"

    @route
    async def numbers(request):
        async def pieces():
            for number in range(1000):
                yield f"{number},"
        return Response(stream=pieces())

    @route
    def big(request):
        return Response(stream=(b"%07d\\n" % n * 1000 for n in range(1000)))
"""

WHOLE = "one two \N{SNOWMAN} three four".encode()
KINDS = ["sync", "asynchronous", "late", "late_asynchronous"]


def of(server: Server, name: str) -> int:
    return int(server.ask(get(f"/count?of={name}")).text)


def ends(server: Server, name: str) -> str:
    return server.ask(get(f"/noted?of={name}")).text


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_arrives_chunked_and_the_connection_goes_on(shared: Server, kind: str) -> None:
    with shared.client() as client:
        for _ in range(2):
            answer = client.ask(get(f"/{kind}"))

            assert answer.field("Transfer-Encoding") == "chunked"
            assert answer.field("Content-Type") == "application/octet-stream"
            assert answer.body == WHOLE


def test_each_piece_is_a_chunk_and_an_empty_one_is_none(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/sync"))
        client.head()

        assert [client.chunk() for _ in range(5)] == [
            b"one ",
            "two \N{SNOWMAN} ".encode(),
            b"three ",
            b"four",
            b"",
        ]


@pytest.mark.parametrize(
    ("target", "found"), [("/in_context", "syncsync"), ("/in_context_async", "async")]
)
def test_a_stream_is_made_in_the_context_of_its_handler(
    shared: Server, target: str, found: str
) -> None:
    assert shared.ask(get(target)).text == found


def test_a_list_can_be_sent_again_and_again(shared: Server) -> None:
    for _ in range(3):
        assert shared.ask(get("/the_same_list")).body == b"ab"


def test_an_iterator_that_was_sent_is_an_error_the_second_time(shared: Server) -> None:
    first = shared.ask(get("/the_same_iterator"))
    second = shared.ask(get("/the_same_iterator"))

    assert (first.status, first.body, second.status) == (200, b"ab", 500)
    shared.wait_for_line("the stream of this response was sent already")


def test_a_length_is_sent_instead_of_chunks(shared: Server) -> None:
    with shared.client() as client:
        for _ in range(2):
            answer = client.ask(get("/with_length"))

            assert answer.field("Content-Length") == "10"
            assert answer.field("Transfer-Encoding") is None
            assert answer.body == b"1234567890"


def test_a_content_length_header_is_the_length(shared: Server) -> None:
    answer = shared.ask(get("/with_header"))

    assert (answer.field("Content-Length"), answer.body) == ("5", b"12345")


def test_streaming_response_takes_what_a_response_takes(shared: Server) -> None:
    answer = shared.ask(get("/by_function"))

    assert (answer.status, answer.body) == (201, b"a,b\n")
    assert answer.field("Content-Type") == "text/csv; charset=utf-8"
    assert answer.field("X-A") == "b"


def test_text_is_encoded_as_the_response_says(shared: Server) -> None:
    answer = shared.ask(get("/in_latin_1"))

    assert answer.field("Content-Type") == "text/plain; charset=latin-1"
    assert answer.body == b"\xe9"


def test_a_thousand_pieces_of_an_async_iterator_arrive_in_order(shared: Server) -> None:
    answer = shared.ask(get("/numbers"))

    assert answer.text == "".join(f"{number}," for number in range(1000))


def test_eight_megabytes_arrive_in_order(shared: Server) -> None:
    answer = shared.ask(get("/big"))

    assert answer.body == b"".join(b"%07d\n" % n * 1000 for n in range(1000))


def test_http_10_gets_the_body_and_then_the_end(shared: Server) -> None:
    with shared.client() as client:
        answer = client.ask(get("/sync", "Connection: keep-alive", version="1.0"))

        assert answer.field("Transfer-Encoding") is None
        assert answer.field("Connection") == "close"
        assert answer.body == WHOLE


def test_http_10_stays_when_the_length_is_known(shared: Server) -> None:
    with shared.client() as client:
        for _ in range(2):
            answer = client.ask(get("/with_length", "Connection: keep-alive", version="1.0"))

            assert (answer.field("Connection"), answer.body) == ("keep-alive", b"1234567890")


@pytest.mark.parametrize(("target", "name"), [("/sync", "sync"), ("/head_async", "head_async")])
def test_head_gets_the_head_and_nothing_is_made(shared: Server, target: str, name: str) -> None:
    before = of(shared, name)
    with shared.client() as client:
        answer = client.ask(get(target, method="HEAD"), method="HEAD")

        assert (answer.status, answer.field("Content-Length")) == (200, None)
        assert client.ask(get("/plain")).body == b"plain"
    assert of(shared, name) == before


def test_a_status_without_a_body_makes_nothing(shared: Server) -> None:
    with shared.client() as client:
        assert client.ask(get("/no_content")).status == 204
        assert client.ask(get("/plain")).body == b"plain"
    assert of(shared, "no_content") == 0


def test_what_is_pipelined_behind_a_stream_is_answered_in_order(shared: Server) -> None:
    kinds = ["sync", "plain", "late_asynchronous", "late", "plain", "asynchronous", "plain"]
    with shared.client() as client:
        client.send(b"".join(get(f"/{kind}") for kind in kinds * 3))

        for kind in kinds * 3:
            assert client.answer().body == (b"plain" if kind == "plain" else WHOLE)


def test_a_stream_behind_a_slower_one_is_held_back(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/waits?as=held") + get("/asynchronous") + get("/plain"))
        client.head()
        assert client.chunk() == b"first"
        assert client.is_silent()

        shared.ask(get("/open_gate?of=held"))

        assert client.chunk() == b"second"
        assert client.chunk() == b""
        assert client.answer().body == WHOLE
        assert client.answer().body == b"plain"


def test_a_piece_is_sent_before_the_next_one_is_made(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/waits?as=one_by_one"))
        client.head()

        assert client.chunk() == b"first"
        assert of(shared, "one_by_one") == 1
        shared.ask(get("/open_gate?of=one_by_one"))
        assert client.chunk() == b"second"


@pytest.mark.parametrize("target", ["/short", "/fails", "/fails_async", "/wrong_piece"])
def test_a_stream_that_fails_ends_the_connection_in_its_middle(shared: Server, target: str) -> None:
    with shared.client() as client:
        client.send(get(target) + get("/plain"))
        client.head()

        rest = client.rest()

    assert rest in (b"123", b"6\r\nbefore\r\n")


@pytest.mark.parametrize("target", ["/fails", "/fails_async", "/wrong_piece"])
def test_a_stream_that_fails_ends_in_a_reset_where_nothing_else_tells(
    shared: Server, target: str
) -> None:
    with shared.client() as client:
        client.send(get(target, version="1.0"))
        client.head()

        with pytest.raises(ConnectionResetError):
            client.rest()
        assert client.next_bytes(6) == b"before"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/fails", "ZeroDivisionError: in a stream"),
        ("/fails_async", "ZeroDivisionError: in an async stream"),
        ("/wrong_piece", "TypeError: a stream gives bytes or str, not 7"),
        ("/wrong_piece_async", "TypeError: a stream gives bytes or str, not 7"),
        ("/short", "ValueError: the stream ended after 3 bytes; its length is 5"),
        ("/long", "ValueError: the stream is longer than its length of 5 bytes"),
        ("/long_async", "ValueError: the stream is longer than its length of 5 bytes"),
    ],
)
def test_what_went_wrong_in_a_stream_is_logged(shared: Server, target: str, said: str) -> None:
    shared.lines.clear()
    shared.exchange(get(target))

    shared.wait_for_line(f"exception in a streamed response method=GET path={target}$")
    shared.wait_for_line(re.escape(said) + "$")


@pytest.mark.parametrize("name", ["long", "long_async"])
def test_more_than_the_length_is_never_sent(shared: Server, name: str) -> None:
    with shared.client() as client:
        client.send(get(f"/{name}") + get("/plain"))
        client.head()

        assert client.rest() == b"123"
    wait_until(lambda: '"closed"' in ends(shared, name), "the iterator is closed")


def test_a_stream_that_cannot_begin_is_a_failure_of_its_handler(shared: Server) -> None:
    assert shared.ask(get("/cannot_begin")).status == 500
    shared.wait_for_line("LookupError: cannot begin")


@pytest.mark.parametrize("target", ["/a_generator", "/a_generator_async"])
def test_a_bare_generator_is_refused_with_advice(shared: Server, target: str) -> None:
    assert shared.ask(get(target)).status == 500
    shared.wait_for_line(r"View did not return Response.*returned as anel.StreamingResponse\(")


def test_an_error_handler_may_answer_with_a_stream(shared: Server) -> None:
    answer = shared.ask(get("/failing_handler"))

    assert (answer.status, answer.body) == (422, b"handled: in pieces")


@pytest.mark.parametrize("target", ["endless", "endless_async", "endless_and_kind"])
def test_a_client_that_stops_reading_stops_the_producer(shared: Server, target: str) -> None:
    name = f"stops_{target}"
    with shared.client(receive_buffer=4096) as client:
        client.send(get(f"/{target}?as={name}"))
        client.head()
        # It goes on until the kernel's buffers are full, then rests.
        counts = [-1, 0, of(shared, name)]
        while not counts[-3] == counts[-2] == counts[-1]:
            counts.append(of(shared, name))

        assert 0 < counts[-1] < 1000
        while of(shared, name) == counts[-1]:
            client.next_bytes(100_000)
    wait_until(lambda: ends(shared, name) != "[]", "the producer ends")


@pytest.mark.parametrize("target", ["endless", "endless_async", "endless_and_kind"])
def test_a_client_that_leaves_ends_the_producer(shared: Server, target: str) -> None:
    name = f"leaves_{target}"
    with shared.client() as client:
        client.send(get(f"/{target}?as={name}"))
        client.next_bytes(200_000)
        client.reset()

    wait_until(lambda: ends(shared, name) != "[]", "the producer ends")
    # Cancelled where it awaits, closed where it yields.
    assert ends(shared, name) in ('["closed"]', '["cancelled"]')


def test_an_async_producer_that_waits_is_cancelled_when_its_client_leaves(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/waits?as=cancelled"))
        client.head()
        assert client.chunk() == b"first"
        client.reset()

    wait_until(lambda: ends(shared, "cancelled") == '["cancelled"]', "it is cancelled")


def test_a_stream_of_nothing_does_not_keep_the_others_waiting(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/tiny"))
        client.head()

        assert shared.ask(get("/plain")).body == b"plain"
        assert client.chunk() == b""


def test_a_drain_waits_for_a_stream(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM, "--reactor", reactor)
    with server.client() as client:
        client.send(get("/waits?as=drain"))
        client.head()
        assert client.chunk() == b"first"
        with server.client() as other:
            other.send(get("/open_gate?of=drain"))
            server.process.send_signal(signal.SIGTERM)

            assert client.chunk() == b"second"
            assert client.chunk() == b""
            assert client.is_ended()
    assert server.wait() == 0


@pytest.mark.parametrize("target", ["endless", "waits"])
def test_the_deadline_of_a_drain_ends_streams(serve: Serve, reactor: str, target: str) -> None:
    server = serve(PROGRAM, "--reactor", reactor)
    with server.client(receive_buffer=4096) as client:
        client.send(get(f"/{target}?as=deadline"))
        client.head()

        assert server.stop() == 0


@pytest.mark.parametrize("whole", ["x", b"x", bytearray(b"x"), memoryview(b"x"), {}, 7])
def test_what_is_no_stream_is_refused_where_the_response_is_made(whole: object) -> None:
    with pytest.raises(TypeError, match="stream must be an iterable or async iterable"):
        Response(stream=whole)  # type: ignore[arg-type]


def test_a_stream_is_no_text_too() -> None:
    with pytest.raises(ValueError, match="or a stream, not several"):
        Response(text="x", stream=["x"])


@pytest.mark.parametrize(
    ("length", "error", "said"),
    [
        (-1, ValueError, "length must be 0 to"),
        (2**64, ValueError, "length must be 0 to"),
        (True, TypeError, "length must be int"),
        ("5", TypeError, "length must be int"),
    ],
)
def test_a_length_is_a_number_of_bytes(length: int, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Response(stream=["x"], length=length)


def test_a_length_needs_a_stream() -> None:
    with pytest.raises(ValueError, match="a length only with a stream"):
        Response(text="x", length=1)


def test_a_content_length_that_contradicts_the_length_is_refused() -> None:
    with pytest.raises(ValueError, match="the stream has 5 bytes"):
        Response(stream=["x"], length=5, headers={"Content-Length": "6"})


@pytest.mark.parametrize("value", ["", "+1", "-1", "1.0", "1, 1", "0x1", "1 1", str(2**64)])
def test_a_content_length_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="not a number of bytes"):
        Response(stream=[b"x"], headers={"Content-Length": value})


def test_a_stream_shows_itself() -> None:
    response = StreamingResponse(["x"], code=201)

    assert repr(response) == "<Response 201 stream>"
    assert (response.code, response.body) == (201, None)


def test_a_stream_that_is_never_sent_is_let_go() -> None:
    closed = []

    def pieces() -> Iterator[str]:
        try:
            yield "x"
        finally:
            closed.append(True)

    iterator = pieces()
    next(iterator)
    response = Response(stream=iterator)
    del iterator

    del response

    assert closed == [True]
