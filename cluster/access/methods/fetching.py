"""What the methods ask others for, and the promise of whoever fetches it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

#: A key set of 64 RSA keys of 8192 bits with certificates, and more.
MAX_ANSWER: Final = 512 << 10


class FetchFailed(Exception):
    """There is no answer, or none that is taken. The text is for operators."""


@dataclass(frozen=True, slots=True)
class Request:
    """`ca_pem`: who may vouch for the server; empty: the system's. With a body it is a POST of JSON."""

    url: str
    ca_pem: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    max_bytes: int = MAX_ANSWER


#: The body of an answer with 200 or 201. Bounded in bytes and time. Raises: FetchFailed.
Fetch = Callable[[Request], Awaitable[bytes]]
