"""The user's checks of a key answer: nothing is sealed to a key that they have not seen."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from server_keys.client import KeyRejectedError, SealedTransportError
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.scripted_server import URL, Server
from tests.helpers.scripted_v1_server import V1Server

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)

KEY_URL = "https://model.example/.well-known/hpke-keys"
OFFER = "offers version 1 of the wire"


def consent(_answer: bytes, _url: str) -> None: ...


class NotAttestedError(Exception):
    """The error of a user's check."""


def notices(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "server_keys"]


def test_it_gets_every_byte_and_the_url(flavour: Flavour, v1_server: V1Server) -> None:
    seen: list[Any] = []
    signature = (3).to_bytes(2, "big") + b"sig"
    v1_server.answer_key = lambda: v1_server.response(200, [v1_server.key_answer() + signature], v1_server.key_headers)

    def verify_answer(*arguments: object) -> bool:
        seen.append(arguments)
        return True

    with flavour.client(v1_server.inner, verify_answer=verify_answer) as client:
        for method in ("GET", "POST"):
            client.request(method, URL)
    assert seen == [(v1_server.key_answer() + signature, KEY_URL)]
    assert v1_server.wires == ["v1", "v1"]


def test_it_gets_the_url_that_the_key_came_from(flavour: Flavour, v1_server: V1Server) -> None:
    seen: list[Any] = []
    v1_server.key_path = "/tëam/key"
    with flavour.client(
        v1_server.inner, verify_answer=lambda _, url: seen.append(url), key_url="https://keys.example:8443/tëam/key?v=1"
    ) as client:
        client.post(URL, "x")
    assert seen == ["https://keys.example:8443/t%C3%ABam/key?v=1"]


def test_it_gets_each_new_answer(flavour: Flavour, v1_server: V1Server) -> None:
    seen: list[bytes] = []
    with flavour.client(v1_server.inner, verify_answer=lambda answer, _: seen.append(answer)) as client:
        client.post(URL, "x")
        first = v1_server.key_answer()
        v1_server.renew_keys()
        client.post(URL, "x")
    assert seen == [first, v1_server.key_answer()]


def test_it_gets_the_answer_of_an_older_server_too(flavour: Flavour, server: Server) -> None:
    seen: list[bytes] = []
    with flavour.client(server.inner, verify_answer=lambda answer, _: seen.append(answer)) as client:
        assert client.post(URL, "x").content == b"sealed answer"
    assert [len(answer) for answer in seen] == [41]


@pytest.mark.parametrize("verdict", [False, 0, "", "yes", 1.0])
@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_verdict_that_is_neither_yes_nor_none_refuses(
    flavour: Flavour, v1_server: V1Server, verdict: object, content: bytes
) -> None:
    async def later(_answer: bytes, _url: str) -> object:
        return verdict

    checks: list[Any] = [lambda _answer, _url: verdict, *([later] if flavour.is_async else [])]
    for check in checks:
        with (
            flavour.client(v1_server.inner, verify_answer=check) as client,
            pytest.raises(KeyRejectedError, match=rf"verify_answer refused the 1268 bytes that {KEY_URL} published"),
        ):
            client.post(URL, content)
    assert v1_server.wires == []


@pytest.mark.parametrize("verdict", [None, True])
def test_yes_and_none_consent(flavour: Flavour, v1_server: V1Server, verdict: object) -> None:
    async def later(_answer: bytes, _url: str) -> object:
        return verdict

    check = later if flavour.is_async else lambda _answer, _url: verdict
    with flavour.client(v1_server.inner, verify_answer=check, require_v1=True) as client:
        assert client.post(URL, "x").content == b"sealed answer"


@pytest.mark.parametrize("content", [b"", b"x"])
def test_what_it_raises_reaches_the_caller(flavour: Flavour, v1_server: V1Server, content: bytes) -> None:
    def refuse(_answer: bytes, _url: str) -> None:
        raise NotAttestedError

    async def refuse_later(_answer: bytes, _url: str) -> None:
        raise NotAttestedError

    for check in (refuse, refuse_later) if flavour.is_async else (refuse,):
        with flavour.client(v1_server.inner, verify_answer=check) as client, pytest.raises(NotAttestedError):
            client.post(URL, content)
    assert v1_server.wires == []


def test_a_coroutine_function_cannot_check_for_a_sync_transport(flavour: Flavour, v1_server: V1Server) -> None:
    async def verify_answer(_answer: bytes, _url: str) -> bool:
        return False

    error = KeyRejectedError if flavour.is_async else TypeError
    with (
        flavour.client(v1_server.inner, verify_answer=verify_answer) as client,
        pytest.raises(error, match="verify_answer"),
    ):
        client.request("GET", URL)
    assert v1_server.wires == []


@pytest.mark.parametrize("name", ["verify_answer", "verify_key"])
def test_what_is_no_function_cannot_check(flavour: Flavour, name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a function .* not b'k'"):
        flavour.transport(**{name: b"k"})


def test_it_refuses_a_server_that_was_taken_back_to_plain_ehbp(flavour: Flavour, v1_server: V1Server) -> None:
    """A check that wants version 1 can say so by itself, and then nobody can take it away by another key answer."""
    with flavour.client(v1_server.inner, verify_answer=lambda answer, _: len(answer) > 41) as client:
        client.post(URL, "x")
        v1_server.knows_v1 = False
        with pytest.raises(KeyRejectedError):
            client.post(URL, "x")
    assert v1_server.wires == ["v1", "v1"]


class TestVerifyKeyAlone:
    """It sees 32 bytes of the answer, so nothing is sealed to the other key."""

    def test_the_client_stays_on_plain_ehbp_and_says_so_once(
        self, flavour: Flavour, v1_server: V1Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: list[bytes] = []
        with flavour.client(v1_server.inner, verify_key=seen.append) as client:
            assert client.post(URL, "x").content == b"sealed answer"
            assert client.request("GET", URL).content == b"in plaintext"
            keys = [v1_server.key_pair.public_key]
            v1_server.renew_keys()
            client.post(URL, "x")
        assert seen == [*keys, v1_server.key_pair.public_key]
        assert v1_server.wires == ["ehbp", "none", "ehbp", "ehbp"]
        (notice,) = notices(caplog)
        assert f"{KEY_URL} {OFFER}" in notice
        assert "verify_answer=" in notice
        assert caplog.records[0].levelno == logging.WARNING

    def test_where_nothing_is_offered_nothing_is_said(
        self, flavour: Flavour, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        with flavour.client(server.inner, verify_key=lambda _: None) as client:
            client.post(URL, "x")
        assert notices(caplog) == []

    def test_a_request_without_a_body_asks_for_no_key(self, flavour: Flavour, v1_server: V1Server) -> None:
        with flavour.client(v1_server.inner, verify_key=lambda _: False) as client:
            assert client.request("GET", URL).content == b"in plaintext"
        assert v1_server.key_requests == []

    @pytest.mark.parametrize("make", ["transport", "sealed_client"])
    def test_require_v1_contradicts_it(self, flavour: Flavour, make: str) -> None:
        with pytest.raises(
            TypeError, match="require_v1=True needs verify_answer= or identity= where there is verify_key="
        ):
            getattr(flavour, make)(verify_key=lambda _: None, require_v1=True)


class TestBoth:
    """Each may refuse, and together they have seen every key."""

    def test_they_let_version_1_be_used(
        self, flavour: Flavour, v1_server: V1Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        keys: list[bytes] = []
        with flavour.client(v1_server.inner, verify_key=keys.append, verify_answer=consent, require_v1=True) as client:
            assert client.post(URL, "x").content == b"sealed answer"
        assert keys == [v1_server.key_pair.public_key]
        assert v1_server.wires == ["v1"]
        assert notices(caplog) == []

    @pytest.mark.parametrize(
        ("verify_key", "verify_answer", "name"),
        [
            (lambda _: False, consent, "verify_key"),
            (lambda _: True, lambda _answer, _url: False, "verify_answer"),
        ],
    )
    def test_each_may_refuse(
        self,
        flavour: Flavour,
        v1_server: V1Server,
        verify_key: Callable[[bytes], object],
        verify_answer: Callable[[bytes, str], object],
        name: str,
    ) -> None:
        with (
            flavour.client(v1_server.inner, verify_key=verify_key, verify_answer=verify_answer) as client,
            pytest.raises(KeyRejectedError, match=name),
        ):
            client.post(URL, "x")
        assert v1_server.wires == []


@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_check_that_sends_through_its_own_client_is_told_so(
    flavour: Flavour, v1_server: V1Server, content: bytes
) -> None:
    def verify(_answer: bytes, _url: str) -> None:
        client.post(URL, content)

    async def verify_async(_answer: bytes, _url: str) -> None:
        await sending.post(URL, content=content)

    check = verify_async if flavour.is_async else verify
    client_type = flavour.http.AsyncClient if flavour.is_async else flavour.http.Client
    sending = client_type(transport=flavour.transport(v1_server.inner, verify_answer=check))
    with (
        flavour.driving(sending) as client,
        pytest.raises(SealedTransportError, match=r"verify_answer sends .* another client in verify_answer"),
    ):
        client.request("GET", URL)
    assert len(v1_server.key_requests) == 1
    assert v1_server.wires == []


def test_a_burst_is_checked_once(flavour: Flavour, v1_server: V1Server) -> None:
    seen: list[str] = []
    with flavour.client(v1_server.inner, verify_answer=lambda _, url: seen.append(url)) as client:
        responses = client.post_at_once(URL, ["x", ""] * 5)
    assert [response.content for response in responses] == [b"sealed answer"] * 10
    assert seen == [KEY_URL] * len(v1_server.key_requests)
