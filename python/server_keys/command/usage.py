"""What is wrong with an option, said as a usage error that names the option."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click


@contextmanager
def usage_errors(options: Mapping[str, str], *, otherwise: str) -> Iterator[None]:
    """Turn errors about values into usage errors that name the option.

    Args:
        options: the option for each parameter whose name an error's message begins with.
        otherwise: the option that any other error is about.

    Raises:
        click.UsageError: a value cannot be used.
    """
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        message = str(error)
        for parameter, option in options.items():
            if message.startswith(parameter):
                raise click.UsageError(option + message.removeprefix(parameter)) from None
        raise click.UsageError(f"{otherwise}: {message}") from None
