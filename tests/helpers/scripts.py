"""Scripts in a Python process of their own, for what would hurt the process of the tests."""

import os
import subprocess
import sys
import textwrap


def run_script(source: str, *arguments: str, environment: dict[str, str] | None = None, timeout_s: float = 60) -> str:
    """Run a script with the tests' interpreter and return what it printed; fail unless it ends well.

    Args:
        source: the script; common indentation is removed.
        arguments: its `sys.argv[1:]`.
        environment: variables on top of this process's.
        timeout_s: seconds after which it is killed.

    Raises:
        AssertionError: it ended with an error, or said something to stderr.
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(source), *arguments]
    try:
        process = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise AssertionError(f"the script hangs: {expired.stdout!r} {expired.stderr!r}") from expired
    assert process.returncode == 0, f"exit status {process.returncode}: {process.stderr}"
    assert process.stderr == ""
    return process.stdout
