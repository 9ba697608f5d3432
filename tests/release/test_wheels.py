"""The wheels are for the platforms that they name, have all that they must, and work where they fit."""

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from platform import machine

import pytest
import ziglang
from elftools.elf.elffile import ELFFile

from tests.release import arm64

PLATFORMS = ["manylinux_2_28_aarch64", "manylinux_2_28_x86_64", "musllinux_1_2_aarch64", "musllinux_1_2_x86_64"]


@pytest.fixture(params=PLATFORMS)
def wheel(request: pytest.FixtureRequest, release: Path) -> Path:
    """The wheel for each platform."""
    (found,) = release.glob(f"*-{request.param}.whl")
    return found


def run(*command: str | Path, timeout: float = 300) -> str:
    """Run a command without any compiler in its PATH, and return what it prints."""
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": os.environ["HOME"]}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs(wheel: Path) -> tuple[list[str], set[str]]:
    """Return the libraries that a wheel's module loads, and the symbols that it does not start without."""
    with zipfile.ZipFile(wheel) as archive:
        module = ELFFile(io.BytesIO(archive.read("server_keys/_native.abi3.so")))
    libraries = [tag.needed for tag in module.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
    symbols = module.get_section_by_name(".dynsym").iter_symbols()
    strong = [symbol for symbol in symbols if symbol["st_info"]["bind"] == "STB_GLOBAL"]
    return libraries, {symbol.name for symbol in strong if symbol["st_shndx"] == "SHN_UNDEF"}


def names_in_musl() -> set[str]:
    """Return what musl's library defines, from zig's description of it."""
    description = Path(ziglang.__file__).parent / "lib/libc/musl/libc.S"
    return set(re.findall(r"^(\w+):", description.read_text(), re.MULTILINE))


def test_there_is_one_for_each_platform_and_no_other(release: Path) -> None:
    platforms = sorted(wheel.stem.split("-")[-1] for wheel in release.glob("*.whl"))
    assert platforms == PLATFORMS


def test_all_have_the_same_python_files(release: Path) -> None:
    contents = []
    for wheel in release.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            sources = [file for file in archive.infolist() if not file.filename.endswith(".so")]
            contents.append({file.filename: file.CRC for file in sources if ".dist-info/" not in file.filename})
    assert all(content == contents[0] for content in contents)
    assert "server_keys/py.typed" in contents[0]


@pytest.mark.parametrize("platform", [name for name in PLATFORMS if name.startswith("manylinux")])
def test_one_for_glibc_needs_no_newer_one_than_it_says(platform: str, release: Path) -> None:
    (wheel,) = release.glob(f"*-{platform}.whl")
    said = run(sys.executable, "-m", "auditwheel", "show", wheel)
    assert f'consistent with the following platform tag: "{platform}"' in " ".join(said.split())


@pytest.mark.parametrize("platform", [name for name in PLATFORMS if name.startswith("musllinux")])
def test_one_for_musl_needs_nothing_but_musl_and_python(platform: str, release: Path) -> None:
    (wheel,) = release.glob(f"*-{platform}.whl")
    libraries, symbols = needs(wheel)
    assert libraries == ["libc.so"]
    assert {"mmap", "PyModuleDef_Init"} <= symbols
    assert {name for name in symbols - names_in_musl() if not name.startswith(("Py", "_Py"))} == set()


def test_it_says_what_is_linked_into_it_under_which_licenses(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (inventory,) = [name for name in names if name.endswith(".dist-info/sboms/server-keys-binding.cyclonedx.json")]
        components = {component["name"] for component in json.loads(archive.read(inventory))["components"]}
        (licenses,) = [name for name in names if name.endswith(".dist-info/licenses/THIRD-PARTY-LICENSES.txt")]
        text = archive.read(licenses).decode()
    assert {"x25519-dalek", "pyo3"} <= components
    assert "\n- x25519-dalek " in text
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_pip_installs_it_without_a_compiler_and_it_works(release: Path, use_the_wheel: Path, tmp_path: Path) -> None:
    (wheel,) = release.glob(f"*-manylinux_2_28_{machine()}.whl")
    run(sys.executable, "-m", "venv", tmp_path)
    python = tmp_path / "bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", wheel)
    assert " works from " in run(python, "-W", "error", "-I", use_the_wheel)


def test_it_works_on_64_bit_arm(release: Path, use_the_wheel: Path) -> None:
    python = arm64.command()
    (wheel,) = release.glob("*-manylinux_2_28_aarch64.whl")
    where = [f"--target={arm64.site_packages()}", "--upgrade", f"--python-version={arm64.version()}"]
    what = ["--only-binary=:all:", *(f"--platform=manylinux_2_{minor}_aarch64" for minor in (28, 17))]
    run(sys.executable, "-m", "pip", "install", "--quiet", "--platform=manylinux2014_aarch64", *where, *what, wheel)
    assert " works from " in run(*python, "-W", "error", "-I", use_the_wheel)
