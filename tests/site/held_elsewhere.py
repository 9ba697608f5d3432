"""The blocks that another test runs or compares, because they need more than the tests of blocks have."""

from tests.site.blocks import ROOT, Block

_TESTING = "tests/operations/test_pages.py::test_the_tests_of_the_page_testing_pass"
_STORE = "tests/sharing/test_documented_examples.py::test_the_page_shows_the_file"

TESTS = {
    # Two processes of pytest, and a module that the second block imports.
    ("docs/testing.md", "protect(app, required=True)"): _TESTING,
    ("docs/testing.md", "async def sealed()"): _TESTING,
    # It waits for the end of a key, so its demo has to have short ones.
    ("README.md", "X25519PrivateKey.generate()"): (
        "tests/demo/test_readme.py::test_the_key_agreement_is_the_example_and_agrees_across_a_rotation"
    ),
    ("README.md", "rust/core/"): "tests/demo/test_readme.py::test_each_folder_of_the_tree_exists",
    ("js/README.md", "EhbpClient"): "tests/js/test_client.py::test_the_example_of_the_readme_chats",
    ("docs/go.md", "http.Post"): (
        "tests/examples/test_over_the_proxy.py::test_the_page_shows_a_part_of_the_example_for_go"
    ),
    # It needs Node, and packages from npm.
    ("docs/javascript.md", "sealedFetch"): "tests/examples/test_node.py::test_the_page_shows_the_example",
    ("docs/operations.md", "readinessProbe"): (
        "tests/operations/test_pages.py::test_the_probe_of_the_page_operations_asks_for_the_path_of_its_app"
    ),
    # The kernel of a confidential VM has what it writes to.
    ("docs/identity.md", "inblob"): (
        "tests/site/test_shell_blocks.py::test_the_report_of_a_confidential_vm_is_asked_about_the_identity"
    ),
    # It asks Intel about a quote of a confidential VM.
    ("docs/identity.md", "import dcap_qvl"): (
        "tests/site/test_python_blocks.py::test_the_check_of_a_report_refuses_each_report_that_is_not_right"
    ),
    ("docs/behind-a-proxy.md", "proxy_pass"): (
        "tests/sealing/test_behind_proxies.py::test_the_configuration_of_the_page_works_as_it_stands"
    ),
    # The files of examples/sharing.
    ("docs/many-processes.md", "maxmemory 32mb"): _STORE,
    ("docs/many-processes.md", "user default off"): _STORE,
    ("docs/many-processes.md", "services:\n"): _STORE,
    ("docs/many-processes.md", "kind: Deployment"): _STORE,
}
"""For a page and some words of a block: the test that holds it."""


def test_of(block: Block) -> str | None:
    """Return the test that holds a block, if there is one beside the tests of blocks."""
    found = [test for (page, words), test in TESTS.items() if page == block.page and words in block.code]
    assert len(found) < 2, f"{block}: {found}"
    return found[0] if found else None


def exists(test: str) -> bool:
    """Return whether there is such a test."""
    path, _, name = test.partition("::")
    return f"def {name}(" in (ROOT / path).read_text()
