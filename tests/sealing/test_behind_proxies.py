"""Sealed streams through real proxies that buffer and compress: each event arrives before the next one is sent."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from server_keys._native import RequestSealer
from server_keys.client import sealed_client
from tests.helpers.server_processes import (
    ROOT,
    SERVER_KINDS,
    free_port,
    haproxy,
    has_haproxy,
    has_nginx,
    nginx,
    serving,
)
from tests.helpers.step_app import LATE, STEPS

APP = "tests.helpers.step_app:app"
# To nginx, which speaks HTTP/1.0 to it by default, it answers without chunks: then nginx waits for a full buffer.
UVICORN = next(kind for kind in SERVER_KINDS if kind.name == "uvicorn-h11")


@dataclass(frozen=True)
class Route:
    """The way to the app: through a proxy, and straight."""

    proxied: str
    """The URL of the app as clients see it."""
    straight: str
    key_url: str | None = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serving(UVICORN, APP, tmp_path_factory.mktemp("server") / "log") as port:
        yield port


NGINX = {
    # What a distribution's nginx does with `proxy_pass` alone.
    "buffering": ("", "/", ""),
    "compressing all": ("gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;", "/", ""),
    "HTTP/1.1 to the app, a prefix": ("", "/team-a/", "proxy_http_version 1.1; proxy_set_header Connection '';"),
}
HAPROXY = {
    "plain": (),
    "compressing all": ("  compression algo gzip", "  compression type text/event-stream application/json text/plain"),
}


@contextlib.contextmanager
def through_nginx(folder: Path, server: int, how: str) -> Iterator[Route]:
    http, prefix, location = NGINX[how]
    port = free_port()
    configuration = (
        f"{http}\nserver {{ listen 127.0.0.1:{port}; "
        f"location {prefix} {{ proxy_pass http://127.0.0.1:{server}/; proxy_buffering on; {location} }} }}"
    )
    with nginx(folder, configuration, port):
        url = f"http://127.0.0.1:{port}{prefix}".rstrip("/")
        key_url = None if prefix == "/" else f"{prefix}.well-known/hpke-keys"
        yield Route(url, f"http://127.0.0.1:{server}", key_url)


@contextlib.contextmanager
def through_haproxy(folder: Path, server: int, how: str) -> Iterator[Route]:
    port = free_port()
    configuration = f"listen all\n  bind 127.0.0.1:{port}\n  server app 127.0.0.1:{server}\n" + "\n".join(HAPROXY[how])
    with haproxy(folder, configuration, port):
        yield Route(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{server}")


PROXIES = [
    pytest.param((through, how), id=f"{name}, {how}", marks=marks)
    for name, through, ways, marks in (
        ("nginx", through_nginx, NGINX, [pytest.mark.skipif(not has_nginx(), reason="nginx is missing")]),
        (
            "HAProxy",
            through_haproxy,
            HAPROXY,
            [pytest.mark.skipif(not has_haproxy(), reason="HAProxy is missing: `apt-get install haproxy` brings it")],
        ),
    )
    for how in ways
]


@pytest.fixture
def route(request: pytest.FixtureRequest, tmp_path: Path, server: int) -> Iterator[Route]:
    through, how = request.param
    with through(tmp_path, server, how) as route:
        yield route


async def events_seen(route: Route, client: httpx2.AsyncClient, name: str, **headers: str) -> list[bytes]:
    """Stream, and tell the app of each event as soon as it is opened. Return the events."""
    key_url = f"{route.proxied.removesuffix('/team-a')}{route.key_url or '/.well-known/hpke-keys'}"
    sealer = RequestSealer((await client.get(key_url)).content[3:35])
    headers = {"Ehbp-Encapsulated-Key": sealer.encapsulated_key.hex(), **headers}
    seen: list[bytes] = []
    body = sealer.seal(name.encode())
    async with client.stream("POST", f"{route.proxied}/steps", headers=headers, content=body) as response:
        assert response.status_code == 200, await response.aread()
        opener = sealer.response_opener(bytes.fromhex(response.headers["ehbp-response-nonce"]))
        async for piece in response.aiter_bytes():
            if opened := opener.feed(piece):
                seen.append(opened)
                await client.get(f"{route.straight}/seen/{name}/{len(seen) - 1}")
        opener.finish()
    return seen


@pytest.mark.parametrize("streams", [1, 50])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("route", PROXIES, indirect=True)
def test_each_event_arrives_before_the_next_one_is_sent(route: Route, coding: str, streams: int) -> None:
    async def main() -> list[list[bytes]]:
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(timeout=60, limits=limits) as client:
            names = [secrets.token_hex(4) for _ in range(streams)]
            return await asyncio.gather(
                *(events_seen(route, client, name, **{"Accept-Encoding": coding}) for name in names)
            )

    assert asyncio.run(main()) == [list(STEPS)] * streams


@pytest.mark.parametrize("route", PROXIES, indirect=True)
def test_the_client_streams_through_it(route: Route) -> None:
    with sealed_client(key_url=route.key_url or "/.well-known/hpke-keys") as client:
        seen, name = [], secrets.token_hex(4)
        with client.stream("POST", f"{route.proxied}/steps", content=name.encode()) as response:
            for piece in response.iter_bytes():
                seen.append(piece)
                httpx2.get(f"{route.straight}/seen/{name}/{len(seen) - 1}")
        assert seen == list(STEPS)
        assert client.post(f"{route.proxied}/whole", content=b"{}" * 10_000).content == b"{}" * 10_000


@pytest.mark.skipif(not has_nginx(), reason="nginx is missing")
def test_a_proxy_that_is_told_to_ignore_the_header_holds_the_stream_back(tmp_path: Path, server: int) -> None:
    # Otherwise these tests could not fail.
    port = free_port()
    location = f"proxy_pass http://127.0.0.1:{server}/; proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"
    with nginx(tmp_path, f"server {{ listen 127.0.0.1:{port}; location / {{ {location} }} }}", port):

        async def main() -> list[bytes]:
            async with httpx2.AsyncClient(timeout=60) as client:
                route = Route(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{server}")
                return await events_seen(route, client, "held")

        assert LATE in b"".join(asyncio.run(main()))


@pytest.mark.skipif(not has_nginx(), reason="nginx is missing")
def test_the_configuration_of_the_page_works_as_it_stands(tmp_path: Path, server: int) -> None:
    page = (ROOT / "docs" / "behind-a-proxy.md").read_text()
    (location,) = re.findall(r"```nginx\n(.*?)```", page, re.DOTALL)
    assert "127.0.0.1:8000" in location
    location = location.replace("127.0.0.1:8000", f"127.0.0.1:{server}")
    port = free_port()
    with (
        nginx(tmp_path, f"server {{ listen 127.0.0.1:{port};\n{location} }}", port),
        sealed_client() as client,
    ):
        body = b"x" * (2 * 1024 * 1024)  # more than nginx takes by default
        assert client.post(f"http://127.0.0.1:{port}/whole", content=body).content == body
