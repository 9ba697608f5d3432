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

from server_keys.command.listening import Place, listening
from server_keys.proxy.upstream import Upstream

# By it prometheus_client learns where processes leave their metrics for each other.
_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


@dataclasses.dataclass(frozen=True)
class Observed:
    """What a command serves, and where."""

    make_app: Callable[[], ASGIApp]
    """Makes the app, in each process that serves."""
    place: Place
    announce: str
    """What the log says of the pages on it, after what it says of the proxy."""


@contextlib.contextmanager
def observed(
    status_listen: str | None,
    make_app: Callable[[int | None], ASGIApp],
    place: Place,
    upstream: Upstream,
    pages: str,
) -> Iterator[Observed]:
    """Yield what serves at `place`, and if there is `status_listen`, the pages there, until the end of the block.

    Args:
        status_listen: `HOST:PORT`, or None.
        make_app: makes the app, with the port on which its pages are, or None for none. It can be pickled.
        place: where the proxy listens.
        upstream: where it passes requests on to.
        pages: what the log says of the pages.

    Raises:
        click.UsageError: `status_listen` is something else, or has the port of `place`, by which requests are told
            apart.
        click.ClickException: nobody can listen there.
    """
    if status_listen is None:
        yield Observed(functools.partial(make_app, None), place, "")
        return
    with listening(status_listen, allow_remote=True, upstream=upstream, option="--status-listen", or_unix=False) as own:
        port: int = own.sockets[0].getsockname()[1]
        address = place.sockets[0].getsockname()
        if isinstance(address, tuple) and address[1] == port:
            raise click.UsageError(f"--status-listen: {own.shown} must have another port than --listen {place.shown}")
        both = dataclasses.replace(place, sockets=[*place.sockets, *own.sockets])
        yield Observed(functools.partial(make_app, port), both, f"; on {own.shown}: {pages}")


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


def metrics_folder() -> str | None:
    """Return where the workers of this command leave their metrics for each other; None if there is one only."""
    return os.environ.get(_FOLDER_VARIABLE)
