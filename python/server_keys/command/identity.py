"""`server-keys identity`: makes the long-lived key by which clients know a server, and shows its public half."""

import os

import click

from server_keys._native import SigningKey
from server_keys._sealing.identity import identity_of
from server_keys.errors import IdentityFileError


@click.group()
def identity() -> None:
    """Make or show the identity of a server: the long-lived key that signs its short-lived ones.

    \b
    server-keys identity new server.key
    server-keys open --to http://127.0.0.1:8080 --key-identity server.key
    server-keys identity show server.key

    The server gets the file, and clients the public half that this prints.
    """  # noqa: D301 - click reads the control character


@identity.command()
@click.argument("file", type=click.Path())
def new(file: str) -> None:
    """Write a new identity into FILE, which only its owner can read, and print the public half.

    Nothing that is there already is overwritten.
    """
    try:
        click.echo(new_identity(file))
    except IdentityFileError as error:
        raise click.ClickException(str(error)) from None


@identity.command()
@click.argument("file", type=click.Path())
def show(file: str) -> None:
    """Print the public half of the identity in FILE."""
    try:
        key = SigningKey.from_file(file)
    except IdentityFileError as error:
        raise click.ClickException(str(error)) from None
    click.echo(identity_of(key.public_key))
    key.erase()


def new_identity(path: str | os.PathLike[str]) -> str:
    """Write a new identity into a file that only its owner can read, and return the public half.

    Raises:
        IdentityFileError: there is such a file already, or it cannot be written.
    """
    key = SigningKey.new_file(path)
    try:
        return identity_of(key.public_key)
    finally:
        key.erase()
