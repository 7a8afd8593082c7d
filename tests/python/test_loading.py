"""How an application is found: what makes one, where it is looked for, and what nobody named."""

from __future__ import annotations

import pathlib
import sys

import pytest
from anel import Application
from anel.cli import main
from anel.exceptions import LoadError
from anel.loading import discover, is_loading, load
from click.testing import CliRunner, Result

ONE = "from anel import Application\napp = Application()\n"
FACTORY = "from anel import Application\ndef create_app():\n    return Application()\n"
ORDER = [
    "main.py",
    "app.py",
    "api.py",
    "wsgi.py",
    "asgi.py",
    "app/main.py",
    "app/app.py",
    "app/__init__.py",
]


pytestmark = pytest.mark.usefixtures("folder")


def write(folder: pathlib.Path, **sources: str) -> None:
    """Writes modules; two underscores stand for a slash."""
    for name, source in sources.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize(
    "spec",
    [
        "made:make()",
        "made.make()",
        "made.py:make()",
        "made()",
        "made.py()",
        "made",
        "made:Makers.make()",
    ],
)
def test_a_factory_is_called_in_every_form(folder: pathlib.Path, spec: str) -> None:
    source = FACTORY + "make = create_app\nclass Makers:\n    make = staticmethod(create_app)\n"
    write(folder, made=source)

    assert isinstance(load(spec), Application)


def test_an_application_goes_before_a_factory_beside_it(folder: pathlib.Path) -> None:
    write(folder, both=ONE + FACTORY)

    assert load("both") is sys.modules["both"].app
    assert load("both()") is not sys.modules["both"].app


def test_run_does_nothing_while_a_factory_is_called(folder: pathlib.Path) -> None:
    write(folder, made=ONE + "def make():\n    app.run()\n    return app\n")

    assert isinstance(load("made:make()"), Application)
    assert not is_loading()


@pytest.mark.parametrize("spec", ["made:app()", "made:number()"])
def test_what_cannot_be_called_makes_nothing(folder: pathlib.Path, spec: str) -> None:
    write(folder, made=ONE + "number = 7\n")

    with pytest.raises(LoadError, match=f"'made:{spec[5:-2]}.*' calls a .*, which is no function"):
        load(spec)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["made:make"],
            "'made:make' is a function, not an anel.Application; --factory calls it",
        ),
        (
            ["made:later()"],
            "'made:later()' calls a coroutine function; no loop runs yet that could await it",
        ),
        (["made:number", "--factory"], "'made:number()' calls a int, which is no function"),
        (["made:nothing", "--factory"], "'made' has no attribute 'nothing' ('made:nothing()')"),
    ],
)
def test_a_factory_that_makes_no_application_is_named(
    folder: pathlib.Path, arguments: list[str], line: str
) -> None:
    source = "def make(): return 5\nasync def later(): ...\nnumber = 7\n"
    write(folder, made=source)

    result = invoke("routes", *arguments)

    assert (result.exit_code, result.stderr) == (3, f"anel: {line}\n")


def test_a_factory_that_raises_shows_its_own_frames_alone(folder: pathlib.Path) -> None:
    write(folder, made="def make():\n    1 / 0\n")

    result = invoke("routes", "made:make()")

    assert result.exit_code == 3
    files = [line for line in result.stderr.splitlines() if line.lstrip().startswith("File ")]
    assert len(files) == 1
    assert "made.py" in files[0]


@pytest.mark.parametrize("spec", ["shop.main", "shop.main:app", "shop/main.py"])
def test_a_module_of_a_package_is_named_alone(folder: pathlib.Path, spec: str) -> None:
    write(folder, shop__main=ONE)
    (folder / "shop" / "__init__.py").write_text("")

    assert isinstance(load(spec), Application)


def test_an_attribute_goes_before_a_module_of_its_name(folder: pathlib.Path) -> None:
    write(folder, shop__main=ONE)
    (folder / "shop" / "__init__.py").write_text(
        "from anel import Application\n" + "main = Application()"
    )

    assert load("shop.main") is sys.modules["shop"].main


def test_a_module_called_like_an_application_is_none(folder: pathlib.Path) -> None:
    write(folder, app__app=ONE)
    (folder / "app" / "__init__.py").write_text(
        "from app.app import app as application, app\nimport app.app\n"
    )

    assert isinstance(load("app"), Application)


# What nobody has named.


@pytest.mark.parametrize("at", range(len(ORDER)))
def test_the_first_file_that_is_there_has_the_application(folder: pathlib.Path, at: int) -> None:
    for name in ORDER[at:]:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{ONE}app.router.add_constant('/{name}', text='')\n")
    if at < len(ORDER) - 1:
        # Else `app.app` is what the package says it is.
        (folder / "app" / "__init__.py").write_text("")

    spec = discover()

    assert spec is not None
    found = load(spec)
    assert isinstance(found, Application)
    assert [route.pattern for route in found.router] == [f"/{ORDER[at]}"]


def test_a_module_in_a_package_may_import_relatively(folder: pathlib.Path) -> None:
    write(folder, app__beside=ONE, app__main="from .beside import app\n")

    spec = discover()

    assert spec == "app.main"
    assert isinstance(load(spec), Application)


@pytest.mark.parametrize("name", ["app", "application", "api", "create_app"])
def test_what_is_found_is_told(folder: pathlib.Path, name: str) -> None:
    source = FACTORY if name == "create_app" else ONE.replace("app =", f"{name} =")
    write(folder, main=source)

    result = invoke("routes", "--json")

    assert (result.exit_code, result.stdout) == (0, "[]\n")
    assert result.stderr == "anel: found main.py\n"


def test_what_the_file_names_goes_before_what_is_found(folder: pathlib.Path) -> None:
    write(folder, main="1 / 0\n", shop=ONE)
    (folder / "pyproject.toml").write_text("[tool.anel]\napp = 'shop:app'\n")

    result = invoke("routes")

    assert (result.exit_code, result.stderr) == (0, "")


def test_the_environment_names_an_application(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, shop=ONE)
    (folder / "pyproject.toml").write_text("[tool.anel]\napp = 'other:app'\n")
    monkeypatch.setenv("ANEL_APP", "shop:app")

    assert invoke("routes").exit_code == 0
    assert invoke("routes", "another:app").exit_code == 3


@pytest.mark.parametrize("command", ["run", "dev", "routes"])
def test_where_nothing_is_found_an_application_is_asked_for(command: str) -> None:
    result = invoke(command)

    assert result.exit_code == 2
    assert "Error: Found no application: name one, as in `anel main:app`" in result.stderr


def test_a_file_without_an_application_says_how_to_name_it(folder: pathlib.Path) -> None:
    write(folder, main="x = 1\n")

    result = invoke("routes")

    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1] == (
        "anel: 'main.py' has none of app, application, api, create_app();"
        " name the application, as in main.py:name"
    )


@pytest.mark.parametrize("spec", ["shop:app", "shop.py", None])
def test_an_application_is_looked_for_in_a_folder(folder: pathlib.Path, spec: str | None) -> None:
    write(folder, src__shop=ONE, src__main="from shop import app\n", shop="1 / 0\n")
    named = [] if spec is None else [spec]

    result = invoke("config", "--check", *named, "--app-dir", "src")

    assert (result.exit_code, result.stdout) == (0, "ok\n")


def test_the_option_calls_the_factory(folder: pathlib.Path) -> None:
    write(folder, made=FACTORY.replace("create_app", "make"))

    assert invoke("config", "--check", "made:make", "--factory").stdout == "ok\n"
    assert invoke("config", "--check", "made:make").exit_code == 3
