"""Who may ask for what: every endpoint and every operation with the right that it needs, as docs/acl.md has it.

It is written down a second time here, and not taken from what routes and operations say of themselves, so that one of
them that came to be open shows. What is missing here fails a test, too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from string import Template
from typing import Any, Final


class Kind(Enum):
    OPEN = auto()  # whatever token comes along
    RIGHT = auto()
    KNOWN = auto()  # every token that is one, the anonymous one, too
    LOGIN = auto()  # a token that a login has made, which is none of those that are tried
    ROWS = auto()  # all of a list by one right, own rows by another, else none
    ROW = auto()  # the same of one row


@dataclass(frozen=True, slots=True)
class Need:
    kind: Kind
    right: str = ""  # as texts have it: service:write
    name: str | None = None  # that the right is on; NODE: that of the node that is asked
    own: str = ""  # of ROWS and ROW: what is enough for the rows of `name`

    def on(self, node: str) -> "Need":
        """When this node is asked."""
        return replace(self, name=node) if self.name == NODE else self


NODE: Final = "$node"
WEB: Final = "web"
OPEN: Final = Need(Kind.OPEN)
KNOWN: Final = Need(Kind.KNOWN)
LOGIN: Final = Need(Kind.LOGIN)
OPERATOR_READ: Final = Need(Kind.RIGHT, "operator:read")
OPERATOR_WRITE: Final = Need(Kind.RIGHT, "operator:write")
ACL_READ: Final = Need(Kind.RIGHT, "acl:read")
ACL_WRITE: Final = Need(Kind.RIGHT, "acl:write")
MESH_WRITE: Final = Need(Kind.RIGHT, "mesh:write")
WEB_WRITE: Final = Need(Kind.RIGHT, "service:write", WEB)
WORKER_WRITE: Final = Need(Kind.RIGHT, "node:write", "worker-1")
AGENT_READ: Final = Need(Kind.RIGHT, "agent:read", NODE)
AGENT_WRITE: Final = Need(Kind.RIGHT, "agent:write", NODE)
ROWS: Final = Need(Kind.ROWS, "operator:read", WEB, own="service:write")
ROW: Final = Need(Kind.ROW, "operator:read", WEB, own="service:write")


@dataclass(frozen=True, slots=True)
class Door:
    """An endpoint, and requests for it. `$...` stands for what only a running cluster knows."""

    method: str
    template: str  # as OpenAPI has it
    needs: Need
    passes: int  # the status of whoever may
    path: str = ""  # empty: the template
    body: object = None
    #: What whoever may asks instead, where the other would change too much.
    mild_path: str = ""
    mild_body: object = None

    def __str__(self) -> str:
        on = f" {self.needs.name}" if self.template == _SIGN else ""
        return f"{self.method} {self.template}{on}"

    def request(self, facts: Mapping[str, str], *, is_mild: bool = False) -> tuple[str, object]:
        path = (self.mild_path if is_mild else "") or self.path or self.template
        body = self.body if not is_mild or self.mild_body is None else self.mild_body
        return Template(path).substitute(facts), filled(body, facts)


def filled(value: Any, facts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return Template(value).safe_substitute(facts)
    if isinstance(value, Mapping):
        return {key: filled(member, facts) for key, member in value.items()}
    if isinstance(value, list):
        return [filled(member, facts) for member in value]
    return value


_SIGN: Final = "/v1/connect/ca/sign"
_NONSENSE: Final = {"Nonsense": 1}
_NOBODY: Final = "0a0b0c0d-0000-4000-8000-00000000dead"


def _objects(path: str, many: str, fact: str) -> tuple[Door, ...]:
    """Of one of the tables of access control. `fact`: one that is there."""
    one, base = f"/v1/acl/{path}/{{id}}", f"/v1/acl/{path}"
    there, nowhere = f"{base}/${fact}", f"{base}/{_NOBODY}"
    return (
        Door("PUT", base, ACL_WRITE, 400, body={"Name": "made", "Description": "made"}, mild_body=_NONSENSE),
        Door("GET", one, ACL_READ, 200, there),
        Door("PUT", one, ACL_WRITE, 400, there, {"Description": "changed"}, mild_body=_NONSENSE),
        Door("DELETE", one, ACL_WRITE, 404, there, mild_path=nowhere),
        Door("GET", f"/v1/acl/{many}", ACL_READ, 200),
    )


DOORS: Final[tuple[Door, ...]] = (
    # -- nobody is asked for anything
    Door("GET", "/v1/connect/ca/roots", OPEN, 200),
    Door("GET", "/v1/agent/connect/ca/roots", OPEN, 200),
    Door("GET", "/v1/status/leader", OPEN, 200),
    Door("GET", "/v1/status/peers", OPEN, 200),
    Door("GET", "/v1/status/live", OPEN, 200),
    Door("HEAD", "/v1/status/live", OPEN, 200),
    Door("GET", "/v1/status/ready", OPEN, 200),
    Door("HEAD", "/v1/status/ready", OPEN, 200),
    Door("GET", "/v1/catalog/datacenters", OPEN, 200),
    Door("GET", "/v1/openapi.json", OPEN, 200),
    Door("GET", "/v1/acl/replication", OPEN, 200),
    Door("PUT", "/v1/acl/bootstrap", OPEN, 403),
    Door("POST", "/v1/acl/login", OPEN, 403, body={"AuthMethod": "none", "BearerToken": "x"}),
    Door("PUT", "/v1/acl/login", OPEN, 403, body={"AuthMethod": "none", "BearerToken": "x"}),
    # -- the CA
    Door("GET", "/v1/connect/ca/configuration", OPERATOR_WRITE, 200),
    Door(
        "PUT",
        "/v1/connect/ca/configuration",
        OPERATOR_WRITE,
        400,
        body={"Provider": "consul", "Config": {"LeafCertTTL": "61h"}},
        mild_body={"Provider": 7},
    ),
    Door("GET", "/v1/connect/ca/rotation", OPERATOR_READ, 200),
    Door(
        "PUT",
        "/v1/connect/ca/rotation",
        OPERATOR_WRITE,
        200,
        body={"Action": "rotate"},
        mild_body={"Action": "plan"},
    ),
    Door("DELETE", "/v1/connect/ca/roots/{id}", OPERATOR_WRITE, 404, "/v1/connect/ca/roots/aa:bb"),
    Door("GET", "/v1/connect/ca/certs", ROWS, 200),
    Door("GET", "/v1/connect/ca/certs/{serial}", ROW, 200, "/v1/connect/ca/certs/$serial"),
    # -- certificates
    *(Door(method, _SIGN, WEB_WRITE, 200, body={"CSR": "$csr_service"}) for method in ("POST", "PUT")),
    *(Door(method, _SIGN, WORKER_WRITE, 200, body={"CSR": "$csr_agent"}) for method in ("POST", "PUT")),
    *(Door(method, _SIGN, MESH_WRITE, 200, body={"CSR": "$csr_gateway"}) for method in ("POST", "PUT")),
    Door("GET", "/v1/agent/connect/ca/leaf/{service}", WEB_WRITE, 200, "/v1/agent/connect/ca/leaf/web"),
    *(
        Door(
            method,
            "/v1/agent/connect/authorize",
            WEB_WRITE,
            200,
            body={
                "Target": "web",
                "ClientCertURI": "spiffe://x.consul/ns/default/dc/dc1/svc/api",
                "ClientCertSerial": "x",
            },
        )
        for method in ("POST", "PUT")
    ),
    # -- this node
    Door("GET", "/v1/agent/members", KNOWN, 200),
    Door("GET", "/v1/agent/self", AGENT_READ, 200),
    Door("GET", "/v1/agent/metrics", AGENT_READ, 200),
    Door(
        "PUT",
        "/v1/agent/token/{kind}",
        AGENT_WRITE,
        404,
        "/v1/agent/token/default",
        {"Token": "00000000-0000-0000-0000-00000000000a"},
        mild_path="/v1/agent/token/none",
    ),
    # -- the servers
    Door("GET", "/v1/operator/raft/configuration", OPERATOR_READ, 200),
    *(
        Door(
            method,
            "/v1/operator/raft/transfer-leader",
            OPERATOR_WRITE,
            400,
            mild_path="/v1/operator/raft/transfer-leader?id=nobody",
        )
        for method in ("POST", "PUT")
    ),
    Door(
        "PUT",
        "/v1/operator/raft/peer",
        OPERATOR_WRITE,
        400,
        body={"ID": "node-9", "Address": "127.0.0.1:1", "RPC": "127.0.0.1:2"},
        mild_body={},
    ),
    Door(
        "DELETE",
        "/v1/operator/raft/peer",
        OPERATOR_WRITE,
        400,
        "/v1/operator/raft/peer?id=$bystander",
        mild_path="/v1/operator/raft/peer",
    ),
    Door("GET", "/v1/operator/autopilot/health", OPERATOR_READ, 200),
    Door("GET", "/v1/operator/digest", OPERATOR_READ, 200),
    Door("GET", "/v1/operator/seal", OPERATOR_READ, 200),
    Door("PUT", "/v1/operator/seal", OPERATOR_WRITE, 400, body={}, mild_body={"KeepKey": "x"}),
    Door("GET", "/v1/operator/agent-ca", OPERATOR_READ, 404),  # there is none
    Door(
        "PUT",
        "/v1/operator/agent-ca",
        ACL_WRITE,
        400,
        body={"Certificate": "a certificate", "PrivateKey": "a key"},
        mild_body=_NONSENSE,
    ),
    Door("DELETE", "/v1/operator/agent-ca", ACL_WRITE, 200),
    *(
        Door(
            method,
            "/v1/operator/join-token",
            ACL_WRITE,
            400,
            body={"Name": "node-9", "Address": "127.0.0.1:1", "RPC": "127.0.0.1:2"},
            mild_body=_NONSENSE,
        )
        for method in ("POST", "PUT")
    ),
    # -- everything
    Door("GET", "/v1/snapshot", ACL_WRITE, 200),
    Door("PUT", "/v1/snapshot", ACL_WRITE, 422, "/v1/snapshot?force=true", body={"no": "snapshot"}),
    # -- access control
    Door("GET", "/v1/acl/token/self", KNOWN, 200),
    *(Door(method, "/v1/acl/logout", LOGIN, 403) for method in ("POST", "PUT")),
    *_objects("token", "tokens", "token"),
    Door(
        "PUT",
        "/v1/acl/token/{id}/clone",
        ACL_WRITE,
        400,
        "/v1/acl/token/$token/clone",
        {"Description": "x"},
        mild_body={"Description": 7},
    ),
    *_objects("policy", "policies", "policy"),
    Door("GET", "/v1/acl/policy/name/{id}", ACL_READ, 200, "/v1/acl/policy/name/global-management"),
    *_objects("role", "roles", "role"),
    Door("GET", "/v1/acl/role/name/{id}", ACL_READ, 200, "/v1/acl/role/name/there"),
    *_objects("auth-method", "auth-methods", "method"),
    *_objects("binding-rule", "binding-rules", "rule"),
)

#: What an operation between servers needs of whoever it is asked for. `None`: servers ask it for themselves.
OPERATIONS: Final[Mapping[str, Need | None]] = {
    "sign": WEB_WRITE,
    "configure": OPERATOR_WRITE,
    "plan_rotation": OPERATOR_WRITE,
    "rotate": OPERATOR_WRITE,
    "steer_rotation": OPERATOR_WRITE,
    "rotation_uptake": OPERATOR_READ,
    "distrust_root": OPERATOR_WRITE,
    "watchers": None,
    "restore_rows": ACL_WRITE,
    "restore_proven_rows": ACL_WRITE,
    "restore_checked": ACL_WRITE,
    "restore_ca": ACL_WRITE,
    "restore_judged": ACL_WRITE,
    "cluster": None,
    "transfer": OPERATOR_WRITE,
    "add_peer": OPERATOR_WRITE,
    "remove_peer": OPERATOR_WRITE,
    "seal_check": None,
    "rotate_seal": OPERATOR_WRITE,
    "seal_status": None,
    "announce_key": None,
    "set_agent_ca": ACL_WRITE,
    "join_token": ACL_WRITE,
    "join": OPEN,
    "renew_node": None,
    "acl_put": ACL_WRITE,
    "acl_delete": ACL_WRITE,
    "acl_clone": ACL_WRITE,
    "acl_bootstrap": OPEN,
    "acl_login": OPEN,
    "acl_logout": LOGIN,
}


class Who(Enum):
    """What is known of whoever brings a token."""

    ANONYMOUS = auto()
    UNKNOWN = auto()
    KNOWN = auto()


@dataclass(frozen=True, slots=True)
class Bearer:
    """Somebody with a token, by what it is."""

    what: str
    who: Who
    #: The rules of the token, a policy for each; None: made in another way.
    rules: tuple[str, ...] | None = None
    is_granted: bool = False
    is_owner: bool = False  # of the rows of ROWS and ROW
    secret_id: str = ""  # where it is none that a cluster makes

    def __str__(self) -> str:
        return self.what


MALFORMED: Final = ("x", "not-a-uuid", "x" * 64, "x" * 65, "x" * 4000, "Bearer", "../..", "*", "${x}", '"', "\x7f", "ä")
NONE: Final = Bearer("none", Who.ANONYMOUS)
#: Consul's: everybody knows it.
ANONYMOUS: Final = Bearer("anonymous", Who.ANONYMOUS)
EXPIRED: Final = Bearer("expired", Who.UNKNOWN)
REVOKED: Final = Bearer("revoked", Who.UNKNOWN)
MANAGEMENT: Final = Bearer("management", Who.KNOWN, is_granted=True)
WRONG: Final = Bearer("wrong", Who.UNKNOWN)
_MALFORMED: Final = tuple(
    Bearer(f"malformed {text!a:.12} ({len(text)})", Who.UNKNOWN, secret_id=text) for text in MALFORMED
)
NO_TOKEN: Final = (WRONG, EXPIRED, REVOKED, *_MALFORMED)
#: Of the malformed ones, how many are tried in one place.
_AT_ONCE: Final = 3
_NAMELESS: Final = ("acl", "keyring", "mesh", "operator", "peering")
_NAMED: Final = ("agent", "event", "key", "node", "query", "service", "session")


def bearers(need: Need, turn: int = 0) -> Iterator[Bearer]:
    """Of every kind. For a right: those who have it, and those who have nearly. `turn`: of the malformed tokens, others
    are tried in each place.
    """
    yield NONE
    yield ANONYMOUS
    yield from (WRONG, EXPIRED, REVOKED)
    yield from (_MALFORMED[(_AT_ONCE * turn + step) % len(_MALFORMED)] for step in range(_AT_ONCE))
    yield MANAGEMENT
    if need.kind is Kind.RIGHT:
        resource, _, level = need.right.partition(":")
        made = _named(resource, need.name, level) if need.name is not None else _nameless(resource, level)
        for what, rules, is_granted in made:
            yield Bearer(what, Who.KNOWN, rules, is_granted)
    elif need.kind in (Kind.ROWS, Kind.ROW):
        yield Bearer("operator", Who.KNOWN, ('operator = "read"',), is_granted=True)
        for what, rules, is_owner in _named("service", WEB, "write"):
            # Every other resource: the operator's, too.
            yield Bearer(what, Who.KNOWN, rules, "operator" in "".join(rules), is_owner)
    else:
        yield Bearer("nothing allowed", Who.KNOWN, ("",))


Made = Iterator[tuple[str, tuple[str, ...], bool]]


def _named(resource: str, name: str, level: str) -> Made:
    def rule(label: str, given: str, form: str = resource) -> str:
        return f'{form} "{label}" {{ policy = "{given}" }}\n'

    prefix = f"{resource}_prefix"
    yield "nothing allowed", ("",), False
    yield "another name", (rule("another", "write"),), False
    yield "a longer name", (rule(f"{name}x", "write"),), False
    yield "a shorter name", (rule(name[:-1], "write"),), False
    yield "name in capitals", (rule(name.upper(), "write"),), False
    yield "name as a pattern", (rule("*", "write") + rule(f"{name[:-1]}*", "write"),), False
    yield "read", (rule(name, "read"),), level == "read"
    yield "prefix", (rule(name[:2], "write", prefix),), True
    yield "prefix of all", (rule("", "write", prefix),), True
    yield "another prefix", (rule(f"{name}-", "write", prefix),), False
    yield "prefix that a longer one denies", (rule("", "write", prefix) + rule(name[:2], "deny", prefix),), False
    yield "denied by name", (rule("", "write", prefix) + rule(name, "deny"),), False
    yield "denied by another policy", (rule(name, "write"), rule(name, "deny")), False
    yield "every other resource", (_all_but(resource),), False
    yield "right", (rule(name, level),), True


def _nameless(resource: str, level: str) -> Made:
    def rule(given: str) -> str:
        return f'{resource} = "{given}"\n'

    yield "nothing allowed", ("",), False
    yield "less", (rule("read" if level == "write" else "deny"),), False
    yield "more", (rule("write"),), True
    yield "denied by another policy", (rule("write"), rule("deny")), False
    yield "every other resource", (_all_but(resource),), False
    if resource == "mesh":
        yield "what speaks for it", ('operator = "write"',), True
    yield "right", (rule(level),), True


def _all_but(resource: str) -> str:
    """As much as can be allowed without it. Where nothing is said of the mesh, what is said of the operator counts."""
    others = [name for name in _NAMELESS if name != resource and not (resource == "mesh" and name == "operator")]
    named = [name for name in _NAMED if name != resource]
    return "".join(f'{name} = "write"\n' for name in others) + "".join(
        f'{name}_prefix "" {{ policy = "write" }}\n' for name in named
    )


def refusal(bearer: Bearer, need: Need, accessor_id: str) -> str:
    """In Consul's words."""
    if bearer.who is Who.UNKNOWN:
        return "ACL not found"
    on = f' on "{need.name}"' if need.name is not None and need.kind is Kind.RIGHT else ""
    lack = f"lacks permission '{need.right}'{on}"
    if bearer.who is Who.ANONYMOUS:
        return (
            f"Permission denied: anonymous token {lack}. The anonymous token is used implicitly when a request does"
            " not specify a token."
        )
    return f"Permission denied: token with AccessorID '{accessor_id}' {lack}"
