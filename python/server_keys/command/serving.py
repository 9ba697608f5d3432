"""How a command serves: uvicorn on sockets that are bound already, in this process or in workers."""

import functools
import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType

import click
import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from server_keys._log import logger
from server_keys.command import logs
from server_keys.command.http_protocol import ProxyProtocol
from server_keys.command.listening import Place

# Longer than clients and load balancers keep an idle connection, so that none of them loses a request to its end.
_KEEP_ALIVE_S = 75


def serve(
    make_app: Callable[[], ASGIApp],
    place: Place,
    *,
    announce: str,
    warnings: Sequence[str] = (),
    workers: int = 1,
    grace_s: float,
    log_level: str,
) -> None:
    """Serve until a signal ends it: SIGTERM or SIGINT. Streams that run then have `grace_s` seconds to end.

    A second SIGINT cuts them off at once.

    Args:
        make_app: makes the app, in each process that serves. It can be pickled.
        place: where to listen.
        announce: what the log says first.
        warnings: what the log says then.
        workers: how many processes serve.
        grace_s: seconds that streams have to end.
        log_level: as for `logs.configuration`.

    Raises:
        click.ClickException: the start failed; the log says why.
    """
    config = uvicorn.Config(
        functools.partial(_app, make_app),
        factory=True,
        http=ProxyProtocol,
        ws="none",
        lifespan="on",
        workers=workers,
        log_config=logs.configuration(log_level),
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(grace_s),
    )
    logger().info("%s", announce)
    for warning in warnings:
        logger().warning("%s", warning)
    has_started = _run_workers(config, place) if workers > 1 else _run_here(config, place)
    if not has_started:
        raise click.ClickException("the start failed, and the log says why")


def _run_here(config: uvicorn.Config, place: Place) -> bool:
    server = uvicorn.Server(config)

    def stop(number: int, frame: FrameType | None) -> None:
        # uvicorn raises the signal again when it has shut down; then this does nothing more.
        if number == signal.SIGINT and server.should_exit:
            for task in list(server.server_state.tasks):
                task.cancel()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        server.run(sockets=place.sockets)
    except SystemExit as end:
        return end.code in (0, None)
    return True


def _run_workers(config: uvicorn.Config, place: Place) -> bool:
    supervisor = Multiprocess(config, place.sockets)
    supervisor.run()
    return all(process.exitcode != STARTUP_FAILURE for process in supervisor.processes)


def _app(make_app: Callable[[], ASGIApp]) -> ASGIApp:
    """Make the app, in a process that serves."""
    _end_with_parent()
    return make_app()


def _end_with_parent() -> None:
    """End this process, if it is a worker, when its parent is gone in whatever way."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="end with parent", daemon=True).start()
