"""Requests that are not sealed: some pass, some are refused, and those for the key get it."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, EntropyError, KeyPair, KeyRing, ephemeral_key_lifespan_factory
from server_keys._native import RequestSealer
from server_keys._sealing.key_entries import key_id_of
from tests.helpers import asgi


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    """A key ring that nobody refreshes by itself."""
    with KeyRing(300) as ring:
        yield ring


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the scope's type and all that arrives."""
    body = b""
    more_body = scope["type"] == "http"
    while more_body:
        message = await receive()
        body += message.get("body", b"")
        more_body = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": scope["type"].encode() + body})


@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
def test_a_request_without_body_travels_in_plaintext(ring: KeyRing, method: str, required: bool) -> None:
    app = EncryptedBodyMiddleware(echo, key_ring=ring, required=required)
    response = asyncio.run(asgi.call(app, method, "/"))
    assert (response.body, response.headers) == (b"http", {"content-length": "4"})


def test_a_plaintext_body_passes_unless_sealing_is_required(ring: KeyRing) -> None:
    passing = EncryptedBodyMiddleware(echo, key_ring=ring)
    response = asyncio.run(asgi.call(passing, "POST", "/", pieces=[b" in", b" clear"]))
    assert (response.body, response.headers) == (b"http in clear", {"content-length": "4"})
    strict = EncryptedBodyMiddleware(echo, key_ring=ring, required=True)
    response = asyncio.run(asgi.call(strict, "POST", "/", pieces=[b"", b" in", b" clear"]))
    assert response.status == 400
    problem = json.loads(response.body)
    assert "EHBP only" in problem["title"]
    # The OpenAI SDK shows this member.
    assert problem["message"] == problem["title"]


@pytest.mark.parametrize("required", [False, True])
def test_the_header_without_a_body_makes_no_sealed_request(ring: KeyRing, required: bool) -> None:
    headers = [("Ehbp-Encapsulated-Key", RequestSealer(ring.current.public_key).encapsulated_key.hex())]
    app = EncryptedBodyMiddleware(echo, key_ring=ring, required=required)
    response = asyncio.run(asgi.call(app, "POST", "/", headers=headers))
    assert (response.body, response.headers) == (b"http", {"content-length": "4"})


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_methods_without_a_sealed_form_pass_untouched(ring: KeyRing, method: str) -> None:
    app = EncryptedBodyMiddleware(echo, key_ring=ring)
    response = asyncio.run(asgi.call(app, method, "/", headers=[("Ehbp-Encapsulated-Key", "bad")], pieces=[b" x"]))
    assert (response.body, response.headers) == (b"http x", {"content-length": "4"})


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_where_sealing_is_required_no_method_takes_a_plaintext_body(ring: KeyRing, method: str) -> None:
    app = EncryptedBodyMiddleware(echo, key_ring=ring, required=True)
    assert asyncio.run(asgi.call(app, method, "/", pieces=[b" x"])).status == 400


def test_a_key_that_is_nearly_over_is_cached_for_no_longer_than_it_is_accepted() -> None:
    now = 0.0

    def generate() -> KeyPair:
        if now:
            raise EntropyError("the pool is dry")
        return KeyPair.generate()

    with KeyRing(100, generate=generate, clock=lambda: now) as ring:
        now = 190.0  # and no refresh has succeeded
        app = EncryptedBodyMiddleware(echo, key_ring=ring)
        response = asyncio.run(asgi.call(app, "GET", "/.well-known/hpke-keys"))
    assert response.headers["cache-control"] == "private, max-age=9"


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_other_scopes_pass_untouched(ring: KeyRing, kind: str) -> None:
    app = EncryptedBodyMiddleware(echo, key_ring=ring, required=True)
    response = asyncio.run(asgi.call(app, "GET", "/.well-known/hpke-keys", type=kind))
    assert response.body == kind.encode()


def test_the_key_is_published_as_every_client_expects_it(ring: KeyRing) -> None:
    app = EncryptedBodyMiddleware(echo, key_ring=ring, required=True)
    response = asyncio.run(asgi.call(app, "GET", "/.well-known/hpke-keys"))
    assert response.status == 200
    assert response.headers["content-type"] == "application/ohttp-keys"
    assert response.headers["access-control-allow-origin"] == "*"
    first, rest = response.body[:41], response.body[41:]
    assert first.hex() == "000020" + ring.current.public_key.hex() + "000400010002"
    xwing = ring.current_pairs.xwing
    assert xwing is not None
    assert rest.hex() == f"04c9{key_id_of(xwing.public_key):02x}647a" + xwing.public_key.hex() + "000400010002"


def test_a_ring_of_somebody_elses_pairs_publishes_plain_ehbp_alone() -> None:
    with KeyRing(300, generate=lambda: KeyPair.generate()) as ring:
        app = EncryptedBodyMiddleware(echo, key_ring=ring, required="v1")
        response = asyncio.run(asgi.call(app, "GET", "/.well-known/hpke-keys"))
        assert response.body.hex() == "000020" + ring.current.public_key.hex() + "000400010002"


@pytest.mark.parametrize(
    ("period_s", "overlap_s", "cache_control"),
    [
        (300, None, "private, max-age=295"),
        (300, 20, "private, max-age=18"),
        (2, 2, "private, max-age=1"),
        (300, 1.5, "private, max-age=1"),
        # A second is all of the overlap, and the shortest lifetime there is.
        (1, 1, "private, max-age=1"),
        (300, 1, "private, max-age=1"),
        # There is none that is shorter, and a longer one would outlive the key.
        (300, 0.999, "no-store"),
        (0.5, 0.5, "no-store"),
        (300, 0, "no-store"),
    ],
)
def test_the_key_may_be_kept_for_a_little_less_than_the_overlap_by_its_client_alone(
    period_s: float, overlap_s: float | None, cache_control: str
) -> None:
    with KeyRing(period_s, overlap_s=overlap_s) as ring:
        app = EncryptedBodyMiddleware(echo, key_ring=ring)
        response = asyncio.run(asgi.call(app, "GET", "/.well-known/hpke-keys"))
    assert response.headers["cache-control"] == cache_control


@pytest.mark.parametrize(
    ("root_path", "before"),
    [
        *(
            ("/api", "/api"),
            ("/api", ""),
            ("/api/", "/api"),
            ("/api/", ""),
            ("/", ""),
            ("/elsewhere", ""),
            ("/.well", ""),
        ),
        ("/api/", "/api/"),  # uvicorn --root-path /api/
    ],
)
def test_the_key_is_found_under_a_root_path(ring: KeyRing, root_path: str, before: str) -> None:
    app = EncryptedBodyMiddleware(echo, key_ring=ring)
    response = asyncio.run(asgi.call(app, "GET", f"{before}/.well-known/hpke-keys", root_path=root_path))
    assert response.body.startswith(bytes.fromhex("000020") + ring.current.public_key)


def test_the_key_answers_head_and_refuses_other_methods(ring: KeyRing) -> None:
    app = EncryptedBodyMiddleware(echo, key_ring=ring)
    head = asyncio.run(asgi.call(app, "HEAD", "/.well-known/hpke-keys"))
    assert (head.status, head.headers["content-length"], head.body) == (200, "1268", b"")
    post = asyncio.run(asgi.call(app, "POST", "/.well-known/hpke-keys"))
    assert (post.status, post.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("method", "path", "headers", "pieces", "status"),
    [
        ("GET", "/.well-known/hpke-keys", [], [], 200),
        ("POST", "/", [], [b"in clear"], 400),
        ("POST", "/", [("Ehbp-Encapsulated-Key", "bad")], [b"sealed"], 400),
        ("POST", "/", [("Ehbp-Encapsulated-Key", "ab" * 32)], [b"\0\0\0\x10" + bytes(16)], 422),
        ("POST", "/", [("Ehbp-Encapsulated-Key", "ab" * 32)], [b"\xff" * 4], 413),
    ],
)
def test_a_page_of_another_origin_can_read_what_it_needs_to_recover(
    ring: KeyRing, method: str, path: str, headers: list[tuple[str, str]], pieces: list[bytes], status: int
) -> None:
    app = EncryptedBodyMiddleware(echo, key_ring=ring, required=True)
    for_all = asyncio.run(asgi.call(app, method, path, headers=headers, pieces=pieces))
    assert for_all.status == status
    assert for_all.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in for_all.headers
    # Browsers that have sent cookies want the origin by its name.
    origin = ("Origin", "https://chat.example")
    for_page = asyncio.run(asgi.call(app, method, path, headers=[*headers, origin], pieces=pieces))
    assert (for_page.status, for_page.body) == (status, for_all.body)
    assert for_page.headers["access-control-allow-origin"] == "https://chat.example"
    assert for_page.headers["access-control-allow-credentials"] == "true"
    assert for_all.headers["vary"] == for_page.headers["vary"] == "Origin"


def test_around_an_app_the_ring_of_its_state_is_found() -> None:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(None))
    with TestClient(EncryptedBodyMiddleware(app)) as client:
        assert client.get("/.well-known/hpke-keys").status_code == 200
