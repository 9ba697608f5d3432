"""The alternative entrypoint: `vllm serve` whose API server processes hold rotating keys.

`python -m server_keys.vllm MODEL <arguments of vllm serve>`, or `server-keys-vllm` with the same arguments.
"""

import argparse
import multiprocessing
import os
import sys

from server_keys import __version__
from server_keys.vllm import hooks
from server_keys.vllm.command_line import add_options, help_text, print_and_end, settings_at_a_glance, take_settings
from server_keys.vllm.options import PROGRAM, USAGE
from server_keys.vllm.settings import Settings
from server_keys.vllm.start_checks import installed_vllm, refusal, refuse_without_app, warn_of_plaintext


def main() -> None:
    """Run `vllm serve` with the arguments of the command line, and with keys.

    `--help` and `--version` answer at once and need no vLLM.

    Raises:
        SystemExit: with status 2 for settings that cannot be used, before vLLM is imported; with 1 and one line if
            the server would have no keys.
    """
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        return print_and_end(help_text().rstrip())
    if "--version" in arguments:
        return print_and_end(f"{PROGRAM} {__version__} ({installed_vllm()})")
    settings_at_a_glance(arguments, os.environ)  # wrong ones end the start before vLLM's slow import
    if "--omni" in arguments:
        raise refusal("--omni hands over to another package's server, which would have no keys: leave it out")
    refuse_without_app(os.environ, grpc="--grpc" in arguments)
    try:
        hooks.extend_serve_parser(add_options, USAGE)
        hooks.call_before_serving(_prepare)
        run_vllm = hooks.vllm_command()
    except (ImportError, AttributeError) as error:
        raise refusal(f"`vllm serve` cannot be run: {type(error).__name__}: {error}") from error
    sys.argv[1:] = ["serve", *arguments]
    run_vllm()


def _prepare(args: argparse.Namespace) -> None:
    """Make this process and its children build apps with keys."""
    settings = take_settings(args, os.environ)
    refuse_without_app(os.environ, grpc=getattr(args, "grpc", False))
    os.environ.update(settings.as_environment())
    if settings.protect:
        warn_of_plaintext(args, os.environ, hooks.lowest_log_level())
    _wrap_or_exit(settings)


def _wrap_or_exit(settings: Settings) -> None:
    try:
        hooks.wrap_build_app(settings)
    except Exception as error:
        raise refusal(f"vLLM's build_app cannot be wrapped: {type(error).__name__}: {error}") from error


# vLLM spawns its API server processes. They import the main module anew, and only then the modules that serve. So this
# line is the place to wrap `build_app` in such a process; nothing else of this package runs there before it.
if multiprocessing.current_process().name != "MainProcess":
    _wrap_or_exit(Settings.read(os.environ))

if __name__ == "__main__":
    main()
