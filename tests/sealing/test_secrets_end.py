"""The keys of a message are gone from memory when its request ends, in whatever way it ends, and whatever holds it."""

import contextlib
import http.client
import json
import os
import textwrap
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from server_keys import KeyPair
from tests.helpers.message_keys import RequestKeys
from tests.helpers.process_memory import Victim, victim_of

# The process never collects garbage, as an idle server does not. It holds what tracebacks and tasks of an app hold.
pytestmark = pytest.mark.usefixtures("each_engine")

PREAMBLE = """
import asyncio, gc, json, sys

gc.disable()

from server_keys import EncryptedBodyMiddleware, KeyRing
from tests.helpers.asgi import http_scope
from tests.helpers.process_memory import reached

ring = KeyRing(3600)
held = []
sent = []
request = json.loads(reached("ready", ring.current.public_key.hex()))
incoming = [
    {"type": "http.request", "body": bytes.fromhex(piece), "more_body": True} for piece in request["pieces"]
]
scope = http_scope("POST", "/", headers=[("Ehbp-Encapsulated-Key", request["encapsulated_key"])])

async def receive():
    return incoming.pop(0) if incoming else {"type": "http.disconnect"}

async def send(message):
    held.append(sys.exception())
    sent.append(message)

async def begin(receive, send):
    held.append((receive, send))
    assert (await receive())["body"] == b"question"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answer", "more_body": True})

async def end(send):
    await send({"type": "http.response.body"})

def protected(app):
    return EncryptedBodyMiddleware(app, key_ring=ring, max_frame_bytes=100_000)(scope, receive, send)

def run(app):
    serving = protected(app)
    try:
        asyncio.run(serving)
    except RuntimeError as error:
        held.append(error)

def report():
    headers = dict(sent[0]["headers"]) if sent else {}
    pieces = [message.get("body", b"") for message in sent[1:]]
    reached("over", json.dumps({
        "status": sent[0]["status"] if sent else None,
        "nonce": headers.get(b"ehbp-response-nonce", b"").decode(),
        "body": b"".join(pieces).hex(),
    }))
"""

WAYS = {
    "it returns": """
        async def app(scope, receive, send):
            await begin(receive, send)
            await end(send)
        run(app)
    """,
    "it raises before it answers": """
        async def app(scope, receive, send):
            held.append((receive, send))
            raise RuntimeError
        run(app)
    """,
    "it raises while it answers": """
        async def app(scope, receive, send):
            await begin(receive, send)
            raise RuntimeError
        run(app)
    """,
    "it leaves its answer unfinished": "run(lambda scope, receive, send: begin(receive, send))",
    "it is cancelled": """
        async def app(scope, receive, send):
            await begin(receive, send)
            asyncio.current_task().cancel()
            await asyncio.sleep(3600)
        try:
            asyncio.run(protected(app))
        except asyncio.CancelledError as error:
            held.append(error)
    """,
    "its coroutine is closed": """
        class Suspended:
            def __await__(self):
                yield
        async def app(scope, receive, send):
            await begin(receive, send)
            await Suspended()
        serving = protected(app)
        serving.send(None)
        serving.close()
    """,
    "the client leaves": """
        async def app(scope, receive, send):
            await begin(receive, send)
            assert (await receive())["type"] == "http.disconnect"
        run(app)
    """,
    "a task of it goes on": """
        async def use_again(receive, send):
            await ended.wait()
            assert (await receive())["type"] == "http.disconnect"
            for message in ({"type": "http.response.start", "status": 200}, {"type": "http.response.body"}):
                try:
                    await send(message)
                except RuntimeError as error:
                    held.append(error)
                    assert str(error).startswith("the app has returned"), error
                else:
                    raise AssertionError("sealed after the end")
        async def app(scope, receive, send):
            await begin(receive, send)
            incoming.append({"type": "http.request", "body": b"", "more_body": True})
            global task
            task = asyncio.create_task(use_again(receive, send))
            await end(send)
        async def main():
            global ended
            ended = asyncio.Event()
            await protected(app)
            ended.set()
            await task
        asyncio.run(main())
    """,
}


@contextlib.contextmanager
def serving(way: str) -> Iterator[Victim]:
    """Run a process that serves one request in this way."""
    with victim_of(f"{PREAMBLE}{textwrap.dedent(way)}\nreport()") as process:
        yield process


def told(keys: RequestKeys, *pieces: bytes) -> str:
    """Return the request that such a process reads."""
    return json.dumps({"encapsulated_key": keys.encapsulated_key.hex(), "pieces": [piece.hex() for piece in pieces]})


def words(secrets: set[bytes]) -> set[bytes]:
    """Return pieces of the secrets, each of 64 bits, which do not occur by chance."""
    return {secret[start : start + 8] for secret in secrets for start in range(0, 32, 8)}


def secrets_of(keys: RequestKeys, response: dict[str, Any]) -> set[bytes]:
    """Return all secrets of a request and its response, after making sure that they are those in use."""
    nonce = bytes.fromhex(response["nonce"])
    assert keys.opened(nonce, bytes.fromhex(response["body"])) in (b"answer", b"Internal Server Error")
    return keys.secrets | {keys.response_key(nonce)}


def test_the_search_finds_them_while_the_request_is_under_way() -> None:
    way = """
        async def app(scope, receive, send):
            await begin(receive, send)
            report()
            await end(send)
        run(app)
    """
    with serving(way) as process:
        keys = RequestKeys.drawn_for(bytes.fromhex(process.run_to("ready")))
        response = json.loads(process.run_to("over", told=told(keys, keys.frame(0, b"question"))))
        for secret in (keys.key, keys.exporter_secret, keys.response_key(bytes.fromhex(response["nonce"]))):
            assert process.where(words({secret}))
        response = json.loads(process.run_to("over"))
        assert process.where(words(secrets_of(keys, response))) == []


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_they_are_gone_when_the_app_has_been_called_and(way: str) -> None:
    with serving(way) as process:
        keys = RequestKeys.drawn_for(bytes.fromhex(process.run_to("ready")))
        response = json.loads(process.run_to("over", told=told(keys, keys.frame(0, b"question"))))
        assert process.where(words(secrets_of(keys, response))) == []


ENDS = {
    "a stream": """
            await begin(receive, send)
            await end(send)
    """,
    "an answer with a length and trailers": """
            held.append((receive, send))
            assert (await receive())["body"] == b"question"
            headers = [(b"content-length", b"6")]
            await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
            await send({"type": "http.response.body", "body": b"answer"})
            await send({"type": "http.response.trailers", "headers": [(b"x-tokens", b"1")]})
            sent.pop()  # It has no body.
    """,
}


@pytest.mark.parametrize("answer", ENDS.values(), ids=ENDS.keys())
def test_they_are_gone_when_the_answer_has_ended_although_the_app_works_on_in_the_background(answer: str) -> None:
    way = f"""
        async def app(scope, receive, send):
{answer}
            report()
            assert (await receive())["type"] == "http.disconnect"
            start = {{"type": "http.response.start", "status": 200, "headers": []}}
            for more in ({{"type": "http.response.body", "body": b"more"}}, start):
                try:
                    await send(more)
                except RuntimeError as error:
                    assert "has ended" in str(error), error
                else:
                    raise AssertionError("sealed after the end")
        run(app)
    """
    with serving(way) as process:
        keys = RequestKeys.drawn_for(bytes.fromhex(process.run_to("ready")))
        response = json.loads(process.run_to("over", told=told(keys, keys.frame(0, b"question"))))
        assert process.where(words(secrets_of(keys, response))) == []
        assert json.loads(process.run_to("over")) == response


def test_they_are_gone_when_the_app_has_been_called_and_the_rest_of_the_request_is_malformed() -> None:
    way = """
        async def app(scope, receive, send):
            held.append((receive, send))
            incoming.append({"type": "http.request", "body": bytes.fromhex("00000014") + bytes(20), "more_body": True})
            assert (await receive())["body"] == b"question"
            assert (await receive())["type"] == "http.disconnect"
        run(app)
    """
    with serving(way) as process:
        keys = RequestKeys.drawn_for(bytes.fromhex(process.run_to("ready")))
        response = json.loads(process.run_to("over", told=told(keys, keys.frame(0, b"question"))))
        assert response["status"] == 400
        assert process.where(words(keys.secrets)) == []


NEVER_CALLED = """
async def app(scope, receive, send):
    raise AssertionError("called")
run(app)
"""
NOT_AUTHENTIC = (20).to_bytes(4, "big") + bytes(20)
TOO_LARGE = (100_001).to_bytes(4, "big")


@pytest.mark.parametrize(("rest", "status"), [(NOT_AUTHENTIC, 400), (TOO_LARGE, 413)], ids=["400", "413"])
def test_they_are_gone_when_the_request_is_refused_behind_its_first_frame(rest: bytes, status: int) -> None:
    with serving(NEVER_CALLED) as process:
        keys = RequestKeys.drawn_for(bytes.fromhex(process.run_to("ready")))
        response = json.loads(process.run_to("over", told=told(keys, keys.frame(0, b"question") + rest)))
        assert response["status"] == status
        assert process.where(words(keys.secrets)) == []


def test_they_are_gone_when_the_client_leaves_amid_the_first_frame() -> None:
    with serving(NEVER_CALLED) as process:
        keys = RequestKeys.drawn_for(bytes.fromhex(process.run_to("ready")))
        response = json.loads(process.run_to("over", told=told(keys, keys.frame(0, b"question")[:-1])))
        assert response["status"] is None
        assert process.where(words(keys.secrets)) == []


def test_a_trial_of_the_wrong_key_leaves_nothing_either() -> None:
    with serving(NEVER_CALLED) as process:
        ephemeral = os.urandom(32)
        tried = RequestKeys.agreed_by(ephemeral, bytes.fromhex(process.run_to("ready")))
        meant = RequestKeys.agreed_by(ephemeral, KeyPair.generate().public_key)
        response = json.loads(process.run_to("over", told=told(meant, meant.frame(0, b"question"))))
        assert response["status"] == 422
        assert process.where(words(tried.secrets | meant.secrets)) == []


SERVED = """
import gc, json, logging, sys, time

gc.disable()
logging.disable()

import asyncio
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from server_keys import protect
from tests.helpers.process_memory import reached
from tests.helpers.servers import running

served = 0

async def tokens(raises):
    while True:
        yield b"token "
        await asyncio.sleep(0.01)
        if raises:
            raise RuntimeError("the model failed")

api = FastAPI()
protect(api)

@api.post("/{how}")
async def answer(how: str, request: Request):
    await request.body()
    if how == "fails":
        raise RuntimeError("the app failed")
    return StreamingResponse(tokens(raises=how == "breaks"))

async def app(scope, receive, send):
    global served
    try:
        await api(scope, receive, send)
    finally:
        served += scope["type"] == "http"

with running(app) as url:
    expected = int(reached("serving", url))
    deadline = time.monotonic() + 30
    while served < expected:
        assert time.monotonic() < deadline, served
        time.sleep(0.01)
    reached("over")
"""


def recorded_call(address: str, how: str) -> set[bytes]:
    """Call a server, leave after the first frame of its answer, and return the secrets of the exchange."""
    connection = http.client.HTTPConnection(address, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/.well-known/hpke-keys")
        keys = RequestKeys.drawn_for(connection.getresponse().read()[3:35])
        body = keys.frame(0, b"question")
        connection.request("POST", f"/{how}", body, {"Ehbp-Encapsulated-Key": keys.encapsulated_key.hex()})
        response = connection.getresponse()
        nonce = bytes.fromhex(response.headers["Ehbp-Response-Nonce"])
        head = response.read(4)
        first_frame = head + response.read(int.from_bytes(head, "big"))
        assert keys.opened(nonce, first_frame) == (b"Internal Server Error" if how == "fails" else b"token ")
        return keys.secrets | {keys.response_key(nonce)}


def test_they_are_gone_from_a_server_whose_clients_left_and_whose_app_raised() -> None:
    with victim_of(SERVED) as process:
        address = urlsplit(process.run_to("serving")).netloc
        ways = ["streams", "breaks", "fails"] * 3
        secrets = set().union(*(recorded_call(address, how) for how in ways))
        # Each call also fetches the key.
        process.run_to("over", told=str(2 * len(ways)))
        assert process.where(words(secrets)) == []
