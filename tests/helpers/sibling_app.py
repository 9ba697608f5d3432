"""An app whose lifespan prints which group of siblings its process belongs to."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from server_keys._sharing.siblings import group_of_siblings

MARK = "SIBLING "


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    report = {"pid": os.getpid(), "parent": os.getppid(), "group": group_of_siblings("")}
    # One write: lines of several processes do not mix.
    os.write(1, f"{MARK}{json.dumps(report)}\n".encode())
    yield


app = FastAPI(lifespan=lifespan)
