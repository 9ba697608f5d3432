"""The sockets that a proxy listens on: bound before anything else starts, so that an error is one line."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from server_keys.proxy.upstream import Upstream, is_loopback

_BACKLOG = 2048
_OWNER_ONLY = 0o600
_NAMES_OF_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Place:
    """Where a proxy listens."""

    sockets: list[socket.socket]
    shown: str
    """Its URLs, or the path of its socket, for people."""
    names: tuple[str, ...]
    """By what `Host` may call it."""


@contextlib.contextmanager
def listening(
    listen: str, *, allow_remote: bool, upstream: Upstream, option: str = "--listen", or_unix: bool = True
) -> Iterator[Place]:
    """Listen, until the end of the block.

    Args:
        listen: `HOST:PORT`, or `unix:/PATH`.
        allow_remote: whether others than programs of this machine may come.
        upstream: where requests are passed on to. It must be somebody else.
        option: the option that `listen` is the value of, for messages.
        or_unix: whether it may be a Unix socket.

    Raises:
        click.UsageError: `listen` is neither, or is not on the loopback interface and must be, or is the upstream.
        click.ClickException: nobody can listen there, for example because somebody does.
    """
    if or_unix and listen.startswith("unix:"):
        with _unix_socket(listen.removeprefix("unix:"), upstream) as place:
            yield place
        return
    host, port = _host_and_port(listen, option, or_unix=or_unix)
    if not (allow_remote or is_loopback(host)):
        raise click.UsageError(
            f"{option}: {host} is not on the loopback interface, so others could send plaintext here over a network: "
            "listen on 127.0.0.1, or allow it (--allow-remote-clients)"
        )
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(each) for each in _bound(host, port)]
        port = sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        names = _names(shown, port)
        if upstream.socket_path is None and upstream.address in names:
            raise click.UsageError(f"--to: {upstream.shown} is where this proxy itself listens ({option} {listen})")
        for each in sockets:
            _listen(each, listen)
        yield Place(sockets, f"http://{shown}:{port}", names)


def is_local(host: str) -> bool:
    """Return whether who listens on `host` is reached by a loopback address."""
    return is_loopback(host) or host in ("0.0.0.0", "::")  # noqa: S104 - the names of all addresses


def _names(host: str, port: int) -> tuple[str, ...]:
    hosts = {host, *_NAMES_OF_LOOPBACK} if is_local(host.strip("[]")) else {host}
    return tuple(sorted(f"{each}:{port}" for each in hosts))


def _host_and_port(listen: str, option: str, *, or_unix: bool) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or parts.netloc != listen or "@" in listen:
        forms = "HOST:PORT, such as 127.0.0.1:8011" + (", or unix:/PATH" if or_unix else "")
        raise click.UsageError(f"{option} must be {forms}, not {listen!r}")
    return host, port


def _bound(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address of `host`; for any free port (0) one only, because there is one number."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}: {error.strerror}") from None
    except UnicodeError:  # an empty label, or one of more than 63 characters
        raise click.UsageError(f"cannot listen on {host!r}, which cannot be a host's name") from None
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    sockets: list[socket.socket] = []
    for family, address in addresses[:1] if port == 0 else addresses:
        # Name the protocol: only then does asyncio turn Nagle's algorithm off.
        each = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            each.bind(address)
        except OSError as error:
            each.close()
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(addresses) > 1:
                continue  # such as ::1 on a machine without IPv6
            for other in sockets:
                other.close()
            raise _cannot_listen(f"{host}:{port}", error) from None
        sockets.append(each)
    if not sockets:
        raise click.ClickException(f"cannot listen on {host}:{port}: this machine has none of its addresses")
    return sockets


def _listen(each: socket.socket, shown: str) -> None:
    try:
        each.listen(_BACKLOG)
    except OSError as error:
        raise _cannot_listen(shown, error) from None


def _cannot_listen(shown: str, error: OSError) -> click.ClickException:
    hint = ": another program listens there, or this one twice" if error.errno == errno.EADDRINUSE else ""
    # A path that is too long for a socket has no number, only words.
    reason = str(error) if error.errno is None else os.strerror(error.errno)
    return click.ClickException(f"cannot listen on {shown}: {reason}{hint}")


@contextlib.contextmanager
def _unix_socket(path: str, upstream: Upstream) -> Iterator[Place]:
    if not path.startswith("/"):
        raise click.UsageError(f"--listen: a Unix socket must have an absolute path, not {path!r}")
    if upstream.socket_path == path:
        raise click.UsageError(f"--to: unix:{path} is where this proxy itself listens")
    _remove_leftover(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        # Set before there is a file: who opens it in between stays connected.
        old = os.umask(0o777 & ~_OWNER_ONLY)
        try:
            listener.bind(path)
        except OSError as error:
            raise _cannot_listen(f"unix:{path}", error) from None
        finally:
            os.umask(old)
        try:
            _listen(listener, f"unix:{path}")
            yield Place([listener], f"unix:{path}", ("localhost",))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _remove_leftover(path: str) -> None:
    """Remove a socket that a program left when it was killed. What anybody listens on stays."""
    try:
        is_socket = stat.S_ISSOCK(Path(path).lstat().st_mode)
    except OSError:
        return  # `bind` tells what is wrong, if anything is
    if not is_socket:
        raise click.ClickException(f"cannot listen on unix:{path}: there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
        try:
            tried.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return
