"""What is sealed of a provider: its secrets, its state, and the configuration that both belong to.

Sealed, it is a tuple in msgpack: `[secrets, state, configuration]`, for one purpose.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgpack

from cluster.seal.sealer import Sealer
from cluster.seal.sources import SealError


class RecordUnreadable(SealError):
    """It opens, and is of no release's making."""


@dataclass(frozen=True, slots=True)
class PlainRecord:
    """Open: for the process that keeps the data key, and for tools that have the seal key."""

    secrets: Mapping[str, object] = field(repr=False)
    state: bytes = field(repr=False)
    config_json: str


def seal_record(sealer: Sealer, purpose: str, record: PlainRecord) -> bytes:
    """`purpose`: what it is for, as in `Sealer.seal`. Raises: SealError before `sealer` has a data key."""
    plain: bytes = msgpack.packb([dict(record.secrets), record.state, record.config_json])
    return sealer.seal(plain, purpose)


def open_record(sealer: Sealer, purpose: str, sealed: bytes) -> PlainRecord:
    """Raises: SealError, RecordUnreadable."""
    plain = sealer.open(sealed, purpose)
    try:
        secret_values, state, config_json = msgpack.unpackb(plain)
    except (ValueError, TypeError) as error:
        raise RecordUnreadable(f"the sealed {purpose} cannot be read: {type(error).__name__}") from None
    if not (isinstance(secret_values, dict) and isinstance(state, bytes) and isinstance(config_json, str)):
        raise RecordUnreadable(f"the sealed {purpose} cannot be read: it is not a map, bytes and a text")
    return PlainRecord(secret_values, state, config_json)


def purpose_of(provider_id: str) -> str:
    return f"provider state {provider_id}"
