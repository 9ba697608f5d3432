"""A cache that many clients share, in front of the server."""

from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from tests.helpers.server_processes import free_port, has_nginx, nginx

KEY_PATH = "/.well-known/hpke-keys"


@pytest.mark.skipif(not has_nginx(), reason="nginx is missing: install it, `apt-get install nginx-light`")
def test_a_shared_cache_keeps_no_key(app: FastAPI, url: str, tmp_path: Path) -> None:
    @app.get("/cacheable")
    async def cacheable() -> str:
        return "fresh"

    port = free_port()
    cache = f"proxy_cache_path {tmp_path}/cache keys_zone=cache:1m; proxy_cache cache; proxy_cache_valid 200 10m;"
    tell = "add_header X-Cache $upstream_cache_status;"
    http = f"{cache} {tell} server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {url}; }} }}"
    with nginx(tmp_path, http, port), httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert [client.get("/cacheable").headers["x-cache"] for _ in range(2)] == ["MISS", "HIT"]
        for _ in range(3):
            response = client.get(KEY_PATH)
            assert response.headers["x-cache"] == "MISS"
            assert response.content[3:35] == app.state.ephemeral_keys.current.public_key
            app.state.ephemeral_keys.refresh()
