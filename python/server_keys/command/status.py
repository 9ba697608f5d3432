"""The pages on which a proxy tells of itself: `/ready` for a load balancer, `/metrics` for Prometheus."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from server_keys.readiness import ready

_GAUGE_OF_LIVING = re.compile(r"gauge_live.*_(\d+)\.db")
_NO_METRICS = "there are no metrics: they need prometheus_client, which server-keys brings with its extra `metrics`\n"


def by_port(port: int, app: ASGIApp, *, otherwise: ASGIApp) -> ASGIApp:
    """Return an app that passes requests which came in on `port` to `app`, and all else to `otherwise`.

    The port is that of the socket, which no request can name.
    """

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        is_there = scope["type"] == "http" and server is not None and server[1] == port
        await (app if is_there else otherwise)(scope, receive, send)

    return choose


def status_pages(app: FastAPI, *, with_metrics: bool, folder: str | None) -> ASGIApp:
    """Return the pages on an app. With metrics, its requests and keys are counted from now on.

    Args:
        app: an app with a key lifespan.
        with_metrics: whether there is prometheus_client.
        folder: where the app's processes leave their metrics for each other, if there are several.
    """

    async def tell(request: Request) -> Response:
        return await ready(Request({**request.scope, "app": app}))

    metrics = _metrics_of(app, folder) if with_metrics else PlainTextResponse(_NO_METRICS, 404)
    return Starlette(routes=[Route("/ready", tell), Route("/metrics", _Page(metrics))])


class _Page:
    """An ASGI app that Starlette does not take for a function of a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _metrics_of(app: FastAPI, folder: str | None) -> ASGIApp:
    from prometheus_client import REGISTRY, CollectorRegistry, make_asgi_app
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

    from server_keys import metrics

    class LivingWorkers(MultiProcessCollector):
        """The metrics of all workers, without the keys of those that were killed."""

        def collect(self) -> Iterable[Any]:
            for pid in _dead(folder or ""):
                with contextlib.suppress(FileNotFoundError):  # another worker is asked at the same time
                    mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]
            collected: Iterable[Any] = super().collect()  # type: ignore[no-untyped-call]
            return collected

    metrics.instrument(app)
    registry = REGISTRY
    if folder is not None:
        registry = CollectorRegistry()
        LivingWorkers(registry, folder)  # type: ignore[no-untyped-call]
    page: ASGIApp = make_asgi_app(registry=registry)
    return page


def _dead(folder: str) -> Iterator[int]:
    """Yield the processes that have left files in a folder of metrics, and do not run any more."""
    found = {int(match[1]) for path in Path(folder).iterdir() if (match := _GAUGE_OF_LIVING.fullmatch(path.name))}
    for pid in found:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            yield pid
        except PermissionError:
            continue
