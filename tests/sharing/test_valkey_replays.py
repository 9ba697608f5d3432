"""A sealed request is served once by all hosts that share a key, if the operator asks for it."""

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyRing
from server_keys._checks import Replay, StoreAway
from server_keys._keys.replays import StoreAwayError
from server_keys._keys.schedule import Schedule
from server_keys._native import ReplayTableLostError
from server_keys._sharing.join import ring_of
from server_keys._sharing.key_plan import KeyPlan
from server_keys._sharing.store import StoreError
from server_keys._sharing.valkey import replays
from server_keys._sharing.valkey.connection import Connection
from server_keys._sharing.valkey.replays import ValkeyReplays
from server_keys._sharing.valkey.scripts import Script
from server_keys._sharing.valkey_url import ValkeyUrl
from tests.helpers import asgi
from tests.helpers.sealed_requests import Client
from tests.helpers.trials import is_soon
from tests.helpers.valkey import StoreServer, wait_until

KEY = bytes(range(32))
ID = b"request1"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests wait for the store for longer than a busy machine needs. It is for tests that are not about that."""
    monkeypatch.setattr(replays, "_DEADLINE_S", 10.0)
    monkeypatch.setattr(replays, "_ANSWER_S", 5.0)


@pytest.fixture
def hosts(server: StoreServer) -> Iterator[list[ValkeyReplays]]:
    """What two hosts ask the store with."""
    hosts = [ValkeyReplays(ValkeyUrl.parse(server.url)) for _ in range(2)]
    for host in hosts:
        # On a busy machine the first connection may take longer than a request waits.
        wait_until(lambda host=host: is_known(host), "no connection")  # type: ignore[misc]
    yield hosts
    for host in hosts:
        host.close()


def is_known(host: ValkeyReplays) -> bool:
    try:
        ask(host, b"warm up!")
    except StoreAwayError:
        host.look_after()
        return False
    return True


def ask(host: ValkeyReplays, request_id: bytes = ID, public_key: bytes = KEY, keep_s: float = 60.0) -> bool:
    return asyncio.run(host.is_first(public_key, request_id, keep_s))


def answer_of(host: ValkeyReplays, request_id: bytes = ID) -> bool:
    """Ask until the store answers: a busy machine may take longer than a request waits."""
    answers: list[bool] = []

    def has_answered() -> bool:
        try:
            answers.append(ask(host, request_id))
        except StoreAwayError:
            host.look_after()
        return bool(answers)

    wait_until(has_answered, "no answer")
    return answers[0]


@pytest.mark.usefixtures("patient")
def test_what_one_host_saw_is_known_to_the_other(hosts: list[ValkeyReplays], server: StoreServer) -> None:
    one, other = hosts
    assert ask(one)
    assert not ask(other)
    assert not ask(one)
    assert ask(other, b"request2")
    assert ask(other, public_key=bytes(32))
    keys = [key for key in server.run("KEYS", "server-keys:*") if b"probe" not in key]
    assert all(key.startswith(b"server-keys:{seen}:") for key in keys)
    assert all(0 < server.run("PTTL", key) <= 60_000 for key in keys)
    assert not any(ID in key or KEY.hex().encode() in key for key in keys)


@pytest.mark.usefixtures("patient")
def test_it_is_forgotten_with_its_key(hosts: list[ValkeyReplays]) -> None:
    one, other = hosts
    assert ask(one, keep_s=0.3)
    wait_until(lambda: ask(other, keep_s=0.001), "it is not forgotten")


@pytest.mark.usefixtures("patient")
def test_of_many_that_ask_at_the_same_time_one_is_the_first(hosts: list[ValkeyReplays]) -> None:
    async def ask_all(request_id: bytes) -> Sequence[bool]:
        asking = [hosts[number % 2].is_first(KEY, request_id, 60.0) for number in range(20)]
        return await asyncio.gather(*asking)

    for number in range(50):
        answers = asyncio.run(ask_all(b"request%3d" % number))
        assert (answers.count(True), answers.count(False)) == (1, 19)


@pytest.mark.usefixtures("patient")
def test_the_own_command_that_was_done_and_not_answered_is_no_replay(
    hosts: list[ValkeyReplays], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, times = Connection.run, list[object]()

    def run_and_lose_the_answer(
        connection: Connection, script: Script, keys: Sequence[str], arguments: Sequence[bytes | int]
    ) -> object:
        times.append(answer := run(connection, script, keys, arguments))
        if len(times) == 1:
            raise StoreError("the answer is lost")
        return answer

    with monkeypatch.context() as losing:
        losing.setattr(Connection, "run", run_and_lose_the_answer)
        assert ask(hosts[0])
    first, second = times
    assert first == [None]
    assert isinstance(second, list)
    assert isinstance(second[0], bytes)
    assert not ask(hosts[1])
    assert not ask(hosts[0])


def test_a_store_that_does_not_answer_holds_no_request_up(
    hosts: list[ValkeyReplays], server: StoreServer, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = hosts
    caplog.set_level(logging.INFO, "server_keys")
    assert answer_of(one, b"before!!")
    caplog.clear()
    with server.stopped():
        for _ in range(5):
            began = time.monotonic()
            with pytest.raises(StoreAwayError, match="is away"):
                ask(one)
            assert is_soon(time.monotonic() - began, 0.04)
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(StoreAwayError):
                ask(one, b"another1")
        assert is_soon(time.monotonic() - began, 0.2), "nobody asks a store that is away"
        one.look_after()
        with pytest.raises(StoreAwayError):
            ask(one)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert not answer_of(one, b"before!!")
    assert answer_of(other, b"afterwds")
    assert "answers again" in caplog.text


@pytest.mark.usefixtures("patient")
def test_a_store_that_takes_nothing_is_away(hosts: list[ValkeyReplays], server: StoreServer) -> None:
    server.run("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(StoreAwayError):
            ask(hosts[0])
        hosts[0].look_after()
        with pytest.raises(StoreAwayError):
            ask(hosts[0])
    finally:
        server.run("CONFIG", "SET", "maxmemory", "0")
    assert answer_of(hosts[0])


@pytest.mark.usefixtures("patient")
def test_a_lost_connection_is_made_anew_within_the_time(hosts: list[ValkeyReplays], server: StoreServer) -> None:
    assert answer_of(hosts[0], b"before!!")
    server.run("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
    assert answer_of(hosts[0])
    assert not answer_of(hosts[1])


def test_a_busy_process_does_not_take_the_store_for_away(
    hosts: list[ValkeyReplays], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine's store gets more time. The process itself is busy for half a second a round.
    monkeypatch.setattr(replays, "_DEADLINE_S", 0.1)

    async def ask_and_work(number: int) -> list[bool]:
        answers = []
        for round_ in range(3):
            answers.append(await hosts[0].is_first(KEY, b"request%d-%d" % (number, round_), 60.0))
            until = time.perf_counter() + 0.03
            while time.perf_counter() < until:
                pass
        return answers

    async def all_do() -> list[list[bool]]:
        return await asyncio.gather(*map(ask_and_work, range(16)))

    assert asyncio.run(all_do()) == [[True] * 3] * 16


@pytest.mark.usefixtures("patient")
def test_connections_that_were_ended_while_nobody_used_them_are_made_anew_before_a_request_comes(
    hosts: list[ValkeyReplays], server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host in hosts:
        host.connect()
    before = connections(server)
    server.run("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
    hosts[0].look_after()
    assert connections(server) <= before - 8, "they were used a moment ago"
    monkeypatch.setattr(replays, "_UNUSED_S", 0.0)
    for host in hosts:
        host.look_after()
    assert connections(server) >= before
    assert ask(hosts[0])
    assert not ask(hosts[1])


def test_a_store_that_went_away_while_nobody_asked_is_known_to_be_away(
    hosts: list[ValkeyReplays], server: StoreServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replays, "_UNUSED_S", 0.0)
    with server.stopped():
        hosts[0].look_after()
        assert "cannot ask whether other hosts saw a request" in caplog.text
        began = time.monotonic()
        with pytest.raises(StoreAwayError):
            ask(hosts[0])
        assert is_soon(time.monotonic() - began, 0.01)
    assert answer_of(hosts[0])


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("most_bytes", "policy", "is_told"),
    [
        ("100mb", "volatile-lru", True),
        ("100mb", "allkeys-random", True),
        ("100mb", "noeviction", False),
        ("0", "volatile-lru", False),
    ],
)
def test_a_store_that_forgets_when_it_is_full_is_told_of_once(
    hosts: list[ValkeyReplays],
    server: StoreServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    most_bytes: str,
    policy: str,
    is_told: bool,
) -> None:
    server.run("CONFIG", "SET", "maxmemory", most_bytes, "maxmemory-policy", policy)
    hosts[0].connect()
    told = [record.getMessage() for record in caplog.records]
    assert [f"maxmemory-policy {policy})" in text and "maxmemory-policy noeviction" in text for text in told] == (
        [True] if is_told else []
    )
    monkeypatch.setattr(replays, "_UNUSED_S", 0.0)
    hosts[0].look_after()
    assert len(caplog.records) == is_told


@pytest.mark.usefixtures("patient")
def test_a_user_who_may_not_ask_for_the_policy_asks_once(
    server: StoreServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.run("CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "volatile-lru")
    server.run(
        "ACL", "SETUSER", "member", "on", ">hunter2", "~server-keys:*", "+eval", "+evalsha", "+set", "+cluster|slots"
    )
    monkeypatch.setattr(replays, "_UNUSED_S", 0.0)
    url = ValkeyUrl.parse(server.url.replace("//", "//member:hunter2@"))
    with closing(ValkeyReplays(url)) as host:
        for _ in range(3):
            host.connect()
            host.look_after()
        assert ask(host)
    denied = [entry[b"object"] for entry in map(pairs_of, server.run("ACL", "LOG")) if entry[b"username"] == b"member"]
    assert denied == [b"info"]
    assert not caplog.records


def pairs_of(flat: list[bytes] | dict[bytes, bytes]) -> dict[bytes, bytes]:
    return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def test_a_host_that_has_ended_asks_no_more(hosts: list[ValkeyReplays]) -> None:
    for host in hosts:
        host.close()
        host.close()
        host.look_after()
        with pytest.raises(StoreAwayError):
            ask(host)


def test_a_store_that_answers_too_late_for_requests_stays_away_and_is_told_of_once(
    hosts: list[ValkeyReplays], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "server_keys")
    run = Connection.run

    def slowly(line: Connection, *arguments: Any) -> Any:
        time.sleep(0.05)
        return run(line, *arguments)

    with monkeypatch.context() as slowed:
        slowed.setattr(Connection, "run", slowly)
        for _ in range(5):
            with pytest.raises(StoreAwayError):
                ask(hosts[0])
            hosts[0].look_after()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert answer_of(hosts[0], b"after it")
    assert sum("answers again" in record.message for record in caplog.records) == 1


def test_a_store_of_which_nobody_knows_is_not_said_to_answer(
    hosts: list[ValkeyReplays], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All connections hang, as in a look-up of the store's name."""
    caplog.set_level(logging.INFO, "server_keys")
    go_on = threading.Event()
    run = Connection.run

    def hanging(line: Connection, *arguments: Any) -> Any:
        assert go_on.wait(60)
        return run(line, *arguments)

    with monkeypatch.context() as hung:
        hung.setattr(Connection, "run", hanging)
        hung.setattr(replays, "_CONNECTING_S", 0.01)

        async def many() -> list[Any]:
            asked = [hosts[0].is_first(KEY, b"%8d" % number, 60) for number in range(8)]
            return await asyncio.gather(*asked, return_exceptions=True)

        assert all(isinstance(answer, StoreAwayError) for answer in asyncio.run(many()))
        for _ in range(3):
            hosts[0].look_after()
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        go_on.set()
    assert answer_of(hosts[0], b"after it")


def test_a_host_that_ends_while_it_looks_asks_no_more_and_holds_no_connection(
    server: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, go_on = threading.Event(), threading.Event()
    run = Connection.run
    closed: list[Connection] = []
    close = Connection.close

    def held(line: Connection, *arguments: Any) -> Any:
        looks.set()
        assert go_on.wait(60)
        return run(line, *arguments)

    def noted(line: Connection) -> None:
        closed.append(line)
        close(line)

    host = ValkeyReplays(ValkeyUrl.parse(server.url))
    wait_until(lambda: is_known(host), "no connection")
    monkeypatch.setattr(replays, "_UNUSED_S", 0.0)
    monkeypatch.setattr(Connection, "run", held)
    monkeypatch.setattr(Connection, "close", noted)
    looking = threading.Thread(target=host.look_after)
    looking.start()
    assert looks.wait(60)
    host.close()
    go_on.set()
    looking.join(60)
    host.look_after()
    host.connect()
    with pytest.raises(StoreAwayError):
        ask(host)
    assert len({id(line) for line in closed}) == 4


class Counting:
    """An app that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})


@pytest.fixture
def rings(server: StoreServer, tmp_path: Path) -> Iterator[list[KeyRing]]:
    """The rings of two hosts that share their keys."""
    (tmp_path / "secret").write_text("ab" * 32)
    (tmp_path / "secret").chmod(0o600)
    plan = KeyPlan.checked(Schedule(300, 300), server.url, tmp_path / "secret")
    with ExitStack() as stack:
        rings = [stack.enter_context(closing(ring_of(plan))) for _ in range(2)]
        for ring in rings:
            asyncio.run(ring.ready())
        wait_until(lambda: rings[0].current == rings[1].current and rings[0].status.sharing.shared, "one ring")
        yield rings


def send_to_both(
    rings: list[KeyRing],
    app: Counting,
    replay: Replay,
    store_away: StoreAway | None,
    client: Client,
    pieces: list[bytes],
) -> list[asgi.Response]:
    protected = [EncryptedBodyMiddleware(app, key_ring=ring, replay=replay, store_away=store_away) for ring in rings]

    async def send() -> list[asgi.Response]:
        return [await asgi.call(each, "POST", "/", headers=client.headers, pieces=pieces) for each in protected]

    return asyncio.run(send())


def warm_up(rings: list[KeyRing]) -> None:
    """Let both hosts have their connections."""

    async def all_answer() -> bool:
        try:
            return all(
                [await ring.remember_everywhere(ring.current_pairs, time.time_ns().to_bytes(8)) for ring in rings]
            )
        except StoreAwayError:
            return False

    wait_until(lambda: asyncio.run(all_answer()), "no answer")


@pytest.mark.usefixtures("patient")
def test_another_host_refuses_a_request_only_where_that_is_asked_for(rings: list[KeyRing]) -> None:
    app = Counting()
    client = Client(rings[0].current)
    pieces = client.seal(b"a question")
    assert [each.status for each in send_to_both(rings, app, "refuse", None, client, pieces)] == [200, 200]
    warm_up(rings)
    client = Client(rings[0].current)
    pieces = client.seal(b"a question")
    served, refused = send_to_both(rings, app, "refuse-everywhere", "allow", client, pieces)
    assert (served.status, refused.status) == (200, 409)
    assert "received before" in json.loads(b"".join(client.open(refused)))["title"]
    assert app.calls == 3
    assert rings[1].status.refusals == {"replayed": 1}


@pytest.mark.parametrize(("store_away", "status"), [("refuse", 503), ("allow", 200)])
def test_what_happens_while_the_store_is_away_is_the_operators_choice(
    rings: list[KeyRing], server: StoreServer, store_away: StoreAway, status: int
) -> None:
    app = Counting()
    warm_up(rings)
    client = Client(rings[0].current)
    pieces = client.seal(b"a question")
    with server.stopped():
        first = send_to_both(rings[:1], app, "refuse-everywhere", store_away, client, pieces)[0]
        again = send_to_both(rings[:1], app, "refuse-everywhere", store_away, client, pieces)[0]
    assert first.status == status
    assert again.status == 409, "what this host received itself it knows"
    assert app.calls == (store_away == "allow")
    if store_away == "refuse":
        assert first.headers["retry-after"] == "1"
        assert "try again in a moment" in json.loads(b"".join(client.open(first)))["title"]
        assert rings[0].status.refusals == {"replay_store_away": 1, "replayed": 1}


def connections(server: StoreServer) -> int:
    return str(server.run("CLIENT", "LIST")).count("addr=") // 2  # with laddr=


@pytest.mark.parametrize("replay", ["refuse", "refuse-everywhere"])
def test_an_app_that_asks_everywhere_has_its_connections_before_it_starts(
    rings: list[KeyRing], server: StoreServer, replay: Replay
) -> None:
    store_away: StoreAway | None = "refuse" if replay == "refuse-everywhere" else None
    app = FastAPI()
    app.state.ephemeral_keys = rings[0]
    app.add_middleware(EncryptedBodyMiddleware, replay=replay, store_away=store_away)
    before = connections(server)
    with TestClient(app):
        # The ring itself may have made one meanwhile.
        assert (connections(server) >= before + 4) == (replay == "refuse-everywhere")


def test_a_store_that_is_away_at_the_start_does_not_hold_it_up(rings: list[KeyRing], server: StoreServer) -> None:
    app = Counting()
    with server.stopped():
        asyncio.run(asyncio.wait_for(rings[0].connect_everywhere(), 2))
        client = Client(rings[0].current)
        (response, _) = send_to_both(
            [rings[0], rings[0]], app, "refuse-everywhere", "refuse", client, client.seal(b"a question")
        )
    assert response.status == 503


def test_a_name_server_that_does_not_answer_does_not_hold_the_start_up(
    rings: list[KeyRing], monkeypatch: pytest.MonkeyPatch
) -> None:
    has_started, getaddrinfo = threading.Event(), socket.getaddrinfo

    def slow(*arguments: Any, **options: Any) -> Any:
        has_started.wait(10)
        return getaddrinfo(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def start() -> None:
        try:
            await asyncio.wait_for(rings[0].connect_everywhere(), 5)
        finally:
            has_started.set()

    asyncio.run(start())


def test_a_request_to_a_key_that_has_just_ended_is_not_taken_unasked(rings: list[KeyRing]) -> None:
    # A long first frame may be opened while its key ends. Another host may have served the same request.
    source, pairs = rings[0]._source, rings[0].current_pairs
    rings[0].close()
    with pytest.raises(ReplayTableLostError, match="has ended"):
        asyncio.run(source.is_first_everywhere(pairs, ID))


def test_a_ring_that_no_other_host_has_asks_nobody() -> None:
    app = Counting()
    with KeyRing(300) as ring:
        client = Client(ring.current)
        pieces = client.seal(b"a question")
        statuses = [
            each.status for each in send_to_both([ring, ring], app, "refuse-everywhere", "refuse", client, pieces)
        ]
    assert statuses == [200, 409]


@pytest.mark.parametrize(
    ("replay", "store_away", "why"),
    [
        ("refuse-everywhere", None, "needs store_away="),
        ("refuse", "allow", "leave it out"),
        ("allow", "refuse", "leave it out"),
        ("refuse-everywhere", "serve", 'store_away must be "refuse" or "allow"'),
    ],
)
def test_the_operator_decides_what_happens_without_the_store_and_nowhere_else(
    replay: Replay, store_away: StoreAway | None, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        EncryptedBodyMiddleware(Counting(), replay=replay, store_away=store_away)
