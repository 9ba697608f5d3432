"""The command line of `server-keys-vllm`: its settings, beside the options of `vllm serve`."""

import argparse
import signal
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from server_keys.errors import SettingsError
from server_keys.vllm.options import OPTIONS, PROGRAM, USAGE
from server_keys.vllm.settings import Settings


def settings_at_a_glance(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Return the settings without vLLM's own parser, which takes seconds to import.

    This sees neither abbreviated options nor vLLM's configuration file.

    Args:
        arguments: the command line without the program's name.
        environment: the environment variables.

    Raises:
        SystemExit: with status 2 and a usage message, for a value that cannot be used.
    """
    given: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        option = OPTIONS.get(name.replace("_", "-"))  # vLLM takes either
        if option is None:
            continue
        text = option.stands_for or (value if equals else next(words, None))
        if text is None:
            usage_error(f"{option.name} must be followed by {option.value}, not by the end of the command line")
        given[option.name] = text
    return _read_or_exit(environment, given)


def print_and_end(text: str) -> None:
    """Print the last words of this process. It ends without one if nobody reads on, as in `--help | head -1`."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(text)


def help_text() -> str:
    """Return the help on these options, and how to see vLLM's. Needs no vLLM."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=USAGE,
        description="Runs vLLM's server with ephemeral keys. It takes every option of `vllm serve`, and these.",
        epilog=f"{PROGRAM} --help=all shows the options of `vllm serve`, too.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    add_options(parser)
    own = parser.add_argument_group("Without a server")
    own.add_argument("-h", "--help", action="store_true", help="Show this help and exit.")
    own.add_argument("--version", action="store_true", help="Show the versions of server-keys and vLLM, and exit.")
    return parser.format_help()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to vLLM's parser, for its help, its configuration file and its abbreviations."""
    group = parser.add_argument_group(title="ServerKeys", description="Ephemeral keys of the server.")
    for option in OPTIONS.values():
        # Without a default, an option that was not given adds no attribute, which vLLM would not know.
        if option.stands_for is None:
            text = f"{option.help} Environment variable: {option.variable}."
            group.add_argument(option.name, default=argparse.SUPPRESS, metavar=option.metavar, help=text)
        else:
            text = f"{option.help} Environment variable: {option.variable}={option.stands_for}."
            group.add_argument(option.name, default=argparse.SUPPRESS, action="store_true", help=text)


def take_settings(args: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Return the settings that vLLM's parser found, and take them out of `args`, which vLLM logs.

    Raises:
        SystemExit: as for `settings_at_a_glance`.
    """
    found: dict[str, Any] = vars(args)
    given: dict[str, str] = {}
    for option in OPTIONS.values():
        value = found.pop(option.attribute, None)
        if value is not None:
            given[option.name] = option.stands_for or str(value)
    return _read_or_exit(environment, given)


def usage_error(reason: object) -> NoReturn:
    """Print the usage and the reason, and exit with status 2."""
    argparse.ArgumentParser(prog=PROGRAM, usage=USAGE).error(str(reason))


def _read_or_exit(environment: Mapping[str, str], options: Mapping[str, str]) -> Settings:
    try:
        return Settings.read(environment, options)
    except SettingsError as error:
        usage_error(error)
