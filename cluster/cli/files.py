"""Files that commands read and make: bounded reads, and new files that never replace one.

Raises CommandError everywhere, with the file's name in the text.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, TextIO

from cluster.cli.errors import CommandError

PRIVATE: Final = 0o600
#: What the umask leaves of it.
PUBLIC: Final = 0o666


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


def save_pair(cert: tuple[Path, str], key: tuple[Path, str]) -> None:
    """Writes a certificate and its private key, each as (path, PEM): both, or neither."""
    with ExitStack() as files:
        cert_file = files.enter_context(new_file(cert[0], PUBLIC))
        key_file = files.enter_context(new_file(key[0], PRIVATE))
        cert_file.write(cert[1])
        key_file.write(key[1])
