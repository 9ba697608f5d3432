"""The ASGI app in the middle of both ends: it passes each request on to one upstream."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx2
from starlette.types import Receive, Scope, Send

from server_keys._sealing.answers import Answer, send_answer
from server_keys._sealing.upload import Upload
from server_keys.proxy.exchange import Exchange, RequestBody
from server_keys.proxy.failures import NOT_ORIGIN_FORM, UNKNOWN_CODING, UNUSABLE_TARGET, UPGRADE
from server_keys.proxy.headers import RawHeaders, has_body, of_request, values_of
from server_keys.proxy.upstream import Upstream

TARGET = "server_keys.target"
"""The request target as it came, in scopes of the server that `server-keys` runs. ASGI itself hides its form."""


_DOT_SEGMENT = re.compile(rb"/\.\.?(?:/|$)")


class Forwarder:
    """Passes requests on to an upstream, and its responses back.

    Args:
        client: sends the requests.
        upstream: gets them, whatever they say.
        described: changes the headers that are passed on, given the scope.
    """

    def __init__(
        self,
        client: httpx2.AsyncClient,
        upstream: Upstream,
        described: Callable[[RawHeaders, Scope], RawHeaders] | None = None,
    ) -> None:
        self._client = client
        self._upstream = upstream
        self._url = httpx2.URL(upstream.url)
        self._host = upstream.authority.encode()
        self._described = described

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Websockets are refused."""
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1003, "reason": "this proxy passes no websockets on"})
        upload = Upload(scope, receive)
        answer = _refusal(scope)
        if answer is None:
            try:
                exchange = self._exchange(scope, upload.receive, send)
            except httpx2.InvalidURL:
                answer = UNUSABLE_TARGET
            else:
                answer = await exchange.run()
        if answer is not None:
            await send_answer(answer, scope, upload, send)

    def _exchange(self, scope: Scope, receive: Receive, send: Send) -> Exchange:
        headers = of_request(scope["headers"], self._host)
        if self._described is not None:
            headers = self._described(headers, scope)
        body = RequestBody(receive) if has_body(scope["headers"]) else None
        target = _target(scope)
        url = self._url.copy_with(raw_path=target)
        extensions: dict[str, Any] = {"timeout": self._client.timeout.as_dict()}
        if url.raw_path != target and not _DOT_SEGMENT.search(_raw_path(scope)):
            # Send it as it came: the URL has quoted it anew. Dot segments stay resolved: a proxy on the way may resolve
            # them, and a server that compares what was sealed would refuse the request.
            extensions["target"] = target
        request = httpx2.Request(
            scope["method"], url, headers=headers, stream=body or httpx2.ByteStream(b""), extensions=extensions
        )
        return Exchange(self._client, request, body, receive, send, self._upstream)


def _refusal(scope: Scope) -> Answer | None:
    if any(name == b"upgrade" for name, _ in scope["headers"]):
        return UPGRADE
    if any(coding.strip().lower() != "chunked" for coding in values_of(scope["headers"], b"transfer-encoding")):
        return UNKNOWN_CODING
    return None if (scope.get(TARGET) or _raw_path(scope)).startswith(b"/") else NOT_ORIGIN_FORM


def _target(scope: Scope) -> bytes:
    path, query = _raw_path(scope), scope.get("query_string", b"")
    return path + b"?" + query if query else path


def _raw_path(scope: Scope) -> bytes:
    """Return the path as it came; where the server does not tell that, in the form that most clients give it."""
    path: bytes | None = scope.get("raw_path")
    return quote(scope["path"], errors="surrogatepass").encode() if path is None else path
