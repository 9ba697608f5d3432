"""A plain server, and both ends of the proxy before it, in processes of their own."""

from collections.abc import Iterator

import pytest

from tests.helpers.commands import Running, sealing_chain
from tests.helpers.servers import STANDARD, running
from tests.helpers.upstream_app import Upstream


@pytest.fixture(scope="package")
def upstream_app() -> Upstream:
    """What is served behind."""
    return Upstream()


@pytest.fixture(scope="package")
def upstream_url(upstream_app: Upstream) -> Iterator[str]:
    with running(upstream_app, STANDARD) as url:
        yield url


@pytest.fixture(scope="package")
def chain(upstream_url: str) -> Iterator[tuple[Running, Running]]:
    """`server-keys seal` and `server-keys open`."""
    with sealing_chain(upstream_url) as chain:
        yield chain


@pytest.fixture
def sealed(chain: tuple[Running, Running]) -> str:
    """The URL that programs use."""
    return chain[0].url


@pytest.fixture
def opened(chain: tuple[Running, Running]) -> str:
    """The URL that sealed bodies come to."""
    return chain[1].url
