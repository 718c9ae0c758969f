"""Access control: its values in the replicated state, and the commands that change them. Times are Unix seconds.

Names and forms are Consul's (docs/consul-compat.md 12.1). What a caller proves itself by, the SecretID, is
nowhere here: `secret_hash` is HMAC-SHA256 of it under a key that is sealed with the cluster's data key.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final

from fsm.fields import Digest, Index, Json, Length, Reason, Sealed, Seconds, Text, Time

#: How many there may be. All of them are in every snapshot of the state, and tokens are compared one by one when they
#: expire; logins beyond it are refused until others have ended.
MAX_TOKENS: Final = 16_384
#: Of these, places that no login takes: whoever may log in must not keep operators from making tokens.
RESERVED_TOKENS: Final = 1024
#: Tokens of logins that one identity may have at a time.
MAX_OF_AN_IDENTITY: Final = 1024
MAX_POLICIES: Final = 4096
MAX_ROLES: Final = 4096
MAX_METHODS: Final = 256
MAX_BINDING_RULES: Final = 4096
#: Tokens in one command.
MAX_DELETED: Final = 1024
#: Of one token or role.
MAX_LINKS: Final = 256

ANONYMOUS: Final = "00000000-0000-0000-0000-000000000002"
GLOBAL_MANAGEMENT: Final = "00000000-0000-0000-0000-000000000001"
GLOBAL_READ_ONLY: Final = "00000000-0000-0000-0000-000000000002"
#: IDs that begin so are nobody's to choose.
RESERVED: Final = "00000000-0000-0000-0000-0000000000"

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_POLICY_NAME: Final = re.compile(r"[A-Za-z0-9_-]+/?[A-Za-z0-9_-]*")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_IDENTITY: Final = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")

#: Lower case. The two policies that every cluster has, and the anonymous token, have reserved ones.
Uuid = Annotated[str, Text(36, 36, _UUID)]
PolicyName = Annotated[str, Text(1, 128, _POLICY_NAME)]
RoleName = Annotated[str, Text(1, 256, _NAME)]
MethodName = Annotated[str, Text(1, 128, _NAME)]
IdentityName = Annotated[str, Text(1, 256, _IDENTITY)]
DatacenterName = Annotated[str, Text(1, 64)]
Datacenters = Annotated[tuple[DatacenterName, ...], Length(0, 64)]
Rules = Annotated[str, Text(0, 64 << 10, most_bytes=64 << 10)]
#: What a rule of a binding holds: text that is evaluated when it is written, and at each login.
Expression = Annotated[str, Text(0, 4096)]


def is_identity_name(text: str) -> bool:
    """Whether a service or node identity may have it, as it is."""
    return len(text) <= 256 and _IDENTITY.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class AclKey:
    """What SecretIDs are hashed with, sealed. It is drawn once: another one would make every token unknown."""

    sealed: Sealed


@dataclass(frozen=True, slots=True)
class Policy:
    policy_id: Uuid
    name: PolicyName
    description: Reason
    rules: Rules
    datacenters: Datacenters = ()  # where it counts; empty: everywhere
    create_index: Index = 0
    modify_index: Index = 0


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """Stands for the rules that a service's sidecar needs."""

    service: IdentityName
    datacenters: Datacenters = ()


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """Stands for the rules that a node's agent needs."""

    node: IdentityName
    datacenter: DatacenterName


PolicyLinks = Annotated[tuple[Uuid, ...], Length(0, MAX_LINKS)]
RoleLinks = Annotated[tuple[Uuid, ...], Length(0, MAX_LINKS)]
ServiceIdentities = Annotated[tuple[ServiceIdentity, ...], Length(0, MAX_LINKS)]
NodeIdentities = Annotated[tuple[NodeIdentity, ...], Length(0, MAX_LINKS)]


@dataclass(frozen=True, slots=True)
class Role:
    role_id: Uuid
    name: RoleName
    description: Reason
    policies: PolicyLinks = ()
    service_identities: ServiceIdentities = ()
    node_identities: NodeIdentities = ()
    create_index: Index = 0
    modify_index: Index = 0


@dataclass(frozen=True, slots=True)
class Token:
    """`policies` and `roles` are IDs; what they name may be gone, and counts for nothing then."""

    accessor_id: Uuid
    secret_hash: Digest = field(repr=False)
    description: Reason
    policies: PolicyLinks = ()
    roles: RoleLinks = ()
    service_identities: ServiceIdentities = ()
    node_identities: NodeIdentities = ()
    is_local: bool = False
    auth_method: Annotated[str, Text(0, 128)] = ""  # of a login
    #: Of a login: a digest of the method's name and all that was proved. The same for each login of one identity.
    identity_hash: Annotated[bytes, Length(0, 32)] = field(default=b"", repr=False)
    created_at: Time = 0
    expires_at: Time = 0  # 0: never
    create_index: Index = 0
    modify_index: Index = 0

    def is_expired(self, now: float) -> bool:
        return self.expires_at != 0 and now >= self.expires_at


class MethodType(StrEnum):
    JWT = "jwt"
    KUBERNETES = "kubernetes"
    TLS = "tls"  # ours: a client certificate of this trust domain


class Locality(StrEnum):
    LOCAL = "local"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class AuthMethod:
    """How workloads log in. Secrets of its configuration are in `sealed`, and nowhere else."""

    name: MethodName
    kind: MethodType
    display_name: Reason
    description: Reason
    config_json: Json  # canonical, without secrets
    sealed: Sealed = b""
    max_token_ttl_seconds: Seconds = 0
    locality: Locality = Locality.LOCAL
    create_index: Index = 0
    modify_index: Index = 0


class BindType(StrEnum):
    SERVICE = "service"
    NODE = "node"
    POLICY = "policy"
    ROLE = "role"


@dataclass(frozen=True, slots=True)
class BindingRule:
    """What a login through a method gives, if the selector holds of it."""

    rule_id: Uuid
    description: Reason
    auth_method: MethodName
    selector: Expression
    bind_type: BindType
    bind_name: Expression
    create_index: Index = 0
    modify_index: Index = 0


Policies = Annotated[tuple[Policy, ...], Length(0, MAX_POLICIES)]
Roles = Annotated[tuple[Role, ...], Length(0, MAX_ROLES)]
Tokens = Annotated[tuple[Token, ...], Length(0, MAX_TOKENS)]
Methods = Annotated[tuple[AuthMethod, ...], Length(0, MAX_METHODS)]
BindingRules = Annotated[tuple[BindingRule, ...], Length(0, MAX_BINDING_RULES)]


@dataclass(frozen=True, slots=True)
class Acl:
    """Each table is in the order of its ids or names, and has the index of its last change."""

    key: AclKey | None = None
    bootstrap_index: Index = 0  # of the state, when the management token was made last; 0: never
    policies: Policies = ()
    roles: Roles = ()
    tokens: Tokens = ()
    methods: Methods = ()
    binding_rules: BindingRules = ()
    policies_index: Index = 0
    roles_index: Index = 0
    tokens_index: Index = 0
    methods_index: Index = 0
    binding_rules_index: Index = 0


#: The fields that hold the tables; the index of each is the same with `_index` after it.
ACL_TABLES: Final = ("policies", "roles", "tokens", "methods", "binding_rules")


# -- commands. `replaces` is the ModifyIndex of what is replaced as its author has seen it; 0: there is none yet.


@dataclass(frozen=True, slots=True)
class InitAcl:
    """The key, the two policies and the anonymous token, once."""

    key: AclKey
    policies: Policies
    anonymous: Token


@dataclass(frozen=True, slots=True)
class BootstrapAcl:
    """The management token. `reset` is the index of the bootstrap that an operator has allowed to be repeated."""

    token: Token
    reset: Index = 0


@dataclass(frozen=True, slots=True)
class SetPolicy:
    policy: Policy
    replaces: Index = 0


@dataclass(frozen=True, slots=True)
class SetRole:
    role: Role
    replaces: Index = 0


@dataclass(frozen=True, slots=True)
class SetToken:
    token: Token
    replaces: Index = 0


@dataclass(frozen=True, slots=True)
class SetAuthMethod:
    method: AuthMethod
    replaces: Index = 0


@dataclass(frozen=True, slots=True)
class SetBindingRule:
    rule: BindingRule
    replaces: Index = 0


@dataclass(frozen=True, slots=True)
class DeletePolicy:
    policy_id: Uuid


@dataclass(frozen=True, slots=True)
class DeleteRole:
    role_id: Uuid


@dataclass(frozen=True, slots=True)
class DeleteTokens:
    """Those of them that are there."""

    accessor_ids: Annotated[tuple[Uuid, ...], Length(1, MAX_DELETED)]


@dataclass(frozen=True, slots=True)
class DeleteAuthMethod:
    """With its binding rules, and the tokens of its logins."""

    name: MethodName


@dataclass(frozen=True, slots=True)
class DeleteBindingRule:
    rule_id: Uuid


AclCommand = (
    InitAcl
    | BootstrapAcl
    | SetPolicy
    | SetRole
    | SetToken
    | SetAuthMethod
    | SetBindingRule
    | DeletePolicy
    | DeleteRole
    | DeleteTokens
    | DeleteAuthMethod
    | DeleteBindingRule
)
