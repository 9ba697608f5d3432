"""vLLM's `serve` command: how it gets our options, and how we see its arguments before it serves."""

import argparse
import functools
import importlib
from collections.abc import Callable
from typing import Any


def extend_parser(add_options: Callable[[argparse.ArgumentParser], None], usage: str) -> None:
    """Let `vllm serve` take what `add_options` adds to its parser, and show `usage`."""
    command = _serve_command()
    subparser_init = command.subparser_init

    def extended_subparser_init(self: Any, subparsers: Any) -> Any:
        parser = subparser_init(self, subparsers)
        parser.usage = usage
        add_options(parser)
        return parser

    command.subparser_init = extended_subparser_init


def call_before_serving(action: Callable[[argparse.Namespace], None]) -> None:
    """Let `vllm serve` call `action` with its parsed arguments before it does anything else."""
    command = _serve_command()
    serve = command.cmd

    # Its name stays: vLLM keeps the function among the arguments, and pickles them for its API server processes.
    @functools.wraps(serve)
    def act_then_serve(args: argparse.Namespace) -> None:
        action(args)
        serve(args)

    command.cmd = staticmethod(act_then_serve)


def _serve_command() -> Any:
    return importlib.import_module("vllm.entrypoints.cli.serve").ServeSubcommand
