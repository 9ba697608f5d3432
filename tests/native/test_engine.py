"""What computes: the engine where it is in the build and passes its check, dalek and RustCrypto in every other case."""

import json
from pathlib import Path

import pytest

from server_keys import Engine, _native, engine
from tests.helpers.scripts import run_script

VECTORS = Path(__file__).parents[1] / "vectors"
PRODUCT: dict[str, str] = json.loads((VECTORS / "rfc7748.json").read_bytes())["products"][0]
AGREEMENT: dict[str, dict[str, str]] = json.loads((VECTORS / "rfc7748.json").read_bytes())["agreement"]
IS_IN_BUILD = "this build has no AWS-LC" not in (engine().why_not or "")

with_engine = pytest.mark.skipif(not IS_IN_BUILD, reason="the build leaves the engine out")

# Indented as the scripts are that it ends.
WORKS = f"""
        pair = native.KeyPair.from_private_key(bytes.fromhex("{PRODUCT["private_key"]}"))
        assert pair.exchange(bytes.fromhex("{PRODUCT["public_key"]}")).hex() == "{PRODUCT["shared_secret"]}"
        alice = native.KeyPair.from_private_key(bytes.fromhex("{AGREEMENT["alice"]["private_key"]}"))
        assert alice.public_key.hex() == "{AGREEMENT["alice"]["public_key"]}"
        sealer = native.RequestSealer(alice.public_key)
        opener = native.RequestOpener(sealer.encapsulated_key, [pair, alice])
        for text in (b"question", bytes(100_000)):
            assert opener.feed(sealer.seal(text)) == text
        assert len({{pair.public_key for pair in native.generate_key_pairs(1000)}}) == 1000
"""


def test_it_is_told_in_a_sentence_and_cannot_be_changed() -> None:
    told = engine()
    assert repr(told) == str(told)
    assert str(told).endswith(".")
    for computes in (told.keys, told.exchanges, told.batches, told.aes_gcm):
        assert computes
    with pytest.raises(TypeError):
        Engine()
    with pytest.raises(AttributeError):
        told.keys = "mine"  # type: ignore[misc]


@with_engine
def test_aws_lc_computes_unless_something_speaks_against_it() -> None:
    run_script(
        """
        from server_keys import _native as native

        told = native.engine()
        assert told.why_not is None, told
        assert (told.keys, told.exchanges, told.aes_gcm) == ("s2n-bignum", "s2n-bignum", "AWS-LC")
        assert str(told).startswith("AWS-LC "), told
        """
        + WORKS
    )


def test_the_switch_has_dalek_and_rustcrypto_compute_without_a_word() -> None:
    run_script(
        """
        from server_keys import _native as native

        told = native.engine()
        assert told.why_not == "SERVER_KEYS_ENGINE=dalek is set", told
        assert (told.keys, told.exchanges, told.aes_gcm) == ("dalek", "dalek", "RustCrypto")
        assert str(told).startswith("dalek computes X25519 and RustCrypto AES-256-GCM, because "), told
        """
        + WORKS,
        environment={"SERVER_KEYS_ENGINE": "dalek"},
    )


@pytest.mark.parametrize("unknown", ["", "Dalek", "aws-lc", "1", "d\udcffk"])
@pytest.mark.parametrize(
    "first", ["KeyPair.generate()", "generate_key_pairs(1)", "RequestSealer(bytes([9] * 32))", "engine()"]
)
def test_another_value_of_the_switch_is_one_warning_and_dalek(unknown: str, first: str) -> None:
    run_script(
        f"""
        import warnings
        from server_keys import _native as native

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            native.{first}
            native.{first}
            native.KeyPair.generate()
        (warning,) = caught
        assert warning.category is RuntimeWarning
        assert warning.filename == "<string>"
        assert "SERVER_KEYS_ENGINE has the unknown value" in str(warning.message), warning
        assert "set it to dalek, or unset it" in str(warning.message), warning
        assert native.engine().keys == "dalek"
        """
        + WORKS,
        environment={"SERVER_KEYS_ENGINE": unknown},
    )


def test_where_warnings_are_errors_the_switch_is_one_error_then_there_are_keys() -> None:
    run_script(
        """
        from server_keys import _native as native

        try:
            native.KeyPair.generate()
        except RuntimeWarning as warning:
            assert "SERVER_KEYS_ENGINE" in str(warning), warning
        else:
            raise AssertionError("no warning")
        """
        + WORKS,
        environment={"SERVER_KEYS_ENGINE": "typo"},
    )


@with_engine
@pytest.mark.parametrize(
    ("expected", "complaint"),
    [
        (PRODUCT["shared_secret"], "its shared secrets differ from dalek's"),
        (AGREEMENT["alice"]["public_key"], "its public keys differ from dalek's"),
    ],
)
def test_an_engine_that_computes_something_else_than_expected_is_not_used(
    tmp_path: Path, expected: str, complaint: str
) -> None:
    # A copy of the module that expects something else than the engine computes: to its check the engine is wrong.
    library = Path(_native.__file__).read_bytes()
    known = bytes.fromhex(expected)
    assert known in library
    altered = tmp_path / "altered.so"
    altered.write_bytes(library.replace(known, known[::-1]))
    run_script(
        f"""
        import importlib.machinery, importlib.util, warnings

        loader = importlib.machinery.ExtensionFileLoader("_native", {str(altered)!r})
        native = importlib.util.module_from_spec(importlib.util.spec_from_loader("_native", loader))
        loader.exec_module(native)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            native.KeyPair.generate()
            native.KeyPair.generate()
        (warning,) = caught
        assert warning.category is RuntimeWarning
        assert {complaint!r} in str(warning.message), warning
        assert {complaint!r} in native.engine().why_not
        assert (native.engine().keys, native.engine().aes_gcm) == ("dalek", "RustCrypto")
        """
        + WORKS
    )


# AWS-LC's own switch for its variants: none of the processor's extensions, all but ADX and BMI2, all but AES and CLMUL.
@with_engine
@pytest.mark.parametrize("extensions", ["0x0:0x0", ":~0x80100", "~0x200000200000000"])
def test_it_passes_its_check_on_processors_that_lack_extensions(extensions: str) -> None:
    run_script(
        """
        from server_keys import _native as native

        assert native.engine().why_not is None, native.engine()
        """
        + WORKS,
        environment={"OPENSSL_ia32cap": extensions},
    )


@pytest.mark.parametrize("sealing", ["", "dalek"])
def test_what_one_engine_seals_another_opens(sealing: str) -> None:
    """Seal in one process and open in another, requests and their responses."""
    switch = {"SERVER_KEYS_ENGINE": "dalek"}
    seal = """
        import sys
        from server_keys._native import RequestSealer

        sealer = RequestSealer(bytes.fromhex(sys.argv[1]))
        print(sealer.encapsulated_key.hex(), sealer.seal(b"question").hex(), sealer.seal(bytes(5000)).hex())
    """
    sealed = run_script(seal, AGREEMENT["alice"]["public_key"], environment=switch if sealing else None)
    open_it = """
        import sys
        from server_keys._native import KeyPair, RequestOpener

        alice, encapsulated_key, *frames = map(bytes.fromhex, sys.argv[1:])
        opener = RequestOpener(encapsulated_key, [KeyPair.from_private_key(alice)])
        assert [opener.feed(frame) for frame in frames] == [b"question", bytes(5000)]
    """
    arguments = [AGREEMENT["alice"]["private_key"], *sealed.split()]
    run_script(open_it, *arguments, environment=None if sealing else switch)
