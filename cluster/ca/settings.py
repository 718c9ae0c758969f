"""The CA configuration map: what a new CA starts from, its canonical form, and keeping secrets apart from the rest."""

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cluster.base.config import ConnectSection
from cluster.base.errors import BadRequest
from cluster.seal.cover import NOTHING
from cluster.signing.pool import ProviderSetup
from providers import registry
from providers.config.common import CommonConfig
from providers.config.decode import Fields
from providers.config.secrets import PUBLIC_KEYS, folded, looks_secret, secret_places
from providers.errors import ConfigInvalid
from providers.texts import one_line

#: What an agent of Consul writes into a new configuration.
_DEFAULTS: Final[Mapping[str, object]] = {
    "LeafCertTTL": "72h",
    "IntermediateCertTTL": "8760h",
    "RootCertTTL": "87600h",
}
#: A configuration without it is stored with it, in Go's spelling (consul-compat 4.2).
_INTERMEDIATE_TTL: Final = ("IntermediateCertTTL", "8760h0m0s")
#: Secret under every provider, even one this node does not know.
_ALWAYS_SECRET: Final = frozenset({"PrivateKey", "Token", "AuthMethod"})
#: Ways to log in of which a provider takes one: whoever gives one means it instead of what is stored.
_LOGINS: Final = (frozenset({folded("Token")}), frozenset({folded("AuthMethod")}))
_PRIVATE_KEY: Final = folded("PrivateKey")
#: One is not judged without the other.
_KEY_AND_ROOT: Final = frozenset({_PRIVATE_KEY, folded("RootCert")})
_OWN_PROVIDERS: Final = frozenset({"consul", "vault"})
_UNNAMED: Final = "(a secret as a name)"
#: Besides the canonical names, what providers read as well, in any case.
_ALSO_READ: Final = frozenset({"auth_method"})
_MAX_NAMED: Final = 10
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
    """A provider's whole configuration; `config` holds no secret, and the secrets are covered: they can be compared,
    kept and left out here, and be read where they are used.
    """

    provider: str
    config: Mapping[str, object]
    secrets: Mapping[str, bytes] = field(repr=False)

    @property
    def config_json(self) -> str:
        """Canonical: equal settings have equal texts."""
        return json.dumps(self.config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    def setup(self, cluster_id: str, datacenter: str, state: bytes) -> ProviderSetup:
        """For the workers. `state` is what the provider is given at first; empty for one that shall begin afresh."""
        return ProviderSetup(self.provider, cluster_id, datacenter, True, self.config, self.secrets, state)


#: Covers secrets by name, as `NodeSealer.cover_values` does.
Coverer = Callable[[Mapping[str, object]], Mapping[str, bytes]]


def settings_of(provider: str, raw: Mapping[str, object], cover: Coverer) -> CASettings:
    """The operator's map, its secrets put apart and covered, completed as Consul does.

    Raises: ConfigInvalid when a value is not plain JSON; BadRequest for what looks like a secret under a name that no
    provider keeps secret: it would be stored, replicated and shown.
    """
    try:
        json.dumps(raw, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigInvalid(f"error decoding config: {one_line(error)}") from error
    secret_names = {folded(name) for name in secret_keys(provider)}
    named = _canonical(raw, secret_keys(provider))
    config = {key: value for key, value in named.items() if folded(key) not in secret_names}
    secrets = {key: value for key, value in named.items() if folded(key) in secret_names}
    _require_no_secret(provider, config)
    name, value = _INTERMEDIATE_TTL
    if not any(key.lower() == name.lower() for key in config):
        config[name] = value
    return CASettings(provider, config, cover(secrets) if secrets else {})


def _canonical(raw: Mapping[str, object], secret_names: frozenset[str]) -> dict[str, object]:
    """Keys that are known under their own names, however they are spelt; as Consul reads them they stay as they are.

    Raises: BadRequest when one key comes twice: only one of them would count.
    """
    known = _by_fold({*PUBLIC_KEYS, *secret_names})
    named: dict[str, object] = {}
    spelt: dict[str, str] = {}
    for key, value in raw.items():
        name = known.get(folded(key))
        if name is not None and (other := spelt.setdefault(name, key)) != key:
            raise BadRequest(f"{one_line(other)} and {one_line(key)} name the same key: give one of them")
        is_read = name is None or key.lower() == name.lower() or key.lower() in _ALSO_READ
        named[key if is_read else str(name)] = value
    return named


def _by_fold(names: Iterable[str]) -> dict[str, str]:
    """Of two spellings the one in Consul's style."""
    return {folded(name): name for name in sorted(names, reverse=True)}


def _require_no_secret(provider: str, config: Mapping[str, object]) -> None:
    """Raises: BadRequest, which names where it is and never shows it."""
    places = [one_line(place) for place, _ in zip(secret_places(config), range(_MAX_NAMED), strict=False)]
    if places:
        names = ", ".join(sorted(_by_fold(secret_keys(provider)).values()))
        raise BadRequest(
            f"Config holds what looks like a secret where it would be shown: {', '.join(places)}. Secrets of the"
            f' provider "{one_line(provider)}" are given as {names}; leave out what is none of them'
        )


def secret_keys(provider: str) -> frozenset[str]:
    try:
        return registry.secret_keys(provider) | _ALWAYS_SECRET
    except ConfigInvalid:
        return _ALWAYS_SECRET


def keep_secrets(settings: CASettings, stored: CASettings) -> CASettings:
    """An omitted secret keeps its stored value; an explicit "" clears it (consul-compat 10.1).

    A Token takes the place of a stored AuthMethod, and the other way round. Whether a PrivateKey that was kept is of
    the kind asked for is for the caller to find out (`has_kept_key`).

    Raises: BadRequest when a secret would go elsewhere than where it was given for.
    """
    given = {folded(key) for key in settings.secrets}
    replaced = {folded(key) for key, value in settings.secrets.items() if value != NOTHING}
    if any(replaced & login for login in _LOGINS):
        given |= frozenset().union(*_LOGINS)
    kept = {key: value for key, value in stored.secrets.items() if folded(key) not in given and value != NOTHING}
    _require_same_destination(settings, stored, kept)
    return CASettings(settings.provider, settings.config, {**kept, **settings.secrets})


def has_kept_key(given: CASettings, kept: CASettings) -> bool:
    """Whether `keep_secrets` has put a stored PrivateKey back.

    One that is not of the kind asked for counts as cleared (consul-compat 10.1), and must be left out: a new one will
    be made, and a later change that leaves out type and bits would bring the old one back.
    """
    return _has_key(kept) and not _has_key(given)


def _has_key(settings: CASettings) -> bool:
    return any(folded(key) == _PRIVATE_KEY for key in settings.secrets)


def _require_same_destination(settings: CASettings, stored: CASettings, kept: Mapping[str, object]) -> None:
    """Whoever may change the configuration need not know its secrets, and must not have them sent to a place of their
    own choice.
    """
    changed = moved_keys(settings.provider, stored.config, settings.config)
    sent = _by_fold(registry.secret_keys(settings.provider)) if changed else {}
    names = sorted({sent[folded(key)] for key in kept if folded(key) in sent})
    if names:
        raise BadRequest(
            f"{', '.join(changed)} {'is' if len(changed) == 1 else 'are'} changed, so {', '.join(names)} must be given"
            " again: a stored secret goes only to the address, the namespace and the TLS trust that it was given for"
        )


def moved_keys(provider: str, before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """What of a configuration's destination (see `Provider.destination`) differs. Raises: ConfigInvalid."""
    old, new = (registry.destination(provider, config) for config in (before, after))
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


def without_private_key(settings: CASettings) -> CASettings:
    others = {key: value for key, value in settings.secrets.items() if folded(key) != _PRIVATE_KEY}
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


class FirstSettings:
    """What a new CA starts from: the node's file, its secrets covered. What is wrong with it is said when a CA is to be
    made of it, and never where there is one.
    """

    def __init__(self, section: ConnectSection, cover: Coverer) -> None:
        self.is_enabled = section.enabled
        self._cluster_id: Final = section.ca_config.get(_CLUSTER_ID)
        self._settings: CASettings | None = None
        self._problem: tuple[type[BadRequest] | type[ConfigInvalid], str] = (BadRequest, "")
        try:
            self._settings = _first_settings(section, cover)
        except (BadRequest, ConfigInvalid) as error:
            # Not the error itself: its traceback has what it is about.
            self._problem = (BadRequest if isinstance(error, BadRequest) else ConfigInvalid, str(error))

    def settings(self) -> CASettings:
        """Raises: as `settings_of`."""
        if self._settings is None:
            kind, text = self._problem
            raise kind(text)
        return self._settings

    def new_cluster_id(self) -> str:
        """The configured one, else a new one."""
        return str(uuid.uuid4() if self._cluster_id is None else uuid.UUID(self._cluster_id))


def _first_settings(section: ConnectSection, cover: Coverer) -> CASettings:
    return settings_of(section.ca_provider, _first_map(section), cover)


def _first_map(section: ConnectSection) -> dict[str, object]:
    """What a new CA starts from: the node file's `[connect]` over the defaults."""
    raw: dict[str, object] = dict(_DEFAULTS)
    for key, value in section.ca_config.items():
        if key != _CLUSTER_ID:
            raw[_api_key(key)] = value
    return raw


def mistake_in(section: ConnectSection, *, looks_at_key: bool) -> str:
    """Why no CA can be made of a node file's `[connect]`, with key, value and what is allowed, on one line, without
    secrets; empty: nothing shows before a backend is asked. `looks_at_key`: not for a process that lives long, as the
    operator's private key would pass through it.
    """
    names = registry.names()
    if section.ca_provider not in names:
        given = "(a secret)" if looks_secret(section.ca_provider) else repr(section.ca_provider)
        return f"connect.ca_provider = {given}: must be {' or '.join(map(repr, names))}"
    try:
        # First what looks for secrets in the wrong place: no other text may show them.
        policies_of(_first_settings(section, lambda secrets: dict.fromkeys(secrets, NOTHING)))
        named = _canonical(_first_map(section), secret_keys(section.ca_provider))
        if not looks_at_key:
            named = {key: value for key, value in named.items() if folded(key) not in _KEY_AND_ROOT}
        registry.check(section.ca_provider, named, str(section.credentials_dir or ""))
    except (BadRequest, ConfigInvalid) as error:
        return f"connect.ca_config: {one_line(error)}"
    return ""


def unread_keys(section: ConnectSection) -> list[str]:
    """Of a node file's `ca_config`, as they stand there: what no provider of this package reads. A PUT takes such keys
    as Consul does; in a file they are slips of the pen. Empty where they cannot be known.
    """
    if section.ca_provider not in _OWN_PROVIDERS:
        return []
    known = {*map(folded, (*PUBLIC_KEYS, *secret_keys(section.ca_provider))), folded(_CLUSTER_ID), folded(_TEST_STATE)}
    unread = sorted(key for key in section.ca_config if folded(_api_key(key)) not in known)
    return [one_line(_UNNAMED if looks_secret(key) else key) for key in unread[:_MAX_NAMED]]


def _api_key(name: str) -> str:
    if "_" not in name or name == _TEST_STATE:
        return name if name[:1].isupper() or name == _TEST_STATE else name[:1].upper() + name[1:]
    return _FILE_KEYS.get(name.lower()) or "".join(word.capitalize() for word in name.split("_"))
