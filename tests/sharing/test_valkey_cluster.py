"""The store in a cluster: it finds the node that has the group's keys, whichever the URL names."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from server_keys._sharing.store import StoreError, StoreRefusedError
from server_keys._sharing.valkey import ValkeyStore
from server_keys._sharing.valkey_url import ValkeyUrl
from tests.helpers.held_time import HeldTime
from tests.helpers.valkey import KINDS, VALKEY, StoreKind, StoreServer, store_cluster, wait_until

GROUP = bytes(range(16))
TAG = "server-keys:{0001020304050607}"
ME, YOU = b"\x00" * 32, b"\xff" * 32
KEEP_S = 60.0

Opens = Callable[[StoreServer], ValkeyStore]


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> StoreKind:
    found: StoreKind = request.param
    return found


@pytest.fixture
def opens() -> Iterator[Opens]:
    """Return what opens a store by the URL of one node. It is closed after the test."""
    with contextlib.ExitStack() as stack:

        def open_store(server: StoreServer) -> ValkeyStore:
            store = ValkeyStore(ValkeyUrl.parse(server.url), GROUP, timeout_s=0.5)
            stack.callback(store.close)
            return store

        yield open_store


def owner(nodes: list[StoreServer]) -> StoreServer:
    """Return the node that has the group's keys."""
    slot = nodes[0].run("CLUSTER", "KEYSLOT", f"{TAG}:reg")
    ports = [node[1] for first, last, node, *_ in nodes[0].run("CLUSTER SLOTS") if first <= slot <= last]
    return next(node for node in nodes if node.port in ports)


def works(store: ValkeyStore) -> bool:
    with contextlib.suppress(StoreError):
        return store.restore(store.look(ME).register, b"works", KEEP_S)
    return False


def fails(store: ValkeyStore) -> bool:
    return not works(store)


def test_the_one_node_of_a_cluster_is_a_store(kind: StoreKind, tmp_path: Path, opens: Opens) -> None:
    with store_cluster(kind, tmp_path, 1) as (node,):
        store = opens(node)
        assert store.commit(b"", b"one", {ME: b"box"}, KEEP_S)
        assert store.take(ME) is not None


def test_any_node_of_a_cluster_leads_to_the_keys(kind: StoreKind, tmp_path: Path, opens: Opens) -> None:
    with store_cluster(kind, tmp_path, 3) as nodes:
        stores = [opens(node) for node in nodes]
        assert stores[0].commit(b"", b"one", {ME: b"box"}, KEEP_S)
        for store in stores:
            assert store.look(ME).register == b"one"
            store.ask(YOU, b"ask", waits=True, keep_s=KEEP_S)
            assert store.waiting() == {YOU: b"ask"}
        assert [node.run("DBSIZE") for node in nodes if node is not owner(nodes)] == [0, 0]

        # With a node away, a cluster that wants all of its slots served is down; then it is whole again.
        lost = next(node for node in nodes if node is not owner(nodes))
        lost.kill()
        for store in stores:
            wait_until(partial(fails, store), "the cluster does not mind")
        lost.start()
        for store in stores:
            wait_until(partial(works, store), "a store did not come back")

        for node in nodes:
            node.kill()
        for store in stores:
            with pytest.raises(StoreError, match=r"cannot be reached: Connection refused$"):
                store.look(ME)
        for node in nodes:
            node.start()
        for store in stores:
            wait_until(partial(works, store), "a store did not come back")


def test_keys_that_move_to_another_node_are_followed(tmp_path: Path, opens: Opens) -> None:
    with store_cluster(VALKEY, tmp_path, 2) as nodes:
        store = opens(nodes[0])
        assert store.commit(b"", b"one", {}, KEEP_S)
        source = owner(nodes)
        target = next(node for node in nodes if node is not source)
        slot = source.run("CLUSTER", "KEYSLOT", f"{TAG}:reg")
        source_id, target_id = (bytes(node.run("CLUSTER", "MYID")).decode() for node in (source, target))
        target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        # Meanwhile keys may be here or there.
        with pytest.raises(StoreError, match="is moving the group's keys to another node"):
            store.look(ME)
        source.run("MIGRATE", "127.0.0.1", target.port, f"{TAG}:reg", 0, 5000)
        for node in (target, source):
            node.run("CLUSTER", "SETSLOT", slot, "NODE", target_id)
        assert store.look(ME).register == b"one"
        assert store.commit(b"one", b"two", {}, KEEP_S)
        assert target.run("GET", f"{TAG}:reg") == b"two"


def test_a_replica_that_takes_over_is_found(tmp_path: Path, opens: Opens) -> None:
    with store_cluster(VALKEY, tmp_path, 3, replicas=1) as nodes:
        primary = owner(nodes[:3])
        # The URLs name the node that will be away, others, and the replica.
        stores = [opens(node) for node in nodes]
        assert all(works(store) for store in stores)
        primary.kill()
        for store in stores:
            wait_until(partial(works, store), "the replica was not found")


def test_the_list_of_nodes_is_renewed(tmp_path: Path, opens: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldTime()
    monkeypatch.setattr(time, "clock_gettime", held.clock_gettime)
    with store_cluster(VALKEY, tmp_path, 1) as (node,):
        store = opens(node)
        assert works(store)
        asked = slots_asked(node)
        held.pass_s(29)
        assert works(store)
        assert slots_asked(node) == asked
        held.pass_s(2)
        assert works(store)
        assert works(store)
        assert slots_asked(node) == asked + 1


def slots_asked(node: StoreServer) -> int:
    """Return how often anybody asked a node which nodes there are."""
    calls: int = node.run("INFO", "commandstats").get("cmdstat_cluster|slots", {}).get("calls", 0)
    return calls


def test_a_cluster_has_one_database(kind: StoreKind, tmp_path: Path) -> None:
    with store_cluster(kind, tmp_path, 1) as (node,):
        store = ValkeyStore(ValkeyUrl.parse(f"{node.url}/1"), GROUP)
        try:
            with pytest.raises(StoreRefusedError, match=r"has no database 1$"):
                store.look(ME)
        finally:
            store.close()
