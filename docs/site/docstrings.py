"""Lets the API reference show what the sources say at run time only.

Griffe reads them without running them. The clients for httpx2 and httpx have one documentation, so it is told where
that is. "As for" another name becomes what is said there, and a default that is a constant of the package its value.
"""

import ast
import inspect
import re

import griffe


class AsAtRunTime(griffe.Extension):
    """Gives the client's names the docstrings that they have at run time, and defaults their values."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """Change what was read of the package."""
        if pkg.name != "server_keys":
            return
        _show_values(pkg)
        client = pkg.modules["client"]
        transport = client.modules["transports"].members["SyncSealedTransport"].members["__init__"]
        asynchronous = client.modules["transports"].members["AsyncSealedTransport"].members["__init__"]
        meanings = _meanings(transport)
        asynchronous.docstring = _docstring(_spelled_out(asynchronous, meanings), asynchronous)
        for library in ("httpx2", "httpx"):
            for member in client.modules[library].members.values():
                if isinstance(member, griffe.Function) and _is_documented_elsewhere(member):
                    member.docstring = _docstring(_constant(client.modules["factories"], "_DOCUMENTATION"), member)
                    member.docstring = _docstring(_spelled_out(member, meanings), member)
                elif isinstance(member, griffe.Class) and "__doc__" in member.members:
                    _take_over(member, _documented_base(client, member))


def _is_documented_elsewhere(function: griffe.Function) -> bool:
    return any(str(decorator.value) == "factories.documented" for decorator in function.decorators)


def _docstring(text: str, parent: griffe.Object | griffe.Alias) -> griffe.Docstring:
    assert isinstance(parent, griffe.Object)
    return griffe.Docstring(text, parent=parent, parser=griffe.Parser.google)


def _constant(module: griffe.Module, name: str) -> str:
    attribute = module.members[name]
    assert isinstance(attribute, griffe.Attribute)
    text: str = ast.literal_eval(str(attribute.value))
    return inspect.cleandoc(text)


def _meanings(function: griffe.Object | griffe.Alias) -> dict[str, str]:
    """Return what a docstring says of each parameter, in one line."""
    assert function.docstring is not None
    parts = function.docstring.parse(griffe.Parser.google)
    (parameters,) = [part for part in parts if isinstance(part, griffe.DocstringSectionParameters)]
    return {parameter.name: " ".join(parameter.description.split()) for parameter in parameters.value}


def _spelled_out(function: griffe.Object | griffe.Alias, meanings: dict[str, str]) -> str:
    """Return a docstring that says itself what it says by "as for `SealedTransport`"."""
    assert function.docstring is not None

    def meaning(found: re.Match[str]) -> str:
        beginning, name, addition = found.groups()
        return f"{beginning}{meanings[name]}{f' It {addition}' if addition else ''}"

    return re.sub(
        r"^( +(\w+): )as for `SealedTransport`(?:, and (.*)|\.)$", meaning, function.docstring.value, flags=re.MULTILINE
    )


def _documented_base(client: griffe.Module, transport: griffe.Class) -> griffe.Class:
    documentation = transport.members["__doc__"]
    assert isinstance(documentation, griffe.Attribute)
    module, name, _ = str(documentation.value).split(".")
    base = client.modules[module].members[name]
    assert isinstance(base, griffe.Class)
    return base


def _take_over(transport: griffe.Class, base: griffe.Class) -> None:
    """Give a transport the docstring of its base, and the methods that are for its users."""
    assert base.docstring is not None
    transport.docstring = _docstring(base.docstring.value, transport)
    is_async = transport.name.startswith("Async")
    for name in ("__init__", *(("handle_async_request", "aclose") if is_async else ("handle_request", "close"))):
        transport.set_member(name, griffe.Alias(name, base.members[name], parent=transport))


def _show_values(parent: griffe.Module | griffe.Class) -> None:
    """Put values in place of constants, in the defaults of all functions."""
    for member in parent.members.values():
        if isinstance(member, griffe.Module | griffe.Class):
            _show_values(member)
        elif isinstance(member, griffe.Function):
            for parameter in member.parameters:
                if isinstance(parameter.default, griffe.ExprName) and parameter.default.name.isupper():
                    parameter.default = str(_value(parent, parameter.default.name))


def _value(parent: griffe.Object, name: str) -> object:
    constant = parent.modules_collection[parent.resolve(name)]
    assert isinstance(constant, griffe.Attribute | griffe.Alias)
    return constant.value
