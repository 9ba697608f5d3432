"""The readiness check: it says yes only while there is a key that is not overdue, and the app serves."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server_keys import KeyRing, ephemeral_key_lifespan_factory, periodic_refresh, protect
from server_keys.readiness import is_ready, ready, why_not_ready
from tests.helpers import asgi
from tests.helpers.held_time import HeldTime
from tests.helpers.key_source import Source
from tests.helpers.lost_folders import put_file, take_place


def with_route(app: FastAPI) -> FastAPI:
    app.add_api_route("/ready", ready)
    return app


def test_it_is_ready_while_it_serves_and_neither_before_nor_after() -> None:
    app = with_route(protect(FastAPI(), required=True))
    assert not is_ready(app)
    with TestClient(app) as client:
        answer = client.get("/ready")
        assert (answer.status_code, answer.json()) == (200, {"ready": True})
        assert answer.headers["cache-control"] == "no-store"
        assert is_ready(app)
    assert not is_ready(app)


def test_without_keys_it_is_not_ready_and_says_why() -> None:
    client = TestClient(with_route(protect(FastAPI())))  # nobody runs the lifespan
    answer = client.get("/ready")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert "no key ring" in answer.json()["reason"]
    assert answer.headers["cache-control"] == "no-store"


def test_it_is_not_ready_during_start_up_and_shutdown_though_it_has_keys() -> None:
    seen: dict[str, object] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        seen["start-up"] = why_not_ready(app)
        yield
        seen["shutdown"] = (await asgi.call(app, "GET", "/ready")).status
        assert app.state.ephemeral_keys.current

    app = with_route(FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(lifespan)))
    with TestClient(app):
        seen["serving"] = why_not_ready(app)
    assert seen == {"start-up": "the app starts or shuts down", "serving": None, "shutdown": 503}


def test_of_two_servers_of_one_app_one_may_end() -> None:
    app = protect(FastAPI())
    with TestClient(app):
        with TestClient(app):
            assert is_ready(app)
        assert is_ready(app)
    assert not is_ready(app)


def test_keys_that_are_overdue_make_it_unready_until_they_are_replaced() -> None:
    held, source, app = HeldTime(), Source(), with_route(FastAPI())
    client = TestClient(app)
    with KeyRing(10, overlap_s=4, generate=source, clock=held.boot) as ring:
        app.state.ephemeral_keys = ring
        source.error = MemoryError("no memory for secrets")
        held.pass_s(9)
        assert is_ready(app)
        held.pass_s(2)
        reason = client.get("/ready").json()["reason"]
        # Sealed requests are still opened.
        assert ring.current
        assert "the key is 11 s old and was to be replaced after 10 s: 1 tries failed" in reason
        assert "MemoryError: no memory for secrets" in reason
        held.pass_s(10)
        assert client.get("/ready").status_code == 503
        source.error = None
        held.pass_s(10)
        assert is_ready(app)
    assert client.get("/ready").status_code == 503
    assert "closed" in client.get("/ready").json()["reason"]


def test_a_key_that_somebody_erased_makes_nothing_unready_because_it_is_replaced_at_once() -> None:
    app = protect(FastAPI())
    with TestClient(app):
        app.state.ephemeral_keys.current.erase()
        assert is_ready(app)


def test_a_ring_that_a_task_refreshes_is_ready_until_the_task_ends() -> None:
    app = FastAPI()

    async def main() -> None:
        task = asyncio.create_task(periodic_refresh(app, 1))
        while not is_ready(app):  # noqa: ASYNC110 - another task turns it, and tells nobody
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        assert not is_ready(app)

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_store_that_stops_makes_no_server_unready(tmp_path: Path) -> None:
    folder = tmp_path / "group"
    app = with_route(protect(FastAPI(), 0.5, share=f"file://{folder}"))
    with TestClient(app) as client:
        take_place(put_file, folder)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert client.get("/ready").status_code == 200, client.get("/ready").text
            time.sleep(0.05)
        assert not app.state.ephemeral_keys.status.sharing.shared
    folder.unlink()


def test_the_reason_contains_no_secret() -> None:
    app = with_route(protect(FastAPI()))
    with TestClient(app) as client:
        app.state.ephemeral_keys.close()
        reason = client.get("/ready").json()["reason"]
    assert reason == "this key ring is closed and its keys are erased: its app has shut down"


@pytest.mark.parametrize("state", [None, object()])
def test_something_else_in_the_place_of_the_ring_is_no_key(state: object) -> None:
    app = FastAPI()
    app.state.ephemeral_keys = state
    assert not is_ready(app)
