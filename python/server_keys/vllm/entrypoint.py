"""The alternative entrypoint: `vllm serve` whose API server processes hold rotating keys.

`python -m server_keys.vllm MODEL <arguments of vllm serve>`, or `server-keys-vllm` with the same arguments.
"""

import argparse
import importlib
import multiprocessing
import os
import sys

from server_keys.vllm import options, serve_command
from server_keys.vllm.build_app import wrap_build_app
from server_keys.vllm.prompt_logging import warn_of_prompt_logging
from server_keys.vllm.refusal import refusal, refuse_without_app
from server_keys.vllm.settings import Settings


def main() -> None:
    """Run `vllm serve` with the arguments of the command line, and with keys.

    Raises:
        SystemExit: with status 2 for settings that cannot be used, before vLLM is imported; with 1 and one line where
            the server would have no keys.
    """
    arguments = sys.argv[1:]
    options.settings_at_a_glance(arguments, os.environ)
    if "--omni" in arguments:
        raise refusal("--omni hands over to another package's server, which would have no keys: leave it out")
    refuse_without_app(os.environ, grpc="--grpc" in arguments)
    try:
        serve_command.extend_parser(options.add_options, options.USAGE)
        serve_command.call_before_serving(_prepare)
        run_vllm = importlib.import_module("vllm.entrypoints.cli.main").main
    except (ImportError, AttributeError) as error:
        raise refusal(f"`vllm serve` cannot be run: {type(error).__name__}: {error}") from error
    sys.argv[1:] = ["serve", *arguments]
    run_vllm()


def _prepare(args: argparse.Namespace) -> None:
    """See to it that this process and its children build apps with keys."""
    settings = options.take_settings(args, os.environ)
    refuse_without_app(os.environ, grpc=getattr(args, "grpc", False))
    os.environ.update(settings.as_environment())
    if settings.protect:
        warn_of_prompt_logging(args, os.environ)
    _wrap_or_exit(settings)


def _wrap_or_exit(settings: Settings) -> None:
    try:
        wrap_build_app(settings)
    except Exception as error:
        raise refusal(f"vLLM's build_app cannot be wrapped: {type(error).__name__}: {error}") from error


# API server processes are spawned: they import the main module anew, before they import what serves. This is the only
# code of ours that runs there.
if multiprocessing.current_process().name != "MainProcess":
    _wrap_or_exit(Settings.read(os.environ))

if __name__ == "__main__":
    main()
