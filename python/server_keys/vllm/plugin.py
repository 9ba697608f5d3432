"""What the plugin for plain `vllm serve` does. vLLM calls it through `server_keys_vllm_plugin`."""

import argparse
import functools
import os
import sys
from pathlib import Path

from fastapi import FastAPI

from server_keys.errors import SettingsError
from server_keys.vllm import hooks
from server_keys.vllm.settings import Settings
from server_keys.vllm.start_checks import refusal, refuse_without_app, warn_of_prompt_logging

# vLLM's server is `vllm serve`, `vllm launch`, or one of these modules run with `python -m`.
_SERVING_COMMANDS = ("serve", "launch")
_SERVING_FILES = ("api_server.py", "entry.py")


def attach(app: FastAPI) -> None:
    """Add to vLLM's app what the entrypoint adds.

    Raises:
        SystemExit: the app cannot have keys. vLLM would log an `Exception`, and serve without the plugin.
    """
    hooks.with_keys(lambda: app, _settings())()


def check_start(plugin_name: str) -> None:
    """End a server that was asked for keys and would have none, before it loads a model.

    vLLM calls this in every process.

    Args:
        plugin_name: the name that `VLLM_PLUGINS` has to list.

    Raises:
        SystemExit: it would have none.
    """
    if not _is_serving():
        return
    settings = _settings()
    if hooks.is_wrapped():
        return
    if not hooks.has_endpoint_plugins():
        raise refusal("this vLLM has no endpoint plugins, 0.26 is the first that has: start it with server-keys-vllm")
    if "VLLM_PLUGINS" not in os.environ:
        asked_by = next(name for name in sorted(os.environ) if name.startswith("SERVER_KEYS_"))
        raise refusal(
            f"{asked_by} is set, but vLLM loads no endpoint plugin that VLLM_PLUGINS does not list: "
            f"set VLLM_PLUGINS={plugin_name}, or start with server-keys-vllm"
        )
    refuse_without_app(os.environ, grpc=False)
    if hooks.has_serve_command():
        hooks.call_before_serving(functools.partial(_look_at_arguments, settings))


def _look_at_arguments(settings: Settings, args: argparse.Namespace) -> None:
    refuse_without_app(os.environ, grpc=getattr(args, "grpc", False))
    if settings.protect:
        warn_of_prompt_logging(args, os.environ)


def _is_serving() -> bool:
    return sys.argv[1:2] in ([command] for command in _SERVING_COMMANDS) or Path(sys.argv[0]).name in _SERVING_FILES


def _settings() -> Settings:
    try:
        return Settings.read(os.environ)
    except SettingsError as error:
        raise refusal(error) from error
