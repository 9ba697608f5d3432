"""A Python function that an option names."""

import importlib
import os
import sys
from collections.abc import Callable

import click


def named_function(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Callable[[bytes], object] | None:
    """Return the function that `module:function` names, found on Python's path or in the current folder.

    For `callback=` of an option.

    Raises:
        click.BadParameter: there is none.
    """
    if value is None:
        return None
    module_name, _, attribute = value.partition(":")
    if not module_name or not attribute:
        raise click.BadParameter(f"must be MODULE:FUNCTION, not {value!r}", context, parameter)
    # As uvicorn finds an app.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # noqa: BLE001 - a module may raise anything; the user reads what
        message = f"{value!r} cannot be imported: {type(error).__name__}: {error}"
        raise click.BadParameter(message, context, parameter) from None
    if not callable(found):
        raise click.BadParameter(f"{value!r} is no function", context, parameter)
    function: Callable[[bytes], object] = found
    return function
