"""Where a SQLite file may be: its locks hold on the disks of one host."""

from collections.abc import Callable
from pathlib import Path

NETWORK = frozenset(
    (
        *(
            "nfs",
            "nfs4",
            "cifs",
            "smb",
            "smb2",
            "smb3",
            "smbfs",
            "afs",
            "ceph",
            "glusterfs",
            "lustre",
            "gpfs",
        ),
        *("ocfs2", "gfs2", "9p", "fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "fuse.gcsfuse", "fuse.rclone"),
        *("fuse.juicefs", "davfs", "fuse.davfs2", "efs", "beegfs"),
    )
)
"""File systems that several hosts may have: the locks of SQLite don't hold there."""


def place_problem(path: Path, mounts: Callable[[], str] | None = None) -> str | None:
    """Why a file can't be a ledger where it is; `None`: it can, as far as this machine tells."""
    kind = _file_system_of(path, mounts or _mounts)
    if kind not in NETWORK:
        return None
    words = f"{path} is on a network file system ({kind}), where SQLite's locks don't hold"
    return f"{words}: take a disk of this host, or PostgreSQL (`[ledger] url`)"


def _mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux
        return ""


def _file_system_of(path: Path, mounts: Callable[[], str]) -> str | None:
    """What the place is of, by the longest mount point above it."""
    place, longest, kind = str(path.absolute().resolve()), "", None
    for line in mounts().splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = fields[4].encode().decode("unicode_escape") if "\\" in fields[4] else fields[4]
        is_above = point == "/" or place == point or place.startswith(f"{point}/")
        if is_above and len(point) >= len(longest):
            longest, kind = point, after.split(" ")[0]
    return kind
