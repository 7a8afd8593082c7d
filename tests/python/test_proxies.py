"""Proxies: who is believed, what a request shows then, and connections that begin with a header.

The cases of `tests/cases/proxy` run here against live servers, under several splits of their bytes.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import socket
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import services
from anel import Application, options, proxies
from anel.exceptions import ConfigError
from conftest import DEADLINE_S, Client, Serve, Server, get
from test_wire import SPLITS, as_bytes, pieces, send_all

PROGRAM = """
    from anel import Application

    app = Application()

    def show(request):
        peername = request.transport.get_extra_info("peername")
        return {
            "client": request.remote_addr,
            "peername": peername and peername[:2],
            "socket": request.transport.get_extra_info("socket").getpeername()[:2],
            "hostname": request.hostname,
            "port": request.port,
            "host": request.headers.get("Host"),
        }

    async def show_later(request):
        import asyncio
        await asyncio.sleep(0)
        return show(request)

    app.router.add_route("/", show)
    app.router.add_route("/2", show)
    app.router.add_route("/later", show_later)
    app.router.add_route("/counters", lambda request: app.counters())
"""

LOCAL = "127.0.0.0/8"
FORWARDED_FOR = "X-Forwarded-For: 6.6.6.6, 192.0.2.1\r\n"
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"


def show(server: Server, fields: str = "", target: str = "/", before: bytes = b"") -> Any:
    """What a request with these fields shows."""
    request = f"GET {target} HTTP/1.1\r\nHost: inside:81\r\n{fields}\r\n".encode()
    answer = server.ask(before + request)
    assert answer.status == 200, answer
    return answer.value


def is_closed_in_silence(client: Client) -> bool:
    """Whether the connection ends without a byte, by FIN or by reset."""
    try:
        return client.is_ended()
    except ConnectionResetError:
        return True


def test_without_proxies_the_fields_say_nothing(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM, "--reactor", reactor)

    shown = show(server, FORWARDED_FOR + "X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\n")

    assert (shown["client"], shown["hostname"], shown["port"]) == ("127.0.0.1", "inside", 81)


def test_a_peer_that_is_no_proxy_is_not_believed(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM, "--reactor", reactor, "--trusted-proxies", "10.0.0.0/8,::1")

    assert show(server, FORWARDED_FOR)["client"] == "127.0.0.1"


@pytest.mark.parametrize("target", ["/", "/later"])
def test_a_trusted_proxy_names_the_client(serve: Serve, reactor: str, target: str) -> None:
    server = serve(PROGRAM, "--reactor", reactor, "--trusted-proxies", LOCAL)

    shown = show(server, FORWARDED_FOR, target)

    assert shown["client"] == "192.0.2.1"
    assert shown["peername"][0] == shown["socket"][0] == "127.0.0.1"


def test_what_a_proxy_says_counts_for_its_request_alone(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM, "--reactor", reactor, "--trusted-proxies", LOCAL)

    with server.client() as client:
        clients = [
            client.ask(get("/", f"X-Forwarded-For: {address}")).value["client"]
            for address in ("192.0.2.1", "", "192.0.2.2", "unknown")
        ]

    assert clients == ["192.0.2.1", "127.0.0.1", "192.0.2.2", "127.0.0.1"]


def test_only_the_fields_that_were_named_are_believed(serve: Serve) -> None:
    fields = FORWARDED_FOR + "X-Forwarded-Host: a.example:8443\r\nForwarded: for=[::1]\r\n"
    standard = "Forwarded: for=192.0.2.9;host=b.example\r\n"

    def ask(*options: str) -> tuple[Any, ...]:
        shown = show(serve(PROGRAM, "--trusted-proxies", LOCAL, *options), fields + standard)
        return shown["client"], shown["hostname"], shown["port"], shown["host"]

    by_default = ask()
    host_too = ask("--proxy-headers", "X-Forwarded-For,X-Forwarded-Host")
    forwarded = ask("--proxy-headers", "forwarded")

    assert by_default == ("192.0.2.1", "inside", 81, "inside:81")
    assert host_too == ("192.0.2.1", "a.example", 8443, "inside:81")
    assert forwarded == ("192.0.2.9", "b.example", None, "inside:81")


def test_the_request_log_names_the_client(serve: Serve) -> None:
    server = serve(PROGRAM, "--debug", "--trusted-proxies", LOCAL)

    show(server, FORWARDED_FOR)

    server.wait_for_line(r"^192\.0\.2\.1 GET /$")


@pytest.mark.parametrize(
    ("chosen", "options", "environment", "client"),
    [
        ("", [], {}, "127.0.0.1"),
        ("", [], {"ANEL_TRUSTED_PROXIES": LOCAL}, "192.0.2.1"),
        ("", ["--trusted-proxies", "::1"], {"ANEL_TRUSTED_PROXIES": LOCAL}, "127.0.0.1"),
        ("trusted_proxies='::1'", [], {"ANEL_TRUSTED_PROXIES": LOCAL}, "192.0.2.1"),
        ("trusted_proxies='::1'", ["--trusted-proxies", LOCAL], {}, "192.0.2.1"),
        ("trusted_proxies=['127.0.0.1']", [], {}, "192.0.2.1"),
        ("trusted_proxies=[]", ["--trusted-proxies", LOCAL], {}, "192.0.2.1"),
        (
            "trusted_proxies=['127.0.0.1']",
            [],
            {"ANEL_PROXY_HEADERS": "x-forwarded-host"},
            "127.0.0.1",
        ),
    ],
)
def test_options_go_before_the_environment_and_that_before_the_application(
    serve: Serve, chosen: str, options: list[str], environment: dict[str, str], client: str
) -> None:
    source = PROGRAM.replace("Application()", f"Application({chosen})")
    server = serve(source, *options, **environment)

    assert show(server, FORWARDED_FOR)["client"] == client


@contextlib.contextmanager
def ended(server: Server) -> Iterator[Server]:
    yield server
    assert server.stop() == 0, "\n".join(server.lines)


# Unix sockets, whose clients have no address.


OverUnix = Callable[..., contextlib.AbstractContextManager[Client]]


@pytest.fixture
def over_unix(serve_at: Serve, reactor: str, tmp_path: pathlib.Path) -> OverUnix:
    """`over_unix(*options)` starts the program on a Unix socket and connects to it."""
    path = str(tmp_path / "socket")

    @contextlib.contextmanager
    def connected(*options: str) -> Iterator[Client]:
        server = serve_at(PROGRAM, "--reactor", reactor, "--uds", path, *options)
        with ended(server), Client.to(socket.AF_UNIX, path) as client:
            yield client

    return connected


@pytest.mark.parametrize("options", [[], ["--trusted-proxies", "0.0.0.0/0,::/0"]])
def test_a_peer_over_a_unix_socket_is_no_proxy_by_itself(
    over_unix: OverUnix, options: list[str]
) -> None:
    with over_unix(*options) as client:
        shown = client.ask(get("/", "X-Forwarded-For: 192.0.2.1")).value

    assert (shown["client"], shown["peername"]) == (None, None)


@pytest.mark.parametrize("target", ["/", "/later"])
def test_a_trusted_proxy_over_a_unix_socket_names_the_client(
    over_unix: OverUnix, target: str
) -> None:
    headers = ["--proxy-headers", "x-forwarded-for,x-forwarded-host"]
    with over_unix("--trusted-proxies", "unix", *headers) as client:
        fields = ["X-Forwarded-For: 6.6.6.6, 192.0.2.1", "X-Forwarded-Host: a.example:8443"]
        named = client.ask(get(target, *fields)).value
        unnamed = client.ask(get(target)).value

    assert (named["client"], named["hostname"], named["port"]) == ("192.0.2.1", "a.example", 8443)
    assert (unnamed["client"], unnamed["hostname"], unnamed["port"]) == (None, "a", None)
    assert named["peername"] is unnamed["peername"] is None


def test_a_proxy_over_a_unix_socket_may_be_behind_another(over_unix: OverUnix) -> None:
    with over_unix("--trusted-proxies", "unix,10.0.0.0/8") as client:
        shown = client.ask(get("/", "X-Forwarded-For: 192.0.2.1, 10.1.1.1")).value

    assert shown["client"] == "192.0.2.1"


def test_who_trusts_unix_sockets_believes_nobody_with_an_address(serve: Serve) -> None:
    server = serve(PROGRAM, "--trusted-proxies", "unix")

    assert show(server, FORWARDED_FOR)["client"] == "127.0.0.1"


def test_the_environment_may_name_unix_sockets(
    over_unix: OverUnix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANEL_TRUSTED_PROXIES", "unix")
    with over_unix() as client:
        shown = client.ask(get("/", "X-Forwarded-For: 192.0.2.1")).value

    assert shown["client"] == "192.0.2.1"


def test_the_application_may_name_unix_sockets(serve_at: Serve, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "socket")
    source = PROGRAM.replace("Application()", "Application(trusted_proxies=['unix'])")
    serve_at(source, "--uds", path)

    with Client.to(socket.AF_UNIX, path) as client:
        shown = client.ask(get("/", "X-Forwarded-For: 192.0.2.1")).value

    assert shown["client"] == "192.0.2.1"


def test_the_request_log_names_the_client_behind_a_unix_socket(
    serve_at: Serve, tmp_path: pathlib.Path
) -> None:
    path = str(tmp_path / "socket")
    server = serve_at(PROGRAM, "--debug", "--uds", path, "--trusted-proxies", "unix")

    with Client.to(socket.AF_UNIX, path) as client:
        client.ask(get("/", "X-Forwarded-For: 192.0.2.1"))

    server.wait_for_line(r"^192\.0\.2\.1 GET /$")


def test_the_access_log_names_the_client_behind_a_unix_socket(
    serve_at: Serve, tmp_path: pathlib.Path
) -> None:
    path, log = str(tmp_path / "socket"), tmp_path / "access.log"
    options = ["--uds", path, "--trusted-proxies", "unix", "--access-log", str(log)]
    with ended(serve_at(PROGRAM, *options)), Client.to(socket.AF_UNIX, path) as client:
        client.ask(get("/", "X-Forwarded-For: 192.0.2.1"))
        client.ask(get("/"))

    named, unnamed = log.read_text().splitlines()
    assert named.startswith("192.0.2.1 - - [")
    assert unnamed.startswith("- - - [")


def test_the_proxy_protocol_over_a_unix_socket(over_unix: OverUnix) -> None:
    with over_unix("--trusted-proxies", "unix", "--proxy-protocol") as client:
        client.send(V1)
        shown = [
            client.ask(get(target, "X-Forwarded-For: 6.6.6.6")).value for target in ("/", "/later")
        ]

    for one in shown:
        assert (one["client"], one["peername"]) == ("192.0.2.1", ["192.0.2.1", 56324])


def test_a_header_without_a_client_over_a_unix_socket(over_unix: OverUnix) -> None:
    with over_unix("--trusted-proxies", "unix", "--proxy-protocol") as client:
        client.send(b"PROXY UNKNOWN\r\n")
        shown = client.ask(get("/", "X-Forwarded-For: 6.6.6.6")).value

    assert (shown["client"], shown["peername"]) == (None, None)


def test_the_proxy_protocol_is_not_for_unix_sockets_that_are_not_named(
    over_unix: OverUnix,
) -> None:
    with over_unix("--trusted-proxies", LOCAL, "--proxy-protocol") as client:
        # It may be closed before it is read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(V1 + get())

        assert is_closed_in_silence(client)


# The PROXY protocol.


@pytest.fixture
def proxied(serve: Serve, reactor: str) -> Iterator[Server]:
    """A server that only proxies on this machine connect to, on each reactor."""
    options = ["--reactor", reactor, "--trusted-proxies", LOCAL, "--proxy-protocol"]
    with ended(serve(PROGRAM, *options)) as server:
        yield server


def cases() -> list[dict[str, Any]]:
    path = pathlib.Path(__file__).parents[1] / "cases" / "proxy" / "header.toml"
    found: list[dict[str, Any]] = tomllib.loads(path.read_text())["case"]
    for case in found:
        case["input"] = as_bytes(case["input"])
    return found


def check(case: dict[str, Any], client: Client) -> None:
    """Reads what the server made of a case, which was sent completely."""
    if case.get("wants_more"):
        assert client.is_silent()
        client.finish()
    if case.get("wants_more") or case.get("closes"):
        assert is_closed_in_silence(client)
        return
    own = client.socket.getsockname()[:2]
    address, _, port = case["peer"].rpartition(":") if "peer" in case else (own[0], "", own[1])
    for _ in case["targets"]:
        shown = client.answer().value
        assert shown["client"] == address.strip("[]")
        assert shown["peername"] == [address.strip("[]"), int(port)]
        assert shown["socket"] == list(own)
    assert client.ask(get()).value["client"] == address.strip("[]")


@pytest.mark.parametrize("split", SPLITS)
def test_every_header_is_taken_or_refused_as_the_cases_say(proxied: Server, split: str) -> None:
    corpus = cases()
    clients = [proxied.client() for _ in corpus]

    send_all(clients, [list(pieces(c["input"], SPLITS[split](c["input"]))) for c in corpus])

    failures = []
    for case, client in zip(corpus, clients, strict=True):
        with client:
            try:
                check(case, client)
            except (AssertionError, OSError, EOFError) as failure:
                failures.append(f"{case['name']}: {failure!r:.400}")
    assert not failures, f"{len(failures)} of {len(corpus)} cases:\n" + "\n".join(failures)


def test_a_peer_that_is_no_proxy_may_not_connect(serve: Serve, reactor: str) -> None:
    options = ["--reactor", reactor, "--trusted-proxies", "192.0.2.0/24", "--proxy-protocol"]
    with ended(serve(PROGRAM, *options)) as server:
        for data in (V1 + get(), get(), b""):
            with server.client() as client:
                # It may be closed before it is read.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.send(data)
                assert is_closed_in_silence(client)


def test_fields_of_a_client_behind_the_header_are_not_believed(proxied: Server) -> None:
    assert show(proxied, FORWARDED_FOR, before=V1)["client"] == "192.0.2.1"

    fields = "X-Forwarded-For: 6.6.6.6\r\n"
    assert show(proxied, fields, before=V1)["client"] == "192.0.2.1"
    assert show(proxied, fields, before=b"PROXY UNKNOWN\r\n")["client"] == "127.0.0.1"
    assert show(proxied, fields, "/later", b"PROXY UNKNOWN\r\n")["client"] == "127.0.0.1"


def test_a_proxy_behind_the_proxy_is_believed_where_it_is_named(proxied: Server) -> None:
    header = V1.replace(b"192.0.2.1", b"127.0.0.9")

    shown = show(proxied, FORWARDED_FOR, before=header)

    assert (shown["client"], shown["peername"]) == ("192.0.2.1", ["127.0.0.9", 56324])


def test_the_client_is_known_after_an_await_and_on_every_request(proxied: Server) -> None:
    with proxied.client() as client:
        client.send(V1 + get("/later") + get("/") + get("/later"))

        shown = [client.answer().value["client"] for _ in range(3)]

    assert shown == ["192.0.2.1"] * 3


def test_a_slot_that_is_used_again_does_not_remember_the_last_client(proxied: Server) -> None:
    for number in range(1, 20):
        header = V1.replace(b"192.0.2.1", b"192.0.2.%d" % number)
        assert show(proxied, before=header)["client"] == f"192.0.2.{number}"


def test_a_header_that_does_not_come_ends_the_connection_in_time(
    serve: Serve, reactor: str
) -> None:
    source = PROGRAM.replace("app = Application()", "app = Application(); app._limits = {}")
    source = source.replace("_limits = {}", "_limits = {'head_timeout_ms': 300}")
    options = ["--reactor", reactor, "--trusted-proxies", LOCAL, "--proxy-protocol"]
    with ended(serve(source, *options)) as server, server.client() as silent:
        with server.client() as slow:
            slow.send(V1[:10])

            assert is_closed_in_silence(slow)
        assert is_closed_in_silence(silent)


def test_a_refused_header_is_counted_and_leaves_no_connection(serve: Serve, reactor: str) -> None:
    options = ["--reactor", reactor, "--trusted-proxies", LOCAL, "--proxy-protocol"]
    with ended(serve(PROGRAM, *options)) as server:
        for _ in range(20):
            with server.client() as client:
                client.send(b"GET / HTTP/1.1\r\n\r\n")
                assert is_closed_in_silence(client)

        counters = server.ask(V1 + get("/counters")).value

    assert counters["refusals_total"] == 20
    assert counters["connections_open"] == 1


def test_the_proxy_protocol_on_the_guests_loop(serve: Serve) -> None:
    options = ["--loop", "uvloop", "--trusted-proxies", LOCAL, "--proxy-protocol"]
    server = serve(PROGRAM, *options)

    assert show(server, before=V1)["client"] == "192.0.2.1"


def test_a_real_proxy_names_its_clients(
    proxied: Server, serve: Serve, reactor: str, tmp_path: pathlib.Path
) -> None:
    plain = serve(PROGRAM, "--reactor", reactor, "--trusted-proxies", LOCAL)

    with services.haproxy(tmp_path, proxied.port, plain.port) as haproxy:
        for port in (haproxy.v1, haproxy.v2, haproxy.fields):
            for address in ("127.0.0.1", "127.0.0.77"):
                client = http.client.HTTPConnection("127.0.0.1", port, DEADLINE_S, (address, 0))
                with contextlib.closing(client):
                    client.request("GET", "/")
                    ours = client.sock.getsockname()
                    shown = json.load(client.getresponse())
                if port != haproxy.fields:
                    assert tuple(shown["peername"]) == ours
                    assert shown["socket"] != shown["peername"]
                assert shown["client"] == address
        # Its health checks among them.
        assert proxied.ask(V1 + get("/counters")).value["refusals_total"] == 0


# What may be chosen.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"trusted_proxies": ["10.0.0.1/8"]}, "10.0.0.1/8 has host bits set"),
        ({"trusted_proxies": "localhost"}, "'localhost'"),
        ({"trusted_proxies": "*"}, "0.0.0.0/0 and ::/0 are everybody"),
        ({"trusted_proxies": "unix:/run/a.sock"}, "unix, without a path, is everybody"),
        ({"trusted_proxies": ["/run/a.sock"]}, "unix, without a path, is everybody"),
        ({"trusted_proxies": 7}, "trusted_proxies must be a str or an iterable"),
        ({"trusted_proxies": [7]}, "trusted_proxies must hold str"),
        ({"trusted_proxies": b"::1"}, "trusted_proxies must be a str or an iterable"),
        ({"proxy_headers": "x-real-ip"}, "not 'x-real-ip'"),
        ({"proxy_headers": ["forwarded", "X-Forwarded-For"]}, "beside x-forwarded-for"),
        ({"proxy_protocol": "v2"}, "proxy_protocol must be True, False or None, not 'v2'"),
    ],
)
def test_a_choice_that_cannot_be_is_named(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match="prox") as caught:
        Application(**arguments)

    assert words in str(caught.value)


def test_the_proxy_protocol_without_proxies_is_refused() -> None:
    with pytest.raises(ConfigError, match="proxy_protocol needs trusted_proxies"):
        Application(proxy_protocol=True).run("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ANEL_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("ANEL_PROXY_HEADERS", "via"),
        ("ANEL_PROXY_PROTOCOL", "yes"),
    ],
)
def test_the_environment_is_read_as_strictly(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=name) as caught:
        options.resolve()

    assert value in str(caught.value)


def test_networks_are_what_they_mean() -> None:
    written = " 10.0.0.0/8 , 192.0.2.7,,2001:db8::/32, ::ffff:172.16.0.0/108 "
    words = options.said_by_application(trusted_proxies=written)["trusted_proxies"]

    assert proxies.believed(words) == [
        ("10.0.0.0", 8),
        ("192.0.2.7", 32),
        ("2001:db8::", 32),
        ("172.16.0.0", 12),
    ]


def test_unix_is_a_word_beside_networks() -> None:
    both = proxies.named(["Unix", "10.0.0.0/8"], ["x-forwarded-for"], None)
    alone = proxies.named(["unix"], ["forwarded"], True)

    assert both == ([("10.0.0.0", 8)], True, ["x-forwarded-for"], False)
    assert alone == ([], True, ["forwarded"], True)
