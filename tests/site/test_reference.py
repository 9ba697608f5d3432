"""The API reference has every public name, with its parameters' types, meanings and defaults."""

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

import server_keys
from tests.helpers.chromium import needs_chromium
from tests.site.blocks import ROOT

pytestmark = needs_chromium

MODULES = {
    "server_keys": "server_keys",
    "server_keys.client": "client",
    "server_keys.client.httpx": "httpx",
    "server_keys.proxy": "proxy",
    "server_keys.metrics": "metrics",
    "server_keys.middleware": "middleware",
    "server_keys.readiness": "readiness",
    "server_keys.errors": "errors",
    "server_keys.vllm": "vllm",
}
"""The public modules, and the page of each in docs/api."""

# It has no `__all__`: what it defines under these names is what `server_keys.client` has for httpx2.
OF_HTTPX = ["AsyncSealedTransport", "SealedTransport", "async_sealed_client", "sealed_client"]

# The rows of the table below a heading of the documentation of a name, as texts.
ROWS = """
([name, title]) => {
    const object = document.getElementById(name).closest(".doc-object");
    const contents = object.querySelector(":scope > .doc-contents");
    const titles = [...contents.querySelectorAll(".doc-section-title")];
    const found = titles.find((one) => one.textContent === title && one.closest(".doc-object") === object);
    let table = found?.parentElement;
    while (table && !table.querySelector("tbody")) table = table.nextElementSibling;
    const rows = table ? [...table.querySelectorAll("tbody tr")] : [];
    return rows.map((row) => [...row.cells].map((cell) => cell.innerText.trim()));
}
"""


def public_names(module: str) -> list[str]:
    """Return what a module offers."""
    if module == "server_keys.client.httpx":
        return OF_HTTPX
    return list(getattr(importlib.import_module(module), "__all__", []))


NAMES = [(module, name) for module in MODULES for name in public_names(module)]


@pytest.fixture(scope="module")
def open_page(url: str, browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Opens the page of a module, once."""
    context = browser.new_context()

    @functools.cache
    def opened(module: str) -> Page:
        page = context.new_page()
        page.goto(f"{url}/api/{MODULES[module]}.html")
        return page

    yield opened
    context.close()


def test_each_public_module_has_a_page() -> None:
    assert {f"{page}.md" for page in MODULES.values()} == {path.name for path in (ROOT / "docs/api").iterdir()}
    public = {
        path.parent if path.name == "__init__.py" else path
        for path in Path(server_keys.__file__).parent.glob("[!_]*")
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    # The functions of the one are those of `server_keys`, and the other is for the command line.
    others = {"server_keys.build_app", "server_keys.command"}
    assert {f"server_keys.{path.stem}" for path in public} - others <= set(MODULES)


@pytest.mark.parametrize(("module", "name"), NAMES, ids=".".join)
def test_each_public_name_is_there_with_its_parameters(
    open_page: Callable[[str], Page], module: str, name: str
) -> None:
    page = open_page(module)
    heading = page.locator(f'[id="{module}.{name}"]')
    assert heading.inner_text().split()[0] == name
    value = getattr(importlib.import_module(module), name)
    if not (inspect.isroutine(value) or inspect.isclass(value)) or _is_error(value) or name in ("Engine", "KeyPair"):
        return
    if not hasattr(value, "__dataclass_fields__"):
        _assert_parameters(page, f"{module}.{name}", value)
    if inspect.isroutine(value):
        _assert_ends(page, f"{module}.{name}", value)
    if inspect.isclass(value):
        methods = [
            method for method in vars(value) if not method.startswith("_") and inspect.isroutine(vars(value)[method])
        ]
        for method in methods:
            _assert_parameters(page, f"{module}.{name}.{method}", getattr(value, method))
            _assert_ends(page, f"{module}.{name}.{method}", getattr(value, method))


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Exception)


def _assert_parameters(page: Page, name: str, value: Callable[..., object]) -> None:
    """Check that the table of parameters is that of the signature, and that each row says something."""
    signature = inspect.signature(value)
    expected = [parameter for parameter in signature.parameters if parameter != "self"]
    rows = page.evaluate(ROWS, [name, "Parameters:"])
    assert [row[0].lstrip("*") for row in rows] == expected, name
    for parameter, kind, meaning, default in rows:
        given = signature.parameters[parameter.lstrip("*")]
        is_required = given.default is given.empty and given.kind is not given.VAR_KEYWORD
        assert kind, (name, parameter)
        assert meaning, (name, parameter)
        assert (default == "required") is is_required, (name, parameter, default)


def _assert_ends(page: Page, name: str, value: Callable[..., object]) -> None:
    """Check that what a function returns and raises is told: in tables, or what it returns in its first sentence."""
    documentation = inspect.getdoc(value) or ""
    nothing = (None, "None", "NoReturn", inspect.Signature.empty)
    returns_nothing = inspect.signature(value).return_annotation in nothing
    told = bool(page.evaluate(ROWS, [name, "Returns:"])) or documentation.startswith("Return ")
    assert told or returns_nothing, name
    raised = re.search(r"^Raises:\n((?:    .*\n?)+)", documentation, re.MULTILINE)
    expected = re.findall(r"^    (\w+): ", raised[1], re.MULTILINE) if raised else []
    assert [row[0] for row in page.evaluate(ROWS, [name, "Raises:"])] == expected, name


def test_the_documented_functions_have_the_documented_layout(open_page: Callable[[str], Page]) -> None:
    page = open_page("server_keys")
    name = "server_keys.periodic_refresh"
    heading = page.locator(f'[id="{name}"]')
    assert heading.inner_text().split()[:2] == ["periodic_refresh", "async"]
    of_function = heading.locator("xpath=ancestor::div[contains(@class, 'doc-object')][1]")
    titles = of_function.locator(".doc-section-title").all_inner_texts()
    assert titles == ["Parameters:", "Raises:"]
    assert [row[:2] for row in page.evaluate(ROWS, [name, "Parameters:"])] == [
        ["app", "FastAPI"],
        ["period", "float"],
        ["share", "str | None"],
    ]
    assert [row[0] for row in page.evaluate(ROWS, [name, "Raises:"])] == ["TypeError", "ValueError"]
    returned = page.evaluate(ROWS, ["server_keys.inject_key_lifespan", "Returns:"])
    assert [row[0] for row in returned] == ["BuildAppFunc"]
