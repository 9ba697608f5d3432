"""Every block of code on the pages that people read is run, or held by another test: none is left out silently."""

import pytest

from tests.site import held_elsewhere
from tests.site.blocks import BLOCKS, Block

# Each of these languages has a test here that takes all its blocks.
RUN = {"python": "test_python_blocks.py", "sh": "test_shell_blocks.py"}
# Layouts of bytes, which nothing can run.
NO_CODE = {"text"}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_something_holds_the_block(block: Block) -> None:
    assert block.language in {*RUN, *NO_CODE} or held_elsewhere.test_of(block), (
        f"{block} is no {' or '.join(RUN)}, and held_elsewhere.py names no test for it:\n{block.code}"
    )


@pytest.mark.parametrize("key", held_elsewhere.TESTS, ids=" ".join)
def test_what_another_test_holds_is_one_block_and_that_test_exists(key: tuple[str, str]) -> None:
    page, words = key
    assert sum(block.page == page and words in block.code for block in BLOCKS) == 1
    assert held_elsewhere.exists(held_elsewhere.TESTS[key])
