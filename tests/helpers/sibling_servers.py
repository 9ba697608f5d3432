"""Servers that a program starts: `python -m tests.helpers.sibling_servers NAME [ARGUMENT]`. They run until killed."""

import argparse
import multiprocessing
import socket
import sys
import threading
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

APP = "tests.helpers.sibling_app:app"
OPTIONS: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "log_level": "warning", "ws": "none"}


def two_apps(method: str) -> None:
    """Serve one app twice, each in a process that binds its own socket, as tests often do."""
    context: Any = multiprocessing.get_context(method)
    for _ in range(2):
        context.Process(target=uvicorn.run, args=(APP,), kwargs=OPTIONS).start()


def two_servers() -> None:
    """Run two servers, each with a socket and two workers, under one process."""
    for _ in range(2):
        config = uvicorn.Config(APP, workers=2, **OPTIONS)
        supervisor = Multiprocess(config, [config.bind_socket()])
        threading.Thread(target=supervisor.run).start()


def api_servers() -> None:
    """Start API server processes as `vllm serve --api-server-count 2` does."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    context = multiprocessing.get_context("spawn")
    processes = []
    for index, listener in enumerate(listeners):
        arguments = (sock, argparse.Namespace(**OPTIONS), {"input_listener": listener})
        processes.append(context.Process(target=api_server, name=f"ApiServer_{index}", args=arguments))
        processes[-1].start()
        listener.close()
    for process in processes:
        process.join()


def api_server(sock: socket.socket, args: argparse.Namespace, client_config: dict[str, socket.socket]) -> None:
    """Serve in one of vLLM's processes, which has a listener of its own for its engines."""
    client_config["input_listener"].listen()
    uvicorn.Server(uvicorn.Config(APP, **vars(args))).run(sockets=[sock])


def spawning_granian(port: str) -> None:
    """Run granian whose workers are spawned, as they are by default since Python 3.14."""
    from granian.constants import Interfaces
    from granian.server import Server

    multiprocessing.set_start_method("spawn")
    Server(APP, address="127.0.0.1", port=int(port), interface=Interfaces.ASGI, workers=2, websockets=False).serve()


if __name__ == "__main__":
    {function.__name__: function for function in (two_apps, two_servers, api_servers, spawning_granian)}[sys.argv[1]](
        *sys.argv[2:]
    )
