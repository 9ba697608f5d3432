"""The store in a Valkey or Redis server does what every store has to do."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from server_keys._sharing.store import Store
from server_keys._sharing.valkey import ValkeyStore
from server_keys._sharing.valkey_url import ValkeyUrl
from tests.helpers.valkey import KINDS, StoreServer, store_server
from tests.sharing.store_battery import OpenStore, StoreBattery, WaitS

GROUP = bytes(range(16))


@pytest.fixture(scope="module", params=KINDS, ids=str)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with store_server(request.param, tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture
def open_store(server: StoreServer) -> Iterator[OpenStore]:
    """Opens connections to an empty server."""
    server.run("FLUSHALL")

    def open_one() -> Store:
        return handles.enter_context(closing(ValkeyStore(ValkeyUrl.parse(server.url), GROUP, timeout_s=5)))

    with ExitStack() as handles:
        yield open_one


@pytest.fixture
def wait_s() -> WaitS:
    """Waits: a server's time is its own."""
    return time.sleep


class TestValkeyStore(StoreBattery):
    """The battery."""
