"""Files that commands read and make: bounded reads, and new files that never replace one.

Raises CommandError everywhere, with the file's name in the text.
"""

import json
import os
import secrets
import shlex
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from cluster.client.errors import CommandError

PRIVATE: Final = 0o600
#: Of UTF-8 and UTF-16: editors that write one hide it, and whoever reads on complains about what cannot be seen.
_BYTE_ORDER_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
#: What `is_secret` finds good, in words.
FORM_OF_SECRETS: Final = "printable ASCII without spaces"
#: What the umask leaves of it.
PUBLIC: Final = 0o644
_UMASK: Final = 0o077


def keep_private() -> None:
    """Nothing that this process writes from now on is for anybody but its user, whatever the caller's umask is."""
    os.umask(_UMASK)


def read_text(name: str, limit_bytes: int, *, is_private: bool = False) -> str:
    """The text of a file, or of standard input when `name` is `-`. `is_private`: not if others can get at the file."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(limit_bytes + 1)
        else:
            with open(name, "rb") as file:
                if is_private:
                    _require_private(name, os.fstat(file.fileno()))
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


def _require_private(name: str, status: os.stat_result) -> None:
    """The rule of ssh(1) for identity files: who may read a file is for its owner to say, and where the owner is who
    runs this, its mode says what they cannot have meant. Pipes, as of `<(...)`, are no files.
    """
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise CommandError(
            f"{name}: others can get at it (mode {mode:04o}, must be 0600 or 0400): chmod 600 {shlex.quote(name)}"
        )


def json_object(text: str, allowed: str) -> dict[str, Any]:
    """What the text of a file holds; `allowed` completes the sentence "must be ..."."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise CommandError(f"{error}: must be {allowed}") from error
    except RecursionError as error:
        raise CommandError("is nested too deeply") from error
    except ValueError as error:  # Python's own, for a number of thousands of digits
        raise CommandError("holds a number that is too long") from error
    if not isinstance(value, dict):
        raise CommandError(f"must be {allowed}")
    return value


def read_secret(name: str, limit_bytes: int, *, is_private: bool = True) -> str:
    """The one line of a file that holds a token, or of standard input. The newline that editors put at its end is no
    part of it. An error never repeats what is in the file.
    """
    line = read_text(name, limit_bytes, is_private=is_private).removesuffix("\n").removesuffix("\r")
    if not line:
        raise CommandError(f"{name}: holds no token")
    if "\n" in line or "\r" in line:
        raise CommandError(f"{name}: holds more than one line: must be one, the token")
    if not is_secret(line):
        raise CommandError(f"{name}: holds what is no token: must be {FORM_OF_SECRETS}")
    return line


def is_secret(text: str) -> bool:
    """Whether it can be sent as a header, and is what somebody meant to send."""
    return text.isascii() and text.isprintable() and " " not in text


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
    # A rename would replace what has come there meanwhile.
    with _drafted(path, os.link) as file:
        yield file


@contextmanager
def replaced_at_end(path: Path) -> Iterator[BinaryIO]:
    """As `new_file_at_end`, in the place of the file that is there, if any: whoever reads it sees the old one or the
    new one, whole. What is no regular file is refused, links too: nothing is written to where they lead.
    """
    try:
        is_regular = stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        is_regular = True
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error
    if not is_regular:
        raise CommandError(f"{path}: must be a regular file, no link or directory, or not exist")
    # It puts the file in the place of a link that has come there meanwhile, and does not follow it.
    with _drafted(path, os.replace) as file:
        yield file


@contextmanager
def _drafted(path: Path, publish: Callable[[Path, Path], None]) -> Iterator[BinaryIO]:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        file = open(draft, "x+b", opener=lambda name, flags: os.open(name, flags, PRIVATE))  # noqa: SIM115 - below
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            publish(draft, path)
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
