"""Bodies that are sealed while they are read: what they come from, how they are cut, and when they are sent again."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server_keys import KeyPair
from server_keys.client import SealedTransportError
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.frames import plaintexts_of_frames
from tests.helpers.held_time import HeldTime
from tests.helpers.scripted_server import URL, Server
from tests.helpers.uploads import BODY, FRAME, PIECES, Streamed, Unseekable, inner_that_reads

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)
of_sync_clients = pytest.mark.parametrize("flavour", [flavour for flavour in FLAVOURS if not flavour.is_async], ids=str)


def as_bytes(_: Flavour) -> dict[str, Any]:
    return {"content": BODY}


def as_generator(flavour: Flavour) -> dict[str, Any]:
    return {"content": Streamed(PIECES).of(flavour)}


def as_generator_that_knows_its_length(flavour: Flavour) -> dict[str, Any]:
    return {**as_generator(flavour), "headers": {"Content-Length": str(len(BODY))}}


def as_form(_: Flavour) -> dict[str, Any]:
    return {"files": {"file": io.BytesIO(BODY)}, "data": {"model": "tiny"}}


def as_form_with_a_pipe(_: Flavour) -> dict[str, Any]:
    return {"files": {"file": Unseekable(BODY)}}


# Async clients take neither of these.
def as_list(_: Flavour) -> dict[str, Any]:
    return {"content": PIECES}


def as_rest_of_a_file(_: Flavour) -> dict[str, Any]:
    file = io.BytesIO(b"what was read before" + BODY)
    file.seek(20)
    return {"content": file}


def as_pipe(_: Flavour) -> dict[str, Any]:
    return {"content": Unseekable(BODY)}


Kind = Callable[[Flavour], dict[str, Any]]
REPEATABLE = [as_bytes, as_form]
ONCE = [as_generator, as_generator_that_knows_its_length, as_form_with_a_pipe]
REPEATABLE_OF_SYNC = [as_list, as_rest_of_a_file]
ONCE_OF_SYNC = [as_pipe]


def of_kinds(of_all: list[Any], of_sync: list[Any]) -> pytest.MarkDecorator:
    cases = [
        pytest.param(flavour, kind, id=f"{flavour}-{kind.__name__}")
        for flavour in FLAVOURS
        for kind in (of_all if flavour.is_async else of_all + of_sync)
    ]
    return pytest.mark.parametrize(("flavour", "kind"), cases)


@of_kinds(REPEATABLE + ONCE, REPEATABLE_OF_SYNC + ONCE_OF_SYNC)
def test_a_body_arrives_whole(flavour: Flavour, url: str, kind: Kind) -> None:
    with flavour.client() as client:
        arrived = client.request("POST", f"{url}/echo", **kind(flavour)).json()["body"].encode()
    if "files" not in kind(flavour):
        assert arrived == BODY
    assert BODY in arrived
    assert len(arrived) < len(BODY) + 1000


@of_kinds(
    [*REPEATABLE, as_generator_that_knows_its_length, as_generator, as_form_with_a_pipe],
    [*REPEATABLE_OF_SYNC, *ONCE_OF_SYNC],
)
def test_its_length_is_announced_where_it_is_known(flavour: Flavour, server: Server, kind: Kind) -> None:
    with flavour.client(server.inner) as client:
        client.request("POST", URL, **kind(flavour))
    headers = server.requests[-1].headers
    if kind in (as_generator, as_form_with_a_pipe, as_list, as_pipe):
        assert headers["Transfer-Encoding"] == "chunked"
        assert "Content-Length" not in headers
    else:
        assert int(headers["Content-Length"]) == len(server.requests[-1].content)
        assert "Transfer-Encoding" not in headers


@every_flavour
@pytest.mark.parametrize("length", [1, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 2 * FRAME + 1, 5 * FRAME - 1])
@pytest.mark.parametrize("piece_length", [777, FRAME, 10 * FRAME])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_every_frame_but_the_last_is_full(
    flavour: Flavour, server: Server, length: int, piece_length: int, is_streamed: bool
) -> None:
    sent: list[list[bytes]] = []
    body = (BODY * 2)[:length]
    pieces = [body[start : start + piece_length] for start in range(0, length, piece_length)]
    with flavour.client(inner_that_reads(flavour, server.handle, sent.append)) as client:
        client.request("POST", URL, content=Streamed(pieces).of(flavour) if is_streamed else body)
    full, rest = divmod(length, FRAME)
    assert plaintexts_of_frames(b"".join(sent[-1])) == [FRAME] * full + [rest] * (rest > 0)
    assert server.opened == [body]


@every_flavour
@pytest.mark.parametrize("frames", [2, 3, 5])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_body_that_is_at_hand_leaves_two_frames_at_a_time(
    flavour: Flavour, server: Server, frames: int, kind: Callable[[bytes], Any]
) -> None:
    sent: list[list[bytes]] = []
    body = BODY[: FRAME * 2] * 3
    # A generator of one piece says nothing of what follows it: of its end a frame waits for more.
    content = body[: frames * FRAME] if kind is bytes else Streamed([kind(body[: frames * FRAME])]).of(flavour)
    headers = {"Content-Length": str(frames * FRAME)}
    with flavour.client(inner_that_reads(flavour, server.handle, sent.append)) as client:
        client.request("POST", URL, content=content, headers=headers)
    assert [len(part) // FRAME for part in sent[-1]] == [2] * (frames // 2) + [1] * (frames % 2)
    assert server.opened == [body[: frames * FRAME]]


@every_flavour
def test_frames_of_a_body_that_goes_on_leave_as_soon_as_more_than_them_is_there(
    flavour: Flavour, server: Server
) -> None:
    sent: list[list[int]] = []
    inner = inner_that_reads(flavour, server.handle, lambda parts: sent.append([len(part) // FRAME for part in parts]))
    pieces = [BODY[: FRAME * 3], BODY[:FRAME], b"x"]
    with flavour.client(inner) as client:
        client.request("POST", URL, content=Streamed(pieces).of(flavour))
    assert sent[-1] == [2, 1, 1, 0]


@every_flavour
def test_each_frame_leaves_before_the_next_one_is_read(flavour: Flavour, server: Server) -> None:
    ahead: list[int] = []
    streamed = Streamed(PIECES)

    def on_frame(frames: list[bytes]) -> None:
        ahead.append(streamed.read * 1000 - len(frames) * FRAME)

    with flavour.client(inner_that_reads(flavour, server.handle, on_frame)) as client:
        client.request("POST", URL, content=streamed.of(flavour))
    assert len(ahead) == 1 + 5
    assert max(ahead) <= 1000


@every_flavour
@pytest.mark.parametrize(
    "pieces",
    [
        [b"", BODY[:3], b"", BODY[3:], b""],
        [bytes([byte]) for byte in BODY[:100_000]],
        [bytearray(BODY)],
        [memoryview(BODY)],
        [BODY * 10],
    ],
    ids=["some are empty", "tiny", "bytearray", "memoryview", "huge"],
)
def test_pieces_may_be_of_any_size_and_kind(flavour: Flavour, server: Server, pieces: list[Any]) -> None:
    with flavour.client(server.inner) as client:
        client.request("POST", URL, content=Streamed(pieces).of(flavour))
    assert server.opened == [b"".join(pieces)]


@every_flavour
@pytest.mark.parametrize("is_announced", [False, True])
@pytest.mark.parametrize("piece_bytes", [1000, FRAME, 70_000, 2 * FRAME, 200_000])
def test_a_generator_may_use_its_buffer_again(
    flavour: Flavour, server: Server, piece_bytes: int, is_announced: bool
) -> None:
    buffer = bytearray(piece_bytes)
    parts = [bytes([65 + number]) * piece_bytes for number in range(3)]

    def pieces() -> Any:
        for part in parts:
            buffer[:] = part
            yield buffer
        buffer.clear()  # which would fail if somebody held a view of it

    headers = {"Content-Length": str(3 * piece_bytes)} if is_announced else {}
    with flavour.client(server.inner) as client:
        client.request("POST", URL, content=Streamed(pieces()).of(flavour), headers=headers)
    assert server.opened == [b"".join(parts)]


@every_flavour
@pytest.mark.parametrize("pieces", [[], [b""], [b"", b""]])
def test_a_generator_of_nothing_is_no_body(flavour: Flavour, url: str, pieces: list[bytes]) -> None:
    with flavour.client() as client:
        response = client.request("POST", f"{url}/echo", content=Streamed(pieces).of(flavour))
    assert response.json() == {"body": ""}


@every_flavour
def test_a_short_generator_is_held_and_sent_again(flavour: Flavour, server: Server) -> None:
    with flavour.client(server.inner) as client:
        client.post(URL, "x")
        server.key_pair = KeyPair.generate()
        response = client.request("POST", URL, content=Streamed(PIECES[:65]).of(flavour))
    assert response.content == b"sealed answer"
    assert server.opened == [b"x", b"".join(PIECES[:65])]


@of_kinds(REPEATABLE, REPEATABLE_OF_SYNC)
@pytest.mark.parametrize("frames_before_the_refusal", [1, 3, None])
def test_what_can_be_read_twice_is_sent_again(
    flavour: Flavour, server: Server, kind: Kind, frames_before_the_refusal: int | None
) -> None:
    """The server may refuse before it has read everything, and the libraries stop sending then."""

    def most_frames() -> int | None:
        return frames_before_the_refusal if len(server.requests) < 3 else None

    with flavour.client(inner_that_reads(flavour, server.handle, most_frames=most_frames)) as client:
        client.post(URL, "x")
        server.key_pair = KeyPair.generate()
        assert client.request("POST", URL, **kind(flavour)).content == b"sealed answer"
    assert [request.method for request in server.requests] == ["GET", "POST", "POST", "GET", "POST"]
    assert BODY in server.opened[-1]
    assert len(server.opened[-1]) < len(BODY) + 1000


@of_sync_clients
@pytest.mark.parametrize("content", [BODY, BODY[:100]], ids=["long", "short"])
@pytest.mark.parametrize("read_before_the_answer", [1, None])
def test_a_file_is_sent_whole_again_in_answer_to_a_challenge(
    flavour: Flavour, server: Server, content: bytes, read_before_the_answer: int | None
) -> None:
    """Before it answers, the server may have read all of the file, or a part."""
    asked = 0

    def most_frames() -> int | None:
        return None if asked else read_before_the_answer

    def answer(request: Any) -> Any:
        if "Authorization" not in request.headers and request.method == "POST":
            return flavour.http.Response(401, headers={"WWW-Authenticate": 'Digest realm="a", nonce="b", qop="auth"'})
        return server.handle(request)

    def handle(request: Any) -> Any:
        nonlocal asked
        asked += request.method == "POST"
        return answer(request)

    file = io.BytesIO(b"what was read before" + content)
    file.seek(20)
    with flavour.client(inner_that_reads(flavour, handle, most_frames=most_frames)) as client:
        response = client.request("POST", URL, content=file, auth=flavour.http.DigestAuth("me", "secret"))
    assert response.content == b"sealed answer"
    assert server.opened == [content]


@of_kinds(ONCE, ONCE_OF_SYNC)
def test_what_can_be_read_once_gets_a_fresh_key(flavour: Flavour, server: Server, kind: Kind) -> None:
    held = HeldTime()
    with flavour.client(server.inner, clock=held.boot) as client:
        client.post(URL, "x")
        held.pass_s(5)
        server.key_pair = KeyPair.generate()
        assert client.request("POST", URL, **kind(flavour)).content == b"sealed answer"
        assert [request.method for request in server.requests] == ["GET", "POST"] * 2
        assert server.key_requests[-1].headers["Cache-Control"] == "no-cache"
        # That key is fresh for a second.
        held.pass_s(0.9)
        client.request("POST", URL, **kind(flavour))
    assert [request.method for request in server.requests] == ["GET", "POST"] * 2 + ["POST"]


@of_kinds(REPEATABLE, REPEATABLE_OF_SYNC)
def test_what_can_be_read_twice_needs_none(flavour: Flavour, server: Server, kind: Kind) -> None:
    held = HeldTime()
    with flavour.client(server.inner, clock=held.boot) as client:
        client.post(URL, "x")
        held.pass_s(5)
        client.request("POST", URL, **kind(flavour))
    assert len(server.key_requests) == 1


@every_flavour
def test_a_known_key_serves_where_no_fresh_one_comes(flavour: Flavour, server: Server) -> None:
    held = HeldTime()
    with flavour.client(server.inner, clock=held.boot) as client:
        client.post(URL, "x")
        held.pass_s(5)
        server.answer_key = lambda: server.response(503, [b"busy"], {})
        response = client.request("POST", URL, **as_generator(flavour))
    assert response.content == b"sealed answer"
    assert server.key_requests[-1].extensions["timeout"]["read"] <= 2


@of_kinds(ONCE, ONCE_OF_SYNC)
def test_what_can_be_read_once_and_is_refused_raises(flavour: Flavour, server: Server, kind: Kind) -> None:
    with flavour.client(server.inner) as client:
        client.post(URL, "x")
        server.key_pair = KeyPair.generate()
        with pytest.raises(SealedTransportError, match=rf"POST {URL} was refused .* bytes or a file that can seek"):
            client.request("POST", URL, **kind(flavour))
        assert [request.method for request in server.requests] == ["GET", "POST", "POST"]
        assert client.post(URL, "x").content == b"sealed answer"


@every_flavour
def test_a_body_is_never_sealed_twice_with_one_key(flavour: Flavour, server: Server) -> None:
    """An inner transport that repeats requests by itself must not send what nobody can open."""

    class Repeating(type(server.inner)):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            if request.method == "POST":
                list(request.stream)
            return super().handle_request(request)

        async def handle_async_request(self, request: Any) -> Any:
            if request.method == "POST":
                _ = [frame async for frame in request.stream]
            return await super().handle_async_request(request)

    with flavour.client(Repeating(server.handle)) as client, pytest.raises(flavour.http.StreamConsumed):
        client.post(URL, BODY)


@of_sync_clients
def test_a_file_on_disk(flavour: Flavour, url: str, tmp_path: Path) -> None:
    path = tmp_path / "audio"
    path.write_bytes(BODY)
    with flavour.client() as client, path.open("rb") as file:
        assert client.request("POST", f"{url}/echo", content=file).json()["body"].encode() == BODY
