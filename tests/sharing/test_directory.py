"""The store in a directory does what every store has to do."""

from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from server_keys._sharing.directory_store import DirectoryStore
from server_keys._sharing.places import Place
from server_keys._sharing.store import Store
from tests.helpers.held_time import HeldTime
from tests.sharing.store_battery import LONG_S, OpenStore, StoreBattery, WaitS, new_name


@pytest.fixture
def open_store(place: Place, handles: ExitStack) -> OpenStore:
    """Opens handles on one directory."""
    return lambda: handles.enter_context(closing(DirectoryStore(place)))


@pytest.fixture
def wait_s(held: HeldTime) -> WaitS:
    """Lets the held time pass."""
    return held.pass_s


class TestDirectoryStore(StoreBattery):
    """The battery."""

    def fill(self, store: Store, asks: int) -> None:
        """Copy an ask: to list the directory for each takes a second for each thousand."""
        folder = Path(store.shown)
        name = new_name()
        store.ask(name, b"ask", waits=False, keep_s=LONG_S)
        ask = (folder / f"ask-{name.hex()}").read_bytes()
        for _ in range(asks - 1):
            (folder / f"ask-{new_name().hex()}").write_bytes(ask)
