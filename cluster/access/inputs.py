"""What clients write: JSON objects of the ACL endpoints, read strictly.

Names of fields match without case, as in Go; an unknown one is a mistake, because what is misspelt would count for
nothing (docs/consul-compat.md 12.1). Fields that a client has from a read, such as Hash or CreateIndex, may be
sent back, and count for nothing.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta

from cluster.access.login import description_of
from cluster.base.errors import BadRequest, NotUnderstood
from cluster.base.words import without_ids
from providers.config.durations import MAX_NS, parse_duration

_MAX_DEPTH: Final = 8
_MANY: Final = 256
_IN_WORDS: Final = re.compile(r" - at `\$(.*)`$")
_OWN_KEYS: Final = frozenset({"config", "meta"})
_DEFAULTS: Final = frozenset({"", "default"})

Text = Annotated[str, Meta(max_length=4096)]
Name = Annotated[str, Meta(max_length=512)]
DatacenterText = Annotated[str, Meta(max_length=64)]
Datacenters = Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(max_length=64)] | None
RulesText = Annotated[str, Meta(max_length=64 << 10)]


class _Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=lambda name: name.replace("_", "")):
    """Keys are folded to lower case before."""


class _Written(_Input, frozen=True):
    """What every object may have, and what of a read counts for nothing when it is sent back."""

    hash: Any = None
    create_index: Any = None
    modify_index: Any = None
    create_time: Any = None
    namespace: Name = ""
    partition: Name = ""


class Link(_Input, frozen=True):
    id: Name = ""
    name: Name = ""


class ServiceIdentityInput(_Input, frozen=True):
    service_name: Name = ""
    datacenters: Datacenters = None


class NodeIdentityInput(_Input, frozen=True):
    node_name: Name = ""
    datacenter: DatacenterText = ""


Links = Annotated[list[Link], Meta(max_length=_MANY)] | None


class PolicyInput(_Written, frozen=True):
    id: Name = ""
    name: Name = ""
    description: Text = ""
    rules: RulesText = ""
    datacenters: Datacenters = None


class _Holder(_Written, frozen=True):
    """What a token and a role have of rights."""

    description: Text = ""
    policies: Links = None
    service_identities: Annotated[list[ServiceIdentityInput], Meta(max_length=_MANY)] | None = None
    node_identities: Annotated[list[NodeIdentityInput], Meta(max_length=_MANY)] | None = None
    templated_policies: list[Any] | None = None


class RoleInput(_Holder, frozen=True):
    id: Name = ""
    name: Name = ""


class TokenInput(_Holder, frozen=True):
    accessor_id: Name = ""
    secret_id: Name = ""
    roles: Links = None
    local: bool = False
    auth_method: Name = ""
    auth_method_namespace: Name = ""
    expiration_ttl: int | Name | None = None
    expiration_time: Name | None = None


class AuthMethodInput(_Written, frozen=True):
    name: Name = ""
    type: Name = ""
    display_name: Text = ""
    description: Text = ""
    max_token_ttl: int | Name | None = None
    token_locality: Name = ""
    token_name_format: Name = ""
    config: dict[str, Any] | None = None


class BindingRuleInput(_Written, frozen=True):
    id: Name = ""
    description: Text = ""
    auth_method: Name = ""
    selector: Text = ""
    bind_type: Name = ""
    bind_name: Text = ""
    bind_vars: Any = None


class BootstrapInput(_Input, frozen=True):
    bootstrap_secret: Name = ""


#: The longest proof that any kind of method takes (methods/tls.py).
MAX_BEARER_TOKEN: Final = 48 << 10


class LoginInput(_Input, frozen=True):
    """Whatever the leader would refuse of it is refused where it was asked, by whichever node."""

    auth_method: Name = ""
    bearer_token: str = ""
    meta: dict[str, str] | None = None
    namespace: Name = ""
    partition: Name = ""

    def __post_init__(self) -> None:
        """Raises: ValueError."""
        if len(self.bearer_token) > MAX_BEARER_TOKEN:
            raise ValueError(
                f"BearerToken has {len(self.bearer_token)} characters: at most {MAX_BEARER_TOKEN} are allowed"
            )
        description_of(self.meta or {})


I = TypeVar("I", bound=_Input)  # noqa: E741 - of an input


def read_input(kind: type[I], what: str, value: object) -> I:
    """`what`: Consul's word for it in an error. Raises: BadRequest."""
    try:
        found = msgspec.convert(_folded(value, 0), kind)
    except (msgspec.ValidationError, RecursionError, ValueError) as error:
        raise NotUnderstood(f"{what} decoding failed", _in_words(str(error))) from None
    for name in ("namespace", "partition"):
        if (given := getattr(found, name, "")) not in _DEFAULTS:
            raise NotUnderstood(f"{what} decoding failed", f'{name} is {given!a:.80}: there is none but "default"')
    return found


def _folded(value: object, depth: int) -> object:
    """Keys in lower case, but for those of a Config, which its own reader folds, and of a Meta, which are data."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, Mapping):
        folded: dict[str, object] = {}
        for key, inner in value.items():
            name = str(key).lower()
            if name in folded:
                raise ValueError(f"{key!a:.80} is given twice")
            folded[name] = inner if name in _OWN_KEYS and depth == 0 else _folded(inner, depth + 1)
        return folded
    if isinstance(value, list):
        return [_folded(inner, depth + 1) for inner in value]
    return value


def _in_words(text: str) -> str:
    text = _IN_WORDS.sub(r" in \1", text).replace("Object contains unknown field", "unknown field")
    return without_ids(text)  # the name of a field may be what should have been its value


def duration_ns(value: int | str | None, what: str) -> int:
    """0 for none. Raises: BadRequest."""
    if value is None or value == "":
        return 0
    try:
        nanoseconds = value if isinstance(value, int) else parse_duration(value)
    except ValueError as error:
        raise BadRequest(f"{what}: {error}") from None
    if abs(nanoseconds) > MAX_NS:
        raise BadRequest(f"{what}: {nanoseconds} is longer than any duration")
    return nanoseconds


def moment(value: str | None, what: str) -> int:
    """Unix seconds of RFC 3339; 0 for none, and for Go's zero time, which its client sends. Raises: BadRequest."""
    if not value or value.startswith("0001-01-01T00:00:00"):
        return 0
    try:
        found = datetime.fromisoformat(value.upper())
        if found.tzinfo is None:
            raise ValueError
        return int(found.timestamp())
    except (ValueError, OverflowError):
        raise BadRequest(f"{what}: {value!a:.80} must be RFC 3339, as in 2027-01-31T12:00:00Z") from None
