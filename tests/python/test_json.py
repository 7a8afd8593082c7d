"""The JSON engines: each writes what `json.dumps` means, in the same few bytes.

Owns `anel.encoding`'s choice of an engine and its promise that a program does not see which one it
got. A test that takes `engine` runs with each of them.
"""

from __future__ import annotations

import enum
import json
import os
import pathlib
import subprocess
import sys
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from anel import ConfigError, Response, encoding
from conftest import DEADLINE_S, Serve, get
from hypothesis import example, given
from hypothesis import strategies as st


class Text(str): ...


class Whole(int):
    def __repr__(self) -> str:
        return "not a number"


class Real(float): ...


class Items(list[Any]): ...


class Names(dict[str, Any]):
    """A dict that shows other entries than it stores."""

    def items(self) -> Any:
        return [("shown", 1)]


class Pair(NamedTuple):
    left: int
    right: str


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


Point = namedtuple("Point", "x y")


@pytest.fixture(params=encoding.ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    before = encoding.engine()
    encoding.use(request.param)
    yield request.param
    encoding.use(before)


def moved() -> OrderedDict[str, int]:
    entries = OrderedDict(a=1, b=2)
    entries.move_to_end("a")
    return entries


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        2**63,
        -(2**63) - 1,
        2**64,
        2**200,
        1.5,
        -0.0,
        1e16,
        1e-7,
        5e-324,
        1.7976931348623157e308,
        "",
        "Zażółć \U0001f40d",
        '\x00\x1f\x7f\u2028\u2029"\\/<>&',
        "\ud800",
        {"\udfff": ["\ud83d"]},
        [],
        {},
        (1, (2, ())),
        [Text("a"), Whole(7), Real(2.5), Items([1])],
        {Text("a"): Text("b")},
        Pair(1, "b"),
        [Point(1, 2)],
        [Colour.RED, Level.HIGH],
        {Colour.RED: Level.HIGH},
        {Level.HIGH: 1},
        {1: "int", 2.5: "float"},
        {True: "yes", False: "no"},
        {None: "null"},
        {Whole(4): 1},
    ],
    ids=repr,
)
def test_a_value_reads_back_as_the_standard_library_wrote_it(engine: str, value: Any) -> None:
    written = encoding.dumps(value)

    assert json.loads(written) == json.loads(json.dumps(value))
    assert repr(json.loads(written)) == repr(json.loads(json.dumps(value)))


# msgspec looks at what a dict stores; the module says so.
@pytest.mark.parametrize("engine", ["orjson", "stdlib"], indirect=True)
def test_a_dict_of_another_kind_is_asked_for_its_items(engine: str) -> None:
    assert encoding.dumps([Names(stored=1), moved()]) == b'[{"shown":1},{"b":2,"a":1}]'


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None)),
    lambda values: (
        st.lists(values)
        | st.tuples(values, values)
        | st.dictionaries(st.text(st.characters(codec=None)), values)
        | st.dictionaries(st.integers(), values)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("name", encoding.ENGINES)
@given(value=json_values)
@example(value=[2**64, "\udc00", {1: ()}])
def test_any_value_reads_back_as_the_standard_library_wrote_it(name: str, value: Any) -> None:
    before = encoding.engine()
    encoding.use(name)
    try:
        written = encoding.dumps(value)
    finally:
        encoding.use(before)

    assert json.loads(written) == json.loads(json.dumps(value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_json_does_not_have_is_null(engine: str, value: float) -> None:
    assert encoding.dumps({"a": [value, 1], "b": "NaN"}) == b'{"a":[null,1],"b":"NaN"}'


def test_nan_beside_a_lone_surrogate_is_null(engine: str) -> None:
    assert json.loads(encoding.dumps([float("nan"), "\ud800"])) == [None, "\ud800"]


def test_documents_are_compact_utf_8(engine: str) -> None:
    assert encoding.dumps({"ą": [1, 2.5, None]}) == '{"ą":[1,2.5,null]}'.encode()


def test_deep_documents_are_written(engine: str) -> None:
    value: list[Any] = []
    for _ in range(500):
        value = [value]

    assert encoding.dumps(value) == b"[" * 501 + b"]" * 501


def test_a_cycle_is_an_error(engine: str) -> None:
    cycle: list[Any] = []
    cycle.append(cycle)

    with pytest.raises((ValueError, RecursionError)):
        encoding.dumps(cycle)


@pytest.mark.parametrize("value", [object(), {"a": 1j}, {(1, 2): 3}])
def test_what_has_no_json_is_the_standard_librarys_error(engine: str, value: Any) -> None:
    with pytest.raises(TypeError) as expected:
        json.dumps(value)

    with pytest.raises(TypeError) as raised:
        encoding.dumps(value)

    assert str(raised.value).split("(")[0] == str(expected.value).split("(")[0]
    assert raised.value.__context__ is None


def test_a_response_takes_the_document_as_it_is(engine: str) -> None:
    response = Response(json={"a": ["ą", float("nan")]})

    assert response.body == '{"a":["ą",null]}'.encode()
    assert response.content_type == "application/json; charset=utf-8"


def test_another_charset_gets_escapes(engine: str) -> None:
    response = Response(json={"a": "ą\ud800"}, encoding="iso-8859-1")

    assert response.body == b'{"a":"\\u0105\\ud800"}'
    assert response.content_type == "application/json; charset=iso-8859-1"


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nul", '"\t"', "1 2"])
def test_malformed_json_is_a_json_decode_error(engine: str, text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        encoding.loads(text)


def test_the_engine_in_use_is_named(engine: str) -> None:
    assert encoding.engine() == engine


def test_an_unknown_engine_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="one of orjson, msgspec, stdlib, not 'simplejson'"):
        encoding.use("simplejson")


@pytest.mark.parametrize("name", ["orjson", "msgspec"])
def test_a_missing_engine_says_how_to_get_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    before = encoding.engine()

    with pytest.raises(ConfigError, match=f"pip install {name}"):
        encoding.use(name)

    assert encoding.engine() == before


@pytest.mark.parametrize(
    ("missing", "chosen"),
    [([], "orjson"), (["orjson"], "msgspec"), (["orjson", "msgspec"], "stdlib")],
)
def test_the_fastest_installed_engine_is_chosen(
    missing: list[str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delenv("ANEL_JSON", raising=False)
    unchosen(monkeypatch)

    assert json.loads(encoding.dumps([1])) == [1]
    assert encoding.engine() == chosen


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANEL_JSON", "stdlib")
    unchosen(monkeypatch)

    assert encoding.engine() == "stdlib"


def test_a_wrong_choice_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANEL_JSON", "ujson")
    unchosen(monkeypatch)

    with pytest.raises(ConfigError, match=r"^ANEL_JSON=ujson: the JSON engine must be one of"):
        encoding.engine()


def unchosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not written JSON yet."""
    monkeypatch.setattr(encoding, "_engine", encoding._first)
    monkeypatch.setattr(encoding, "_name", "")


@pytest.mark.parametrize("name", encoding.ENGINES)
def test_a_server_answers_with_each_engine(serve: Serve, name: str) -> None:
    server = serve(
        """
        from anel import Application, encoding

        app = Application()
        app.router.add_route("/", lambda request: {"engine": encoding.engine(), "big": 2**70})
        app.router.add_constant("/constant", json=["ą"])
        """,
        ANEL_JSON=name,
    )

    assert server.ask(get("/")).body == b'{"engine":"%s","big":%d}' % (name.encode(), 2**70)
    assert server.ask(get("/constant")).body == '["ą"]'.encode()


def test_a_server_with_an_engine_that_is_not_there_does_not_start(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from anel import Application\napp = Application()\n")

    ended = subprocess.run(
        [sys.executable, "-m", "anel", "run", str(program), "--port", "0"],
        env={**os.environ, "ANEL_JSON": "ujson"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )

    assert ended.returncode == 3
    assert ended.stderr.startswith("anel: ANEL_JSON=ujson: the JSON engine must be one of")
    assert ended.stderr.count("\n") == 1
