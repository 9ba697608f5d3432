"""Who may use the client's end: programs that name it by its own name, and no web page of another origin.

It seals for whoever reaches it. A page that somebody visits can reach it, too: by its address, or by a name of the
page's own that it lets stand for that address (DNS rebinding). `Origin` and `Host` tell, because no page can set them.
"""

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from server_keys._sealing.answers import Answer, problem
from server_keys._sealing.upload import Upload
from server_keys.proxy.headers import RawHeaders, values_of

_FROM_ELSEWHERE = frozenset({"cross-site", "same-site"})


class Gate:
    """Refuses requests that are not meant for this proxy, before anything of them is passed on.

    Args:
        app: gets the others.
        names: what `Host` may be, with ports; 80 may be left out.
        origins: the origins of the web pages that may use it, beside its own.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], origins: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(_without_default_port(name.lower()) for name in names)
        own = {f"http://{name}" for name in self._names}
        self._origins = frozenset(own | {origin.lower().removesuffix("/") for origin in origins})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or lifespan."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        refusal = self._refusal(scope["headers"])
        if refusal is None:
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008, "reason": "not for this proxy"})
        await _send(refusal, Upload(scope, receive), send, head=scope["method"] == "HEAD")

    def _refusal(self, headers: RawHeaders) -> Answer | None:
        hosts = values_of(headers, b"host")
        if len(hosts) != 1:
            return problem(400, f"a request must have one Host header, not {len(hosts)}")
        if _without_default_port(hosts[0].lower()) not in self._names:
            return problem(
                421,
                f"this proxy is not called {hosts[0]!r}: use the address that it listens on, or let it know the name "
                "(--name)",
            )
        origins = values_of(headers, b"origin")
        if any(origin.lower() not in self._origins for origin in origins):
            return problem(403, f"pages of {', '.join(origins)!r} may not use this proxy: --allow-origin lets them")
        if not origins and _FROM_ELSEWHERE.intersection(values_of(headers, b"sec-fetch-site")):
            return problem(403, "pages of another site may not use this proxy: --allow-origin lets them")
        return None


async def _send(answer: Answer, upload: Upload, send: Send, *, head: bool) -> None:
    """Send a refusal that no page of another origin can read, and end the connection."""
    await upload.discard_rest()
    headers = [
        (b"content-type", answer.media_type.encode()),
        (b"content-length", b"%d" % len(answer.body)),
        (b"cache-control", answer.cache_control.encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else answer.body})


def _without_default_port(name: str) -> str:
    return name.removesuffix(":80")
