"""The responses that the EHBP middleware itself gives, each in full."""

import json
from dataclasses import dataclass

from starlette.types import Message, Receive, Scope, Send

from server_keys._sealing.protocol import PROBLEM_MEDIA_TYPE
from server_keys._sealing.upload import Upload

# These responses contain nothing that a page of another origin may not read, and a browser client must be able to read
# the 422 to recover from a rotation; they leave outside of the app's own CORS middleware.
_FOR_ANY_ORIGIN = ((b"access-control-allow-origin", b"*"), (b"vary", b"Origin"))


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    media_type: str
    body: bytes
    cache_control: str = "no-store"
    more_headers: tuple[tuple[bytes, bytes], ...] = ()
    waits_for_body: bool = True
    """Whether the rest of the request is read before it is sent, so that clients and proxies see it."""


def problem(
    status: int, title: str, problem_type: str = "about:blank", *, more_headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Answer:
    """Return the answer that tells a program what is wrong: RFC 9457, with one more member for the OpenAI SDK."""
    # The SDK shows a `message`, and nothing else.
    body = json.dumps({"type": problem_type, "title": title, "message": title}).encode()
    return Answer(status, PROBLEM_MEDIA_TYPE, body, more_headers=more_headers)


def plain_text(status: int, text: str, *more_headers: tuple[bytes, bytes]) -> Answer:
    """Return the answer that consists of a few words."""
    return Answer(status, "text/plain; charset=utf-8", text.encode(), more_headers=more_headers)


async def send_answer(answer: Answer, scope: Scope, upload: Upload, send: Send) -> None:
    """Throw away the rest of the request's body, then send `answer`; to HEAD only its headers.

    Where the body has not ended after that, the answer says that the connection ends (HTTP/2 has no word for it).
    """
    if answer.waits_for_body:
        await upload.discard_rest()
    headers = [
        (b"content-type", answer.media_type.encode()),
        (b"content-length", b"%d" % len(answer.body)),
        (b"cache-control", answer.cache_control.encode()),
        *_FOR_ANY_ORIGIN,
        *answer.more_headers,
    ]
    # Not every server takes a body away that must not be there: Granian sends it over HTTP/2.
    body = b"" if scope["method"] == "HEAD" else answer.body
    if not upload.ended and scope["http_version"].startswith("1"):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if not upload.ended:
        await send({"type": "http.response.body", "body": body, "more_body": True})
        body = b""
        await upload.linger()
    await send({"type": "http.response.body", "body": body})


async def internal_error(send: Send) -> None:
    """Send the answer of an app that failed before it gave one (500)."""
    body = b"Internal Server Error"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *_FOR_ANY_ORIGIN,
    ]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def empty_body(receive: Receive) -> Receive:
    """Return a `receive` that repeats the empty body which `receive` has yielded already, and then goes on with it."""
    delivered = False

    async def receive_empty_body() -> Message:
        nonlocal delivered
        if delivered:
            return await receive()
        delivered = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive_empty_body


def to_any_page(scope: Scope, send: Send) -> Send:
    """Return a `send` whose responses every page may read, also a page of another origin that sent cookies.

    To such a page browsers hand a response only if it names the page's origin. Use this for the middleware's own
    responses only: an app decides for itself who may read its responses.
    """
    origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
    if origin is None:
        return send

    async def send_to_page(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [header for header in message["headers"] if header[0] != b"access-control-allow-origin"]
            headers += [(b"access-control-allow-origin", origin), (b"access-control-allow-credentials", b"true")]
            message = {**message, "headers": headers}
        await send(message)

    return send_to_page
