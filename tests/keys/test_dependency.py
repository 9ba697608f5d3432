"""How handlers get the key ring: `EphemeralKeys`, or `Depends(get_ephemeral_keys)`."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Annotated

import anyio.to_thread
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.testclient import TestClient
from starlette.datastructures import State

from server_keys import EphemeralKeys, KeyRing, KeysUnavailableError, ephemeral_key_lifespan_factory, get_ephemeral_keys
from tests.helpers import asgi

SAID_WITHOUT_A_LIFESPAN = (
    "app.state.ephemeral_keys holds no key ring",
    "FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(your_lifespan))",
    "inject_key_lifespan",
    "with TestClient(app) as client:",
    "mounted",
)


def routes() -> APIRouter:
    router = APIRouter()

    @router.get("/annotated")
    async def annotated(keys: EphemeralKeys) -> str:
        return keys.current.public_key.hex()

    @router.get("/depends")
    async def depends(keys: Annotated[KeyRing, Depends(get_ephemeral_keys)]) -> str:
        return keys.current.public_key.hex()

    @router.get("/in-a-thread")
    def in_a_thread(keys: EphemeralKeys) -> str:
        return keys.current.public_key.hex()

    @router.websocket("/socket")
    async def socket(websocket: WebSocket, keys: EphemeralKeys) -> None:
        await websocket.accept()
        await websocket.send_text(keys.current.public_key.hex())
        await websocket.close()

    return router


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI(lifespan=ephemeral_key_lifespan_factory(300)(None))
    app.include_router(routes())
    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("path", ["/annotated", "/depends", "/in-a-thread"])
def test_handlers_get_the_ring_of_their_app(app: FastAPI, client: TestClient, path: str) -> None:
    assert client.get(path).json() == app.state.ephemeral_keys.current.public_key.hex()
    app.state.ephemeral_keys.refresh()
    assert client.get(path).json() == app.state.ephemeral_keys.current.public_key.hex()


def test_websockets_get_the_ring_of_their_app(app: FastAPI, client: TestClient) -> None:
    with client.websocket_connect("/socket") as websocket:
        assert websocket.receive_text() == app.state.ephemeral_keys.current.public_key.hex()


def test_the_ring_is_no_parameter_of_the_api(app: FastAPI) -> None:
    for path in app.openapi()["paths"].values():
        assert "parameters" not in path["get"]
        assert "requestBody" not in path["get"]


def test_without_a_lifespan_the_error_explains_itself(app: FastAPI) -> None:
    client = TestClient(app)  # not entered: lifespans do not run
    with pytest.raises(RuntimeError) as raised:
        client.get("/annotated")
    for words in SAID_WITHOUT_A_LIFESPAN:
        assert words in str(raised.value)


def test_without_a_lifespan_a_websocket_gets_the_same_error() -> None:
    app = FastAPI()
    app.include_router(routes())
    with TestClient(app) as client, pytest.raises(RuntimeError, match="no key lifespan is running for this app"):
        client.websocket_connect("/socket").__enter__()


@pytest.mark.parametrize("state", [State(), State({"ephemeral_keys": object()})], ids=["no ring", "something else"])
def test_a_state_without_the_ring_that_a_running_lifespan_put_there_is_told_as_that(
    app: FastAPI, client: TestClient, state: State
) -> None:
    app.state = state
    with pytest.raises(KeysUnavailableError, match="the keys are gone: something replaced "):
        client.get("/annotated")


def test_a_mounted_app_has_no_ring_of_its_own_and_may_be_given_the_outer_ones(app: FastAPI) -> None:
    inner = FastAPI()
    inner.include_router(routes())
    app.mount("/inner", inner)
    with TestClient(app) as client:
        with pytest.raises(RuntimeError, match="let the inner one use its ring"):
            client.get("/inner/annotated")
        inner.dependency_overrides[get_ephemeral_keys] = lambda: app.state.ephemeral_keys
        assert client.get("/inner/annotated").json() == client.get("/annotated").json()


@pytest.mark.parametrize("path", ["/annotated", "/depends"])
def test_handlers_get_the_ring_while_every_thread_of_the_pool_is_busy(app: FastAPI, path: str) -> None:
    may_end = threading.Event()

    async def main() -> None:
        threads = int(anyio.to_thread.current_default_thread_limiter().total_tokens)
        loop = asyncio.get_running_loop()
        busy_threads: asyncio.Queue[int] = asyncio.Queue()

        @app.get("/busy")
        def busy() -> None:
            loop.call_soon_threadsafe(busy_threads.put_nowait, threading.get_ident())
            assert may_end.wait(20)

        async with app.router.lifespan_context(app):
            requests = [asyncio.create_task(asgi.call(app, "GET", "/busy")) for _ in range(threads)]
            try:
                assert len({await busy_threads.get() for _ in range(threads)}) == threads
                response = await asyncio.wait_for(asgi.call(app, "GET", path), 5)
                assert json.loads(response.body) == app.state.ephemeral_keys.current.public_key.hex()
            finally:
                may_end.set()
                await asyncio.gather(*requests)

    asyncio.run(main())


def test_called_directly_it_is_awaited(app: FastAPI) -> None:
    @app.get("/direct")
    async def direct(request: Request) -> str:
        return (await get_ephemeral_keys(request)).current.public_key.hex()

    with TestClient(app) as client:
        assert client.get("/direct").json() == client.get("/annotated").json()


def test_a_test_may_override_the_dependency() -> None:
    app = FastAPI()
    app.include_router(routes())
    with KeyRing(300) as ring:
        app.dependency_overrides[get_ephemeral_keys] = lambda: ring
        assert TestClient(app).get("/annotated").json() == ring.current.public_key.hex()
