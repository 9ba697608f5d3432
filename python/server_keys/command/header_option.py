"""The option `--header`: a header as it is typed, and what can be sent of it."""

import re
from collections.abc import Iterable

import click

Header = tuple[bytes, bytes]
"""A name and a value, as they are sent."""

# RFC 9110, sections 5.1 and 5.5.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


class HeaderType(click.types.StringParamType):
    """A header as it is typed. In a variable each line is one, because a value may have spaces."""

    def split_envvar_value(self, rv: str) -> list[str]:
        """Return the lines of a variable that are not empty."""
        return [line for line in rv.splitlines() if line.strip()]


def headers_of(typed: Iterable[str]) -> list[Header]:
    """Return the headers that somebody typed as `NAME:VALUE`.

    Raises:
        click.UsageError: one cannot be sent. The message does not show it: it may be a secret.
    """
    return [_header_of(header) for header in typed]


def _header_of(typed: str) -> Header:
    name, colon, value = (part.strip() for part in typed.partition(":"))
    if not colon or not _NAME.fullmatch(name) or not value.isascii():
        raise click.UsageError("--header must be NAME:VALUE, in ASCII")
    if not _VALUE.fullmatch(value):
        raise click.UsageError(f"--header {name}: its value has control characters")
    return name.encode(), value.encode()
