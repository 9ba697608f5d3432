"""Answers of one long message, through every server that runs FastAPI apps: they say their length, and keep to it."""

import contextlib
import http.client
import time
from collections.abc import Iterator

import httpx
import pytest

from server_keys._native import MalformedMessageError, RequestSealer, ResponseOpener
from server_keys.client.httpx import sealed_client
from tests.helpers.long_answers_app import ANSWER
from tests.helpers.server_processes import SERVER_KINDS, ServerKind, serving

SEALED_BYTES = len(ANSWER) + 20 * (len(ANSWER) // (64 * 1024))


@pytest.fixture(scope="module", params=[kind for kind in SERVER_KINDS if not kind.http2], ids=str)
def port(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server of each kind."""
    kind: ServerKind = request.param
    with serving(kind, "tests.helpers.long_answers_app:app", tmp_path_factory.mktemp("server") / "log") as port:
        yield port


@contextlib.contextmanager
def asked(port: int, path: str) -> Iterator[tuple[ResponseOpener, http.client.HTTPResponse]]:
    """Send a sealed request. Yield the response, of which only the head is read, and its opener."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", "/.well-known/hpke-keys")
        sealer = RequestSealer(connection.getresponse().read()[3:35])
        connection.request("POST", path, sealer.seal(b"x"), {"Ehbp-Encapsulated-Key": sealer.encapsulated_key.hex()})
        with connection.getresponse() as response:
            yield sealer.response_opener(bytes.fromhex(response.headers["Ehbp-Response-Nonce"])), response


def test_a_whole_answer_has_the_length_that_it_says(port: int) -> None:
    with asked(port, "/whole") as (opener, response):
        assert response.headers["Content-Length"] == str(SEALED_BYTES)
        assert opener.feed(response.read()) == ANSWER
        opener.finish()


def test_its_connection_is_used_again(port: int) -> None:
    with sealed_client(base_url=f"http://127.0.0.1:{port}", limits=httpx.Limits(max_connections=1)) as client:
        for _ in range(3):
            assert client.post("/whole", content=b"x").content == ANSWER


def test_an_answer_that_was_cut_is_shorter_than_it_says(port: int) -> None:
    with asked(port, "/cut") as (opener, response):
        assert response.headers["Content-Length"] == str(SEALED_BYTES)
        time.sleep(1)  # The app gives up meanwhile.
        with pytest.raises(http.client.IncompleteRead) as cut:
            response.read()
        assert ANSWER.startswith(opener.feed(cut.value.partial))
        with pytest.raises(MalformedMessageError):
            opener.finish()
