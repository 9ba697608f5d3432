"""The pages on the command and the proxy: what they let people type exists, and they name every option."""

import re
import shlex
from pathlib import Path

import click
import pytest

from server_keys.command.cli import cli
from tests.helpers.commands import run_here
from tests.helpers.scripts import run_script
from tests.helpers.server_processes import ROOT

PAGES = ("command.md", "proxy.md")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page(name), re.DOTALL)


def typed() -> list[list[str]]:
    """Return the arguments of each `server-keys` in the pages and in the help."""
    helps = [command.help or "" for command in (cli, *cli.commands.values())]
    shell = [block for name in PAGES for block in blocks(name, "sh")] + helps
    lines = "\n".join(shell).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^|[ (])server-keys ((?:seal|open|check|completion)\b[^)|]*)", line) for line in lines]
    return [shlex.split(match[1].strip().strip('"')) for match in found if match]


@pytest.mark.parametrize("arguments", typed(), ids=" ".join)
def test_what_they_let_people_type_is_understood(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEYS_SEAL_TO", "https://my-server")
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "command"))
    command = cli.commands[arguments[0]]
    if "--verify-key" in arguments:
        arguments = [argument.replace("pins:verify", "os:getenv") for argument in arguments]
    with click.Context(cli, auto_envvar_prefix="SERVER_KEYS") as parent:
        command.make_context(arguments[0], arguments[1:], parent=parent)


def test_the_page_on_the_command_names_every_option() -> None:
    text = page("command.md")
    for name, command in cli.commands.items():
        assert f"`server-keys {name}`" in text
        for parameter in command.params:
            for option in (*parameter.opts, *parameter.secondary_opts):
                if option.startswith("--"):
                    assert option in text, option


def test_the_defaults_of_the_page_are_those_of_the_command() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)` \| `?([^|`]+?)`? \|", page("command.md"), re.MULTILINE)
    defaults = {
        option: parameter.default
        for name in ("seal", "open")
        for parameter in cli.commands[name].params
        for option in parameter.opts
        if option != "--listen"
    }
    checked = 0
    for option, said in rows:
        if re.fullmatch(r"\d+", said) or said in ("auto", "info", "exact"):
            assert str(defaults[option]) in (said, f"{said}.0")
            checked += 1
    assert checked >= 8


def test_the_function_that_pins_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks("command.md", "python")
    run_script(code + "\nverify(bytes.fromhex('4b' * 32))\ntry:\n    verify(bytes(32))\nexcept ValueError:\n    pass\n")
    (tmp_path / "pins.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    done = run_here("seal", "--to", "https://my-server", "--verify-key", "pins:verify", "--listen", "nowhere")
    assert "--listen must be" in done.stderr


def test_the_app_of_the_page_on_the_proxy_is_one() -> None:
    (code,) = blocks("proxy.md", "python")
    run_script(code + "\nassert callable(app)\n")


def test_the_subjects_of_the_page_are_those_of_the_doctor() -> None:
    table = page("command.md").split("| subject | what it tells |")[1].split("\n\n")[0]
    subjects = set(re.findall(r"^\| ([a-z ]+) \|", table, re.MULTILINE))
    from tests.command.test_check import SUBJECTS

    assert subjects == SUBJECTS | {"rotation"}
