"""Finds the application that the command line names, or that it does not name.

Owns the forms `module:attribute`, `module.attribute`, `file.py`, `file.py:attribute`, a module
alone, and `()` behind any of them for what makes an application; where one is looked for that
nobody names; and the rule that a module-level `app.run()` does nothing meanwhile. It says what it
does not find in one line; what the application's own code raises while it is imported passes
through unchanged.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType

from anel.exceptions import LoadError
from anel.settings import Setting, Switch, Text

OPTIONS: tuple[Setting, ...] = (
    Text(
        name="app",
        key="app",
        group="Which application",
        help="What to serve.",
        kind="APP",
        is_argument=True,
        wanted="module:attribute or file.py",
    ),
    Switch(
        name="factory",
        key="factory",
        group="Which application",
        help="APP is a function that makes the application; APP() says the same.",
        default=False,
    ),
    Text(
        name="app_dir",
        key="app-dir",
        group="Which application",
        help="Folder in which APP is looked for first; default: the working directory.",
        kind="PATH",
        wanted="the path of a folder",
    ),
)

_loading: ContextVar[bool] = ContextVar("anel_loading", default=False)

# What an application is called when only its module is named, in this order.
_USUAL_NAMES = ("app", "application", "api")
# What makes one, where there is none.
_USUAL_FACTORY = "create_app"
_CALL = "()"

# Where an application is that nobody names, in this order.
_USUAL_FILES = (
    "main.py",
    "app.py",
    "api.py",
    "wsgi.py",
    "asgi.py",
    "app/main.py",
    "app/app.py",
    "app/__init__.py",
)


def is_loading() -> bool:
    """Whether an application is just being loaded, so that its `run()` must do nothing."""
    return _loading.get()


def discover(folder: str = "") -> str | None:
    """Where an application is that nobody names: a spec for `load`, or None."""
    for name in _USUAL_FILES:
        if os.path.isfile(os.path.join(folder, name)):
            # As a member of its package, so that its relative imports work.
            module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            return module if "/" in name else name
    return None


def made_by(spec: str) -> str:
    """The spec of what a factory makes, given that of the factory."""
    return spec if spec.endswith(_CALL) else spec + _CALL


def load(spec: str, folder: str = "") -> object:
    """Imports what `spec` names and returns it; raises LoadError when it is not there.

    It is looked for in `folder`, which is the working directory unless it is given; modules are
    looked for elsewhere, too.
    """
    path = spec.removesuffix(_CALL)
    module_name, colon, attribute = path.partition(":")
    if not module_name or (colon and not attribute):
        raise LoadError(f"{spec!r} names no application; use module:attribute or file.py")
    with _marked():
        if module_name.endswith(".py") or "/" in module_name:
            found = _find(_import_file(os.path.join(folder, module_name)), attribute, spec)
        else:
            _put_first(os.path.abspath(folder))
            if not colon and "." in module_name:
                found = _find_dotted(module_name, spec)
            else:
                found = _find(_import_module(module_name, spec), attribute, spec)
        if spec.endswith(_CALL):
            return _call(found, spec)
    return found


def place_of(spec: str, folder: str = "") -> str | None:
    """The file or the package's folder of what `load` would find, without importing any of it.

    None for what is not found, or comes from nowhere on the disk.
    """
    name = spec.removesuffix(_CALL).partition(":")[0]
    if name.endswith(".py") or "/" in name:
        return os.path.join(folder, name)
    path = [os.path.abspath(folder), *sys.path]
    found = importlib.machinery.PathFinder.find_spec(name.partition(".")[0], path)
    if found is None:
        return None
    folders = list(found.submodule_search_locations or ())
    return folders[0] if folders else found.origin


@contextlib.contextmanager
def _marked() -> Iterator[None]:
    token = _loading.set(True)
    try:
        yield
    finally:
        _loading.reset(token)


def _import_module(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only when the named module itself is missing; its own failing imports are its author's.
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise LoadError(f"cannot find module {error.name!r} of {spec!r}") from None
        raise
    except (TypeError, ValueError):
        if name.startswith(".") or ".." in name:
            raise LoadError(f"{spec!r} is not a module name") from None
        raise


def check_file(path: str) -> None:
    """Raises LoadError unless the file is there and may be read."""
    if not os.path.isfile(path):
        raise LoadError(f"cannot find file {path!r}")
    if not os.access(path, os.R_OK):
        raise LoadError(f"cannot read file {path!r}")


def _import_file(path: str) -> ModuleType:
    check_file(path)
    stem = os.path.splitext(os.path.basename(path))[0]
    # A file called like a module that is already loaded must not take its place.
    name = f"anel_application_{stem}" if stem in sys.modules else stem
    _put_first(os.path.dirname(os.path.abspath(path)))
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise LoadError(f"{path!r} is not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _put_first(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _find_dotted(name: str, spec: str) -> object:
    """An attribute of a module, or the application of a module that is in a package."""
    package, _, last = name.rpartition(".")
    module = _import_module(package, spec)
    if not isinstance(getattr(module, last, module), ModuleType):
        return getattr(module, last)
    is_package = hasattr(module, "__path__")
    if not is_package or importlib.util.find_spec(name) is None:
        return _find(module, last, spec)
    return _find(_import_module(name, spec), "", spec)


def _find(module: ModuleType, attribute: str, spec: str) -> object:
    if attribute:
        found: object = module
        for name in attribute.split("."):
            if not hasattr(found, name):
                raise LoadError(f"{module.__name__!r} has no attribute {attribute!r} ({spec!r})")
            found = getattr(found, name)
        return found
    factory = getattr(module, _USUAL_FACTORY, None)
    if spec.endswith(_CALL) and factory is not None:
        return factory
    for name in _USUAL_NAMES:
        # A module of a package may be called so, too.
        if not isinstance(getattr(module, name, module), ModuleType):
            return getattr(module, name)
    if factory is not None:
        return _call(factory, spec)
    usual = ", ".join((*_USUAL_NAMES, _USUAL_FACTORY + _CALL))
    raise LoadError(f"{spec!r} has none of {usual}; name the application, as in {spec}:name")


def _call(factory: object, spec: str) -> object:
    if not callable(factory):
        raise LoadError(f"{spec!r} calls a {type(factory).__name__}, which is no function")
    if inspect.iscoroutinefunction(factory):
        raise LoadError(
            f"{spec!r} calls a coroutine function; no loop runs yet that could await it"
        )
    made: object = factory()
    return made
