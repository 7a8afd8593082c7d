"""FileResponse: whole files, conditions, ranges, names, and files that are not there."""

from __future__ import annotations

import email
import email.message
import os
import pathlib
import re
import socket
import time
from email.utils import formatdate
from typing import Any

import pytest
from anel import FileResponse, HTTPException, files
from conftest import Answer, Client, Server, get, wait_until
from hypothesis import given
from hypothesis import strategies as st

PROGRAM = """
    import os, pathlib
    from anel import Application, FileResponse, Response

    app = Application()
    KEPT = FileResponse(os.environ["ANEL_TEST_FILES"] + "/small.txt")

    def path(request):
        return os.path.join(os.environ["ANEL_TEST_FILES"], request.match_dict["name"])

    def file(request):
        return FileResponse(path(request))

    async def file_later(request):
        return FileResponse(path(request))

    def make(request):
        folder = os.environ["ANEL_TEST_FILES"] + "/"
        return eval(request.text, {**globals(), "folder": folder, "request": request})

    class Missing(Exception): pass

    def fails(request):
        raise Missing

    class Wrong:
        def __anel_response__(self, request):
            return "text"

    app.router.add_route("/file/{name}", file)
    app.router.add_route("/later/{name}", file_later)
    app.router.add_route("/kept", lambda request: KEPT)
    app.router.add_route("/make", make)
    app.router.add_route("/fails", fails)
    app.router.add_route("/wrong", lambda request: Wrong())
    app.add_error_handler(Missing, lambda request, error: FileResponse(KEPT._path, code=404))
"""

SMALL = b"0123456789" * 10
LARGE = os.urandom(1 << 20)
MODIFIED = 1_700_000_000
DATE = formatdate(MODIFIED, usegmt=True)
LATER = formatdate(MODIFIED + 1, usegmt=True)
EARLIER = formatdate(MODIFIED - 1, usegmt=True)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = tmp_path_factory.mktemp("files")
    for name, content in (("small.txt", SMALL), ("large.bin", LARGE), ("empty", b"")):
        (made / name).write_bytes(content)
        os.utime(made / name, (MODIFIED, MODIFIED))
    (made / "folder").mkdir()
    os.mkfifo(made / "pipe")
    (made / "link").symlink_to("small.txt")
    (made / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(made / "socket"))
    os.environ["ANEL_TEST_FILES"] = str(made)
    yield made
    del os.environ["ANEL_TEST_FILES"]


def ask(shared: Server, name: str, *fields: str, method: str = "GET") -> Answer:
    return shared.ask(get(f"/file/{name}", *fields, method=method), method)


def make(shared: Server, expression: str, *fields: str) -> Answer:
    """A GET with the expression as its body."""
    return shared.ask(get("/make", *fields, body=expression.encode()))


def etag(shared: Server, name: str = "small.txt") -> str:
    found = ask(shared, name).field("ETag")
    assert found is not None
    return found


@pytest.mark.parametrize("path", ["/file", "/later"])
@pytest.mark.parametrize(
    ("name", "content", "content_type"),
    [
        ("small.txt", SMALL, "text/plain; charset=utf-8"),
        ("large.bin", LARGE, "application/octet-stream"),
        ("empty", b"", "application/octet-stream"),
        ("link", SMALL, "application/octet-stream"),
    ],
)
def test_a_file_is_sent(
    shared: Server, path: str, name: str, content: bytes, content_type: str
) -> None:
    answer = shared.ask(get(f"{path}/{name}"))

    assert answer.status == 200
    assert answer.body == content
    assert answer.field("Content-Type") == content_type
    assert answer.field("Last-Modified") == DATE
    assert answer.field("Accept-Ranges") == "bytes"
    assert re.fullmatch(r'"[0-9a-f-]+"', answer.field("ETag") or "")
    assert answer.field("Content-Disposition") is None


@pytest.mark.parametrize("name", ["small.txt", "large.bin", "empty"])
def test_head_has_the_fields_of_get(shared: Server, name: str) -> None:
    with shared.client() as client:
        head = client.ask(get(f"/file/{name}", method="HEAD"), "HEAD")
        whole = client.ask(get(f"/file/{name}"))

    own = ("Date",)
    assert [field for field in head.fields if field[0] not in own] == [
        field for field in whole.fields if field[0] not in own
    ]


def test_a_response_that_is_kept_opens_the_file_each_time(shared: Server) -> None:
    with shared.client() as client:
        assert [client.ask(get("/kept")).body for _ in range(3)] == [SMALL] * 3


def test_no_descriptor_is_left_open(shared: Server) -> None:
    with shared.client() as client:
        client.ask(get("/kept"))
        before = shared.open_descriptors()
        for name in ("small.txt", "large.bin", "empty", "folder", "pipe", "missing"):
            client.ask(get(f"/file/{name}"))
            client.ask(get(f"/file/{name}", method="HEAD"), "HEAD")
            client.ask(get(f"/file/{name}", "Range: bytes=0-0"))
            client.ask(get(f"/file/{name}", "Range: bytes=999999999-"))
            client.ask(get(f"/file/{name}", "If-None-Match: *"))
            client.ask(get(f"/file/{name}", 'If-Match: "other"'))

        wait_until(lambda: shared.open_descriptors() == before)


@pytest.mark.parametrize(
    "name", ["missing", "folder", "pipe", "socket", "loop", "small.txt%2Fx", "x" * 300, "a%00b"]
)
def test_what_is_no_file_is_not_found(shared: Server, name: str) -> None:
    answer = ask(shared, name)

    assert (answer.status, answer.text) == (404, "Not Found")


def test_permission_denied_is_403(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(HTTPException) as raised:
        FileResponse("a").__anel_response__(None)  # type: ignore[arg-type]

    assert raised.value.status == 403


def test_an_error_handler_may_return_a_file(shared: Server) -> None:
    answer = shared.ask(get("/fails", "Range: bytes=0-1", "If-None-Match: *"))

    assert (answer.status, answer.body) == (404, SMALL)
    assert answer.field("Accept-Ranges") is None


def test_what_makes_a_response_must_make_one(shared: Server) -> None:
    assert shared.ask(get("/wrong")).status == 500
    shared.wait_for_line(r"TypeError: .*Wrong.__anel_response__ must return an anel.Response")


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("If-None-Match: {etag}", 304),
        ("If-None-Match: W/{etag}", 304),
        ("If-None-Match: *", 304),
        ('If-None-Match: "other", W/"more" , {etag}', 304),
        ("If-None-Match: , ,{etag}", 304),
        ('If-None-Match: "other"', 200),
        ("If-None-Match: other", 200),
        ("If-None-Match: {etag} junk", 200),
        ("If-None-Match: ", 200),
        (f"If-Modified-Since: {DATE}", 304),
        (f"If-Modified-Since: {LATER}", 304),
        (f"If-Modified-Since: {EARLIER}", 200),
        ("If-Modified-Since: yesterday", 200),
        ("If-Modified-Since: Tue, 99 Nov 2094 22:13:20 GMT", 200),
        ("If-Modified-Since: Tue, 14 Nov 2094 99:13:20 GMT", 200),
        ("If-Modified-Since: Tuesday, 14-Nov-23 22:13:20 GMT", 304),
        ("If-Modified-Since: Tue Nov 14 22:13:20 2023", 304),
        ("If-Match: {etag}", 200),
        ('If-Match: "other", {etag}', 200),
        ("If-Match: *", 200),
        ("If-Match: W/{etag}", 412),
        ('If-Match: "other"', 412),
        ("If-Match: junk", 412),
        (f"If-Unmodified-Since: {DATE}", 200),
        (f"If-Unmodified-Since: {EARLIER}", 412),
        ("If-Unmodified-Since: junk", 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_condition_is_respected(shared: Server, method: str, field: str, status: int) -> None:
    answer = ask(shared, "small.txt", field.replace("{etag}", etag(shared)), method=method)

    assert answer.status == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (['If-None-Match: "other"', f"If-Modified-Since: {LATER}"], 200),
        (["If-Match: {etag}", f"If-Unmodified-Since: {EARLIER}"], 200),
        (["If-Match: {etag}", "If-None-Match: {etag}"], 304),
        (['If-Match: "other"', "If-None-Match: {etag}"], 412),
        (["If-None-Match: {etag}", "Range: bytes=0-1"], 304),
        (['If-None-Match: "other"', "Range: bytes=0-1"], 206),
        (['If-None-Match: "a"', "If-None-Match: {etag}"], 304),
    ],
)
def test_conditions_have_their_order(shared: Server, fields: list[str], status: int) -> None:
    known = etag(shared)

    answer = ask(shared, "small.txt", *(field.replace("{etag}", known) for field in fields))

    assert answer.status == status


def test_not_modified_says_what_caches_need(shared: Server) -> None:
    expression = "FileResponse(folder + 'small.txt', headers={'Cache-Control': 'max-age=9'})"

    answer = make(shared, expression, "If-None-Match: *")

    assert answer.status == 304
    assert [name for name, _ in answer.fields if name != "Date"] == [
        "ETag",
        "Last-Modified",
        "Accept-Ranges",
        "Cache-Control",
    ]


def test_other_methods_have_no_conditions_and_no_ranges(shared: Server) -> None:
    answer = ask(shared, "small.txt", "If-None-Match: *", "Range: bytes=0-1", method="POST")

    assert (answer.status, answer.body) == (200, SMALL)


def test_head_ignores_a_range(shared: Server) -> None:
    answer = ask(shared, "small.txt", "Range: bytes=0-1", method="HEAD")

    assert (answer.status, answer.field("Content-Length")) == (200, "100")


@pytest.mark.parametrize(
    ("spec", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-9", 0, 10),
        ("bytes=90-", 90, 100),
        ("bytes=99-99", 99, 100),
        ("bytes=95-1000", 95, 100),
        ("bytes=-5", 95, 100),
        ("bytes=-1000", 0, 100),
        ("BYTES = 1-2", 1, 3),
        ("bytes= 1-2 ", 1, 3),
        ("bytes=,1-2,", 1, 3),
        ("bytes=0-5,3-8", 0, 9),
        ("bytes=0-1,50-51", 0, 52),
        ("bytes=5-6,200-300", 5, 7),
        ("bytes=0-", 0, 100),
    ],
)
def test_one_range_is_sent_as_it_is(shared: Server, spec: str, begin: int, end: int) -> None:
    answer = ask(shared, "small.txt", f"Range: {spec}")

    assert answer.status == 206
    assert answer.body == SMALL[begin:end]
    assert answer.field("Content-Range") == f"bytes {begin}-{end - 1}/100"
    assert answer.field("Content-Type") == "text/plain; charset=utf-8"


def test_a_large_range_is_streamed(shared: Server) -> None:
    answer = ask(shared, "large.bin", "Range: bytes=1000-999999")

    assert answer.body == LARGE[1000:1000000]


@pytest.mark.parametrize("spec", ["100-", "100-200", "-0", "500-600,700-"])
def test_a_range_behind_the_end_is_not_satisfiable(shared: Server, spec: str) -> None:
    answer = ask(shared, "small.txt", f"Range: bytes={spec}")

    assert answer.status == 416
    assert answer.field("Content-Range") == "bytes */100"


def test_an_empty_file_has_no_first_byte(shared: Server) -> None:
    assert ask(shared, "empty", "Range: bytes=0-").status == 416
    assert ask(shared, "empty", "Range: bytes=-5").status == 200


@pytest.mark.parametrize(
    "spec",
    [
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=0-1,5-4",
        "bytes=0-1;5-6",
        "bytes=+1-2",
        "bytes=1--2",
        "bytes=0 - 1",
        "bytes=\xb2-3",
        "bytes 0-1",
        "lines=0-1",
        "0-1",
        "bytes=0-" + "9" * 5000,
        "bytes=" + ",".join(f"{n}-{n}" for n in range(files.RANGES_MAX + 1)),
    ],
)
def test_a_malformed_range_is_ignored(shared: Server, spec: str) -> None:
    answer = ask(shared, "small.txt", f"Range: {spec}")

    assert (answer.status, answer.body) == (200, SMALL)


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("{etag}", 206),
        (DATE, 206),
        ("W/{etag}", 200),
        ('"other"', 200),
        (EARLIER, 200),
        (LATER, 200),
        ("junk", 200),
    ],
)
def test_if_range_asks_for_the_same_file(shared: Server, condition: str, status: int) -> None:
    condition = condition.replace("{etag}", etag(shared))

    answer = ask(shared, "small.txt", "Range: bytes=0-1", f"If-Range: {condition}")

    assert answer.status == status


def test_if_range_does_not_know_a_file_of_this_second_by_its_date(
    shared: Server, folder: pathlib.Path
) -> None:
    # Its date is the present one, whenever that is: it may still change within the second.
    (folder / "ahead").write_bytes(SMALL)
    os.utime(folder / "ahead", (time.time() + 10_000, time.time() + 10_000))
    statuses = set()

    for seconds in range(2):
        date = formatdate(time.time() + seconds, usegmt=True)
        answer = ask(shared, "ahead", "Range: bytes=0-1", f"If-Range: {date}")
        statuses.add(answer.status)

    assert statuses == {200}


def parts(answer: Answer) -> list[tuple[str | None, str | None, bytes]]:
    """Content-Range, Content-Type and body of each part, read by the standard library."""
    head = f"Content-Type: {answer.field('Content-Type')}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.body)
    assert message.is_multipart()
    found = []
    for part in message.get_payload():
        assert isinstance(part, email.message.Message)
        body = part.get_payload(decode=True)
        assert isinstance(body, bytes)
        found.append((part["Content-Range"], part["Content-Type"], body))
    return found


def test_several_ranges_are_parts_in_the_order_asked_for(shared: Server) -> None:
    spec = "bytes=1000-1009,-5,0-4,2,".replace(",2,", ",400000-400009,400005-400020")

    answer = ask(shared, "large.bin", f"Range: {spec}")

    size = len(LARGE)
    boundary = (answer.field("Content-Type") or "").partition("boundary=")[2].encode()
    pieces = answer.body.split(b"--" + boundary)
    assert answer.status == 206
    assert answer.field("Content-Range") is None
    assert pieces[0] == b""
    assert pieces[-1] == b"--\r\n"
    bodies = []
    for piece in pieces[1:-1]:
        head, _, body = piece.partition(b"\r\n\r\n")
        assert b"\r\nContent-Type: application/octet-stream" in head
        bodies.append((re.findall(rb"Content-Range: (.*)", head), body.removesuffix(b"\r\n")))
    assert bodies == [
        ([b"bytes 1000-1009/%d" % size], LARGE[1000:1010]),
        ([b"bytes %d-%d/%d" % (size - 5, size - 1, size)], LARGE[-5:]),
        ([b"bytes 0-4/%d" % size], LARGE[:5]),
        ([b"bytes 400000-400020/%d" % size], LARGE[400000:400021]),
    ]


def test_parts_are_read_by_another_reader(shared: Server, folder: pathlib.Path) -> None:
    text = b"abcdefghij" * 100
    (folder / "text.txt").write_bytes(text)

    answer = ask(shared, "text.txt", "Range: bytes=900-909,0-4")

    assert parts(answer) == [
        ("bytes 900-909/1000", "text/plain; charset=utf-8", text[900:910]),
        ("bytes 0-4/1000", "text/plain; charset=utf-8", text[:5]),
    ]


def test_large_parts_are_streamed(shared: Server) -> None:
    answer = ask(shared, "large.bin", "Range: bytes=0-299999,500000-")

    assert LARGE[:300000] in answer.body
    assert LARGE[500000:] in answer.body


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=1, max_size=16),
    st.integers(1, 2000),
)
def test_parts_never_overlap_and_have_all_that_was_asked_for(
    asked: list[tuple[int, int]], size: int
) -> None:
    asked = [(min(pair), max(pair)) for pair in asked]
    specs = ",".join(f"{first}-{last}" for first, last in asked)
    wanted = {n for first, last in asked for n in range(first, min(last + 1, size))}

    found = [part for part in files._asked(specs, size) or [] if part[0] < part[1]]
    joined = files._coalesced(found) if found else []

    sent = [n for begin, end in joined for n in range(begin, end)]
    assert len(sent) == len(set(sent))
    assert wanted <= set(sent) <= set(range(size))
    assert len(sent) <= len(wanted) + files.RANGE_GAP_BYTES * len(asked)


def test_a_file_that_becomes_shorter_ends_the_connection(
    shared: Server, folder: pathlib.Path
) -> None:
    path = folder / "shrinks"
    path.write_bytes(bytes(64 << 20))
    with shared.client(receive_buffer=4096) as client:
        client.send(get("/file/shrinks"))
        client.next_bytes(100)
        os.truncate(path, 1 << 20)

        received = len(client.rest())

    assert received < 64 << 20
    shared.wait_for_line("the file has become shorter while it was sent")


def test_a_file_that_grows_is_sent_as_it_was(shared: Server, folder: pathlib.Path) -> None:
    path = folder / "grows"
    path.write_bytes(bytes(8 << 20))
    with shared.client(receive_buffer=4096) as client:
        client.send(get("/file/grows", "Connection: close"))
        begun = client.next_bytes(1)
        with path.open("ab") as file:
            file.write(b"more")

        answer = begun + client.rest()

    assert len(answer.partition(b"\r\n\r\n")[2]) == 8 << 20


def test_a_client_that_leaves_closes_the_file(shared: Server, folder: pathlib.Path) -> None:
    (folder / "left").write_bytes(bytes(64 << 20))
    with shared.client() as other:
        other.ask(get("/kept"))
        before = shared.open_descriptors()
        client = Client(shared.port, receive_buffer=4096)
        client.send(get("/file/left"))
        client.next_bytes(100)

        client.reset()

        wait_until(lambda: shared.open_descriptors() == before)


def test_the_tag_changes_with_the_file(shared: Server, folder: pathlib.Path) -> None:
    path = folder / "changes"
    path.write_bytes(b"1")
    os.utime(path, ns=(0, MODIFIED * 10**9))
    tags = {etag(shared, "changes")}

    os.utime(path, ns=(0, MODIFIED * 10**9 + 1))
    tags.add(etag(shared, "changes"))
    path.write_bytes(b"12")
    os.utime(path, ns=(0, MODIFIED * 10**9 + 1))
    tags.add(etag(shared, "changes"))
    path.rename(folder / "changed")
    path.write_bytes(b"21")
    os.utime(path, ns=(0, MODIFIED * 10**9 + 1))
    tags.add(etag(shared, "changes"))

    assert len(tags) == 4


def test_last_modified_is_never_later_than_now(shared: Server, folder: pathlib.Path) -> None:
    path = folder / "future"
    path.touch()
    os.utime(path, (time.time() + 10_000, time.time() + 10_000))

    answer = ask(shared, "future")

    modified = files._date(answer.field("Last-Modified"))
    assert modified is not None
    assert modified <= time.time()


def test_headers_and_cookies_are_sent_and_take_the_place_of_ours(shared: Server) -> None:
    expression = """FileResponse(
        folder + "small.txt",
        headers=[("ETag", '"mine"'), ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
                 ("Content-Type", "a/b"), ("Vary", "A"), ("Vary", "B")],
        cookies=__import__("http.cookies").cookies.SimpleCookie("a=1"),
    )"""

    answer = make(shared, expression)

    assert [field for field in answer.fields if field[0] not in ("Date", "Content-Length")] == [
        ("Content-Type", "a/b"),
        ("Accept-Ranges", "bytes"),
        ("ETag", '"mine"'),
        ("last-modified", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Vary", "A"),
        ("Vary", "B"),
        ("Set-Cookie", "a=1"),
    ]
    assert make(shared, expression, 'If-None-Match: "mine"').status == 304
    assert make(shared, expression, f"If-Unmodified-Since: {EARLIER}").status == 200


@pytest.mark.parametrize(
    ("name", "filename", "mime_type", "expected"),
    [
        ("a.html", None, None, "text/html; charset=utf-8"),
        ("a.png", None, None, "image/png"),
        ("a.json", None, None, "application/json"),
        ("a.tar.gz", None, None, "application/gzip"),
        ("a.txt.xz", None, None, "application/x-xz"),
        ("a.txt.Z", None, None, "application/octet-stream"),
        ("a", None, None, "application/octet-stream"),
        ("data:,a.png", None, None, "image/png"),
        ("a.png", "b.pdf", None, "application/pdf"),
        ("a.png", "b", None, "image/png"),
        ("a.png", None, "text/css", "text/css; charset=utf-8"),
        ("a", None, "text/html; charset=iso-8859-2", "text/html; charset=iso-8859-2"),
        ("a", None, "image/svg+xml", "image/svg+xml"),
    ],
)
def test_the_name_says_the_type_unless_it_is_given(
    tmp_path: pathlib.Path, name: str, filename: str | None, mime_type: str | None, expected: str
) -> None:
    response = FileResponse(tmp_path / name, filename=filename, mime_type=mime_type)

    assert dict(response._fields)["Content-Type"] == expected


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("report.pdf", 'attachment; filename="report.pdf"'),
        ("two words; x=1,2.pdf", 'attachment; filename="two words; x=1,2.pdf"'),
        (
            "żółw €.txt",
            "attachment; filename=\"___w _.txt\"; filename*=UTF-8''"
            "%C5%BC%C3%B3%C5%82w%20%E2%82%AC.txt",
        ),
        ('a"b.txt', "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
        ("100%.txt", "attachment; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
        ("../a\\b\r\nX: 1", 'attachment; filename=".._a_b__X: 1"'),
        ("\udcff", "attachment; filename=\"_\"; filename*=UTF-8''%3F"),
    ],
)
def test_a_download_has_its_name(filename: str, expected: str) -> None:
    assert dict(FileResponse("a", filename=filename)._fields)["Content-Disposition"] == expected


def test_a_download_is_sent_with_its_name(shared: Server) -> None:
    answer = make(shared, "FileResponse(folder + 'small.txt', filename='ż.txt')")

    assert answer.field("Content-Disposition") == (
        "attachment; filename=\"_.txt\"; filename*=UTF-8''%C5%BC.txt"
    )


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"path": None}, TypeError, "PathLike"),
        ({"filename": b"a"}, TypeError, "filename must be str"),
        ({"mime_type": 1}, TypeError, "mime_type must be str"),
        ({"mime_type": "a/b\r\nX: c"}, ValueError, "control"),
        ({"headers": {"X": "a\r\nb"}}, ValueError, "control"),
        ({"headers": {"accept-ranges": "none"}}, ValueError, "made by FileResponse"),
        ({"headers": {"Content-Range": "x"}}, ValueError, "made by FileResponse"),
        ({"headers": {"ETag": "unquoted"}}, ValueError, "entity tag"),
        ({"headers": {"ETag": '"a", "b"'}}, ValueError, "entity tag"),
        ({"headers": {"Last-Modified": "now"}}, ValueError, "must be a date"),
        ({"code": 304}, ValueError, "cannot be a file"),
        ({"code": 205}, ValueError, "cannot be a file"),
        ({"code": 103}, ValueError, "code must be 200 to 599"),
        ({"code": 206}, ValueError, "cannot be a file"),
        ({"code": "200"}, TypeError, "code must be int"),
    ],
)
def test_mistakes_are_found_when_it_is_made(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        FileResponse(**{"path": "a", **arguments})
