"""Each command of the shell blocks runs, or is checked as far as this machine can: its options, targets and files."""

import hashlib
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from packaging.requirements import Requirement

from examples.demo.app import create_app
from server_keys._sealing.identity import identity_of
from server_keys.vllm.options import OPTIONS
from tests.helpers.commands import run_here, serving
from tests.helpers.served_command import running_command
from tests.helpers.server_processes import ROOT, free_port
from tests.helpers.servers import running
from tests.site import held_elsewhere
from tests.site.blocks import Block, of

BLOCKS = [block for block in of("sh", "console", "bash") if not held_elsewhere.test_of(block)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXAMPLES = ROOT / "examples"
PROXY = "http://127.0.0.1:8011"
# The command, where it is not on the path.
SERVER_KEYS = f'server-keys() {{ {shlex.quote(sys.executable)} -m server_keys.command "$@"; }}'


def commands(block: Block) -> Iterator[str]:
    """Yield the commands of a block. One goes on behind a backslash, and until a quotation ends."""
    command = ""
    for line in block.code.replace("\\\n", " ").splitlines():
        command += line
        try:
            words = shlex.split(command, comments=True)
        except ValueError:
            command += "\n"
            continue
        if words:
            yield command
        command = ""
    assert not command, f"{block}: a quotation has no end"


def run(command: str, folder: Path) -> str:
    """Run a command in a folder and return what it printed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make(block: Block, command: str, folder: Path) -> None:
    """A target would take minutes, and CI runs them: make says here that it knows how to make them."""
    assert run(command.replace("make ", "make --dry-run ", 1), ROOT)


def pip(block: Block, command: str, folder: Path) -> None:
    """An installation changes the environment of the tests: what it names is declared."""
    packages = shlex.split(command, comments=True)[2:]
    assert packages
    for package in packages:
        wheel = re.fullmatch(r"\$\(ls dist/\*\.whl\)\[(.*)\]|dist/\*\.whl", package)
        if wheel is None:
            Requirement(package)
        elif wheel[1]:
            assert wheel[1] in PROJECT["project"]["optional-dependencies"]


def npm(block: Block, command: str, folder: Path) -> None:
    """It needs a registry: the packages are those of the example, which other tests run."""
    names = {word.partition("@")[0] for word in shlex.split(command, comments=True)[2:]}
    assert names
    assert f'"{names.pop()}"' in (EXAMPLES / "node" / "package.json").read_text()


def uvicorn(block: Block, command: str, folder: Path) -> None:
    """The page's first app is served, and has a key."""
    app = next(other for other in of("python") if other.page == block.page)
    (folder / "server.py").write_text(app.code)
    port = free_port()
    words = [sys.executable, "-m", *shlex.split(command, comments=True), "--port", str(port)]
    with running_command(words, port, folder / "log", folder=folder):
        assert urlopen(f"http://127.0.0.1:{port}/.well-known/hpke-keys").status == 200


def server_keys_vllm(block: Block, command: str, folder: Path) -> None:
    """No vLLM is here: `make test-vllm` has one. The command's own help has the options."""
    options = [word for word in shlex.split(command, comments=True) if word.startswith("--")]
    told = run(f"{shlex.quote(sys.executable)} -m server_keys.vllm --help", folder)
    assert options
    assert not [option for option in options if option not in told]


def vllm(block: Block, command: str, folder: Path) -> None:
    """No vLLM is here: `make test-vllm` runs this command. The variables are those that the plugin reads."""
    variables = set(re.findall(r"\b(SERVER_KEYS_\w+)=", command))
    assert variables
    assert variables <= {option.variable for option in OPTIONS.values()}
    assert "VLLM_PLUGINS=server_keys" in command


def kubectl(block: Block, command: str, folder: Path) -> None:
    """No cluster is here: the files are those of an example, and its manifests name the same objects."""
    words = shlex.split(command, comments=True)
    files = [word.rpartition("=")[2] for word in words if word.startswith("--from-file=")]
    files += [words[words.index("-f") + 1]] if "-f" in words else []
    shared = EXAMPLES / "sharing"
    assert files
    assert all((shared / name).exists() or name == "group.secret" for name in files), files
    if words[1] == "create":
        name = words[words.index("generic") + 1 if "generic" in words else words.index("configmap") + 1]
        assert name in (shared / "kubernetes.yaml").read_text()


def python(block: Block, command: str, folder: Path) -> None:
    """The environment that it names is another one: the paths that it is given exist."""
    words = shlex.split(command, comments=True)
    assert words[1:3] == ["-m", "pytest"]
    assert all((ROOT / path).exists() for path in words[3:])


def shell(block: Block, command: str, folder: Path) -> None:
    """It is run with the rest of its block, at the end."""


def server_keys(block: Block, command: str, folder: Path) -> None:
    """The tests of the command and of the examples start it. The subcommand's own help has options and variables.

    What makes or shows an identity runs here.
    """
    words = shlex.split(command, comments=True)
    subcommand = words[words.index("server-keys") + 1]
    if subcommand == "identity":
        printed = run(f"{SERVER_KEYS}\n{command}", folder)
        assert re.fullmatch(r"ed25519:[A-Za-z0-9_-]{43}\n", printed)
        return
    told = run_here(subcommand, "--help").stdout
    variables = re.findall(r"\b(SERVER_KEYS_\w+)=", command)
    assert not [
        word
        for word in (*words, *variables)
        if word.startswith(("--", "SERVER_KEYS_")) and word.partition("=")[0] not in told
    ]


def curl(block: Block, command: str, folder: Path) -> None:
    """It is asked of the page's proxy, before the demo's app."""
    assert PROXY in command
    command = command.replace("curl ", "curl --fail --silent --show-error ", 1).replace('"tiny"', '"toy-rambler"')
    with (
        running(create_app(1000)) as server,
        serving("seal", "--to", server, "--listen", "127.0.0.1:0") as proxy,
    ):
        assert run(command.replace(PROXY, proxy.url), folder)


def go(block: Block, command: str, folder: Path) -> None:
    """The tests of the examples run it: the file is there."""
    words = shlex.split(command, comments=True)
    assert words[1] == "run"
    assert (ROOT / words[2]).is_file()


def completion(block: Block, command: str, folder: Path) -> None:
    """The command is installed elsewhere: what would be evaluated is a script."""
    named = re.fullmatch(r'eval "\$\(server-keys completion (\w+)\)"', command)
    assert named
    (folder / "script").write_text(run_here("completion", named[1]).stdout)
    assert run(f"{named[1]} -n script && cat script", folder)


CHECKS: dict[str, Callable[[Block, str, Path], None]] = {
    "curl": curl,
    "eval": completion,
    "go": go,
    "kubectl": kubectl,
    "make": make,
    "npm": npm,
    "openssl": shell,
    "pip": pip,
    ".venv-dev/bin/python": python,
    "server-keys": server_keys,
    "server-keys-vllm": server_keys_vllm,
    "umask": shell,
    "uvicorn": uvicorn,
    "vllm": vllm,
}
"""For each program how its commands are checked. The docstrings say why one is not simply run."""


def program(command: str) -> str:
    """Return the program of a command, behind the variables that are set for it."""
    return next(word for word in shlex.split(command, comments=True) if not re.match(r"[A-Z_]+=", word))


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_each_command_of_the_block_works(block: Block, tmp_path: Path) -> None:
    found = list(commands(block))
    assert found
    for command in found:
        assert program(command) in CHECKS, f"{block}: nothing says how {program(command)} is checked"
        CHECKS[program(command)](block, command, tmp_path)
    if all(CHECKS[program(command)] is shell for command in found):
        run("\n".join(found), tmp_path)


def test_each_program_that_can_be_checked_is_on_a_page() -> None:
    assert set(CHECKS) == {program(command) for block in BLOCKS for command in commands(block)}


def test_the_report_of_a_confidential_vm_is_asked_about_the_identity(tmp_path: Path) -> None:
    (block,) = [block for block in of("sh") if "inblob" in block.code]
    # The kernel makes the files of a report when its folder is made.
    kernel = 'mkdir() { command mkdir -p "$1" && printf "a quote" > "$1/outblob"; }'
    script = textwrap.dedent(block.code)
    for folder in ("/sys/kernel/config", "/run"):
        (tmp_path / folder[1:]).mkdir(parents=True)
        script = re.sub(rf"(?<![\w/]){folder}/", f"{tmp_path}{folder}/", script)
    run("\n".join([SERVER_KEYS, kernel, script]), tmp_path)
    identity = run_here("identity", "show", str(tmp_path / "run/server.key")).stdout
    assert (tmp_path / "run/identity").read_text() == identity
    (asked,) = tmp_path.glob("sys/**/inblob")
    assert asked.read_bytes() == hashlib.sha512(identity.strip().encode()).digest()
    assert (tmp_path / "run/report").read_text() == "a quote"
    assert (tmp_path / "run/server.key").stat().st_mode & 0o777 == 0o600


def test_the_identity_that_openssl_makes_can_be_used(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "openssl genpkey" in block.code]
    shown = run(block.code, tmp_path)
    identity = run_here("identity", "show", str(tmp_path / "server.key")).stdout
    public_key = re.search(r"pub:((?:\s+[0-9a-f:]+)+)", shown)
    assert public_key is not None
    assert identity.strip() == identity_of(bytes.fromhex(re.sub(r"[:\s]", "", public_key[1])))


def test_the_secret_that_a_page_makes_can_be_used(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "openssl rand" in block.code]
    run(block.code, tmp_path)
    (secret,) = tmp_path.iterdir()
    assert secret.stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", secret.read_text())
