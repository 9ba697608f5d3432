"""Making the key ring of an app: it joins the group that its plan names, or stays alone."""

import contextlib
import os
import secrets
import socket
from datetime import datetime

from server_keys._clock import boot_time
from server_keys._keys.own_pairs import OwnPairs
from server_keys._keys.ring import KeyRing
from server_keys._keys.schedule import Schedule
from server_keys._log import logger
from server_keys._native import GroupKeys
from server_keys._sharing.directory_store import DirectoryStore
from server_keys._sharing.door import Door
from server_keys._sharing.group_directory import GroupDirectory
from server_keys._sharing.group_replays import Everywhere, GroupReplays
from server_keys._sharing.host_replays import HostReplays
from server_keys._sharing.key_plan import KeyPlan
from server_keys._sharing.member import Member
from server_keys._sharing.messages import Who
from server_keys._sharing.mounts import file_system_of, may_run_out_later
from server_keys._sharing.notices import Notices
from server_keys._sharing.pace import Pace
from server_keys._sharing.pair_maker import PairMaker
from server_keys._sharing.places import boot_id, directory_of_siblings, named_directory
from server_keys._sharing.share import SHARE_VARIABLE, SHORTEST_SHARED_S, Share, ShareKind
from server_keys._sharing.shared_pairs import SharedPairs
from server_keys._sharing.siblings import group_of_siblings
from server_keys._sharing.store import Store, StoreError
from server_keys.errors import SharePlaceError

_ALONE = "this process is the only one of its server"


def ring_of(plan: KeyPlan) -> KeyRing:
    """Return a ring with pairs as `plan` says. One that is shared still has to join its group: wait until it is ready.

    Raises:
        ValueError: the place or the secret that the plan names cannot be used; the message says why.
        ImportError: the plan needs a library that is not installed.
        EntropyError: no pair could be made.
    """
    share, schedule = plan.share, plan.schedule
    if share.kind is ShareKind.SIBLINGS:
        return _ring_of_siblings(share, schedule)
    if share.kind is ShareKind.FOLDER:
        store = DirectoryStore(named_directory(share.folder or ""))
        _warn_of_a_full_disk(store.directory)
        # What an earlier boot left there is of another group: its times mean nothing now.
        keys = GroupKeys.of_name(f"{share.folder} {boot_id()}".encode())
        return _shared(schedule, [(keys, store)], folder=store.directory, across_hosts=False)
    if share.kind is ShareKind.VALKEY:
        doors, everywhere = _doors_to_valkey(share), _everywhere(share)
        folder = _folder_of_siblings(schedule)
        return _shared(schedule, doors, folder=folder, everywhere=everywhere, across_hosts=True)
    return _alone(schedule, "share=None was asked for")


def _warn_of_a_full_disk(directory: GroupDirectory) -> None:
    with contextlib.suppress(StoreError):  # it is told where it is used
        file_system = directory.run(file_system_of)
        if file_system is not None and may_run_out_later(file_system):
            logger().warning(
                "%r is on %s, which copies what is written. Where its disk gets full, the system ends processes that "
                "remember requests there (SIGBUS), although they allocated the room: name a folder on a tmpfs, such as "
                "one in /run",
                directory.path,
                file_system,
            )


def _warn_of_a_variable_that_nobody_reads() -> None:
    if os.environ.get(SHARE_VARIABLE) not in (None, "", "auto"):
        # Its value may have a password.
        logger().warning(
            '%s is set, but share="auto" was asked for, which does not read it: keys are shared by the workers of this '
            "server alone. Pass what it says as share= where the app gets its keys (for none: share=None), or unset it",
            SHARE_VARIABLE,
        )


def check(plan: KeyPlan) -> None:
    """Check that the place and the secret which `plan` names can be used, without joining a group.

    Raises:
        ValueError: one of them cannot; the message says why.
        ImportError: the plan needs a library that is not installed.
    """
    if plan.share.kind is ShareKind.FOLDER:
        named_directory(plan.share.folder or "")
    elif plan.share.kind is ShareKind.VALKEY:
        for _, store in _doors_to_valkey(plan.share):
            store.close()


def _ring_of_siblings(share: Share, schedule: Schedule) -> KeyRing:
    _warn_of_a_variable_that_nobody_reads()
    name = _name_of_siblings(schedule)
    if name is None:
        return _alone(schedule, _ALONE)
    if share.too_short:
        why = f"a refresh time or an overlap below {SHORTEST_SHARED_S} s is too short to be shared"
        logger().warning(
            "each worker of this server has keys of its own: %s. Requests that were sealed to another worker's key are "
            "refused (422)",
            why,
        )
        return _alone(schedule, why)
    try:
        store = DirectoryStore(directory_of_siblings(name))
    except SharePlaceError as error:
        logger().warning(
            "each worker of this server has keys of its own, because there is no place to share them: %s. Requests "
            "that were sealed to another worker's key are refused (422)",
            error,
        )
        return _alone(schedule, str(error))
    return _shared(schedule, [(GroupKeys.of_name(name.encode()), store)], folder=store.directory, across_hosts=False)


def _name_of_siblings(schedule: Schedule) -> str | None:
    # Apps of one process with other durations are not meant to share one ring.
    return group_of_siblings(f"{schedule.period_s} {schedule.overlap_s}")


def _folder_of_siblings(schedule: Schedule) -> GroupDirectory | None:
    """Return where the workers of a server remember together which requests they saw; None for one that is alone."""
    name = _name_of_siblings(schedule)
    if name is None:
        return None
    try:
        return GroupDirectory(directory_of_siblings(name))
    except SharePlaceError as error:
        raise ValueError(
            f"the workers of this server cannot remember together which requests they saw: {error}. Make a place for "
            "it (RUNTIME_DIRECTORY=, /dev/shm or TMPDIR=), or run one worker"
        ) from error


def _doors_to_valkey(share: Share) -> list[tuple[GroupKeys, Store]]:
    from server_keys._sharing.valkey.store import ValkeyStore  # only for those who use it

    url, secret = share.url, share.secret
    if url is None or secret is None:
        raise AssertionError("a checked share of Valkey has a URL and a secret")
    label = url.group.encode()
    if secret.file is not None:
        all_keys = GroupKeys.from_secret_file(secret.file, label)
    else:
        all_keys = GroupKeys.from_secret_text(secret.text or "", label)
    return [(keys, ValkeyStore(url, keys.group_id)) for keys in all_keys]


def _everywhere(share: Share) -> Everywhere | None:
    from server_keys._sharing.valkey.replays import ValkeyReplays  # only for those who use it

    return ValkeyReplays(share.url) if share.url is not None else None


def _shared(
    schedule: Schedule,
    doors: list[tuple[GroupKeys, Store]],
    *,
    folder: GroupDirectory | None,
    across_hosts: bool,
    everywhere: Everywhere | None = None,
) -> KeyRing:
    pace = Pace(schedule)
    store = doors[0][1]
    notices = Notices(store, across_hosts=across_hosts)
    who = Who(secrets.token_hex(8), socket.gethostname(), os.getpid(), f"{datetime.now().astimezone():%F %T %z}")
    member = Member(
        [Door(keys, store, who, clock=boot_time, life_s=pace.life_s) for keys, store in doors],
        pace,
        notices,
        PairMaker(notices, clock=boot_time),
        clock=boot_time,
    )
    host = None
    if folder is not None:
        host = HostReplays(folder, pace.life_s, notices, clock=boot_time, is_alone=across_hosts)
    replays = GroupReplays(member, host=host, everywhere=everywhere)
    pairs = SharedPairs(member, schedule, poll_s=pace.poll_s, store=store, notices=notices, replays=replays)
    return KeyRing.over(pairs, schedule)


def _alone(schedule: Schedule, why: str) -> KeyRing:
    return KeyRing.over(OwnPairs(schedule, why_not_shared=why), schedule)
