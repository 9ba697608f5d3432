"""How a proxy tells of itself on an address of its own. On that of the proxy all paths belong to the server behind."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator

import click
from starlette.types import ASGIApp

from server_keys.command.listening import Place, listening
from server_keys.proxy.upstream import Upstream


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
