"""What is sealed of a provider in the replicated state: its secrets, its own state and its configuration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgpack

from cluster.ca.settings import CASettings
from cluster.seal.sealer import Sealer
from fsm.ca import CAConfig, ProviderState


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """What a ProviderState holds once it is open."""

    secrets: Mapping[str, object] = field(repr=False)
    state: bytes = field(repr=False)
    config_json: str  # its own configuration, which a retired provider cannot find in the state any more


def seal_record(
    sealer: Sealer, provider_id: str, provider: str, record: ProviderRecord, *, is_prepared: bool
) -> ProviderState:
    plain: bytes = msgpack.packb([dict(record.secrets), record.state, record.config_json])
    return ProviderState(provider_id, provider, sealer.seal(plain, _purpose(provider_id)), is_prepared)


def open_record(sealer: Sealer, sealed: ProviderState) -> ProviderRecord:
    """Raises: SealError."""
    secret_values, state, config_json = msgpack.unpackb(sealer.open(sealed.sealed, _purpose(sealed.provider_id)))
    return ProviderRecord(secret_values, state, config_json)


def _purpose(provider_id: str) -> str:
    return f"provider state {provider_id}"


def settings_in(config: CAConfig, record: ProviderRecord) -> CASettings:
    """The stored configuration, whole again."""
    return CASettings(config.provider, json.loads(config.config_json), record.secrets)
