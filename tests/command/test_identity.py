"""`server-keys identity`: a file for the server, and one line for its clients."""

import re
import stat
from pathlib import Path

import pytest

from tests.helpers.commands import run, run_here
from tests.helpers.signed_answers import OtherSigner

SIGNER = OtherSigner(bytes(range(32)))


def test_new_writes_a_file_and_prints_one_line_which_show_prints_again(tmp_path: Path) -> None:
    path = tmp_path / "server.key"
    made = run("identity", "new", str(path))
    assert (made.returncode, made.stderr) == (0, "")
    assert re.fullmatch(r"ed25519:[A-Za-z0-9_-]{43}\n", made.stdout)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = run("identity", "show", str(path))
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, made.stdout, "")


def test_show_prints_what_another_library_computes(tmp_path: Path) -> None:
    path = SIGNER.write_to(tmp_path / "server.key")
    assert run_here("identity", "show", str(path)).stdout == f"{SIGNER.identity}\n"


@pytest.mark.parametrize("content", [b"", b"something", SIGNER.pem])
def test_new_never_overwrites(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "server.key"
    path.write_bytes(content)
    done = run_here("identity", "new", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    said = f'server-keys: the identity file "{path}" exists already: nothing is overwritten; name another file\n'
    assert done.stderr == said
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("mode", "content", "why"),
    [
        (0o644, SIGNER.pem, "can be read or written by every user"),
        (0o620, SIGNER.pem, "can be written by its group"),
        (0o600, b"", "is empty"),
        (0o600, None, "does not exist"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, mode: int, content: bytes | None, why: str) -> None:
    path = tmp_path / "server.key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    done = run_here("identity", "show", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [("identity", "new"), ("identity", "show"), ("identity",), ("identity", "x", "y")]
)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...]) -> None:
    assert run_here(*arguments).returncode == 2


def test_the_proxies_take_an_identity_at_either_end(tmp_path: Path) -> None:
    seal = ("seal", "--to", "https://my-server", "--listen", "127.0.0.1:0", "--identity")
    done = run_here(*seal, "server.key")
    assert done.returncode == 2
    assert "--identity" in done.stderr
    assert "begins with 'ed25519:'" in done.stderr
    opens = ("open", "--to", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--key-identity")
    done = run_here(*opens, SIGNER.identity)
    assert done.returncode == 2
    assert "--key-identity is the public half" in done.stderr
    done = run(*opens, str(tmp_path / "missing.key"))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "missing.key" in line]
    assert "does not exist" in line
