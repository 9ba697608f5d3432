"""Fixtures that several folders share: a protected app, and a real server for it."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from tests.helpers.chat_app import build_app
from tests.helpers.servers import PLAIN, STANDARD, Stack, running


@pytest.fixture
def app() -> FastAPI:
    """The app that is served."""
    return build_app()


@pytest.fixture(params=[PLAIN, STANDARD], ids=str)
def url(app: FastAPI, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of the app, served by uvicorn on each of its stacks."""
    stack: Stack = request.param
    with running(app, stack) as url:
        yield url
