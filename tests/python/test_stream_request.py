"""Request bodies in pieces: how they are read, how fast they may come, and how they fail.

Owns `request.stream()`, `read()` and `save()`. A route is streamed because it says so here; what is
detected is the router's matter.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
import random
import signal
import textwrap

import pytest
from conftest import Client, Serve, Server, get, wait_until

PROGRAM = """
    import asyncio, collections, hashlib, os
    from anel import Application, BodyError, Response, StreamingResponse

    app = Application()
    notes = collections.defaultdict(list)
    gates = collections.defaultdict(asyncio.Event)

    def route(handler, stream=True, name=None, **options):
        app.router.add_route(
            "/" + (name or handler.__name__), handler, stream=stream, **options)
        return handler

    @lambda handler: route(handler, stream=False)
    def noted(request):
        return notes[request.query["of"]]

    @lambda handler: route(handler, stream=False)
    def open_gate(request):
        gates[request.query["of"]].set()
        return "open"

    @route
    async def pieces(request):
        return [len(piece) async for piece in request.stream()]

    async def digest(request):
        found = hashlib.sha256()
        size = 0
        async for piece in request.stream():
            found.update(piece)
            size += len(piece)
        return [size, found.hexdigest()]

    route(digest)
    route(digest, stream=False, name="digest_gathered")
    route(digest, name="digest_limited", body_bytes_max=100_000)

    async def read(request):
        body = await request.read()
        again = await request.read()
        return {"body": None if body is None else body.decode(), "same": body is again,
                "text": request.text, "is_body": request.body is body}

    route(read)
    route(read, stream=False, name="read_gathered")

    @route
    async def json(request):
        await request.read()
        return request.json

    async def read_then_stream(request):
        await request.read()
        return [piece.decode() async for piece in request.stream()]

    route(read_then_stream)
    route(read_then_stream, stream=False, name="read_then_stream_gathered")

    @route
    async def second(request):
        async for piece in request.stream():
            break
        errors = []
        for again in (request.read, lambda: request.save("/nowhere"), request.stream().__anext__):
            try:
                await again()
            except RuntimeError as error:
                errors.append(str(error))
        return errors

    @route
    async def unread(request):
        errors = []
        for name in ("body", "text", "json"):
            try:
                getattr(request, name)
            except RuntimeError as error:
                errors.append(str(error))
        return errors

    @route
    async def head_first(request):
        name = request.query["as"]
        notes[name].append([request.method, request.path, request.headers["X-A"]])
        await gates[name].wait()
        return [len(piece) async for piece in request.stream()]

    @route
    async def one_by_one(request):
        name = request.query["as"]
        async for piece in request.stream():
            notes[name].append(piece.decode())
        return "read"

    @route
    async def echo(request):
        return StreamingResponse(request.stream())

    @route
    async def echo_late(request):
        await asyncio.sleep(0)
        return StreamingResponse(request.stream(), length=int(request.headers["Content-Length"]))

    @route
    async def early(request):
        return "early"

    @route
    async def early_late(request):
        await asyncio.sleep(0)
        return "early"

    @route
    async def refuses(request):
        async for piece in request.stream():
            return "enough", 413

    @route
    async def slow(request):
        name = request.query["as"]
        size = 0
        async for piece in request.stream():
            size += len(piece)
            notes[name].append(len(piece))
            await gates[name].wait()
        return str(size)

    @route
    async def save(request):
        return str(await request.save(request.query["to"]))

    route(save, stream=False, name="save_gathered")

    @route
    async def catches(request):
        try:
            await request.read()
        except BodyError as error:
            return f"{error.status} {error.detail} {type(error).__name__}"

    @route
    async def catches_twice(request):
        errors = []
        for _ in range(2):
            try:
                await request.read()
            except BodyError as error:
                errors.append(error.detail)
        return errors

    @route
    async def cancelled(request):
        name = request.query["as"]
        notes[name].append("started")
        try:
            await request.read()
        except asyncio.CancelledError:
            notes[name].append("cancelled")
            raise

    keeper = {}

    @route
    async def leaves_its_reader(request):
        keeper["pieces"] = request.stream()
        return "answered"

    @lambda handler: route(handler, stream=False)
    async def reads_on(request):
        try:
            await anext(keeper["pieces"])
        except RuntimeError as error:
            return str(error)

    @lambda handler: route(handler, stream=False)
    def plain(request):
        return "plain"
"""

GOES_ON = """
    app._cancel_on_disconnect = False

    @route
    async def gone(request):
        try:
            await request.read()
        except BaseException as error:
            notes["gone"].append([type(error).__name__, isinstance(error, ConnectionError)])
            raise
"""


def chunked(*pieces: bytes, target: str) -> bytes:
    head = get(target, "Transfer-Encoding: chunked", method="POST")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def post(target: str, body: bytes) -> bytes:
    return get(target, method="POST", body=body)


def begin(target: str, length: int, *fields: str) -> bytes:
    return get(target, f"Content-Length: {length}", *fields, method="POST")


def noted(server: Server, name: str) -> str:
    return server.ask(get(f"/noted?of={name}")).text


def is_noted(server: Server, name: str, what: str) -> bool:
    return what in noted(server, name)


def sums(body: bytes) -> str:
    return f'[{len(body)},"{hashlib.sha256(body).hexdigest()}"]'


@pytest.mark.parametrize("target", ["/digest", "/digest_gathered"])
def test_every_byte_arrives_once_and_in_order(shared: Server, target: str) -> None:
    body = random.Random(7).randbytes(3_000_000)
    with shared.client() as client:
        assert client.ask(post(target, body)).text == sums(body)

        assert client.ask(get("/plain")).text == "plain"


@pytest.mark.parametrize("target", ["/digest", "/digest_gathered"])
def test_a_chunked_body_is_read_like_any_other(shared: Server, target: str) -> None:
    source = random.Random(8)
    pieces = [source.randbytes(source.randint(1, 9000)) for _ in range(200)]
    with shared.client() as client:
        answer = client.ask(chunked(*pieces, target=target))

        assert answer.text == sums(b"".join(pieces))
        assert client.ask(get("/plain")).text == "plain"


@pytest.mark.parametrize(
    ("target", "body", "found"),
    [
        ("/pieces", b"12345", [5]),
        ("/pieces", b"", []),
        ("/pieces", None, []),
        ("/digest_gathered", None, [0, hashlib.sha256().hexdigest()]),
    ],
)
def test_a_short_body_is_one_piece_and_none_is_none(
    shared: Server, target: str, body: bytes | None, found: list[object]
) -> None:
    assert json.loads(shared.ask(get(target, method="POST", body=body)).text) == found


@pytest.mark.parametrize("target", ["/read", "/read_gathered"])
def test_read_gives_the_whole_body_again_and_again(shared: Server, target: str) -> None:
    answer = shared.ask(post(target, b"the body"))

    assert json.loads(answer.text) == {
        "body": "the body",
        "same": True,
        "text": "the body",
        "is_body": True,
    }


@pytest.mark.parametrize("target", ["/read", "/read_gathered"])
def test_read_gives_none_when_there_is_no_body(shared: Server, target: str) -> None:
    assert json.loads(shared.ask(get(target)).text)["body"] is None


def test_json_works_after_read(shared: Server) -> None:
    assert json.loads(shared.ask(post("/json", b'{"a": [1]}')).text) == {"a": [1]}


@pytest.mark.parametrize("target", ["/read_then_stream", "/read_then_stream_gathered"])
def test_what_was_read_can_still_be_streamed(shared: Server, target: str) -> None:
    assert shared.ask(post(target, b"the body")).text == '["the body"]'


def test_what_was_streamed_cannot_be_read_again(shared: Server) -> None:
    errors = json.loads(shared.ask(post("/second", b"the body")).text)

    said = "the body of this request was streamed already; it can be read once"
    assert errors == [said] * 3


def test_an_unread_body_says_how_to_get_it(shared: Server) -> None:
    errors = json.loads(shared.ask(post("/unread", b"the body")).text)

    said = (
        "the body of this request is streamed: use `await request.read()` or "
        "`request.stream()`, or register the route with stream=False"
    )
    assert errors == [said] * 3


def test_the_handler_runs_when_only_the_head_is_there(shared: Server) -> None:
    with shared.client() as client:
        client.send(begin("/head_first?as=head", 5, "X-A: b"))
        wait_until(lambda: noted(shared, "head") == '[["POST","/head_first","b"]]')
        shared.ask(get("/open_gate?of=head"))

        assert json.loads(client.ask(b"12345").text) == [5]


def test_pieces_arrive_as_they_are_sent(shared: Server) -> None:
    with shared.client() as client:
        client.send(begin("/one_by_one?as=pieces", 6))
        for piece, known in [(b"ab", "ab"), (b"cd", "cd"), (b"ef", "ef")]:
            client.send(piece)
            wait_until(functools.partial(is_noted, shared, "pieces", known))

        assert client.answer().text == "read"
    assert noted(shared, "pieces") == '["ab","cd","ef"]'


def test_what_waits_for_the_handler_is_one_piece(shared: Server) -> None:
    with shared.client() as client:
        client.send(begin("/head_first?as=joined", 50_000, "X-A: b") + b"x" * 50_000)
        wait_until(lambda: noted(shared, "joined") != "[]")
        shared.ask(get("/open_gate?of=joined"))

        pieces = json.loads(client.answer().text)

    assert sum(pieces) == 50_000
    assert len(pieces) <= 8


@pytest.mark.parametrize("target", ["/echo", "/echo_late"])
def test_a_body_can_be_answered_while_it_arrives(shared: Server, target: str) -> None:
    body = random.Random(9).randbytes(2_000_000)
    with shared.client() as client:
        client.send(begin(target, len(body)) + body[:1000])
        head = client.head()
        received = b""
        if b"chunked" in head:
            while len(received) < 1000:
                received += client.chunk()
            # The rest is read and sent in small steps: both sides would block otherwise.
            for at in range(1000, len(body), 50_000):
                part = body[at : at + 50_000]
                client.send(part)
                while len(received) < at + len(part):
                    received += client.chunk()
            assert client.chunk() == b""
        else:
            received = client.next_bytes(1000)
            for at in range(1000, len(body), 50_000):
                part = body[at : at + 50_000]
                client.send(part)
                received += client.next_bytes(len(part))

        assert received == body
        assert client.ask(get("/plain")).text == "plain"


@pytest.mark.parametrize("target", ["/early", "/early_late"])
def test_an_answer_may_come_before_the_body(shared: Server, target: str) -> None:
    with shared.client() as client:
        client.send(begin(target, 10_000_000))

        answer = client.answer()

        assert (answer.text, answer.field("Connection")) == ("early", "close")


def test_a_small_body_that_nobody_read_does_not_cost_the_connection(shared: Server) -> None:
    with shared.client() as client:
        for _ in range(3):
            assert client.ask(post("/early", b"x" * 100)).text == "early"


def test_a_handler_may_stop_reading_in_the_middle(shared: Server) -> None:
    with shared.client() as client:
        client.send(begin("/refuses", 100_000_000) + b"x" * 100_000)

        assert client.answer().status == 413


def test_continue_is_sent_when_the_body_is_asked_for(shared: Server) -> None:
    with shared.client() as client:
        client.send(begin("/digest", 5, "Expect: 100-continue"))
        assert client.answer(skip_continue=False).status == 100

        assert client.ask(b"12345").text == sums(b"12345")


def test_continue_is_not_sent_for_a_body_that_nobody_wants(shared: Server) -> None:
    with shared.client() as client:
        client.send(begin("/early", 5, "Expect: 100-continue"))

        assert client.answer(skip_continue=False).text == "early"


def test_requests_behind_a_streamed_body_are_answered_in_order(shared: Server) -> None:
    bodies = [b"x" * size for size in (1, 70_000, 0, 300_000)]
    with shared.client() as client:
        client.send(b"".join(post("/digest", body) + get("/plain") for body in bodies))

        for body in bodies:
            assert client.answer().text == sums(body)
            assert client.answer().text == "plain"


def test_a_client_sends_no_faster_than_the_handler_reads(shared: Server) -> None:
    body = b"x" * 64_000_000
    with shared.client() as client:
        client.send(begin("/slow?as=slow", len(body)))
        client.socket.setblocking(False)
        sent = send_until_blocked(client, body)
        wait_until(lambda: noted(shared, "slow") != "[]")
        sent += send_until_blocked(client, body[sent:])
        assert sent < len(body)

        shared.ask(get("/open_gate?of=slow"))
        client.socket.settimeout(20)
        client.send(body[sent:])

        assert client.answer().text == str(len(body))


def send_until_blocked(client: Client, body: bytes) -> int:
    """Sends until the kernel takes no more for a while of polls that the server answers."""
    sent = 0
    refused = 0
    while refused < 50 and sent < len(body):
        try:
            sent += client.socket.send(body[sent : sent + 1_000_000])
            refused = 0
        except BlockingIOError:
            refused += 1
            with Client(client.socket.getpeername()[1]) as other:
                other.ask(get("/plain"))
    return sent


@pytest.mark.parametrize("target", ["/save", "/save_gathered"])
def test_save_writes_the_body_to_a_file(
    shared: Server, target: str, tmp_path: pathlib.Path
) -> None:
    body = random.Random(10).randbytes(1_000_000)
    path = tmp_path / "upload"
    path.write_bytes(b"what was there before")

    answer = shared.ask(post(f"{target}?to={path}", body))

    assert answer.text == str(len(body))
    assert path.read_bytes() == body
    assert list(tmp_path.iterdir()) == [path]


def test_save_obeys_the_umask(shared: Server, tmp_path: pathlib.Path) -> None:
    (tmp_path / "usual").write_bytes(b"")

    shared.ask(post(f"/save?to={tmp_path / 'upload'}", b"x"))

    assert (tmp_path / "upload").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_save_into_a_folder_that_is_missing_is_the_handlers_error(
    shared: Server, tmp_path: pathlib.Path
) -> None:
    assert shared.ask(post(f"/save?to={tmp_path}/missing/upload", b"x")).status == 500
    shared.wait_for_line("FileNotFoundError")
    assert "During handling" not in "\n".join(shared.lines)


def test_save_takes_every_name_that_the_file_system_takes(
    shared: Server, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / ("n" * 255)

    assert shared.ask(post(f"/save?to={path}", b"x")).text == "1"
    assert list(tmp_path.iterdir()) == [path]


def test_save_in_place_of_a_folder_leaves_nothing_behind(
    shared: Server, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "folder").mkdir()

    assert shared.ask(post(f"/save?to={tmp_path}/folder", b"x")).status == 500
    shared.wait_for_line("IsADirectoryError")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_save_to_a_disk_that_is_full_leaves_nothing_behind(
    serve: Serve, reactor: str, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    # No file may be larger: the closest that a test can come to a full disk.
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    server = serve(limited + textwrap.dedent(PROGRAM), "--reactor", reactor)

    with server.client() as client:
        client.send(post(f"/save?to={folder}/upload", b"x" * 200_000))
        assert client.answer().status == 500
    server.wait_for_line(r"OSError: \[Errno 27\] File too large")
    assert list(folder.iterdir()) == []
    assert server.ask(post(f"/save?to={folder}/upload", b"x")).text == "1"


def test_an_upload_that_fails_leaves_nothing_behind(shared: Server, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(b"what was there before")
    with shared.client() as client:
        client.send(begin(f"/save?to={path}", 1_000_000) + b"x" * 100_000)
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, "the upload begins")
        client.finish()

        answer = client.answer()

    assert (answer.status, answer.text) == (400, "incomplete_body")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"what was there before"


def test_an_upload_whose_client_leaves_leaves_nothing_behind(
    shared: Server, tmp_path: pathlib.Path
) -> None:
    with shared.client() as client:
        client.send(begin(f"/save?to={tmp_path}/upload", 1_000_000) + b"x" * 100_000)
        wait_until(lambda: list(tmp_path.iterdir()) != [], "the upload begins")
        client.reset()

    wait_until(lambda: list(tmp_path.iterdir()) == [], "it is removed")


def test_64_megabytes_are_saved_in_8_mebibytes(
    serve: Serve, reactor: str, tmp_path: pathlib.Path
) -> None:
    server = serve(PROGRAM, "--reactor", reactor)
    path = tmp_path / "upload"
    part = random.Random(11).randbytes(1_000_000)
    assert server.ask(post(f"/save?to={path}", part)).status == 200
    before = server.peak_kib()
    with server.client() as client:
        client.send(begin(f"/save?to={path}", 64 * len(part)))
        for _ in range(64):
            client.send(part)

        assert client.answer().text == str(64 * len(part))

    assert server.peak_kib() - before < 8 * 1024
    assert path.read_bytes() == part * 64


@pytest.mark.parametrize(
    ("sent", "status", "token"),
    [
        (b"5\r\n12345\r\nnot a size\r\n", 400, "malformed_body"),
        (b"5\r\n12345\r\n7\r\n12", 400, "incomplete_body"),
    ],
)
@pytest.mark.parametrize("target", ["/digest", "/catches"])
def test_a_body_that_breaks_the_rules_is_a_body_error(
    shared: Server, target: str, sent: bytes, status: int, token: str
) -> None:
    with shared.client() as client:
        client.send(get(target, "Transfer-Encoding: chunked", method="POST") + sent)
        client.finish()

        answer = client.answer()

        if target == "/catches":
            assert (answer.status, answer.text) == (200, f"{status} {token} BodyError")
        else:
            assert (answer.status, answer.text) == (status, token)
        assert client.is_ended()


def test_a_body_error_is_raised_again(shared: Server) -> None:
    with shared.client() as client:
        client.send(begin("/catches_twice", 5) + b"12")
        client.finish()

        assert client.answer().text == '["incomplete_body","incomplete_body"]'


def test_a_body_beyond_the_routes_limit_is_413(shared: Server) -> None:
    with shared.client() as client:
        client.send(chunked(b"x" * 60_000, b"x" * 60_000, target="/digest_limited"))

        answer = client.answer()

    assert (answer.status, answer.text) == (413, "body_too_large")


def test_a_body_within_the_routes_limit_is_read(shared: Server) -> None:
    body = b"x" * 100_000

    assert shared.ask(post("/digest_limited", body)).text == sums(body)


def test_a_body_that_stops_arriving_is_408(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM + "    app._limits = {'body_timeout_ms': 200}\n", "--reactor", reactor)
    with server.client() as client:
        client.send(begin("/digest", 5) + b"12")

        answer = client.answer()

        assert (answer.status, answer.text) == (408, "body_timeout")
        assert client.is_ended()


def test_a_client_that_leaves_cancels_the_reader(shared: Server) -> None:
    with shared.client() as client:
        client.send(begin("/cancelled?as=left", 5) + b"12")
        wait_until(lambda: noted(shared, "left") == '["started"]')
        client.reset()

    wait_until(lambda: noted(shared, "left") == '["started","cancelled"]')


def test_a_reader_that_goes_on_without_its_client_is_told(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM + GOES_ON, "--reactor", reactor)
    with server.client() as client:
        client.send(begin("/gone", 5) + b"12")
        client.reset()

    wait_until(lambda: noted(server, "gone") == '[["ClientDisconnected",true]]')
    assert server.stop() == 0
    assert "exception" not in "\n".join(server.lines)


def test_an_echo_of_half_a_body_ends_with_the_connection(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM, "--reactor", reactor)
    with server.client() as client:
        client.send(begin("/echo", 5) + b"12")
        client.head()
        client.finish()

        assert not client.rest().endswith(b"0\r\n\r\n")
    assert server.stop() == 0
    assert "exception" not in "\n".join(server.lines)


def test_a_reader_that_outlives_its_request_is_told(shared: Server) -> None:
    shared.ask(post("/leaves_its_reader", b"12345"))

    answer = shared.ask(get("/reads_on"))

    assert answer.text == "the request was answered before its body was read"


def test_a_drain_waits_for_a_body(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM, "--reactor", reactor)
    with server.client() as client:
        client.send(begin("/one_by_one?as=drain", 4) + b"ab")
        wait_until(lambda: noted(server, "drain") == '["ab"]')
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_line("1 connections busy")

        answer = client.ask(b"cd")

        assert (answer.text, answer.field("Connection")) == ("read", "close")
    assert server.wait() == 0
