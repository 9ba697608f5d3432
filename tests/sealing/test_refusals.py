"""A refusal reads the body first, is counted, and stands in the log."""

import asyncio
import logging
import pickle
import time
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyPair, KeyRing, protect
from tests.helpers import asgi
from tests.helpers.held_time import HeldTime, run_in_held_time
from tests.helpers.sealed_requests import Client, unreachable

KEY_PATH = "/.well-known/hpke-keys"


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    """A key ring that nobody refreshes by itself."""
    with KeyRing(300) as ring:
        yield ring


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldTime:
    """Time that the test holds."""
    held = HeldTime()
    monkeypatch.setattr(time, "clock_gettime", held.clock_gettime)
    return held


async def reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body and answer nothing if it breaks."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})


Request = tuple[str, str, list[tuple[str, str]], list[bytes]]


def refused_for(reason: str, ring: KeyRing) -> Request:
    """Return a request that is refused for `reason`: method, path, headers, the first pieces of its body."""
    client, stranger = Client(ring.current), Client(KeyPair.generate())
    good = client.seal(b"a secret")
    return {
        "key_mismatch": ("POST", "/", stranger.headers, stranger.seal(b"a secret")),
        "malformed": ("POST", "/", [("Ehbp-Encapsulated-Key", "no")], [b"a secret"]),
        "malformed midway": ("POST", "/", client.headers, [*good, b"\0\0\0\x20" + bytes(32)]),
        "frame_too_large": ("POST", "/", client.headers, [b"\xff" * 4]),
        "too large midway": ("POST", "/", client.headers, [*good, b"\xff" * 4]),
        "plaintext": ("POST", "/", [], [b"a secret"]),
        "key_path_method": ("PUT", KEY_PATH, [], [b"a secret"]),
        "keys_unavailable": ("POST", "/", client.headers, good),
        "keys_unavailable at their path": ("GET", KEY_PATH, [], [b"a body"]),
        "none: the key": ("GET", KEY_PATH, [], [b"a body"]),
    }[reason]


REFUSED = {
    "key_mismatch": ("key_mismatch", 422),
    "malformed": ("malformed", 400),
    "malformed midway": ("malformed", 400),
    "frame_too_large": ("frame_too_large", 413),
    "too large midway": ("frame_too_large", 413),
    "plaintext": ("plaintext", 400),
    "key_path_method": ("key_path_method", 405),
    "keys_unavailable": ("keys_unavailable", 500),
    "keys_unavailable at their path": ("keys_unavailable", 500),
}


def protected(ring: KeyRing) -> EncryptedBodyMiddleware:
    return EncryptedBodyMiddleware(reads_all, key_ring=ring, required=True)


def call(app: EncryptedBodyMiddleware, request: Request) -> asgi.Response:
    method, path, headers, pieces = request
    client = ("203.0.113.9", 4711)
    return asyncio.run(asgi.call(app, method, path, headers=headers, pieces=pieces, client=client))


class Server:
    """Hands over a body piece by piece, and notes what happens in which order."""

    def __init__(self, pieces: list[bytes], wait: Callable[[], asyncio.Future[None]] | None = None) -> None:
        self.left = list(pieces)
        self.wait = wait
        self.left_at_answer: int | None = None
        self.response = asgi.Response()
        self.answered_at: float | None = None

    async def receive(self) -> Message:
        if not self.left and self.wait is not None:
            await self.wait()
        piece = self.left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self.left) or self.wait is not None}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.left_at_answer = len(self.left)
            self.answered_at = asyncio.get_running_loop().time()
        self.response.messages.append(message)


@pytest.mark.parametrize("reason", [*REFUSED, "none: the key"])
def test_the_rest_of_a_body_is_read_before_the_answer(ring: KeyRing, reason: str) -> None:
    method, path, headers, pieces = refused_for(reason, ring)
    app = protected(ring)
    if reason.startswith("keys_unavailable"):
        ring.close()
    server = Server([*pieces, *([bytes(65536)] * 100)])
    asyncio.run(app(asgi.http_scope(method, path, headers), server.receive, server.send))
    assert server.left_at_answer == 0
    assert server.response.is_complete
    assert "connection" not in server.response.headers


@pytest.mark.parametrize(("http_version", "connection"), [("1.1", "close"), ("1.0", "close"), ("2", None)])
def test_a_body_that_does_not_end_is_waited_for_ten_seconds(
    ring: KeyRing, held: HeldTime, http_version: str, connection: str | None
) -> None:
    server = Server([b"a beginning"], wait=lambda: asyncio.get_running_loop().create_future())
    scope = asgi.http_scope("POST", "/", http_version=http_version)

    async def serve() -> float:
        began_at = asyncio.get_running_loop().time()
        await protected(ring)(scope, server.receive, server.send)
        return began_at

    began_at = run_in_held_time(held, serve)
    assert server.answered_at == began_at + 10
    assert server.response.headers.get("connection") == connection
    assert server.response.is_complete
    # The answer is there whole, a second before the connection ends.
    assert server.response.pieces[0] == server.response.body
    assert held.awake_s - server.answered_at == 1


def test_a_body_that_is_longer_than_64_mib_is_not_read_to_its_end(ring: KeyRing) -> None:
    mib = bytes(1024 * 1024)
    server = Server([mib] * 1000)
    asyncio.run(protected(ring)(asgi.http_scope("POST", "/"), server.receive, server.send))
    # The first message tells that there is a body, and is none of the rest.
    assert server.left_at_answer == 1000 - 1 - 64
    assert server.response.headers["connection"] == "close"


@pytest.mark.parametrize("path", ["/", KEY_PATH])
def test_nothing_is_received_for_a_client_that_waits_for_a_continue(ring: KeyRing, path: str) -> None:
    server = Server([b"never wanted"])
    scope = asgi.http_scope("POST", path, [("Expect", "100-Continue")])

    async def receive() -> Message:
        assert server.left_at_answer is not None, "a server sends `100 Continue` when the body is first asked for"
        return {"type": "http.disconnect"}

    asyncio.run(protected(ring)(scope, receive, server.send))
    assert server.response.status in (400, 405)
    assert server.response.headers["connection"] == "close"


@pytest.mark.parametrize("reason", REFUSED)
def test_a_refusal_is_counted_by_its_reason(ring: KeyRing, reason: str) -> None:
    # A request that breaks midway is seen already, so the second one is another one.
    requests = [refused_for(reason, ring) for _ in range(2)]
    app = protected(ring)
    assert ring.status.refusals == {}
    if reason.startswith("keys_unavailable"):
        ring.close()
    counted_as, status = REFUSED[reason]
    for times, request in enumerate(requests, 1):
        assert call(app, request).status == status
        assert ring.status.refusals == {counted_as: times}


def test_what_is_served_is_not_counted(ring: KeyRing) -> None:
    client = Client(ring.current)
    app = protected(ring)
    assert call(app, ("POST", "/", client.headers, client.seal(b"x"))).status == 200
    assert call(app, ("GET", KEY_PATH, [], [])).status == 200
    assert ring.status.refusals == {}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_refusal_stands_in_the_log_without_anything_of_the_request(
    ring: KeyRing, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    request = refused_for(reason, ring)
    if reason.startswith("keys_unavailable"):
        ring.close()
    with caplog.at_level(logging.INFO):
        call(protected(ring), request)
    (record,) = caplog.records
    counted_as, status = REFUSED[reason]
    assert (record.name, record.levelname) == ("server_keys", "WARNING")
    assert record.getMessage().startswith(f"refused a request ({counted_as}, status {status}): ")
    assert "secret" not in record.getMessage()
    assert "203.0.113" not in record.getMessage()
    assert record.exc_info is None


def test_the_log_gets_one_line_a_minute_for_each_reason(
    ring: KeyRing, held: HeldTime, caplog: pytest.LogCaptureFixture
) -> None:
    app = protected(ring)

    def refuse(reason: str) -> list[str]:
        caplog.clear()
        call(app, refused_for(reason, ring))
        return [record.getMessage().partition(":")[0] for record in caplog.records]

    assert refuse("plaintext") == ["refused a request (plaintext, status 400)"]
    held.pass_s(59)
    assert refuse("plaintext") == []
    assert refuse("plaintext") == []
    assert refuse("key_mismatch") == ["refused a request (key_mismatch, status 422)"]
    held.pass_s(1)
    assert refuse("plaintext") == ["refused a request (plaintext, status 400, 2 more since the last such line)"]
    held.pass_s(60)
    assert refuse("plaintext") == ["refused a request (plaintext, status 400)"]
    assert ring.status.refusals == {"plaintext": 5, "key_mismatch": 1}


def test_who_meets_keys_of_other_processes_is_told_to_let_them_share(
    ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    call(protected(ring), refused_for("key_mismatch", ring))
    (record,) = caplog.records
    message = record.getMessage()
    for word in ("several processes", "share=", "--key-share", "status.sharing.why_not", "hpke-keys"):
        assert word in message


@pytest.mark.parametrize(
    ("required", "said"), [(True, "refused (required=True)"), (False, "taken, too (required=False)")]
)
def test_the_start_is_one_line_in_the_log(required: bool, said: str, caplog: pytest.LogCaptureFixture) -> None:
    app = protect(FastAPI(), 120, overlap=30, required=required)
    incoming: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    key_ids = []

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        if message["type"] == "lifespan.startup.complete":
            key_ids.append(app.state.ephemeral_keys.status.key_id)

    with caplog.at_level(logging.INFO, "server_keys"):
        asyncio.run(app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("server_keys", "INFO")
    assert record.getMessage() == (
        f"key {key_ids[0]}: keys of this process, a new one every 120 s, each accepted for 30 s longer; sealed bodies "
        f"(EHBP) are opened, bodies in plaintext are {said}"
    )


def test_an_app_whose_start_fails_is_not_said_to_have_started(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "lifespan.startup.failed"})

    with KeyRing(300) as ring, caplog.at_level(logging.INFO):
        asyncio.run(asgi.call(EncryptedBodyMiddleware(fails, key_ring=ring), "GET", "/", type="lifespan"))
    assert caplog.records == []


def test_the_app_is_not_called_for_a_refused_request(ring: KeyRing) -> None:
    app = EncryptedBodyMiddleware(unreachable, key_ring=ring, required=True)
    for reason in ("key_mismatch", "malformed", "frame_too_large", "plaintext"):
        assert call(app, refused_for(reason, ring)).status == REFUSED[reason][1]


def test_the_middleware_around_an_app_can_be_pickled() -> None:
    # Ray Serve pickles the app that it is given, and so what is around it.
    again = pickle.loads(pickle.dumps(EncryptedBodyMiddleware(unreachable, required=True)))
    assert asyncio.run(asgi.call(again, "POST", "/", pieces=[b"in the clear"])).status == 400


def test_a_refusal_is_logged_whatever_configured_logging(ring: KeyRing, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("server_keys").disabled = True  # as dictConfig leaves loggers that it does not name
    call(protected(ring), refused_for("plaintext", ring))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_protected_app_counts_in_the_ring_of_its_state() -> None:
    app = protect(FastAPI(), 300, required=True)

    async def refused() -> dict[str, int]:
        async with app.router.lifespan_context(app):
            await asgi.call(app, "POST", "/", pieces=[b"in the clear"])
            return dict(app.state.ephemeral_keys.status.refusals)

    assert asyncio.run(refused()) == {"plaintext": 1}


def test_without_a_lifespan_there_is_nowhere_to_count_and_the_answer_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = protect(FastAPI(), 300)
    response = asyncio.run(asgi.call(app, "POST", "/", headers=[("Ehbp-Encapsulated-Key", "ab" * 32)], pieces=[b"x"]))
    assert response.status == 500
    assert "app.state.ephemeral_keys holds no key ring" in caplog.text
