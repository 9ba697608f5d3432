"""Plain programs through both ends: curl and the OpenAI SDK before a server that knows nothing of sealing."""

import asyncio
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, OpenAI

from server_keys.client import sealed_client
from tests.helpers.commands import Running, serving
from tests.helpers.upstream_app import WORDS, Upstream
from tests.helpers.wire_tap import tapped

MESSAGES: Any = [{"role": "user", "content": "What do keys do?"}]
MIB = 1024 * 1024
BODY_MIB = 200


def test_curl_talks_plaintext_and_sealed_bodies_leave(chain: tuple[Running, Running]) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    with tapped(chain[1].port) as tap, serving("seal", "--to", tap.url, "--listen", "127.0.0.1:0") as sealed:
        done = subprocess.run(
            [curl, "-s", "-i", f"{sealed.url}/v1/echo?q=1", "-d", "a secret of mine"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        head, _, body = done.stdout.partition("\n\n")
        assert " 200 OK" in head
        assert json.loads(body)["body"] == "a secret of mine"
        assert "ehbp" not in head.lower().replace("expose-headers: ehbp-response-nonce", "")
        assert b"POST /v1/echo?q=1 HTTP/1.1" in tap.heard
        assert b"secret" not in tap.heard


def test_the_openai_sdk_needs_nothing_but_a_base_url(sealed: str) -> None:
    with OpenAI(base_url=f"{sealed}/v1", api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model="tiny", messages=MESSAGES)
        assert answer.choices[0].message.content == "".join(WORDS)
        events = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
        assert [event.choices[0].delta.content for event in events] == WORDS


def test_the_openai_sdk_shows_what_went_wrong() -> None:
    with (
        serving("seal", "--to", "http://127.0.0.1:9", "--listen", "127.0.0.1:0") as sealed,
        OpenAI(base_url=f"{sealed.url}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(APIStatusError, match="upstream of this proxy takes no connection") as caught:
            client.chat.completions.create(model="tiny", messages=MESSAGES)
        assert caught.value.status_code == 502


@pytest.mark.parametrize("through", ["sealed", "opened"])
def test_each_event_arrives_before_the_next_one_is_sent(
    through: str, upstream_app: Upstream, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(through)
    upstream_app.released = 1
    with (
        (sealed_client if through == "opened" else httpx2.Client)() as client,
        client.stream("POST", f"{url}/steps", content=b"x", timeout=10) as response,
    ):
        for number, event in enumerate(response.iter_bytes()):
            assert event == b"data: %d\n\n" % number
            upstream_app.released += 1
            if number == 20:
                break


@pytest.mark.parametrize("path", ["/steps", "/silent"])
def test_a_client_that_goes_away_ends_the_upstreams_work(path: str, upstream_app: Upstream, sealed: str) -> None:
    upstream_app.released = 1
    path += f"?{secrets.token_hex(4)}"

    async def leave() -> None:
        async with httpx2.AsyncClient() as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await client.post(f"{sealed}{path}", content=b"x")

    asyncio.run(leave())
    assert _soon(lambda: path in upstream_app.gone)


def test_a_client_that_goes_away_in_its_upload_takes_the_upstreams_request_with_it(
    upstream_app: Upstream, sealed: str
) -> None:
    path = f"/length?{secrets.token_hex(4)}"
    before = upstream_app.received_bytes

    async def pieces() -> Any:
        for _ in range(32):
            yield bytes(64 * 1024)
        await asyncio.sleep(60)

    async def leave() -> None:
        async with httpx2.AsyncClient() as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await client.post(f"{sealed}{path}", content=pieces())

    asyncio.run(leave())
    assert _soon(lambda: path in upstream_app.gone)
    assert upstream_app.received_bytes > before


def test_long_bodies_pass_without_being_kept(
    chain: tuple[Running, Running], upstream_app: Upstream, sealed: str
) -> None:
    def pieces() -> Any:
        piece = bytes(256 * 1024)
        for _ in range(BODY_MIB * 4):
            yield piece

    with httpx2.Client(timeout=120) as client:
        assert client.post(sealed, content=b"warm").status_code == 200
        before = [each.resident_mib for each in chain]
        upstream_app.received_bytes = 0
        assert client.post(f"{sealed}/length", content=pieces()).text == str(BODY_MIB * MIB)
        with client.stream("POST", f"{sealed}/large", content=str(BODY_MIB).encode()) as response:
            assert sum(map(len, response.iter_bytes())) == BODY_MIB * MIB
    grown = [each.most_resident_mib - was for each, was in zip(chain, before, strict=True)]
    assert max(grown) < 32, grown


def test_an_upstream_may_answer_before_it_has_read_a_body(sealed: str) -> None:
    with httpx2.Client(timeout=30) as client:
        assert client.post(f"{sealed}/early", content=bytes(10 * MIB)).json()["target"] == "/early"
        assert client.post(f"{sealed}/echo", content=b"x").json()["body"] == "x"


def test_a_slow_reader_holds_the_upstream_back(
    chain: tuple[Running, Running], upstream_app: Upstream, sealed: str
) -> None:
    before = [each.resident_mib for each in chain]
    with httpx2.Client(timeout=30) as client, client.stream("POST", f"{sealed}/large", content=b"100") as response:
        next(response.iter_bytes())
        time.sleep(1)
        grown = [each.resident_mib - was for each, was in zip(chain, before, strict=True)]
    assert max(grown) < 32, grown


def _soon(is_so: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not is_so():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True
