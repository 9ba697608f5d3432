"""A group's folder that is lost while its members work in it, and what is put in its place."""

import contextlib
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path


def let_go(path: Path) -> None:
    """Let what is there vanish at once, as for those who work in it."""
    if path.is_dir() and not path.is_symlink():
        path.rename(gone := path.with_name(f"gone-{secrets.token_hex(8)}"))
        # Whoever has it open may write there still.
        shutil.rmtree(gone, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def take_place(put: Callable[[Path], object], path: Path) -> None:
    """Put something else in a folder's place.

    Members look all the time, and one that looks in between makes the folder anew: then it has to go once more.

    Args:
        put: puts it there, or raises FileExistsError.
        path: the folder's.
    """
    while True:
        let_go(path)
        with contextlib.suppress(FileExistsError):
            put(path)
            return


def put_file(path: Path) -> None:
    """Put a file where a member can then make no folder."""
    with path.open("x") as file:
        file.write("no folder any more")
