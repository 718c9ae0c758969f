"""What access control begins with on every cluster: two policies, and the token of those who bring none."""

from typing import Final

from cluster.access.secret_ids import hash_of
from fsm.acl import ANONYMOUS, GLOBAL_MANAGEMENT, GLOBAL_READ_ONLY, AclKey, InitAcl, Policy, Token

#: Consul's, by which clients may ask as nobody.
ANONYMOUS_SECRET: Final = "anonymous"  # noqa: S105 - everybody knows it

_NAMELESS: Final = ("acl", "keyring", "mesh", "operator", "peering")
_NAMED: Final = ("agent", "event", "key", "node", "query", "service", "session")


def first_acl(key: AclKey, bare_key: bytes, now: int) -> InitAcl:
    policies = (
        Policy(GLOBAL_MANAGEMENT, "global-management", "Builtin Policy that grants unlimited access", _rules("write")),
        Policy(
            GLOBAL_READ_ONLY,
            "builtin/global-read-only",
            "Builtin Policy that grants unlimited read-only access to all resources",
            _rules("read"),
        ),
    )
    anonymous = Token(ANONYMOUS, hash_of(ANONYMOUS_SECRET, bare_key), "Anonymous Token", created_at=now)
    return InitAcl(key, policies, anonymous)


def _rules(level: str) -> str:
    lines = [f'{resource} = "{level}"' for resource in _NAMELESS]
    for resource in _NAMED:
        intentions = f'\n  intentions = "{level}"' if resource == "service" else ""
        lines.append(f'{resource}_prefix "" {{\n  policy = "{level}"{intentions}\n}}')
    return "\n".join(lines) + "\n"
