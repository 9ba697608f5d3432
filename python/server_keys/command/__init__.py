"""`server-keys`: what an operator types. One module for each subcommand."""

import importlib
import os
import sys

_NEEDED = ("click", "httptools", "httpx2", "uvicorn")


def main() -> None:
    """Run the command with the arguments of the command line.

    Raises:
        SystemExit: with status 2 for wrong usage, 1 for a failure, 0 otherwise. Errors are one line on stderr.
    """
    _hold_standard_streams()
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            print(
                f"server-keys: {name} is missing: install server-keys with its extra `command`, or "
                f"pip install {' '.join(_NEEDED)}",
                file=sys.stderr,
            )
            raise SystemExit(1) from None
    from server_keys.command.cli import run

    run(sys.argv[1:])


def _hold_standard_streams() -> None:
    """Open what is closed of the file descriptors 0 to 2, which a service manager may leave so.

    Otherwise a socket would take its number. Whoever writes an error message then writes it to a client, and libuv
    aborts the process when it closes such a socket.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free
            os.set_inheritable(nowhere, True)  # by workers
