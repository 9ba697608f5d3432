"""What a server refuses that insists on version 1 of the wire, and where a request may arrive."""

import asyncio
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry
from starlette.types import Message, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyPair, KeyRing, inject_middleware, metrics, protect
from tests.helpers import asgi
from tests.helpers.sealed_requests import Client, ClientV1, call_v1, unreachable
from tests.helpers.served_app import served

KEY_PATH = "/.well-known/hpke-keys"


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    """A key ring that nobody refreshes by itself."""
    with KeyRing(300) as ring:
        yield ring


async def tells(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the wire that the request came by."""
    while (await receive()).get("more_body"):
        pass
    await PlainTextResponse(str(scope.get("server_keys.wire")))(scope, receive, send)


def call(ring: KeyRing, method: str, path: str, pieces: list[bytes], **options: Any) -> asgi.Response:
    app = EncryptedBodyMiddleware(tells, key_ring=ring, **options)
    return asyncio.run(asgi.call(app, method, path, pieces=pieces))


def test_a_server_that_requires_nothing_takes_both_wires_and_plaintext(ring: KeyRing) -> None:
    app = EncryptedBodyMiddleware(tells, key_ring=ring)
    client = ClientV1(ring)
    assert client.open(call_v1(app, client, pieces=client.seal(b"x"))) == [b"v1"]
    plain = Client(ring.current)
    sealed = asyncio.run(asgi.call(app, "POST", "/", headers=plain.headers, pieces=plain.seal(b"x")))
    assert plain.open(sealed) == [b"ehbp"]
    assert call(ring, "POST", "/", [b"x"]).body == b"None"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize("pieces", [[], [b"in clear"]])
def test_where_version_1_is_required_nothing_unsealed_is_served(
    ring: KeyRing, method: str, pieces: list[bytes]
) -> None:
    app = EncryptedBodyMiddleware(unreachable, key_ring=ring, required="v1")
    response = asyncio.run(asgi.call(app, method, "/", pieces=pieces))
    assert response.status == 400
    assert method == "HEAD" or "version 1 only" in json.loads(response.body)["title"]
    assert response.body == b"" or method != "HEAD"
    assert ring.status.refusals == {"not_v1": 1}


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("seals", [True, False])
def test_nor_is_plain_ehbp(ring: KeyRing, method: str, seals: bool) -> None:
    app = EncryptedBodyMiddleware(unreachable, key_ring=ring, required="v1")
    client = Client(ring.current)
    pieces = client.seal(b"x") if seals else []
    response = asyncio.run(asgi.call(app, method, "/", headers=client.headers, pieces=pieces))
    assert response.status == 400
    assert ring.status.refusals == {"not_v1": 1}


def test_the_key_and_preflights_are_served_all_the_same(ring: KeyRing) -> None:
    assert call(ring, "GET", KEY_PATH, [], required="v1").status == 200
    assert call(ring, "HEAD", KEY_PATH, [], required="v1").status == 200
    assert call(ring, "OPTIONS", "/", [], required="v1").body == b"None"
    assert call(ring, "OPTIONS", KEY_PATH, [], required="v1").body == b"None"
    assert call(ring, "OPTIONS", "/", [b"in clear"], required="v1").status == 400


@pytest.mark.parametrize("required", [True, "v1"])
def test_open_paths_are_served_as_if_nothing_were_required(ring: KeyRing, required: Any) -> None:
    options = {"required": required, "open_paths": ["/health", "/hook"]}
    assert call(ring, "GET", "/health", [], **options).body == b"None"
    assert call(ring, "POST", "/hook", [b"in clear"], **options).body == b"None"
    for path in ("/health/", "//health", "/healthy", "/api/health", "/HEALTH", "/health/../x"):
        assert call(ring, "POST", path, [b"in clear"], **options).status == 400


def test_open_paths_are_those_that_the_app_sees(ring: KeyRing) -> None:
    app = EncryptedBodyMiddleware(tells, key_ring=ring, required="v1", open_paths=("/health",))
    for path in ("/api/health", "/health"):
        assert asyncio.run(asgi.call(app, "GET", path, root_path="/api")).body == b"None"


@pytest.mark.parametrize("of_server", ["", "/api", "/api/"])
@pytest.mark.parametrize("of_app", ["", "/api", "/api/", "/api//", "api", "/health"])
@pytest.mark.parametrize(
    "path", ["/health", "/api/health", "/api//health", "/api/api/health", "//health", "/apihealth", "/health/health"]
)
def test_a_request_is_served_unsealed_only_by_the_route_of_an_open_path(path: str, of_app: str, of_server: str) -> None:
    api = FastAPI()
    api.root_path = of_app  # as vLLM does after it made the app
    routes: list[str] = []

    @api.get("/{route:path}")
    async def answer(route: str) -> None:
        routes.append(f"/{route}")

    async def status() -> int | None:
        async with served(protect(api, required="v1", open_paths=["/health"])):
            return (await asgi.call(api, "GET", path, root_path=of_server)).status

    assert (asyncio.run(status()), routes) in ((200, ["/health"]), (400, []))
    assert path != (of_app or of_server) + "/health" or routes == ["/health"]


def test_sealed_requests_to_open_paths_are_opened(ring: KeyRing) -> None:
    app = EncryptedBodyMiddleware(tells, key_ring=ring, required="v1", open_paths=("/health",))
    client = ClientV1(ring, "GET", "/health", has_body=False)
    assert client.open(call_v1(app, client, "/health")) == [b"v1"]
    plain = Client(ring.current)
    response = asyncio.run(asgi.call(app, "POST", "/health", headers=plain.headers, pieces=plain.seal(b"x")))
    assert plain.open(response) == [b"ehbp"]


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_other_scopes_pass_untouched(ring: KeyRing, kind: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "seen"})

    protected = EncryptedBodyMiddleware(app, key_ring=ring, required="v1")
    response = asyncio.run(asgi.call(protected, "GET", KEY_PATH, type=kind, headers=[("Ehbp-Encapsulated-Key", "1.")]))
    assert response.messages == [{"type": "seen"}]


def test_options_is_never_opened(ring: KeyRing) -> None:
    client = ClientV1(ring, "OPTIONS", has_body=False)
    response = call_v1(EncryptedBodyMiddleware(tells, key_ring=ring, required="v1"), client)
    assert response.body == b"None"


@pytest.mark.parametrize(("open_paths", "status"), [((), 400), (("/",), 200)])
def test_what_an_outer_middleware_opened_by_plain_ehbp_is_no_version_1(
    ring: KeyRing, open_paths: tuple[str, ...], status: int
) -> None:
    inner = EncryptedBodyMiddleware(tells, key_ring=ring, required="v1", open_paths=open_paths)
    outer = EncryptedBodyMiddleware(inner, key_ring=ring)
    plain = Client(ring.current)
    response = asyncio.run(asgi.call(outer, "POST", "/", headers=plain.headers, pieces=plain.seal(b"x")))
    assert response.status == status
    assert b"".join(plain.open(response))  # it is sealed either way
    client = ClientV1(ring)
    assert client.open(call_v1(outer, client, pieces=client.seal(b"x"))) == [b"v1"]


def wrong(ring: KeyRing, client: ClientV1, path: str, **more: Any) -> asgi.Response:
    pieces = client.seal(b"a secret") if client.method == "POST" else []
    return call_v1(EncryptedBodyMiddleware(unreachable, key_ring=ring), client, path, pieces, **more)


def test_a_request_that_arrives_elsewhere_is_told_so_by_a_sealed_answer(
    ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    client = ClientV1(ring, target="/v1/private/chat")
    with caplog.at_level(logging.INFO):
        response = wrong(ring, client, "/v1/echo", headers=[("Origin", "https://chat.example")])
    assert response.status == 400
    assert b"private" not in response.body
    assert response.headers["content-length"] == str(len(response.body))
    assert response.headers["access-control-allow-origin"] == "https://chat.example"
    problem = json.loads(b"".join(client.open(response)))
    assert problem["message"].startswith(
        "the request was sealed for POST /v1/private/chat and arrived as POST /v1/echo: "
    )
    assert ring.status.refusals == {"wrong_place": 1}
    (record,) = caplog.records
    assert record.getMessage().startswith("refused a request (wrong_place, status 400): ")
    assert "private" not in record.getMessage()
    assert "echo" not in record.getMessage()


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("PUT", "/v1/chat", {}),
        ("GET", "/v1/chat", {}),
        ("HEAD", "/v1/chat", {}),
        ("POST", "/v1/chat/", {}),
        ("POST", "/chat", {}),
        ("POST", "/v1/chat", {"query_string": b"debug=1"}),
        ("POST", "/x/../v1/chat", {}),
    ],
)
def test_the_method_the_path_and_the_query_all_count(
    ring: KeyRing, method: str, path: str, more: dict[str, Any]
) -> None:
    client = ClientV1(ring, target="/v1/chat")
    response = wrong(ring, client, path, method=method, **more)
    assert response.status == 400
    assert ring.status.refusals == {"wrong_place": 1}


def test_a_wrong_answer_to_head_is_sealed_in_its_head(ring: KeyRing) -> None:
    client = ClientV1(ring, "HEAD", "/v1/a", has_body=False)
    response = wrong(ring, client, "/v1/b")
    assert response.body == b""
    assert client.open(response) == [b""]


def test_nor_has_one_whose_method_became_head_on_the_way_a_body(ring: KeyRing) -> None:
    client = ClientV1(ring, "GET", has_body=False)
    response = wrong(ring, client, "/", method="HEAD")
    client.method = "HEAD"  # as the answer takes it
    assert (response.body, client.open(response)) == (b"", [b""])


def test_the_rest_of_a_body_is_read_before_the_sealed_refusal(ring: KeyRing) -> None:
    client = ClientV1(ring, target="/v1/a")
    left = [bytes(1000)] * 100
    messages: list[Message] = []

    async def receive() -> Message:
        left.pop()
        return {"type": "http.request", "body": bytes(1000), "more_body": bool(left)}

    async def send(message: Message) -> None:
        assert not left
        messages.append(message)

    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)
    asyncio.run(protected(asgi.http_scope("POST", "/v1/b", client.headers), receive, send))
    assert [message["type"] for message in messages] == ["http.response.start", "http.response.body"]


def test_nothing_is_received_from_a_client_that_waits_for_a_continue(ring: KeyRing) -> None:
    messages: list[Message] = []

    async def receive() -> Message:
        assert messages
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)

    client = ClientV1(ring, target="/v1/a")
    headers = [*client.headers, ("Expect", "100-continue")]
    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)
    asyncio.run(protected(asgi.http_scope("POST", "/v1/b", headers), receive, send))
    response = asgi.Response(messages)
    assert response.headers["connection"] == "close"
    assert b"/v1/a" in b"".join(client.open(response))


@pytest.mark.parametrize(
    ("place", "path", "is_served"),
    [
        ("exact", "/team/v1/chat", True),
        ("exact", "/v1/chat", False),
        ("suffix", "/team/v1/chat", True),
        ("suffix", "/v1/chat", True),
        ("suffix", "/1/chat", False),
        ("suffix", "/other/v1/chat", False),
        ("off", "/other", True),
    ],
)
def test_how_the_place_is_compared_can_be_chosen(ring: KeyRing, place: Any, path: str, is_served: bool) -> None:
    client = ClientV1(ring, target="/team/v1/chat")
    response = call_v1(EncryptedBodyMiddleware(tells, key_ring=ring, place=place), client, path, client.seal(b"x"))
    assert (b"".join(client.open(response)) == b"v1") is is_served


@pytest.mark.parametrize("arrives_as", ["/api/echo", "/echo"])
@pytest.mark.parametrize("sealed_for", ["/api/echo", "/echo"])
def test_an_app_with_a_root_path_is_served_whatever_a_proxy_does_with_the_prefix(
    arrives_as: str, sealed_for: str
) -> None:
    app = protect(FastAPI(), required="v1")
    app.root_path = "/api"  # as `FastAPI(root_path=...)`, which is deprecated

    @app.post("/echo")
    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    async def run() -> None:
        async with app.router.lifespan_context(app):
            client = ClientV1(app.state.ephemeral_keys, "POST", sealed_for)
            response = await asgi.call(app, "POST", arrives_as, headers=client.headers, pieces=client.seal(b"hi"))
            assert client.open(response) == [b'"hi"']
            client = ClientV1(app.state.ephemeral_keys, "POST", "/other")
            response = await asgi.call(app, "POST", arrives_as, headers=client.headers, pieces=client.seal(b"hi"))
            assert response.status == 400

    asyncio.run(run())


@pytest.mark.parametrize("where", ["the outer app", "the mounted app"])
def test_a_mounted_app_is_served(ring: KeyRing, where: str) -> None:
    outer, inner = FastAPI(), FastAPI()

    @inner.get("/items/{number}")
    async def item(number: int) -> int:
        return number

    app: Any = outer
    if where == "the outer app":
        outer.mount("/inner", inner)
        app = EncryptedBodyMiddleware(outer, key_ring=ring, required="v1")
    else:
        outer.mount("/inner", EncryptedBodyMiddleware(inner, key_ring=ring, required="v1"))
    targets = ["/inner/items/7"] if where == "the outer app" else ["/inner/items/7", "/items/7"]
    for target in targets:
        client = ClientV1(ring, "GET", target, has_body=False)
        assert client.open(call_v1(app, client, "/inner/items/7")) == [b"7"]
    client = ClientV1(ring, "GET", "/inner/items/8", has_body=False)
    assert call_v1(app, client, "/inner/items/7").status == 400


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        ({"required": True}, {"required": "v1"}, "takes more than version 1 of the wire: pass required='v1'"),
        ({}, {"required": "v1"}, "takes bodies in plaintext: pass required='v1'"),
        ({}, {"required": True}, "takes bodies in plaintext: pass required=True"),
        ({"place": "off"}, {}, "with place='off', and cannot have place='exact'"),
        ({"open_paths": ["/a"]}, {"open_paths": ["/b"]}, r"open_paths=\('/a',\), and cannot have open_paths=\('/b',\)"),
    ],
)
def test_an_app_is_protected_in_one_way(first: dict[str, Any], second: dict[str, Any], complaint: str) -> None:
    app = protect(FastAPI(), **first)
    with pytest.raises(RuntimeError, match=complaint):
        protect(app, **second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"required": "v1"}, {"required": True}),
        ({"required": "v1"}, {}),
        ({"required": True}, {}),
        ({"open_paths": ["/a"]}, {"open_paths": ("/a",)}),
    ],
)
def test_a_second_call_may_ask_for_less(first: dict[str, Any], second: dict[str, Any]) -> None:
    app = protect(FastAPI(), **first)
    assert protect(app, **second) is app


def test_build_functions_take_the_same_options() -> None:
    build = inject_middleware(FastAPI, required="v1", place="suffix", open_paths=["/health"])
    with pytest.raises(RuntimeError, match="with place='suffix'"):
        protect(build(), required="v1", open_paths=["/health"])


@pytest.mark.parametrize(
    ("required", "said"),
    [("v1", 'bodies in plaintext are refused, and so is what is not sealed by version 1 of the wire (required="v1")')],
)
def test_the_start_says_what_is_required(required: Any, said: str, caplog: pytest.LogCaptureFixture) -> None:
    app = protect(FastAPI(), required=required)
    incoming: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        pass

    with caplog.at_level(logging.INFO, "server_keys"):
        asyncio.run(app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send))
    assert caplog.records[-1].getMessage().endswith(said)


@pytest.mark.parametrize(("required", "lines"), [("v1", 1), (True, 0)])
def test_the_start_warns_where_nobody_can_do_what_is_required(
    required: Any, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.complete"})

    with KeyRing(300, generate=lambda: KeyPair.generate()) as ring:
        protected = EncryptedBodyMiddleware(app, key_ring=ring, required=required)
        asyncio.run(asgi.call(protected, "GET", "/", type="lifespan"))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == lines
    assert all(warning.startswith('required="v1" refuses everybody for now') for warning in warnings)


def test_prometheus_counts_both_wires_and_the_new_refusals() -> None:
    registry = CollectorRegistry()
    app = protect(FastAPI(), required=False)

    @app.post("/")
    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    metrics.instrument(app, registry=registry)

    def count(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"server_keys_{name}_total", labels)

    assert count("refusals", reason="wrong_place") == count("refusals", reason="not_v1") == 0
    assert count("opened_requests", wire="v1") == count("opened_requests", wire="ehbp") == 0

    async def run() -> None:
        async with app.router.lifespan_context(app):
            ring = app.state.ephemeral_keys
            for target in ("/", "/", "/elsewhere"):
                client = ClientV1(ring, "POST", target)
                await asgi.call(app, "POST", "/", headers=client.headers, pieces=client.seal(b"x"))
            plain = Client(ring.current)
            await asgi.call(app, "POST", "/", headers=plain.headers, pieces=plain.seal(b"x"))

    asyncio.run(run())
    assert (count("opened_requests", wire="v1"), count("opened_requests", wire="ehbp")) == (2, 1)
    assert (count("requests", outcome="sealed"), count("requests", outcome="refused")) == (3, 1)
    assert count("refusals", reason="wrong_place") == 1
    # A request of version 1 has its frame and its end.
    assert (count("frames", direction="received"), count("frames", direction="sent")) == (2 + 2 + 1, 2 + 2 + 1)
    assert registry.get_sample_value("server_keys_opening_seconds_count") == 3
