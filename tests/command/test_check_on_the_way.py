"""What the doctor sends, and by which way."""

import dataclasses
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request

from server_keys import protect
from tests.helpers.commands import run_here
from tests.helpers.recording_proxy import recording_proxy
from tests.helpers.servers import STANDARD, running


@dataclasses.dataclass
class Asked:
    """A request that reached the app, opened."""

    path: str
    headers: dict[str, str]
    body: bytes


@pytest.fixture
def asked() -> list[Asked]:
    return []


@pytest.fixture
def url(asked: list[Asked]) -> Iterator[str]:
    """The URL of a protected app that takes everything."""
    app = FastAPI()

    @app.post("/{rest:path}")
    async def take(request: Request) -> None:
        asked.append(Asked(request.url.path, dict(request.headers), await request.body()))

    with running(protect(app, refresh_time=300), STANDARD) as url:
        yield url


def check(url: str, *arguments: str) -> None:
    done = run_here("check", url, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def sent(asked: list[Asked]) -> Asked:
    """Return the request with `--data`, which comes last."""
    return asked[-1]


def test_it_goes_the_way_of_a_client_through_a_proxy_of_the_environment(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        check("http://localhost:" + url.rpartition(":")[2])
        passed = {request.method for request in proxy.requests}
        proxy.requests.clear()
        monkeypatch.setenv("NO_PROXY", "localhost")
        check("http://localhost:" + url.rpartition(":")[2])
        assert proxy.requests == []
    assert passed == {"GET", "POST"}


def test_it_says_what_asks_and_that_it_sends_json_unless_it_is_told_else(url: str, asked: list[Asked]) -> None:
    check(url)
    assert {(one.headers["user-agent"], one.headers["content-type"]) for one in asked} == {
        ("server-keys", "application/json")
    }
    check(url, "--header", "content-type: text/plain", "--header", "USER-AGENT: curl")
    assert sent(asked).headers["content-type"] == "text/plain"
    assert sent(asked).headers["user-agent"] == "curl"


def test_a_path_of_two_slashes_is_a_path_and_no_other_server(url: str, asked: list[Asked]) -> None:
    check(url, "--path", "//elsewhere.invalid/v1")
    assert sent(asked).path == "//elsewhere.invalid/v1"


def test_data_is_sent_as_the_bytes_that_were_typed(url: str, asked: list[Asked]) -> None:
    check(url, "--data", "Zoë \udcff")
    assert sent(asked).body == "Zoë ".encode() + b"\xff"
