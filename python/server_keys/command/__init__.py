"""`server-keys`: what an operator types. One module for each subcommand."""

import importlib
import sys

_NEEDED = ("click", "httptools", "httpx2", "uvicorn")


def main() -> None:
    """Run the command with the arguments of the command line.

    Raises:
        SystemExit: with status 2 for wrong usage, 1 for a failure, 0 otherwise. Errors are one line on stderr.
    """
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
