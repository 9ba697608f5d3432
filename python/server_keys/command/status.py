"""The pages on which a proxy tells of itself: `/ready` for a load balancer, `/metrics` for Prometheus."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send


def by_port(port: int, app: ASGIApp, *, otherwise: ASGIApp) -> ASGIApp:
    """Return an app that passes requests which came in on `port` to `app`, and all else to `otherwise`.

    The port is that of the socket, which no request can name.
    """

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        is_there = scope["type"] == "http" and server is not None and server[1] == port
        await (app if is_there else otherwise)(scope, receive, send)

    return choose


def status_pages(why_not_ready: Callable[[], Awaitable[str | None]], metrics: ASGIApp) -> ASGIApp:
    """Return the pages.

    Args:
        why_not_ready: tells in a sentence why the proxy is not ready, without a secret; None if it is.
        metrics: serves the metrics.
    """

    async def ready(_: Request) -> Response:
        reason = await why_not_ready()
        content = {"ready": True} if reason is None else {"ready": False, "reason": reason}
        return JSONResponse(content, 200 if reason is None else 503, headers={"Cache-Control": "no-store"})

    return Starlette(routes=[Route("/ready", ready), Route("/metrics", _Page(metrics))])


class _Page:
    """An ASGI app that Starlette does not take for a function of a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
