"""A sealed request is served once, for as long as its key is accepted."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyPair, KeyRing, protect
from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._keys.own_pairs import OwnPairs
from server_keys._keys.replays import OwnReplays, SeenRequests
from server_keys._keys.schedule import Schedule
from server_keys._native import ReplayTableError, ReplayTableFullError, ReplayTableLostError
from server_keys._sealing.buffers import buffers_of_process
from server_keys._sealing.request import SealedRequest
from server_keys._sealing.wire_v1 import request_header
from tests.helpers import asgi
from tests.helpers.held_time import HeldTime
from tests.helpers.sealed_requests import Client, ClientV1

ROOM = 2**18
LONG_FRAME = 1024 * 1024
"""More than a request may hold without being counted. Four of them are the least bound of what requests hold."""
Pieces = list[bytes]
Sealed = tuple[Client | ClientV1, Pieces]
Seal = Callable[[KeyRing], Sealed]


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    """A key ring that nobody refreshes by itself."""
    with KeyRing(300) as ring:
        yield ring


@pytest.fixture
def held() -> HeldTime:
    """Time that the test lets pass."""
    return HeldTime()


class Counting:
    """An app that counts its calls, and reads the body before it answers."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})


def plain(ring: KeyRing) -> Sealed:
    client = Client(ring.current)
    return client, client.seal(b"a question", b"of two frames")


def v1(ring: KeyRing) -> Sealed:
    client = ClientV1(ring)
    return client, client.seal(b"a question", b"of two frames")


def v1_without_a_body(ring: KeyRing) -> Sealed:
    return ClientV1(ring, "POST", has_body=False), []


def long_plain(ring: KeyRing) -> Sealed:
    client = Client(ring.current)
    return client, client.seal(bytes(LONG_FRAME - 16), b"and more")


def long_v1(ring: KeyRing) -> Sealed:
    client = ClientV1(ring)
    return client, client.seal(bytes(LONG_FRAME - 16), b"and more")


WIRES = pytest.mark.parametrize("seal", [plain, v1, v1_without_a_body])
WIRES_WITH_A_BODY = pytest.mark.parametrize("seal_long", [long_plain, long_v1])


def send(app: EncryptedBodyMiddleware, sealed: Sealed, *, ends: bool = True) -> asgi.Response:
    client, pieces = sealed
    return asyncio.run(asgi.call(app, "POST", "/", headers=client.headers, pieces=pieces, ends=ends))


def assert_refused(response: asgi.Response, client: Client | ClientV1) -> None:
    """Assert that a second request is refused by an answer that only its client can read."""
    assert response.status == 409
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["content-type"] == "application/problem+json"
    assert b"received" not in response.body
    problem = json.loads(b"".join(client.open(response)))
    assert problem["message"] == problem["title"]
    assert "received before" in problem["title"]


@WIRES
def test_a_second_request_is_refused_before_the_app_is_called(ring: KeyRing, seal: Seal) -> None:
    app = Counting()
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    sealed = seal(ring)
    first = send(protected, sealed)
    assert first.status == 200
    assert b"".join(sealed[0].open(first)) == b"answer"
    for _ in range(3):
        assert_refused(send(protected, sealed), sealed[0])
    assert app.calls == 1
    assert ring.status.refusals == {"replayed": 3}


@WIRES
def test_the_same_message_that_is_sealed_anew_is_served(ring: KeyRing, seal: Seal) -> None:
    app = Counting()
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    for _ in range(3):
        assert send(protected, seal(ring)).status == 200
    assert app.calls == 3


@WIRES
def test_a_second_request_is_served_where_that_is_allowed(ring: KeyRing, seal: Seal) -> None:
    app = Counting()
    protected = EncryptedBodyMiddleware(app, key_ring=ring, replay="allow")
    sealed = seal(ring)
    assert [send(protected, sealed).status for _ in range(2)] == [200, 200]
    assert app.calls == 2


@WIRES
def test_a_second_request_is_refused_whatever_became_of_the_first(ring: KeyRing, seal: Seal) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the app fails")

    sealed = seal(ring)
    assert isinstance(send(EncryptedBodyMiddleware(failing, key_ring=ring), sealed).error, RuntimeError)
    assert_refused(send(EncryptedBodyMiddleware(Counting(), key_ring=ring), sealed), sealed[0])


def test_a_first_frame_alone_is_a_request_already(ring: KeyRing) -> None:
    protected = EncryptedBodyMiddleware(Counting(), key_ring=ring)
    client, pieces = plain(ring)
    send(protected, (client, pieces[:1]), ends=False)
    assert_refused(send(protected, (client, pieces)), client)


def test_what_cannot_be_opened_is_not_remembered(ring: KeyRing) -> None:
    protected = EncryptedBodyMiddleware(Counting(), key_ring=ring)
    client, pieces = plain(ring)
    changed = [bytes([pieces[0][0]]) + pieces[0][1:-1] + bytes([pieces[0][-1] ^ 1]), *pieces[1:]]
    assert send(protected, (client, changed)).status == 422
    assert send(protected, (client, pieces)).status == 200


def test_nobody_can_give_a_recorded_request_another_id(ring: KeyRing) -> None:
    app = Counting()
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    client, pieces = plain(ring)
    (name, key), (client_v1, pieces_v1) = client.headers[0], v1(ring)
    assert isinstance(client_v1, ClientV1)
    # Curve25519 ignores the highest bit of a point, so the key agreement has the same result with it.
    ignored = bytes.fromhex(key)[:-1] + bytes([bytes.fromhex(key)[-1] ^ 0x80])
    key_v1 = client_v1.header.encapsulated_key
    header_v1 = client_v1.header._replace(encapsulated_key=key_v1[:-1] + bytes([key_v1[-1] ^ 0x80]))

    async def statuses() -> list[int | None]:
        sent = [
            (key, pieces),
            (ignored.hex(), pieces),
            (key.upper(), pieces),
            (request_header(client_v1.header), pieces_v1),
            (request_header(header_v1), pieces_v1),
        ]
        calls = [await asgi.call(protected, "POST", "/", headers=[(name, value)], pieces=body) for value, body in sent]
        return [response.status for response in calls]

    assert asyncio.run(statuses()) == [200, 422, 409, 200, 422]
    assert app.calls == 2


@WIRES
def test_of_many_at_the_same_time_one_is_served(ring: KeyRing, seal: Seal) -> None:
    app = Counting()
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    client, pieces = seal(ring)

    async def send_many() -> list[asgi.Response]:
        calls = [asgi.call(protected, "POST", "/", headers=client.headers, pieces=pieces) for _ in range(50)]
        return list(await asyncio.gather(*calls))

    statuses = [response.status for response in asyncio.run(send_many())]
    assert (statuses.count(200), statuses.count(409)) == (1, 49)
    assert app.calls == 1


@WIRES
def test_a_second_request_is_refused_for_as_long_as_its_key_is_accepted_and_then_like_any_other(
    held: HeldTime, seal: Seal
) -> None:
    with KeyRing(300, overlap_s=100, clock=held.boot) as ring:
        protected = EncryptedBodyMiddleware(Counting(), key_ring=ring)
        sealed = seal(ring)
        assert send(protected, sealed).status == 200
        held.pass_s(300)
        assert len(ring.accepted) == 2
        assert_refused(send(protected, sealed), sealed[0])
        held.pass_s(100)
        assert send(protected, sealed).status == 422


def test_what_was_seen_is_forgotten_with_its_key(held: HeldTime) -> None:
    source = OwnPairs(Schedule(300, 100), clock=held.boot)
    old = source.current
    source.seen_requests(old).add(bytes(8))
    assert len(source._replays._seen) == 1
    held.pass_s(300)
    source.seen_requests(source.current).add(bytes(8))
    assert len(source._replays._seen) == 2
    held.pass_s(100)
    source.refresh_if_due()
    assert [pairs for pairs, _ in source._replays._seen.values()] == [source.current]
    with pytest.raises(ReplayTableLostError, match="erased"):
        source.seen_requests(old)
    source.close()
    assert not source._replays._seen


def test_a_key_that_comes_back_after_it_was_erased_here_takes_no_request_any_more() -> None:
    # Other members of a group still have it, and give it again to the one whose app has erased it.
    replays, private_key = OwnReplays(), bytes(range(32))
    pairs = EpochPairs(KeyPair.from_private_key(private_key))
    assert replays.of(pairs).add(bytes(8))
    pairs.erase()
    replays.forget_erased()
    back = EpochPairs(KeyPair.from_private_key(private_key))
    with pytest.raises(ReplayTableLostError, match="forgotten"):
        replays.of(back)
    back.erase()


def test_a_lost_key_that_is_published_is_replaced_at_once(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(pairs: EpochPairs) -> SeenRequests:
        raise ReplayTableLostError("what was seen is forgotten")

    before = ring.current_pairs
    with monkeypatch.context() as forgetting:
        forgetting.setattr(ring._source, "seen_requests", lost)
        for _ in range(3):
            with pytest.raises(ReplayTableLostError):
                ring.remember(before, bytes(8))
    assert ring.status.refreshes == 1
    assert ring.remember(ring.current_pairs, bytes(8))


def test_ids_of_two_keys_are_two_things(ring: KeyRing) -> None:
    before = ring.current_pairs
    assert ring.remember(before, bytes(32))
    ring.refresh()
    assert ring.remember(ring.current_pairs, bytes(32))
    assert not ring.remember(before, bytes(32))


def fill(ring: KeyRing, count: int) -> None:
    """Let so many more requests be sealed to the current key."""
    pairs = ring.current_pairs
    seen = ring._source.seen_requests(pairs)
    begin = seen._require_table().used
    for number in range(begin, begin + count):
        seen.add(number.to_bytes(9, "big"))


def test_a_key_whose_room_is_half_full_is_replaced_early(ring: KeyRing, caplog: pytest.LogCaptureFixture) -> None:
    protected = EncryptedBodyMiddleware(Counting(), key_ring=ring)
    before = ring.current
    fill(ring, ROOM // 2 - 2)
    first = plain(ring)
    with caplog.at_level(logging.INFO, "server_keys"):
        assert send(protected, first).status == 200
        assert ring.current == before
        assert send(protected, plain(ring)).status == 200
        assert ring.current != before
        assert_refused(send(protected, first), first[0])
        assert [send(protected, plain(ring)).status for _ in range(3)] == [200] * 3
    assert sum("next key comes early" in record.message for record in caplog.records) == 1
    assert ring.status.refreshes == 1


@WIRES
def test_beyond_its_room_a_key_takes_no_request_and_clients_fetch_the_next_one(ring: KeyRing, seal: Seal) -> None:
    app = Counting()
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    known, late = seal(ring), seal(ring)
    assert send(protected, known).status == 200
    fill(ring, ROOM - 1)
    assert send(protected, late).status == 422
    assert json.loads(send(protected, late).body)["type"] == "urn:ietf:params:ehbp:error:key-config"
    assert send(protected, seal(ring)).status == 200
    assert app.calls == 2
    assert ring.status.refusals == {"replay_table_full": 2}
    assert_refused(send(protected, known), known[0])


@WIRES
def test_beyond_its_room_a_key_that_cannot_be_replaced_yet_gets_a_sealed_503(
    ring: KeyRing, seal: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Counting()
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    fill(ring, ROOM)
    late = seal(ring)
    with monkeypatch.context() as without_keys:
        without_keys.setattr(ring._source, "refresh", lambda: None)  # a group's next key is on its way
        response = send(protected, late)
    assert response.status == 503
    assert response.headers["retry-after"] == "3"
    assert b"sealed to this key" not in response.body
    assert "another one in a moment" in json.loads(b"".join(late[0].open(response)))["title"]
    assert app.calls == 0
    assert ring.status.refusals == {"replay_table_full": 1}


@WIRES
def test_where_nobody_knows_what_was_seen_no_request_is_taken(
    ring: KeyRing, seal: Seal, caplog: pytest.LogCaptureFixture
) -> None:
    app = Counting()
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    late = seal(ring)
    ring._source.seen_requests(ring.current_pairs).lose()
    with pytest.raises(ReplayTableError):
        ring.remember(ring.current_pairs, bytes(8))
    assert send(protected, late).status == 422
    assert app.calls == 0
    assert send(protected, seal(ring)).status == 200
    assert "it is not known any more which requests" in caplog.text
    assert ring.status.refusals == {"replay_table_lost": 1}


def held_bytes() -> int:
    return buffers_of_process().status(0).held_bytes


@WIRES_WITH_A_BODY
def test_a_replay_that_is_refused_holds_no_memory(
    ring: KeyRing, seal_long: Callable[[KeyRing], Sealed], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, remember, held = Counting(), ring.remember, list[int]()
    protected = EncryptedBodyMiddleware(app, key_ring=ring)

    def remember_and_look(pairs: EpochPairs, request_id: bytes) -> bool:
        held.append(held_bytes())
        return remember(pairs, request_id)

    monkeypatch.setattr(ring, "remember", remember_and_look)
    sealed = seal_long(ring)
    assert send(protected, sealed).status == 200
    for ends in (True, False):
        assert_refused(send(protected, sealed, ends=ends), sealed[0])
        assert held_bytes() == 0
    # By plain EHBP a first frame is opened by then, which waits for an app.
    assert [bytes_held >= LONG_FRAME - 16 for bytes_held in held] == [isinstance(sealed[0], Client)] * 3


@pytest.mark.parametrize("is_first", [False, True])
def test_a_request_that_others_need_the_memory_of_while_it_is_looked_up_gets_408(
    ring: KeyRing, held: HeldTime, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    app = Counting()
    protected = EncryptedBodyMiddleware(
        app,
        key_ring=ring,
        replay="refuse-everywhere",
        store_away="refuse",
        max_frame_bytes=LONG_FRAME,
        max_buffered_bytes=4 * LONG_FRAME,
    )
    monkeypatch.setattr("time.clock_gettime", held.clock_gettime)

    async def run() -> asgi.Response:
        looks, answered = asyncio.Event(), asyncio.Event()

        async def slow_store(pairs: EpochPairs, request_id: bytes) -> bool:
            looks.set()
            await answered.wait()
            return is_first

        monkeypatch.setattr(ring, "remember_everywhere", slow_store)
        client, pieces = long_plain(ring)
        # What a client sent at once is not given up: its server would hold it all the same.
        halves_of_frame = [pieces[0][: LONG_FRAME // 2], pieces[0][LONG_FRAME // 2 :]]
        victim = Arriving(protected, client, halves_of_frame)
        await looks.wait()
        assert held_bytes() >= LONG_FRAME - 16
        held.pass_s(1.5)
        halves = [long_plain(ring) for _ in range(4)]
        others = [Arriving(protected, client, [pieces[0][: LONG_FRAME // 2]]) for client, pieces in halves]
        for _ in range(20):
            await asyncio.sleep(0)
        assert not victim.task.done()
        answered.set()
        await victim.task
        for other in others:
            other.messages.put_nowait({"type": "http.disconnect"})
            await other.task
        return victim.response

    response = asyncio.run(asyncio.wait_for(run(), 60))
    assert response.status == 408
    assert app.calls == 0
    assert ring.status.refusals == {"given_up": 1}
    assert held_bytes() == 0


@WIRES
def test_a_request_that_another_thread_gives_up_at_the_moment_it_has_begun_gets_408(
    ring: KeyRing, seal: Seal, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, begin = Counting(), SealedRequest.begin

    async def begin_and_be_given_up(request: SealedRequest) -> bool | None:
        has_begun = await begin(request)
        request._give_up()
        return has_begun

    monkeypatch.setattr(SealedRequest, "begin", begin_and_be_given_up)
    response = send(EncryptedBodyMiddleware(app, key_ring=ring), seal(ring))
    assert response.status == 408
    assert app.calls == 0
    assert ring.status.refusals == {"given_up": 1}


class Arriving:
    """A request whose body does not end by itself."""

    def __init__(self, app: EncryptedBodyMiddleware, client: Client | ClientV1, pieces: Pieces) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        for piece in pieces:
            self.messages.put_nowait({"type": "http.request", "body": piece, "more_body": True})
        self.response = asgi.Response()
        scope = asgi.http_scope("POST", "/", client.headers)
        self.task = asyncio.ensure_future(app(scope, self.messages.get, self.send))

    async def send(self, message: Message) -> None:
        self.response.messages.append(message)


def test_the_log_says_what_to_look_for_and_nothing_of_the_request(
    ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    protected = EncryptedBodyMiddleware(Counting(), key_ring=ring)
    sealed = plain(ring)
    for _ in range(3):
        send(protected, sealed)
    (record,) = caplog.records
    assert "replayed, status 409" in record.message
    assert "proxy_next_upstream non_idempotent" in record.message
    assert sealed[0].headers[0][1] not in record.message


def test_2_000_replays_and_2_000_requests_one_after_the_other(ring: KeyRing) -> None:
    app = Counting()
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    sealed = plain(ring)

    async def send_all() -> list[int | None]:
        statuses = []
        for number in range(4_000):
            client, pieces = plain(ring) if number % 2 else sealed
            response = await asgi.call(protected, "POST", "/", headers=client.headers, pieces=pieces)
            statuses.append(response.status)
        return statuses

    statuses = asyncio.run(send_all())
    assert (statuses.count(200), statuses.count(409)) == (2_001, 1_999)
    assert app.calls == 2_001


@pytest.mark.parametrize("replay", [True, None, 1])
def test_replay_is_a_str(replay: object) -> None:
    with pytest.raises(TypeError, match='replay must be "refuse", "refuse-everywhere" or "allow"'):
        EncryptedBodyMiddleware(Counting(), replay=replay)  # type: ignore[arg-type]


@pytest.mark.parametrize("replay", ["", "Refuse", "everywhere", "off"])
def test_replay_is_one_of_three(replay: str) -> None:
    for use in (
        lambda: EncryptedBodyMiddleware(Counting(), replay=replay),  # type: ignore[arg-type]
        lambda: protect(FastAPI(), replay=replay),  # type: ignore[arg-type]
    ):
        with pytest.raises(
            ValueError, match=f'replay must be "refuse", "refuse-everywhere" or "allow", not {replay!r}'
        ):
            use()


def test_an_app_is_not_protected_in_two_ways() -> None:
    app = protect(FastAPI(), replay="allow")
    protect(app, replay="allow")
    with pytest.raises(RuntimeError, match="replay='allow', and cannot have replay='refuse'"):
        protect(app)


def test_a_request_of_plain_ehbp_without_a_body_passes_as_often_as_it_comes(ring: KeyRing) -> None:
    # It seals nothing then, so nothing identifies the request.
    app = Counting()
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    client = Client(ring.current)
    assert [send(protected, (client, [])).status for _ in range(2)] == [200, 200]
    assert app.calls == 2


def test_a_full_table_is_an_error_of_its_own(ring: KeyRing) -> None:
    pairs = ring.current_pairs
    fill(ring, ROOM)
    with pytest.raises(ReplayTableFullError, match="replace the key pair"):
        ring.remember(pairs, bytes(8))
    assert not ring.remember(pairs, (0).to_bytes(9, "big"))
