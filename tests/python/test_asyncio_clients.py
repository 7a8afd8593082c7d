"""asyncio's libraries work inside handlers: databases, HTTP clients, TLS.

Owns the proof with the libraries themselves and real servers behind them. What asyncio alone offers
is in `test_async.py` and `test_asyncio_loop.py`.
"""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator

import pytest
from conftest import Server, get, wait_until
from services import Certificate, Postgres

PROGRAM = """
    import asyncio, collections, json, ssl
    import aiohttp, aiohttp.web, anyio, asyncpg, httpx, redis.asyncio
    from anel import Application

    app = Application()
    marks = collections.Counter()
    made = {}

    def route(path):
        def add(handler):
            app.router.add_route(path, handler)
            return handler
        return add

    async def once(key, make):
        "What many requests share is made by the first, even if that one is cancelled."
        if key not in made:
            made[key] = asyncio.get_running_loop().create_task(make())
        return await asyncio.shield(made[key])

    async def pool_of(request, size=4):
        async def make():
            return await asyncpg.create_pool(request.query["at"], min_size=1, max_size=size)
        return await once((request.query["at"], size), make)

    @route("/hello")
    def hello(request):
        return request.Response(text="hello " + request.query.get("n", ""))

    @route("/slow")
    async def slow(request):
        await asyncio.sleep(0.001)
        return request.Response(text="slow " + request.query.get("n", ""))

    @route("/echo")
    async def echo(request):
        await asyncio.sleep(0)
        return request.Response(json=request.json)

    @route("/marks")
    def read_marks(request):
        return request.Response(json=marks)

    @route("/postgres/values")
    async def postgres_values(request):
        pool = await pool_of(request)
        row = await pool.fetchrow("select $1::int + 1 as n, $2::text as t, $3::jsonb as j",
                                  41, "text", json.dumps({"a": None}))
        return request.Response(json=[row["n"], row["t"], json.loads(row["j"])])

    @route("/postgres/number/{n}")
    async def postgres_number(request):
        pool = await pool_of(request)
        n = int(request.match_dict["n"])
        return request.Response(text=str(await pool.fetchval(
            "select $1::int from pg_sleep($2)", n, n % 3 * 0.002)))

    @route("/postgres/transaction")
    async def postgres_transaction(request):
        class Changed(Exception): pass
        pool = await pool_of(request)
        async with pool.acquire() as connection:
            await connection.execute("create temporary table kept (n int)")
            try:
                async with connection.transaction():
                    await connection.execute("insert into kept values (1)")
                    raise Changed
            except Changed:
                pass
            async with connection.transaction():
                await connection.executemany("insert into kept values ($1)", [(2,), (3,)])
            rows = await connection.fetch("select n from kept order by n")
            await connection.execute("drop table kept")
        return request.Response(json=[row["n"] for row in rows])

    @route("/postgres/cursor")
    async def postgres_cursor(request):
        pool, total = await pool_of(request), 0
        async with pool.acquire() as connection, connection.transaction():
            async for row in connection.cursor("select * from generate_series(1, 1000) as n"):
                total += row["n"]
        return request.Response(text=str(total))

    @route("/postgres/notify")
    async def postgres_notify(request):
        pool, heard = await pool_of(request), asyncio.get_running_loop().create_future()
        def listener(connection, process, channel, payload):
            heard.done() or heard.set_result(payload)
        async with pool.acquire() as listening, pool.acquire() as speaking:
            await listening.add_listener("news", listener)
            await speaking.execute("notify news, 'heard'")
            text = await heard
            await listening.remove_listener("news", listener)
        return request.Response(text=text)

    @route("/postgres/timeout")
    async def postgres_timeout(request):
        pool = await pool_of(request, size=1)
        try:
            async with asyncio.timeout(0.05):
                await pool.fetchval("select pg_sleep(3600)")
        except TimeoutError:
            return request.Response(text=str(await pool.fetchval("select 7")))

    @route("/postgres/forever")
    async def postgres_forever(request):
        pool = await pool_of(request, size=1)
        async with pool.acquire() as connection:
            marks["forever"] += 1
            await connection.fetchval("select pg_sleep(3600)")

    @route("/postgres/only")
    async def postgres_only(request):
        pool = await pool_of(request, size=1)
        return request.Response(text=str(await pool.fetchval("select 8")))

    @route("/postgres/error")
    async def postgres_error(request):
        pool = await pool_of(request)
        try:
            await pool.fetchval("select nonsense")
        except asyncpg.UndefinedColumnError:
            return request.Response(text="undefined column")

    async def redis_of(request):
        async def make():
            return redis.asyncio.from_url(request.query["at"], decode_responses=True)
        return await once(request.query["at"], make)

    @route("/redis/commands")
    async def redis_commands(request):
        client = await redis_of(request)
        await client.set("key", "value", ex=100)
        await client.hset("hash", mapping={"a": 1, "b": 2})
        return request.Response(json=[await client.get("key"), await client.hgetall("hash"),
                                      await client.get("nothing")])

    @route("/redis/pipeline")
    async def redis_pipeline(request):
        client = await redis_of(request)
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.delete("counter")
            for _ in range(24):
                pipeline.incr("counter")
            return request.Response(json=(await pipeline.execute())[1:])

    @route("/redis/incremented")
    async def redis_incremented(request):
        client = await redis_of(request)
        await client.incr("together")
        return request.Response(text="incremented")

    @route("/redis/together")
    async def redis_together(request):
        client = await redis_of(request)
        return request.Response(text=await client.getdel("together"))

    @route("/redis/subscribe")
    async def redis_subscribe(request):
        client = await redis_of(request)
        async with client.pubsub() as channel:
            await channel.subscribe("news")
            marks["subscribed"] += 1
            async for message in channel.listen():
                if message["type"] == "message":
                    return request.Response(text=message["data"])

    @route("/redis/publish")
    async def redis_publish(request):
        client = await redis_of(request)
        return request.Response(text=str(await client.publish("news", "published")))

    @route("/redis/pop")
    async def redis_pop(request):
        client = await redis_of(request)
        return request.Response(json=await client.blpop("queue", timeout=30))

    @route("/redis/push")
    async def redis_push(request):
        client = await redis_of(request)
        return request.Response(text=str(await client.rpush("queue", "pushed")))

    @route("/httpx/get")
    async def httpx_get(request):
        async with httpx.AsyncClient() as client:
            answer = await client.get(request.query["at"] + "/hello", params={"n": "1"})
        return request.Response(text=answer.text, code=answer.status_code)

    @route("/httpx/post")
    async def httpx_post(request):
        async with httpx.AsyncClient() as client:
            answer = await client.post(request.query["at"] + "/echo", json={"a": [1, None]})
        return request.Response(json=answer.json())

    @route("/httpx/kept")
    async def httpx_kept(request):
        async def make():
            return httpx.AsyncClient(limits=httpx.Limits(max_connections=4))
        client = await once("httpx", make)
        answers = await asyncio.gather(*(
            client.get(request.query["at"] + "/slow", params={"n": n}) for n in range(12)))
        return request.Response(json=[answer.text for answer in answers])

    @route("/httpx/stream")
    async def httpx_stream(request):
        async with httpx.AsyncClient() as client:
            async with client.stream("GET", request.query["at"] + "/hello") as answer:
                parts = [part async for part in answer.aiter_bytes()]
        return request.Response(body=b"".join(parts))

    @route("/httpx/timeout")
    async def httpx_timeout(request):
        async def never(reader, writer):
            await reader.read()
            writer.close()
        async with await asyncio.start_server(never, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with httpx.AsyncClient(timeout=0.05) as client:
                try:
                    await client.get(f"http://127.0.0.1:{port}/")
                except httpx.ReadTimeout:
                    return request.Response(text="timeout")

    @route("/aiohttp/get")
    async def aiohttp_get(request):
        async with aiohttp.ClientSession() as session:
            async with session.get(request.query["at"] + "/hello", params={"n": "1"}) as answer:
                return request.Response(text=await answer.text(), code=answer.status)

    @route("/aiohttp/post")
    async def aiohttp_post(request):
        async with aiohttp.ClientSession() as session:
            async with session.post(request.query["at"] + "/echo", json={"a": [1, None]}) as answer:
                return request.Response(json=await answer.json())

    @route("/aiohttp/kept")
    async def aiohttp_kept(request):
        async def make():
            return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=4))
        session = await once("aiohttp", make)
        async def one(n):
            async with session.get(request.query["at"] + "/slow", params={"n": n}) as answer:
                return await answer.text()
        return request.Response(json=await asyncio.gather(*map(one, range(12))))

    @route("/aiohttp/websocket")
    async def aiohttp_websocket(request):
        async def handle(request):
            socket = aiohttp.web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data.upper())
            return socket
        runner = aiohttp.web.ServerRunner(aiohttp.web.Server(handle))
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"http://{host}:{port}/") as socket:
                await socket.send_str("over a websocket")
                text = await socket.receive_str()
        await runner.cleanup()
        return request.Response(text=text)

    @route("/anyio/group")
    async def anyio_group(request):
        send, receive = anyio.create_memory_object_stream(4)
        async def produce():
            async with send:
                for number in range(8):
                    await send.send(number)
        async with anyio.create_task_group() as group, receive:
            group.start_soon(produce)
            numbers = [number async for number in receive]
        return request.Response(json=numbers)

    @route("/anyio/cancelled")
    async def anyio_cancelled(request):
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep_forever()
        name = await anyio.to_thread.run_sync(str.upper, "thread")
        return request.Response(json=[scope.cancelled_caught, name])

    def tls(request):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(request.query["certificate"], request.query["key"])
        return server, ssl.create_default_context(cafile=request.query["certificate"])

    async def upper(reader, writer):
        writer.write((await reader.readexactly(300_000)).upper())
        await writer.drain()
        writer.close()

    @route("/tls/streams")
    async def tls_streams(request):
        of_server, of_client = tls(request)
        async with await asyncio.start_server(upper, "127.0.0.1", 0, ssl=of_server) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("localhost", port, ssl=of_client)
            writer.write(b"tls" * 100_000)
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        return request.Response(text=str(answer == b"TLS" * 100_000))

    @route("/tls/start")
    async def tls_start(request):
        of_server, of_client = tls(request)
        async def begin(reader, writer):
            await writer.start_tls(of_server)
            await upper(reader, writer)
        async with await asyncio.start_server(begin, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("localhost", port)
            await writer.start_tls(of_client, server_hostname="localhost")
            writer.write(b"tls" * 100_000)
            answer = await reader.readexactly(300_000)
            writer.close()
        return request.Response(text=str(answer == b"TLS" * 100_000))

    async def over_https(request, ask):
        of_server, of_client = tls(request)
        async def answer(reader, writer):
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nsecret")
            await writer.drain()
            writer.close()
        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=of_server) as server:
            port = server.sockets[0].getsockname()[1]
            return request.Response(text=await ask(f"https://localhost:{port}/", of_client))

    @route("/tls/httpx")
    async def tls_httpx(request):
        async def ask(url, context):
            async with httpx.AsyncClient(verify=context) as client:
                return (await client.get(url)).text
        return await over_https(request, ask)

    @route("/tls/aiohttp")
    async def tls_aiohttp(request):
        async def ask(url, context):
            async with aiohttp.ClientSession() as session:
                async with session.get(url, ssl=context) as answer:
                    return await answer.text()
        return await over_https(request, ask)
"""

PATHS_OF_POSTGRES = {
    "values": [42, "text", {"a": None}],
    "transaction": [2, 3],
    "cursor": "500500",
    "notify": "heard",
    "timeout": "7",
    "error": "undefined column",
}


def target(path: str, **query: object) -> str:
    """A request's target with a query."""
    return path + "?" + urllib.parse.urlencode(query)


def ask_twice(server: Server, path: str, **query: object) -> list[object]:
    """Two pipelined requests, because the second finds what the first has made."""
    with server.client() as client:
        client.send(get(target(path, **query)) * 2)
        return [client.answer().value for _ in range(2)]


def marks(server: Server) -> dict[str, int]:
    """What handlers have noted."""
    found: dict[str, int] = json.loads(server.ask(get("/marks")).body)
    return found


@pytest.mark.parametrize("path", PATHS_OF_POSTGRES)
def test_asyncpg_works_in_a_handler(shared: Server, postgres: Postgres, path: str) -> None:
    answers = ask_twice(shared, f"/postgres/{path}", at=postgres.over_tcp)

    assert answers == [PATHS_OF_POSTGRES[path]] * 2


def test_asyncpg_works_over_a_unix_socket(shared: Server, postgres: Postgres) -> None:
    answers = ask_twice(shared, "/postgres/values", at=postgres.over_unix)

    assert answers == [PATHS_OF_POSTGRES["values"]] * 2


def test_handlers_that_share_a_pool_are_answered_in_order(
    shared: Server, postgres: Postgres
) -> None:
    clients = [shared.client() for _ in range(4)]
    for client in clients:
        query = {"at": postgres.over_tcp}
        client.send(b"".join(get(target(f"/postgres/number/{n}", **query)) for n in range(24)))

    for client in clients:
        with client:
            assert [client.answer().text for _ in range(24)] == [str(n) for n in range(24)]


def test_a_client_that_resets_gives_its_database_connection_back(
    shared: Server, postgres: Postgres
) -> None:
    query = {"at": postgres.over_tcp}
    before = marks(shared).get("forever", 0)
    leaving = shared.client()
    leaving.send(get(target("/postgres/forever", **query)))
    wait_until(lambda: marks(shared).get("forever", 0) == before + 1, "the query runs")

    leaving.reset()

    # The pool has one connection: this waits until the other request has let go of it.
    assert shared.ask(get(target("/postgres/only", **query))).text == "8"


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("commands", ["value", {"a": "1", "b": "2"}, None]),
        ("pipeline", list(range(1, 25))),
    ],
)
def test_redis_works_in_a_handler(
    shared: Server, redis_url: str, path: str, answer: object
) -> None:
    answers = ask_twice(shared, f"/redis/{path}", at=redis_url)

    assert answers == [answer] * 2


def test_handlers_that_share_a_redis_client_lose_nothing(shared: Server, redis_url: str) -> None:
    clients = [shared.client() for _ in range(4)]
    for client in clients:
        client.send(get(target("/redis/incremented", at=redis_url)) * 24)
    for client in clients:
        with client:
            assert [client.answer().text for _ in range(24)] == ["incremented"] * 24

    assert shared.ask(get(target("/redis/together", at=redis_url))).text == "96"


def test_a_message_from_redis_reaches_a_handler_that_waits(shared: Server, redis_url: str) -> None:
    before = marks(shared).get("subscribed", 0)
    with shared.client() as client:
        client.send(get(target("/redis/subscribe", at=redis_url)))
        wait_until(lambda: marks(shared).get("subscribed", 0) == before + 1, "subscribed")

        assert shared.ask(get(target("/redis/publish", at=redis_url))).text == "1"

        assert client.answer().text == "published"


def test_a_handler_that_waits_for_redis_does_not_hold_up_another(
    shared: Server, redis_url: str
) -> None:
    with shared.client() as client:
        client.send(get(target("/redis/pop", at=redis_url)))

        assert shared.ask(get(target("/redis/push", at=redis_url))).text == "1"

        assert json.loads(client.answer().body) == ["queue", "pushed"]


class _Plain(http.server.BaseHTTPRequestHandler):
    """What the program's routes answer, by Python's own server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        number = urllib.parse.parse_qs(query).get("n", [""])[0]
        self._answer(f"{path.strip('/')} {number}".encode(), "text/plain; charset=utf-8")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(body, "application/json; charset=utf-8")

    def _answer(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def plain_server() -> Iterator[str]:
    """The address of Python's own HTTP server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Plain)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(params=["another server", "its own server"])
def called(request: pytest.FixtureRequest, shared: Server, plain_server: str) -> str:
    """Whom a handler calls."""
    own = f"http://127.0.0.1:{shared.port}"
    return plain_server if request.param == "another server" else own


@pytest.mark.parametrize("library", ["httpx", "aiohttp"])
@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("get", "hello 1"),
        ("post", {"a": [1, None]}),
        ("kept", [f"slow {n}" for n in range(12)]),
    ],
)
def test_a_handler_calls_a_server(
    shared: Server, called: str, library: str, path: str, answer: object
) -> None:
    assert ask_twice(shared, f"/{library}/{path}", at=called) == [answer] * 2


def test_httpx_streams_an_answer(shared: Server, called: str) -> None:
    assert ask_twice(shared, "/httpx/stream", at=called) == ["hello "] * 2


def test_a_timeout_of_httpx_ends_the_call(shared: Server) -> None:
    assert ask_twice(shared, "/httpx/timeout") == ["timeout"] * 2


def test_a_websocket_of_aiohttp_works_beside_the_server(shared: Server) -> None:
    assert ask_twice(shared, "/aiohttp/websocket") == ["OVER A WEBSOCKET"] * 2


@pytest.mark.parametrize(
    ("path", "answer"), [("group", list(range(8))), ("cancelled", [True, "THREAD"])]
)
def test_anyio_works_in_a_handler(shared: Server, path: str, answer: object) -> None:
    answers = ask_twice(shared, f"/anyio/{path}")

    assert answers == [answer] * 2


@pytest.mark.parametrize(
    ("path", "text"),
    [("streams", "True"), ("start", "True"), ("httpx", "secret"), ("aiohttp", "secret")],
)
def test_tls_works_in_a_handler(
    shared: Server, certificate: Certificate, path: str, text: str
) -> None:
    query = {"certificate": certificate.certificate, "key": certificate.key}

    assert ask_twice(shared, f"/tls/{path}", **query) == [text] * 2
