"""The site is built from the tree, strictly, and needs nobody else to be read."""

import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from docs.site.build import PAGES_ELSEWHERE, Gathered, build
from tests.site.blocks import ROOT

# What a browser fetches by itself. Nothing follows a link before a person clicks it.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|link|object|embed)\b[^>]*?\s(?:src|href|data)=["']?([^"'\s>]+)"""
)
OF_STYLES = re.compile(r"""(?:url\(|@import )["']?([^"')\s]+)""")


def pages(site: Path) -> list[Path]:
    """Return the pages of the site."""
    return sorted(site.rglob("*.html"))


def test_each_page_of_the_tree_is_on_the_site(site: Path) -> None:
    docs = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    expected = {*map(str, docs), *(place.replace(".md", ".html") for place in PAGES_ELSEWHERE.values())}
    assert "api/server_keys.html" in expected
    assert expected == {str(path.relative_to(site)) for path in pages(site)} - {"404.html"}


def test_each_page_can_be_reached_from_the_first(site: Path) -> None:
    seen, todo = set[Path](), [site / "index.html"]
    while todo:
        page = todo.pop()
        if page not in seen:
            seen.add(page)
            links = re.findall(r'<a\b[^>]*\shref="([^"#:]+\.html)', page.read_text())
            todo += [(page.parent / link).resolve() for link in links]
    assert seen >= set(pages(site)) - {site / "404.html"}


def test_nothing_is_fetched_from_another_host(site: Path) -> None:
    fetched = {address for page in pages(site) for address in FETCHED.findall(page.read_text())}
    styled = {address for style in site.rglob("*.css") for address in OF_STYLES.findall(style.read_text())}
    assert any(address.endswith(".css") for address in fetched)
    foreign = [address for address in fetched | styled if re.match(r"(\w+:)?//", address)]
    assert not foreign


def test_pictures_and_files_that_pages_name_are_there(site: Path) -> None:
    for page in pages(site):
        if page.name == "404.html":
            continue
        for address in re.findall(r'\s(?:src|href)="([^"]+)"', page.read_text()):
            path = unquote(address.partition("#")[0])
            if path and ":" not in path:
                assert (page.parent / path).exists(), f"{page.relative_to(site)}: {address}"


def test_links_to_files_of_the_tree_lead_to_them(site: Path) -> None:
    assert (site / "files/benches/results.svg").read_bytes() == (ROOT / "benches/results.svg").read_bytes()
    assert (site / "grafana-dashboard.json").read_bytes() == (ROOT / "docs/grafana-dashboard.json").read_bytes()


@pytest.fixture
def tree(tmp_path: Path, site: Path) -> Path:
    """A copy of what the site is made of, with an empty reference, which takes the most time."""
    for folder in ("docs", "python", "benches", "js", "examples"):
        leave = shutil.ignore_patterns("node_modules", "*.so", "__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=leave)
    for page in (tmp_path / "docs" / "api").iterdir():
        page.write_text(page.read_text().partition(":::")[0])
    for page in ROOT.glob("*.md"):
        shutil.copy(page, tmp_path)
    shutil.copy(ROOT / "LICENSE", tmp_path)
    return tmp_path


def add(tree: Path, text: str) -> None:
    """Add text to a page of a tree."""
    page = tree / "docs" / "testing.md"
    page.write_text(f"{page.read_text()}\n\n{text}\n")


@pytest.mark.parametrize("link", ["[a page](nowhere.md)", "![a picture](nowhere.png)", "[a file](../nowhere.py)"])
def test_a_link_to_no_file_ends_the_build(tree: Path, link: str) -> None:
    add(tree, link)
    with pytest.raises(FileNotFoundError, match=r"docs/testing.md links to .*nowhere"):
        build(tree / "site", tree)


@pytest.mark.parametrize("link", ["[a heading](../README.md#nowhere)", "::: server_keys.nowhere"])
def test_a_link_to_no_heading_or_name_ends_the_build(tree: Path, link: str) -> None:
    add(tree, link)
    with pytest.raises(subprocess.CalledProcessError):
        build(tree / "site", tree)
    assert not (tree / "site").exists()


def test_links_become_those_of_the_site_and_code_stays_as_it_is(tree: Path) -> None:
    links = "[the top](../README.md#install) [limits](../SECURITY.md) [vllm.md](vllm.md#versions)"
    add(tree, f"{links}\n\n```python\nnames[0](nowhere.md)\n```")
    Gathered(tree, tree / "pages")
    text = (tree / "pages" / "testing.md").read_text()
    assert "[the top](index.md#install) [limits](security.md) [vLLM](vllm.md#versions)" in text
    assert "names[0](nowhere.md)" in text
