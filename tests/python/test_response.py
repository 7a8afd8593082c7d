"""What a handler makes and what is sent: the arguments of `Response`, and plain returns.

Owns the writing side of the API, headers and cookies aside (`test_headers.py`). A program returns
what an expression says, so each test shows the call and the bytes that follow from it.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from conftest import Answer, Client, Server, get
from hypothesis import given, settings
from hypothesis import strategies as st

PROGRAM = """
    import asyncio, json, sys
    from anel import Application, HTTPException, Response

    class Text(str): pass
    class Octets(bytes): pass
    class Code(int): pass

    app = Application()
    OK = Response(text="kept")

    def make(request):
        return eval(request.text, {**globals(), "request": request})

    async def make_later(request):
        await asyncio.sleep(0)
        return make(request)

    async def make_await_free(request):
        return make(request)

    def why(request):
        try:
            make(request)
        except Exception as error:
            return Response(text=f"{type(error).__name__}: {error}")
        return "made"

    def then(request):
        why(request)
        return request.Response(text="then")

    def status(request):
        return request.Response(text="body", code=int(request.match_dict["code"]))

    def hello(request):
        return request.Response(text="Hello world!")

    def large(request):
        return request.Response(body=bytes(range(256)) * 4096 * 4)

    app.router.add_route("/make", make)
    app.router.add_route("/later", make_later)
    app.router.add_route("/await_free", make_await_free)
    app.router.add_route("/why", why)
    app.router.add_route("/then", then)
    app.router.add_route("/status/{code}", status)
    app.router.add_route("/hello", hello)
    app.router.add_route("/large", large)
"""

DATE = re.compile(rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n")


def make(shared: Server, expression: str, *, method: str = "POST", path: str = "/make") -> Answer:
    return shared.ask(get(path, method=method, body=expression.encode()), method)


def why(shared: Server, expression: str) -> str:
    """What the call raises."""
    return make(shared, expression, path="/why").text


def test_hello_is_these_bytes_and_a_date(shared: Server) -> None:
    raw = shared.exchange(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")

    assert len(DATE.findall(raw)) == 1
    assert DATE.sub(b"", raw) == (
        b"HTTP/1.1 200 OK\r\n"
        b"Content-Length: 12\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"\r\n"
        b"Hello world!"
    )


def test_the_date_is_now(shared: Server) -> None:
    before = int(time.time())
    date = shared.ask(get("/hello")).field("Date")
    after = int(time.time())

    expected = [
        time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))
        for second in range(before - 1, after + 1)
    ]
    assert date in expected


@pytest.mark.parametrize("path", ["/make", "/later", "/await_free"])
@pytest.mark.parametrize(
    ("expression", "content_type", "body"),
    [
        ("request.Response()", None, b""),
        ("request.Response('')", "text/plain; charset=utf-8", b""),
        ("request.Response(text='ą')", "text/plain; charset=utf-8", "ą".encode()),
        ("request.Response('x', None, None, None, 'text/html')", "text/html; charset=utf-8", b"x"),
        ("request.Response(body=b'\\0')", "application/octet-stream", b"\0"),
        ("request.Response(body=bytearray(b'a'))", "application/octet-stream", b"a"),
        ("request.Response(body=memoryview(b'abc')[::2])", "application/octet-stream", b"ac"),
        ("request.Response(json={'a': [1, None, 'ą']})", "application/json; charset=utf-8", None),
        ("request.Response(json=0)", "application/json; charset=utf-8", b"0"),
        ("request.Response(json='')", "application/json; charset=utf-8", b'""'),
        ("request.Response(text='ą', encoding='iso-8859-2')", None, b"\xb1"),
        ("request.Response(text='<svg/>', mime_type='image/svg+xml')", "image/svg+xml", b"<svg/>"),
        ("request.Response(json=1, mime_type='text/x')", "text/x; charset=utf-8", b"1"),
        ("request.Response(json=1, mime_type='a/json')", "a/json; charset=utf-8", b"1"),
        ("request.Response(body=b'a', mime_type='image/png')", "image/png", b"a"),
        ("request.Response(text=Text('sub'))", "text/plain; charset=utf-8", b"sub"),
        ("request.Response(body=Octets(b'sub'))", "application/octet-stream", b"sub"),
        ("request.Response(json=request.headers['Host'])", None, b'"a"'),
        ("Response('free')", "text/plain; charset=utf-8", b"free"),
        ("OK", "text/plain; charset=utf-8", b"kept"),
        ("'text ą'", "text/plain; charset=utf-8", "text ą".encode()),
        ("Text('sub')", "text/plain; charset=utf-8", b"sub"),
        ("b'bytes'", "application/octet-stream", b"bytes"),
        ("bytearray(b'bytes')", "application/octet-stream", b"bytes"),
        ("{}", "application/json; charset=utf-8", b"{}"),
        ("[1, 2]", "application/json; charset=utf-8", b"[1,2]"),
    ],
)
def test_each_kind_of_body_has_its_type(
    shared: Server, path: str, expression: str, content_type: str | None, body: bytes | None
) -> None:
    answer = make(shared, expression, path=path)

    assert answer.status == 200
    if body is not None:
        assert answer.body == body
    if content_type is not None:
        assert answer.field("Content-Type") == content_type
    if expression == "request.Response()":
        assert answer.field("Content-Type") is None
        assert answer.field("Content-Length") == "0"


def test_an_encoding_is_said_in_content_type(shared: Server) -> None:
    text = make(shared, "request.Response(text='ą', encoding='iso-8859-2')")
    octets = make(shared, "request.Response(body=b'a', mime_type='a/b', encoding='x')")

    assert text.field("Content-Type") == "text/plain; charset=iso-8859-2"
    assert octets.field("Content-Type") == "a/b; charset=x"


def test_json_is_what_json_dumps_makes_of_it(shared: Server) -> None:
    answer = make(shared, "request.Response(json={'a': [1, 2.5, None, True, 'ą']})")

    value = {"a": [1, 2.5, None, True, "ą"]}
    assert answer.body == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("expression", "status", "body"),
    [
        ("('made', 201)", 201, b"made"),
        ("(b'made', 202)", 202, b"made"),
        ("({'a': 1}, 203)", 203, b'{"a":1}'),
        ("([], 404)", 404, b"[]"),
        ("request.Response('x', 418)", 418, b"x"),
        ("request.Response('x', code=599)", 599, b"x"),
        ("request.Response('x', status=404)", 404, b"x"),
        ("request.Response('x', status_code=404)", 404, b"x"),
        ("Response('x', status=404)", 404, b"x"),
        ("Response('x', status_code=404)", 404, b"x"),
        ("request.Response('x', code=Code(404))", 404, b"x"),
        ("request.Response(None, None, None, None, None, None, None, None)", 200, b""),
        ("request.Response(None, 404, b'octets')", 404, b"octets"),
        ("request.Response(None, None, None, [1])", 200, b"[1]"),
        ("request.Response('ą', None, None, None, None, 'utf-16-le')", 200, b"\x05\x01"),
    ],
)
def test_status_and_positional_order(
    shared: Server, expression: str, status: int, body: bytes
) -> None:
    answer = make(shared, expression)

    assert (answer.status, answer.body) == (status, body)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("codes", [range(begin, begin + 100) for begin in range(200, 600, 100)])
def test_every_status_is_sent(shared: Server, codes: range, version: str) -> None:
    field = "Connection: keep-alive"
    with shared.client() as client:
        for code in codes:
            client.send(get(f"/status/{code}", field, version=version))
            answer = client.answer()

            assert (answer.status, answer.version) == (code, f"HTTP/{version}")
            has_body = code not in (204, 205, 304)
            assert answer.body == (b"body" if has_body else b"")
            if code == 204:
                assert answer.field("Content-Length") is None
        assert client.ask(get("/hello")).text == "Hello world!"


@pytest.mark.parametrize(
    "code", ["99", "100", "101", "103", "199", "600", "0", "-1", "1000", "65736", "2**70", "True"]
)
def test_a_code_outside_of_200_to_599_is_refused(shared: Server, code: str) -> None:
    for response in ("Response", "request.Response"):
        raised = why(shared, f"{response}('x', code={code})")

        assert raised == f"ValueError: code must be 200 to 599, not {eval(code)!r}"


def test_a_response_to_head_describes_a_body_that_it_does_not_carry(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/hello", method="HEAD") + get("/hello"))

        head = client.answer("HEAD")
        assert head.field("Content-Length") == "12"
        assert head.field("Content-Type") == "text/plain; charset=utf-8"
        assert client.answer().text == "Hello world!"


@pytest.mark.parametrize(
    ("arguments", "raised"),
    [
        ("text=7", "TypeError: text must be str, not 7"),
        ("text=b'x'", "TypeError: text must be str, not b'x'"),
        ("code='200'", "TypeError: code must be int, not '200'"),
        ("code=200.0", "TypeError: code must be int, not 200.0"),
        ("body='x'", "TypeError: body must be bytes, not 'x'"),
        ("body=[1]", "TypeError: body must be bytes, not [1]"),
        ("text='x', mime_type=1", "TypeError: mime_type must be str, not 1"),
        ("text='x', encoding=1", "TypeError: encoding must be str, not 1"),
        ("headers=7", "TypeError: headers must be a mapping or pairs of str, not 7"),
        ("headers=[7]", "TypeError: headers must be pairs of str, not 7"),
        ("headers={'X': 7}", "TypeError: headers must be pairs of str, not ('X', 7)"),
        ("headers={7: 'X'}", "TypeError: headers must be pairs of str, not (7, 'X')"),
        ("json={1, 2}", "TypeError: Object of type set is not JSON serializable"),
        ("text='x', encoding='klingon'", "LookupError: unknown encoding: klingon"),
        ("unknown=1", "TypeError: Response() got an unexpected keyword argument 'unknown'"),
    ],
)
def test_a_wrong_type_is_named_with_its_value(shared: Server, arguments: str, raised: str) -> None:
    by_request = why(shared, f"request.Response({arguments})")
    by_class = why(shared, f"Response({arguments})")

    assert by_request == raised
    assert by_class.replace("Response.__new__()", "Response()") == raised


@pytest.mark.parametrize(
    "arguments",
    ["text='x', body=b'x'", "text='', json=1", "body=b'', json=''", "text='', body=b'', json=1"],
)
def test_text_body_and_json_exclude_each_other(shared: Server, arguments: str) -> None:
    for response in ("Response", "request.Response"):
        raised = why(shared, f"{response}({arguments})")

        assert raised.startswith("ValueError")
        assert "one of text, body and json" in raised


@pytest.mark.parametrize(
    "arguments",
    [
        "text='\\ud800'",
        "text='\\ud800', code=200",
        "text='ą', encoding='ascii'",
        "text='x', mime_type='a\\r\\nX: y'",
        "text='x', encoding='utf-8\\n'",
        "*range(9)",
        "'x', text='y'",
        "code=200, status=200",
    ],
)
def test_what_cannot_be_sent_is_refused_where_it_is_made(shared: Server, arguments: str) -> None:
    for response in ("Response", "request.Response"):
        raised = why(shared, f"{response}({arguments})")

        assert re.match(r"(Type|Value|UnicodeEncode|Lookup)Error", raised), raised


@pytest.mark.parametrize(
    "returned",
    ["None", "7", "object()", "()", "('x',)", "('x', 200, {})", "('x', '200')", "(7, 200)",
     "('x', None)", "('x', 99)", "(('x', 200), 200)", "(OK, 200)", "Response", "'\\ud800'",
     "{1: {2}}", "iter([])", "make"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/make", "/later", "/await_free"])
def test_a_return_that_stands_for_no_response_is_a_500(
    shared: Server, path: str, returned: str
) -> None:
    answer = make(shared, returned, path=path)

    assert (answer.status, answer.text) == (500, "Internal Server Error")


def test_what_a_handler_returned_instead_is_logged(shared: Server) -> None:
    make(shared, "{'of no use'}")

    shared.wait_for_line("View did not return Response instance, but .*of no use")


def test_a_second_response_to_a_request_is_refused(shared: Server) -> None:
    raised = why(shared, "[request.Response('one'), request.Response('two')]")

    assert raised.startswith("RuntimeError")
    assert make(shared, "[Response('one'), Response('two')][1]").text == "two"


def test_a_refused_response_does_not_use_up_the_request(shared: Server) -> None:
    expression = "request.Response('x', code=7)"

    assert make(shared, expression, path="/then").text == "then"


def test_a_response_shows_what_it_holds(shared: Server) -> None:
    expression = "repr((OK.code, OK.content_type, OK.body, OK, Response().body))"

    assert make(shared, expression).text == (
        "(200, 'text/plain; charset=utf-8', b'kept', <Response 200 4 bytes>, None)"
    )


def test_a_kept_response_is_sent_again_and_again(shared: Server) -> None:
    with shared.client() as client:
        request = get("/make", method="POST", body=b"OK")
        client.send(request * 50 + get("/hello") + request)

        assert [client.answer().text for _ in range(50)] == ["kept"] * 50
        assert client.answer().text == "Hello world!"
        assert client.answer().text == "kept"


def test_a_handler_can_close_the_connection(shared: Server) -> None:
    expression = b"request.Response('bye', headers={'Connection': 'close'})"
    with shared.client() as client:
        client.send(get("/hello") + get("/make", method="POST", body=expression) + get("/hello"))

        assert client.answer().field("Connection") is None
        bye = client.answer()
        assert (bye.text, bye.field("Connection")) == ("bye", "close")
        assert client.is_ended()


def test_a_slow_reader_gets_four_megabytes_whole(shared: Server) -> None:
    content = bytes(range(256)) * 4096 * 4
    with shared.client(receive_buffer=4096) as client:
        client.send(get("/large") + get("/hello"))
        received = bytearray()
        while len(received) < len(content):
            received += client.next_bytes(1024)

        head, _, body = bytes(received).partition(b"\r\n\r\n")
        body += client.next_bytes(len(content) - len(body))
        assert f"Content-Length: {len(content)}".encode() in head
        assert body == content
        assert client.answer().text == "Hello world!"


def test_many_slow_readers_do_not_hold_up_a_fast_one(shared: Server) -> None:
    slow = [shared.client(receive_buffer=4096) for _ in range(8)]
    for client in slow:
        client.send(get("/large"))

    assert shared.ask(get("/hello")).text == "Hello world!"

    for client in slow:
        with client:
            assert len(client.answer().body) == 4096 * 4 * 256


@pytest.fixture(scope="module")
def client(shared: Server) -> Any:
    """One connection for all generated responses."""
    with shared.client() as client:
        yield client


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=9000),
    code=st.integers(200, 599).filter(lambda code: code not in (204, 205, 304)),
    later=st.sampled_from(["/make", "/later", "/await_free"]),
)
def test_any_text_with_any_code_arrives(client: Client, text: str, code: int, later: str) -> None:
    expression = f"request.Response({text!r}, {code})".encode()

    answer = client.ask(get(later, method="POST", body=expression))

    assert (answer.status, answer.text) == (code, text)
