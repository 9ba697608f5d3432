"""What vLLM is told to write to its log that sealing is to keep from being read."""

import argparse
import logging
from collections.abc import Mapping

_logger = logging.getLogger("server_keys")

_OPTIONS = {
    "enable_log_requests": "--enable-log-requests writes prompts",
    "enable_log_outputs": "--enable-log-outputs writes responses",
}
_RESPONSE_VARIABLE = "VLLM_DEBUG_LOG_API_SERVER_RESPONSE"


def warn_of_prompt_logging(args: argparse.Namespace, environment: Mapping[str, str]) -> None:
    """Warn of each setting that makes vLLM log what clients sealed.

    Args:
        args: vLLM's parsed arguments.
        environment: the environment variables.
    """
    told = [what for name, what in _OPTIONS.items() if getattr(args, name, False)]
    if environment.get(_RESPONSE_VARIABLE, "").lower() in ("true", "1"):
        told.append(f"{_RESPONSE_VARIABLE} writes responses")
    for what in told:
        _logger.warning("%s to vLLM's log in plaintext, whether they travel sealed or not", what)
