"""How a proxy tells of itself on an address of its own. On that of the proxy all paths belong to the server behind."""

import contextlib
import dataclasses
import functools
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator

import click
from starlette.types import ASGIApp

from server_keys.command.listening import Place
from server_keys.proxy.options import OpenOptions

# By it prometheus_client learns where processes leave their metrics for each other.
_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@dataclasses.dataclass(frozen=True)
class Observed:
    """What a command serves, and where."""

    make_app: Callable[[], ASGIApp]
    """Makes the app, in each process that serves."""
    place: Place
    announce: str
    """What the log says of the pages on it."""


def observed(options: OpenOptions, place: Place, own: Place) -> Observed:
    """Return the server's end of the proxy at `place`, and the pages on it at `own`.

    Raises:
        click.UsageError: both have one port, by which requests are told apart.
    """
    port: int = own.sockets[0].getsockname()[1]
    address = place.sockets[0].getsockname()
    if isinstance(address, tuple) and address[1] == port:
        raise click.UsageError(f"--status-listen: {own.shown} must have another port than --listen {place.shown}")
    pages = "/ready and /metrics are" if has_metrics() else "/ready is"
    hint = "" if has_metrics() else " (/metrics needs prometheus_client, which the extra `metrics` brings)"
    return Observed(
        functools.partial(_observed_app, options, port),
        dataclasses.replace(place, sockets=[*place.sockets, *own.sockets]),
        f"; {pages} on {own.shown}{hint}",
    )


def has_metrics() -> bool:
    """Return whether there is what Prometheus' metrics need."""
    return importlib.util.find_spec("prometheus_client") is not None


@contextlib.contextmanager
def metrics_of_workers(workers: int) -> Iterator[None]:
    """Let workers, if there are several, leave their metrics for each other, in a folder that goes with the block.

    Raises:
        click.ClickException: no folder can be made.
    """
    # The variable may be meant for the server behind, whose metrics these are not.
    os.environ.pop(_FOLDER_VARIABLE, None)
    if workers == 1 or not has_metrics():
        yield
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="server-keys-metrics-", ignore_cleanup_errors=True)
    except OSError as error:
        raise click.ClickException(
            f"cannot make a folder for the metrics of several workers ({error}): let TMPDIR name a folder where this "
            "user may write"
        ) from None
    with folder as path:
        os.environ[_FOLDER_VARIABLE] = path
        yield


def _observed_app(options: OpenOptions, port: int) -> ASGIApp:
    from server_keys.command.status import by_port, status_pages
    from server_keys.proxy.opening import protected_forwarder
    from server_keys.proxy.quiet import Quiet

    app = protected_forwarder(options)
    pages = status_pages(app, with_metrics=has_metrics(), folder=os.environ.get(_FOLDER_VARIABLE))
    return Quiet(by_port(port, pages, otherwise=app))
