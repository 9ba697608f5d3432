"""The options that the entrypoint adds to those of `vllm serve`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from server_keys.errors import SettingsError
from server_keys.vllm.settings import (
    DEFAULT_REFRESH_TIME_S,
    NO_PROTECT_OPTION,
    OVERLAP_OPTION,
    OVERLAP_VARIABLE,
    PROTECT_VARIABLE,
    REFRESH_TIME_OPTION,
    REFRESH_TIME_VARIABLE,
    REQUIRE_SEALED_OPTION,
    REQUIRE_SEALED_VARIABLE,
    Settings,
)

PROGRAM = "server-keys-vllm"
USAGE = (
    f"{PROGRAM} [model] [{REFRESH_TIME_OPTION} SECONDS] [{OVERLAP_OPTION} SECONDS] [{NO_PROTECT_OPTION} | "
    f"{REQUIRE_SEALED_OPTION}] [options of vllm serve]"
)

_REFRESH_TIME_HELP = (
    f"Seconds between refreshes of the server's ephemeral keys ({DEFAULT_REFRESH_TIME_S:g} by default; "
    f"environment variable {REFRESH_TIME_VARIABLE})."
)
_OVERLAP_HELP = (
    "Seconds for which a replaced key is still accepted, from 0 to the refresh time (which is the default; "
    f"environment variable {OVERLAP_VARIABLE})."
)
_NO_PROTECT_HELP = (
    "Have keys, but do not open sealed requests nor seal their responses (EHBP), which is done by default "
    f"(environment variable {PROTECT_VARIABLE}=0)."
)
_REQUIRE_SEALED_HELP = (
    "Refuse requests that carry a body in plaintext, which are served by default "
    f"(environment variable {REQUIRE_SEALED_VARIABLE}=1)."
)
_TEXTS = {REFRESH_TIME_OPTION: _REFRESH_TIME_HELP, OVERLAP_OPTION: _OVERLAP_HELP}
_SWITCHES = {NO_PROTECT_OPTION: _NO_PROTECT_HELP, REQUIRE_SEALED_OPTION: _REQUIRE_SEALED_HELP}


def settings_at_a_glance(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Return the settings as far as they can be told before vLLM's own parser, which takes seconds to import, is there.

    Args:
        arguments: the command line without the program's name.
        environment: the environment variables.

    Raises:
        SystemExit: with status 2 and a usage message, for a value that cannot be used.
    """
    options: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")  # vLLM takes either
        if name in _TEXTS:
            text = value if equals else next(words, None)
            if text is None:
                usage_error(f"{name} must be followed by a number of seconds, not by the end of the command line")
            options[name] = text
        elif name in _SWITCHES:
            options[name] = ""
    return _read(environment, options)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to vLLM's parser, for its help, its configuration file and its abbreviations."""
    group = parser.add_argument_group(title="ServerKeys", description="Ephemeral keys of the server.")
    # Suppressed, so that vLLM sees no argument that it does not know.
    for option, text in _TEXTS.items():
        group.add_argument(option, default=argparse.SUPPRESS, metavar="SECONDS", help=text)
    for option, text in _SWITCHES.items():
        group.add_argument(option, default=argparse.SUPPRESS, action="store_true", help=text)


def take_settings(args: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """Return the settings that vLLM's parser found, and take them out of `args`.

    Raises:
        SystemExit: as for `settings_at_a_glance`.
    """
    found: dict[str, Any] = vars(args)
    options = {
        option: str(found.pop(option.removeprefix("--").replace("-", "_")))
        for option in (*_TEXTS, *_SWITCHES)
        if option.removeprefix("--").replace("-", "_") in found
    }
    return _read(environment, options)


def usage_error(reason: object) -> NoReturn:
    """Print the usage and the reason, and exit with status 2."""
    argparse.ArgumentParser(prog=PROGRAM, usage=USAGE).error(str(reason))


def _read(environment: Mapping[str, str], options: Mapping[str, str]) -> Settings:
    try:
        return Settings.read(
            environment,
            refresh_time_option=options.get(REFRESH_TIME_OPTION),
            overlap_option=options.get(OVERLAP_OPTION),
            no_protect=NO_PROTECT_OPTION in options,
            require_sealed=REQUIRE_SEALED_OPTION in options,
        )
    except SettingsError as error:
        usage_error(error)
