"""What of a configuration goes into a header or a path of a request to Vault, and which characters it may have there.

A `#`, `?` or `..` in a path makes another path of it than the one that was meant, with the token of this CA.
"""

import re
from typing import Final

from providers.errors import Malformed
from providers.texts import one_line

MAX_HEADER: Final = 8192  # a token that is a JWT has a few thousand
_MAX_NAMESPACE: Final = 512
_MAX_PATH: Final = 256
_SEGMENT: Final = re.compile(r"[^#?%\\\0-\x1f\x7f\ud800-\udfff]+")
_VISIBLE: Final = re.compile(r"[!-~]+")
_DOTS: Final = frozenset({".", ".."})


def require_path(name: str, text: str) -> None:
    """A mount. Raises: Malformed."""
    if len(text) > _MAX_PATH or not all(_SEGMENT.fullmatch(one) and one not in _DOTS for one in text.split("/")):
        raise Malformed(
            f'{name} is "{one_line(text)}": must be parts between slashes, none of them empty or . or .., without'
            f" # ? % \\ and control characters, and at most {_MAX_PATH} characters"
        )


def require_namespace(name: str, text: str) -> None:
    """Or none. Raises: Malformed."""
    if text and not (len(text) <= _MAX_NAMESPACE and _VISIBLE.fullmatch(text)):
        raise Malformed(
            f'{name} is "{one_line(ascii(text)[1:-1])}": must be visible ASCII characters, without blanks, and at most'
            f" {_MAX_NAMESPACE}"
        )


def is_token(text: str) -> bool:
    """Whether it may be sent as one."""
    return len(text) <= MAX_HEADER and bool(_VISIBLE.fullmatch(text))


def require_token(name: str, text: str) -> None:
    """Or none; it is not shown. Raises: Malformed."""
    if text and not is_token(text):
        raise Malformed(
            f"{name} is none that Vault gives: must be visible ASCII characters, without blanks or line ends between"
            f" them, and at most {MAX_HEADER}"
        )


def require_segment(name: str, text: str) -> None:
    """What is quoted as one part of a path. Raises: Malformed, which does not show it."""
    if len(text) > _MAX_PATH or text in _DOTS or not text.isprintable():
        raise Malformed(
            f"{name} must be one line of at most {_MAX_PATH} characters, without control characters, and neither . nor"
            " .."
        )
