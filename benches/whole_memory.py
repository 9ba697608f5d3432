"""A client that tells its own memory: `python -m benches.whole_memory CONTESTANT URL BYTES`.

It prints by how many bytes it grew, at most, in calls of so many bytes each way.
"""

import os
import sys

from benches.whole_clients import CONTESTANTS
from benches.whole_servers import PeakMemory

CALLS = 3


def main() -> None:
    name, url, length = sys.argv[1:]
    contestant = next(each for each in CONTESTANTS if each.name == name)
    with contestant.connected(url) as caller:
        # What is imported and connected by now is none of a call's.
        caller.echo(bytes(1024), 1)
        body = b"x" * int(length)
        peak = PeakMemory(os.getpid())
        caller.echo(body, CALLS)
        print(peak.grown_bytes())


if __name__ == "__main__":
    main()
