"""Which processes of this host are workers of one server, found out by each of them alone.

A server that has workers binds its sockets and then starts the processes that inherit them. So a process is a worker
if it holds a bound stream socket that its parent holds, too; or one whose port it shares with others of its user, as
`gunicorn --reuse-port` has them. Processes that a program starts for one app each bind their sockets later.

Two servers cannot be told apart where one process binds the sockets of both and then forks: each child holds them all.
"""

import hashlib
import json
import multiprocessing
import os

from server_keys._log import logger
from server_keys._sharing.server_sockets import server_sockets, sockets_of


def group_of_siblings(asked: str) -> str | None:
    """Return the name of the group that this process and the other workers of its server form.

    All workers find the same name, whenever they start. Call this at the start of a lifespan: later, a process
    may listen on sockets of its own.

    Args:
        asked: what the process asks for. Workers that ask for something else form another group.

    Returns:
        A name that suits a file, or None if the process is no worker, or if the system does not tell.
    """
    try:
        return _group_of_siblings(asked)
    except (OSError, ImportError) as error:
        logger().debug("This process counts as its server's only one: %s: %s", type(error).__name__, error)
        return None


def _group_of_siblings(asked: str) -> str | None:
    parent, _ = _parent_and_start("self")
    sockets = _common_sockets(parent)
    if not sockets and not _is_worker_of_granian():
        return None
    _, parent_start = _parent_and_start(str(parent))
    who = [os.geteuid(), os.stat("/proc/self/ns/pid").st_ino, parent, parent_start]
    digest = hashlib.sha256(json.dumps([*who, asked, sorted(sockets)]).encode()).hexdigest()
    return "-".join(["server-keys", *map(str, who), digest[:16]])


def _parent_and_start(pid: str) -> tuple[int, int]:
    """Return the parent of a process, and when the process started, in ticks since the system did.

    /proc itself names the parent: it may be that of another pid namespace, where os.getppid() is somebody else.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The command stands in brackets, and may hold brackets and spaces.
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[1]), int(fields[19])


def _common_sockets(parent: int) -> set[str]:
    """Return what tells the sockets that this process has in common with its siblings."""
    if _is_worker_of_granian():
        # Those that it forks also inherit what else their parent opened before, and that differs.
        return set()
    own = server_sockets()
    try:
        of_parent = sockets_of(parent)
    except PermissionError:
        # A parent of another user made its sockets as that user. Where all were made by this user, any may be its.
        inherited = [each for each in own if each.maker != os.geteuid()] or own
        return {each.shared_port or str(each.inode) for each in inherited}
    shared = {str(each.inode) for each in own if each.inode in of_parent}
    return shared or {each.shared_port for each in own if each.shared_port is not None}


def _is_worker_of_granian() -> bool:
    """Return whether this is a worker of granian, which runs one server in a process.

    Its workers bind sockets of their own to the server's port after the lifespan has started (SO_REUSEPORT). They
    inherit their parent's only where they are forked, as they are no more by default since Python 3.14.
    """
    return multiprocessing.current_process().name == "granian-worker"
