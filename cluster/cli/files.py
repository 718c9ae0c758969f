"""Files that commands read and make: bounded reads, and new files that never replace one.

Raises CommandError everywhere, with the file's name in the text.
"""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, TextIO

from cluster.client.errors import CommandError

PRIVATE: Final = 0o600
#: Of UTF-8 and UTF-16: editors that write one hide it, and whoever reads on complains about what cannot be seen.
_BYTE_ORDER_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
#: What the umask leaves of it.
PUBLIC: Final = 0o644
_UMASK: Final = 0o077


def keep_private() -> None:
    """Nothing that this process writes from now on is for anybody but its user, whatever the caller's umask is."""
    os.umask(_UMASK)


def read_text(name: str, limit_bytes: int) -> str:
    """The text of a file, or of standard input when `name` is `-`."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(limit_bytes + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            raise CommandError(f"{name}: is larger than {limit_bytes} bytes")
        if data.startswith(_BYTE_ORDER_MARKS):
            raise CommandError(f"{name}: begins with a byte-order mark: must be UTF-8 without one")
        return data.decode("utf-8")
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"{name}: is not a text file (UTF-8)") from error


@contextmanager
def new_file(path: Path, mode: int) -> Iterator[TextIO]:
    """A file that was not there before; it is gone again when the block fails.

    Open it before doing what cannot be undone, so that nothing is issued that cannot be stored.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise CommandError(f"{path} already exists.") from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextmanager
def new_file_at_end(path: Path) -> Iterator[BinaryIO]:
    """A private file that is there, under its name, only once the block has ended well: whole and on disk.

    Never replaces one. Its `name` is where it is meanwhile, beside it.
    """
    if os.path.lexists(path):
        raise CommandError(f"{path} already exists.")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        file = open(draft, "x+b", opener=lambda name, flags: os.open(name, flags, PRIVATE))  # noqa: SIM115 - below
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # where a rename would replace what has come there meanwhile
        finally:
            draft.unlink(missing_ok=True)
        _sync_directory(path.parent)
    except FileExistsError:
        raise CommandError(f"{path} already exists.") from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def save_pair(cert: tuple[Path, str], key: tuple[Path, str]) -> None:
    """Writes a certificate and its private key, each as (path, PEM): both, or neither."""
    with ExitStack() as files:
        cert_file = files.enter_context(new_file(cert[0], PUBLIC))
        key_file = files.enter_context(new_file(key[0], PRIVATE))
        cert_file.write(cert[1])
        key_file.write(key[1])
