"""A node's own settings: one TOML file, overlaid by QUORUMCA_* variables, checked as a whole before anything starts.

The CA's configuration is not here: it is replicated state. Only what a new CA starts from is (`[connect]`).
"""

import ipaddress
import os
import re
import tomllib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from cluster.errors import ConfigError
from cluster.tls import is_node_name

ENVIRONMENT_PREFIX: Final = "QUORUMCA_"
_SECTION_SEPARATOR: Final = "__"
_MAX_SERVERS: Final = 9


def _node_name(text: str) -> str:
    if not is_node_name(text):
        raise ValueError("must be a DNS label: lower-case letters, digits and inner hyphens, at most 63")
    return text


def is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_address(text: str) -> bool:
    """host:port, an IPv6 host in brackets."""
    host, _, port = text.rpartition(":")
    has_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
    is_bracketed = host.startswith("[") and host.endswith("]")
    return has_port and bool(host) and len(text) <= 255 and (":" not in host or is_bracketed)


def _address(text: str) -> str:
    if not is_address(text):
        raise ValueError("must be host:port with a port from 1 to 65535, an IPv6 host in brackets")
    return text


NodeName = Annotated[str, AfterValidator(_node_name)]
Address = Annotated[str, AfterValidator(_address)]
_DnsDomain = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class HttpSection(_Section):
    """The HTTP API for clients."""

    address: Address = "127.0.0.1:8500"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    #: Serving private keys in clear over a network has to be asked for in so many words.
    allow_plaintext_off_loopback: bool = False
    max_connections: int = Field(4096, ge=16, le=1_000_000)

    @model_validator(mode="after")
    def _check_tls(self) -> "HttpSection":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key must be given together")
        if self.tls_cert is None and not self.allow_plaintext_off_loopback and not is_loopback(self.address):
            raise ValueError(
                f"{self.address} is not a loopback address: set tls_cert and tls_key,"
                " or allow_plaintext_off_loopback = true"
            )
        return self


class RaftSection(_Section):
    """Raft between the nodes. The time-outs must be the same on every node."""

    address: Address = "127.0.0.1:8300"
    advertise: Address | None = None
    election_timeout_min_ms: int = Field(500, ge=100, le=60_000)
    election_timeout_max_ms: int = Field(1000, ge=150, le=120_000)
    heartbeat_ms: int = Field(50, ge=10, le=10_000)
    compact_bytes: int = Field(8 << 20, ge=64 << 10, le=1 << 30)
    keep_bytes: int = Field(2 << 20, ge=0, le=1 << 30)

    @model_validator(mode="after")
    def _check_order(self) -> "RaftSection":
        if self.election_timeout_max_ms <= self.election_timeout_min_ms:
            raise ValueError("election_timeout_max_ms must be above election_timeout_min_ms")
        if self.election_timeout_min_ms < 4 * self.heartbeat_ms:
            raise ValueError("election_timeout_min_ms must be at least 4 times heartbeat_ms")
        if self.keep_bytes >= self.compact_bytes:
            raise ValueError("keep_bytes must be below compact_bytes")
        return self


class RpcSection(_Section):
    """Requests between the nodes (HTTP over mutual TLS)."""

    address: Address = "127.0.0.1:8400"
    advertise: Address | None = None


class TlsSection(_Section):
    """This node's certificate for Raft and RPC; see `quorumca tls cert create -server -node NAME`."""

    ca_file: Path
    cert_file: Path
    key_file: Path
    domain: _DnsDomain = "consul"


class ServerSection(_Section):
    """One of the servers the cluster starts from. Later changes are made with `quorumca operator raft`."""

    name: NodeName
    raft: Address
    rpc: Address


class SealSection(_Section):
    """Where the key-encryption key comes from; the same on every node."""

    source: Literal["file", "passphrase"] = "file"
    #: source = "file"; default: seal.key in the data directory
    key_file: Path | None = None
    #: source = "passphrase": read from this file, else from QUORUMCA_SEAL_PASSPHRASE
    passphrase_file: Path | None = None


class ConnectSection(_Section):
    """What a new CA starts from. Has no effect once the CA is initialised."""

    enabled: bool = True
    ca_provider: str = Field("consul", min_length=1, max_length=64)
    ca_config: dict[str, Any] = Field(default_factory=dict, repr=False)

    @model_validator(mode="after")
    def _check_cluster_id(self) -> "ConnectSection":
        given = self.ca_config.get("cluster_id")
        try:
            if given is not None:
                uuid.UUID(given)
        except (ValueError, AttributeError, TypeError):
            raise ValueError(f"ca_config.cluster_id = {given!r:.200} must be a UUID") from None
        return self


class LedgerSection(_Section):
    """How long issued certificates stay on record after they have expired."""

    keep_expired_days: int = Field(30, ge=0, le=36_500)


class LogSection(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "pretty"] = "auto"


class LimitsSection(_Section):
    #: How long a request waits for a leader before it is answered with an error.
    leader_wait_ms: int = Field(7000, ge=0, le=60_000)
    #: Requests for signatures that may wait on the leader.
    signing_queue: int = Field(4096, ge=1, le=1_000_000)
    #: Free space below which the node raises an alarm, in its log and metrics.
    disk_alarm_mb: int = Field(512, ge=0, le=1_000_000)
    #: How often the node reads its own files again and checks them; 0: never.
    scrub_minutes: int = Field(60, ge=0, le=525_600)
    #: Processes that sign; 0: half the cores, at least one.
    signing_workers: int = Field(0, ge=0, le=64)


def _server_count(servers: Any) -> Any:
    # Before they are looked at: counted behind, one that is wrong would be missed as well.
    if isinstance(servers, list | tuple) and not 1 <= len(servers) <= _MAX_SERVERS:
        raise ValueError(f"must be 1 to {_MAX_SERVERS} servers")
    return servers


class NodeConfig(_Section):
    """Everything one node needs to start."""

    node_name: NodeName
    datacenter: NodeName = "dc1"
    data_dir: Path
    servers: Annotated[tuple[ServerSection, ...], BeforeValidator(_server_count)]
    tls: TlsSection
    http: HttpSection = HttpSection()
    rpc: RpcSection = RpcSection()
    raft: RaftSection = RaftSection()
    seal: SealSection = SealSection()
    connect: ConnectSection = ConnectSection()
    ledger: LedgerSection = LedgerSection()
    limits: LimitsSection = LimitsSection()
    log: LogSection = LogSection()

    @model_validator(mode="after")
    def _check_servers(self) -> "NodeConfig":
        names = [server.name for server in self.servers]
        if len(set(names)) != len(names):
            raise ValueError("servers must have different names")
        return self

    @property
    def raft_address(self) -> str:
        """What the other nodes dial."""
        return self.raft.advertise or self.raft.address

    @property
    def rpc_address(self) -> str:
        return self.rpc.advertise or self.rpc.address


def load_config(path: Path, environment: Mapping[str, str] = os.environ) -> NodeConfig:
    """Raises: ConfigError with one line for each mistake: key, value, and what is allowed."""
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return parse_config(_overlaid(values, environment), source=str(path))


def parse_config(values: Mapping[str, Any], *, source: str) -> NodeConfig:
    """Raises: ConfigError."""
    try:
        return NodeConfig.model_validate(values)
    except ValidationError as error:
        lines = [_describe(mistake) for mistake in error.errors(include_url=False)]
        raise ConfigError("\n".join(f"{source}: {line}" for line in lines)) from None


def _overlaid(values: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """QUORUMCA_SECTION__KEY=value wins over `[section] key`. Values are TOML where they parse as such, else text."""
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or _SECTION_SEPARATOR not in name:
            continue
        *sections, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().split(_SECTION_SEPARATOR)
        target = values
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{name}: {section} is not a section")
        target[key] = _toml_value(text)
    return values


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


_SECRET_KEY: Final = re.compile(r"private_?key|token|passphrase", re.IGNORECASE)


def _describe(mistake: Any) -> str:
    location = ".".join(str(part) for part in mistake["loc"])
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "extra_forbidden":
        return f"{location}: unknown key"
    if mistake["type"] == "missing":
        return f"{location}: missing"
    value = mistake["input"]
    if isinstance(value, Mapping) or _SECRET_KEY.search(location):
        return f"{location}: {message}" if location else message
    return f"{location} = {value!r:.200}: {message}"
