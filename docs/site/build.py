"""Builds the documentation site into a folder: `python docs/site/build.py site`.

Pages lie where people who read the source tree look for them: in docs/, and some at the top. Their links lead to files
of the tree. So the pages are gathered in a temporary folder first, with links that lead to pages of the site.
"""

import os
import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PAGES_ELSEWHERE = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benches/RESULTS.md": "benchmarks.md",
    "js/README.md": "javascript-client.md",
}
"""Pages of the tree that are not in docs/, and where the site has them. The site's first page stands for the README."""

_FENCE = re.compile(r"^ *(```|~~~)")
_LINK = re.compile(r"(\]\(|<img src=\")([^)\s\"]+)")
# In the tree a link to a page shows the page's file.
_NAMED_BY_ITS_FILE = re.compile(r"\[[\w./-]+\.md\]\(([^)\s#]+\.md)(#[^)\s]*)?\)")


class Gathered:
    """The pages and files of the site, in a folder that the site builder reads.

    Args:
        tree: the source tree.
        folder: the new folder.

    Raises:
        FileNotFoundError: a page links to a file that does not exist.
    """

    def __init__(self, tree: Path, folder: Path) -> None:
        self._tree = tree
        self._folder = folder
        docs = [
            path for path in (tree / "docs").rglob("*") if path.is_file() and tree / "docs/site" not in path.parents
        ]
        of_docs = {path.relative_to(tree).as_posix(): path.relative_to(tree / "docs").as_posix() for path in docs}
        self._places = {**of_docs, **PAGES_ELSEWHERE}
        for name in ("site.css", "icon.svg"):
            _copy(tree / "docs/site" / name, folder / name)
        for source, place in tuple(self._places.items()):
            if source == "README.md":
                continue
            if source.endswith(".md"):
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).write_text(self._with_links_of_the_site(source))
            else:
                _copy(tree / source, folder / place)

    def _with_links_of_the_site(self, source: str) -> str:
        lines, in_code = [], False
        for line in (self._tree / source).read_text().splitlines(keepends=True):
            if _FENCE.match(line):
                in_code = not in_code
            if not in_code:
                line = _NAMED_BY_ITS_FILE.sub(lambda link: self._with_title(source, link), line)
                line = _LINK.sub(lambda link: link[1] + self._target(source, link[2]), line)
            lines.append(line)
        return "".join(lines)

    def _with_title(self, source: str, link: re.Match[str]) -> str:
        page = (self._tree / source).parent / link[1]
        title = re.search(r"^# (.+)$", page.read_text(), re.MULTILINE) if page.is_file() else None
        return f"[{title[1]}]({link[1]}{link[2] or ''})" if title else link[0]

    def _target(self, source: str, link: str) -> str:
        """Return where a link leads on the site.

        Raises:
            FileNotFoundError: it leads to no file of the tree.
        """
        path, hash_sign, anchor = link.partition("#")
        if "://" in link or not path:
            return link
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if target not in self._places:
            if not (self._tree / target).is_file():
                raise FileNotFoundError(f"{source} links to {link}, and there is no file {target}")
            self._places[target] = f"files/{target}"
            _copy(self._tree / target, self._folder / self._places[target])
        here = posixpath.dirname(self._places[source])
        return posixpath.relpath(self._places[target], here or ".") + hash_sign + anchor


def build(into: Path, tree: Path = ROOT) -> None:
    """Build the site into a folder, in place of what is there.

    Args:
        into: the folder.
        tree: the source tree whose pages and docstrings it shows.

    Raises:
        FileNotFoundError: a page links to a file that does not exist.
        CalledProcessError: the builder found a fault, such as a link to a page or heading that does not exist. It has
            printed which.
    """
    with tempfile.TemporaryDirectory(prefix="server-keys-site-") as name:
        folder = Path(name)
        Gathered(tree, folder / "pages")
        for settings in ("zensical.toml", "docstrings.py"):
            _copy(tree / "docs/site" / settings, folder / settings)
        (folder / "python").symlink_to(tree / "python")
        command = [sys.executable, "-m", "zensical", "build", "--strict"]
        subprocess.run(command, cwd=folder, check=True, env=os.environ | {"NO_COLOR": "1"})
        shutil.rmtree(into, ignore_errors=True)
        shutil.copytree(folder / "html", into)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]))
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        sys.exit(f"The site cannot be built: {error}")
