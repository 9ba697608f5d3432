"""A client that names an identity: nothing is sealed to a key that the identity has not signed."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from server_keys.client import KeyRejectedError
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.scripted_server import URL, Server
from tests.helpers.scripted_v1_server import V1Server
from tests.helpers.signed_answers import OtherSigner

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)

SIGNER, STRANGER = OtherSigner(bytes(range(32))), OtherSigner(bytes(32))
IDENTITY = SIGNER.identity
REFUSED = "the key answer of https://model.example/.well-known/hpke-keys is refused: "
Change = Callable[[bytes], bytes]


def publish(server: V1Server, change: Change, *, knows_v1: bool = True) -> None:
    """Let the server answer with what `change` makes of its key answer."""
    server.knows_v1 = knows_v1
    server.answer_key = lambda: server.response(200, [change(server.key_answer())], server.key_headers)


def signed(answer: bytes, *, signer: OtherSigner = SIGNER, ago_s: float = 0, for_s: float = 600) -> bytes:
    now = int(time.time() - ago_s)
    return signer.signed(answer, now, int(now + for_s))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_version_1_is_used_with_a_server_that_the_identity_vouches_for(
    flavour: Flavour, v1_server: V1Server, method: str
) -> None:
    publish(v1_server, signed)
    with flavour.client(v1_server.inner, identity=IDENTITY, require_v1=True) as client:
        assert client.request(method, URL).content == b"sealed answer"
    assert v1_server.wires == ["v1"]


def test_a_server_of_plain_ehbp_may_sign_too(flavour: Flavour, v1_server: V1Server) -> None:
    publish(v1_server, signed, knows_v1=False)
    with flavour.client(v1_server.inner, identity=IDENTITY) as client:
        assert client.post(URL, "x").content == b"sealed answer"
    assert v1_server.wires == ["ehbp"]


def test_either_of_two_identities_is_taken_during_a_change(flavour: Flavour, v1_server: V1Server) -> None:
    for signer in (SIGNER, STRANGER):
        publish(v1_server, lambda answer, signer=signer: signed(answer, signer=signer))  # type: ignore[misc]
        v1_server.renew_keys()
        with flavour.client(v1_server.inner, identity=[SIGNER.identity, STRANGER.identity]) as client:
            assert client.post(URL, "x").content == b"sealed answer"


CHANGES: dict[str, Change] = {
    "it is not signed": bytes,
    "another identity signed it": lambda answer: signed(answer, signer=STRANGER),
    "its signature is wrong": lambda answer: signed(answer[:41])[:41] + answer[41:] + signed(answer[:41])[41:],
    "its signature has expired": lambda answer: signed(answer, ago_s=3600),
    "its signature does not hold yet": lambda answer: signed(answer, ago_s=-3600),
    "it has 2 signatures": lambda answer: signed(signed(answer)),
    "it goes on after its signature": lambda answer: signed(answer) + b"\0\1\7",
    "its signature is of algorithm 2": lambda answer: answer + SIGNER.entry(answer, 0, 2**63, algorithm=2),
}


@pytest.mark.parametrize("why", CHANGES)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_another_answer_is_refused_and_nothing_is_sent(
    flavour: Flavour, v1_server: V1Server, why: str, method: str
) -> None:
    publish(v1_server, CHANGES[why])
    with flavour.client(v1_server.inner, identity=IDENTITY) as client:
        for _ in range(2):
            if method == "OPTIONS":  # servers answer it before anybody knows a key
                assert client.request(method, URL).content == b"in plaintext"
                continue
            with pytest.raises(KeyRejectedError) as refused:
                client.request(method, URL)
            assert str(refused.value).startswith(REFUSED + why)
            assert str(refused.value).endswith("Nothing was sealed to it")
    assert v1_server.wires == (["none", "none"] if method == "OPTIONS" else [])


def test_nobody_can_take_the_client_down_to_plain_ehbp(flavour: Flavour, v1_server: V1Server) -> None:
    publish(v1_server, lambda answer: answer[:41] + signed(answer)[len(answer) :])
    with flavour.client(v1_server.inner, identity=IDENTITY) as client:
        with pytest.raises(KeyRejectedError, match="its signature is wrong"):
            client.post(URL, "x")
        with pytest.raises(KeyRejectedError, match="its signature is wrong"):
            client.request("GET", URL)
    assert v1_server.wires == []


def test_a_server_without_an_identity_is_refused_by_who_names_one(flavour: Flavour, server: Server) -> None:
    with (
        flavour.client(server.inner, identity=IDENTITY) as client,
        pytest.raises(KeyRejectedError, match="it is not signed, and identity= wants the signature of <ed25519:"),
    ):
        client.post(URL, "x")
    assert server.opened == []


def test_a_hidden_key_gets_nothing_unsealed(flavour: Flavour, v1_server: V1Server) -> None:
    v1_server.answer_key = lambda: v1_server.response(404, [], {})
    with flavour.client(v1_server.inner, identity=IDENTITY) as client:
        for method in ("GET", "POST"):
            with pytest.raises(Exception, match="answered with status 404 instead of the server's key"):
                client.request(method, URL)
    assert v1_server.wires == []


def test_keys_are_used_for_no_longer_than_their_signature_holds(flavour: Flavour, v1_server: V1Server) -> None:
    now = 0.0
    v1_server.key_headers["Cache-Control"] = "max-age=3600"  # whoever is in between may write that
    publish(v1_server, lambda answer: signed(answer, for_s=120))
    with flavour.client(v1_server.inner, identity=IDENTITY, clock=lambda: now) as client:
        client.post(URL, "x")
        now = 100.0
        client.post(URL, "x")
        assert len(v1_server.key_requests) == 1
        now = 181.0
        client.post(URL, "x")
    assert len(v1_server.key_requests) == 2


def test_other_checks_come_after_it(flavour: Flavour, v1_server: V1Server) -> None:
    seen: list[Any] = []
    checks: dict[str, Any] = {
        "verify_key": seen.append,
        "verify_answer": lambda answer, _: seen.append(answer),
        "identity": IDENTITY,
    }
    publish(v1_server, bytes)
    with flavour.client(v1_server.inner, **checks) as client, pytest.raises(KeyRejectedError):
        client.post(URL, "x")
    assert seen == []
    publish(v1_server, signed)
    with flavour.client(v1_server.inner, **checks) as client:
        client.post(URL, "x")
    assert seen[0].startswith(v1_server.key_answer())
    assert seen[1] == v1_server.key_pair.public_key
    assert v1_server.wires == ["v1"]


def test_with_an_identity_verify_key_keeps_version_1(flavour: Flavour, v1_server: V1Server) -> None:
    publish(v1_server, signed)
    with flavour.client(v1_server.inner, identity=IDENTITY, verify_key=lambda _: True, require_v1=True) as client:
        client.post(URL, "x")
    assert v1_server.wires == ["v1"]


@pytest.mark.parametrize(
    ("wrong", "error", "why"),
    [
        ("server.key", ValueError, "an identity begins with 'ed25519:'"),
        (IDENTITY[:-1], ValueError, "not 42"),
        ([], ValueError, "identity is empty"),
        ([IDENTITY, ""], ValueError, "an identity begins with"),
        (5, TypeError, "identity must be a str such as"),
        (SIGNER.public_key, TypeError, "identity must be a str such as"),
    ],
)
def test_what_is_no_identity_is_refused_where_it_is_given(
    flavour: Flavour, wrong: Any, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        flavour.transport(identity=wrong)
    with pytest.raises(error, match=why):
        flavour.sealed_client(identity=wrong)


def test_a_sealed_client_takes_it_too(flavour: Flavour) -> None:
    with flavour.driving(flavour.sealed_client(identity=[IDENTITY], trust_env=False)):
        pass
