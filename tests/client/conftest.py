"""Fixtures that the client's tests share: scripted servers."""

from collections.abc import Iterator

import pytest

from tests.helpers.client_flavours import Flavour
from tests.helpers.scripted_server import Server
from tests.helpers.scripted_v1_server import V1Server


@pytest.fixture
def server(flavour: Flavour) -> Iterator[Server]:
    """A server. Each of its responses must be closed at the end of the test."""
    server = Server(flavour)
    yield server
    assert len(server.closed) == len(server.requests)


@pytest.fixture
def v1_server(flavour: Flavour) -> Iterator[V1Server]:
    """A server that offers version 1 of the wire. Each of its responses must be closed at the end of the test."""
    server = V1Server(flavour)
    yield server
    assert len(server.closed) == len(server.requests)
