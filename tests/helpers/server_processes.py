"""Real servers of every kind in processes of their own, and nginx in front of them."""

import contextlib
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.served_command import running_command

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class ServerKind:
    """A server as an operator starts it."""

    name: str
    module: str
    options: tuple[str, ...]
    http2: bool = False

    def __str__(self) -> str:
        return self.name

    def command(self, app: str, port: int) -> list[str]:
        """Return the command that serves `app` on a port of 127.0.0.1."""
        options = [option.format(host="127.0.0.1", port=port) for option in self.options]
        return [sys.executable, "-m", self.module, *options, app]


_UVICORN = ("--host", "{host}", "--port", "{port}", "--log-level", "warning", "--ws", "none", "--loop")
_GRANIAN = ("--interface", "asgi", "--host", "{host}", "--port", "{port}", "--no-ws", "--log-level", "warning")
_GUNICORN = ("--worker-class", "asgi", "--log-level", "warning", "--no-control-socket", "--bind", "{host}:{port}")

SERVER_KINDS = (
    ServerKind("uvicorn-h11", "uvicorn", (*_UVICORN, "asyncio", "--http", "h11")),
    ServerKind("uvicorn-httptools", "uvicorn", (*_UVICORN, "uvloop", "--http", "httptools")),
    ServerKind("hypercorn", "hypercorn", ("--bind", "{host}:{port}")),
    ServerKind("hypercorn-http2", "hypercorn", ("--bind", "{host}:{port}"), http2=True),
    ServerKind("granian", "granian", (*_GRANIAN, "--http", "1")),
    ServerKind("granian-http2", "granian", (*_GRANIAN, "--http", "2"), http2=True),
    ServerKind("gunicorn", "gunicorn", _GUNICORN),
)


@contextlib.contextmanager
def serving(kind: ServerKind, app: str, log: Path) -> Iterator[int]:
    """Serve `app` (`module:name`) by a server of `kind` and yield its port on 127.0.0.1."""
    port = free_port()
    with running_command(kind.command(app, port), port, log, folder=ROOT):
        yield port


@contextlib.contextmanager
def nginx(folder: Path, http: str, port: int) -> Iterator[None]:
    """Run nginx with `http` as the content of its block `http`, which must make it listen on `port`."""
    program = _nginx_program()
    assert program is not None
    temporary = "".join(
        f"{name}_temp_path {folder}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # nginx's workers would give up root, and could not write into a test's folder then.
    user = "user root; " if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"{user}daemon off; worker_processes 1; pid {folder}/pid; error_log stderr warn; events {{ }}\n"
        f"http {{ access_log off; {temporary}\n{http}\n}}\n"
    )
    with running_command(
        [program, "-p", str(folder), "-c", str(configuration)], port, folder / "nginx.log", folder=ROOT
    ):
        yield


@contextlib.contextmanager
def haproxy(folder: Path, configuration: str, port: int) -> Iterator[None]:
    """Run HAProxy with the sections of `configuration`, which must make it listen on `port`."""
    program = _haproxy_program()
    assert program is not None
    path = folder / "haproxy.cfg"
    path.write_text(
        f"defaults\n  mode http\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n{configuration}\n"
    )
    with running_command([program, "-db", "-f", str(path)], port, folder / "haproxy.log", folder=ROOT):
        yield


def has_haproxy() -> bool:
    """Return whether there is a HAProxy."""
    return _haproxy_program() is not None


def _haproxy_program() -> str | None:
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def has_nginx() -> bool:
    """Return whether there is an nginx."""
    return _nginx_program() is not None


def _nginx_program() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
