"""From what a login has proved to what its token will have: a decision, without clock, log or network.

All binding rules of the method whose selector holds add up. Policies and roles are linked by name when there is one;
an identity whose name is none fails the whole login, because the workload would be somebody else than its rules say.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cluster.access.bind_names import BindNameRefused, bound_name
from cluster.access.methods.refusal import LoginRefused
from cluster.access.methods.strict_json import is_clean
from cluster.access.selector import Fields, Proved, SelectorRefused, parse_selector
from fsm.acl import (
    MAX_LINKS,
    AuthMethod,
    BindingRule,
    BindType,
    Locality,
    NodeIdentity,
    ServiceIdentity,
    is_identity_name,
)
from fsm.fields import MAX_REASON

#: Consul lets tokens of a method without MaxTokenTTL live for ever; here they never live longer than this.
DEFAULT_TTL_SECONDS: Final = 86_400
DESCRIPTION: Final = "token created via login"
MAX_META: Final = 64
_MAX_META_KEY: Final = 128
_MAX_META_VALUE: Final = 512
#: As Go writes JSON: for readers that take it for part of a page.
_ESCAPED: Final = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


class MetaRefused(ValueError):
    """The Meta of a request cannot be kept. Says nothing of the credential: it is looked at first."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What the new token has besides its own ids. Links are IDs, each once, in order."""

    description: str
    policies: tuple[str, ...]
    roles: tuple[str, ...]
    service_identities: tuple[ServiceIdentity, ...]
    node_identities: tuple[NodeIdentity, ...]
    is_local: bool
    auth_method: str
    identity_hash: bytes
    created_at: int
    expires_at: int


#: The ID of the policy, or role, of a name; None if there is none.
LookUp = Callable[[str], str | None]


def description_of(meta: Mapping[str, str]) -> str:
    """Raises: MetaRefused."""
    if not meta:
        return DESCRIPTION
    if len(meta) > MAX_META:
        raise MetaRefused(f"Meta has {len(meta)} entries: at most {MAX_META} are allowed")
    for key, value in meta.items():
        if len(key) > _MAX_META_KEY or len(value) > _MAX_META_VALUE:
            raise MetaRefused(
                f"Meta {key[:_MAX_META_KEY]!a}: at most {_MAX_META_KEY} characters are allowed in a key, and "
                f"{_MAX_META_VALUE} in a value"
            )
        if not is_clean(key + value):
            raise MetaRefused(f"Meta {key!a}: must contain neither NUL nor half of a surrogate pair")
    text = json.dumps(dict(meta), sort_keys=True, separators=(",", ":"), ensure_ascii=False).translate(_ESCAPED)
    description = f"{DESCRIPTION}: {text}"
    if len(description) > MAX_REASON:
        raise MetaRefused(
            f"Meta makes a description of {len(description)} characters: at most {MAX_REASON} are allowed"
        )
    return description


def grant(
    method: AuthMethod,
    proved: Proved,
    rules: Iterable[BindingRule],
    *,
    fields: Fields,
    policy_id: LookUp,
    role_id: LookUp,
    datacenter: str,
    description: str,
    now: int,
) -> Granted:
    """`rules` may be of other methods, too. `fields`: `fields_of` of the method's configuration.

    Raises: LoginRefused, also when no rule gives anything.
    """
    policies: dict[str, None] = {}
    roles: dict[str, None] = {}
    services: dict[str, None] = {}
    nodes: dict[str, None] = {}
    for rule in rules:
        if rule.auth_method != method.name or not _holds(rule, proved, fields):
            continue
        match rule.bind_type:
            case BindType.SERVICE:
                services[_identity(rule, proved)] = None
            case BindType.NODE:
                nodes[_identity(rule, proved)] = None
            case BindType.POLICY:
                policies |= _link(rule, proved, policy_id)
            case BindType.ROLE:
                roles |= _link(rule, proved, role_id)
    for found in (policies, roles, services, nodes):
        if len(found) > MAX_LINKS:
            raise LoginRefused(f"the binding rules give {len(found)} links of a kind: at most {MAX_LINKS} are allowed")
    if not (policies or roles or services or nodes):
        raise LoginRefused("no binding rule gives anything")
    return Granted(
        description,
        tuple(policies),
        tuple(roles),
        tuple(ServiceIdentity(name) for name in services),
        tuple(NodeIdentity(name, datacenter) for name in nodes),
        is_local=method.locality is Locality.LOCAL,
        auth_method=method.name,
        identity_hash=identity_of(method.name, proved),
        created_at=now,
        expires_at=now + (method.max_token_ttl_seconds or DEFAULT_TTL_SECONDS),
    )


def identity_of(method: str, proved: Proved) -> bytes:
    """The same for each login of who has proved that, in whatever order a list came, and for nobody else's."""
    lists = {name: sorted(set(values)) for name, values in proved.lists.items()}
    text = json.dumps([method, dict(proved.texts), lists], sort_keys=True)
    return hashlib.blake2b(text.encode("ascii"), digest_size=32).digest()


def _holds(rule: BindingRule, proved: Proved, fields: Fields) -> bool:
    """A selector that is none any more, since the method was written anew, holds of nobody."""
    try:
        return parse_selector(rule.selector, fields).holds(proved)
    except SelectorRefused:
        return False


def _identity(rule: BindingRule, proved: Proved) -> str:
    try:
        name = bound_name(rule.bind_name, proved.texts)
    except BindNameRefused as error:
        raise LoginRefused(f"rule {rule.rule_id}: cannot compute the {rule.bind_type} name: {error}") from None
    if not is_identity_name(name):
        raise LoginRefused(f"rule {rule.rule_id}: {name[:80]!a} is an invalid {rule.bind_type} name")
    return name


def _link(rule: BindingRule, proved: Proved, look_up: LookUp) -> dict[str, None]:
    """Nothing where no policy or role has the name, or the login has not proved what the name is made of."""
    try:
        found = look_up(bound_name(rule.bind_name, proved.texts))
    except BindNameRefused:
        return {}
    return {} if found is None else {found: None}
