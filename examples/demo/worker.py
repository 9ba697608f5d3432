"""One of several processes that serve the demo: uvicorn makes its app here."""

import json
import logging
import os
from pathlib import Path

from fastapi import FastAPI

from examples.demo.app import create_app
from examples.demo.board import Board

VARIABLE = "SERVER_KEYS_DEMO"
"""The environment variable with the arguments of `create_app`, as JSON, and the folder of the board."""


def create_worker() -> FastAPI:
    """Return the app that the environment describes."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    options = json.loads(os.environ[VARIABLE])
    return create_app(
        options["refresh_time_s"],
        options["overlap_s"],
        word_delay_s=options["word_delay_s"],
        board=Board(Path(options["folder"])),
        identity=Path(options["identity"]),
    )
