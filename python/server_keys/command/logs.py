"""The log of the commands that serve: lines on stderr, none of which has anything of a request."""

import logging
from typing import Any

# uvicorn says these of what a client or an upstream did. The proxy itself says what happened, or answers.
_LEFT_OUT = (
    "ASGI callable returned without",
    "Invalid HTTP request received",
    "No supported WebSocket library detected",
    "Unsupported upgrade request",
)


class OneLine(logging.Formatter):
    """Formats a record as one line, without a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = " ".join(record.getMessage().split())
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        # The error's own words may quote what it is about.
        return f"{record.levelname.lower()}: {line}" + (f" ({type(error).__name__})" if error is not None else "")


class WithoutNoise(logging.Filter):
    """Leaves out what uvicorn says of single requests."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is to be written."""
        return not record.getMessage().startswith(_LEFT_OUT)


def configuration(level: str) -> dict[str, Any]:
    """Return the configuration of a serving process, for `logging.config.dictConfig`.

    Other loggers, such as those of HTTP clients, write nothing at any level: they tell of URLs and headers.

    Args:
        level: `debug`, `info`, `warning` or `error`.
    """
    name = level.upper()
    of_uvicorn = "INFO" if level == "debug" else "WARNING" if level == "info" else name
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": OneLine}},
        "filters": {"quiet": {"()": WithoutNoise}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "line",
                "filters": ["quiet"],
            },
            "nowhere": {"class": "logging.NullHandler"},
        },
        "root": {"handlers": ["nowhere"], "level": "WARNING"},
        "loggers": {
            "server_keys": {"handlers": ["stderr"], "level": name, "propagate": False},
            "uvicorn.error": {"handlers": ["stderr"], "level": of_uvicorn, "propagate": False},
        },
    }
