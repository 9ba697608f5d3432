"""The commands and examples of the README work, and its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.demo_process import running_demo

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
PAGES = (
    "README.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "js/README.md",
    "docs/client.md",
    "docs/many-processes.md",
    "docs/protocol.md",
    "docs/vllm.md",
)


def test_the_key_agreement_is_the_example_and_agrees_across_a_rotation() -> None:
    example = (PROJECT / "examples" / "exchange.py").read_text()
    assert example in PYTHON_BLOCKS
    with running_demo("--refresh-time-s", "1", "--overlap-s", "1") as demo:
        client = example.replace("http://127.0.0.1:8000", demo.url)
        assert demo.url in client
        before = demo.ask("GET", "/keys")[1]["made"]
        subprocess.run([sys.executable, "-c", client], check=True, timeout=30)
        assert demo.ask("GET", "/keys")[1]["made"] > before


def test_the_package_is_shown_before_the_bare_key_agreement() -> None:
    order = [
        "protect(app",
        "uvicorn server:app",
        "sealed_client()",
        "## Why not just TLS?",
        "make demo",
        "examples/exchange.py",
    ]
    positions = [README.index(text) for text in order]
    assert positions == sorted(positions)


def test_each_folder_of_the_tree_exists() -> None:
    tree = README.partition("## The tree")[2].partition("```\n")[2].partition("```")[0]
    parent = PROJECT
    found = []
    for line in tree.splitlines():
        names = re.match(r"\s*((?:\S+(?:/|\.py) +)+)", line)
        assert names, line
        for name in names[1].split():
            folder = parent if line.startswith(" ") else PROJECT
            assert (folder / name).exists(), line
            found.append(name)
        if not line.startswith(" "):
            parent = PROJECT / found[-1]
    assert {"_keys/", "_sealing/", "js/", "examples/demo/", "tests/", "benches/"} <= set(found)


@pytest.mark.parametrize("page", PAGES)
def test_each_link_to_a_file_leads_to_it(page: str) -> None:
    text = (PROJECT / page).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (PROJECT / page).parent / path if path else PROJECT / page
        assert linked.exists(), f"{page}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{page}: {target}"


def test_no_text_says_that_a_package_index_has_the_package() -> None:
    folders = [PROJECT / name for name in ("python", "docs", "examples", "js", "benches", "tests")]
    paths = [*PROJECT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.*"))]
    texts = [path for path in paths if path.suffix in (".md", ".py", ".pyi", ".js", ".html")]
    assert PROJECT / "python" / "server_keys" / "client" / "__init__.py" in texts
    for path in texts:
        if path != Path(__file__) and "node_modules" not in path.parts:
            said = re.search(r"""pip install (-\S+ )*["']?server[-_]keys(?![\w.-]*\.whl)""", path.read_text())
            assert said is None, f"{path}: {said and said[0]}"
