"""Reload on a live server: what somebody sees who saves a file and asks again.

Owns both ways of starting, by the command line, whose workers load the application, and by a
program that runs itself, which is run again; and both ways to hear of a change.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from conftest import DEADLINE_S, Answer, Client, Server, get, start_service, wait_until
from test_workers import Load, is_gone

APP = """
import asyncio, json, os, sys, time
from anel import Application
import greeting

app = Application()

async def wait(request):
    print("waiting", flush=True)
    while not os.path.exists(request.query["for"]):
        await asyncio.sleep(0.01)
    return request.Response(text=greeting.TEXT)

app.router.add_route("/", lambda request: request.Response(text=greeting.TEXT))
app.router.add_route("/pid", lambda request: request.Response(text=str(os.getpid())))
app.router.add_route("/wait", wait)
"""

# What is broken is met by workers alone: a program that fails when it is started has failed.
IN_WORKER = APP.replace(
    "import greeting\n", "if '_ANEL_POST' in os.environ:\n    import greeting\n"
)

RUN = """
if __name__ == "__main__":
    app.run("127.0.0.1", 0, reload=True)
"""

# A reload itself takes 0.3 s on an idle machine; what would wait for a deadline takes longer.
PROMPTLY_S = 4.0

PATHS = {
    "file": ["-m", "anel", "run", "--reload", "app.py"],
    "module": ["-m", "anel", "run", "--reload", "app:app"],
    "dev": ["-m", "anel", "dev", "app.py"],
    "program": ["app.py"],
    "package": ["-m", "site_"],
    "japronto": ["-m", "anel", "run", "--japronto", "--reload", "app.py"],
}
WAYS = ["file", "program"]


@dataclasses.dataclass
class Project:
    """A folder with an application, and how it is served."""

    folder: pathlib.Path
    environment: dict[str, str]
    stack: contextlib.ExitStack

    def write(self, name: str, text: str) -> pathlib.Path:
        """Saves a file as an editor does, by a rename."""
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        saved = file.with_name(f".{file.name}.tmp")
        saved.write_text(text)
        saved.rename(file)
        return file

    def greet(self, text: str) -> None:
        """Saves the module that says what is answered."""
        self.write("greeting.py", f"TEXT = {text!r}\n")

    def start(
        self, way: str, *options: str, announced: str = r"Accepting .*:(\d+)$", **environment: str
    ) -> Server:
        """Serves it on a port that the kernel picks, and waits until something is announced."""
        command = [sys.executable, *PATHS[way], *options]
        return self.run(command, announced, **{"ANEL_PORT": "0", **environment})

    def start_with(self, greeting: str, way: str, announced: str, **environment: str) -> Server:
        """Serves it with a greeting that the first worker does not survive, or not soon."""
        if way == "program":
            self.write("app.py", IN_WORKER + RUN.replace('"127.0.0.1", 0, ', ""))
        self.write("greeting.py", greeting)
        return self.start(way, announced=announced, **environment)

    def run(self, command: list[str], announced: str, **environment: str) -> Server:
        """Starts a command in the folder, and waits until it prints something."""
        command = ["env", "-C", str(self.folder), *command]
        environment = {**self.environment, **environment}
        return start_service(self.stack, command, announced, (), environment)


@pytest.fixture(params=["watchfiles", "polling"])
def watcher(request: pytest.FixtureRequest) -> str:
    """Each way to hear of a change in turn."""
    if request.param == "watchfiles":
        pytest.importorskip("watchfiles")
    return str(request.param)


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Iterator[Project]:
    """A project that greets with "one", in a folder of its own."""
    with contextlib.ExitStack() as stack:
        # As a user has it: bytecode is written.
        project = Project(tmp_path / "project", {"PYTHONDONTWRITEBYTECODE": ""}, stack)
        project.write("app.py", APP + RUN)
        project.write("site_/__main__.py", APP + RUN)
        project.greet("one")
        yield project


def answers(server: Server, text: str) -> None:
    """Waits until the server greets with a text."""
    wait_until(lambda: server.ask(get("/")).text == text, f"the answer {text!r}")


def worker(server: Server) -> int:
    """The process that serves."""
    return int(server.ask(get("/pid")).text)


def children(number: int) -> list[int]:
    """The processes that a process has started."""
    listed = pathlib.Path(f"/proc/{number}/task/{number}/children").read_text()
    return [int(child) for child in listed.split()]


def told_to_end(server: Server, number: int = signal.SIGTERM) -> None:
    """Ends it, which must neither fail nor take long, and must leave nobody behind."""
    family = children(server.process.pid)
    begun = time.monotonic()

    assert server.stop(number) == 0, "\n".join(server.lines)

    assert time.monotonic() - begun < PROMPTLY_S
    assert all(map(is_gone, family))


@pytest.mark.parametrize("way", PATHS)
def test_a_save_is_served(project: Project, way: str) -> None:
    server = project.start(way)
    answers(server, "one")

    project.greet("two")

    answers(server, "two")
    server.wait_for_line(r"^greeting\.py changed, reloading$")
    told_to_end(server)


@pytest.mark.parametrize("way", WAYS)
def test_a_save_is_served_whichever_way_it_is_heard_of(
    project: Project, way: str, watcher: str
) -> None:
    forced = {"WATCHFILES_FORCE_POLLING": "1" if watcher == "polling" else ""}
    server = project.start(way, **forced)

    for text in ("two", "three"):
        project.greet(text)
        answers(server, text)

    told_to_end(server)


@pytest.mark.parametrize("way", WAYS)
def test_two_saves_of_a_length_in_one_second_are_two(project: Project, way: str) -> None:
    server = project.start(way)
    answers(server, "one")
    first = (project.folder / "greeting.py").stat().st_mtime_ns
    wait_until(lambda: any(project.folder.glob("__pycache__/greeting.*")), "bytecode")

    project.greet("two")
    os.utime(project.folder / "greeting.py", ns=(first, first))

    answers(server, "two")


@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_start_is_shown_and_the_last_version_goes_on(
    project: Project, way: str
) -> None:
    server = project.start(way)

    project.write("greeting.py", "TEXT = (\n")

    server.wait_for_line(r"^SyntaxError: '\(' was never closed$")
    server.wait_for_line(r"^anel: the last version goes on; waiting for a file to change$")
    assert server.ask(get("/")).text == "one"
    project.greet("two")
    answers(server, "two")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("broken", "shown"),
    [
        ("import nowhere\n", "^ModuleNotFoundError: No module named 'nowhere'$"),
        ("from anel import Router\nRouter(prefix='x')\n", "Error: .*prefix"),
        ("raise SystemExit(0)\n", "before it served|called exit"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "SIGKILL! before it served$"),
    ],
)
def test_whatever_stops_a_start_waits_for_the_next_save(
    project: Project, way: str, broken: str, shown: str
) -> None:
    server = project.start(way)

    project.write("greeting.py", broken)

    server.wait_for_line(shown)
    server.wait_for_line("waiting for a file to change")
    project.greet("two")
    answers(server, "two")


@pytest.mark.parametrize("way", WAYS)
def test_a_module_that_was_missing_is_found_once_it_is_there(project: Project, way: str) -> None:
    server = project.start_with("from later import TEXT\n", way, "^anel: waiting for a file")

    project.write("later.py", "TEXT = 'late'\n")

    server.port = int(server.wait_for_line(r"Accepting .*:(\d+)$")[1])
    assert server.ask(get("/")).text == "late"


@pytest.mark.parametrize("way", WAYS)
def test_who_comes_before_the_first_start_succeeds_is_answered_late(
    project: Project, way: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "socket"
    chosen = {"ANEL_PORT": "", "ANEL_UDS": str(path)}
    server = project.start_with("TEXT = (\n", way, "^anel: waiting for a file", **chosen)

    with Client.to(socket.AF_UNIX, str(path)) as client:
        client.send(get("/"))
        assert client.is_silent()
        project.greet("two")
        assert client.answer().text == "two"

    server.wait_for_line("^Accepting connections on unix:")
    told_to_end(server)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_while_it_waits_for_a_save(project: Project, way: str, number: int) -> None:
    server = project.start_with("TEXT = (\n", way, "^anel: waiting for a file")

    told_to_end(server, number)


SLOW = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_while_a_first_worker_imports(project: Project, way: str, number: int) -> None:
    server = project.start_with(SLOW, way, "^importing$")

    told_to_end(server, number)


@pytest.mark.parametrize("way", WAYS)
def test_it_ends_while_a_next_worker_imports(project: Project, way: str) -> None:
    server = project.start(way)
    project.write("greeting.py", SLOW)
    server.wait_for_line("^importing$")

    told_to_end(server)


def test_ctrl_c_ends_everything_without_a_word_of_the_workers(project: Project) -> None:
    server = project.run(["setsid", sys.executable, *PATHS["program"]], r"Accepting .*:(\d+)$")
    project.write("greeting.py", SLOW)
    server.wait_for_line("^importing$")

    os.killpg(server.process.pid, signal.SIGINT)

    assert server.wait() == 0
    assert server.lines[-1] == "Termination request received"


@pytest.mark.parametrize("way", WAYS)
def test_a_save_during_a_start_begins_it_anew(project: Project, way: str) -> None:
    server = project.start(way)
    project.write("greeting.py", SLOW)
    server.wait_for_line("^importing$")
    family = children(server.process.pid)
    begun = time.monotonic()

    project.greet("three")

    answers(server, "three")
    assert time.monotonic() - begun < PROMPTLY_S
    # The watcher stays; the old worker and the one that has not become any do not.
    wait_until(lambda: sum(map(is_gone, family)) == 2, "the end of the others")
    assert not [line for line in server.lines if "crashed" in line]


@pytest.mark.parametrize("way", WAYS)
def test_a_save_during_a_start_up_hook_begins_it_anew(project: Project, way: str) -> None:
    hook = "async def hang(app):\n    await asyncio.sleep(greeting.S)\napp.on_startup(hang)\n"
    project.write("greeting.py", "TEXT = 'one'\nS = 0\n")
    project.write("app.py", APP + hook + RUN)
    server = project.start(way)
    before = worker(server)
    project.write("greeting.py", "TEXT = 'two'\nS = 60\n")
    wait_until(lambda: len(children(server.process.pid)) == 3, "the next worker")

    project.write("greeting.py", "TEXT = 'three'\nS = 0\n")

    answers(server, "three")
    wait_until(lambda: len(children(server.process.pid)) == 2, "the end of the others")
    assert is_gone(before)


@pytest.mark.parametrize("way", WAYS)
def test_a_request_in_progress_gets_its_answer(project: Project, way: str) -> None:
    server = project.start(way)

    with server.client() as client:
        client.send(get("/wait?for=awaited"))
        server.wait_for_line("^waiting$")
        project.greet("two")
        answers(server, "two")
        assert client.is_silent()
        project.write("awaited", "")
        assert client.answer().text == "one"


def test_a_request_that_takes_too_long_is_given_up(project: Project) -> None:
    server = project.start("file")
    before = worker(server)

    with server.client() as client:
        client.send(get("/wait?for=nothing"))
        server.wait_for_line("^waiting$")
        project.greet("two")
        answers(server, "two")
        begun = time.monotonic()
        assert client.answer().status == 503
        assert time.monotonic() - begun < PROMPTLY_S

    server.wait_for_line("^Forcefully killing 1 connections$")
    wait_until(lambda: is_gone(before), "the end of the old worker")


def test_idle_connections_are_closed_at_once_and_without_a_word(project: Project) -> None:
    server = project.start("file")

    with server.client() as client:
        assert client.ask(get("/")).text == "one"
        project.greet("two")
        begun = time.monotonic()
        assert client.is_ended()
        assert time.monotonic() - begun < PROMPTLY_S

    assert server.stop() == 0
    told = [line for line in server.lines if "Accepting" not in line]
    assert told == ["greeting.py changed, reloading", "Termination request received"]


@pytest.mark.parametrize("way", WAYS)
def test_nobody_is_refused_while_it_reloads(project: Project, way: str) -> None:
    server = project.start(way)

    with Load(server, 2, keep_alive=False) as load:
        for number in range(3):
            project.greet(f"v{number}")
            wait_until(lambda text=f"v{number}": load.answers[text] > 0, "the next version")  # type: ignore[misc]
        project.write("greeting.py", "TEXT = (\n")
        server.wait_for_line("waiting for a file to change")
        project.greet("last")
        wait_until(lambda: load.answers["last"] > 0, "the last version")

    assert load.refusals == 0


@pytest.mark.parametrize("way", WAYS)
def test_twenty_reloads_leave_nothing_behind(project: Project, way: str) -> None:
    server = project.start(way)
    first = worker(server)
    of_master, of_first = server.open_descriptors(), descriptors(first)
    seen = set()

    for number in range(20):
        seen.add(worker(server))
        project.greet(f"v{number}")
        answers(server, f"v{number}")

    wait_until(lambda: all(map(is_gone, seen)), "the end of the old workers")
    wait_until(lambda: len(children(server.process.pid)) == 2, "one worker and the watcher")
    last = worker(server)
    wait_until(lambda: server.open_descriptors() == of_master, "what the master had open")
    # Connections of ours may just be closed.
    wait_until(lambda: descriptors(last) <= of_first, "what the first worker had open")
    told_to_end(server)
    assert server.lines.count("greeting.py changed, reloading") == 20


def descriptors(number: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{number}/fd"))


def test_a_touch_reloads_nothing(project: Project) -> None:
    server = project.start("file")
    # The watcher has read the files by then.
    project.greet("two")
    answers(server, "two")
    before = worker(server)

    os.utime(project.folder / "greeting.py")
    project.write("app.py", (project.folder / "app.py").read_text())
    project.write("page.py", "")

    server.wait_for_line(r"^page\.py changed, reloading$")
    wait_until(lambda: is_gone(before), "the end of the old worker")
    reloads = [line for line in server.lines if "reloading" in line]
    assert reloads == ["greeting.py changed, reloading", "page.py changed, reloading"]


def test_a_touch_has_what_failed_tried_again(project: Project, tmp_path: pathlib.Path) -> None:
    server = project.start("file")
    needed = tmp_path / "needed"
    project.write("greeting.py", f"TEXT = open({str(needed)!r}).read()\n")
    server.wait_for_line("the last version goes on")
    needed.write_text("mended")

    os.utime(project.folder / "greeting.py")

    answers(server, "mended")


def test_a_hup_reloads_and_tries_again_what_failed(
    project: Project, tmp_path: pathlib.Path
) -> None:
    server = project.start("file")
    needed = tmp_path / "needed"
    project.write("greeting.py", f"TEXT = open({str(needed)!r}).read()\n")
    server.wait_for_line("the last version goes on")
    needed.write_text("mended")

    server.process.send_signal(signal.SIGHUP)

    answers(server, "mended")


@pytest.mark.parametrize("way", WAYS)
def test_a_worker_that_dies_is_replaced(project: Project, way: str) -> None:
    server = project.start(way)

    os.kill(worker(server), signal.SIGKILL)

    server.wait_for_line("^Worker crashed on signal SIGKILL!$")
    answers(server, "one")


def test_a_watcher_that_dies_is_replaced_and_misses_nothing(project: Project) -> None:
    server = project.start("file")
    (watching,) = set(children(server.process.pid)) - {worker(server)}

    os.kill(watching, signal.SIGKILL)
    project.greet("two")

    server.wait_for_line("^anel: the file watcher crashed on signal SIGKILL!; starting another$")
    answers(server, "two")


@pytest.mark.parametrize("way", WAYS)
def test_a_master_that_is_killed_takes_everybody_along(project: Project, way: str) -> None:
    server = project.start(way)
    family = children(server.process.pid)
    assert len(family) == 2

    server.process.kill()

    wait_until(lambda: all(map(is_gone, family)), "the end of the others")


@pytest.mark.parametrize("way", WAYS)
def test_all_of_several_workers_are_replaced(project: Project, way: str) -> None:
    run = RUN.replace("reload=True", "reload=True, worker_num=2")
    project.write("app.py", APP + run)
    server = project.start(way, *(["--workers", "2"] if way == "file" else []))
    before = children(server.process.pid)

    project.greet("two")

    wait_until(lambda: sum(map(is_gone, before)) == 2, "the end of the old workers")
    assert {server.ask(get("/")).text for _ in range(20)} == {"two"}
    assert len(children(server.process.pid)) == 3


# Which files.


def test_other_files_are_watched_when_they_are_named(project: Project) -> None:
    project.write("greeting.py", "TEXT = open('page.html').read()\n")
    project.write("page.html", "one")
    server = project.start("file", "--reload-include", "*.html")

    project.write("page.html", "two")

    answers(server, "two")
    server.wait_for_line(r"^page\.html changed, reloading$")


def test_a_program_says_which_files_are_watched(project: Project) -> None:
    options = (
        "reload=True, reload_include=['*.html'], reload_exclude=['other.*'], reload_delay=0.05"
    )
    project.write("app.py", APP + RUN.replace("reload=True", options))
    project.write("greeting.py", "TEXT = open('page.html').read()\n")
    project.write("page.html", "one")
    server = project.start("program")

    project.write("other.py", "")
    project.write("other.html", "")
    project.write("page.html", "two")

    server.wait_for_line(r"^page\.html changed, reloading$")
    answers(server, "two")


def test_a_save_counts_once_files_stay_as_they_are_for_the_delay(project: Project) -> None:
    server = project.start("file", "--reload-delay", "1s")
    begun = time.monotonic()

    project.greet("two")

    answers(server, "two")
    assert time.monotonic() - begun >= 1


def test_what_is_excluded_reloads_nothing(project: Project) -> None:
    server = project.start("file", "--reload-exclude", "tests")

    project.write("tests/test_app.py", "x = 1\n")
    project.greet("two")

    server.wait_for_line(r"^greeting\.py changed, reloading$")


def test_a_folder_elsewhere_is_watched_instead(project: Project, tmp_path: pathlib.Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    server = project.start("file", "--reload-dir", str(elsewhere))

    # Of another length: bytecode of what is not watched is left to Python.
    project.greet("other")
    (elsewhere / "a.py").write_text("x = 1\n")

    server.wait_for_line(r"/elsewhere/a\.py changed, reloading$")
    answers(server, "other")


def test_the_folder_of_the_application_is_watched_from_anywhere(
    project: Project, tmp_path: pathlib.Path
) -> None:
    app = str(project.folder / "app.py")
    (tmp_path / "start").mkdir()
    start = ["env", "-C", str(tmp_path / "start")]
    command = [*start, sys.executable, "-m", "anel", "run", "--reload", app]
    server = project.run([*command, "--port", "0"], r"Accepting .*:(\d+)$")

    project.greet("two")

    answers(server, "two")


def test_the_package_of_an_application_is_watched_wherever_it_is(
    project: Project, tmp_path: pathlib.Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "shop").mkdir(parents=True)
    (elsewhere / "shop" / "__init__.py").write_text("")
    (elsewhere / "shop" / "web.py").write_text(APP)
    command = [sys.executable, "-m", "anel", "run", "--reload", "shop.web:app", "--port", "0"]
    server = project.run(command, r"Accepting .*:(\d+)$", PYTHONPATH=path_with(elsewhere))

    (elsewhere / "shop" / "web.py").write_text(APP.replace("greeting.TEXT", "'two'"))

    answers(server, "two")


def path_with(folder: pathlib.Path) -> str:
    """PYTHONPATH with one folder more."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


# Programs that are run again.

SITUATION = """
import json, os, subprocess, sys
import anel

found = {"argv": sys.argv, "folder": os.getcwd(), "stdin": os.readlink("/proc/self/fd/0")}
found["mine"] = os.environ.get("MINE")
os.chdir("/")
app = anel.Application()

def look(request):
    program = "import os; print(*os.listdir('/proc/self/fd'))"
    command = [sys.executable, "-c", program]
    listed = subprocess.run(command, close_fds=False, capture_output=True, text=True).stdout
    variables = [name for name in os.environ if name.startswith("_ANEL")]
    return {**found, "descriptors": listed.split(), "variables": variables}

app.router.add_route("/", look)
app.run("127.0.0.1", 0, reload=True)
"""


def situation(answer: Answer) -> dict[str, object]:
    """What the program has found."""
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


def test_a_program_is_run_again_as_it_was_started(project: Project) -> None:
    project.write("app.py", SITUATION)
    command = [sys.executable, "-X", "utf8", "app.py", "one", "--two"]
    server = project.run(command, r"Accepting .*:(\d+)$", MINE="mine")

    first = situation(server.ask(get("/")))
    project.write("app.py", SITUATION.replace('"argv"', '"arguments"'))
    wait_until(lambda: "arguments" in situation(server.ask(get("/"))), "the next version")
    second = situation(server.ask(get("/")))

    assert first["argv"] == second["arguments"] == ["app.py", "one", "--two"]
    assert first["folder"] == second["folder"] == str(project.folder)
    assert first["stdin"] == second["stdin"] == "/dev/null"
    assert first["mine"] == second["mine"] == "mine"


def test_programs_of_handlers_inherit_nothing_of_the_post(project: Project) -> None:
    project.write("app.py", SITUATION)
    server = project.run([sys.executable, "app.py"], r"Accepting .*:(\d+)$")

    found = situation(server.ask(get("/")))

    assert found["variables"] == []
    # Standard streams, and the folder that it lists.
    assert found["descriptors"] == ["0", "1", "2", "3"]


def test_what_a_program_that_is_run_again_counts_is_seen(project: Project) -> None:
    project.write("app.py", APP + RUN.replace("reload=True", "reload=True, metrics_bind=':0'"))
    server = project.start("program")
    port = int(server.wait_for_line(r"^Metrics at .*:(\d+)/metrics$")[1])

    answers(server, "one")
    project.greet("two")
    answers(server, "two")

    def is_counted() -> bool:
        with Client(port) as client:
            text = client.ask(get("/metrics")).text
        counted = re.search(r'^anel_requests_total\{worker="0"\} (\d+)$', text, re.MULTILINE)
        starts = re.search(r'^anel_worker_starts_total\{worker="0"\} 2$', text, re.MULTILINE)
        return counted is not None and int(counted[1]) >= 2 and starts is not None

    wait_until(is_counted, "the requests of both workers")


def test_a_program_that_is_run_again_is_missed_when_it_is_stuck(project: Project) -> None:
    stuck = "app.router.add_route('/stuck', lambda request: time.sleep(60))\n"
    run = RUN.replace("reload=True", "reload=True, timeout_heartbeat='500ms'")
    project.write("app.py", APP + stuck + run)
    server = project.start("program")

    with server.client() as client:
        client.send(get("/stuck"))
        server.wait_for_line("has not come round for 0.5 s and is replaced")
        server.wait_for_line(r'app\.py", line \d+ in <lambda>')

    answers(server, "one")


def test_a_program_given_as_text_is_run_again(project: Project) -> None:
    server = project.run([sys.executable, "-c", APP + RUN], r"Accepting .*:(\d+)$")

    project.greet("two")

    answers(server, "two")


def test_a_program_may_use_its_loop_before_it_is_run_again(project: Project) -> None:
    setup = "async def prepare(): pass\napp.loop.run_until_complete(prepare())\n"
    project.write("app.py", APP + setup + RUN)
    server = project.start("program")

    project.greet("two")

    answers(server, "two")


def test_a_program_that_serves_no_more_waits_for_the_next_save(project: Project) -> None:
    server = project.start("program")
    project.write("app.py", APP)
    server.wait_for_line("^anel: a worker ended before it served$")

    project.write("app.py", APP + RUN)
    project.greet("two")

    answers(server, "two")


@pytest.mark.parametrize(
    ("options", "source"),
    [([], APP + RUN), (["-"], APP + RUN), (["-i"], APP + RUN), (["-i", "app.py"], "")],
)
def test_an_interactive_session_cannot_be_run_again(
    project: Project, options: list[str], source: str
) -> None:
    ended = subprocess.run(
        [sys.executable, *options],
        input=source,
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )

    shown = "ConfigError: reload runs the program again, so it needs one: a file, not an"
    assert shown in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("reload=True, reload_dir=['nowhere']", "cannot watch '.*/nowhere': it is not there"),
        ("reload=True, reload_include=['../x']", "'../x' is no pattern of files to watch"),
        ("reload=True, reload_exclude=[1]", "reload_exclude must hold str"),
        ("reload=True, reload_delay=-1", "reload_delay must be "),
    ],
)
def test_what_is_no_choice_is_refused_before_anything_is_done(
    project: Project, arguments: str, shown: str
) -> None:
    project.write("app.py", APP + RUN.replace("reload=True", arguments))

    ended = subprocess.run(
        [sys.executable, "app.py"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )

    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("anel.exceptions.ConfigError: ")
    assert re.search(shown, last)
