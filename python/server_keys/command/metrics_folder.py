"""The folder in which the workers of a command leave their metrics for each other."""

import contextlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator

import click

# By it prometheus_client learns where the folder is.
_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def has_metrics() -> bool:
    """Return whether there is what Prometheus' metrics need."""
    return importlib.util.find_spec("prometheus_client") is not None


@contextlib.contextmanager
def metrics_of_workers(workers: int) -> Iterator[None]:
    """Let workers, if there are several, leave their metrics for each other, in a folder that goes with the block.

    Raises:
        click.ClickException: no folder can be made.
    """
    # The variable may be meant for the server behind, whose metrics these are not.
    os.environ.pop(_FOLDER_VARIABLE, None)
    if workers == 1 or not has_metrics():
        yield
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="server-keys-metrics-", ignore_cleanup_errors=True)
    except OSError as error:
        raise click.ClickException(
            f"cannot make a folder for the metrics of several workers ({error}): let TMPDIR name a folder where this "
            "user may write"
        ) from None
    with folder as path:
        os.environ[_FOLDER_VARIABLE] = path
        yield


def metrics_folder() -> str | None:
    """Return where the workers of this command leave their metrics for each other; None if there is one only."""
    return os.environ.get(_FOLDER_VARIABLE)
