"""A fixture that the client's tests share: a scripted server."""

from collections.abc import Iterator

import pytest

from tests.helpers.client_flavours import Flavour
from tests.helpers.scripted_server import Server


@pytest.fixture
def server(flavour: Flavour) -> Iterator[Server]:
    """A server. Each of its responses must be closed at the end of the test."""
    server = Server(flavour)
    yield server
    assert len(server.closed) == len(server.requests)
