"""The CA of a state with what is sealed of it open: the only place that has a provider's record opened, and sealed.

Open means: as this process may see it. Secrets and the provider's own state, which has the CA's key in it, stay under
the cover that the keeper puts on them (cluster/seal/cover.py), until they are in a process that signs.

Everything here is for the leader. Invariants of the state (fsm/ca_rules.py) say what is there: where there is a root
there is a configuration, and whatever is configured has a record.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from cluster.base.errors import InternalError, NotReady
from cluster.ca.settings import CASettings, moved_keys
from cluster.seal.cover import NOTHING
from cluster.seal.keeper import CoveredRecord
from cluster.seal.node_sealer import NodeSealer
from cluster.seal.records import purpose_of
from fsm.ca import CAConfig, CARoot, ProviderState, Rotation
from fsm.state import State
from providers.errors import ConfigInvalid

NO_ROOT: Final = "CA has not finished initializing: there is no root yet"


class ConfigUnreadable(InternalError):
    """What is stored as configuration is none."""


def sealed_again(before: NodeSealer, after: NodeSealer, sealed: ProviderState) -> ProviderState:
    """The same under another data key. Raises: SealError."""
    purpose = purpose_of(sealed.provider_id)
    return replace(sealed, sealed=after.seal_record(purpose, before.open_record(purpose, sealed.sealed)))


def settings_in(config: CAConfig, record: CoveredRecord) -> CASettings:
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


def moved_since_sealed(config: CAConfig, record: CoveredRecord) -> list[str]:
    """What of the configuration would send the sealed secrets elsewhere than where they were sealed for.

    The configuration beside them is in clear, and not bound to them: whoever could write a file of it, or a snapshot,
    could have a login sent to a place of their own. The one that was sealed with them says where they may go.
    """
    if config.config_json == record.config_json or not any(value != NOTHING for value in record.secrets.values()):
        return []
    try:
        return moved_keys(config.provider, config_map(record.config_json), config_map(config.config_json))
    except (ConfigInvalid, ConfigUnreadable):  # without a provider, or a configuration, nothing is sent
        return []


@dataclass(frozen=True, slots=True)
class Stored:
    """A configured CA, whether it has a root or not."""

    config: CAConfig
    record: CoveredRecord  # of the provider in use

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
    record: CoveredRecord  # of the provider in use
    root: CARoot  # the active one

    @property
    def settings(self) -> CASettings:
        """The stored configuration, whole again."""
        return settings_in(self.config, self.record)


@dataclass(frozen=True, slots=True)
class OpenedRotation:
    """A rotation under way."""

    rotation: Rotation
    record: CoveredRecord  # of the new provider
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

    def __init__(self, sealer: NodeSealer) -> None:
        self._sealer = sealer

    def unlock(self, state: State) -> None:
        """Take the state's seal into use; another one after `seal rotate`. Raises: SealError."""
        if state.seal is not None:
            self._sealer.unlock(state.seal)

    def is_unlocked(self, state: State) -> bool:
        """Whether `unlock` has nothing to do, and so is not slow."""
        return state.seal is None or self._sealer.holds(state.seal)

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

    def record(self, sealed: ProviderState) -> CoveredRecord:
        """Of any provider of the state that was unlocked last. Raises: SealError."""
        return self._sealer.open_record(purpose_of(sealed.provider_id), sealed.sealed)

    def moved(self, state: State) -> list[str]:
        """As `moved_since_sealed`, of every configuration in the state that was unlocked last. Raises: SealError."""
        configs = [state.config, state.rotation.config if state.rotation else None]
        return [
            key
            for config in configs
            if config is not None and (sealed := state.provider_state(config.provider_id)) is not None
            for key in moved_since_sealed(config, self.record(sealed))
        ]

    def sealed(self, config: CAConfig, record: CoveredRecord, *, is_prepared: bool = True) -> ProviderState:
        """What the state keeps of the provider that this configuration names."""
        sealed = self._sealer.seal_record(purpose_of(config.provider_id), record)
        return ProviderState(config.provider_id, config.provider, sealed, is_prepared)

    def cover_values(self, values: Mapping[str, object]) -> Mapping[str, bytes]:
        """The secrets of a configuration, as this process may keep them. Raises: SealError."""
        return self._sealer.cover_values(values)

    def resealed(self, config: CAConfig, record: CoveredRecord, provider_state: bytes) -> ProviderState:
        """The same with the provider's own state replaced."""
        return self.sealed(config, replace(record, state=provider_state))

    def _unmoved(self, state: State, config: CAConfig) -> CoveredRecord:
        record = self._record_of(state, config)
        if moved := moved_since_sealed(config, record):
            raise InternalError(
                f"{', '.join(moved)} in the stored configuration is not what its secrets were sealed with: they are not"
                " sent there. Configure the CA again, with its secrets"
            )
        return record

    def _record_of(self, state: State, config: CAConfig) -> CoveredRecord:
        self.unlock(state)
        sealed = state.provider_state(config.provider_id)
        assert sealed is not None  # an invariant of the state
        return self.record(sealed)
