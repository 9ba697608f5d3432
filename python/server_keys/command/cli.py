"""The command and its subcommands, and how it ends."""

from collections.abc import Sequence
from typing import NoReturn

import click

from server_keys import __version__
from server_keys.command.check import check
from server_keys.command.completion import completion
from server_keys.command.identity import identity
from server_keys.command.open import open_
from server_keys.command.seal import seal

PROGRAM = "server-keys"
# Subcommands add their names: `seal --to` is also SERVER_KEYS_SEAL_TO.
ENVIRONMENT_PREFIX = "SERVER_KEYS"


@click.group(
    context_settings={
        "auto_envvar_prefix": ENVIRONMENT_PREFIX,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    }
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
def cli() -> None:
    """Sealed bodies for any program, at either end.

    \b
    On the machine of the clients:
      server-keys seal --to https://my-server
      curl http://127.0.0.1:8011/v1/models
    On the server, before any HTTP server:
      server-keys open --to http://127.0.0.1:8080 --listen 0.0.0.0:8000
      server-keys identity new server.key
    From anywhere:
      server-keys check https://my-server

    Each option is also an environment variable, which its help names.
    """  # noqa: D301 - click reads the control character


for _subcommand in (seal, open_, check, identity, completion):
    cli.add_command(_subcommand)


def run(arguments: Sequence[str]) -> NoReturn:
    """Run the command, and end the process.

    Raises:
        SystemExit: always.
    """
    try:
        status = cli.main(list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        raise SystemExit(2) from None
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        program = context.command_path if context is not None else PROGRAM
        click.echo(f"{program}: {' '.join(error.format_message().split())}", err=True)
        raise SystemExit(error.exit_code) from None
    except click.Abort:
        raise SystemExit(130) from None
    except OSError as error:  # such as a full disk behind stdout
        about = f"{error.filename}: " if error.filename else ""
        click.echo(f"{PROGRAM}: {about}{error.strerror or error}", err=True)
        raise SystemExit(1) from None
    raise SystemExit(status if isinstance(status, int) else 0)
