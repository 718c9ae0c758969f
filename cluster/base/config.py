"""A node's own settings: one TOML file, overlaid by QUORUMCA_* variables, checked as a whole before anything starts.

The CA's configuration is not here: it is replicated state. Only what a new CA starts from is (`[connect]`).
"""

import os
import re
import tomllib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import Meta

from cluster.base.errors import ConfigError
from cluster.base.names import is_address, is_host_pattern, is_loopback, is_node_name
from cluster.base.words import byte_order_mark

S = TypeVar("S", bound="_Section")

ENVIRONMENT_PREFIX: Final = "QUORUMCA_"
_SECTION_SEPARATOR: Final = "__"
_TOP_LEVEL: Final = frozenset({"node_name", "datacenter", "data_dir"})
_MAX_SERVERS: Final = 9
_MAX_FILE_BYTES: Final = 1 << 20
_SECRET_KEY: Final = re.compile(r"private_?key|token|passphrase|^connect$|ca_config", re.IGNORECASE)
#: Types as msgspec writes them, and what TOML has.
_WORDS: Final = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "object": "a table",
    "str": "text",
}
_TYPES: Final = re.compile(rf"`((?:{'|'.join(_WORDS)})(?: \| (?:{'|'.join(_WORDS)}|null))*)`")
_RULE: Final = "rule"  # in the metadata of a type: a function that raises ValueError


def _check_node_name(text: str) -> None:
    if not is_node_name(text):
        raise ValueError("must be a DNS label: lower-case letters, digits and inner hyphens, at most 63")


def _check_address(text: str) -> None:
    if not is_address(text):
        raise ValueError("must be host:port with a port from 1 to 65535, an IPv6 host in brackets")


NodeName = Annotated[str, Meta(extra={_RULE: _check_node_name})]
Address = Annotated[str, Meta(extra={_RULE: _check_address})]
_DnsDomain = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the file. What its keys must be together is checked by `__post_init__`, with ValueError."""


class HttpSection(_Section, frozen=True):
    """The HTTP API for clients."""

    address: Address = "127.0.0.1:8500"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    #: Serving private keys in clear over a network has to be asked for in so many words.
    allow_plaintext_off_loopback: bool = False
    #: What clients may call this listener besides `localhost` and its addresses; default: what is in tls_cert.
    allowed_hosts: tuple[str, ...] | None = None
    max_connections: Annotated[int, Meta(ge=16, le=1_000_000)] = 4096
    #: Of these, how many one client address may have; default: half of them.
    max_connections_per_source: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key must be given together")
        if self.tls_cert is None and not self.allow_plaintext_off_loopback and not is_loopback(self.address):
            raise ValueError(
                f"{self.address} is not a loopback address: set tls_cert and tls_key,"
                " or allow_plaintext_off_loopback = true"
            )
        for name in self.allowed_hosts or ():
            if not is_host_pattern(name):
                raise ValueError(
                    f"allowed_hosts has {name!r:.200}: must be DNS names, also with *. in front, or IP addresses;"
                    " without ports"
                )


class RaftSection(_Section, frozen=True):
    """Raft between the nodes. The time-outs must be the same on every node."""

    address: Address = "127.0.0.1:8300"
    advertise: Address | None = None
    election_timeout_min_ms: Annotated[int, Meta(ge=100, le=60_000)] = 500
    election_timeout_max_ms: Annotated[int, Meta(ge=150, le=120_000)] = 1000
    heartbeat_ms: Annotated[int, Meta(ge=10, le=10_000)] = 50
    compact_bytes: Annotated[int, Meta(ge=64 << 10, le=1 << 30)] = 4 << 20
    keep_bytes: Annotated[int, Meta(ge=0, le=1 << 30)] = 2 << 20

    def __post_init__(self) -> None:
        if self.election_timeout_max_ms <= self.election_timeout_min_ms:
            raise ValueError(
                f"election_timeout_max_ms = {self.election_timeout_max_ms} must be above election_timeout_min_ms ="
                f" {self.election_timeout_min_ms}"
            )
        if self.election_timeout_min_ms < 4 * self.heartbeat_ms:
            raise ValueError(
                f"election_timeout_min_ms = {self.election_timeout_min_ms} must be at least 4 times heartbeat_ms ="
                f" {self.heartbeat_ms}"
            )
        if self.keep_bytes >= self.compact_bytes:
            raise ValueError(f"keep_bytes = {self.keep_bytes} must be below compact_bytes = {self.compact_bytes}")


class RpcSection(_Section, frozen=True):
    """Requests between the nodes (HTTP over mutual TLS)."""

    address: Address = "127.0.0.1:8400"
    advertise: Address | None = None


class TlsSection(_Section, frozen=True):
    """This node's certificate for Raft and RPC; see `quorumca tls cert create -server -node NAME`."""

    ca_file: Path
    cert_file: Path
    key_file: Path
    domain: _DnsDomain = "consul"
    #: Have the cluster renew it in time, which must have the agent CA's key for that (`quorumca operator agent-ca`).
    renew: bool = False


class JoinSection(_Section, frozen=True):
    """Where machines ask that are to become servers, by `quorumca join`; without an address, nowhere."""

    address: Address | None = None
    advertise: Address | None = None

    def __post_init__(self) -> None:
        if self.advertise is not None and self.address is None:
            raise ValueError("advertise is of no use without address")


class ServerSection(_Section, frozen=True):
    """One of the servers the cluster starts from. Later changes are made with `quorumca operator raft`."""

    name: NodeName
    raft: Address
    rpc: Address


class SealSection(_Section, frozen=True):
    """Where the key-encryption key comes from; the same on every node."""

    source: Literal["file", "passphrase"] = "file"
    #: source = "file"; default: seal.key in the data directory
    key_file: Path | None = None
    #: source = "passphrase": read from this file, else from QUORUMCA_SEAL_PASSPHRASE
    passphrase_file: Path | None = None
    #: The key that `quorumca seal rotate` changes to; default: seal.next.key in the data directory
    next_key_file: Path | None = None
    #: The same as a passphrase; default: seal.next.passphrase in the data directory
    next_passphrase_file: Path | None = None
    #: Refuse files without MACs even where they could be those of the release before
    require_macs: bool = False


class ConnectSection(_Section, frozen=True):
    """What a new CA starts from: has no effect once the CA is initialised, but for `credentials_dir`."""

    enabled: bool = True
    ca_provider: Annotated[str, Meta(min_length=1, max_length=64)] = "consul"
    ca_config: dict[str, Any] = {}
    #: The only place where a CA's configuration, which comes over the API, may have files of this node read that prove
    #: who it is (ids, tokens, keys for TLS); without it: nowhere.
    credentials_dir: Path | None = None

    def __repr__(self) -> str:
        return f"ConnectSection(enabled={self.enabled}, ca_provider={self.ca_provider!r})"  # may hold a private key

    def __post_init__(self) -> None:
        given = self.ca_config.get("cluster_id")
        try:
            if given is not None:
                uuid.UUID(given)
        except (ValueError, AttributeError, TypeError):
            raise ValueError(f"ca_config.cluster_id = {given!r:.200} must be a UUID") from None


class AclSection(_Section, frozen=True):
    """Who may do what. The policies themselves are the cluster's, and the same on every node."""

    #: What no rule speaks of; default: allow where only this host can get here, else deny.
    default_policy: Literal["allow", "deny"] | None = None
    #: A file of mode 0600 with the SecretID (a UUID) of a token for management, made once by whoever leads.
    initial_management_file: Path | None = None
    #: A file of mode 0600 with the SecretID that this node's own work is done with.
    agent_token_file: Path | None = None
    #: A node that has heard from no leader for longer cannot know whether a token still counts, and takes none.
    stale_seconds: Annotated[int, Meta(ge=1, le=31_536_000)] = 30
    #: Hosts that key sets of auth methods may be fetched from; default: any but link-local ones.
    jwks_hosts: tuple[str, ...] | None = None


class LedgerSection(_Section, frozen=True):
    """How long issued certificates stay on record after they have expired."""

    keep_expired_days: Annotated[int, Meta(ge=0, le=36_500)] = 30


class LogSection(_Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "pretty"] = "auto"


#: Rates, in a second; 0: no limit.
_Rate = Annotated[float, Meta(ge=0, le=1_000_000)]


class LimitsSection(_Section, frozen=True):
    #: How long a request waits for a leader before it is answered with an error.
    leader_wait_ms: Annotated[int, Meta(ge=0, le=60_000)] = 7000
    #: Requests for signatures that may wait on the leader.
    signing_queue: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096
    #: Free space below which the node raises an alarm, in its log and metrics.
    disk_alarm_mb: Annotated[int, Meta(ge=0, le=1_000_000)] = 512
    #: How often the node reads its own files again and checks them; 0: never.
    scrub_minutes: Annotated[int, Meta(ge=0, le=525_600)] = 60
    #: Processes that sign; 0: half the cores, at least one.
    signing_workers: Annotated[int, Meta(ge=0, le=64)] = 0
    #: Tokens of one address that are not known, refused logins, CSRs refused to one token, in a second; 0: no limit.
    refused_per_source: _Rate = 50.0
    #: Certificates for one address (on this node), one token, one SPIFFE ID (in all) in a second; 0: no limit.
    signing_per_source: _Rate = 0.0
    signing_per_token: _Rate = 0.0
    signing_per_identity: _Rate = 0.0


class NodeConfig(_Section, frozen=True, kw_only=True):
    """Everything one node needs to start."""

    node_name: NodeName
    datacenter: NodeName = "dc1"
    data_dir: Path
    servers: tuple[ServerSection, ...]
    tls: TlsSection
    http: HttpSection = HttpSection()
    rpc: RpcSection = RpcSection()
    raft: RaftSection = RaftSection()
    seal: SealSection = SealSection()
    connect: ConnectSection = ConnectSection()
    acl: AclSection = AclSection()
    join: JoinSection = JoinSection()
    ledger: LedgerSection = LedgerSection()
    limits: LimitsSection = LimitsSection()
    log: LogSection = LogSection()

    def __post_init__(self) -> None:
        names = [server.name for server in self.servers]
        if len(set(names)) != len(names):
            raise ValueError("servers must have different names")
        self._keep_keys_out_of_credentials()

    def _keep_keys_out_of_credentials(self) -> None:
        """What is in there may be sent to whatever address the CA's configuration names. Raises: ValueError."""
        if self.connect.credentials_dir is None:
            return
        folder = os.path.realpath(self.connect.credentials_dir)
        kept = {
            "data_dir": self.data_dir,
            "seal.key_file": self.seal.key_file,
            "seal.passphrase_file": self.seal.passphrase_file,
            "seal.next_key_file": self.seal.next_key_file,
            "seal.next_passphrase_file": self.seal.next_passphrase_file,
            "tls.key_file": self.tls.key_file,
            "http.tls_key": self.http.tls_key,
            "acl.initial_management_file": self.acl.initial_management_file,
            "acl.agent_token_file": self.acl.agent_token_file,
        }
        for key, path in kept.items():
            if path is not None and os.path.commonpath([folder, os.path.realpath(path)]) == folder:
                raise ValueError(
                    f"connect.credentials_dir = {str(self.connect.credentials_dir)!r}: must be a directory of its own,"
                    f" and {key} = {str(path)!r} is in it"
                )

    @property
    def allows_by_default(self) -> bool:
        """What holds where no rule of access control speaks of something."""
        if self.acl.default_policy is not None:
            return self.acl.default_policy == "allow"
        return all(is_loopback(address) for address in (self.http.address, self.raft.address, self.rpc.address))

    @property
    def raft_address(self) -> str:
        """What the other nodes dial."""
        return self.raft.advertise or self.raft.address

    @property
    def rpc_address(self) -> str:
        return self.rpc.advertise or self.rpc.address


def load_config(path: Path, environment: Mapping[str, str] = os.environ) -> NodeConfig:
    """Raises: ConfigError with one line for each mistake: key, value, and what is allowed."""
    values = _read_toml(path)
    return parse_config(_overlaid(values, environment), source=str(path))


def _read_toml(path: Path) -> dict[str, Any]:
    """Raises: ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path}: is larger than {_MAX_FILE_BYTES} bytes")
    # Editors that write one hide it, and TOML's own complaint is about line 1, column 1, where nothing can be seen.
    if mark := byte_order_mark(data):
        raise ConfigError(f"{path}: begins with a byte-order mark ({mark}): must be UTF-8 without one")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}: is not UTF-8 text (line {line})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}: must be TOML") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: is nested too deeply") from error
    except ValueError as error:  # of Python, for a number of thousands of digits
        raise ConfigError(f"{path}: holds a number that is too long") from error


def parse_config(values: Mapping[str, Any], *, source: str) -> NodeConfig:
    """Raises: ConfigError."""
    mistakes: list[str] = []
    config = _read_section(NodeConfig, values, "", mistakes)
    if config is None:
        raise ConfigError("\n".join(f"{source}: {mistake}" for mistake in mistakes))
    return config


def _read_section(section: type[S], values: Mapping[str, Any], location: str, mistakes: list[str]) -> S | None:
    """None when it has mistakes, all of which have been added."""
    before = len(mistakes)
    prefix = f"{location}." if location else ""
    read: dict[str, Any] = {}
    fields = msgspec.structs.fields(section)
    for field in fields:
        if field.name in values:
            read[field.name] = _read(field.type, values[field.name], f"{prefix}{field.name}", mistakes)
        elif field.required:
            mistakes.append(f"{prefix}{field.name}: missing")
    known = [field.name for field in fields]
    mistakes.extend(
        f"{prefix}{key:.200}: unknown key: must be one of {', '.join(known)}" for key in sorted({*values} - {*known})
    )
    if len(mistakes) == before:
        try:
            return section(**read)
        except ValueError as error:
            mistakes.append(f"{location}: {error}" if location else str(error))
    return None


def _read(kind: Any, value: Any, location: str, mistakes: list[str]) -> Any:
    if isinstance(kind, type) and issubclass(kind, _Section) and isinstance(value, Mapping):
        return _read_section(kind, value, location, mistakes)
    try:
        if get_origin(kind) is tuple and isinstance(value, list | tuple):
            return _read_servers(value, location, mistakes)
        return _read_value(kind, value)
    except ValueError as error:
        is_shown = not isinstance(value, Mapping) and not _SECRET_KEY.search(location)
        mistakes.append(f"{location} = {value!r:.200}: {error}" if is_shown else f"{location}: {error}")
        return None


def _read_servers(servers: Sequence[Any], location: str, mistakes: list[str]) -> tuple[ServerSection, ...]:
    """Raises: ValueError."""
    if not 1 <= len(servers) <= _MAX_SERVERS:
        raise ValueError(f"must be 1 to {_MAX_SERVERS} servers")
    return tuple(
        _read(ServerSection, server, f"{location}.{number}", mistakes) for number, server in enumerate(servers)
    )


def _read_value(kind: Any, value: Any) -> Any:
    """Raises: ValueError saying what is allowed."""
    if (choices := _choices(kind)) and value not in choices:
        raise ValueError(f"must be {' or '.join(map(repr, choices))}")
    try:
        # Not strict: what comes from the environment may be text where a number is wanted.
        read = msgspec.convert(value, kind, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(str(error))) from None
    for rule in _rules(kind):
        rule(read)
    return read


def _choices(kind: Any) -> tuple[object, ...]:
    """Where a type is a few words, or those and None."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next((get_args(part) for part in get_args(kind) if get_origin(part) is Literal), ())


def _path(wanted: Any, value: Any) -> Any:
    """Of the one type here that msgspec does not know. Raises: ValueError."""
    if not isinstance(value, str | Path):  # a path is what whoever starts a node by itself may have
        raise ValueError("must be text")
    return wanted(value)


def _in_words(text: str) -> str:
    """What msgspec says of a value, in the words of TOML."""
    text = text.replace("Expected", "must be", 1).replace(", got `", ", not `")
    return _TYPES.sub(lambda found: " or ".join(_WORDS[name] for name in found[1].split(" | ") if name != "null"), text)


def _rules(kind: Any) -> Iterator[Callable[[Any], None]]:
    for part in get_args(kind):
        if isinstance(part, Meta) and part.extra is not None:
            yield part.extra[_RULE]
        yield from _rules(part)


def _overlaid(values: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """QUORUMCA_SECTION__KEY=value wins over `[section] key`, QUORUMCA_KEY over a key above all sections.

    Values are TOML where they parse as such, else text. Other variables of that prefix are for the client commands.
    """
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        *sections, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split(_SECTION_SEPARATOR)
        if not sections and key not in _TOP_LEVEL:
            continue
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{name}: {section} is not a section")
        target[key] = text if key in _TOP_LEVEL and not sections else _toml_value(text)
    return values


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
