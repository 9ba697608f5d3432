"""What is wrong with an option, said as a usage error that names the option."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click


@contextmanager
def usage_errors(options: Mapping[str, str], *, otherwise: str, of_files: str | None = None) -> Iterator[None]:
    """Turn errors about values into usage errors that name the option.

    Args:
        options: the option for each parameter whose name an error's message begins with.
        otherwise: the option that any other error is about.
        of_files: the option that errors about files are about, if that is another one.

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
        named = of_files if isinstance(error, OSError) and of_files is not None else otherwise
        raise click.UsageError(f"{named}: {message}") from None


def place_of_certificates(ca_file: str | None) -> str:
    """Return what names the file of the certificates that vouch for a server: an option, or OpenSSL's variable."""
    return "SSL_CERT_FILE" if ca_file is None else "--ca-file"
