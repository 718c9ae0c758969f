"""The CA configuration map: what a new CA starts from, its canonical form, and keeping secrets apart from the rest."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cluster.base.config import ConnectSection
from cluster.signing.pool import ProviderSetup
from providers import registry
from providers.builtin.state import private_key_fits
from providers.config.common import CommonConfig
from providers.config.decode import Fields
from providers.errors import ConfigInvalid

#: What an agent of Consul writes into a new configuration.
_DEFAULTS: Final[Mapping[str, object]] = {
    "LeafCertTTL": "72h",
    "IntermediateCertTTL": "8760h",
    "RootCertTTL": "87600h",
}
#: A configuration without it is stored with it, in Go's spelling (consul-compat 4.2).
_INTERMEDIATE_TTL: Final = ("IntermediateCertTTL", "8760h0m0s")
#: Secret under every provider, even one this node does not know.
_ALWAYS_SECRET: Final = frozenset({"PrivateKey", "Token", "AuthMethod", "auth_method"})
#: Ways to log in of which a provider takes one: whoever gives one means it instead of what is stored.
_LOGINS: Final = (frozenset({"token"}), frozenset({"authmethod", "auth_method"}))
#: Node files may use Consul's names of configuration files (consul-compat 1.6). Others are camel-cased word by word.
_FILE_KEYS: Final[Mapping[str, str]] = {
    "root_pki_path": "RootPKIPath",
    "root_pki_namespace": "RootPKINamespace",
    "intermediate_pki_path": "IntermediatePKIPath",
    "intermediate_pki_namespace": "IntermediatePKINamespace",
    "ca_file": "CAFile",
    "ca_path": "CAPath",
    "tls_server_name": "TLSServerName",
    "tls_skip_verify": "TLSSkipVerify",
    "existing_arn": "ExistingARN",
    "leaf_cert_ttl": "LeafCertTTL",
    "intermediate_cert_ttl": "IntermediateCertTTL",
    "root_cert_ttl": "RootCertTTL",
    "csr_max_per_second": "CSRMaxPerSecond",
    "csr_max_concurrent": "CSRMaxConcurrent",
}
_AUTO_ROTATE_PERCENT: Final = 20
_TEST_STATE: Final = "test_state"
_CLUSTER_ID: Final = "cluster_id"


@dataclass(frozen=True, slots=True)
class CASettings:
    """A provider's whole configuration; `config` holds no secret."""

    provider: str
    config: Mapping[str, object]
    secrets: Mapping[str, object] = field(repr=False)

    @property
    def config_json(self) -> str:
        """Canonical: equal settings have equal texts."""
        return json.dumps(self.config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @property
    def merged(self) -> dict[str, object]:
        return {**self.config, **self.secrets}

    def setup(self, cluster_id: str, datacenter: str, state: bytes) -> ProviderSetup:
        """For the workers. `state` is what the provider is given at first; empty for one that shall begin afresh."""
        return ProviderSetup(self.provider, cluster_id, datacenter, True, self.merged, state)


def settings_of(provider: str, raw: Mapping[str, object]) -> CASettings:
    """The operator's map, its secrets put apart, completed as Consul does.

    Raises: ConfigInvalid when a value is not plain JSON.
    """
    secret_names = {name.lower() for name in secret_keys(provider)}
    config = {key: value for key, value in raw.items() if key.lower() not in secret_names}
    secrets = {key: value for key, value in raw.items() if key.lower() in secret_names}
    name, value = _INTERMEDIATE_TTL
    if not any(key.lower() == name.lower() for key in config):
        config[name] = value
    try:
        json.dumps([config, secrets], allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigInvalid(f"error decoding config: {error}") from error
    return CASettings(provider, config, secrets)


def secret_keys(provider: str) -> frozenset[str]:
    try:
        return registry.secret_keys(provider) | _ALWAYS_SECRET
    except ConfigInvalid:
        return _ALWAYS_SECRET


def keep_secrets(settings: CASettings, stored: Mapping[str, object]) -> CASettings:
    """An omitted secret keeps its stored value; an explicit "" clears it (consul-compat 10.1).

    A Token takes the place of a stored AuthMethod, and the other way round. An omitted PrivateKey that is not of the
    kind asked for counts as cleared: a new one will be made.
    """
    given = {key.lower() for key in settings.secrets}
    replaced = {key.lower() for key, value in settings.secrets.items() if value != ""}
    if any(replaced & login for login in _LOGINS):
        given |= frozenset().union(*_LOGINS)
    kept = {key: value for key, value in stored.items() if key.lower() not in given and value != ""}
    merged = CASettings(settings.provider, settings.config, {**kept, **settings.secrets})
    if "privatekey" not in given and not private_key_fits(merged.merged):
        # Else a later change that leaves out type and bits would bring the old key back.
        merged = without_private_key(merged)
    return merged


def without_private_key(settings: CASettings) -> CASettings:
    others = {key: value for key, value in settings.secrets.items() if key.lower() != "privatekey"}
    return CASettings(settings.provider, settings.config, others)


def without_key(settings: CASettings) -> CASettings:
    """The same, but with no key or root of the operator's: what a fresh one is made from."""
    config = {key: value for key, value in settings.config.items() if key.lower() != "rootcert"}
    return without_private_key(CASettings(settings.provider, config, settings.secrets))


@dataclass(frozen=True, slots=True)
class Policies:
    """What the configuration means for the state machine, which does not read it."""

    leaf_ttl_seconds: int
    auto_rotate_percent: int


def policies_of(settings: CASettings) -> Policies:
    """Raises: ConfigInvalid."""
    fields = Fields(settings.config)
    is_automatic = fields.flag("AutoRotateRoot", default=False)
    percent = fields.integer("AutoRotateRootPercent", _AUTO_ROTATE_PERCENT)
    fields.finish()
    if not 1 <= percent <= 90:
        raise ConfigInvalid(f"AutoRotateRootPercent is {percent}: must be from 1 to 90 percent of the lifetime left")
    leaf_ttl_seconds = CommonConfig.parse(settings.config).leaf_ttl_seconds
    return Policies(leaf_ttl_seconds, percent if is_automatic else 0)


def first_settings(section: ConnectSection) -> CASettings:
    """What a new CA starts from: the node file's `[connect]` over the defaults."""
    raw: dict[str, object] = dict(_DEFAULTS)
    for key, value in section.ca_config.items():
        if key != _CLUSTER_ID:
            raw[_api_key(key)] = value
    return settings_of(section.ca_provider, raw)


def first_cluster_id(section: ConnectSection) -> str:
    """The configured cluster id, else a new one."""
    given = section.ca_config.get(_CLUSTER_ID)
    return str(uuid.uuid4() if given is None else uuid.UUID(given))


def _api_key(name: str) -> str:
    if "_" not in name or name == _TEST_STATE:
        return name if name[:1].isupper() or name == _TEST_STATE else name[:1].upper() + name[1:]
    return _FILE_KEYS.get(name.lower()) or "".join(word.capitalize() for word in name.split("_"))
