"""Which wire a client takes: version 1 where the key answer offers it, plain EHBP elsewhere. Nothing else decides."""

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from server_keys.client import (
    KeyConfigurationError,
    KeyNotPublishedError,
    SealedTransportError,
    UnsealedResponseError,
)
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.held_time import HeldTime
from tests.helpers.scripted_server import URL, Server
from tests.helpers.scripted_v1_server import V1Server
from tests.helpers.uploads import PIECES, Streamed

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)

with_or_without_a_body = pytest.mark.parametrize("content", [b"", b"x"], ids=["without a body", "with a body"])


def older(server: V1Server) -> None:
    """Have the server know plain EHBP alone."""
    server.knows_v1 = False


def test_an_older_server_is_talked_to_in_plain_ehbp(flavour: Flavour, v1_server: V1Server) -> None:
    older(v1_server)
    with flavour.client(v1_server.inner) as client:
        assert client.post(URL, "x").content == b"sealed answer"
        assert client.request("GET", URL).content == b"in plaintext"
    assert v1_server.wires == ["ehbp", "none"]
    assert len(v1_server.key_requests) == 1


def test_plain_ehbp_is_the_one_of_before(flavour: Flavour, server: Server) -> None:
    with flavour.client(server.inner) as client:
        assert client.post(URL, "x").content == b"sealed answer"
    assert len(server.requests[-1].headers["Ehbp-Encapsulated-Key"]) == 64
    assert len(server.requests[-1].content) == 1 + 20


@with_or_without_a_body
def test_require_v1_refuses_an_older_server_before_anything_is_sent(
    flavour: Flavour, v1_server: V1Server, content: bytes
) -> None:
    older(v1_server)
    match = "publishes no X-Wing key.*require_v1=True refuses: update the server"
    with (
        flavour.client(v1_server.inner, require_v1=True) as client,
        pytest.raises(KeyConfigurationError, match=match),
    ):
        client.post(URL, content)
    assert v1_server.wires == []


@with_or_without_a_body
def test_require_v1_takes_a_server_that_offers_it(flavour: Flavour, v1_server: V1Server, content: bytes) -> None:
    with flavour.client(v1_server.inner, require_v1=True) as client:
        assert client.post(URL, content).content == b"sealed answer"
    assert v1_server.wires == ["v1"]


@pytest.mark.parametrize("value", [1, "yes", None])
def test_require_v1_is_true_or_false(flavour: Flavour, value: object) -> None:
    with pytest.raises(TypeError, match=f"require_v1 must be True or False, not {value!r}"):
        flavour.transport(require_v1=value)
    with pytest.raises(TypeError, match="require_v1 must be"):
        flavour.sealed_client(require_v1=value)


@with_or_without_a_body
@pytest.mark.parametrize("status", [400, 422])
def test_an_older_replica_behind_the_same_address_is_talked_to_in_plain_ehbp(
    flavour: Flavour, v1_server: V1Server, content: bytes, status: int
) -> None:
    v1_server.malformed = lambda: v1_server.response(status, [b"{}"], {})  # type: ignore[method-assign]
    with flavour.client(v1_server.inner) as client:
        client.post(URL, "x")
        older(v1_server)
        response = client.post(URL, content)
    assert response.content == (b"sealed answer" if content else b"in plaintext")
    assert v1_server.wires == ["v1", "v1", "ehbp" if content else "none"]
    assert [request.headers.get("Cache-Control") for request in v1_server.key_requests] == [None, "no-cache"]


@with_or_without_a_body
def test_with_require_v1_an_older_replica_gets_nothing(flavour: Flavour, v1_server: V1Server, content: bytes) -> None:
    with flavour.client(v1_server.inner, require_v1=True) as client:
        client.post(URL, "x")
        older(v1_server)
        with pytest.raises(KeyConfigurationError, match="require_v1"):
            client.post(URL, content)
    assert v1_server.wires == ["v1", "v1"]


@pytest.mark.parametrize("turns", [[True, False], [False, True], [True, True, False], [True, False, False]])
def test_replicas_old_and_new_behind_one_address_that_take_turns(
    flavour: Flavour, v1_server: V1Server, turns: list[bool]
) -> None:
    """Both have the same X25519 key, as replicas do that share their keys."""
    requests = 0

    def handle(request: Any) -> Any:
        nonlocal requests
        v1_server.knows_v1 = turns[requests % len(turns)]
        requests += 1
        return v1_server.handle(request)

    with flavour.client(flavour.scripted(handle)) as client:
        statuses = [client.post(URL, "x").status_code for _ in range(12)]
    # Nothing but a 400 of a replica that cannot take version 1 reaches the caller, and it can ask again.
    assert set(statuses) <= {200, 400}
    assert statuses.count(200) >= 6
    assert "none" not in v1_server.wires


@with_or_without_a_body
@pytest.mark.parametrize("status", [400, 422])
def test_an_unsealed_refusal_never_leads_to_plain_ehbp_with_the_same_answer(
    flavour: Flavour, v1_server: V1Server, content: bytes, status: int
) -> None:
    v1_server.answer_v1 = lambda _: v1_server.response(status, [b"from somebody else"], {})
    with flavour.client(v1_server.inner) as client:
        for _ in range(2):
            v1_server.requests.clear()
            v1_server.closed.clear()
            response = client.post(URL, content)
            assert (response.status_code, response.content) == (status, b"from somebody else")
            assert v1_server.wires == ["v1", "v1"]
            assert v1_server.key_requests[-1].headers["Cache-Control"] == "no-cache"


def test_a_refusal_of_a_head_request_has_no_body_to_tell_why(flavour: Flavour, v1_server: V1Server) -> None:
    v1_server.answer_v1 = lambda opener: v1_server.sealed_v1(opener, has_body=False)
    v1_server.mismatch = lambda: v1_server.response(422, [], {})  # type: ignore[method-assign]
    with flavour.client(v1_server.inner) as client:
        client.request("HEAD", URL)
        v1_server.renew_keys()
        assert client.request("HEAD", URL).status_code == 200
    assert v1_server.wires == ["v1"] * 3


def test_a_compressed_refusal_is_understood(flavour: Flavour, v1_server: V1Server) -> None:
    v1_server.mismatch_headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    v1_server.mismatch_body = gzip.compress(v1_server.mismatch_body)
    with flavour.client(v1_server.inner) as client:
        client.post(URL, "x")
        v1_server.renew_keys()
        assert client.post(URL, "x").content == b"sealed answer"


def test_a_400_to_a_body_that_can_be_read_once_is_the_callers(flavour: Flavour, v1_server: V1Server) -> None:
    v1_server.answer_v1 = lambda _: v1_server.malformed()
    with flavour.client(v1_server.inner) as client:
        response = client.request("POST", URL, content=Streamed(PIECES).of(flavour))
    assert response.status_code == 400
    assert v1_server.wires == ["v1"]


def test_a_refusal_that_has_no_end_is_not_read_to_it(flavour: Flavour, v1_server: V1Server) -> None:
    v1_server.answer_v1 = lambda _: v1_server.response(400, [b"x" * 50_000] * 1000, {})
    with flavour.client(v1_server.inner) as client, pytest.raises(UnsealedResponseError, match="400 and more than 655"):
        client.post(URL, "x")


def test_a_400_in_plain_ehbp_passes_through_at_once(flavour: Flavour, server: Server) -> None:
    server.answer = lambda _: server.response(400, [b"bad input"], {})
    with flavour.client(server.inner) as client:
        assert client.post(URL, "x").content == b"bad input"
    assert [request.method for request in server.requests] == ["GET", "POST"]


def hide_key(server: V1Server) -> None:
    server.answer_key = lambda: server.response(404, [b""], {})


def replace_key_by_a_page(server: V1Server) -> None:
    server.answer_key = lambda: server.response(200, [b"<html>"], {"Content-Type": "text/html"})


hidings = pytest.mark.parametrize("hide", [hide_key, replace_key_by_a_page])


@hidings
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_where_no_key_is_a_request_without_a_body_travels_as_it_is(
    flavour: Flavour, v1_server: V1Server, hide: Callable[[V1Server], None], method: str
) -> None:
    hide(v1_server)
    with flavour.client(v1_server.inner) as client:
        assert client.request(method, URL).status_code == 200
        with pytest.raises(KeyNotPublishedError):
            client.post(URL, "x")
    assert v1_server.wires == ["none"]


@hidings
def test_whoever_hides_the_key_of_a_server_that_offered_v1_gets_nothing_unsealed(
    flavour: Flavour, v1_server: V1Server, hide: Callable[[V1Server], None]
) -> None:
    held = HeldTime()
    with flavour.client(v1_server.inner, clock=held.boot) as client:
        client.request("GET", URL)
        hide(v1_server)
        held.pass_s(3601)
        with pytest.raises(KeyNotPublishedError):
            client.request("GET", URL)
        v1_server.answer_key = v1_server.published
        v1_server.answer_v1 = lambda _: hide(v1_server) or v1_server.malformed()  # type: ignore[func-returns-value]
        with pytest.raises(KeyNotPublishedError):
            client.request("GET", URL)
    assert v1_server.wires == ["v1", "v1"]


@hidings
@pytest.mark.parametrize("options", [{"require_v1": True}, {"verify_answer": lambda _answer, _url: True}])
def test_with_a_check_nothing_leaves_where_no_key_is(
    flavour: Flavour, v1_server: V1Server, hide: Callable[[V1Server], None], options: dict[str, Any]
) -> None:
    hide(v1_server)
    with flavour.client(v1_server.inner, **options) as client, pytest.raises(KeyNotPublishedError):
        client.request("GET", URL)
    assert v1_server.wires == []


def test_a_broken_answer_is_no_missing_one(flavour: Flavour, v1_server: V1Server) -> None:
    v1_server.answer_key = lambda: v1_server.response(200, [v1_server.key_answer()[:-1]], v1_server.key_headers)
    with flavour.client(v1_server.inner) as client, pytest.raises(KeyConfigurationError, match="cut off"):
        client.request("GET", URL)
    assert v1_server.wires == []


@pytest.mark.parametrize("status", [408, 429, 503])
def test_where_nobody_has_time_to_tell_the_key_a_request_without_a_body_waits_too(
    flavour: Flavour, v1_server: V1Server, status: int
) -> None:
    v1_server.answer_key = lambda: v1_server.response(status, [b"later"], {"Retry-After": "7"})
    with flavour.client(v1_server.inner) as client:
        response = client.request("GET", URL)
    assert (response.status_code, response.content, response.headers["Retry-After"]) == (status, b"later", "7")
    assert v1_server.wires == []


@pytest.mark.parametrize("status", [400, 503])
def test_a_known_key_of_version_1_serves_while_its_renewal_fails(
    flavour: Flavour, v1_server: V1Server, status: int
) -> None:
    held = HeldTime()
    with flavour.client(v1_server.inner, clock=held.boot) as client:
        client.request("GET", URL)
        held.pass_s(55)
        v1_server.answer_key = lambda: v1_server.response(status, [b""], {})
        assert client.request("GET", URL).content == b"sealed answer"
    assert v1_server.wires == ["v1", "v1"]


class TestKeyUrlOfAnotherOrigin:
    """A URL serves one origin. Requests without a body to others have no key there."""

    KEY_URL = "https://model.example/.well-known/hpke-keys"
    OTHER = "https://other.example/v1"

    def test_a_request_without_a_body_to_another_origin_travels_as_it_is(
        self, flavour: Flavour, v1_server: V1Server
    ) -> None:
        with flavour.client(v1_server.inner, key_url=self.KEY_URL) as client:
            assert client.request("GET", URL).content == b"sealed answer"
            assert client.request("GET", self.OTHER).content == b"in plaintext"
            with pytest.raises(SealedTransportError, match="nothing was sent"):
                client.post(self.OTHER, "x")
        assert v1_server.wires == ["v1", "none"]

    def test_with_require_v1_it_does_not_leave(self, flavour: Flavour, v1_server: V1Server) -> None:
        with flavour.client(v1_server.inner, key_url=self.KEY_URL, require_v1=True) as client:
            client.request("GET", URL)
            with pytest.raises(SealedTransportError, match="nothing was sent"):
                client.request("GET", self.OTHER)
        assert v1_server.wires == ["v1"]

    def test_an_unsealed_request_binds_it_to_no_origin(self, flavour: Flavour, v1_server: V1Server) -> None:
        older(v1_server)
        with flavour.client(v1_server.inner, key_url=self.KEY_URL) as client:
            client.request("GET", self.OTHER)
            assert client.post(URL, "x").content == b"sealed answer"
        assert v1_server.wires == ["none", "ehbp"]
