"""The doctor on identities: it verifies who signed the keys as a client does, and else says that nobody has."""

import contextlib
import hashlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys._sealing.key_signature import signature_of
from server_keys._sealing.protocol import KEY_CONFIG_PATH
from server_keys.client import sealed_client
from server_keys.errors import KeyRejectedError
from tests.command.test_check import build_app, examined
from tests.helpers.commands import run, run_here
from tests.helpers.servers import STANDARD, running
from tests.helpers.signed_answers import OtherSigner
from tests.helpers.wire_tap import tapped

SIGNER = OtherSigner(bytes(range(32)))
STRANGER = OtherSigner(bytes(range(1, 33)))
HASH = hashlib.sha256(SIGNER.public_key).hexdigest()[:16]
DAY_S = 24 * 60 * 60


@pytest.fixture
def signing_app(tmp_path: Path) -> FastAPI:
    return build_app(identity=SIGNER.write_to(tmp_path / "server.key"))


@pytest.fixture
def server(signing_app: FastAPI) -> Iterator[str]:
    with running(signing_app, STANDARD) as url:
        yield url


def with_key_answer(change: Callable[[bytes], bytes], app: ASGIApp) -> ASGIApp:
    """Return `app` behind something that changes its key answers, and leaves their length."""

    async def changed(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_changed(message: Message) -> None:
            if message["type"] == "http.response.body" and message.get("body"):
                message = {**message, "body": change(message["body"])}
            await send(message)

        is_key = scope["type"] == "http" and scope["path"] == KEY_CONFIG_PATH
        await app(scope, receive, send_changed if is_key else send)

    return changed


def signed_anew(created_in_s: int, expires_in_s: int) -> Callable[[bytes], bytes]:
    now = int(time.time())

    def change(answer: bytes) -> bytes:
        return SIGNER.signed(signature_of(answer)[0], now + created_in_s, now + expires_in_s)

    return change


def with_another_key(answer: bytes) -> bytes:
    return answer[:3] + bytes(range(32)) + answer[35:]


def clients_reason(url: str) -> str:
    """Return why this package's client refuses the server."""
    with sealed_client(identity=SIGNER.identity) as client, pytest.raises(KeyRejectedError) as refused:
        client.post(url, content=b"x")
    return str(refused.value)


def without_clock(says: str) -> str:
    """Return a reason without the time of the clock, which goes on."""
    return re.sub(r"the clock here shows [^)]+", "", says)


def test_it_verifies_who_signed_the_keys_and_until_when(server: str) -> None:
    verdict, says, values = examined(server, "--identity", SIGNER.identity)["identity"]
    assert verdict == "ok"
    assert values["verified"] is True
    assert (values["identity"], values["signed_by"]) == (SIGNER.identity, HASH)
    assert (values["connections"], values["refused_on"]) == (8, 0)
    assert values["created"] <= time.time() < values["expires"] <= time.time() + 600
    until = datetime.fromtimestamp(values["expires"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    assert says == f"verified: {SIGNER.identity} signed the keys on each of 8 connections, until {until}"


def test_people_read_that_it_is_verified_and_which_identity_it_is(server: str) -> None:
    done = run("check", server, "--identity", SIGNER.identity)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"verified: {SIGNER.identity} signed" in " ".join(done.stdout.split())
    assert re.search(r"^identity +ok +verified", done.stdout, re.MULTILINE)


def test_during_a_change_of_identity_it_says_which_of_them_signed(server: str) -> None:
    both = ("--identity", STRANGER.identity, "--identity", SIGNER.identity)
    assert examined(server, *both)["identity"][2]["identity"] == SIGNER.identity
    done = run_here(
        "check", server, "--json", environment={"SERVER_KEYS_CHECK_IDENTITY": f"{STRANGER.identity} {SIGNER.identity}"}
    )
    assert done.returncode == 0
    assert f"verified: {SIGNER.identity}" in done.stdout


def test_the_file_that_a_server_has_in_its_variable_is_not_taken_for_an_identity_to_check(server: str) -> None:
    done = run_here("check", server, environment={"SERVER_KEYS_IDENTITY": "server.key"})
    assert done.returncode == 0
    assert "Nobody has verified" in done.stdout


def test_without_the_option_it_says_that_nobody_has_verified_it_and_how(server: str) -> None:
    done = run_here("check", server)
    assert done.returncode == 0
    said = " ".join(done.stdout.split())
    assert f"identity not checked some identity signed the keys (its SHA-256 begins with {HASH})" in said
    assert "--identity ed25519:..." in said
    assert "verified:" not in said
    verdict, _, values = examined(server, "--strict")["identity"]
    assert verdict == "not checked"
    assert values["verified"] is None
    assert values["signed_by"] == HASH
    assert values["expires"] > time.time()


def test_without_the_option_unsigned_keys_are_not_checked_either() -> None:
    with running(build_app(), STANDARD) as url:
        verdict, says, values = examined(url)["identity"]
    assert verdict == "not checked"
    assert "not signed" in says
    assert "--key-identity" in says
    assert values == {"verified": None, "signed_by": None, "created": None, "expires": None}


@contextlib.contextmanager
def refused_server(case: str, tmp_path: Path) -> Iterator[str]:
    apps: dict[str, Callable[[], ASGIApp]] = {
        "unsigned": lambda: build_app(),
        "foreign": lambda: build_app(identity=STRANGER.write_to(tmp_path / "stranger.key")),
    }
    changes = {
        "changed": with_another_key,
        "expired": signed_anew(-DAY_S - 600, -DAY_S),
        "not yet valid": signed_anew(DAY_S, DAY_S + 600),
        "of another algorithm": lambda answer: answer[:-89] + bytes([2]) + answer[-88:],
    }
    path = tmp_path / "server.key"
    app = apps[case]() if case in apps else with_key_answer(changes[case], build_app(identity=SIGNER.write_to(path)))
    with running(app, STANDARD) as url:
        yield url


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("unsigned", "it is not signed"),
        ("foreign", "another identity signed it"),
        ("changed", "its signature is wrong"),
        ("expired", "its signature has expired"),
        ("not yet valid", "its signature does not hold yet"),
        ("of another algorithm", "its signature is of algorithm 2"),
    ],
)
def test_keys_that_a_client_refuses_fail_with_its_reason_and_advice(case: str, why: str, tmp_path: Path) -> None:
    with refused_server(case, tmp_path) as url:
        reason = clients_reason(url)
        found = examined(url, "--identity", SIGNER.identity, status=1)
        done = run("check", url, "--identity", SIGNER.identity)
    assert why in reason
    verdict, says, values = found["identity"]
    assert verdict == "failure"
    assert without_clock(says) == without_clock(reason)
    assert values["verified"] is False
    assert (values["connections"], values["refused_on"]) == (8, 8)
    assert done.returncode == 1
    assert re.search(r"^identity +failure ", done.stdout, re.MULTILINE)
    assert why in " ".join(done.stdout.split())


def test_the_tolerance_is_that_of_a_client(signing_app: FastAPI) -> None:
    for created, expires, status in ((-600, -50, 0), (50, 600, 0), (-600, -70, 1), (80, 600, 1)):
        with running(with_key_answer(signed_anew(created, expires), signing_app), STANDARD) as url:
            assert examined(url, "--identity", SIGNER.identity, status=status)


def test_nothing_of_the_users_is_sealed_to_keys_that_are_refused(tmp_path: Path) -> None:
    app = build_app(identity=STRANGER.write_to(tmp_path / "stranger.key"))
    seen: list[bytes] = []

    @app.post("/mine")
    async def mine(request: Request) -> None:
        seen.append(await request.body())

    request = ("--path", "/mine", "--data", "my prompt")
    with running(app, STANDARD) as url:
        verdict, says, _ = examined(url, "--identity", SIGNER.identity, *request, status=1)["sealed request"]
        assert (verdict, seen) == ("not checked", [])
        assert "not sent" in says
        examined(url, "--identity", STRANGER.identity, *request)
        assert seen == [b"my prompt"]


def test_one_process_of_many_that_does_not_sign_is_found(server: str) -> None:
    with (
        running(build_app(), STANDARD) as unsigned,
        tapped(*(int(url.rpartition(":")[2]) for url in (unsigned, server))) as balanced,
    ):
        verdict, says, values = examined(balanced.url, "--identity", SIGNER.identity, status=1)["identity"]
    assert verdict == "failure"
    assert says.startswith("on 4 of 8 connections: ")
    assert "it is not signed" in says
    assert values["refused_on"] == 4


def test_over_plain_http_a_verified_key_cannot_be_replaced(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(server.rpartition(":")[2])
    resolve = socket.getaddrinfo

    def resolve_all(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_all)
    url = f"http://server.test:{port}"
    assert examined(url)["way of the key"][0] == "warning"
    assert examined(url, "--identity", STRANGER.identity, status=1)["way of the key"][0] == "warning"
    assert examined(url, "--identity", SIGNER.identity, "--strict")["way of the key"][0] == "ok"
