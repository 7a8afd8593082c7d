"""The connection below a request: addresses and socket options, for as long as they are its own."""

from __future__ import annotations

import errno
import json
import socket
from typing import Any

import pytest
from anel import Transport, TransportSocket
from conftest import Server, get, wait_until

PROGRAM = """
    import asyncio, socket
    from anel import Application, Transport, TransportSocket

    app = Application()
    kept = {}
    gate = asyncio.Event()

    def route(handler):
        app.router.add_route("/" + handler.__name__, handler)
        return handler

    def describe(request):
        transport = request.transport
        ours = transport.get_extra_info("socket")
        return {
            "peername": transport.get_extra_info("peername"),
            "attribute": transport.peername,
            "sockname": transport.get_extra_info("sockname"),
            "default": transport.get_extra_info("cipher", "none"),
            "is_closing": transport.is_closing(),
            "socket": [ours.getpeername(), ours.getsockname()],
            "kind": [ours.family, ours.type, ours.proto],
            "fileno": ours.fileno() > 2,
            "same": transport is request.transport,
        }

    @route
    def sync(request):
        return describe(request)

    @route
    async def late(request):
        await asyncio.sleep(0)
        return describe(request)

    @route
    def callback(request):
        request.add_done_callback(lambda r: kept.update(described=describe(r)))
        return "done"

    @route
    async def late_callback(request):
        request.add_done_callback(lambda r: kept.update(described=describe(r)))
        await asyncio.sleep(0)
        return "done"

    @route
    def described(request):
        return kept.pop("described")

    @route
    def options(request):
        ours = request.transport.get_extra_info("socket")
        before = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        after = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        in_bytes = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 4)
        return [before, after, in_bytes.hex()]

    @route
    def option(request):
        ours = request.transport.get_extra_info("socket")
        return str(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    @route
    def cannot(request):
        ours = request.transport.get_extra_info("socket")
        names = ("send", "sendall", "recv", "close", "shutdown", "dup", "detach")
        return [name for name in names if hasattr(ours, name)]

    @route
    def keeps(request):
        kept["request"] = request
        kept["peername"] = list(request.transport.peername)
        return "kept"

    @route
    def keeps_unasked(request):
        kept["request"] = request
        return "kept"

    @route
    async def waits(request):
        kept["request"] = request
        try:
            await gate.wait()
        finally:
            kept["ended"] = True

    @route
    def has_ended(request):
        return str("ended" in kept)

    @route
    def of_kept(request):
        transport = kept["request"].transport
        ours = transport.get_extra_info("socket")
        errors = []
        for ask in (ours.getpeername, ours.getsockname, lambda: ours.family,
                    lambda: ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    lambda: ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)):
            try:
                ask()
            except OSError as error:
                errors.append(error.errno)
        return {
            "peername": transport.peername, "sockname": transport.sockname, "errors": errors,
            "fileno": ours.fileno(), "is_closing": transport.is_closing(),
        }
"""


def ask(server: Server, target: str) -> Any:
    return json.loads(server.ask(get(target)).text)


@pytest.mark.parametrize("target", ["/sync", "/late"])
def test_addresses_are_those_of_the_connection(shared: Server, target: str) -> None:
    with shared.client() as client:
        own, server = list(client.socket.getsockname()), ["127.0.0.1", shared.port]

        found = json.loads(client.ask(get(target)).text)

    assert found == {
        "peername": own,
        "attribute": own,
        "sockname": server,
        "default": "none",
        "is_closing": False,
        "socket": [own, server],
        "kind": [socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP],
        "fileno": True,
        "same": True,
    }


@pytest.mark.parametrize("target", ["/callback", "/late_callback"])
def test_a_done_callback_still_sees_the_connection(shared: Server, target: str) -> None:
    with shared.client() as client:
        client.ask(get(target))

        found = json.loads(client.ask(get("/described")).text)

    assert found["peername"] == found["socket"][0]
    assert found["is_closing"] is False


def test_options_are_read_and_set_on_the_connection_itself(shared: Server) -> None:
    with shared.client() as client:
        assert json.loads(client.ask(get("/options")).text) == [1, 0, "00000000"]

        assert client.ask(get("/option")).text == "0"


def test_options_leave_no_descriptor_behind(shared: Server) -> None:
    with shared.client() as client:
        client.ask(get("/options"))
        before = shared.open_descriptors()
        for _ in range(20):
            client.ask(get("/options"))

        assert shared.open_descriptors() == before


def test_nothing_can_be_sent_received_or_closed(shared: Server) -> None:
    assert ask(shared, "/cannot") == []


@pytest.mark.parametrize("target", ["/keeps", "/keeps_unasked"])
def test_a_kept_request_remembers_its_peer_and_touches_no_socket(
    shared: Server, target: str
) -> None:
    with shared.client() as client:
        own = list(client.socket.getsockname())
        client.ask(get(target))
    # Its descriptor is likely to be another connection's by now.
    with shared.client() as other:
        found = json.loads(other.ask(get("/of_kept")).text)

    assert found["peername"] == own
    assert found["sockname"] is None
    assert found["errors"] == [errno.ENOTCONN] * 5
    assert (found["fileno"], found["is_closing"]) == (-1, True)


def test_a_handler_whose_client_left_touches_no_socket(shared: Server) -> None:
    with shared.client() as client:
        own = list(client.socket.getsockname())
        client.send(get("/waits"))
        wait_until(lambda: shared.ask(get("/of_kept")).status == 200)
        wait_until(lambda: ask(shared, "/of_kept")["peername"] == own)
        client.reset()
    wait_until(lambda: shared.ask(get("/has_ended")).text == "True")

    found = ask(shared, "/of_kept")

    assert found["peername"] == own
    assert found["errors"] == [errno.ENOTCONN] * 5


def test_the_types_are_public() -> None:
    assert {Transport.__module__, TransportSocket.__module__} == {"anel.transport"}
