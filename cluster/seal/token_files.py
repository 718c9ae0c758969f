"""Files of `[acl]` that hold a token: for the node's user alone, one line."""

import uuid
from pathlib import Path
from typing import Final

from cluster.base.words import plain
from cluster.seal.secret_files import SecretFileError, read_secret
from fsm.acl import RESERVED

MAX_TOKEN_BYTES: Final = 4096


class TokenFileRefused(Exception):
    """The text names the setting and the file, and never repeats what is in it."""


def read_token(setting: str, path: Path) -> str:
    """Raises: TokenFileRefused; FileNotFoundError."""
    try:
        data = read_secret(path)
    except FileNotFoundError:
        raise
    except SecretFileError as error:
        raise TokenFileRefused(f"{setting} {path}: {error}") from error
    except OSError as error:
        raise TokenFileRefused(f"{setting} {path} cannot be read: {plain(error)}") from error
    # The newline that editors put at its end is no part of it.
    token = data.decode("latin-1").removesuffix("\n").removesuffix("\r")
    if not token or len(token) > MAX_TOKEN_BYTES or not token.isascii() or not token.isprintable() or " " in token:
        raise TokenFileRefused(
            f"{setting} {path} holds no token: must be one line of 1 to {MAX_TOKEN_BYTES} characters, printable ASCII"
            " without spaces"
        )
    return token


def read_secret_id(setting: str, path: Path) -> str:
    """As `read_token`, of a token that is made from it."""
    token = read_token(setting, path)
    try:
        if len(token) != 36:
            raise ValueError
        secret_id = str(uuid.UUID(token))
    except ValueError:
        secret_id = ""
    if not secret_id or secret_id.startswith(RESERVED):
        raise TokenFileRefused(
            f"{setting} {path} holds no SecretID: must be a UUID, as of `uuidgen` or /proc/sys/kernel/random/uuid"
        )
    return secret_id
