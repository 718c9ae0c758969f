"""The CA of a state with what is sealed of it open: the only place that opens, and seals, a provider's record.

Everything here is for the leader. Invariants of the state (fsm/ca_rules.py) say what is there: where there is a root
there is a configuration, and whatever is configured has a record.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import msgpack

from cluster.base.errors import InternalError, NotReady
from cluster.ca.settings import CASettings, moved_keys
from cluster.seal.sealer import Sealer
from fsm.ca import CAConfig, CARoot, ProviderState, Rotation
from fsm.state import State
from providers.errors import ConfigInvalid

NO_ROOT: Final = "CA has not finished initializing: there is no root yet"


class ConfigUnreadable(InternalError):
    """What is stored as configuration is none."""


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


def sealed_again(before: Sealer, after: Sealer, sealed: ProviderState) -> ProviderState:
    """The same under another data key. Raises: SealError."""
    record = open_record(before, sealed)
    return seal_record(after, sealed.provider_id, sealed.provider, record, is_prepared=sealed.is_prepared)


def _purpose(provider_id: str) -> str:
    return f"provider state {provider_id}"


def settings_in(config: CAConfig, record: ProviderRecord) -> CASettings:
    """The stored configuration, whole again. Raises: ConfigUnreadable."""
    return CASettings(config.provider, config_map(config.config_json), record.secrets)


def config_map(config_json: str) -> Mapping[str, object]:
    """Raises: ConfigUnreadable for what is no JSON object. No release writes that, but one has restored it."""
    try:
        value = json.loads(config_json)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ConfigUnreadable("the stored configuration cannot be read: PUT one, or restore a good snapshot")
    return value


def moved_since_sealed(config: CAConfig, record: ProviderRecord) -> list[str]:
    """What of the configuration would send the sealed secrets elsewhere than where they were sealed for.

    The configuration beside them is in clear, and not bound to them: whoever could write a file of it, or a snapshot,
    could have a login sent to a place of their own. The one that was sealed with them says where they may go.
    """
    if config.config_json == record.config_json or not any(value != "" for value in record.secrets.values()):
        return []
    try:
        return moved_keys(config.provider, config_map(record.config_json), config_map(config.config_json))
    except (ConfigInvalid, ConfigUnreadable):  # without a provider, or a configuration, nothing is sent
        return []


@dataclass(frozen=True, slots=True)
class Stored:
    """A configured CA, whether it has a root or not."""

    config: CAConfig
    record: ProviderRecord  # of the provider in use

    @property
    def given(self) -> CASettings:
        """The configuration that the secrets were sealed with: where they may go."""
        return CASettings(self.config.provider, config_map(self.record.config_json), self.record.secrets)

    @property
    def settings(self) -> CASettings:
        """The stored configuration, whole again."""
        return settings_in(self.config, self.record)


@dataclass(frozen=True, slots=True)
class Opened:
    """A CA that signs."""

    config: CAConfig
    record: ProviderRecord  # of the provider in use
    root: CARoot  # the active one

    @property
    def settings(self) -> CASettings:
        """The stored configuration, whole again."""
        return settings_in(self.config, self.record)


@dataclass(frozen=True, slots=True)
class OpenedRotation:
    """A rotation under way."""

    rotation: Rotation
    record: ProviderRecord  # of the new provider
    config: CAConfig  # in force
    old: CARoot  # the active root

    @property
    def settings(self) -> CASettings:
        """Of the new provider."""
        return settings_in(self.rotation.config, self.record)

    @property
    def root(self) -> CARoot:
        """The new one: it is there in every phase after GENERATE."""
        root = self.rotation.root
        assert root is not None  # an invariant of the state
        return root


class Opener:
    """Opens with the data key that a state names.

    The key is derived from a passphrase (slow) only when the state's seal has changed.
    """

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def unlock(self, state: State) -> None:
        """Take the state's seal into use; another one after `seal rotate`. Raises: SealError."""
        if state.seal is not None:
            self._sealer.unlock(state.seal)

    def stored(self, state: State) -> Stored:
        """Raises: NotReady before there is a configuration; SealError."""
        if state.config is None:
            raise NotReady("CA has not finished initializing: no configuration yet")
        record = self._record_of(state, state.config)
        if moved_since_sealed(state.config, record):
            # Nothing to fill in: whoever configures the CA anew gives the secrets with it.
            record = replace(record, secrets={})
        return Stored(state.config, record)

    def opened(self, state: State) -> Opened:
        """Raises: NotReady before there is a root; SealError; InternalError for a configuration that would send its
        secrets elsewhere.
        """
        config, root = state.config, state.active_root
        if config is None or root is None:
            raise NotReady(NO_ROOT)
        return Opened(config, self._unmoved(state, config), root)

    def rotation(self, state: State) -> OpenedRotation:
        """Of a state in which one is under way. Raises: SealError, InternalError, as `opened`."""
        rotation, config, old = state.rotation, state.config, state.active_root
        assert rotation is not None
        assert config is not None
        assert old is not None  # invariants of the state
        return OpenedRotation(rotation, self._unmoved(state, rotation.config), config, old)

    def record(self, sealed: ProviderState) -> ProviderRecord:
        """Of any provider of the state that was unlocked last. Raises: SealError."""
        return open_record(self._sealer, sealed)

    def moved(self, state: State) -> list[str]:
        """As `moved_since_sealed`, of every configuration in the state that was unlocked last. Raises: SealError."""
        configs = [state.config, state.rotation.config if state.rotation else None]
        return [
            key
            for config in configs
            if config is not None and (sealed := state.provider_state(config.provider_id)) is not None
            for key in moved_since_sealed(config, self.record(sealed))
        ]

    def sealed(self, config: CAConfig, record: ProviderRecord, *, is_prepared: bool = True) -> ProviderState:
        """What the state keeps of the provider that this configuration names."""
        return seal_record(self._sealer, config.provider_id, config.provider, record, is_prepared=is_prepared)

    def resealed(self, config: CAConfig, record: ProviderRecord, provider_state: bytes) -> ProviderState:
        """The same with the provider's own state replaced."""
        return self.sealed(config, replace(record, state=provider_state))

    def _unmoved(self, state: State, config: CAConfig) -> ProviderRecord:
        record = self._record_of(state, config)
        if moved := moved_since_sealed(config, record):
            raise InternalError(
                f"{', '.join(moved)} in the stored configuration is not what its secrets were sealed with: they are not"
                " sent there. Configure the CA again, with its secrets"
            )
        return record

    def _record_of(self, state: State, config: CAConfig) -> ProviderRecord:
        self.unlock(state)
        sealed = state.provider_state(config.provider_id)
        assert sealed is not None  # an invariant of the state
        return open_record(self._sealer, sealed)
