"""The plugin for plain `vllm serve`, which vLLM calls through `server_keys_vllm_plugin`."""

import argparse
import functools
import os
from collections.abc import Sequence

from fastapi import FastAPI

from server_keys.errors import SettingsError
from server_keys.vllm import hooks
from server_keys.vllm.settings import Settings
from server_keys.vllm.start_checks import refusal, refuse_without_app, warn_of_plaintext


def attach(app: FastAPI) -> None:
    """Add to vLLM's app what the entrypoint adds, and warn of what leaves it in plaintext all the same.

    Raises:
        SystemExit: the app cannot have keys. vLLM would log an `Exception`, and serve without the plugin.
    """
    settings = _settings()
    hooks.with_keys(lambda: app, settings)()
    if settings.protect and not hooks.is_wrapped():  # Else the entrypoint has warned already.
        args = getattr(app.state, "args", argparse.Namespace())
        warn_of_plaintext(args, os.environ, hooks.lowest_log_level())


def check_start(plugin_name: str, asked_by: Sequence[str]) -> None:
    """Let vLLM's own server end before it loads a model if it was asked for keys and would have none.

    vLLM calls this in every process. A program that embeds vLLM in an app of its own goes on: `protect` gives that app
    its keys.

    Args:
        plugin_name: the name that `VLLM_PLUGINS` has to list.
        asked_by: the variables of this package that are set.
    """
    check_server = functools.partial(_refuse_without_keys, plugin_name, asked_by)

    def check_command(args: argparse.Namespace) -> None:
        if getattr(args, "headless", False):  # Engines without an API server.
            return
        check_server(args)
        refuse_without_app(os.environ, grpc=getattr(args, "grpc", False))

    hooks.call_before_serving_if_loaded(check_command, check_server)


def _refuse_without_keys(plugin_name: str, asked_by: Sequence[str], _: argparse.Namespace) -> None:
    """End the process if vLLM would not attach the plugin, or the settings cannot be used."""
    _settings()
    if hooks.is_wrapped():
        return
    if not hooks.has_endpoint_plugins():
        raise refusal("this vLLM has no endpoint plugins, 0.26 is the first that has: start it with server-keys-vllm")
    if "VLLM_PLUGINS" not in os.environ:
        raise refusal(
            f"{asked_by[0]} is set, but vLLM loads no endpoint plugin that VLLM_PLUGINS does not list: "
            f"set VLLM_PLUGINS={plugin_name}, or start with server-keys-vllm"
        )


def _settings() -> Settings:
    try:
        return Settings.read(os.environ)
    except SettingsError as error:
        raise refusal(error) from error
