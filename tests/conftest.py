"""Fixtures that several folders share: a protected app, a real server for it, and each engine in turn."""

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


@pytest.fixture(params=["AWS-LC", "dalek"])
def each_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the processes that a test starts compute by AWS-LC, if it is in the build, and then by dalek."""
    monkeypatch.delenv("SERVER_KEYS_ENGINE", raising=False)
    if request.param == "dalek":
        monkeypatch.setenv("SERVER_KEYS_ENGINE", "dalek")
