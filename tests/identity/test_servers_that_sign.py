"""A server with an identity: each epoch is signed once, in time, and nothing is published that is not signed."""

import asyncio
import json
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyRing, Signer, protect, readiness
from server_keys._native import SigningKey
from server_keys._sealing.key_entries import keys_of
from server_keys._sealing.key_signature import signature_of
from server_keys._sealing.protocol import KEY_CONFIG_PATH
from server_keys._sealing.signed_answers import NotSignedError, SignedAnswers
from server_keys._sealing.signed_lifespan import signing
from server_keys._sealing.signer import SigningFailedError
from server_keys.client.identity import Identities
from server_keys.errors import IdentityFileError
from tests.helpers import asgi
from tests.helpers.held_time import HeldTime, run_in_held_time
from tests.helpers.scripts import run_script
from tests.helpers.signed_answers import OtherSigner

SIGNER, STRANGER = OtherSigner(bytes(range(32))), OtherSigner(bytes(32))
EPOCH_S = 1_790_000_000.0


class Kms:
    """Signs, unless a test says what it does instead."""

    def __init__(self) -> None:
        self.calls = 0
        self.instead: Callable[[bytes], Any] | None = None

    def sign(self, message: bytes) -> Any:
        self.calls += 1
        return SIGNER.sign(message) if self.instead is None else self.instead(message)

    @property
    def signer(self) -> Signer:
        return Signer(SIGNER.public_key, self.sign, 1.0)


@pytest.fixture
def kms() -> Kms:
    return Kms()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return SIGNER.write_to(tmp_path / "server.key")


class Held:
    """A ring and what signs its keys, in held time."""

    def __init__(self, identity: str | Signer, *, period_s: float = 300, overlap_s: float = 100) -> None:
        self.time = HeldTime()
        self.ring = KeyRing(period_s, overlap_s=overlap_s, clock=self.time.boot)
        self.answers = SignedAnswers(
            identity, clock=self.time.boot, wall_clock=lambda: EPOCH_S - 1000 + self.time.boot()
        )

    @property
    def now(self) -> float:
        return EPOCH_S - 1000 + self.time.boot()

    async def key_in_page(self) -> bytes:
        """Ask for the key, check the answer as a client does, and return the key."""
        page = await self.answers.answer(self.ring)
        left_s = Identities(SIGNER.identity).check(page.body, "u", self.now)
        directives = page.cache_control.split(", ")
        max_age_s = int(directives[1].removeprefix("max-age=")) if len(directives) > 1 else 0
        assert max_age_s <= left_s
        return keys_of(page.body).x25519

    async def settled(self) -> None:
        """Let a signature that is under way arrive."""
        for _ in range(50):
            await asyncio.sleep(0)
        await asyncio.to_thread(time.sleep, 0.02)
        await asyncio.sleep(0)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_an_answer_is_signed_once_for_each_epoch(kms: Kms) -> None:
    held = Held(kms.signer)

    async def main() -> None:
        for epoch in range(1, 4):
            keys = [await held.key_in_page() for _ in range(100)]
            await held.settled()
            assert await held.key_in_page() == held.ring.current.public_key
            assert kms.calls == epoch
            assert len(set(keys)) <= 2  # those before, until these are signed
            held.time.pass_s(300)

    asyncio.run(main())


def test_many_that_ask_at_once_wait_for_one_signature(kms: Kms) -> None:
    held = Held(kms.signer)

    async def main() -> None:
        keys = await asyncio.gather(*(held.key_in_page() for _ in range(50)))
        assert set(keys) == {held.ring.current.public_key}

    asyncio.run(main())
    assert kms.calls == 1


@pytest.mark.parametrize(("period_s", "overlap_s"), [(300, 100), (300, 300), (300, 0), (1.5, 0.5), (0.25, 0.25)])
def test_a_signature_ends_when_its_keys_do_and_not_later(path: Path, period_s: float, overlap_s: float) -> None:
    held = Held(str(path), period_s=period_s, overlap_s=overlap_s)

    async def main() -> None:
        for _ in range(20):
            page = await held.answers.answer(held.ring)
            _, signature = signature_of(page.body)
            assert signature is not None
            assert signature.created == int(held.now)
            assert signature.expires <= max(held.now + period_s + overlap_s, signature.created)
            assert signature.expires > held.now + period_s + overlap_s - 1 or signature.expires == signature.created
            assert await held.key_in_page() == held.ring.current.public_key
            held.time.pass_s(period_s)

    asyncio.run(main())


def test_a_recorded_answer_is_worth_nothing_when_its_keys_are_over(path: Path) -> None:
    held = Held(str(path))
    recorded = asyncio.run(held.answers.answer(held.ring)).body
    identities = Identities(SIGNER.identity)
    identities.check(recorded, "u", held.now + 400 + 60)
    with pytest.raises(Exception, match="has expired"):
        identities.check(recorded, "u", held.now + 400 + 61)


def test_a_clock_that_was_wrong_when_the_answer_was_signed_is_healed(path: Path) -> None:
    held = Held(str(path))
    off_s = 3600.0
    held.answers = SignedAnswers(
        str(path), clock=held.time.boot, wall_clock=lambda: EPOCH_S - 1000 + held.time.boot() + off_s
    )
    with pytest.raises(Exception, match="does not hold yet"):
        asyncio.run(held.key_in_page())
    off_s = 0.0
    assert asyncio.run(held.key_in_page()) == held.ring.current.public_key


FAILURES: dict[str, Callable[[bytes], Any]] = {
    "sign failed: OSError: no route to the KMS": lambda _: exec('raise OSError("no route to the KMS")'),
    "sign failed: RuntimeError: SystemExit: 3": lambda _: exec("raise SystemExit(3)"),
    "sign returned NoneType instead of 64 bytes": lambda _: None,
    "sign returned str instead of 64 bytes": lambda _: "x" * 64,
    "sign returned 0 bytes that are no Ed25519 signature": lambda _: b"",
    "sign returned 63 bytes that are no Ed25519 signature": lambda message: SIGNER.sign(message)[:-1],
    "sign returned 65 bytes that are no Ed25519 signature": lambda message: SIGNER.sign(message) + b"\0",
    "sign returned 64 bytes that are no Ed25519 signature": STRANGER.sign,
}


@pytest.mark.parametrize("why", FAILURES)
def test_a_signer_that_fails_leaves_the_last_answer_its_time_and_then_none(
    kms: Kms, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "server_keys")
    held = Held(kms.signer)

    async def main() -> None:
        first = await held.key_in_page()
        kms.instead = FAILURES[why]
        held.time.pass_s(299)
        assert await held.key_in_page() == first  # as a server does that looks each second
        held.time.pass_s(1)
        # The first epoch is over, and still accepted for 100 s: the last signed answer lives on.
        for _ in range(9):
            assert await held.key_in_page() == first != held.ring.current.public_key
            await held.settled()
            held.time.pass_s(10)
        assert held.answers.tell().is_published
        held.time.pass_s(10)
        for _ in range(3):
            with pytest.raises(NotSignedError, match=why):
                await held.answers.answer(held.ring)
            await held.settled()
        status = held.answers.tell()
        assert not status.is_published
        assert why in str(status.last_error)
        assert status.failures > 1
        kms.instead = None
        held.time.pass_s(5)
        assert await held.key_in_page() == held.ring.current.public_key
        assert held.answers.tell().is_published
        assert held.answers.tell().last_error is None

    asyncio.run(main())
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors
    assert all(error.startswith("the server's new keys cannot be signed (") and why in error for error in errors)
    assert len(errors) <= 3  # one a minute
    assert "the server's keys are signed again" in caplog.text


def test_an_early_refresh_takes_the_last_answer_away_when_its_key_is_erased(kms: Kms) -> None:
    held = Held(kms.signer)

    async def main() -> None:
        await held.key_in_page()
        kms.instead = lambda _: None
        held.ring.refresh()
        held.ring.refresh()
        with pytest.raises(NotSignedError):
            await held.answers.answer(held.ring)

    asyncio.run(main())


def test_a_failing_signer_is_tried_again_with_growing_pauses(kms: Kms) -> None:
    held = Held(kms.signer)
    kms.instead = lambda _: None

    async def main() -> None:
        for _ in range(1200):
            with pytest.raises(NotSignedError):
                await held.answers.answer(held.ring)
            held.time.pass_s(0.05)

    asyncio.run(main())
    assert 60 / 5 <= kms.calls <= 60 / 2.5 + 8


class Hanging:
    """Hangs until the test ends."""

    def __init__(self) -> None:
        self.calls = 0
        self.end = threading.Event()

    def in_thread(self, message: bytes) -> bytes:
        self.calls += 1
        self.end.wait()
        return SIGNER.sign(message)

    async def on_loop(self, message: bytes) -> bytes:
        self.calls += 1
        while not self.end.is_set():
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue  # as bad libraries do
        return SIGNER.sign(message)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    hanging = Hanging()
    yield hanging
    hanging.end.set()


@pytest.mark.parametrize("kind", ["in_thread", "on_loop"])
def test_a_signer_that_hangs_holds_nothing_up(hanging: Hanging, kind: str) -> None:
    signer = Signer(SIGNER.public_key, getattr(hanging, kind), 0.05)
    with KeyRing(300) as ring:
        app = EncryptedBodyMiddleware(echo, key_ring=ring, identity=signer)

        async def main() -> None:
            ticks = 0

            async def tick() -> None:
                nonlocal ticks
                while True:
                    await asyncio.sleep(0.005)
                    ticks += 1

            ticking = asyncio.create_task(tick())
            before = threading.active_count()
            for _ in range(8):
                response = await asgi.call(app, "GET", KEY_CONFIG_PATH)
                assert response.status == 503
                assert int(response.headers["retry-after"]) >= 1
                assert keys_of(bytes.fromhex("000020") + bytes(32) + bytes.fromhex("000400010002")).x25519 not in (
                    response.body
                )
                assert ring.current.public_key not in response.body
                assert (
                    json.loads(response.body)["message"] == "the server's keys are not signed at the moment: ask again"
                )
                await asyncio.sleep(0.3)
            assert ticks > 100
            assert threading.active_count() - before <= 4
            assert ring.status.identity is not None
            assert ring.status.identity.failures >= 4
            assert ring.status.refusals == {"key_not_signed": 8}
            hanging.end.set()
            await asyncio.sleep(0.1)
            response = await asgi.call(app, "GET", KEY_CONFIG_PATH)
            for _ in range(40):
                if response.status == 200:
                    break
                await asyncio.sleep(0.2)
                response = await asgi.call(app, "GET", KEY_CONFIG_PATH)
            Identities(SIGNER.identity).check(response.body, "u", time.time())
            ticking.cancel()

        asyncio.run(main())


def test_calls_whose_event_loop_ended_before_them_hang_no_longer(hanging: Hanging) -> None:
    signer = Signer(SIGNER.public_key, hanging.in_thread, 0.05)
    before = set(threading.enumerate())
    for _ in range(5):
        with pytest.raises(SigningFailedError):
            asyncio.run(signer.signature(b"message"))
    assert hanging.calls == 4
    hanging.end.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert asyncio.run(signer.signature(b"message")) == SIGNER.sign(b"message")


def test_what_a_loop_was_signing_when_it_was_closed_is_signed_by_the_next_one() -> None:
    script = """
import asyncio, os
from server_keys import KeyRing, Signer
from server_keys._sealing.signed_answers import NotSignedError, SignedAnswers
from tests.helpers.signed_answers import OtherSigner

identity, calls, now = OtherSigner(bytes(range(32))), [], 1000.0

async def sign(message):
    calls.append(message)
    if len(calls) == 1:
        await asyncio.Event().wait()
    return identity.sign(message)

answers = SignedAnswers(Signer(identity.public_key, sign, 5), clock=lambda: now, wall_clock=lambda: now)
ring = KeyRing(300)
left = asyncio.new_event_loop()
asking = left.create_task(answers.answer(ring))
left.run_until_complete(asyncio.sleep(0.02))
left.close()  # as some programs do, with tasks that are not over
assert len(calls) == 1
now += 6.5
assert asyncio.run(asyncio.wait_for(answers.answer(ring), 5)).status == 200
assert len(calls) == 2
os._exit(0)  # asyncio has much to say of the tasks
"""
    run_script(script)


@pytest.mark.parametrize("kind", ["sync", "async", "awaitable", "callable object"])
def test_a_signer_may_be_any_kind_of_function(kind: str) -> None:
    async def sign(message: bytes) -> bytes:
        await asyncio.sleep(0)
        return SIGNER.sign(message)

    class SigningObject:
        async def __call__(self, message: bytes) -> bytearray:
            return bytearray(SIGNER.sign(message))

    functions: dict[str, Any] = {
        "sync": SIGNER.sign,
        "async": sign,
        "awaitable": lambda message: sign(message),
        "callable object": SigningObject(),
    }
    held = Held(Signer(SIGNER.identity, functions[kind]))
    assert asyncio.run(held.key_in_page()) == held.ring.current.public_key


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        ((b"", SIGNER.sign), ValueError, "not these 0"),
        ((bytes(31), SIGNER.sign), ValueError, "public_key must be an Ed25519 public key of 32 bytes, not these 31"),
        ((bytes(12) + SIGNER.public_key, SIGNER.sign), ValueError, "the last 32 bytes of a DER form are the key"),
        (((1).to_bytes(32, "little"), SIGNER.sign), ValueError, "not these 32"),
        (("ed25519:x", SIGNER.sign), ValueError, "an identity has 43 characters"),
        ((None, SIGNER.sign), TypeError, "public_key must be 32 bytes or a str"),
        ((SIGNER.public_key, b"signature"), TypeError, "sign must be a function"),
        ((SIGNER.public_key, SIGNER.sign, 0), ValueError, "timeout_s must be"),
        ((SIGNER.public_key, SIGNER.sign, float("nan")), ValueError, "timeout_s must be"),
        ((SIGNER.public_key, SIGNER.sign, "5"), TypeError, "timeout_s must be"),
    ],
)
def test_a_signer_is_checked_where_it_is_made(arguments: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        Signer(*arguments)


def test_a_signers_text_shows_the_identity() -> None:
    signer = Signer(SIGNER.public_key, SIGNER.sign)
    assert signer.identity == SIGNER.identity
    assert repr(signer) == f"<Signer {SIGNER.identity}, timeout 5 s>"


@pytest.mark.parametrize(
    ("wrong", "error", "why"),
    [
        (SIGNER.identity, ValueError, "identity is the public half, 'ed25519:.*', which is for clients"),
        ("", ValueError, "identity is an empty path"),
        (b"server.key", TypeError, "identity must be the path of a file or a Signer"),
        (5, TypeError, "identity must be the path of a file or a Signer"),
        (SIGNER.sign, TypeError, "identity must be the path of a file or a Signer"),
    ],
)
def test_another_identity_is_refused_where_it_is_given(wrong: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        protect(FastAPI(), identity=wrong)
    with pytest.raises(error, match=why):
        EncryptedBodyMiddleware(echo, identity=wrong)


def test_a_protected_app_signs_from_its_start_and_its_status_and_readiness_tell(path: Path) -> None:
    app = protect(FastAPI(), 300, share=None, identity=path)
    with TestClient(app) as client:
        ring = app.state.ephemeral_keys
        time.sleep(0.05)
        status = ring.status.identity
        assert (status.identity, status.is_published, status.failures) == (SIGNER.identity, True, 0)
        assert 0 <= status.age_s < 5
        assert 590 < status.expires_in_s <= 600
        response = client.get(KEY_CONFIG_PATH)
        assert response.status_code == 200
        assert 0 < Identities(SIGNER.identity).check(response.content, "u", time.time()) <= 660
        assert client.head(KEY_CONFIG_PATH).headers["content-length"] == str(len(response.content))
        assert keys_of(response.content).x25519 == ring.current.public_key
        assert readiness.is_ready(app)
    assert ring.status.closed


def test_an_app_whose_keys_nobody_signs_is_not_ready_and_says_why(kms: Kms) -> None:
    kms.instead = lambda _: None
    app = protect(FastAPI(), 300, share=None, identity=kms.signer)
    with TestClient(app) as client:
        assert client.get(KEY_CONFIG_PATH).status_code == 503
        why = readiness.why_not_ready(app)
        assert why == "no key is published, because none is signed: sign returned NoneType instead of 64 bytes"
        assert app.state.ephemeral_keys.current.public_key  # sealed requests to keys that clients have are opened


def test_the_file_is_read_at_the_start_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "server.key"
    app = protect(FastAPI(), share=None, identity=path)
    with pytest.raises(IdentityFileError, match="does not exist"), TestClient(app):
        pass
    SigningKey.new_file(path)
    with TestClient(app) as client:
        assert client.get(KEY_CONFIG_PATH).status_code == 200
        path.unlink()
        app.state.ephemeral_keys.refresh()
        assert client.get(KEY_CONFIG_PATH).status_code == 200


@pytest.mark.parametrize("mode", [0o644, 0o620])
def test_a_start_with_a_file_that_others_can_use_is_refused_in_one_line(path: Path, mode: int) -> None:
    path.chmod(mode)
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        with pytest.raises(IdentityFileError):
            await protect(FastAPI(), share=None, identity=path)({"type": "lifespan"}, receive, send)

    asyncio.run(main())
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert message["message"].startswith(f'the identity file "{path}" can be ')
    assert "\n" not in message["message"]


def test_the_key_is_erased_when_the_last_lifespan_ends(path: Path) -> None:
    answers = SignedAnswers(str(path))
    answers.open()
    key = answers._key
    assert key is not None
    answers.open()
    answers.close()
    assert not key.erased
    answers.close()
    assert key.erased


def test_nothing_signs_and_the_key_is_erased_when_the_server_hears_of_the_end(path: Path) -> None:
    answers, ring = SignedAnswers(str(path)), KeyRing(300)
    messages = iter(["startup", "shutdown"])
    at_the_end: list[tuple[bool, bool]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(2):
            await send({"type": f"{(await receive())['type']}.complete"})

    async def receive() -> Message:
        return {"type": f"lifespan.{next(messages)}"}

    async def send(message: Message) -> None:
        signs = "server_keys identity" in {task.get_name() for task in asyncio.all_tasks()}
        assert answers._key is None or not answers._key.erased
        at_the_end.append((signs, answers._key is not None))

    async def main() -> None:
        await signing(answers, lambda: ring, app)({"type": "lifespan"}, receive, send)

    asyncio.run(main())
    assert at_the_end == [(True, True), (False, False)]


def test_two_calls_with_the_same_identity_agree_and_with_others_do_not(path: Path, tmp_path: Path) -> None:
    app = protect(FastAPI(), share=None, identity=path)
    protect(app, share=None, identity=str(path))
    for other in (None, tmp_path / "other.key", Signer(SIGNER.public_key, SIGNER.sign)):
        with pytest.raises(RuntimeError, match="the app is protected already, with identity="):
            protect(app, share=None, identity=other)


def test_what_signs_can_be_pickled_with_its_app(path: Path) -> None:
    answers = pickle.loads(pickle.dumps(SignedAnswers(str(path))))
    with KeyRing(300) as ring:
        page = asyncio.run(answers.answer(ring))
    Identities(SIGNER.identity).check(page.body, "u", time.time())


def test_each_new_key_is_signed_before_anybody_asks(kms: Kms) -> None:
    async def sign(message: bytes) -> bytes:
        return bytes(kms.sign(message))

    held = Held(Signer(SIGNER.public_key, sign))

    async def main() -> None:
        keeping = asyncio.create_task(held.answers.keep_signed(held.ring))
        for epoch in range(1, 4):
            await asyncio.sleep(2)
            assert kms.calls == epoch
            held.time.pass_s(300)
        held.ring.close()
        await keeping

    run_in_held_time(held.time, main)


def test_openssl_accepts_the_signature(path: Path, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is missing: `apt-get install openssl` brings it")
    held = Held(str(path))
    body = asyncio.run(held.answers.answer(held.ring)).body
    content, signature = signature_of(body)
    assert signature is not None
    times = signature.created.to_bytes(8, "big") + signature.expires.to_bytes(8, "big")
    (tmp_path / "message").write_bytes(b"server-keys key configuration v1\0" + times + content)
    (tmp_path / "signature").write_bytes(signature.signature)

    async def verified() -> bytes:
        command = ["pkeyutl", "-verify", "-rawin", "-inkey", path, "-sigfile", "signature", "-in", "message"]
        process = await asyncio.create_subprocess_exec(
            openssl, *map(str, command), cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        return (await process.communicate())[0]

    assert b"Signature Verified Successfully" in asyncio.run(verified())


def test_a_forked_worker_reads_the_file_itself(path: Path) -> None:
    run_script(
        """
        import asyncio, os, sys, time
        from server_keys import KeyRing
        from server_keys._sealing.signed_answers import SignedAnswers
        from server_keys.client.identity import Identities

        answers = SignedAnswers(sys.argv[1])
        answers.open()
        if os.fork() == 0:
            page = asyncio.run(answers.answer(KeyRing(300)))
            Identities(sys.argv[2]).check(page.body, "u", time.time())
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        """,
        str(path),
        SIGNER.identity,
    )
