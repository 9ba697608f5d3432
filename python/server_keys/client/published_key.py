"""The answer to the question for a server's key: what it has to be, and for how long its keys may be used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from server_keys._native import InvalidPublicKeyError, RequestSealer, RequestSealerV1
from server_keys._sealing.key_entries import PublishedKeys, keys_of
from server_keys._sealing.protocol import KEY_CONFIG_MEDIA_TYPE
from server_keys.client.key_checks import KeyAnswer
from server_keys.client.unsealed import MOST_UNSEALED_BYTES, CannotDecodeError, decoded, media_type
from server_keys.errors import KeyConfigurationError, KeyNotPublishedError

if TYPE_CHECKING:
    import httpx2 as http

# Keys live for minutes. None is used for longer than this, whatever a server or a cache says.
_LONGEST_LIFETIME_S = 3600.0
_DIRECTIVE = re.compile(r"([\w-]+)(?:=\"?([^\",]*)\"?)?")
_LATER = frozenset({408, 409, 425, 429})
# Of what an answer says, for a message.
_SHOWN_CHARACTERS = 200


def says_try_later(response: http.Response) -> bool:
    """Return whether the answer says nothing about the key, because a gateway or the server is busy or has failed.

    The caller gets it as the response, and knows how to wait and ask again.
    """
    return response.status_code in _LATER or response.is_server_error


def answer_in(url: http.URL, response: http.Response, body: bytes | None) -> KeyAnswer:
    """Return a server's key answer.

    Args:
        url: the key's address.
        response: the response to the question for the key.
        body: its body as it was transferred, or None if it was too long to be read.

    Raises:
        KeyNotPublishedError: no key is published there.
        KeyConfigurationError: it is not an answer whose keys can be used.
    """
    status = response.status_code
    if status != 200:
        raise KeyNotPublishedError(
            f"{url} answered with status {status} instead of the server's key: {_hint(response)}"
        )
    content_type = response.headers.get("Content-Type")
    if media_type(content_type) != KEY_CONFIG_MEDIA_TYPE:
        raise KeyNotPublishedError(f"{url} answered with {content_type!r} instead of {KEY_CONFIG_MEDIA_TYPE!r}")
    if body is None:
        raise KeyConfigurationError(f"{url} answered with more than {MOST_UNSEALED_BYTES} bytes instead of a key")
    try:
        content = decoded(body, response.headers)
        return KeyAnswer(content, str(url), keys_of(content))
    except CannotDecodeError as error:
        raise KeyConfigurationError(f"{url} answered with a key that cannot be decoded: {error}") from None
    except ValueError as error:
        raise KeyConfigurationError(f"{url} published {error}") from None


def require_valid(url: http.URL, keys: PublishedKeys) -> None:
    """Raise a `KeyConfigurationError` if nothing can be sealed to one of the keys."""
    try:
        RequestSealer(keys.x25519).erase()
        if keys.xwing is not None:
            RequestSealerV1(keys.xwing.public_key).erase()
    except InvalidPublicKeyError as error:
        raise KeyConfigurationError(f"{url} published a key that cannot be used: {error}") from None


def lifetime_s(headers: http.Headers) -> float:
    """Return for how many seconds a fetched key may be used: its max-age less the time that caches have held it.

    It is an hour at most, and an hour where the server gives no max-age, and so says nothing of a rotation.
    """
    directives = _DIRECTIVE.findall(headers.get("Cache-Control", "").lower())
    names = {name for name, _ in directives}
    if names & {"no-store", "no-cache"}:
        return 0.0
    if "max-age" not in names:
        return _LONGEST_LIFETIME_S
    # RFC 9111, section 4.2.1: of several values the shortest is safe. One that is no number counts as 0.
    max_age_s = min(_delta_seconds(value.strip()) or 0 for name, value in directives if name == "max-age")
    held_s = _delta_seconds(headers.get("Age", "").split(",")[0].strip()) or 0
    return min(float(max(max_age_s - held_s, 0)), _LONGEST_LIFETIME_S)


def _hint(response: http.Response) -> str:
    if response.has_redirect_location:
        place = response.headers["Location"][:_SHOWN_CHARACTERS]
        return f"it redirects to {place!r}, which is not followed; if that is your server, name it in place of this URL"
    if response.status_code in (401, 403):
        return "it must be open to everybody, because no credentials are sent there"
    return "does it speak EHBP there? Behind a gateway that routes by path, key_url says where the key is"


def _delta_seconds(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal()):
        return None
    # RFC 9111, section 1.2.2: a number that is too large to represent counts as 2^31.
    return int(text) if len(text) <= 10 else 2**31
