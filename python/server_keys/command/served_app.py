"""The app that a command serves: one end of the proxy, and on another port the pages on which it tells of itself."""

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from server_keys.command.metrics_folder import has_metrics, metrics_folder
from server_keys.command.status import by_port, status_pages
from server_keys.proxy.options import OpenOptions, SealOptions
from server_keys.proxy.quiet import Quiet

_NO_PROMETHEUS = (
    "there are no metrics: they need prometheus_client, which server-keys brings with its extra `metrics`\n"
)
_NOT_AT_THIS_END = "there are no metrics at this end: server-keys open has them, at the other one\n"


def opening(options: OpenOptions, status_port: int | None) -> ASGIApp:
    """Return the server's end of the proxy, with its pages on `status_port` if that is a port."""
    from server_keys.proxy.opening import protected_forwarder
    from server_keys.readiness import why_not_ready

    app = protected_forwarder(options)
    if status_port is None:
        return Quiet(app)

    async def why() -> str | None:
        return why_not_ready(app)

    metrics: ASGIApp = PlainTextResponse(_NO_PROMETHEUS, 404)
    if has_metrics():
        from server_keys.command.workers_metrics import metrics_page

        metrics = metrics_page(app, metrics_folder())
    return Quiet(by_port(status_port, status_pages(why, metrics), otherwise=app))


def sealing(options: SealOptions, status_port: int | None) -> ASGIApp:
    """Return the client's end of the proxy, with its pages on `status_port` if that is a port."""
    from server_keys.proxy.sealing import sealing_forwarder

    app, why_not_ready = sealing_forwarder(options)
    if status_port is None:
        return Quiet(app)
    pages = status_pages(why_not_ready, PlainTextResponse(_NOT_AT_THIS_END, 404))
    return Quiet(by_port(status_port, pages, otherwise=app))
