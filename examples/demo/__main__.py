"""The command line of the demo: `make demo`, or `python -m examples.demo` in the checkout."""

import argparse
import asyncio
import errno
import json
import logging
import math
import os
import signal
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI

from examples.demo.app import create_app
from examples.demo.board import Board
from examples.demo.key_history import KeyHistory
from examples.demo.terminal import GroupView, LiveView, LogAboveTable, PlainView, is_live, say
from examples.demo.worker import VARIABLE
from server_keys import engine
from server_keys.command.identity import new_identity

try:
    import uvicorn
except ImportError:
    sys.exit("uvicorn serves the demo and is not installed. `make demo` installs it; so does: pip install uvicorn")

# Seconds after Ctrl-C until open streams are cut off.
_SHUTDOWN_S = 2
_MOST_WORKERS = 64


def main() -> None:
    """Run the demo until it is interrupted."""
    parser = _parser()
    options = parser.parse_args()
    refresh_time_s: float = options.refresh_time_s
    overlap_s: float = refresh_time_s if options.overlap_s is None else options.overlap_s
    is_table = is_live(sys.stdout)
    history = KeyHistory() if is_table else KeyHistory(on_event=PlainView(sys.stdout, overlap_s).tell)
    # For this run only: the demo's clients get it from its page.
    folder = tempfile.TemporaryDirectory(prefix="server-keys-demo-identity-")
    identity = Path(folder.name) / "server.key"
    new_identity(identity)
    try:
        app = create_app(
            refresh_time_s, overlap_s, word_delay_s=options.word_delay_s, history=history, identity=identity
        )
    except ValueError as error:
        parser.error(f"--refresh-time-s, --overlap-s: {error}")
    try:
        listener = _listener(options.host, options.port)
    except OSError as error:
        sys.exit(f"Cannot listen on {options.host} port {options.port}: {_what_to_do(error)}")
    # uvicorn shuts down first and then raises the signal again. With this handler that is a KeyboardInterrupt, and the
    # demo still shows the keys' end. asyncio would replace Python's default_int_handler with its own.
    for stopping in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stopping, _interrupt)
    with folder, listener, suppress(KeyboardInterrupt):
        view = LiveView(sys.stdout, history, refresh_time_s, overlap_s) if is_table else None
        url = _url(options.host, listener)
        say(f"server-keys demo on {url} - Ctrl-C stops it", sys.stdout)
        overlap = f"each still accepted for {overlap_s:g} s, then erased"
        if options.workers == 1:
            say(f"A new X25519 key pair every {refresh_time_s:g} s, {overlap}.\n{engine()}\n", sys.stdout)
            asyncio.run(_serve(app, listener, history, view))
        else:
            pairs = f"for all {options.workers} processes together"
            say(f"A new X25519 key pair every {refresh_time_s:g} s {pairs}, {overlap}.\n{engine()}\n", sys.stdout)
            durations = {"refresh_time_s": refresh_time_s, "overlap_s": overlap_s, "word_delay_s": options.word_delay_s}
            _serve_by_workers(options.workers, listener, durations, identity)


def _serve_by_workers(workers: int, listener: socket.socket, durations: dict[str, float], identity: Path) -> None:
    """Serve by several processes, which uvicorn starts, and starts again when they die."""
    # uvicorn passes the socket on as one of another kind, for which asyncio does not do this.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with tempfile.TemporaryDirectory(prefix="server-keys-demo-") as folder:
        board = Board(Path(folder))
        os.environ[VARIABLE] = json.dumps({**durations, "folder": folder, "identity": str(identity)})
        ended = threading.Event()
        view = GroupView(sys.stdout, board, durations["overlap_s"])
        showing = threading.Thread(target=view.show, args=(ended,))
        showing.start()
        try:
            uvicorn.run(
                "examples.demo.worker:create_worker",
                factory=True,
                fd=listener.fileno(),
                workers=workers,
                http="h11",
                lifespan="on",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=_SHUTDOWN_S,
            )
        finally:
            ended.set()
            showing.join()
        last = board.processes()
        served = [process for process in last if board.silent_s(process) < _SHUTDOWN_S + 1]
        erased = sum(process.unerased == 0 for process in served)
        say(f"\nStopped: {erased} of {len(served)} processes have erased all of their key pairs.", sys.stdout)
    if not last:
        sys.exit("The demo did not start: the reason is above.")


async def _serve(app: FastAPI, listener: socket.socket, history: KeyHistory, view: LiveView | None) -> None:
    # The table counts requests, so there is no access log. h11 comes with uvicorn: with it the demo behaves the same
    # whatever else is installed.
    config = uvicorn.Config(
        app,
        http="h11",
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    server = uvicorn.Server(config)
    log_handler: logging.Handler = logging.StreamHandler()
    showing = None
    if view is not None:
        log_handler = LogAboveTable(view)
        showing = asyncio.create_task(view.show())
    logging.basicConfig(level=logging.WARNING, handlers=[log_handler], format="%(levelname)s %(name)s: %(message)s")
    try:
        await server.serve(sockets=[listener])
    finally:
        if showing is not None:
            showing.cancel()
            await asyncio.wait([showing])
        erased = history.made - history.unerased
        say(f"\nStopped: {erased} of {history.made} key pairs of this run are erased.", sys.stdout)
    if not server.started:
        sys.exit("The demo did not start: the reason is above.")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _listener(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    # create_server names no protocol, and then asyncio leaves Nagle's algorithm on: each response of two packets would
    # take 40 ms.
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # on Windows this option would share the port with another server
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _what_to_do(error: OSError) -> str:
    reason = error.strerror or str(error)
    if isinstance(error, socket.gaierror):
        return f"that name has no address ({reason}). Choose another host with --host."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine does not have that address ({reason}). Choose another host with --host."
    return f"{reason}. Choose another port with --port; --port 0 takes a free one."


def _url(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    # Browsers have WebCrypto on loopback addresses and over TLS only.
    name = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}/"


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST_WORKERS:
        raise argparse.ArgumentTypeError(f"is a number from 1 to {_MOST_WORKERS}, not {text!r}")
    if int(text) > 1 and os.name != "posix":
        raise argparse.ArgumentTypeError("must be 1 on this system: its processes cannot pass a socket on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number of seconds, 0 or more, not {text!r}")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Run a server that replaces and erases its X25519 keys every few seconds. Watch them in this "
        "terminal and on the page that it serves.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="port, 0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--workers", type=_workers, default=1, metavar="N", help="processes that share the keys (default: 1)"
    )
    parser.add_argument(
        "--refresh-time-s", type=_seconds, default=8.0, metavar="S", help="seconds between refreshes (default: 8)"
    )
    parser.add_argument(
        "--overlap-s",
        type=_seconds,
        metavar="S",
        help="seconds for which a replaced key is still accepted, up to the refresh time (default: the refresh time)",
    )
    parser.add_argument(
        "--word-delay-s",
        type=_seconds,
        default=0.07,
        metavar="S",
        help="seconds between the words of a chat's answer, so that you see each arrive (default: 0.07)",
    )
    return parser


if __name__ == "__main__":
    main()
