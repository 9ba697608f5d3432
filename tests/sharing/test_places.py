"""Where a group's directory may be: what is refused, what is taken instead, and what is swept away."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server_keys._keys.schedule import Schedule
from server_keys._sharing import join, places
from server_keys._sharing.directory_store import DirectoryStore
from server_keys._sharing.key_plan import KeyPlan
from server_keys._sharing.leftovers import GroupName, parse_group_name
from server_keys._sharing.mounts import file_system_of, is_seen_by_other_machines, type_of_mount
from server_keys._sharing.places import boot_id, directory_of_siblings, named_directory
from server_keys.errors import SharePlaceError
from tests.sharing.store_battery import LONG_S, new_name

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")


def start_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def group_name(
    *, uid: int | None = None, namespace: int | None = None, parent: int | None = None, start: int | None = None
) -> str:
    """Make up a name as siblings have it; by default this process is the parent."""
    uid = os.geteuid() if uid is None else uid
    namespace = os.stat("/proc/self/ns/pid").st_ino if namespace is None else namespace
    parent = os.getpid() if parent is None else parent
    start = start_of(parent) if start is None else start
    return f"server-keys-{uid}-{namespace}-{parent}-{start}-{os.urandom(8).hex()}"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """The service's folder, /dev/shm, and the folder for temporary files."""
    service, temporary = tmp_path / "service", tmp_path / "temporary"
    for folder in (service, temporary):
        folder.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{service}:{tmp_path / 'another'}")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return service, Path("/dev/shm"), temporary


@pytest.fixture
def group(folders: tuple[Path, Path, Path]) -> Iterator[str]:
    """The name of a group, which leaves nothing behind."""
    name = group_name()
    yield name
    with closing(DirectoryStore(directory_of_siblings(name))) as store:
        store.leave(new_name())
    assert not (folders[1] / name).exists()


def test_siblings_share_in_the_folder_of_the_service(folders: tuple[Path, Path, Path], group: str) -> None:
    place = directory_of_siblings(group)
    assert place.candidates == tuple(str(folder / group) for folder in folders)
    with closing(DirectoryStore(place)) as store:
        store.look(new_name())
        assert store.shown == str(folders[0] / group)
    assert (folders[0] / group).stat().st_mode & 0o777 == 0o700


def test_without_a_service_they_share_in_shared_memory(
    folders: tuple[Path, Path, Path], group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folders[0]))
    assert directory_of_siblings(group).candidates == tuple(str(folder / group) for folder in folders[1:])


@pytest.mark.parametrize("value", ["", ":", "relative/path", "/does/not/exist"])
def test_a_folder_of_the_service_that_is_none_is_passed_over(
    folders: tuple[Path, Path, Path], group: str, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", value)
    with closing(DirectoryStore(directory_of_siblings(group))) as store:
        store.look(new_name())
        assert store.shown == str(folders[1] / group)


def make_symlink(path: Path) -> None:
    path.symlink_to(tempfile.mkdtemp())  # which would do


def make_open_to_the_group(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


def make_open_to_others(path: Path) -> None:
    path.mkdir()
    path.chmod(0o701)


def make_file(path: Path) -> None:
    path.touch()


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_of_another_user(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, 65534, -1)


FAULTS = pytest.mark.parametrize(
    ("make", "why"),
    [
        (make_symlink, "it is a symlink"),
        (make_open_to_the_group, "other users may use it (its mode is 0770, and has to be 0700)"),
        (make_open_to_others, "other users may use it (its mode is 0701, and has to be 0700)"),
        (make_file, "Not a directory"),
        (make_fifo, "Not a directory"),
        pytest.param(make_of_another_user, "it belongs to user 65534, and this process is user 0", marks=needs_root),
    ],
)


@FAULTS
def test_where_another_user_was_first_siblings_take_the_next_place(
    folders: tuple[Path, Path, Path], group: str, make: Callable[[Path], None], why: str
) -> None:
    make(folders[0] / group)
    with closing(DirectoryStore(directory_of_siblings(group))) as store:
        name = new_name()
        store.ask(name, b"ask", waits=False, keep_s=LONG_S)
        assert store.shown == str(folders[1] / group)
        store.leave(name)


@FAULTS
def test_where_no_place_will_do_the_error_says_of_each_why(
    folders: tuple[Path, Path, Path], make: Callable[[Path], None], why: str
) -> None:
    name = group_name()
    for folder in folders:
        make(folder / name)
    try:
        with pytest.raises(SharePlaceError) as refusal:
            directory_of_siblings(name)
    finally:
        in_shared_memory = folders[1] / name
        if in_shared_memory.is_dir() and not in_shared_memory.is_symlink():
            in_shared_memory.rmdir()
        else:
            in_shared_memory.unlink()
    assert str(refusal.value) == "; ".join(f"'{folder}/{name}' cannot be shared: {why}" for folder in folders)


@FAULTS
def test_a_named_directory_that_is_not_ours_alone_is_refused_in_one_line(
    folders: tuple[Path, Path, Path], make: Callable[[Path], None], why: str
) -> None:
    make(folders[0] / "group")
    for path in (f"{folders[0]}/group", f"{folders[0]}/group/"):
        with pytest.raises(SharePlaceError) as refusal:
            named_directory(path)
        assert str(refusal.value) == f"'{folders[0]}/group' cannot be shared: {why}"


def test_a_named_directory_is_created_for_its_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert named_directory(f"{tmp_path}/group").candidates == (f"{tmp_path}/group",)
    finally:
        os.umask(before)
    assert (tmp_path / "group").stat().st_mode & 0o777 == 0o700
    named_directory(f"{tmp_path}/group")


@pytest.mark.parametrize("path", ["", "relative", "./relative", "/tmp/../tmp/group", "/tmp/a\0b"])
def test_a_path_that_is_not_absolute_is_refused(path: str) -> None:
    with pytest.raises(SharePlaceError, match="absolute"):
        named_directory(path)


def test_a_named_directory_needs_a_parent(tmp_path: Path) -> None:
    with pytest.raises(SharePlaceError, match="No such file or directory"):
        named_directory(f"{tmp_path}/missing/group")


@pytest.mark.parametrize("file_system", ["nfs4", "cifs", "fuse.sshfs", None])
def test_a_named_directory_that_other_machines_may_see_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_system: str | None
) -> None:
    monkeypatch.setattr(places, "file_system_of", lambda _: file_system)
    with pytest.raises(SharePlaceError, match="file system"):
        named_directory(f"{tmp_path}/group")


def test_refused_places_leave_no_descriptor_open(tmp_path: Path) -> None:
    make_open_to_others(tmp_path / "group")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(SharePlaceError):
            named_directory(f"{tmp_path}/group")
    assert len(os.listdir("/proc/self/fd")) == before


FDINFO = "pos:\t0\nflags:\t0200000\nmnt_id:\t{}\nino:\t2\n"
MOUNTINFO = r"""21 27 0:19 / /proc rw,nosuid shared:13 - proc proc rw
27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 27 0:24 / /dev/shm rw,nosuid,nodev - tmpfs tmpfs rw,size=100k
31 27 0:50 / /mnt/with\040space\011and\012more rw shared:5 master:2 propagate_from:1 - nfs4 server:/a\040b rw,vers=4.2
32 31 0:51 / /mnt/- ro - cifs //server/share rw
33 27 0:52 /sub - rw shared:7 - fuse.sshfs user@host:/ rw
34 27 0:53 / /mnt/with\040-\040nfs\040in\040it rw - xfs /dev/-\040nfs rw
35 27 0:54 / /broken rw shared:1
"""


@pytest.mark.parametrize(
    ("mount", "file_system"),
    [
        (21, "proc"),
        (27, "ext4"),
        (30, "tmpfs"),
        (31, "nfs4"),
        (32, "cifs"),
        (33, "fuse.sshfs"),
        (34, "xfs"),
        (35, None),
        (2, None),
        (3, None),
    ],
)
def test_the_type_of_a_mount_is_found_by_its_number(mount: int, file_system: str | None) -> None:
    assert type_of_mount(FDINFO.format(mount), MOUNTINFO) == file_system


def test_a_descriptor_without_a_mount_has_no_type() -> None:
    assert type_of_mount("pos:\t0\n", MOUNTINFO) is None
    assert type_of_mount("", "\n \nno\n") is None


def test_the_type_of_a_real_file_system_is_found() -> None:
    for path, file_system in [("/proc", "proc"), ("/dev/shm", "tmpfs")]:
        directory = os.open(path, os.O_RDONLY)
        try:
            assert file_system_of(directory) == file_system
        finally:
            os.close(directory)


@pytest.mark.parametrize("file_system", ["tmpfs", "ext4", "xfs", "btrfs", "overlay", "zfs", "fuseblk", "ramfs"])
def test_local_file_systems_will_do(file_system: str) -> None:
    assert not is_seen_by_other_machines(file_system)


@pytest.mark.parametrize(
    "file_system",
    [
        *("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "lustre", "afs", "glusterfs", "ocfs2", "gfs2"),
        *("fuse", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.unheard-of"),
    ],
)
def test_file_systems_of_several_machines_will_not(file_system: str) -> None:
    assert is_seen_by_other_machines(file_system)


def test_the_boot_id_is_the_systems() -> None:
    assert boot_id() == boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert len(boot_id()) == 36


def test_a_groups_name_tells_its_parent() -> None:
    assert parse_group_name("server-keys-1000-4026531836-77-123456-0123456789abcdef") == (
        GroupName(uid=1000, pid_namespace=4026531836, parent=77, parent_start=123456)
    )


@pytest.mark.parametrize(
    "name",
    [
        "",
        "server-keys-1000-4026531836-77-123456",
        "server-keys-1000-4026531836-77-123456-0123456789abcde",
        "server-keys-1000-4026531836-77-123456-0123456789ABCDEF",
        "server-keys-1000-4026531836-77-123456-0123456789abcdef\n",
        "server-keys-1000-4026531836--77-123456-0123456789abcdef",
        "server-keys-١-4026531836-77-123456-0123456789abcdef",
        "../server-keys-1000-4026531836-77-123456-0123456789abcdef",
    ],
)
def test_another_name_is_no_groups(name: str) -> None:
    assert parse_group_name(name) is None
    with pytest.raises(ValueError, match="is not the name"):
        directory_of_siblings(name)


@pytest.fixture
def dead() -> tuple[int, int]:
    """The process id and the start time of a process that is over."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = start_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    process.stdin.close()
    return process.pid, start


def test_joining_sweeps_away_the_directories_of_servers_that_are_over(
    folders: tuple[Path, Path, Path], group: str, dead: tuple[int, int]
) -> None:
    parent, start = dead
    over = [
        group_name(parent=parent, start=start),
        group_name(parent=parent, start=start + 1),
        group_name(start=start_of(os.getpid()) - 1),
        f"{group_name()}.gone-0123456789abcdef",
    ]
    stays = [
        group_name(),
        group_name(parent=os.getppid()),
        group_name(parent=1, start=start_of(1)),
        group_name(parent=parent, start=start, namespace=1),
        group_name(parent=parent, start=start, uid=os.geteuid() + 1),
        group_name(parent=parent, start=start)[:-1],
        "server-keys-notes",
        "unrelated",
    ]
    for name in over + stays:
        (folders[0] / name).mkdir()
        (folders[0] / name / f"ask-{new_name().hex()}").touch()
        (folders[0] / name / "register-0000000000000001").touch()
    directory_of_siblings(group)
    assert sorted(path.name for path in folders[0].iterdir()) == sorted([*stays, group])


def test_a_sweep_touches_no_links_files_or_other_users_directories(
    folders: tuple[Path, Path, Path], group: str, dead: tuple[int, int], tmp_path: Path
) -> None:
    parent, start = dead
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    link, file, full, others, *over = (folders[0] / group_name(parent=parent, start=start) for _ in range(10))
    for directory in over:
        directory.mkdir()
    link.symlink_to(precious)
    file.touch()
    (full / "folder").mkdir(parents=True)
    (full / "folder" / "file").touch()
    others.mkdir()
    if os.geteuid() == 0:
        os.chown(others, 65534, -1)
    for _ in range(3):
        directory_of_siblings(group)
    assert (precious / "file").exists()
    assert link.is_symlink()
    assert file.is_file()
    assert others.exists() == (os.geteuid() == 0)
    assert list(folders[0].glob("*/folder/file")), "what no group made stays"
    assert not [directory for directory in over if directory.exists()], "and hinders nothing"


@pytest.mark.parametrize(
    ("file_system", "is_told"), [("btrfs", True), ("bcachefs", True), ("tmpfs", False), ("ext4", False)]
)
def test_a_file_system_that_may_run_out_later_is_told_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    file_system: str,
    is_told: bool,
) -> None:
    folder = tmp_path / "keys"
    monkeypatch.setattr(join, "file_system_of", lambda _: file_system)
    with closing(join.ring_of(KeyPlan.checked(Schedule(300, 300), f"file://{folder}"))):
        told = [text for text in caplog.messages if "SIGBUS" in text]
    assert [f"{str(folder)!r} is on {file_system}" in text and "/run" in text for text in told] == [True] * is_told
