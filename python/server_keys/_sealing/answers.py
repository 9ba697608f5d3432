"""The responses that the EHBP middleware itself gives, each in full."""

import json
import logging

from starlette.types import Message, Receive, Scope, Send

from server_keys._native import FrameTooLargeError
from server_keys._sealing.protocol import (
    KEY_CONFIG_MEDIA_TYPE,
    KEY_CONFIG_PATH,
    KEY_MISMATCH_PROBLEM,
    PROBLEM_MEDIA_TYPE,
    key_config,
)
from server_keys.errors import KeysUnavailableError

_logger = logging.getLogger("server_keys")

# These responses contain nothing that a page of another origin may not read, and a browser client must be able to read
# the 422 to recover from a rotation; they leave outside of the app's own CORS middleware.
_FOR_ANY_ORIGIN = ((b"access-control-allow-origin", b"*"), (b"vary", b"Origin"))

# A config that is fetched now may be replaced at once, and is accepted for the overlap from then on. What a client
# caches must expire before that, with time left for a request that is under way.
_WAY_S = 5.0


async def key_configuration(send: Send, public_key: bytes, accepted_for_s: float, *, body: bool) -> None:
    """Send the key configuration of `public_key` (32 bytes), to be cached for a little less than it is accepted."""
    max_age_s = int(accepted_for_s - min(_WAY_S, accepted_for_s / 10))
    cache_control = f"max-age={max_age_s}" if max_age_s > 0 else "no-store"
    await _send(send, 200, KEY_CONFIG_MEDIA_TYPE, key_config(public_key), cache_control=cache_control, send_body=body)


async def key_mismatch(send: Send) -> None:
    """Send the answer after which a client fetches the key anew and tries again (422)."""
    await _problem(
        send,
        422,
        KEY_MISMATCH_PROBLEM,
        f"sealed to a key that this server process does not accept: fetch {KEY_CONFIG_PATH} anew",
    )


async def malformed(send: Send) -> None:
    """Send the answer to a request that cannot be opened (400). It does not say why not."""
    await _problem(send, 400, "about:blank", "the sealed request is malformed, incomplete or not authentic")


async def frame_too_large(send: Send, error: FrameTooLargeError) -> None:
    """Send the answer to a frame above the limit (413)."""
    await _problem(send, 413, "about:blank", f"{error}: seal the body in smaller frames")


async def sealing_required(send: Send) -> None:
    """Send the answer to a body in plaintext where sealed ones are required (400)."""
    await _problem(
        send, 400, "about:blank", f"this server takes bodies sealed with EHBP only: its key is at {KEY_CONFIG_PATH}"
    )


async def keys_unavailable(send: Send, error: KeysUnavailableError) -> None:
    """Send the answer of a server that has no key (500)."""
    _logger.error("a client was told that there is no key: %s", error)
    await _problem(send, 500, "about:blank", "the server has no key at the moment")


async def method_not_allowed(send: Send, *, allowed: str) -> None:
    """Send the answer to another method than those `allowed` (405)."""
    await _send(
        send, 405, "text/plain; charset=utf-8", b"Method Not Allowed", more_headers=[(b"allow", allowed.encode())]
    )


async def internal_error(send: Send) -> None:
    """Send the answer of an app that failed before it gave one (500)."""
    await _send(send, 500, "text/plain; charset=utf-8", b"Internal Server Error")


def empty_body(receive: Receive) -> Receive:
    """Return a `receive` that yields an empty body, which `receive` has yielded already, and then what comes next."""
    delivered = False

    async def receive_empty_body() -> Message:
        nonlocal delivered
        if delivered:
            return await receive()
        delivered = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive_empty_body


def to_any_page(scope: Scope, send: Send) -> Send:
    """Return a `send` whose responses a page of another origin may read although it sent its cookies, too.

    For responses that no app has had a part in: browsers then want the origin by its name.
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


async def _problem(send: Send, status: int, problem_type: str, title: str) -> None:
    # RFC 9457, with one more member: the OpenAI SDK shows a `message`, and nothing else.
    body = json.dumps({"type": problem_type, "title": title, "message": title}).encode()
    await _send(send, status, PROBLEM_MEDIA_TYPE, body)


async def _send(
    send: Send,
    status: int,
    media_type: str,
    body: bytes,
    *,
    cache_control: str = "no-store",
    send_body: bool = True,
    more_headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", cache_control.encode()),
        *_FOR_ANY_ORIGIN,
        *(more_headers or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body if send_body else b""})
