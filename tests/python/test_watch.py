"""What counts as a change of a program's files, and which files are its: on a real disk.

Owns the patterns in which editors and tools save, for both ways to learn when to look: watchfiles,
and a look every now and then.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from anel.exceptions import ConfigError
from anel.selection import Pattern, Selection
from anel.watch import Change, Watch
from conftest import DEADLINE_S


class Watching:
    """A watch that runs in a thread, and what it says."""

    def __init__(self, folder: pathlib.Path, *, polls: bool, delay_s: float) -> None:
        selection = Selection([str(folder)], ["*.html"])
        self.watch = Watch(selection, delay_s, str(folder))
        self._ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._ours.settimeout(DEADLINE_S)
        self._theirs = theirs
        self._thread = threading.Thread(target=self.watch.run, args=(theirs, polls))

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ours.close()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        self._theirs.close()

    def next(self) -> Change:
        """What it says next."""
        return Change.decode(self._ours.recv(65536))


Watched = Callable[..., Watching]


@pytest.fixture(params=["watchfiles", "polling"])
def watched(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Watched]:
    """`watched(delay_s)` watches the test's folder, in each of the two ways in turn."""
    if request.param == "watchfiles":
        pytest.importorskip("watchfiles")
    with contextlib.ExitStack() as stack:

        def start(delay_s: float = 0.05) -> Watching:
            polls = request.param == "polling"
            return stack.enter_context(Watching(tmp_path, polls=polls, delay_s=delay_s))

        yield start


@pytest.fixture
def app(tmp_path: pathlib.Path) -> pathlib.Path:
    """A source file."""
    file = tmp_path / "app.py"
    file.write_text("first = 1\n")
    return file


def write_in_place(file: pathlib.Path, text: str) -> None:
    file.write_text(text)


def write_and_rename(file: pathlib.Path, text: str) -> None:
    other = file.with_name(".app.py.tmp")
    other.write_text(text)
    other.rename(file)


def delete_and_create(file: pathlib.Path, text: str) -> None:
    file.unlink()
    file.write_text(text)


def keep_a_backup(file: pathlib.Path, text: str) -> None:
    file.rename(file.with_name("app.py~"))
    file.write_text(text)


def write_at_the_same_time_with_the_same_length(file: pathlib.Path, text: str) -> None:
    before = file.stat()
    text = text.ljust(before.st_size)[: before.st_size]
    write_and_rename(file, text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "save",
    [
        write_in_place,
        write_and_rename,
        delete_and_create,
        keep_a_backup,
        write_at_the_same_time_with_the_same_length,
    ],
)
def test_a_save_is_one_change_however_the_editor_does_it(
    watched: Watched, app: pathlib.Path, save: Callable[[pathlib.Path, str], None]
) -> None:
    watching = watched()

    save(app, "second\n")

    assert watching.next() == Change("app.py")
    # Whatever else the first save had caused would come before the second one.
    save(app, "thrice\n")
    assert watching.next() == Change("app.py")


def test_what_is_written_in_pieces_is_one_change(watched: Watched, app: pathlib.Path) -> None:
    watching = watched(0.5)

    with app.open("w") as file:
        for piece in ("second", " = ", "2\n"):
            file.write(piece)
            file.flush()
            time.sleep(0.05)

    assert watching.next() == Change("app.py")
    app.write_text("third = 3\n")
    assert watching.next() == Change("app.py")


def test_what_is_written_on_and_on_is_told_of_all_the_same(
    watched: Watched, app: pathlib.Path
) -> None:
    watching = watched(0.1)
    is_over = threading.Event()

    def write_on() -> None:
        while not is_over.wait(0.02):
            app.write_text(f"now = {time.monotonic_ns()}\n")

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        change = watching.next()
    finally:
        is_over.set()
        writer.join(DEADLINE_S)

    assert change == Change("app.py")


def test_many_files_at_once_are_one_change(watched: Watched, tmp_path: pathlib.Path) -> None:
    watching = watched(0.3)

    for number in range(20):
        (tmp_path / f"m{number:02}.py").write_text("")

    change = watching.next()
    assert change == Change("m00.py", 20)
    assert str(change) == "m00.py and 19 more"


def knowing(watched: Watched, file: pathlib.Path) -> Watching:
    """A watch that has read the file: until then every write is a change to it."""
    watching = watched()
    file.write_text("known = 1\n")
    assert watching.next() == Change(file.name)
    return watching


def test_a_touch_is_told_apart_from_a_change(watched: Watched, app: pathlib.Path) -> None:
    watching = knowing(watched, app)

    os.utime(app)

    assert watching.next() == Change("app.py", is_touch=True)


def test_a_save_without_a_change_is_a_touch(watched: Watched, app: pathlib.Path) -> None:
    watching = knowing(watched, app)

    write_and_rename(app, app.read_text())

    assert watching.next() == Change("app.py", is_touch=True)


def test_a_file_that_goes_is_a_change(watched: Watched, app: pathlib.Path) -> None:
    watching = watched()

    app.unlink()

    assert watching.next() == Change("app.py")


def test_files_of_new_folders_are_watched(watched: Watched, tmp_path: pathlib.Path) -> None:
    watching = watched()
    package = tmp_path / "package" / "inner"

    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")

    assert watching.next() == Change("package/inner/__init__.py")
    (package / "__init__.py").write_text("x = 1\n")
    assert watching.next() == Change("package/inner/__init__.py")


def test_a_folder_that_is_made_anew_is_watched(watched: Watched, tmp_path: pathlib.Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("")
    watching = watched()

    (package / "a.py").unlink()
    package.rmdir()
    package.mkdir()
    (package / "b.py").write_text("")

    assert watching.next() == Change("package/a.py", 2)
    (package / "b.py").write_text("x = 1\n")
    assert watching.next() == Change("package/b.py")


def test_a_folder_that_is_renamed_is_a_change(watched: Watched, tmp_path: pathlib.Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.py").write_text("")
    watching = watched()

    (tmp_path / "old").rename(tmp_path / "young")

    assert watching.next() == Change("old/a.py", 2)


def test_a_link_changes_with_what_it_leads_to(watched: Watched, tmp_path: pathlib.Path) -> None:
    elsewhere = tmp_path / ".elsewhere"
    elsewhere.mkdir()
    (elsewhere / "real.py").write_text("")
    (tmp_path / "link.py").symlink_to(elsewhere / "real.py")
    watching = watched()

    (elsewhere / "real.py").write_text("x = 1\n")

    assert watching.next() == Change("link.py")


def test_files_that_are_not_watched_are_no_change(
    watched: Watched, app: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for folder in (".git", "__pycache__", "node_modules", ".venv"):
        (tmp_path / folder).mkdir()
    watching = watched()

    for name in ("app.py~", ".app.py.swp", "#app.py#", "notes.txt", ".hidden.py"):
        (tmp_path / name).write_text("x")
    for folder in (".git", "__pycache__", "node_modules", ".venv"):
        (tmp_path / folder / "x.py").write_text("x")

    app.write_text("second = 2\n")
    assert watching.next() == Change("app.py")


def test_what_changed_before_the_watch_runs_is_told_of(tmp_path: pathlib.Path) -> None:
    watching = Watching(tmp_path, polls=True, delay_s=0.05)
    (tmp_path / "app.py").write_text("")

    with watching:
        assert watching.next() == Change("app.py")


def test_a_look_without_a_change_finds_nothing(tmp_path: pathlib.Path, app: pathlib.Path) -> None:
    watch = Watch(Selection([str(tmp_path)]))

    assert watch.look(lambda _seconds: False) is None


def test_a_name_that_cannot_be_printed_is_told_in_ascii() -> None:
    name = "a\n\x1b[2J\udcff.py"

    change = Change.decode(Change.of([f"/x/{name}"], "/x").encode())

    assert str(change) == ascii(name)


def test_a_change_has_the_name_of_a_file_as_seen_from_the_start() -> None:
    assert Change.of(["/x/a.py"], "/x").name == "a.py"
    assert Change.of(["/x/a.py"], "/").name == "x/a.py"
    assert Change.of(["/xy/a.py"], "/x").name == "/xy/a.py"
    assert Change.of(["/x/a.py"], "").name == "/x/a.py"


def test_bytecode_of_what_was_written_lately_is_not_believed(tmp_path: pathlib.Path) -> None:
    for name in ("old", "new"):
        (tmp_path / f"{name}.py").write_text("x = 1\n")
    (tmp_path / "__pycache__").mkdir()
    paths = {name: tmp_path / "__pycache__" / f"{name}.cpython-312.pyc" for name in ("old", "new")}
    for path in paths.values():
        path.write_bytes(b"")
    watch = Watch(Selection([str(tmp_path)]))
    # As if the file was as old as that when the watch began.
    watch._began_ns = (tmp_path / "old.py").stat().st_ctime_ns + 1
    write_and_rename(tmp_path / "new.py", "x = 2\n")

    watch.remove_bytecode()

    assert paths["old"].exists()
    assert not paths["new"].exists()


# Which files.


def selected(folder: pathlib.Path, *includes: str, excludes: tuple[str, ...] = ()) -> set[str]:
    """The files that are watched, as seen from the folder."""
    found = Selection([str(folder)], includes, excludes).scan()
    return {os.path.relpath(path, folder) for path in found.files}


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """A project with everything that projects have."""
    for name in (
        "app.py",
        ".env",
        ".hidden.py",
        "data.html",
        "pkg/__init__.py",
        "pkg/templates/page.html",
        "pkg/templates/deep/part.html",
        "pkg/static/site.css",
        "tests/test_app.py",
        ".git/hook.py",
        "pkg/__pycache__/x.py",
        "node_modules/m/setup.py",
        "env/pyvenv.cfg",
        "env/lib/python3.12/thing.py",
        "lib/site-packages/other.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def test_the_python_files_of_a_project_are_watched(tree: pathlib.Path) -> None:
    assert selected(tree) == {"app.py", "pkg/__init__.py", "tests/test_app.py"}


def test_other_files_are_included_by_name(tree: pathlib.Path) -> None:
    more = selected(tree, "*.html") - selected(tree)

    assert more == {"data.html", "pkg/templates/page.html", "pkg/templates/deep/part.html"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("pkg/templates/*.html", {"pkg/templates/page.html"}),
        ("pkg/**/*.html", {"pkg/templates/page.html", "pkg/templates/deep/part.html"}),
        ("**/data.html", {"data.html"}),
        ("./data.html", {"data.html"}),
        ("d?ta.[gh]tml", {"data.html"}),
        (".env", {".env"}),
        (".*", {".env", ".hidden.py"}),
        ("*", {"data.html", "pkg/static/site.css"}),
        ("?env", set()),
    ],
)
def test_patterns_match_as_in_a_shell(tree: pathlib.Path, pattern: str, names: set[str]) -> None:
    more = selected(tree, pattern) - selected(tree)

    assert names <= more
    assert pattern == "*" or names == more


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("test_*.py", {"app.py", "pkg/__init__.py"}),
        ("tests", {"app.py", "pkg/__init__.py"}),
        ("tests/", {"app.py", "pkg/__init__.py"}),
        ("tests/*", {"app.py", "pkg/__init__.py"}),
        ("pkg/__init__.py", {"app.py", "tests/test_app.py"}),
        ("*.py", set()),
    ],
)
def test_what_is_excluded_is_not_watched(tree: pathlib.Path, pattern: str, names: set[str]) -> None:
    assert selected(tree, excludes=(pattern,)) == names


def test_a_folder_that_is_never_looked_into_is_watched_when_it_is_named(
    tree: pathlib.Path,
) -> None:
    found = Selection([str(tree), str(tree / "node_modules"), str(tree / ".git")]).scan()

    assert str(tree / "node_modules" / "m" / "setup.py") in found.files
    assert str(tree / ".git" / "hook.py") in found.files


def test_a_single_file_may_be_watched(tree: pathlib.Path) -> None:
    found = Selection([str(tree / ".env")]).scan()

    assert set(found.files) == {str(tree / ".env")}


def test_a_folder_with_a_similar_name_is_another_one(tree: pathlib.Path) -> None:
    selection = Selection([str(tree / "pkg")])

    assert selection.is_of_interest(str(tree / "pkg" / "new.py"))
    assert not selection.is_of_interest(str(tree / "pkg2" / "new.py"))


def test_the_news_of_a_folder_that_has_gone_do_not_hide_its_successor(
    tree: pathlib.Path,
) -> None:
    selection = Selection([str(tree)])
    # It is no folder at this moment, and no file that is watched.
    assert not selection.is_of_interest(str(tree / "later"))

    (tree / "later").mkdir()
    (tree / "later" / "a.py").write_text("")

    assert str(tree / "later" / "a.py") in selection.scan().files


def test_a_link_that_leads_back_is_not_followed(tree: pathlib.Path) -> None:
    (tree / "pkg" / "loop").symlink_to(tree)

    assert selected(tree) == {"app.py", "pkg/__init__.py", "tests/test_app.py"}


def test_too_many_folders_are_refused_with_the_way_out(tree: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"too many folders to watch: name those .*--reload-dir"):
        Selection([str(tree)]).scan(folders_max=3)


def test_a_folder_that_is_not_there_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot watch '.*/nowhere': it is not there"):
        Selection([str(tmp_path / "nowhere")])


def test_no_folder_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no folder to watch"):
        Selection([])


@pytest.mark.parametrize("text", ["", "/", ".", "../*.py", "a/../b", "/etc/*.py"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no pattern of files to watch"):
        Pattern.parse(text)
