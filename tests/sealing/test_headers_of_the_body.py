"""Headers that describe a body: what an app says of its plaintext, and what is true of the sealed body."""

import asyncio
import gzip
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyRing
from tests.helpers import asgi
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.sealed_requests import Client, assert_never_whole, sealed_call

TEXT = b"a text that is worth compressing, " * 100


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    """A key ring that nobody refreshes by itself."""
    with KeyRing(300) as ring:
        yield ring


def answer(
    ring: KeyRing, client: Client, pieces: Sequence[bytes], headers: dict[str, str], *, status: int = 200
) -> asgi.Response:
    """Let an app answer a sealed request with `pieces` under `headers`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        names = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": names})
        for number, piece in enumerate(pieces, start=1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})

    return sealed_call(app, ring, client, "/", client.seal(b"x"))


@pytest.mark.parametrize(
    ("coding", "compressed"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("GZip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT)),
        ("identity, gzip", gzip.compress(TEXT)),
        ("gzip", gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", zlib.compress(TEXT, wbits=-15)),
        ("deflate", zlib.compress(TEXT, level=0, wbits=-15)),
        ("deflate", gzip.compress(TEXT)),
        ("identity", TEXT),
    ],
    ids=[
        "gzip",
        "capitals",
        "x-gzip",
        "identity, gzip",
        "two gzip members",
        "deflate",
        "raw deflate",
        "raw, stored",
        "gzip by a wrong name",
        "identity",
    ],
)
@pytest.mark.parametrize("piece_bytes", [1, 7, 100_000])
def test_what_an_app_compressed_leaves_as_the_text_that_it_is(
    ring: KeyRing, coding: str, compressed: bytes, piece_bytes: int
) -> None:
    client = Client(ring.current)
    pieces = [compressed[start : start + piece_bytes] for start in range(0, len(compressed), piece_bytes)]
    response = answer(ring, client, pieces, {"Content-Encoding": coding, "Content-Length": str(len(compressed))})
    assert response.error is None
    assert b"".join(client.open(response)) == TEXT
    assert "content-encoding" not in response.headers


def test_a_message_of_very_many_gzip_members_does_not_hold_up_the_server(ring: KeyRing) -> None:
    client = Client(ring.current)
    members = 120_000
    began = time.process_time()
    response = answer(ring, client, [gzip.compress(b"x") * members], {"Content-Encoding": "gzip"})
    took_s = time.process_time() - began
    assert b"".join(client.open(response)) == b"x" * members
    assert took_s < 2  # where each member copies the rest of the message, more than 4


def test_an_event_stream_that_an_app_compressed_leaves_event_by_event(ring: KeyRing) -> None:
    compressor = zlib.compressobj(wbits=31)
    events = [b"data: one\n\n", b"data: two\n\n"]
    pieces = [compressor.compress(event) + compressor.flush(zlib.Z_SYNC_FLUSH) for event in events]
    client = Client(ring.current)
    opened = client.open(answer(ring, client, [*pieces, compressor.flush()], {"Content-Encoding": "gzip"}))
    assert opened == [*events, b""]


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_content_has_nothing_to_decompress(ring: KeyRing, status: int) -> None:
    client = Client(ring.current)
    response = answer(ring, client, [b""], {"Content-Encoding": "gzip"}, status=status)
    assert (response.error, response.status, client.open(response)) == (None, status, [b""])


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, br", "gzip, gzip", "no such coding"])
def test_a_coding_that_cannot_be_undone_is_an_error_that_names_it(ring: KeyRing, coding: str) -> None:
    client = Client(ring.current)
    response = answer(ring, client, [b"whatever this is"], {"Content-Encoding": coding})
    assert (response.status, client.open(response)) == (500, [b"Internal Server Error"])
    assert isinstance(response.error, RuntimeError)
    assert f"Content-Encoding {coding!r}" in str(response.error)
    assert "do not compress" in str(response.error)


@pytest.mark.parametrize(
    ("pieces", "complaint"),
    [
        ([b"not compressed"], "not compressed as its Content-Encoding says"),
        ([gzip.compress(TEXT) + b"more"], "not compressed as its Content-Encoding says"),
        ([gzip.compress(TEXT)[:-3]], "ends in the middle"),
        ([gzip.compress(TEXT)[:20], b""], "ends in the middle"),
        ([gzip.compress(bytes(65 * 1024 * 1024))], "becomes longer than 67108864 bytes"),
    ],
    ids=["plain", "more after its end", "cut", "cut between messages", "bomb"],
)
def test_a_body_that_cannot_be_decompressed_is_never_whole(ring: KeyRing, pieces: list[bytes], complaint: str) -> None:
    client = Client(ring.current)
    response = answer(ring, client, pieces, {"Content-Encoding": "gzip"})
    assert isinstance(response.error, RuntimeError)
    assert complaint in str(response.error)
    assert_never_whole(client, response)


OF_THE_BODY = {
    "Content-Length": "34",
    "Transfer-Encoding": "chunked",
    "Content-MD5": "Q2hlY2sgSW50ZWdyaXR5IQ==",
    "Digest": "sha-256=...",
    "Content-Digest": "sha-256=:...:",
    "Repr-Digest": "sha-256=:...:",
}
OF_THE_MEANING = {
    "Content-Type": "text/plain",
    "Content-Language": "en",
    "Content-Disposition": "attachment",
    "ETag": '"1"',
    "Last-Modified": "Fri, 27 Nov 2026 07:00:00 GMT",
}


def test_a_sealed_response_says_nothing_of_the_bytes_of_its_plaintext(ring: KeyRing) -> None:
    client = Client(ring.current)
    headers = {**OF_THE_BODY, "Accept-Ranges": "bytes", **OF_THE_MEANING}
    response = answer(ring, client, [TEXT[:34]], headers)
    assert client.open(response) == [TEXT[:34]]
    expected = {name.lower(): value for name, value in OF_THE_MEANING.items()} | {"cache-control": "no-transform"}
    # What it says is the length of the sealed bytes.
    expected["content-length"] = str(len(response.body))
    assert {name: value for name, value in response.headers.items() if not name.startswith(("ehbp-", "access-"))} == (
        expected
    )


def test_an_app_hears_nothing_of_the_bytes_of_the_sealed_request(ring: KeyRing) -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    client = Client(ring.current)
    of_the_request = {"Range": "bytes=0-9", "If-Range": '"1"', "Accept-Encoding": "gzip, br"}
    client.headers += [*OF_THE_BODY.items(), *of_the_request.items(), *OF_THE_MEANING.items()]
    # A body that a caller compressed before it was sealed is compressed when it is opened.
    client.headers.append(("Content-Encoding", "gzip"))
    sealed_call(app, ring, client, "/", client.seal(b"hello"))
    expected = {name.lower(): value for name, value in OF_THE_MEANING.items()}
    expected |= {"content-encoding": "gzip", "content-length": "5", "accept-encoding": "identity"}
    headers = {name.decode(): value.decode() for name, value in seen}
    assert len(headers) == len(seen)
    assert {name: value for name, value in headers.items() if not name.startswith("ehbp-")} == expected


Pairs = list[tuple[bytes, bytes]]
# ASGI allows any iterable of pairs. Sanic gives a generator.
ANY_ITERABLE: dict[str, Callable[[Pairs], Iterable[Any]]] = {
    "generator": lambda headers: (header for header in headers),
    "iterator": iter,
    "map": lambda headers: map(list, headers),
    "tuple": tuple,
    "pairs that are lists": lambda headers: [list(header) for header in headers],
}


@pytest.mark.parametrize("of_pairs", ANY_ITERABLE.values(), ids=ANY_ITERABLE)
def test_headers_that_an_app_gives_as_any_iterable_all_count(
    ring: KeyRing, of_pairs: Callable[[Pairs], Iterable[Any]]
) -> None:
    compressed = gzip.compress(TEXT)
    headers = [
        (b"content-length", b"%d" % len(compressed)),
        (b"content-encoding", b"gzip"),
        (b"content-type", b"text/plain"),
        (b"set-cookie", b"a=b"),
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": of_pairs(headers)})
        await send({"type": "http.response.body", "body": compressed})

    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/", client.seal(b"x"))
    assert client.open(response) == [TEXT]
    assert response.headers["content-type"] == "text/plain"
    assert response.headers["set-cookie"] == "a=b"
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize("of_pairs", ANY_ITERABLE.values(), ids=ANY_ITERABLE)
@pytest.mark.parametrize("is_sealed", [True, False], ids=["sealed", "in plaintext"])
def test_headers_that_a_server_gives_as_any_iterable_reach_the_app(
    ring: KeyRing, of_pairs: Callable[[Pairs], Iterable[Any]], is_sealed: bool
) -> None:
    seen: list[list[bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(list(header) for header in scope["headers"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": (await receive())["body"]})

    async def server(scope: Scope, receive: Receive, send: Send) -> None:
        headers = of_pairs(scope["headers"])
        await EncryptedBodyMiddleware(app, key_ring=ring)({**scope, "headers": headers}, receive, send)

    client = Client(ring.current)
    headers, pieces = (client.headers, client.seal(b"x")) if is_sealed else ([], [b"x"])
    response = asyncio.run(asgi.call(server, "POST", "/", headers=[*headers, ("X-Of-The-Client", "1")], pieces=pieces))
    assert (client.open(response) if is_sealed else response.pieces) == [b"x"]
    assert [b"x-of-the-client", b"1"] in seen


@pytest.mark.parametrize("flavour", FLAVOURS, ids=str)
def test_our_client_reads_what_an_app_compressed(flavour: Flavour, url: str) -> None:
    with flavour.client() as client:
        response = client.post(f"{url}/compressed", "hello")
    assert response.content == b"hello"


@pytest.mark.parametrize(
    ("of_the_app", "sent"),
    [
        ([], "no-transform"),
        (["max-age=60"], "max-age=60, no-transform"),
        (["private", 'no-cache="set-cookie, x"'], 'private, no-cache="set-cookie, x", no-transform'),
        (["no-store, No-Transform"], "no-store, No-Transform"),
        (["no-transform"], "no-transform"),
        ([""], "no-transform"),
    ],
)
def test_nobody_may_transform_a_sealed_body_and_what_the_app_says_stays(
    ring: KeyRing, of_the_app: list[str], sent: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"Cache-Control", value.encode()) for value in of_the_app]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": TEXT})

    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/", client.seal(b"x"))
    (start, *_) = response.messages
    assert [value.decode() for name, value in start["headers"] if name.lower() == b"cache-control"] == [sent]


@pytest.mark.parametrize(
    ("headers", "status", "sent"),
    [
        ({"Content-Type": "text/event-stream"}, 200, "no"),
        ({}, 500, "no"),
        ({"Content-Length": str(len(TEXT))}, 200, None),  # a whole answer may be buffered
        ({"X-Accel-Buffering": "yes"}, 200, "yes"),  # the app knows better
        ({}, 204, None),
        ({}, 304, None),
    ],
)
def test_streams_ask_proxies_to_pass_them_on_at_once(
    ring: KeyRing, headers: dict[str, str], status: int, sent: str | None
) -> None:
    body = [TEXT] if status not in (204, 304) else [b""]
    assert answer(ring, Client(ring.current), body, headers, status=status).headers.get("x-accel-buffering") == sent


def test_answers_of_an_app_to_plaintext_have_the_headers_that_it_gave_them() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": TEXT})

    with KeyRing(300) as ring:
        response = asyncio.run(asgi.call(EncryptedBodyMiddleware(app, key_ring=ring), "POST", "/", pieces=[b"x"]))
    assert response.headers == {}
