"""Files that hold a secret of the node: read only if nobody else can.

A key that others can read opens everything that is sealed, in every copy of the data, for ever; nothing is gained by
starting with it. systemd's credentials (systemd.exec(5), LoadCredential=) are the exception: they are root's, and an
access list, which shows as the group's right to read, lets the service have them and nobody else.
"""

import os
import stat
from pathlib import Path
from typing import Final

_CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
_MAX_BYTES: Final = 64 << 10


class SecretFileError(Exception):
    """The file cannot be used; the text says why, and what to do where that is known."""


def read_secret(path: Path) -> bytes:
    """Raises: SecretFileError; FileNotFoundError, OSError."""
    # Without waiting: a pipe in its place would hold the node up.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if problem := exposure(path, os.fstat(fd)):
            raise SecretFileError(problem)
        data = os.read(fd, _MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > _MAX_BYTES:
        raise SecretFileError(f"it is larger than {_MAX_BYTES} bytes")
    return data


def exposure(path: Path, status: os.stat_result) -> str:
    """Who else can read or change it, and what to do about that; empty when nobody can."""
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    mode, user = stat.S_IMODE(status.st_mode), os.geteuid()
    if status.st_uid not in (0, user) and user != 0:  # root reads what it was given to look at (quorumca doctor)
        return f"it belongs to user {status.st_uid}, not to user {user}, as which the node runs, nor to root: chown it"
    allowed = stat.S_IRGRP if is_credential(path) and status.st_uid == 0 else 0
    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~allowed:
        others = "others" if mode & stat.S_IRWXO else "its group"
        return f"{others} can get at it (mode {mode:04o}, must be 0600 or 0400): chmod 600 {path}"
    return ""


def is_credential(path: Path) -> bool:
    """Of systemd: a copy that is made at each start of the service."""
    directory = os.environ.get(_CREDENTIALS_VARIABLE)
    return bool(directory) and Path(os.path.realpath(path)).parent == Path(os.path.realpath(str(directory)))
