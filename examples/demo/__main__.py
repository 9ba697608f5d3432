"""The command line of the demo: `make demo`, or `python -m examples.demo` in the checkout."""

import argparse
import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from examples.demo.app import create_app
from examples.demo.key_history import KeyHistory
from examples.demo.terminal import LiveView, LogAboveTable, PlainView, is_live, say
from server_keys._checks import overlap_seconds, positive_seconds

try:
    import uvicorn
except ImportError:
    sys.exit("The demo is served by uvicorn, which is not installed: pip install uvicorn")

# Open streams are cut off this long after Ctrl-C.
_SHUTDOWN_S = 2


def main() -> None:
    """Run the demo until it is interrupted."""
    parser = _parser()
    options = parser.parse_args()
    refresh_time_s = _checked(parser, lambda: positive_seconds("--refresh-time-s", options.refresh_time_s))
    overlap_s = _checked(parser, lambda: overlap_seconds("--overlap-s", options.overlap_s, refresh_time_s))
    word_delay_s = _checked(parser, lambda: positive_seconds("--word-delay-s", options.word_delay_s))
    try:
        listener = _listener(options.host, options.port)
    except OSError as error:
        sys.exit(f"Cannot listen on {options.host} port {options.port}: {_what_to_do(error)}")
    # uvicorn raises the signal that stopped it once more, when it has shut down: the keys' end is shown after that. Not
    # default_int_handler, which asyncio would replace with its own.
    for stopping in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stopping, _interrupt)
    with listener, suppress(KeyboardInterrupt):
        asyncio.run(_serve(listener, options.host, refresh_time_s, overlap_s, word_delay_s))


async def _serve(
    listener: socket.socket, host: str, refresh_time_s: float, overlap_s: float, word_delay_s: float
) -> None:
    live = is_live(sys.stdout)
    history = KeyHistory() if live else KeyHistory(on_event=PlainView(sys.stdout, overlap_s).tell)
    app = create_app(refresh_time_s, overlap_s, word_delay_s=word_delay_s, history=history)
    # Requests are counted in the table; what goes wrong is logged. The parser that comes with uvicorn is named, so that
    # the demo is the same for everybody, whatever else is installed.
    config = uvicorn.Config(
        app,
        http="h11",
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )
    server = uvicorn.Server(config)
    say(f"server-keys demo on {_url(host, listener)} - Ctrl-C stops it", sys.stdout)
    say(
        f"A new X25519 key pair every {refresh_time_s:g} s, each still accepted for {overlap_s:g} s, then erased.\n",
        sys.stdout,
    )
    log_handler: logging.Handler = logging.StreamHandler()
    showing = None
    if live:
        view = LiveView(sys.stdout, history, refresh_time_s, overlap_s)
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


def _checked(parser: argparse.ArgumentParser, check: Callable[[], float]) -> float:
    try:
        return check()
    except ValueError as error:
        parser.error(str(error))


def _listener(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    # Not by create_server: asyncio turns Nagle's algorithm off only for sockets whose protocol is named. With it, each
    # response of two packets takes 40 ms.
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would share the port with a server that has it
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
        return f"no address has that name ({reason}). Choose another host with --host."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"that is no address of this machine ({reason}). Choose another host with --host."
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="A server whose X25519 keys come, overlap and are erased every few seconds while you look on, in "
        "this terminal and on the page that it serves.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="port, 0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--refresh-time-s", type=float, default=8.0, metavar="S", help="seconds between refreshes (default: 8)"
    )
    parser.add_argument(
        "--overlap-s",
        type=float,
        metavar="S",
        help="seconds for which a replaced key is still accepted, at most the refresh time, which is the default",
    )
    parser.add_argument(
        "--word-delay-s",
        type=float,
        default=0.07,
        metavar="S",
        help="seconds between the words of a chat's answer, so that each is seen to arrive (default: 0.07)",
    )
    return parser


if __name__ == "__main__":
    main()
