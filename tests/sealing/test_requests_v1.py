"""Requests of version 1 of the wire: the head decides before the body, and no app sees a body that is not whole."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, EntropyError, KeyErasedError, KeyPair, KeyRing, protect
from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._native import RequestOpenerV1, XWingKeyPair
from server_keys._sealing import messages_v1
from server_keys._sealing.key_entries import key_id_of
from server_keys._sealing.wire_v1 import RequestHeader, request_header
from tests.helpers import asgi
from tests.helpers.sealed_requests import MALFORMED, ClientV1, assert_never_whole, call_v1, unreachable, xwing_key_of

KEY_MISMATCH = "urn:ietf:params:ehbp:error:key-config"


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    """A key ring that nobody refreshes by itself."""
    with KeyRing(300) as ring:
        yield ring


class Seen:
    """An app that notes what it sees of each request, and answers `answer` to one that is whole."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.whole: list[bytes] = []
        self.disconnects = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body, more_body = b"", True
        while more_body:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            body += message["body"]
            more_body = message["more_body"]
        self.whole.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})


@pytest.fixture
def app(ring: KeyRing) -> tuple[EncryptedBodyMiddleware, Seen]:
    """An app that notes what it sees, behind the middleware."""
    seen = Seen()
    return EncryptedBodyMiddleware(seen, key_ring=ring, required="v1"), seen


App = tuple[EncryptedBodyMiddleware, Seen]


def test_the_app_sees_the_plaintext_and_the_wire_only_ciphertext(app: App, ring: KeyRing) -> None:
    protected, seen = app
    client = ClientV1(ring, target="/chat?a=1")
    pieces = client.seal(b"attack ", b"at dawn")
    response = call_v1(protected, client, "/chat", pieces, query_string=b"a=1")
    assert seen.whole == [b"attack at dawn"]
    assert b"dawn" not in b"".join(pieces)
    assert client.open(response) == [b"answer"]
    assert b"answer" not in response.body
    assert seen.scopes[0]["server_keys.opened"] is True
    assert seen.scopes[0]["server_keys.wire"] == "v1"


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST", "PUT", "QUERY"])
def test_a_request_without_a_body_is_sealed_too(app: App, ring: KeyRing, method: str) -> None:
    protected, seen = app
    client = ClientV1(ring, method, has_body=False)
    response = call_v1(protected, client)
    assert seen.whole == [b""]
    assert seen.scopes[0]["server_keys.opened"] is True
    assert client.open(response) == ([b""] if method == "HEAD" else [b"answer"])
    names = {name for name, _ in seen.scopes[0]["headers"]}
    assert not {b"content-length", b"transfer-encoding"} & names


def test_the_lengths_that_an_app_sees(app: App, ring: KeyRing) -> None:
    protected, seen = app
    frames = ClientV1(ring).seal(b"hello")
    for pieces, has_body, headers in (
        ([b"".join(frames)], True, [("content-length", "99")]),
        (frames, True, []),
        ([b""], False, [("content-length", "0")]),
    ):
        client = ClientV1(ring, has_body=has_body)
        if has_body:
            frames = client.seal(b"hello")
            pieces = [b"".join(frames)] if len(pieces) == 1 else frames
        call_v1(protected, client, pieces=pieces, headers=headers)
    lengths = [
        {name: value for name, value in scope["headers"] if name in (b"content-length", b"transfer-encoding")}
        for scope in seen.scopes
    ]
    assert lengths == [{b"content-length": b"5"}, {b"transfer-encoding": b"chunked"}, {b"content-length": b"0"}]


@pytest.mark.parametrize("piece_bytes", [1, 3, 1000])
def test_no_cut_of_a_request_at_any_byte_reaches_the_app_as_whole(app: App, ring: KeyRing, piece_bytes: int) -> None:
    protected, seen = app
    whole = b"".join(ClientV1(ring).seal(b"a", b"bc"))
    for ends in (True, False):
        for length in range(len(whole)):
            client = ClientV1(ring)
            body = b"".join(client.seal(b"a", b"bc"))[:length]
            pieces = [body[at : at + piece_bytes] for at in range(0, length, piece_bytes)]
            response = call_v1(protected, client, pieces=pieces, ends=ends)
            assert seen.whole == []
            if ends:
                assert (response.status, json.loads(response.body)) == (400, MALFORMED)
            else:  # the client has gone, before the first frame or after it
                assert response.status in (None, 500)
    client = ClientV1(ring)
    assert client.open(call_v1(protected, client, pieces=client.seal(b"a", b"bc"))) == [b"answer"]
    assert seen.whole == [b"abc"]


def test_no_bit_of_a_request_can_be_changed(app: App, ring: KeyRing) -> None:
    protected, seen = app
    length = len(b"".join(ClientV1(ring).seal(b"a")))
    for position in range(length):
        client = ClientV1(ring)
        body = bytearray(b"".join(client.seal(b"a")))
        body[position] ^= 1
        response = call_v1(protected, client, pieces=[bytes(body)])
        assert response.status in (400, 413)
        assert seen.whole == []


def frame(length: int) -> bytes:
    return length.to_bytes(4, "big") + bytes(length)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("rest", [b"\0", frame(16), b"an end"], ids=["a byte", "a frame", "text"])
def test_nothing_may_follow_the_end(app: App, ring: KeyRing, rest: bytes, together: bool) -> None:
    protected, seen = app
    client = ClientV1(ring)
    pieces = [*client.seal(b"x"), rest]
    response = call_v1(protected, client, pieces=[b"".join(pieces)] if together else pieces)
    # Text reads as a long frame.
    assert response.status in (400, 413)
    assert seen.whole == []


def test_an_end_that_is_repeated_or_comes_early_is_none(app: App, ring: KeyRing) -> None:
    protected, seen = app
    for order in ([0, 2, 2], [0, 2, 1], [2, 0, 1], [2], [1, 0, 2], [0, 0, 1, 2]):
        client = ClientV1(ring)
        parts = client.seal(b"a", b"b")
        response = call_v1(protected, client, pieces=[parts[number] for number in order])
        assert (response.status, json.loads(response.body)) == (400, MALFORMED)
    assert seen.whole == []


@pytest.mark.parametrize("body", [b"\0", frame(0), frame(15), frame(16), b"a body"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_body_where_the_head_announces_none_never_reaches_the_app(
    app: App, ring: KeyRing, method: str, body: bytes
) -> None:
    protected, seen = app
    for pieces in ([body], [b"", body], [b"", body, b""]):
        response = call_v1(protected, ClientV1(ring, method, has_body=False), pieces=pieces)
        assert response.status == 400
    assert seen.scopes == []


def test_a_body_that_its_end_alone_makes_up_is_empty(app: App, ring: KeyRing) -> None:
    protected, seen = app
    client = ClientV1(ring)
    assert client.open(call_v1(protected, client, pieces=client.seal())) == [b"answer"]
    assert seen.whole == [b""]


def test_an_announced_body_that_does_not_come_is_cut(app: App, ring: KeyRing) -> None:
    protected, seen = app
    assert call_v1(protected, ClientV1(ring), pieces=[b""]).status == 400
    assert seen.scopes == []


@pytest.mark.parametrize("length", [0, 15])
def test_a_frame_that_is_shorter_than_a_seal_is_refused(app: App, ring: KeyRing, length: int) -> None:
    protected, _ = app
    client = ClientV1(ring)
    assert call_v1(protected, client, pieces=[frame(length), *client.seal(b"x")]).status == 400


def test_a_frame_above_the_limit_is_refused_by_its_length_alone(ring: KeyRing) -> None:
    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring, max_frame_bytes=100_000)
    response = call_v1(protected, ClientV1(ring), pieces=[(100_001).to_bytes(4, "big")], ends=False)
    assert response.status == 413


def test_heads_and_bodies_of_two_requests_cannot_be_swapped(app: App, ring: KeyRing) -> None:
    protected, seen = app
    one, other = ClientV1(ring, target="/one"), ClientV1(ring, target="/other")
    one_body, other_body = one.seal(b"one"), other.seal(b"other")
    # The body of another request.
    assert call_v1(protected, one, "/one", other_body).status == 400
    # The head of another request.
    header = one.header
    one.header = header._replace(sealed_head=other.header.sealed_head)
    response = call_v1(protected, one, "/other", one_body)
    assert (response.status, json.loads(response.body)["type"]) == (422, KEY_MISMATCH)
    # Another request's agreement.
    one.header = header._replace(encapsulated_key=other.header.encapsulated_key)
    assert call_v1(protected, one, "/one", one_body).status == 422
    assert seen.scopes == []


def changed(header: RequestHeader, **fields: Any) -> list[tuple[str, str]]:
    return [("Ehbp-Encapsulated-Key", request_header(header._replace(**fields)))]


@pytest.mark.parametrize(
    "how",
    ["version 2", "no head", "padding", "not canonical", "64 KiB", "twice", "with plain ehbp", "key id 0", "short enc"],
)
@pytest.mark.parametrize("method", ["POST", "HEAD", "GET"])
def test_a_header_of_another_form_is_answered_before_anything_is_received(ring: KeyRing, how: str, method: str) -> None:
    client = ClientV1(ring, method)
    ((name, value),) = client.headers
    headers = {
        "version 2": [(name, "2" + value[1:])],
        "no head": [(name, value.rpartition(".")[0])],
        "padding": [(name, value + "=")],
        "not canonical": [(name, request_header(client.header._replace(sealed_head=b"\0")) + "")],
        "64 KiB": [(name, value + "A" * 65536)],
        "twice": [(name, value)] * 2,
        "with plain ehbp": [(name, value), (name, "ab" * 32)],
        "key id 0": [(name, value[:2] + "00" + value[4:])],
        "short enc": [(name, value.replace(".", ".A", 2).replace(".A", ".", 1))],
    }[how]
    if how == "not canonical":
        headers = [(name, headers[0][1][:-1] + "B")]
    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)
    response = asyncio.run(asgi.call(protected, method, "/", headers=headers))
    assert response.status == 400
    if method != "HEAD":
        assert json.loads(response.body) == MALFORMED
    assert ring.status.refusals == {"malformed": 1}


@pytest.mark.parametrize(
    "half",
    [
        bytes(32),
        b"\1" + bytes(31),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ],
)
def test_an_x25519_half_of_small_order_is_malformed(ring: KeyRing, half: bytes) -> None:
    client = ClientV1(ring)
    headers = changed(client.header, encapsulated_key=client.header.encapsulated_key[:-32] + half)
    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)
    response = asyncio.run(asgi.call(protected, "POST", "/", headers=headers, pieces=client.seal(b"x")))
    assert (response.status, json.loads(response.body)) == (400, MALFORMED)


def test_no_byte_of_the_header_can_be_changed(ring: KeyRing) -> None:
    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)
    client = ClientV1(ring)
    ((name, value),) = client.headers
    pieces = client.seal(b"x")
    for position in range(len(value)):
        other = "A" if value[position] != "A" else "B"
        headers = [(name, value[:position] + other + value[position + 1 :])]
        response = asyncio.run(asgi.call(protected, "POST", "/", headers=headers, pieces=pieces))
        assert response.status in (400, 422)


def test_a_request_sealed_to_another_key_is_told_so_before_anything_is_received(ring: KeyRing) -> None:
    client = ClientV1(XWingKeyPair.generate().public_key)
    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)

    async def receive() -> Message:
        assert messages, "something was received before the answer"
        return {"type": "http.disconnect"}

    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    # Such a client waits for `100 Continue`, so that the rest of its body is not read before the answer, either.
    headers = [*client.headers, ("Expect", "100-continue")]
    asyncio.run(protected(asgi.http_scope("POST", "/", headers), receive, send))
    assert messages[0]["status"] == 422
    assert json.loads(messages[1]["body"])["type"] == KEY_MISMATCH


def test_a_ring_without_such_keys_says_that_the_key_is_another() -> None:
    with KeyRing(300, generate=lambda: KeyPair.generate()) as ring:
        protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)
        response = call_v1(protected, ClientV1(XWingKeyPair.generate().public_key), pieces=[b"x"])
    assert (response.status, json.loads(response.body)["type"]) == (422, KEY_MISMATCH)


def test_the_previous_key_is_served_while_it_is_accepted(app: App, ring: KeyRing) -> None:
    protected, _ = app
    client = ClientV1(ring)
    ring.refresh()
    assert client.open(call_v1(protected, client, pieces=client.seal(b"late"))) == [b"answer"]
    client = ClientV1(xwing_key_of(ring, 1))
    ring.refresh()
    assert call_v1(protected, client, pieces=client.seal(b"too late")).status == 422


def test_a_key_whose_sibling_was_erased_is_accepted_no_longer(app: App, ring: KeyRing) -> None:
    protected, _ = app
    client = ClientV1(ring)
    epoch = ring.current_pairs
    epoch.x25519.erase()
    assert call_v1(protected, client, pieces=client.seal(b"x")).status == 422
    assert epoch.xwing is not None
    assert epoch.xwing.erased


def test_a_request_in_flight_outlives_its_key(ring: KeyRing) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()
        ring.close()
        second = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": first["body"] + second["body"]})

    client = ClientV1(ring)
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    assert client.open(call_v1(protected, client, pieces=client.seal(b"before, ", b"after"))) == [b"before, after"]


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The public keys under which heads are tried."""
    tried: list[bytes] = []

    def counted(enc: bytes, head: bytes, pair: XWingKeyPair, *, max_frame_bytes: int) -> object:
        tried.append(pair.public_key)
        return RequestOpenerV1(enc, head, pair, max_frame_bytes=max_frame_bytes)

    monkeypatch.setattr(messages_v1, "RequestOpenerV1", counted)
    return tried


def test_ten_thousand_forged_requests_cost_a_trial_each_at_most(ring: KeyRing, trials: list[bytes]) -> None:
    ring.refresh()
    ids = [key_id_of(xwing_key_of(ring, epoch)) for epoch in (0, 1)]
    most = 2 if ids[0] == ids[1] else 1
    header = ClientV1(ring).header
    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)

    async def forge() -> None:
        for number in range(10_000):
            headers = changed(header, key_id=number % 255 + 1, sealed_head=number.to_bytes(20, "big"))
            before = len(trials)
            assert (await asgi.call(protected, "POST", "/", headers=headers, pieces=[b"x"])).status == 422
            assert len(trials) - before == (most if number % 255 + 1 in ids else 0)

    asyncio.run(forge())
    # Honest ones cost one each.
    trials.clear()
    client = ClientV1(ring)
    call_v1(EncryptedBodyMiddleware(Seen(), key_ring=ring), client, pieces=client.seal(b"x"))
    assert len(trials) == most


def test_of_two_keys_with_one_id_the_right_one_opens(trials: list[bytes]) -> None:
    first = XWingKeyPair.generate()
    while key_id_of((second := XWingKeyPair.generate()).public_key) != key_id_of(first.public_key):
        continue
    epochs = [EpochPairs(KeyPair.generate(), pair) for pair in (first, second)]
    for pair, tried in ((first, 1), (second, 2)):
        client = ClientV1(pair.public_key)
        trials.clear()
        opened = messages_v1.opened_v1(client.header, "POST", epochs, 100_000)
        assert opened.head.target == b"/"
        assert len(trials) == tried


def test_a_client_that_goes_away_before_the_first_frame_is_no_request(app: App, ring: KeyRing) -> None:
    protected, seen = app
    for has_body in (True, False):
        response = call_v1(protected, ClientV1(ring, has_body=has_body), ends=False)
        assert response.messages == []
    assert seen.scopes == []
    assert ring.status.refusals == {}


def test_a_client_that_goes_away_later_is_a_disconnect(app: App, ring: KeyRing) -> None:
    protected, seen = app
    client = ClientV1(ring)
    response = call_v1(protected, client, pieces=client.seal(b"x"), ends=False)
    # Also behind the end frame: only the end of the request itself ends its body.
    assert (seen.disconnects, seen.whole, response.error) == (1, [], None)


def test_a_body_that_breaks_midway_is_refused_and_an_answer_that_has_begun_never_ends(ring: KeyRing) -> None:
    async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (message := await receive())["type"] == "http.request":
            await send({"type": "http.response.body", "body": message["body"], "more_body": message["more_body"]})

    client = ClientV1(ring)
    pieces = client.seal(b"a", b"b")[:2]
    response = call_v1(EncryptedBodyMiddleware(streaming, key_ring=ring), client, pieces=pieces)
    assert response.error is None
    assert_never_whole(client, response)


def test_a_fastapi_app_is_served_with_all_that_is_around_it() -> None:
    api = FastAPI()

    @api.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @api.get("/items/{number}")
    async def item(number: int, q: str) -> dict[str, object]:
        return {"number": number, "q": q}

    @api.get("/stream")
    async def stream() -> Response:
        return StreamingResponse(iter([b"one", b"two"]))

    @api.get("/fails")
    async def fails() -> None:
        raise RuntimeError("a secret in an error")

    protect(api, 300, required="v1")

    async def run() -> None:
        async with api.router.lifespan_context(api):
            ring = api.state.ephemeral_keys
            for method, path, query, body, status, expected in (
                ("POST", "/echo", "", b"hello", 200, b"hello"),
                ("GET", "/items/7", "q=x", None, 200, b'{"number":7,"q":"x"}'),
                ("GET", "/items/x", "q=x", None, 422, b""),
                ("GET", "/stream", "", None, 200, b"onetwo"),
                ("GET", "/nowhere", "", None, 404, b""),
                ("GET", "/fails", "", None, 500, b"Internal Server Error"),
            ):
                client = ClientV1(ring, method, f"{path}?{query}" if query else path, has_body=body is not None)
                response = await asgi.call(
                    api,
                    method,
                    path,
                    headers=client.headers,
                    pieces=[] if body is None else client.seal(body),
                    query_string=query.encode(),
                )
                assert response.status == status
                opened = b"".join(client.open(response))
                assert expected in opened

    asyncio.run(run())


@pytest.mark.parametrize(
    "end",
    [
        *("it is served", "the app fails", "the body is cut", "the body is malformed", "the client leaves"),
        *("another place", "a body where there is none", "a head of another form", "no random nonce"),
    ],
)
def test_the_keys_of_a_request_are_wiped_when(ring: KeyRing, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    openers: list[RequestOpenerV1] = []

    def kept(*arguments: Any, **keywords: Any) -> RequestOpenerV1:
        openers.append(RequestOpenerV1(*arguments, **keywords))
        return openers[-1]

    def no_nonce(wire: messages_v1.RequestV1) -> None:
        raise EntropyError("the pool is dry")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        if end == "the app fails":
            raise RuntimeError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})

    monkeypatch.setattr(messages_v1, "RequestOpenerV1", kept)
    if end == "no random nonce":
        monkeypatch.setattr(messages_v1.RequestV1, "response", no_nonce)
    client = ClientV1(
        ring, target="/ /" if end == "a head of another form" else "/", has_body=not end.startswith("a body")
    )
    pieces = client.seal(b"x", b"y")
    pieces = {"the body is cut": pieces[:2], "the client leaves": pieces[:1]}.get(end, pieces)
    if end == "the body is malformed":
        pieces[1] = b"\0" * 20
    path = "/elsewhere" if end == "another place" else "/"
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    call_v1(protected, client, path, pieces, ends=end != "the client leaves")
    (opener,) = openers
    with pytest.raises(KeyErasedError):
        opener.bytes_to_open(1)
