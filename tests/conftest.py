"""What several files share: a protected app, and a real server for it."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from tests.chat_app import build_app
from tests.servers import running


@pytest.fixture
def app() -> FastAPI:
    """The app that is served."""
    return build_app()


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    """Where it is served."""
    with running(app) as url:
        yield url
