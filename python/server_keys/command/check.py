"""`server-keys check`: a doctor for a server that seals."""

import ssl

import click
import httpx2

from server_keys._sealing.protocol import KEY_CONFIG_PATH
from server_keys.client.identity import Identities
from server_keys.client.key_location import KeyLocation
from server_keys.client.proxies import UNUSABLE_PROXY
from server_keys.command.common_options import (
    IDENTITY_MESSAGES,
    Seconds,
    ca_file_option,
    identity_option,
    key_url_option,
)
from server_keys.command.doctor.examination import Questions, examine
from server_keys.command.doctor.findings import as_json, as_table, has_failed
from server_keys.command.doctor.keys import HARMLESS_PATH
from server_keys.command.doctor.wire import Target, key_address
from server_keys.command.header_option import HeaderType, headers_of
from server_keys.command.usage import place_of_certificates, usage_errors
from server_keys.proxy.upstream import Upstream


@click.command()
@click.argument("url")
@click.option(
    "--path",
    default=HARMLESS_PATH,
    show_default=True,
    show_envvar=True,
    help="Where the sealed request goes. A path that no server has is answered, too, with a sealed 404.",
)
@click.option("--data", default="{}", show_default=True, show_envvar=True, help="The body of the sealed request.")
@click.option(
    "--header",
    type=HeaderType(),
    multiple=True,
    show_envvar=True,
    metavar="NAME:VALUE",
    help="A header of the sealed request, such as 'Authorization: Bearer ...'. May be repeated; the variable has one a "
    "line. Every user of the host sees a command line, and not a variable.",
)
@click.option(
    "--connections",
    type=click.IntRange(2, 1000),
    default=8,
    show_default=True,
    show_envvar=True,
    help="Over how many connections the key is fetched. More find more processes that share no keys.",
)
@click.option(
    "--wait-s",
    type=Seconds(or_none=True),
    default=0.0,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="Wait so long for the key to be replaced, and see whether its predecessor is still accepted.",
)
@click.option(
    "--timeout-s",
    type=Seconds(),
    default=30.0,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="How long the server may be silent.",
)
@identity_option
@key_url_option
@ca_file_option
@click.option("--json", is_flag=True, show_envvar=True, help="Print JSON.")
@click.option("--strict", is_flag=True, show_envvar=True, help="End with status 1 for warnings, too.")
def check(
    url: str,
    path: str,
    data: str,
    header: tuple[str, ...],
    connections: int,
    wait_s: float,
    timeout_s: float,
    identity: tuple[str, ...],
    key_url: str | None,
    ca_file: str | None,
    json: bool,
    strict: bool,
) -> int:
    """Examine the server at URL, and say what is wrong with its sealing.

    It fetches the key over several connections, tries whether plaintext is refused, and sends one sealed request.
    Nothing that it sends by default starts anything on the server. With --identity it verifies who signed the key, as a
    client does, and seals nothing to another one.

    \b
    server-keys check https://my-server
    server-keys check https://my-server --identity ed25519:...
    server-keys check https://my-server --path /v1/chat/completions --header 'Authorization: Bearer KEY' \\
      --data '{"model": "tiny", "stream": true, "messages": [{"role": "user", "content": "Count to 100"}]}'
    server-keys check https://my-server --wait-s 600 --json

    The status is 0 if nothing failed, 1 if something did, 2 for wrong usage.
    """  # noqa: D301 - click reads the control character
    with usage_errors({}, otherwise="URL"):
        upstream = Upstream.parse(url)
        if upstream.socket_path is not None:
            raise ValueError("it must be a URL, such as https://my-server, and not a Unix socket")
    with usage_errors({}, otherwise=place_of_certificates(ca_file)):
        context = ssl.create_default_context(cafile=ca_file) if ca_file else httpx2.create_ssl_context()
    with usage_errors({"key_url": "--key-url"}, otherwise="--key-url"):
        KeyLocation(key_url)
    if identity:
        with usage_errors(IDENTITY_MESSAGES, otherwise="--identity"):
            Identities(identity)
    if not path.startswith("/"):
        raise click.UsageError(f"--path must begin with a slash, not {path!r}")
    target = Target(upstream, key_url or KEY_CONFIG_PATH, context, timeout_s, identity)
    with usage_errors({}, otherwise="--key-url"):
        key_address(target)
    with usage_errors({}, otherwise="--path"):
        request = target.request("POST", path, headers=headers_of(header), body=data.encode(errors="surrogateescape"))
    with usage_errors({UNUSABLE_PROXY: UNUSABLE_PROXY}, otherwise="URL"):
        target.connection().close()
    findings = list(examine(target, Questions(request, connections, wait_s)))
    click.echo(as_json(url, findings, strict=strict) if json else as_table(url, findings))
    return 1 if has_failed(findings, strict=strict) else 0
