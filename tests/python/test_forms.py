"""Forms: urlencoded and multipart bodies as fields and files, and how bad ones are refused."""

from __future__ import annotations

import contextlib
import json
import sys
import types
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from anel import ConfigError, HTTPException, forms
from conftest import Answer, Server, get
from hypothesis import given
from hypothesis import strategies as st

PROGRAM = """
    from anel import Application

    app = Application()

    def look(request):
        files = request.files
        if files is not None:
            files = {name: [list(map(str, file)) for file in files.getall(name)] for name in files}
        form = request.form
        if form is not None:
            form = {name: form.getall(name) for name in form}
        return {"form": form, "files": files}

    async def look_later(request):
        return look(request)

    def look_twice(request):
        errors = []
        for name in ("form", "files"):
            try:
                getattr(request, name)
            except Exception as error:
                errors.append(error)
        first, second = errors
        return [first is second, str(first), str(second)]

    def same(request):
        return str(request.form is request.form and request.files is request.files)

    app.router.add_route("/look", look)
    app.router.add_route("/later", look_later)
    app.router.add_route("/twice", look_twice)
    app.router.add_route("/same", same)
"""

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=xYz"


def part(disposition: str, body: bytes = b"", *fields: str) -> bytes:
    head = "\r\n".join([f"Content-Disposition: form-data; {disposition}", *fields, "", ""])
    return b"--xYz\r\n" + head.encode() + body + b"\r\n"


END = b"--xYz--\r\n"


def post(shared: Server, content_type: str, body: bytes | None, path: str = "/look") -> Answer:
    return shared.ask(get(path, f"Content-Type: {content_type}", method="POST", body=body))


@contextlib.contextmanager
def refused(status: int, words: str) -> Iterator[None]:
    with pytest.raises(HTTPException, match=words) as raised:
        yield
    assert raised.value.status == status


def read(body: bytes, content_type: str = MULTIPART) -> tuple[forms.Form, forms.Files]:
    return forms.read_multipart(body, content_type)


@pytest.mark.parametrize("path", ["/look", "/later"])
def test_a_urlencoded_form_has_fields_and_no_files(shared: Server, path: str) -> None:
    body = b"a=1&b=two+words%21&a=%C4%85"

    answer = post(shared, URLENCODED, body, path)

    assert answer.body == '{"form":{"a":["1","ą"],"b":["two words!"]},"files":null}'.encode()


def test_a_multipart_form_has_fields_and_files(shared: Server) -> None:
    body = (
        part('name="title"', "żółw".encode())
        + part('name="upload"; filename="a.png"', b"\x89PNG", "Content-Type: image/png")
        + part('name="title"', b"")
        + END
    )

    answer = post(shared, MULTIPART, body)

    expected = (
        '{"form":{"title":["żółw",""]},'
        '"files":{"upload":[["image/png","b\'\\\\x89PNG\'","a.png"]]}}'
    )
    assert answer.text == expected


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/mixed; boundary=xYz", "a"])
def test_another_body_is_no_form(shared: Server, content_type: str) -> None:
    answer = post(shared, content_type, b"a=1")

    assert answer.body == b'{"form":null,"files":null}'


@pytest.mark.parametrize("content_type", [URLENCODED, MULTIPART])
def test_no_body_is_no_form(shared: Server, content_type: str) -> None:
    answer = post(shared, content_type, None)

    assert answer.body == b'{"form":null,"files":null}'


def test_an_empty_body_is_an_empty_form(shared: Server) -> None:
    answer = post(shared, URLENCODED, b"")

    assert answer.body == b'{"form":{},"files":null}'


def test_a_form_is_read_once(shared: Server) -> None:
    assert post(shared, MULTIPART, part('name="a"', b"1") + END, "/same").text == "True"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        (MULTIPART, b"junk", 400),
        ("multipart/form-data", part('name="a"') + END, 400),
        (MULTIPART, part('name="a"', b"x" * (forms.FIELD_BYTES_MAX + 1)) + END, 413),
        (URLENCODED, b"a=1&" * forms.FIELDS_MAX + b"b=2", 400),
    ],
    ids=["malformed", "no boundary", "too large", "too many"],
)
def test_a_bad_form_is_the_clients_mistake(
    shared: Server, content_type: str, body: bytes, status: int
) -> None:
    assert post(shared, content_type, body).status == status


def test_each_access_to_a_bad_form_raises_an_error_of_its_own(shared: Server) -> None:
    same, first, second = json.loads(post(shared, MULTIPART, b"junk", "/twice").text)

    assert first.startswith("400 the form is malformed: ")
    assert (same, second) == (False, first)


@given(st.lists(st.tuples(st.text(), st.text(min_size=1))))
def test_any_urlencoded_pairs_come_back(pairs: list[tuple[str, str]]) -> None:
    pairs = [(name, value) for name, value in pairs if encodable(name + value)]

    form = forms.read_urlencoded(urllib.parse.urlencode(pairs).encode())

    assert dict(form) == dict(pairs)
    assert [(name, form.getall(name)) for name in form] == [
        (name, [value for known, value in pairs if known == name]) for name in dict(pairs)
    ]


def encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def test_a_urlencoded_charset_counts_behind_the_percent_signs() -> None:
    assert forms.read_urlencoded(b"a=%B1&b=\xb1", "iso-8859-2") == {"a": "ą", "b": "ą"}


@pytest.mark.parametrize("charset", ["x-unknown", "zlib", "unicode_escape", "idna", "a\0", "", "é"])
def test_an_unknown_charset_is_refused(charset: str) -> None:
    with refused(400, "charset that is not known"):
        forms.read_urlencoded(b"a=1", charset)


def test_bytes_that_are_not_in_the_charset_are_refused() -> None:
    with refused(400, "the form is not utf-8"):
        forms.read_urlencoded(b"a=\xff")


def test_the_most_urlencoded_fields_are_taken() -> None:
    body = b"&".join([b"a=1"] * forms.FIELDS_MAX)

    assert len(forms.read_urlencoded(body).getall("a")) == forms.FIELDS_MAX
    with refused(400, f"more than {forms.FIELDS_MAX} fields"):
        forms.read_urlencoded(body + b"&a=1")


def test_a_large_urlencoded_field_is_refused() -> None:
    assert forms.read_urlencoded(b"a=" + b"x" * forms.FIELD_BYTES_MAX)
    with refused(413, "field of the form is larger"):
        forms.read_urlencoded(b"a=" + b"x" * (forms.FIELD_BYTES_MAX + 1))


def test_a_large_urlencoded_form_is_refused() -> None:
    field = b"a=" + b"x" * (forms.FIELD_BYTES_MAX - 3) + b"&"

    assert forms.read_urlencoded(field * 8)
    with refused(413, "form is larger than"):
        forms.read_urlencoded(field * 8 + b"a=" + b"x" * 7)


part_names = st.text(
    st.characters(codec="utf-8", exclude_characters='%\\"\r\n\0'), min_size=1
).filter(lambda name: name == name.strip() and name.isprintable())


@given(st.lists(st.tuples(part_names, st.binary())), st.lists(st.tuples(part_names, part_names)))
def test_any_multipart_form_comes_back(
    uploads: list[tuple[str, bytes]], fields: list[tuple[str, str]]
) -> None:
    uploads = [(name, body) for name, body in uploads if b"--xYz" not in body]
    fields = [(name, value) for name, value in fields if "--xYz" not in value + name]
    body = b"".join(
        [part(f'name="{name}"', value.encode()) for name, value in fields]
        + [part(f'name="f"; filename="{name}"', body) for name, body in uploads]
    )

    form, files = read(body + END)

    if not any(name == "_charset_" for name, _ in fields):
        assert [(name, form.getall(name)) for name in form] == [
            (name, [value for known, value in fields if known == name]) for name in dict(fields)
        ]
    assert [(file.name, file.body) for file in files.getall("f")] == uploads


@pytest.mark.parametrize(
    ("disposition", "fields", "file"),
    [
        ('name="f"; filename="a.txt"', ("Content-Type: text/plain",), ("text/plain", "a.txt")),
        ('name="f"; filename="a.txt"', (), (None, "a.txt")),
        ('name="f"; filename=""', ("Content-Type: application/octet-stream",), None),
        (
            'name="f"',
            ("Content-Type: application/json; charset=utf-8",),
            ("application/json", None),
        ),
        ("name=f; filename=a.txt; filename*=utf-8''b.txt", (), (None, "a.txt")),
        ('name="f"; filename="żółw %22x%22.txt"', (), (None, 'żółw "x".txt')),
        ('name="f"; filename="../../etc/passwd"', (), (None, "../../etc/passwd")),
    ],
)
def test_a_part_with_a_file_name_or_a_type_is_a_file(
    disposition: str, fields: tuple[str, ...], file: tuple[str | None, str | None] | None
) -> None:
    form, files = read(part(disposition, b"body", *fields) + END)

    type_, name = file or ("application/octet-stream", "")
    assert files == {"f": forms.File(type_, b"body", name)}
    assert form == {}


def test_the_last_of_several_files_counts_and_getall_has_them_all() -> None:
    body = part('name="f"; filename="1"', b"1") + part('name="f"; filename="2"', b"2") + END

    _, files = read(body)

    assert files["f"] == (None, b"2", "2")
    assert [file.body for file in files.getall("f")] == [b"1", b"2"]
    assert files.getall("other") == []


def test_the_charset_field_says_how_the_others_are_written() -> None:
    body = part('name="a"', b"\xb1") + part('name="_charset_"', b"iso-8859-2") + END

    form, _ = read(body)

    assert form["a"] == "ą"


def test_a_field_that_is_not_in_the_charset_is_refused() -> None:
    with refused(400, "field of the form is not utf-8"):
        read(part('name="a"', b"\xff") + END)


def test_a_quoted_boundary_and_text_around_the_parts_are_taken() -> None:
    body = b"preamble\r\n" + part('name="a"', b"1") + END + b"\r\nepilogue"

    form, _ = read(body, 'Multipart/Form-Data; boundary="xYz"')

    assert form == {"a": "1"}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", MULTIPART),
        (b"--xYz", MULTIPART),
        (b"--xYz\r\n", MULTIPART),
        (part('name="a"', b"1"), MULTIPART),
        (part('name="a"', b"1") + b"--xYz-", MULTIPART),
        (b"--xYz\r\n\r\nno head\r\n" + END, MULTIPART),
        (b"--xYz\r\nContent-Disposition: attachment; name=a\r\n\r\n\r\n" + END, MULTIPART),
        (b"--xYz\r\nno colon\r\n\r\n\r\n" + END, MULTIPART),
        (b'--xYz\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n\r\n' + END, MULTIPART),
        (part("filename=a") + END, MULTIPART),
        (part('name="a"', b"1", "Content-Length: 2") + END, MULTIPART),
        (part('name="a"').replace(b"\r\n", b"\n") + END, MULTIPART),
        (part('name="a"') + END, "multipart/form-data"),
        (part('name="a"') + END, "multipart/form-data; boundary="),
        (part('name="a"') + END, "multipart/form-data; boundary=\xe9"),
        (part('name="a"') + END, f"multipart/form-data; boundary={'x' * 2000}"),
    ],
)
def test_a_malformed_multipart_form_is_refused(body: bytes, content_type: str) -> None:
    with refused(400, "^400 the form is malformed"):
        read(body, content_type)


def test_the_answer_to_a_malformed_form_has_nothing_of_it() -> None:
    head = b'--xYz\r\nContent-Disposition: form-data; name="secret\xff"\r\n\r\n\r\n'

    with pytest.raises(HTTPException) as raised:
        read(head + END, MULTIPART)

    assert "secret" not in raised.value.detail


@pytest.mark.parametrize("cut", range(0, len(part('name="a"; filename="b"', b"c") + END) - 4))
def test_a_form_that_ends_early_is_refused(cut: int) -> None:
    body = part('name="a"; filename="b"', b"c") + END

    with refused(400, "malformed"):
        read(body[:cut])


@pytest.mark.parametrize(
    ("name", "most", "words"),
    [
        ('name="a"', forms.FIELDS_MAX, "more than 1000 fields"),
        ('name="a"; filename="f"', forms.FILES_MAX, "more than 100 files"),
    ],
)
def test_the_most_parts_are_taken_and_no_more(name: str, most: int, words: str) -> None:
    form, files = read(part(name) * most + END)

    assert len(form.getall("a")) + len(files.getall("a")) == most
    with refused(400, words):
        read(part(name) * (most + 1) + END)


def test_a_large_field_is_refused_and_a_large_file_is_not() -> None:
    body = b"x" * (forms.FIELD_BYTES_MAX + 1)

    _, files = read(part('name="a"; filename="f"', body) + END)

    assert files["a"].body == body
    with refused(413, "field of the form is larger"):
        read(part('name="a"', body) + END)


def test_fields_that_are_large_together_are_refused() -> None:
    field = part('name="a"', b"x" * forms.FIELD_BYTES_MAX)

    read(field * 8 + END)
    with refused(413, "fields have more than"):
        read(field * 8 + part('name="a"', b"x") + END)


@pytest.mark.parametrize(
    "fields", [["X-A: 1"] * forms.PART_HEADERS_MAX, ["X-A: " + "x" * forms.PART_HEADER_BYTES_MAX]]
)
def test_a_part_with_too_much_of_a_head_is_refused(fields: list[str]) -> None:
    with refused(400, "too complex"):
        read(part('name="a"', b"1", *fields) + END)


@pytest.fixture
def fresh_library() -> Iterator[None]:
    forms._library.cache_clear()
    yield
    forms._library.cache_clear()


@pytest.mark.usefixtures("fresh_library")
def test_a_missing_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "multipart", None)

    with pytest.raises(ConfigError, match=r"pip install 'anel\[forms\]'"):
        read(part('name="a"') + END)


@pytest.mark.usefixtures("fresh_library")
def test_another_package_of_that_name_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    other: Any = types.ModuleType("multipart")
    other.__file__ = "/other/multipart.py"
    monkeypatch.setitem(sys.modules, "multipart", other)

    with pytest.raises(ConfigError, match=r"/other/multipart\.py is another package's"):
        read(part('name="a"') + END)


@pytest.mark.usefixtures("fresh_library")
def test_urlencoded_forms_need_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "multipart", None)

    assert forms.read_urlencoded(b"a=1") == {"a": "1"}
