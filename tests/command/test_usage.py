"""What is typed wrong, or is missing: one line on stderr, and a status for scripts."""

import re
import socket
import subprocess

import pytest

from server_keys import __version__
from server_keys.command.cli import cli
from server_keys.vllm.options import OPTIONS
from tests.helpers.commands import COMMAND, run, run_here
from tests.helpers.scripts import run_script
from tests.helpers.signed_answers import OtherSigner

OPEN = ("open", "--to", "http://127.0.0.1:1", "--listen", "127.0.0.1:0")
SECONDS = ("--timeout-s", "--connect-timeout-s", "--grace-s")
CHECK = ("check", "https://my-server")
# The neutral element of the curve: a key of small order, with which one signature fits all messages.
WEAK = "ed25519:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
MANY = [word for number in range(17) for word in ("--identity", OtherSigner(bytes([number]) * 32).identity)]
SEAL = ("seal", "--to", "https://my-server", "--listen", "127.0.0.1:0")


def test_the_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"server-keys {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("seal",), "--to"),
        (("open",), "--to"),
        (("check",), "URL"),
        (("no-such",), "no-such"),
        ((*SEAL, "--no-such"), "--no-such"),
        (("seal", "--to", "my-server"), "must be a URL"),
        (("seal", "--to", "ftp://my-server"), "must be a URL"),
        (("seal", "--to", "https://"), "must be a URL"),
        (("seal", "--to", "https://my-server/v1"), "must end after the host and port"),
        (("seal", "--to", "https://my-server?x=1"), "must end after the host and port"),
        (("seal", "--to", "https://me:hunter2@my-server"), "user name or password"),
        (("seal", "--to", "https://my-server:x"), "--to"),
        (("seal", "--to", "https://my-server:99999"), "--to"),
        (("seal", "--to", "https://my server"), "--to"),
        (("seal", "--to", "unix:/x"), "not a Unix socket"),
        ((*SEAL[:3], "--listen", "8011"), "--listen must be HOST:PORT"),
        ((*SEAL[:3], "--listen", "127.0.0.1"), "--listen must be HOST:PORT"),
        ((*SEAL[:3], "--listen", "http://127.0.0.1:1"), "--listen must be HOST:PORT"),
        ((*SEAL[:3], "--listen", "127.0.0.1:99999"), "--listen must be HOST:PORT"),
        ((*SEAL[:3], "--listen", "unix:x"), "absolute path"),
        ((*SEAL[:3], "--listen", "0.0.0.0:0"), "--allow-remote-clients"),
        ((*SEAL[:3], "--listen", "[::]:0"), "--allow-remote-clients"),
        ((*SEAL, "--verify-key", "no_such_module:verify"), "no_such_module"),
        ((*SEAL, "--verify-key", "nothing"), "MODULE:FUNCTION"),
        ((*SEAL, "--verify-key", "os:no_such"), "no_such"),
        ((*SEAL, "--verify-key", "os:name"), "no function"),
        ((*SEAL, "--key-url", "relative"), "--key-url must be"),
        ((*SEAL, "--max-frame-bytes", "1"), "--max-frame-bytes must be"),
        ((*SEAL, "--ca-file", "/no/such/file"), "--ca-file"),
        ((*SEAL, "--timeout-s", "0"), "--timeout-s"),
        *((("seal", "--to", "https://my-server", option, "nan"), option) for option in SECONDS),
        *((("open", "--to", "http://127.0.0.1", option, "inf"), option) for option in SECONDS),
        *((("check", "https://my-server", option, "nan"), option) for option in ("--timeout-s", "--wait-s")),
        ((*SEAL, "--log-level", "trace"), "--log-level"),
        (("open", "--to", "http://192.0.2.1:1"), "not on this host"),
        (("open", "--to", "http://localhost.evil:1"), "not on this host"),
        ((*OPEN, "--trust-peer", "everybody"), "--trust-peer"),
        ((*OPEN, "--key-refresh-time-s", "0"), "--key-refresh-time-s must be"),
        ((*OPEN, "--key-overlap-s", "301"), "--key-overlap-s must be"),
        ((*OPEN, "--key-share", "nobody"), "--key-share"),
        ((*OPEN, "--key-share", "valkey://me:hunter2@host"), "--key-share"),
        ((*OPEN, "--group-secret-file", "x"), "--group-secret-file"),
        ((*OPEN, "--max-frame-bytes", "1"), "--max-frame-bytes must be"),
        ((*OPEN, "--sealed-max-buffered-bytes", "67108863"), "--sealed-max-buffered-bytes must be at least 67108864"),
        ((*OPEN, "--sealed-max-buffered-bytes", "much"), "--sealed-max-buffered-bytes"),
        ((*OPEN, "--workers", "0"), "--workers"),
        ((*OPEN, "--sealed-replay", "never"), "--sealed-replay"),
        ((*OPEN, "--sealed-replay", "refuse-everywhere"), "--sealed-store-away"),
        ((*OPEN, "--sealed-store-away", "allow"), "--sealed-store-away"),
        ((*OPEN, "--sealed-replay", "refuse-everywhere", "--sealed-store-away", "serve"), "--sealed-store-away"),
        ((*OPEN, "--sealed-max-buffered-bytes", "1"), "--sealed-max-buffered-bytes must be at least 67108864"),
        (("check", "my-server"), "must be a URL"),
        (("check", "https://my-server/v1"), "must end after the host and port"),
        (("check", "https://my-server", "--path", "v1"), "--path"),
        *(
            ((*command, "--identity", "ed25519:short"), "--identity: an identity has 43 ch")
            for command in (SEAL, CHECK)
        ),
        *(((*command, "--identity", ""), "--identity: an identity begins with") for command in (SEAL, CHECK)),
        *(((*command, "--identity", WEAK), "--identity: the identity is no Ed25519 key") for command in (SEAL, CHECK)),
        *(((*command, *MANY), "--identity has 17 values: 16 at most") for command in (SEAL, CHECK)),
        ((*CHECK, "--header", "nothing"), "--header must be NAME:VALUE"),
        ((*CHECK, "--header", "X: grün"), "--header must be NAME:VALUE, in ASCII"),
        ((*CHECK, "--key-url", "relative"), "--key-url must be"),
        ((*CHECK, "--key-url", "ftp://my-server/key"), "--key-url must be"),
        *(((*command, "--key-url", "https://["), "--key-url cannot be read: ") for command in (SEAL, CHECK)),
        *(((*command, "--key-url", "https://h:port/x"), "--key-url cannot be read: ") for command in (SEAL, CHECK)),
        *(((*command, "--key-url", "https://a..b/x"), "--key-url must be") for command in (SEAL, CHECK)),
        ((*CHECK, "--key-url", "https://-a-.é/x"), "--key-url: it cannot be a URL"),
        (("check", "https://a..b"), "must be a URL"),
        (("check", f"https://{'a' * 64}"), "must be a URL"),
        ((*CHECK, "--header", "ü: hunter2"), "--header must be NAME:VALUE"),
        ((*CHECK, "--header", "an X: hunter2"), "--header must be NAME:VALUE"),
        ((*CHECK, "--header", "X: hunter2\nY: z"), "--header X: its value has control"),
        ((*CHECK, "--path", "/a\nb"), "--path: it cannot be a path: '/a\\nb'"),
        ((*CHECK, "--path", "/\udcff"), "--path: it cannot be a path"),
        ((*SEAL, "--ca-file", __file__), "--ca-file: [X509"),
        ((*CHECK, "--ca-file", __file__), "--ca-file: [X509"),
        (("completion", "no-such-shell"), "no-such-shell"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: tuple[str, ...], says: str) -> None:
    done = run_here(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"server-keys( \w+)?: .+\n", done.stderr), done.stderr
    assert says in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("command", [SEAL, CHECK])
@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("SSL_CERT_FILE", "/no/such/file", "SSL_CERT_FILE: "),
        ("ALL_PROXY", "socks://me:hunter2@127.0.0.1:1", "the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY)"),
        ("https_proxy", "http://me:hunter2@[::1", "the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY)"),
    ],
)
def test_what_the_environment_says_wrong_is_one_line_that_names_it(
    command: tuple[str, ...], variable: str, value: str, says: str
) -> None:
    done = run_here(*command, environment={variable: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"server-keys( \w+)?: .+\n", done.stderr), done.stderr
    assert says in done.stderr
    assert "hunter2" not in done.stderr


def test_what_happens_without_the_store_may_be_said_in_a_variable_that_is_meant_for_others() -> None:
    done = run_here(*OPEN[:3], "--listen", "8011", environment={"SERVER_KEYS_STORE_AWAY": "allow"})
    assert "--listen must be" in done.stderr


def test_a_name_that_cannot_be_a_hosts_is_one_line() -> None:
    for name in ("a..b", f"{'a' * 64}.example"):
        done = run_here(*OPEN[:3], "--listen", f"{name}:0")
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"server-keys.*: cannot listen on .* cannot be a host's name\n", done.stderr), done.stderr


def test_a_path_that_is_too_long_for_a_socket_is_named_as_that() -> None:
    done = run_here(*OPEN[:3], "--listen", f"unix:/tmp/{'a' * 150}")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"server-keys.*: cannot listen on unix:.*: .*too long\n", done.stderr), done.stderr


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("completion", "bash")])
def test_what_cannot_be_printed_is_one_line_and_status_1(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:  # a file on a disk without space
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (1, "server-keys: No space left on device\n")


def test_a_port_in_use_is_one_line_and_status_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_here(*SEAL[:3], "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"server-keys.*: cannot listen on .*in use.*\n", done.stderr), done.stderr


@pytest.mark.parametrize("command", ["seal", "open"])
def test_a_proxy_does_not_pass_on_to_itself(command: str) -> None:
    from tests.helpers.server_processes import free_port

    port = free_port()
    done = run_here(command, "--to", f"http://localhost:{port}", "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 2
    assert "where this proxy itself listens" in done.stderr


@pytest.mark.parametrize("missing", ["click", "uvicorn", "httptools", "httpx2"])
def test_it_says_in_one_line_what_to_install(missing: str) -> None:
    said = run_script(f"""
        import contextlib, io, sys
        sys.modules[{missing!r}] = None
        from server_keys.command import main
        sys.argv = ["server-keys", "--version"]
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                main()
            except SystemExit as end:
                print(end.code, said.getvalue(), end="")
    """)
    assert re.fullmatch(rf"1 server-keys: {missing} is missing: .*pip install click httptools httpx2 uvicorn\n", said)


def test_each_help_teaches_with_an_example() -> None:
    top = run_here("--help")
    assert (top.returncode, top.stderr) == (0, "")
    for name, command in cli.commands.items():
        assert f"  {name} " in top.stdout
        done = run_here(name, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(rf"^ +(eval \"\$\(|bash: .*)?server-keys {name} ", done.stdout, re.MULTILINE)
        assert "\\b" not in done.stdout
        for parameter in command.params:
            for option in parameter.opts:
                assert option.startswith("--") is False or option in done.stdout


def test_each_option_is_an_environment_variable_that_its_help_names() -> None:
    for name, command in cli.commands.items():
        said = run_here(name, "--help").stdout
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                option = parameter.opts[0].removeprefix("--").replace("-", "_")
                own = parameter.envvar or f"SERVER_KEYS_{name}_{option}".upper()
                assert isinstance(own, str)
                assert own in "".join(said.split()), (name, parameter.name)


def test_the_options_of_keys_have_the_names_that_they_have_under_vllm() -> None:
    ours = {option: parameter.envvar for parameter in cli.commands["open"].params for option in parameter.opts}
    for option in OPTIONS.values():
        if option.name != "--no-protect":
            assert ours[option.name] == option.variable


def test_variables_stand_for_options() -> None:
    done = run_here("seal", environment={"SERVER_KEYS_SEAL_TO": "https://my-server/variable"})
    assert done.returncode == 2
    assert "/variable" in done.stderr
    done = run_here(*OPEN, environment={"SERVER_KEYS_REFRESH_TIME_S": "-1"})
    assert done.returncode == 2
    assert "-1" in done.stderr


@pytest.mark.parametrize(("shell", "says"), [("bash", "complete "), ("zsh", "compdef"), ("fish", "complete ")])
def test_a_shell_gets_its_completion(shell: str, says: str) -> None:
    done = run_here("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert says in done.stdout
    assert "_SERVER_KEYS_COMPLETE" in done.stdout


def test_the_completion_completes() -> None:
    environment = {"_SERVER_KEYS_COMPLETE": "bash_complete", "COMP_WORDS": "server-keys open --key-", "COMP_CWORD": "2"}
    done = run(environment=environment)
    assert "--key-refresh-time-s" in done.stdout
    assert "--key-share" in done.stdout


def test_the_client_side_needs_no_fastapi() -> None:
    run_script("""
        import sys
        import server_keys.command.cli
        from server_keys.proxy import SealOptions, seal_app

        seal_app(SealOptions(to="https://my-server"))
        assert not {"fastapi", "pydantic"} & set(sys.modules)
    """)
