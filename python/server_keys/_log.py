"""The package's logger, which cannot be disabled by accident."""

import logging
import sys

NAME = "server_keys"


def logger() -> logging.Logger:
    """Return the package's logger, enabled. Call this each time there is something to say; do not keep the result.

    `dictConfig` and `fileConfig` disable every logger that exists and that their configuration does not name, unless
    it says `disable_existing_loggers: false`. Then nobody would see that keys are not refreshed. Levels, handlers and
    filters stay as the operator set them.
    """
    found = logging.getLogger(NAME)
    found.disabled = False
    return found


def warn_at_start(message: str, *args: object) -> None:
    """Log a warning that operators have to see before they serve; print it on stderr if the log takes no warnings.

    Args:
        message: a %-format, as for `logging.Logger.warning`.
        args: the values for the format.
    """
    logger().warning(message, *args)
    if not _takes_warnings():
        print(message % args, file=sys.stderr, flush=True)


def _takes_warnings() -> bool:
    """Return whether a warning of the package reaches a handler that writes it somewhere."""
    at: logging.Logger | None = logger()
    if at is None or not at.isEnabledFor(logging.WARNING):
        return False
    handlers: list[logging.Handler] = []
    while at is not None:
        handlers += at.handlers
        at = at.parent if at.propagate else None
    if not handlers:
        # Then logging itself writes to stderr, unless it was told not to.
        return logging.lastResort is not None and logging.lastResort.level <= logging.WARNING
    return any(
        not isinstance(handler, logging.NullHandler) and handler.level <= logging.WARNING for handler in handlers
    )
