"""Programs of others that serve, as processes of their own."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


@contextlib.contextmanager
def running_command(
    command: Sequence[str], port: int, log: Path, *, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run a command that serves on a port of 127.0.0.1, from when it accepts connections there until the block's end.

    Args:
        command: the program and its arguments.
        port: where it will listen.
        log: the file for what it prints.
        folder: its working folder.
        environment: variables on top of this process's.

    Raises:
        AssertionError: it ended, or did not listen within 30 s. The message has its log.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(environment or {})}, stdout=output, stderr=output
        )
    try:
        until = time.monotonic() + 30
        while not _accepts(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
