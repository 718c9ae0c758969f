"""What an operator has written, as a command: checked against the state of the moment, with Consul's texts.

For the leader, which commits it (`cluster.node.acl_work`); a command that was made from a state that is not the present
one any more is refused by the state machine, and made anew.
"""

import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, NoReturn

from cluster.access.inputs import (
    Links,
    NodeIdentityInput,
    PolicyInput,
    RoleInput,
    ServiceIdentityInput,
    TokenInput,
    duration_ns,
    moment,
)
from cluster.access.rules import RulesRefused, parse_rules
from cluster.access.secret_ids import new_id
from cluster.base.clock import rfc3339
from cluster.base.errors import BadRequest, NotFound, PermissionDenied
from fsm.acl import (
    ANONYMOUS,
    GLOBAL_MANAGEMENT,
    GLOBAL_READ_ONLY,
    RESERVED,
    Acl,
    NodeIdentity,
    Policy,
    Role,
    ServiceIdentity,
    SetPolicy,
    SetRole,
    SetToken,
    Token,
    is_identity_name,
)
from fsm.acl_rules import find
from providers.config.durations import SECOND, format_duration

HIDDEN: Final = "<hidden>"
_MIN_TTL_SECONDS: Final = 60
_MAX_TTL_SECONDS: Final = 24 * 3600
_POLICY_NAME: Final = re.compile(r"[A-Za-z0-9_-]+/?[A-Za-z0-9_-]*")
_ROLE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")
_MAX_POLICY_NAME: Final = 128
_BUILTIN: Final = {GLOBAL_MANAGEMENT: "global-management", GLOBAL_READ_ONLY: "builtin/global-read-only"}

Hashed = Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class NewToken:
    """A command, and what is shown once."""

    command: SetToken
    secret_id: str = field(repr=False)


# -- policies


def set_policy(acl: Acl, policy_id: str, given: PolicyInput) -> SetPolicy:
    """A new one where `policy_id` is empty. Raises: BadRequest, NotFound."""
    if policy_id and given.id and given.id.lower() != policy_id:
        raise BadRequest("Policy ID in URL and payload do not match")
    if not policy_id:
        if given.id:
            raise BadRequest("Cannot specify the ID when creating a new policy")
        return SetPolicy(_policy(acl, new_id(), given))
    old: Policy | None = find(acl, "policies", policy_id)
    if old is None:
        raise NotFound(f"cannot find policy {policy_id}")
    new = _policy(acl, policy_id, given)
    if builtin := _BUILTIN.get(policy_id):
        if new.rules not in ("", old.rules):
            raise BadRequest(f"Changing the Rules for the builtin {builtin} policy is not permitted")
        if new.datacenters != old.datacenters:
            raise BadRequest(f"Changing the Datacenters of the {builtin} policy is not permitted")
        new = replace(new, rules=old.rules)
    return SetPolicy(new, old.modify_index)


def _policy(acl: Acl, policy_id: str, given: PolicyInput) -> Policy:
    name = given.name
    if not name:
        raise BadRequest("Invalid Policy: no Name is set")
    own: Policy | None = find(acl, "policies", policy_id)
    if own is None or own.name != name:  # a builtin one keeps its name, which nobody may give
        _check_policy_name(name)
    if any(policy.name == name and policy.policy_id != policy_id for policy in acl.policies):
        word = "A Policy with Name" if own is None else "A policy with name"
        raise BadRequest(f'Invalid Policy: {word} "{name}" already exists')
    try:
        parse_rules(given.rules)
    except RulesRefused as error:
        raise BadRequest(str(error)) from error
    return Policy(policy_id, name, given.description, given.rules, tuple(given.datacenters or ()))


def _check_policy_name(name: str) -> None:
    if len(name) > _MAX_POLICY_NAME:
        raise BadRequest("Invalid Policy: invalid Name. Length must be greater than 0 and less than 128")
    if name.startswith(("/", "builtin/")):
        raise BadRequest("Invalid Policy: invalid Name. Names cannot be prefixed with '/' or 'builtin/'")
    if not _POLICY_NAME.fullmatch(name):
        raise BadRequest(
            "Invalid Policy: invalid Name. Only alphanumeric characters, a single '/', '-' and '_' are allowed"
        )


def check_policy_deletion(policy_id: str) -> None:
    """Raises: BadRequest."""
    if builtin := _BUILTIN.get(policy_id):
        raise BadRequest(f"Delete operation not permitted on the builtin {builtin} policy")


# -- roles


def set_role(acl: Acl, role_id: str, given: RoleInput) -> SetRole:
    """As `set_policy`."""
    if role_id and given.id and given.id.lower() != role_id:
        raise BadRequest("Role ID in URL and payload do not match")
    if not role_id and given.id:
        raise BadRequest("Cannot specify the ID when creating a new role")
    old: Role | None = find(acl, "roles", role_id)
    if role_id and old is None:
        raise NotFound(f"cannot find role {role_id}")
    if not given.name:
        raise BadRequest("Invalid Role: no Name is set")
    if not _ROLE_NAME.fullmatch(given.name):
        raise BadRequest("Invalid Role: invalid Name. Only alphanumeric characters, '-' and '_' are allowed")
    own_id = old.role_id if old else new_id()
    if any(role.name == given.name and role.role_id != own_id for role in acl.roles):
        raise BadRequest(f'Invalid Role: A Role with Name "{given.name}" already exists')
    _refuse_templated(given.templated_policies, "role")
    role = Role(
        own_id,
        given.name,
        given.description,
        policy_ids(acl, given.policies),
        _service_identities(given.service_identities, "role", is_local=False),
        _node_identities(given.node_identities, "role"),
    )
    return SetRole(role, old.modify_index if old else 0)


# -- tokens


def new_token(acl: Acl, given: TokenInput, hashed: Hashed, now: int) -> NewToken:
    """Raises: BadRequest."""
    if given.auth_method:
        raise BadRequest("AuthMethod field is disallowed outside of login")
    accessor_id = _own_id(given.accessor_id, "AccessorID")
    secret_id = _own_id("" if given.secret_id == HIDDEN else given.secret_id, "SecretID")
    if any(token.accessor_id == accessor_id for token in acl.tokens):
        raise BadRequest("Invalid Token: AccessorID is already in use")
    secret_hash = hashed(secret_id)
    if any(token.secret_hash == secret_hash for token in acl.tokens):
        raise BadRequest("Invalid Token: SecretID is already in use")
    token = Token(
        accessor_id,
        secret_hash,
        created_at=now,
        expires_at=_expiry(given, now),
        is_local=given.local,
        **_rights(acl, given),
    )
    return NewToken(SetToken(token), secret_id)


def changed_token(acl: Acl, accessor_id: str, given: TokenInput, hashed: Hashed, now: int) -> SetToken:
    """What is not sent is gone, but for the SecretID and the expiration time. Raises: BadRequest, PermissionDenied."""
    if given.accessor_id and given.accessor_id.lower() != accessor_id:
        raise BadRequest("Token Accessor ID in URL and payload do not match")
    old = find_token(acl, accessor_id, now)
    if old is None:
        raise BadRequest(f'Cannot find token "{accessor_id}"')
    if given.secret_id not in ("", HIDDEN) and hashed(given.secret_id) != old.secret_hash:
        raise BadRequest("Changing a token's SecretID is not permitted")
    if given.local != old.is_local:
        raise BadRequest(f"Cannot toggle local mode of {accessor_id}")
    if given.auth_method not in ("", old.auth_method):
        raise BadRequest(f"Cannot change AuthMethod of {accessor_id}")
    if duration_ns(given.expiration_ttl, "ExpirationTTL") or (
        (expires_at := moment(given.expiration_time, "ExpirationTime")) and expires_at != old.expires_at
    ):
        raise BadRequest(f"Cannot change expiration time of {accessor_id}")
    return SetToken(replace(old, **_rights(acl, given)), old.modify_index)


def cloned_token(acl: Acl, accessor_id: str, description: str, hashed: Hashed, now: int) -> NewToken:
    """Raises: BadRequest, PermissionDenied."""
    old = find_token(acl, accessor_id, now)
    if old is None:
        raise PermissionDenied("token does not exist: ACL not found")
    if old.auth_method:
        raise BadRequest("Cannot clone a token created from an auth method")
    secret_id = new_id()
    token = replace(old, accessor_id=new_id(), secret_hash=hashed(secret_id), description=description, created_at=now)
    return NewToken(SetToken(token), secret_id)


def management_token(secret_id: str, description: str, hashed: Hashed, now: int) -> NewToken:
    """Of a bootstrap. Raises: BadRequest for a secret that is no UUID."""
    secret = _own_id(secret_id, "SecretID") if secret_id else new_id()
    token = Token(new_id(), hashed(secret), description, policies=(GLOBAL_MANAGEMENT,), created_at=now)
    return NewToken(SetToken(token), secret)


def find_token(acl: Acl, accessor_id: str, now: float) -> Token | None:
    """Raises: PermissionDenied for one that has expired."""
    found: Token | None = find(acl, "tokens", accessor_id)
    if found is not None and found.is_expired(now):
        raise PermissionDenied("token has expired: ACL not found")
    return found


def check_token_deletion(accessor_id: str, own_accessor_id: str) -> None:
    """Raises: BadRequest."""
    if accessor_id == ANONYMOUS:
        raise BadRequest("Delete operation not permitted on the anonymous token")
    if accessor_id == own_accessor_id:
        raise BadRequest("Deletion of the request's authorization token is not permitted")


def _rights(acl: Acl, given: TokenInput) -> dict[str, Any]:
    _refuse_templated(given.templated_policies, "token")
    return {
        "description": given.description,
        "policies": policy_ids(acl, given.policies),
        "roles": role_ids(acl, given.roles),
        "service_identities": _service_identities(given.service_identities, "token", is_local=given.local),
        "node_identities": _node_identities(given.node_identities, "token"),
    }


def _own_id(given: str, what: str) -> str:
    if not given:
        return new_id()
    try:
        found = str(uuid.UUID(given)) if len(given) == 36 else _not_a_uuid(what)
    except ValueError:
        _not_a_uuid(what)
    if found.startswith(RESERVED):
        raise BadRequest(f'Invalid Token: {what} - UUIDs with the prefix "{RESERVED}" are reserved')
    return found


def _not_a_uuid(what: str) -> NoReturn:
    raise BadRequest(f"Invalid Token: {what} - not a valid UUID")


def _expiry(given: TokenInput, now: int) -> int:
    ttl = duration_ns(given.expiration_ttl, "Token Expiration TTL")
    expires_at = moment(given.expiration_time, "ExpirationTime")
    if ttl < 0:
        raise BadRequest(f"Token Expiration TTL '{format_duration(ttl)}' should be > 0")
    if ttl and expires_at:
        raise BadRequest("Token Expiration TTL and Expiration Time cannot both be set")
    if ttl:
        expires_at = now + -(-ttl // SECOND)
    if not expires_at:
        return 0
    ahead = expires_at - now
    was = f"in the future (was {format_duration(ahead * SECOND)})"
    if ahead < 0:
        raise BadRequest(f"ExpirationTime cannot be before CreateTime ({rfc3339(now)})")
    if ahead < _MIN_TTL_SECONDS:
        raise BadRequest(f"ExpirationTime cannot be less than 1m0s {was}")
    if ahead > _MAX_TTL_SECONDS:
        raise BadRequest(f"ExpirationTime cannot be more than 24h0m0s {was}")
    return expires_at


# -- links and identities


def policy_ids(acl: Acl, links: Links) -> tuple[str, ...]:
    by_name = {policy.name: policy.policy_id for policy in acl.policies}
    return _ids(links, "policy", {policy.policy_id for policy in acl.policies}, by_name)


def role_ids(acl: Acl, links: Links) -> tuple[str, ...]:
    by_name = {role.name: role.role_id for role in acl.roles}
    return _ids(links, "role", {role.role_id for role in acl.roles}, by_name)


def _ids(links: Links, what: str, known: set[str], by_name: dict[str, str]) -> tuple[str, ...]:
    """By ID, or by name where there is none; each once."""
    found: dict[str, None] = {}
    for link in links or ():
        if link.id:
            if link.id not in known:
                raise BadRequest(f'No such ACL {what} with ID "{link.id}"')
            found[link.id] = None
        elif link.name in by_name:
            found[by_name[link.name]] = None
        else:
            raise BadRequest(f'No such ACL {what} with name "{link.name}"')
    return tuple(found)


def _service_identities(
    given: Iterable[ServiceIdentityInput] | None, holder: str, *, is_local: bool
) -> tuple[ServiceIdentity, ...]:
    """Given twice, the datacenters add up; one without any is for all."""
    found: dict[str, tuple[str, ...]] = {}
    for one in given or ():
        name, datacenters = one.service_name, tuple(dict.fromkeys(one.datacenters or ()))
        if not name:
            raise BadRequest(f"Service identity is missing the service name field on this {holder}")
        if is_local and datacenters:
            raise BadRequest(f'Service identity "{name}" cannot specify a list of datacenters on a local token')
        _check_identity(name, "Service")
        before = found.get(name)
        is_everywhere = not datacenters or before == ()
        found[name] = () if is_everywhere else tuple(dict.fromkeys((*(before or ()), *datacenters)))
    return tuple(ServiceIdentity(name, datacenters) for name, datacenters in found.items())


def _node_identities(given: Iterable[NodeIdentityInput] | None, holder: str) -> tuple[NodeIdentity, ...]:
    found: dict[NodeIdentity, None] = {}
    for one in given or ():
        if not one.node_name:
            raise BadRequest(f"Node identity is missing the node name field on this {holder}")
        if not one.datacenter:
            raise BadRequest(f"Node identity is missing the datacenter field on this {holder}")
        _check_identity(one.node_name, "Node")
        found[NodeIdentity(one.node_name, one.datacenter)] = None
    return tuple(found)


def _check_identity(name: str, what: str) -> None:
    if not is_identity_name(name):
        raise BadRequest(
            f"{what} identity \"{name:.256}\" has an invalid name. Only lowercase alphanumeric characters, '-' and '_'"
            " are allowed"
        )


def _refuse_templated(given: list[object] | None, holder: str) -> None:
    if given:
        raise BadRequest(f"TemplatedPolicies of this {holder}: templated policies are not supported, use identities")
