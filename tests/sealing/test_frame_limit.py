"""The longest frame that a server takes, and that a client does."""

import asyncio
from collections.abc import Callable

import pytest
from fastapi import FastAPI, Request

from server_keys import EncryptedBodyMiddleware, KeyRing, inject_middleware, protect
from server_keys.client.httpx import AsyncSealedTransport as HttpxAsyncSealedTransport
from server_keys.client.httpx import SealedTransport as HttpxSealedTransport
from server_keys.client.httpx2 import AsyncSealedTransport, SealedTransport
from tests.helpers import asgi
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.sealed_requests import Client, unreachable
from tests.helpers.servers import running

SMALLEST = 64 * 1024 + 16
LARGEST = 64 * 1024 * 1024

TAKES_A_LIMIT: list[Callable[[int], object]] = [
    lambda limit: EncryptedBodyMiddleware(unreachable, max_frame_bytes=limit),
    lambda limit: protect(FastAPI(), max_frame_bytes=limit),
    lambda limit: inject_middleware(FastAPI, max_frame_bytes=limit),
    lambda limit: SealedTransport(max_frame_bytes=limit),
    lambda limit: AsyncSealedTransport(max_frame_bytes=limit),
    lambda limit: HttpxSealedTransport(max_frame_bytes=limit),
    lambda limit: HttpxAsyncSealedTransport(max_frame_bytes=limit),
]


@pytest.mark.parametrize("make", TAKES_A_LIMIT)
@pytest.mark.parametrize(
    ("limit", "error"),
    [
        (0, ValueError),
        (1000, ValueError),
        (32768, ValueError),
        (SMALLEST - 1, ValueError),
        (LARGEST + 1, ValueError),
        ("100000", TypeError),
        (1e6, TypeError),
        (True, TypeError),
    ],
)
def test_a_limit_that_cannot_be_is_refused_with_its_value(
    make: Callable[[int], object], limit: int, error: type[Exception]
) -> None:
    with pytest.raises(error, match=f"max_frame_bytes must be .*{limit}"):
        make(limit)


@pytest.mark.parametrize("make", TAKES_A_LIMIT)
@pytest.mark.parametrize("limit", [SMALLEST, LARGEST])
def test_a_limit_may_be_as_small_and_as_large_as_that(make: Callable[[int], object], limit: int) -> None:
    make(limit)


@pytest.mark.parametrize("flavour", FLAVOURS, ids=str)
def test_the_smallest_limits_take_what_the_own_client_and_server_send(flavour: Flavour) -> None:
    app = FastAPI()

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    protect(app, 300, max_frame_bytes=SMALLEST)
    with running(app) as url, flavour.client(max_frame_bytes=SMALLEST) as client:
        assert client.post(f"{url}/length", bytes(1_000_000)).json() == 1_000_000


def test_a_frame_just_above_the_limit_is_refused() -> None:
    with KeyRing(300) as ring:
        app = EncryptedBodyMiddleware(unreachable, key_ring=ring, max_frame_bytes=SMALLEST)
        headers = Client(ring.current).headers
        pieces = [(SMALLEST + 1).to_bytes(4, "big")]
        response = asyncio.run(asgi.call(app, "POST", "/", headers=headers, pieces=pieces))
    assert response.status == 413
    assert f"{SMALLEST + 1}" in response.body.decode()
