"""A plain server, for commands that pass requests on to it."""

from collections.abc import Iterator

import pytest

from tests.helpers.servers import STANDARD, running
from tests.helpers.upstream_app import Upstream


@pytest.fixture(scope="module")
def upstream_app() -> Upstream:
    return Upstream()


@pytest.fixture(scope="module")
def upstream(upstream_app: Upstream) -> Iterator[str]:
    with running(upstream_app, STANDARD) as url:
        yield url
