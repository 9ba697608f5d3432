"""The keys of a message are wiped when its exchange ends, in every way it can end, whatever still holds them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from server_keys import KeyErasedError
from server_keys._native import RequestSealer, RequestSealerV1, ResponseOpener, ResponseOpenerV1
from server_keys.client import MalformedMessageError, SealedTransportError, StatusMismatchError, UnsealedResponseError
from tests.helpers.client_flavours import FLAVOURS, Client, Flavour
from tests.helpers.scripted_server import URL, Server
from tests.helpers.scripted_v1_server import V1Server
from tests.helpers.uploads import BODY, PIECES, Streamed, inner_that_answers_early

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


class Held:
    """Makes sealers, of plain EHBP or of version 1, and holds them and the openers that they make."""

    def __init__(self, make: Callable[[bytes], Any] = RequestSealer) -> None:
        self._make = make
        self.sealers: list[RequestSealer | RequestSealerV1] = []
        self.openers: list[ResponseOpener | ResponseOpenerV1] = []

    def __call__(self, public_key: bytes) -> Any:
        sealer = self._make(public_key)
        self.sealers.append(sealer)
        held = self

        class Holding:
            encapsulated_key = sealer.encapsulated_key
            seal, erase = sealer.seal, sealer.erase
            if isinstance(sealer, RequestSealerV1):
                seal_head, seal_last = sealer.seal_head, sealer.seal_last

            def response_opener(self, *arguments: Any, **options: Any) -> Any:
                held.openers.append(sealer.response_opener(*arguments, **options))
                return held.openers[-1]

        return Holding()

    def assert_wiped(self, *, sealers: int, openers: int) -> None:
        assert (len(self.sealers), len(self.openers)) == (sealers, openers)
        for sealer in self.sealers:
            with pytest.raises(KeyErasedError):
                sealer.seal(b"x")
        for opener in self.openers:
            with pytest.raises(KeyErasedError):
                opener.feed(b"x")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """The sealers and openers of the test's exchanges."""
    held = Held()
    monkeypatch.setattr("server_keys.client.wires.RequestSealer", held)
    return held


def read(client: Client) -> None:
    assert client.post(URL, "x").content == b"sealed answer"


def leave_early(client: Client) -> None:
    pieces = client.pieces(URL, "x")
    next(pieces)
    pieces.close()


def break_off(client: Client) -> None:
    with pytest.raises(MalformedMessageError):
        client.post(URL, "x")


@every_flavour
@pytest.mark.parametrize("use", [read, leave_early, break_off])
def test_after_a_sealed_answer(flavour: Flavour, server: Server, held: Held, use: Callable[[Client], None]) -> None:
    if use is break_off:
        server.answer = lambda opener: server.sealed(opener, lambda frame: frame[:-1])
    with flavour.client(server.inner) as client:
        use(client)
        held.assert_wiped(sealers=1, openers=1)


@every_flavour
@pytest.mark.parametrize("status", [200, 302, 422, 503])
def test_after_an_unsealed_answer(flavour: Flavour, server: Server, held: Held, status: int) -> None:
    server.answer = lambda _: server.response(status, [b""], {"Location": "/"} if status == 302 else {})
    with flavour.client(server.inner) as client:
        if status < 400:
            with pytest.raises(UnsealedResponseError):
                client.post(URL, "x")
        else:
            client.post(URL, "x")
        held.assert_wiped(sealers=1, openers=0)


@every_flavour
def test_after_refusals(flavour: Flavour, server: Server, held: Held) -> None:
    server.answer = lambda _: server.mismatch()
    with flavour.client(server.inner) as client:
        client.post(URL, "x")
        held.assert_wiped(sealers=5, openers=0)


@every_flavour
def test_after_an_error_that_is_kept(flavour: Flavour, server: Server, held: Held) -> None:
    def fail(_: object) -> Any:
        server.closed.append("no response")
        raise flavour.http.ReadError("the connection broke")

    server.answer = fail
    with flavour.client(server.inner) as client, pytest.raises(flavour.http.ReadError) as kept:
        client.post(URL, "x")
    assert kept.value.__traceback__ is not None
    held.assert_wiped(sealers=1, openers=0)


@pytest.mark.parametrize("flavour", [flavour for flavour in FLAVOURS if flavour.is_async], ids=str)
def test_after_a_cancellation(flavour: Flavour, server: Server, held: Held) -> None:
    async def handle(request: Any) -> Any:
        if request.method == "POST":
            await asyncio.Event().wait()
        return server.handle(request)

    async def cancel() -> None:
        async with flavour.http.AsyncClient(transport=flavour.transport(flavour.scripted(handle))) as client:
            task = asyncio.create_task(client.post(URL, content="x"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel())
    held.assert_wiped(sealers=1, openers=0)


def upload(flavour: Flavour, client: Client, error: Exception | None = None) -> Any:
    """Send a body of several frames that can be read once."""
    return client.request("POST", URL, content=Streamed(PIECES, error).of(flavour))


@every_flavour
def test_after_an_upload(flavour: Flavour, server: Server, held: Held) -> None:
    with flavour.client(server.inner) as client:
        assert upload(flavour, client).content == b"sealed answer"
        held.assert_wiped(sealers=1, openers=1)


@every_flavour
def test_after_an_upload_that_breaks_off(flavour: Flavour, server: Server, held: Held) -> None:
    with flavour.client(server.inner) as client, pytest.raises(OSError, match="the disk is gone") as kept:
        upload(flavour, client, OSError("the disk is gone"))
    assert kept.value.__traceback__ is not None
    held.assert_wiped(sealers=1, openers=0)


@every_flavour
def test_after_an_upload_that_is_refused(flavour: Flavour, server: Server, held: Held) -> None:
    server.answer = lambda _: server.mismatch()
    with flavour.client(server.inner) as client, pytest.raises(SealedTransportError, match="cannot be sent again"):
        upload(flavour, client)
    held.assert_wiped(sealers=1, openers=0)


@every_flavour
@pytest.mark.parametrize("reads_all", [True, False])
def test_after_an_answer_that_begins_in_the_middle_of_an_upload(
    flavour: Flavour, server: Server, held: Held, reads_all: bool
) -> None:
    """Some inner transports send in the background, and give out the response as soon as it begins."""
    received: list[bytes] = []
    inner = inner_that_answers_early(flavour, server, received)
    with flavour.client(inner) as client:
        pieces = client.pieces(URL, BODY)
        assert next(pieces) == b"early"
        if reads_all:
            assert list(pieces) == [b" answer"]
            assert b"".join(received) == BODY
        else:
            pieces.close()
        held.assert_wiped(sealers=1, openers=1)


class TestInVersion1:
    """The same, where heads are sealed, too, and requests without a body."""

    @pytest.fixture
    def held(self, monkeypatch: pytest.MonkeyPatch) -> Held:
        """The sealers and openers of the test's exchanges, and of the checks of the keys."""
        held = Held(RequestSealerV1)
        monkeypatch.setattr("server_keys.client.wires.RequestSealerV1", held)
        return held

    @every_flavour
    @pytest.mark.parametrize("content", [b"", b"x"])
    def test_after_a_sealed_answer(self, flavour: Flavour, v1_server: V1Server, held: Held, content: bytes) -> None:
        with flavour.client(v1_server.inner) as client:
            assert client.post(URL, content).content == b"sealed answer"
            held.assert_wiped(sealers=1, openers=1)

    @every_flavour
    @pytest.mark.parametrize("use", [leave_early, break_off])
    def test_after_an_answer_that_is_not_read_to_its_end(
        self, flavour: Flavour, v1_server: V1Server, held: Held, use: Callable[[Client], None]
    ) -> None:
        if use is break_off:
            v1_server.answer_v1 = lambda opener: v1_server.sealed_v1(opener, change=lambda frames: frames[:-1])
        with flavour.client(v1_server.inner) as client:
            use(client)
            held.assert_wiped(sealers=1, openers=1)

    @every_flavour
    def test_after_another_status_than_the_sealed_one(self, flavour: Flavour, v1_server: V1Server, held: Held) -> None:
        v1_server.answer_v1 = lambda opener: v1_server.sealed_v1(opener, says=b"500")
        with flavour.client(v1_server.inner) as client, pytest.raises(StatusMismatchError):
            client.post(URL, "x")
        held.assert_wiped(sealers=1, openers=1)

    @every_flavour
    def test_after_a_head_of_another_form(self, flavour: Flavour, v1_server: V1Server, held: Held) -> None:
        v1_server.answer_v1 = lambda opener: v1_server.sealed_v1(opener, says=b"no status")
        with flavour.client(v1_server.inner) as client, pytest.raises(UnsealedResponseError):
            client.post(URL, "x")
        held.assert_wiped(sealers=1, openers=1)

    @every_flavour
    @pytest.mark.parametrize(("status", "sealers"), [(200, 1), (400, 2), (422, 2), (503, 1)])
    def test_after_an_unsealed_answer(
        self, flavour: Flavour, v1_server: V1Server, held: Held, status: int, sealers: int
    ) -> None:
        v1_server.answer_v1 = lambda _: v1_server.response(status, [b""], {})
        with flavour.client(v1_server.inner) as client:
            if status < 400:
                with pytest.raises(UnsealedResponseError):
                    client.request("GET", URL)
            else:
                client.request("GET", URL)
            held.assert_wiped(sealers=sealers, openers=0)

    @every_flavour
    def test_after_an_upload_that_breaks_off(self, flavour: Flavour, v1_server: V1Server, held: Held) -> None:
        with flavour.client(v1_server.inner) as client, pytest.raises(OSError, match="the disk is gone") as kept:
            upload(flavour, client, OSError("the disk is gone"))
        assert kept.value.__traceback__ is not None
        held.assert_wiped(sealers=1, openers=0)
