"""Which file system a directory is on, and whether other machines see it, too."""

import os
from pathlib import Path

# fmt: off
_NETWORK = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncp", "ncpfs",
    "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb2", "smb3", "smbfs", "sshfs", "vboxsf", "virtiofs",
})
# fmt: on
_COPY_ON_WRITE = frozenset({"bcachefs", "btrfs"})
_LOCAL_FUSE = frozenset({"fuseblk", "fuse.fuse-overlayfs", "fuse.bindfs", "fuse.mergerfs"})


def file_system_of(directory: int) -> str | None:
    """Return the type of the file system that an open directory is on; None if the system does not tell.

    The number of the mount says it exactly. A device number does not: it differs between a btrfs subvolume and its
    mount, and paths are hidden by what is mounted over them.
    """
    try:
        return type_of_mount(
            Path(f"/proc/self/fdinfo/{directory}").read_text(), os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
        )
    except OSError:
        return None


def type_of_mount(fdinfo: str, mountinfo: str) -> str | None:
    """Return the file system type of the mount that a descriptor's `fdinfo` names, as told by `mountinfo` (proc(5))."""
    mount_id = next((line.split()[1] for line in fdinfo.splitlines() if line.startswith("mnt_id:")), None)
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        # Spaces within a field are escaped. The optional fields, from the seventh on, end with a hyphen.
        if fields[0] == mount_id and "-" in fields[6:-1]:
            return fields[fields.index("-", 6) + 1]
    return None


def is_seen_by_other_machines(file_system: str) -> bool:
    """Tell whether a type of file system may be shared by machines. One in user space (FUSE) counts as such."""
    if file_system == "fuse" or file_system.startswith("fuse."):
        return file_system not in _LOCAL_FUSE
    return file_system in _NETWORK


def may_run_out_later(file_system: str) -> bool:
    """Tell whether a type of file system may have no room for what is written to a file that is allocated already."""
    return file_system in _COPY_ON_WRITE
