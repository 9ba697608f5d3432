"""What the store in a Valkey or Redis server does, and what it hands out when somebody else writes to it."""

from collections.abc import Iterator

import pytest

from server_keys._sharing.store import (
    MOST_ASK_BYTES,
    MOST_ASKS,
    MOST_BOX_BYTES,
    MOST_REGISTER_BYTES,
    CrowdedStoreError,
    StoreError,
)
from server_keys._sharing.valkey import ValkeyStore
from server_keys._sharing.valkey_url import ValkeyUrl
from tests.helpers.valkey import StoreServer, wait_until

GROUP = bytes(range(16))
TAG = "server-keys:{0001020304050607}"
ME, YOU, THEM = b"\x00" * 32, b"\r\n" * 16, b"\xff" * 32
KEEP_S = 60.0


@pytest.fixture
def store(server: StoreServer) -> Iterator[ValkeyStore]:
    store = ValkeyStore(ValkeyUrl.parse(server.url), GROUP, timeout_s=5)
    yield store
    store.close()


def test_an_empty_store_has_a_time_and_nothing_else(store: ValkeyStore) -> None:
    first = store.look(ME)
    assert first[:4] == (b"", 0, 0, False)
    assert 0 <= store.look(ME).time_ms - first.time_ms < 5000


def test_one_commit_brings_the_register_and_the_boxes(store: ValkeyStore) -> None:
    boxes = {ME: b"mine\x00|", YOU: b"\xff" * MOST_BOX_BYTES}
    assert store.commit(b"", b"\x00one\r\n", boxes, KEEP_S)
    look = store.look(ME)
    assert look.register == b"\x00one\r\n"
    taken = store.take(ME)
    assert taken is not None
    assert taken.box == b"mine\x00|"
    assert 0 <= taken.time_ms - look.time_ms < 5000
    assert store.take(ME) is None
    yours = store.take(YOU)
    assert yours is not None
    assert yours.box == boxes[YOU]


def test_a_commit_that_expects_another_register_changes_nothing(store: ValkeyStore) -> None:
    assert store.commit(b"", b"one", {ME: b"box"}, KEEP_S)
    store.ask(YOU, b"ask", waits=True, keep_s=KEEP_S)
    for expected in (b"", b"On", b"one\x00", b"two"):
        assert not store.commit(expected, b"three", {YOU: b"other"}, KEEP_S)
        assert not store.restore(expected, b"three", KEEP_S)
    assert store.look(YOU)[:4] == (b"one", 1, 1, True)
    assert store.take(YOU) is None
    assert store.take(ME) is not None


def test_a_commit_removes_the_boxes_and_the_waiting_and_leaves_the_asks(store: ValkeyStore) -> None:
    assert store.commit(b"", b"one", {ME: b"box", YOU: b"box"}, KEEP_S)
    store.ask(THEM, b"ask", waits=True, keep_s=KEEP_S)
    assert store.commit(b"one", b"two", {YOU: b"new"}, KEEP_S)
    assert store.look(THEM)[:4] == (b"two", 1, 0, True)
    assert store.waiting() == {}
    assert store.asks() == {THEM: b"ask"}
    assert store.take(ME) is None
    taken = store.take(YOU)
    assert taken is not None
    assert taken.box == b"new"


def test_a_restored_register_leaves_everything_else(store: ValkeyStore) -> None:
    assert store.commit(b"", b"two", {ME: b"box"}, KEEP_S)
    store.ask(YOU, b"ask", waits=True, keep_s=KEEP_S)
    assert store.restore(b"two", b"one", KEEP_S)
    assert store.look(YOU)[:4] == (b"one", 1, 1, True)
    assert store.take(ME) is not None


def test_those_who_wait_are_told_apart_until_they_are_served(store: ValkeyStore) -> None:
    store.ask(ME, b"my ask", waits=False, keep_s=KEEP_S)
    store.ask(YOU, b"\x00your\nask", waits=True, keep_s=KEEP_S)
    assert store.look(ME)[1:4] == (2, 1, True)
    assert store.look(THEM)[1:4] == (2, 1, False)
    assert store.asks() == {ME: b"my ask", YOU: b"\x00your\nask"}
    assert store.waiting() == {YOU: b"\x00your\nask"}
    assert store.serve(YOU, b"first", KEEP_S)
    assert not store.serve(YOU, b"second", KEEP_S)
    assert store.look(ME)[1:4] == (2, 0, True)
    taken = store.take(YOU)
    assert taken is not None
    assert taken.box == b"first"
    assert store.asks() == {ME: b"my ask"}


def test_an_ask_replaces_the_one_of_the_same_name(store: ValkeyStore) -> None:
    store.ask(ME, b"one", waits=True, keep_s=KEEP_S)
    store.ask(ME, b"two", waits=False, keep_s=KEEP_S)
    assert store.asks() == {ME: b"two"}
    assert store.waiting() == {}


def test_a_member_that_leaves_takes_its_ask_and_its_box_along(store: ValkeyStore) -> None:
    store.ask(ME, b"ask", waits=True, keep_s=KEEP_S)
    store.ask(YOU, b"ask", waits=True, keep_s=KEEP_S)
    assert store.serve(ME, b"box", KEEP_S)
    store.ask(ME, b"ask", waits=True, keep_s=KEEP_S)
    store.leave(ME)
    assert store.look(ME)[1:4] == (1, 1, False)
    assert store.take(ME) is None
    assert store.waiting() == {YOU: b"ask"}


def test_forgotten_asks_leave_the_register_and_the_boxes(store: ValkeyStore) -> None:
    assert store.commit(b"", b"one", {ME: b"box"}, KEEP_S)
    store.ask(YOU, b"ask", waits=True, keep_s=KEEP_S)
    store.forget_asks()
    assert store.look(YOU)[:4] == (b"one", 0, 0, False)
    assert store.take(ME) is not None


def test_a_commit_removes_old_asks_and_those_from_the_future(store: ValkeyStore, server: StoreServer) -> None:
    now_ms = store.look(ME).time_ms
    server.run("HSET", f"{TAG}:asks", ME, b"%013dold" % (now_ms - 61_000), YOU, b"%013dfuture" % (now_ms + 60_000))
    store.ask(THEM, b"fresh", waits=False, keep_s=KEEP_S)
    assert store.asks() == {ME: b"old", YOU: b"future", THEM: b"fresh"}
    assert store.commit(b"", b"one", {}, KEEP_S)
    assert store.asks() == {THEM: b"fresh"}


def test_everything_goes_by_itself(store: ValkeyStore, server: StoreServer) -> None:
    assert store.commit(b"", b"one", {ME: b"box"}, 0.2)
    store.ask(YOU, b"ask", waits=True, keep_s=0.2)
    names = {f"{TAG}:{name}".encode() for name in ("reg", "asks", "waiting", "boxes")}
    assert {key for key in server.run("KEYS", "*") if server.run("PTTL", key) > 0} == names
    wait_until(lambda: server.run("KEYS", "*") == [], "something stayed")
    assert store.look(YOU)[:4] == (b"", 0, 0, False)


def test_a_short_time_to_keep_cuts_no_longer_one(store: ValkeyStore, server: StoreServer) -> None:
    store.ask(ME, b"ask", waits=True, keep_s=KEEP_S)
    assert store.commit(b"", b"one", {ME: b"box"}, KEEP_S)
    store.ask(ME, b"ask", waits=True, keep_s=KEEP_S)
    store.ask(YOU, b"ask", waits=True, keep_s=1)
    store.serve(YOU, b"box", 1)
    for name in ("asks", "waiting", "boxes"):
        assert server.run("PTTL", f"{TAG}:{name}") > 30_000


def test_groups_do_not_see_each_other(store: ValkeyStore, server: StoreServer) -> None:
    other = ValkeyStore(ValkeyUrl.parse(server.url), b"another group id", timeout_s=5)
    try:
        assert store.commit(b"", b"one", {ME: b"box"}, KEEP_S)
        store.ask(ME, b"ask", waits=True, keep_s=KEEP_S)
        assert other.look(ME)[:4] == (b"", 0, 0, False)
        assert other.take(ME) is None
    finally:
        other.close()


def test_a_database_is_a_place_of_its_own(store: ValkeyStore, server: StoreServer) -> None:
    other = ValkeyStore(ValkeyUrl.parse(f"{server.url}/3"), GROUP, timeout_s=5)
    try:
        assert other.commit(b"", b"one", {}, KEEP_S)
        assert store.look(ME).register == b""
        assert server.run("DBSIZE") == 0
    finally:
        other.close()


def test_a_unix_socket_serves_as_well(server: StoreServer) -> None:
    for scheme in ("unix", "valkey+unix"):
        store = ValkeyStore(ValkeyUrl.parse(f"{scheme}://{server.socket}?db=2"), GROUP, timeout_s=5)
        try:
            store.commit(store.look(ME).register, b"one", {}, KEEP_S)
            assert store.look(ME).register == b"one"
            assert store.shown == f"{scheme}://{server.socket} (database 2)"
        finally:
            store.close()
    assert server.run("DBSIZE") == 0


def test_scripts_that_the_server_forgot_are_sent_again(store: ValkeyStore, server: StoreServer) -> None:
    assert store.commit(b"", b"one", {}, KEEP_S)
    server.run("SCRIPT", "FLUSH")
    assert store.look(ME).register == b"one"
    server.run("SCRIPT", "FLUSH")
    assert store.commit(b"one", b"two", {}, KEEP_S)


def test_a_crowd_of_asks_is_refused_and_not_read(store: ValkeyStore, server: StoreServer) -> None:
    junk = [part for number in range(10_000) for part in (b"%d" % number, b"0" * 100)]
    server.run("HSET", f"{TAG}:asks", *junk)
    server.run("SADD", f"{TAG}:waiting", *junk[::2])
    sent = bytes_sent(server)
    for call in (store.asks, store.waiting, lambda: store.ask(ME, b"ask", waits=True, keep_s=KEEP_S)):
        with pytest.raises(CrowdedStoreError, match="more asks than a group can have"):
            call()
    assert bytes_sent(server) - sent < 10_000
    assert store.look(ME)[1:3] == (10_000, 10_000)
    assert store.commit(b"", b"one", {ME: b"box"}, KEEP_S)
    store.forget_asks()
    store.ask(ME, b"ask", waits=True, keep_s=KEEP_S)
    assert store.waiting() == store.asks() == {ME: b"ask"}


def test_a_full_store_still_lets_a_member_ask_again(store: ValkeyStore, server: StoreServer) -> None:
    store.ask(ME, b"one", waits=False, keep_s=KEEP_S)
    now_ms = store.look(ME).time_ms
    others = [part for number in range(MOST_ASKS - 1) for part in (b"%d" % number, b"%013dask" % now_ms)]
    server.run("HSET", f"{TAG}:asks", *others)
    store.ask(ME, b"two", waits=False, keep_s=KEEP_S)
    assert len(store.asks()) == MOST_ASKS
    with pytest.raises(CrowdedStoreError):
        store.ask(YOU, b"ask", waits=False, keep_s=KEEP_S)


def test_a_huge_entry_is_never_fetched(store: ValkeyStore, server: StoreServer) -> None:
    store.look(ME)
    sent = bytes_sent(server)
    for command in (("SET", "big", "x"), ("SETRANGE", "big", 100_000_000, "x")):
        server.run(*command)
    huge = "local big = redis.call('GET', KEYS[5]); "
    server.run(
        "EVAL",
        huge + "redis.call('SET', KEYS[1], big); redis.call('HSET', KEYS[2], ARGV[1], big); "
        "redis.call('SADD', KEYS[3], ARGV[1], big); redis.call('HSET', KEYS[4], ARGV[1], big)",
        *(5, f"{TAG}:reg", f"{TAG}:asks", f"{TAG}:waiting", f"{TAG}:boxes", "big", ME),
    )
    assert store.look(ME)[:4] == (b"", 1, 2, True)
    assert store.asks() == {}
    assert store.waiting() == {}
    assert store.take(ME) is None
    assert bytes_sent(server) - sent < 10_000
    # Members go on as if nothing were there.
    assert store.serve(ME, b"box", KEEP_S)
    assert store.take(ME) is not None
    assert store.commit(b"", b"one", {ME: b"box"}, KEEP_S)
    assert store.look(ME)[:4] == (b"one", 0, 0, False)


@pytest.mark.parametrize("surplus", [0, 1])
def test_the_longest_entries_are_handed_out_and_no_longer_ones(
    store: ValkeyStore, server: StoreServer, surplus: int
) -> None:
    register, ask, box = (b"x" * (most + surplus) for most in (MOST_REGISTER_BYTES, MOST_ASK_BYTES, MOST_BOX_BYTES))
    server.run("SET", f"{TAG}:reg", register)
    store.ask(ME, ask, waits=True, keep_s=KEEP_S)
    server.run("HSET", f"{TAG}:boxes", ME, box)
    assert store.look(ME).register == (b"" if surplus else register)
    assert store.asks() == store.waiting() == ({} if surplus else {ME: ask})
    taken = store.take(ME)
    assert taken is None if surplus else taken is not None and taken.box == box


def test_entries_that_no_script_wrote_are_passed_over(store: ValkeyStore, server: StoreServer) -> None:
    store.ask(ME, b"ask", waits=True, keep_s=KEEP_S)
    server.run("HSET", f"{TAG}:asks", YOU, b"", THEM, b"nan", b"long" * 100, b"%013dask" % 0, b"", b"nan          ask")
    server.run("SADD", f"{TAG}:waiting", YOU, b"nobody")
    server.run("HSET", f"{TAG}:boxes", ME, b"")
    assert store.waiting() == {ME: b"ask"}
    assert store.asks() == {ME: b"ask", b"": b"ask"}
    assert store.take(ME) is None
    assert store.look(ME).waiting == 1
    assert store.commit(b"", b"one", {}, KEEP_S)
    assert store.asks() == {ME: b"ask"}
    assert store.look(ME).asks == 1


@pytest.mark.parametrize("name", ["reg", "asks", "waiting", "boxes"])
def test_a_key_of_another_type_is_removed(store: ValkeyStore, server: StoreServer, name: str) -> None:
    def use_all() -> None:
        register = store.look(ME).register
        store.ask(ME, b"ask", waits=True, keep_s=KEEP_S)
        store.waiting()
        store.serve(ME, b"box", KEEP_S)
        assert store.commit(register, b"two", {ME: b"box"}, KEEP_S)
        assert store.take(ME) is not None

    use_all()
    server.run("DEL", f"{TAG}:{name}")
    server.run("RPUSH", f"{TAG}:{name}", "junk")
    with pytest.raises(StoreError) as caught:
        use_all()
    assert str(caught.value) == f"{server.url}/0 held something else under the group's keys, which was removed"
    use_all()


def bytes_sent(server: StoreServer) -> int:
    sent: int = server.run("INFO", "stats")["total_net_output_bytes"]
    return sent
