"""A fixture for the browser's client: an engine to run it in."""

from collections.abc import Iterator

import pytest

from tests.js.engines import ENGINES, Engine, engine_named


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Chromium, then Node without and with X-Wing."""
    with engine_named(request.param) as engine:
        yield engine
