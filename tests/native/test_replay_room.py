"""Room for a table of seen requests is taken on file systems, C libraries and kernels that cannot be had here."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.scripts import run_script

INTERPOSED = """
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

int posix_fallocate(int file, off_t offset, off_t length) {
    const char *like = getenv("ALLOCATES_LIKE");
    if (like[0] == 'k') { /* A kernel whose tmpfs begins anew after each signal, while a timer sends them. */
        sigset_t blocked;
        pthread_sigmask(SIG_BLOCK, NULL, &blocked);
        return sigismember(&blocked, SIGALRM) ? ftruncate(file, offset + length) : EINTR;
    }
    return atoi(like); /* musl, where the file system does not know how. */
}
"""

ADD_AND_SHOW = """
import os, signal, sys
from server_keys._native import ReplayTable, ReplayTableError

descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try:
    table = ReplayTable.make_shared(descriptor)
except ReplayTableError as error:
    sys.exit(str(error))
assert table.add(bytes(8))
again = ReplayTable.open_shared(descriptor)
assert not again.add(bytes(8))
assert again.capacity == 2**18
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
print(os.fstat(descriptor).st_blocks * 512 >= 4 * 1024 * 1024)
"""


@pytest.fixture(scope="module")
def interposer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with another posix_fallocate()."""
    compiler = shutil.which("cc")
    assert compiler, "a C compiler is needed, as for building the package"
    folder = tmp_path_factory.mktemp("interposer")
    source, library = folder / "posix_fallocate.c", folder / "posix_fallocate.so"
    source.write_text(INTERPOSED)
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source], check=True)
    return library


def made(interposer: Path, path: Path, like: str) -> str:
    environment = {"LD_PRELOAD": str(interposer), "ALLOCATES_LIKE": like}
    return run_script(ADD_AND_SHOW, str(path), environment=environment, timeout_s=30)


@pytest.mark.parametrize("number", [95, 22, 38], ids=["EOPNOTSUPP", "EINVAL", "ENOSYS"])
def test_a_file_system_that_cannot_allocate_is_written_to(interposer: Path, tmp_path: Path, number: int) -> None:
    assert made(interposer, tmp_path / "table", str(number)) == "True\n"


def test_signals_do_not_make_the_system_begin_anew_for_ever(interposer: Path, tmp_path: Path) -> None:
    assert made(interposer, tmp_path / "table", "kernel").endswith("e\n")


def test_a_full_file_system_is_not_written_to(interposer: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="No space left on device"):
        made(interposer, tmp_path / "table", "28")
