"""Fixtures for the store in a directory, and for those on servers."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from server_keys._sharing.directory_store import DirectoryStore
from server_keys._sharing.places import Place, named_directory
from tests.helpers.held_time import HeldTime
from tests.helpers.valkey import KINDS, StoreServer, store_server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """The place of the group."""
    return named_directory(str(tmp_path / "group"))


@pytest.fixture
def folder(place: Place) -> Path:
    """The directory at that place."""
    return Path(place.candidates[0])


@pytest.fixture
def handles() -> Iterator[ExitStack]:
    """Closes the stores of a test at its end."""
    with ExitStack() as handles:
        yield handles


@pytest.fixture
def store(place: Place, handles: ExitStack) -> DirectoryStore:
    """The store of one member."""
    return handles.enter_context(closing(DirectoryStore(place)))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> HeldTime:
    """The time that passes only when the test says so."""
    held = HeldTime()
    monkeypatch.setattr(time, "clock_gettime", held.clock_gettime)
    return held


@pytest.fixture(scope="module", params=KINDS, ids=str)
def any_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    """A store's server of each kind, for the tests of one file."""
    with store_server(request.param, tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture
def server(any_server: StoreServer) -> StoreServer:
    """The same, empty."""
    any_server.run("FLUSHALL")
    any_server.run("SCRIPT", "FLUSH")
    return any_server
