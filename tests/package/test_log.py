"""The package's log: whatever configured logging, what operators have to see is seen."""

import subprocess
import sys

import pytest

SPEAK = "logger().warning('seen')\n"
WARN = "warn_at_start('%s', 'seen')\n"
# Changes that a program may have made to logging before the package logs.
DISABLED = """
logging.getLogger('server_keys')
logging.config.dictConfig({'version': 1, 'root': {'handlers': ['h']}, 'handlers': {'h': HANDLER}})
"""
DISABLED_BY_FILE = """
logging.getLogger('server_keys')
logging.config.fileConfig(io.StringIO('''
[loggers]
keys=root
[handlers]
keys=h
[formatters]
keys=
[logger_root]
handlers=h
[handler_h]
class=StreamHandler
args=(sys.stdout,)
'''))
"""
TAKES_WARNINGS = {
    "nothing configured": "",
    "basicConfig": "logging.basicConfig(format='%(message)s')",
    "a handler of the package's": "logging.getLogger('server_keys').addHandler(logging.StreamHandler(sys.stdout))",
    "disabled by dictConfig": DISABLED,
    "disabled by dictConfig, twice": DISABLED + SPEAK.replace("seen", "first") + DISABLED,
    "disabled by fileConfig": DISABLED_BY_FILE,
}
TAKES_NONE = {
    "only errors": "logging.getLogger().setLevel(logging.ERROR)",
    "only errors of the package": "logging.getLogger('server_keys').setLevel(logging.ERROR)",
    "a handler for errors": "logging.getLogger().addHandler(logging.StreamHandler())\n"
    "logging.getLogger().handlers[0].setLevel(logging.ERROR)",
    "all of logging switched off": "logging.disable()",
    "a handler that writes nothing": "logging.getLogger().addHandler(logging.NullHandler())",
    "kept from the root's handlers": "logging.basicConfig()\nlogging.getLogger('server_keys').propagate = False\n"
    "logging.getLogger('server_keys').addHandler(logging.NullHandler())",
}


def said(script: str) -> tuple[list[str], list[str]]:
    """Return the lines that a process says on stdout and on stderr."""
    imports = "import io, logging, logging.config, sys\nfrom server_keys._log import logger, warn_at_start\n"
    handler = "HANDLER = {'class': 'logging.StreamHandler', 'stream': 'ext://sys.stdout'}\n"
    command = [sys.executable, "-c", imports + handler + script]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return process.stdout.splitlines(), process.stderr.splitlines()


@pytest.mark.parametrize("configuration", TAKES_WARNINGS.values(), ids=TAKES_WARNINGS)
@pytest.mark.parametrize("speak", [SPEAK, WARN])
def test_a_warning_is_logged_once(configuration: str, speak: str) -> None:
    stdout, stderr = said(f"{configuration}\n{speak}")
    assert [line for line in stdout + stderr if line != "first"] == ["seen"]


@pytest.mark.parametrize("configuration", TAKES_NONE.values(), ids=TAKES_NONE)
def test_a_warning_at_the_start_is_printed_where_the_log_takes_none(configuration: str) -> None:
    assert said(f"{configuration}\n{WARN}") == ([], ["seen"])
    # Later ones are the operator's to keep out.
    assert said(f"{configuration}\n{SPEAK}") == ([], [])
