"""Files that a configuration names: which of them may be opened, and how much of them is read.

A configuration comes over the API, and names files of whichever node leads. What proves who we are (role and secret
ids, JWTs, a key for TLS) would go to whatever address the same configuration names, so it is read only below the
directory that the node's own file allows for that. CAs to trust are no secrets: they may lie anywhere, but must be
plain files, too. No path, whatever it names, makes a reader wait.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from providers.errors import ConfigInvalid
from providers.texts import one_line

#: Of a login, or a key: a few kilobytes. Of CAs: what systems have, twice over.
MAX_CREDENTIAL_BYTES: Final = 64 << 10
MAX_CA_BYTES: Final = 2 << 20
#: Without waiting for the other end of a pipe, without becoming the process's terminal, and not for child processes.
_PLAIN: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RULE: Final = (
    "files that a login to Vault needs are read only below connect.credentials_dir of the node's own configuration file"
)


@dataclass(frozen=True, slots=True)
class CredentialFiles:
    """`directory` is what the node's own file allows; empty: nothing."""

    directory: str = ""

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """A descriptor of the plain file at `path`, relative to the directory or absolute.

        Raises: ConfigInvalid for one that may not be read; OSError.
        """
        descriptor = self._open(path)
        try:
            _require_plain(descriptor, MAX_CREDENTIAL_BYTES)
            yield descriptor
        finally:
            os.close(descriptor)

    def read(self, path: str) -> bytes:
        """Raises: as `opened`."""
        with self.opened(path) as descriptor:
            content = os.read(descriptor, MAX_CREDENTIAL_BYTES + 1)
        if len(content) > MAX_CREDENTIAL_BYTES:
            raise OSError(f"it has more than {MAX_CREDENTIAL_BYTES} bytes")
        return content

    def _open(self, path: str) -> int:
        if not self.directory:
            raise ConfigInvalid(f"{one_line(path)} may not be read: {_RULE}, and this node's names none")
        root = os.path.realpath(self.directory)
        try:
            wanted = os.path.realpath(os.path.join(root, path))
        except ValueError:  # a zero byte
            raise ConfigInvalid(f"{one_line(path)} is no path of a file") from None
        if os.path.commonpath([root, wanted]) != root:
            raise ConfigInvalid(f"{one_line(path)} may not be read: {_RULE}, which is {root} on this node")
        # Links have been resolved: whoever puts another one in now meets an error, folder by folder.
        *folders, name = os.path.relpath(wanted, root).split(os.sep)
        at = os.open(root, _FOLDER)
        try:
            for folder in folders:
                inner = os.open(folder, _FOLDER, dir_fd=at)
                os.close(at)
                at = inner
            return os.open(name, _PLAIN | os.O_NOFOLLOW, dir_fd=at)
        finally:
            os.close(at)


@contextlib.contextmanager
def opened_ca(path: str) -> Iterator[int]:
    """A descriptor of the plain file at `path`, which may be anywhere. Raises: OSError."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # before it is opened: opening a device may do something
        raise OSError("it is no plain file")
    descriptor = os.open(path, _PLAIN)
    try:
        _require_plain(descriptor, MAX_CA_BYTES)
        yield descriptor
    finally:
        os.close(descriptor)


def path_of(descriptor: int) -> str:
    """For a library that opens files by their names: this very file, whatever has its name now."""
    return f"/proc/self/fd/{descriptor}"


def _require_plain(descriptor: int, limit: int) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no plain file")
    if found.st_size > limit:
        raise OSError(f"it has more than {limit} bytes")
