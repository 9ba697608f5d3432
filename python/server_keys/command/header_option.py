"""The option `--header`: a header as it is typed, and what can be sent of it."""

import re
from typing import Any

import click

Header = tuple[bytes, bytes]
"""A name and a value, as they are sent."""

# RFC 9110, sections 5.1 and 5.5.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


class HeaderType(click.ParamType):  # type: ignore[type-arg]  # click 8.2 has it without
    """`NAME:VALUE`. In a variable each line is one, because a value may have spaces."""

    name = "header"

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the lines of a variable that are not empty."""
        return [line for line in rv.splitlines() if line.strip()]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Header:
        """Return the name and the value.

        Raises:
            click.UsageError: it is no header that can be sent. The message does not show it: it may be a secret.
        """
        del param
        name, colon, rest = (part.strip() for part in value.partition(":"))
        if not colon or not _NAME.fullmatch(name) or not rest.isascii():
            raise click.UsageError("--header must be NAME:VALUE, in ASCII", ctx)
        if not _VALUE.fullmatch(rest):
            raise click.UsageError(f"--header {name}: its value has control characters", ctx)
        return name.encode(), rest.encode()
