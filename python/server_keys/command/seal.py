"""`server-keys seal`: a local proxy that seals what programs send, and opens the answers."""

import dataclasses
import functools
from typing import Any

import click

from server_keys.client.proxies import UNUSABLE_PROXY
from server_keys.command.common_options import (
    IDENTITY_MESSAGES,
    ca_file_option,
    identity_option,
    key_url_option,
    limit_options,
    limits_of,
    max_frame_bytes_option,
    server_options,
    status_listen_option,
)
from server_keys.command.listening import listening
from server_keys.command.named_function import named_function
from server_keys.command.observed import observed
from server_keys.command.served_app import sealing
from server_keys.command.serving import serve
from server_keys.command.usage import place_of_certificates, usage_errors
from server_keys.proxy.options import SealOptions


@click.command()
@click.option("--to", required=True, show_envvar=True, metavar="URL", help="The server: https://HOST[:PORT].")
@click.option(
    "--listen",
    default="127.0.0.1:8011",
    show_default=True,
    show_envvar=True,
    metavar="ADDRESS",
    help="Where programs send plaintext: HOST:PORT on the loopback interface, or unix:/PATH (mode 0600).",
)
@status_listen_option
@click.option(
    "--allow-remote-clients",
    is_flag=True,
    show_envvar=True,
    help="Listen on other addresses than loopback, too. Plaintext then comes over a network, from whoever reaches it.",
)
@click.option(
    "--name",
    multiple=True,
    show_envvar=True,
    metavar="HOST:PORT",
    help="Another name by which programs call this proxy, as it stands in their Host header. May be repeated.",
)
@click.option(
    "--allow-origin",
    multiple=True,
    show_envvar=True,
    metavar="ORIGIN",
    help="Let web pages of this origin use the proxy, such as https://chat.example. May be repeated.",
)
@key_url_option
@click.option(
    "--verify-key",
    callback=named_function,
    show_envvar=True,
    metavar="MODULE:FUNCTION",
    help="Python function that gets each public key (32 bytes) before anything is sealed to it, and raises an "
    "exception to refuse it: for pinning or attestation.",
)
@click.option(
    "--verify-answer",
    callback=named_function,
    show_envvar=True,
    metavar="MODULE:FUNCTION",
    help="Python function that gets each key answer and the URL that it came from, and raises an exception to refuse "
    "it. It sees the keys of every version of the wire.",
)
@identity_option
@click.option(
    "--require-v1", is_flag=True, show_envvar=True, help="Refuse servers that do not offer version 1 of the wire."
)
@max_frame_bytes_option
@ca_file_option
@limit_options
@server_options
def seal(
    to: str,
    listen: str,
    status_listen: str | None,
    allow_remote_clients: bool,
    grace_s: float,
    log_level: str,
    **values: Any,
) -> None:
    """Seal what programs on this machine send, and open the answers.

    Any program that can set a base URL talks plaintext to this proxy. Sealed bodies leave the machine.

    \b
    server-keys seal --to https://my-server
    curl http://127.0.0.1:8011/v1/chat/completions -d '{"model": "tiny", "messages": []}'
    OPENAI_BASE_URL=http://127.0.0.1:8011/v1 your-agent

    It takes requests that call it by its own name (Host), and none of web pages (Origin), unless you let them.
    """  # noqa: D301 - click reads the control character
    from server_keys.proxy import seal_app

    limits = limits_of(values)
    with usage_errors(
        {
            "max_frame_bytes": "--max-frame-bytes",
            "key_url": "--key-url",
            "require_v1": "--require-v1",
            UNUSABLE_PROXY: UNUSABLE_PROXY,
            **IDENTITY_MESSAGES,
        },
        otherwise="--to",
        of_files=place_of_certificates(values["ca_file"]),
    ):
        options = SealOptions(
            to=to,
            origins=values.pop("allow_origin"),
            limits=limits,
            names=values.pop("name"),
            **values,
        )
        seal_app(options)  # checks the rest
    with listening(listen, allow_remote=allow_remote_clients, upstream=options.upstream) as place:
        options = dataclasses.replace(options, names=(*place.names, *options.names))
        make_app = functools.partial(sealing, options)
        with observed(status_listen, make_app, place, options.upstream, "/ready") as served:
            serve(
                served.make_app,
                served.place,
                announce=f"listens on {place.shown}, seals, and sends to {options.upstream.shown}{served.announce}",
                warnings=_warnings(options),
                grace_s=grace_s,
                log_level=log_level,
            )


def _warnings(options: SealOptions) -> list[str]:
    checks_keys = options.verify_key is not None or options.verify_answer is not None or options.identity
    if options.upstream.scheme == "http" and not options.upstream.is_on_this_host and not checks_keys:
        return ["over plain http anybody on the way can replace the server's key: use https, or --identity"]
    return []
