"""`server-keys completion`: the script that lets a shell complete the command."""

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

_SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


@click.command()
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes this command in SHELL.

    \b
    bash:  eval "$(server-keys completion bash)"      in ~/.bashrc
    zsh:   eval "$(server-keys completion zsh)"       in ~/.zshrc
    fish:  server-keys completion fish | source       in ~/.config/fish/config.fish
    """  # noqa: D301 - click reads the control character
    root = context.find_root()
    click.echo(_SHELLS[shell](root.command, {}, "server-keys", "_SERVER_KEYS_COMPLETE").source())
