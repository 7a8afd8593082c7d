"""anel behind nginx and HAProxy, with the configurations of deploy/.

Owns the claim that these files do what their comments say: the committed text is used, with other
ports and paths. The servers are the real ones; `make services` installs them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import pathlib
import signal
import socket
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import services
from conftest import DEADLINE_S, Answer, Client, Server, get, start_service, wait_until
from test_workers import Load, wait_until_gone

PROGRAM = """
    import asyncio, hashlib, os
    from anel import Application, EventStream

    app = Application()
    released = asyncio.Event()

    @app.get("/")
    def pid(request):
        return str(os.getpid())

    app.router.add_constant("/health", text="ok")

    @app.get("/who")
    def who(request):
        return {
            "client": request.remote_addr,
            "hostname": request.hostname,
            "forwarded": request.headers.get("X-Forwarded-For"),
            "host_of_proxy": request.headers.get("X-Forwarded-Host"),
            "proto": request.headers.get("X-Forwarded-Proto"),
        }

    @app.post("/upload")
    def upload(request):
        return hashlib.sha256(request.body).hexdigest()

    @app.get("/large")
    def large(request):
        return b"x" * 3_000_000

    async def events():
        yield "first"
        await released.wait()
        yield "second"

    @app.get("/events")
    def stream(request):
        return EventStream(events())

    @app.get("/release")
    async def release(request):
        released.set()
        return "released"

    app.router.add_route("/counters", lambda request: app.counters())
"""

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
SOCKET = "/run/anel/http.sock"


@dataclasses.dataclass
class Front:
    """A proxy as if it were the server, and the server behind it."""

    proxy: Server
    behind: Server
    ask_behind: Callable[[bytes], Answer]

    def connections_behind(self) -> int:
        """How many connections the server has accepted, not counting this question's."""
        counters = self.ask_behind(get("/counters")).value
        return int(counters["connections_accepted_total"]) - 1


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """The text with other words in these places; each has to be there once."""
    for old, new in changes:
        assert text.count(old) == 1, f"{text.count(old)} times {old!r}"
        text = text.replace(old, new)
    return text


def nginx_in_front(place: str, path: str, port_behind: int) -> Callable[[int], str]:
    """The site of deploy/nginx.conf, with its other upstream for `tcp`."""
    text = (DEPLOY / "nginx.conf").read_text()
    used, other = f"    server unix:{SOCKET} fail_timeout=0;", "    #server 127.0.0.1:8000"
    if place == "unix":
        text = replaced(text, (SOCKET, path))
    else:
        text = replaced(text, (used, ""), (other, f"    server 127.0.0.1:{port_behind}"))
    return lambda port: replaced(text, ("    listen 80;", f"    listen 127.0.0.1:{port};"))


def haproxy_in_front(place: str, path: str, port_behind: int) -> Callable[[int], str]:
    """deploy/haproxy.cfg, with its other server for `tcp`, and with its `listen` for `proxy`."""
    text = (DEPLOY / "haproxy.cfg").read_text()
    used, other = f"    server anel unix@{SOCKET}", "    #server anel 127.0.0.1:8000"
    if place == "unix":
        text = replaced(text, (used, f"    server anel unix@{path}"))
    elif place == "tcp":
        text = replaced(text, (used, ""), (other, f"    server anel 127.0.0.1:{port_behind}"))
    # The half that is not tried has nobody behind it, and is asked by nobody.
    fields, tcp = "    bind :80\n", "    bind :8080\n"
    asked, silent = (tcp, fields) if place == "proxy" else (fields, tcp)
    if place == "proxy":
        text = replaced(text, ("127.0.0.1:8001", f"127.0.0.1:{port_behind}"))

    def configuration(port: int) -> str:
        elsewhere = f"    bind 127.0.0.1:{services.free_port()}\n"
        return replaced(text, (asked, f"    bind 127.0.0.1:{port}\n"), (silent, elsewhere))

    return configuration


@contextlib.contextmanager
def in_front(kind: str, place: str, folder: pathlib.Path, *options: str) -> Iterator[Front]:
    """A proxy and the program behind it, on a Unix socket or a port."""
    path, program = str(folder / "http.sock"), folder / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    listen = ["--uds", path] if place == "unix" else ["--port", "0"]
    trusted = ["--trusted-proxies", "unix" if place == "unix" else "127.0.0.1"]
    if place == "proxy":
        trusted.append("--proxy-protocol")
    command = [sys.executable, "-m", "anel", "run", str(program), *listen, *trusted, *options]
    announced = r"^Accepting connections on (?:unix:.*|.*:(\d+))$"

    def ask_behind(data: bytes) -> Answer:
        address = path if place == "unix" else ("127.0.0.1", behind.port)
        family = socket.AF_UNIX if place == "unix" else socket.AF_INET
        with Client.to(family, address) as client:
            return client.ask((b"PROXY UNKNOWN\r\n" if place == "proxy" else b"") + data)

    with contextlib.ExitStack() as stack:
        behind = start_service(stack, command, announced, (), {})
        chosen = nginx_in_front if kind == "nginx" else haproxy_in_front
        run = services.nginx_as if kind == "nginx" else services.haproxy_as
        port = stack.enter_context(run(chosen(place, path, behind.port), folder))
        front = Front(Server(behind.process, port), behind, ask_behind)
        # HAProxy takes a server for down until it is checked.
        wait_until(lambda: front.proxy.ask(get("/health")).status == 200, "an answer")
        yield front
        assert behind.stop() == 0, "\n".join(behind.lines)


FRONTS = [("nginx", "unix"), ("nginx", "tcp"), ("haproxy", "unix"), ("haproxy", "tcp")]


@pytest.fixture(scope="module", params=FRONTS, ids="-".join)
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """Each proxy, over a Unix socket and over TCP."""
    kind, place = request.param
    with in_front(kind, place, tmp_path_factory.mktemp("front")) as front:
        yield front


def who(port: int, source: str, **fields: str) -> Any:
    """What the application sees of a client with this address."""
    client = http.client.HTTPConnection("127.0.0.1", port, DEADLINE_S, (source, 0))
    with contextlib.closing(client):
        client.request("GET", "/who", headers={"Host": "app.example", **fields})
        answer = client.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return Answer("", 200, "", list(answer.headers.items()), body, b"").value


def test_the_application_sees_the_client_and_not_the_proxy(front: Front) -> None:
    for address in ("127.0.0.1", "127.0.0.77"):
        seen = who(front.proxy.port, address)

        assert (seen["client"], seen["hostname"]) == (address, "app.example")


def test_what_a_client_says_of_itself_does_not_get_through(front: Front) -> None:
    forged = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=6.6.6.6;host=evil.example",
    }

    seen = who(front.proxy.port, "127.0.0.77", **forged)

    assert seen["client"] == seen["forwarded"] == "127.0.0.77"
    assert seen["hostname"] == "app.example"
    assert seen["host_of_proxy"] is None


def test_connections_to_the_server_are_kept(front: Front) -> None:
    before = front.connections_behind()
    # One client's: HAProxy opens a connection for the first request of each.
    with front.proxy.client() as client:
        for _ in range(50):
            assert client.ask(get("/who")).status == 200

    # Beside those of health checks, which come every two seconds, and that of the first look.
    assert front.connections_behind() - before < 10


def test_a_large_upload_arrives_whole(front: Front) -> None:
    body = b"0123456789abcdef" * 600_000

    answer = front.proxy.ask(get("/upload", method="POST", body=body))

    assert answer.text == hashlib.sha256(body).hexdigest()


def test_a_large_answer_arrives_whole(front: Front) -> None:
    assert front.proxy.ask(get("/large")).body == b"x" * 3_000_000


def test_events_are_passed_on_at_once(front: Front) -> None:
    with front.proxy.client() as client:
        client.send(get("/events"))
        client.head()

        first = client.chunk()
        front.proxy.ask(get("/release"))
        second = client.chunk()

    assert (first, second) == (b"data: first\n\n", b"data: second\n\n")


def test_an_upload_above_the_limit_is_refused_by_nginx(tmp_path: pathlib.Path) -> None:
    with in_front("nginx", "unix", tmp_path) as front:
        requests = front.ask_behind(get("/counters")).value["requests_total"]
        with front.proxy.client() as client:
            client.send(get("/upload", f"Content-Length: {(16 << 20) + 1}", method="POST"))

            assert client.answer("POST").status == 413
        assert front.ask_behind(get("/counters")).value["requests_total"] == requests + 1


def workers(server: Server) -> set[int]:
    """The processes of a master's workers."""
    number = server.process.pid
    listed = pathlib.Path(f"/proc/{number}/task/{number}/children").read_text()
    return {int(child) for child in listed.split()}


def pids_in(load: Load) -> set[int]:
    """Who has answered."""
    return {int(answer) for answer in list(load.answers)}


@pytest.mark.parametrize(("kind", "place"), [("nginx", "unix"), ("haproxy", "tcp")])
def test_no_request_is_lost_while_workers_are_replaced(
    kind: str, place: str, tmp_path: pathlib.Path
) -> None:
    with (
        in_front(kind, place, tmp_path, "--workers", "2") as front,
        Load(front.proxy) as load,
        Load(front.proxy, 2, keep_alive=False) as strangers,
    ):
        for _ in range(3):
            before = workers(front.behind)
            front.behind.process.send_signal(signal.SIGHUP)
            wait_until_gone(before)
        wait_until(lambda: not workers(front.behind).isdisjoint(pids_in(load)), "a new worker")

    assert load.failures == strangers.failures == []
    assert load.refusals == strangers.refusals == 0
    # And no page of the proxy's about a server that is gone.
    assert all(answer.isdecimal() for answer in [*load.answers, *strangers.answers])


def test_haproxy_hands_on_the_client_by_the_proxy_protocol(tmp_path: pathlib.Path) -> None:
    with in_front("haproxy", "proxy", tmp_path) as front:
        seen = who(front.proxy.port, "127.0.0.77", **{"X-Forwarded-For": "6.6.6.6"})

        # Its health checks among them.
        counters = front.ask_behind(get("/counters")).value
    assert seen["client"] == "127.0.0.77"
    assert counters["refusals_total"] == 0
