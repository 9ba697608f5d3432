"""The type of an option whose value names a Python function."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import click


class NamedFunction(click.ParamType[Callable[[bytes], object]]):
    """`module:function`, found on Python's path or in the current folder."""

    name = "MODULE:FUNCTION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the function.

        Raises:
            click.BadParameter: there is none.
        """
        if callable(value):
            return value
        module_name, _, attribute = str(value).partition(":")
        if not module_name or not attribute:
            self.fail(f"must be MODULE:FUNCTION, not {value!r}", param, ctx)
        # As uvicorn finds an app.
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            found = getattr(importlib.import_module(module_name), attribute)
        except Exception as error:  # noqa: BLE001 - a module may raise anything; the user reads what
            self.fail(f"{value!r} cannot be imported: {type(error).__name__}: {error}", param, ctx)
        if not callable(found):
            self.fail(f"{value!r} is no function", param, ctx)
        return found
