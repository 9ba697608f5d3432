"""What the client's tests share: a scripted server."""

from collections.abc import Iterator

import pytest

from tests.helpers.client_flavours import Flavour
from tests.helpers.scripted_server import Server


@pytest.fixture
def server(flavour: Flavour) -> Iterator[Server]:
    """A server; whatever a test does, each response must be closed at its end."""
    server = Server(flavour)
    yield server
    assert len(server.closed) == len(server.requests)
