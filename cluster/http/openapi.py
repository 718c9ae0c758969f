"""One OpenAPI document that describes the whole API. A test holds it against the routes."""

from importlib.metadata import version
from typing import Any, Final

from cluster.http.routes.rotation import ACTIONS
from fsm.ca import RotationPhase
from fsm.leaves import LEAF_KINDS

_Json = dict[str, Any]


# -- building blocks


def _text(description: str = "") -> _Json:
    return {"type": "string", "description": description} if description else {"type": "string"}


def _number(description: str = "") -> _Json:
    return {"type": "integer", "description": description} if description else {"type": "integer"}


_FLAG: Final[_Json] = {"type": "boolean"}
_TIME: Final[_Json] = {"type": "string", "format": "date-time"}
_DURATION: Final[_Json] = {
    "type": ["string", "integer"],
    "description": "staged: how long to wait for clients at most; Go duration or nanoseconds, to 720h; default 10m",
}


def _object(required: bool = True, /, **properties: _Json) -> _Json:
    value: _Json = {"type": "object", "properties": properties}
    return {**value, "required": list(properties)} if required else value


def _list(items: _Json) -> _Json:
    return {"type": "array", "items": items}


def _nullable(value: _Json) -> _Json:
    return {"anyOf": [value, {"type": "null"}]}


def _ref(name: str) -> _Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _parameter(name: str, description: str, schema: _Json | None = None, where: str = "query") -> _Json:
    value = {"name": name, "in": where, "description": description, "schema": schema or _text()}
    return {**value, "required": True} if where == "path" else value


def _json(schema: _Json) -> _Json:
    return {"application/json": {"schema": schema}}


_PRETTY: Final = _parameter("pretty", "indent the answer; presence counts")
_DC: Final = _parameter("dc", "must be this datacenter")
_STALE: Final = _parameter("stale", "answer from what this node has applied; presence counts")
_READ: Final = (
    _STALE,
    _parameter("consistent", "prove leadership before answering; presence counts"),
    _parameter("max_stale", "as stale, if this node heard from the leader within this Go duration"),
)
_BLOCKING: Final = (
    _parameter("index", "wait until the index of the answer is above this one", _number()),
    _parameter("wait", "how long to wait, a Go duration; at most 10m"),
)
_QUERY_HEADERS: Final = {
    name: {"schema": schema, "description": description}
    for name, schema, description in (
        ("X-Consul-Index", _number(), "for blocking queries; never 0"),
        ("X-Consul-KnownLeader", _FLAG, "whether this node knows a leader"),
        ("X-Consul-LastContact", _number(), "milliseconds since this node heard from the leader"),
        ("X-Consul-Effective-Consistency", _text(), "leader, consistent or stale"),
    )
}

_ERRORS: Final = {
    400: "The request is malformed; the text says what is allowed",
    403: "A browser sent it for a page of another origin. Nothing was done",
    404: "Not found",
    409: "A check-and-set lost against a newer write, and the text has the current ModifyIndex; or not possible beside"
    " what there is. Nothing was changed",
    413: "The body is larger than 512 KB; of a snapshot, than 1 GiB",
    421: "The request is for another host: http.allowed_hosts has the names that are served. Nothing was done",
    422: "Not possible in the present state. Nothing was changed",
    429: "The rate limit is reached; see Retry-After",
    500: "It failed; the text says why",
    503: "Not done, and safe to send again: no leader, no CA yet, or too much work; see Retry-After",
    504: "It may or may not have taken effect: read the state, then decide",
}
#: Of every operation.
_AT_THE_DOOR: Final = (403, 421)


def _operation(
    summary: str,
    answer: _Json | None,
    *parameters: _Json,
    body: _Json | None = None,
    errors: tuple[int, ...] = (400, 500, 503),
    is_query: bool = False,
) -> _Json:
    success: _Json = {"description": "Success"}
    if answer is not None:
        success["content"] = answer
    if is_query:
        success["headers"] = _QUERY_HEADERS
    responses = {"200": success}
    for status in sorted({*errors, *_AT_THE_DOOR}):
        responses[str(status)] = {"description": _ERRORS[status], "content": {"text/plain": {"schema": _text()}}}
    operation: _Json = {"summary": summary, "parameters": [*parameters, _DC, _PRETTY], "responses": responses}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    return operation


# -- the document

_SCHEMAS: Final[_Json] = {
    "Roots": _object(ActiveRootID=_text(), TrustDomain=_text(), Roots=_list(_ref("Root"))),
    "Root": _object(
        ID=_text("colon-hex SHA-1 of the certificate"),
        Name=_text(),
        SerialNumber=_number("low 64 bits of the serial number"),
        SigningKeyID=_text("colon-hex key id of what signs leaves now: their authority key id"),
        ExternalTrustDomain=_text("without .consul"),
        NotBefore=_TIME,
        NotAfter=_TIME,
        RootCert=_text("PEM"),
        IntermediateCerts=_nullable(_list(_text("PEM"))),
        Active=_FLAG,
        PrivateKeyType=_text("ec or rsa"),
        PrivateKeyBits=_number(),
        CreateIndex=_number(),
        ModifyIndex=_number(),
    ),
    "Configuration": _object(
        Provider=_text(),
        Config={"type": "object", "description": "the provider's settings; no secrets"},
        State=_nullable({"type": "object", "additionalProperties": _text()}),
        ForceWithoutCrossSigning=_FLAG,
        CreateIndex=_number(),
        ModifyIndex=_number(),
    ),
    "ConfigurationUpdate": _object(
        False,
        Provider=_text(),
        Config={"type": "object", "description": "replaces the stored settings; an omitted secret keeps its value"},
        State=_nullable({"type": "object", "additionalProperties": _text(), "description": "read-only"}),
        ForceWithoutCrossSigning=_FLAG,
        ModifyIndex=_number("check-and-set against the stored ModifyIndex; 0 or absent: unconditional"),
        RotationMode={
            "type": "string",
            "enum": ["", "direct", "staged"],
            "description": "if the root changes; staged: clients learn the new root before it signs",
        },
        RotationWait=_DURATION,
    ),
    "RotationStatus": _object(
        Rotation=_nullable(
            _object(
                ID=_text(),
                Phase={"type": "string", "enum": [phase.value for phase in RotationPhase]},
                StartedAt=_TIME,
                PhaseSince=_TIME,
                Provider=_text("of the new root"),
                Staged=_FLAG,
                Forced=_FLAG,
                Paused=_FLAG,
                WaitUntil=_nullable({**_TIME, "description": "in phase wait: when the new root signs at the latest"}),
                WaitingFor=_text("a sentence for people"),
                NewRootID=_text("empty until it is made"),
                Uptake=_nullable(
                    _object(
                        Watchers=_number("blocking queries on the roots"),
                        WatchersSeen=_number("of these, how many have the new root"),
                        Identities=_number("SPIFFE IDs with a valid leaf"),
                        IdentitiesRenewed=_number("of these, how many got one since the new root was listed"),
                        Percent=_number("of the watchers; of the identities where nobody watches"),
                    )
                ),
            )
        ),
        Last=_nullable(
            _object(
                ID=_text(),
                EndedAt=_TIME,
                RootID=_text("the new active root; empty when the rotation was given up"),
                Reason=_text("why it was given up"),
                Forced=_FLAG,
                ClientsMayFailUntil=_nullable(
                    {**_TIME, "description": "behind a forced rotation, for clients that have not fetched the roots"}
                ),
            )
        ),
        Roots=_list(
            _object(
                ID=_text(),
                Active=_FLAG,
                RotatedOutAt=_nullable(_TIME),
                PruneAt=_nullable({**_TIME, "description": "when it is no longer trusted"}),
                NotAfter=_TIME,
            )
        ),
        CutOffRoots=_list(_text("listed, but new leaves do not lead to it: clients that know no other refuse them")),
    ),
    "RotationPlan": _object(
        ActiveRootID=_text(),
        Provider=_text(),
        PrivateKeyType=_text("of the new root"),
        PrivateKeyBits=_number(),
        Forced=_FLAG,
        Staged=_FLAG,
        ChainBytes=_number("what every leaf would carry, PEM, at most"),
        MaxChainBytes=_number("where a rotation is refused"),
        Links=_number("cross-signed certificates in that chain"),
        TrustedRoots=_number("listed once it is done"),
        AffectedLeaves=_number("valid, and signed by a key that will no longer sign"),
        RetiredUntil={**_TIME, "description": "when the active root would be of no use to anybody: pruned, or ended"},
        Risks=_list(_text()),
        CutOffRoots=_list(_text("listed afterwards, but new leaves will not lead to it")),
    ),
    "RotationRequest": {
        **_object(
            False,
            Action={"type": "string", "enum": [str(action) for action in ACTIONS]},
            PrivateKeyType=_text("rotate, plan: ec or rsa; absent: as configured"),
            PrivateKeyBits=_number("rotate, plan: 256, 384, 521; 2048, 4096; absent: as configured"),
            ForceWithoutCrossSigning=_FLAG,
            Staged=_FLAG,
            Wait=_DURATION,
        ),
        "required": ["Action"],
        "additionalProperties": False,
    },
    "IssuedCert": {
        **_object(
            False,
            SerialNumber=_text("colon-hex"),
            CertPEM=_text("leaf first, then its intermediates"),
            PrivateKeyPEM=_text("only where this node made the key"),
            Service=_text(),
            ServiceURI=_text("SPIFFE ID"),
            Agent=_text(),
            AgentURI=_text("SPIFFE ID"),
            ServerURI=_text("SPIFFE ID"),
            Kind=_text("mesh-gateway"),
            KindURI=_text("SPIFFE ID"),
            ValidAfter=_TIME,
            ValidBefore=_TIME,
            CreateIndex=_number(),
            ModifyIndex=_number(),
        ),
        "required": ["SerialNumber", "CertPEM", "ValidAfter", "ValidBefore", "CreateIndex", "ModifyIndex"],
    },
    "CertRecord": _object(
        SerialNumber=_text("colon-hex"),
        Kind={"type": "string", "enum": [*LEAF_KINDS]},
        Service=_text("service or node name"),
        SpiffeID=_text(),
        IssuerKeyID=_text("colon-hex"),
        PublicKeySHA256=_text("colon-hex"),
        ValidAfter=_TIME,
        ValidBefore=_TIME,
        RequestedBy=_text("who asked, as the server saw it that was asked"),
        RequestedVia=_text("the server that says so, where it was not the leader itself"),
        CreateIndex=_number(),
    ),
    "Server": _object(
        ID=_text("node name"),
        Node=_text(),
        Address=_text("Raft address"),
        RPC=_text("RPC address"),
        Leader=_FLAG,
        ProtocolVersion=_text(),
        Voter=_FLAG,
        LastIndex=_number("Raft log index"),
    ),
    "Health": _object(
        Healthy=_FLAG,
        FailureTolerance=_number("healthy voters that may fail before the quorum is lost"),
        Servers=_list(
            _object(
                ID=_text(),
                Name=_text(),
                Address=_text(),
                SerfStatus=_text("alive or failed"),
                Version=_text(),
                Leader=_FLAG,
                LastContact=_nullable(_text("Go duration")),
                LastTerm=_number(),
                LastIndex=_number(),
                Healthy=_FLAG,
                Voter=_FLAG,
                StableSince=_TIME,
            )
        ),
    ),
    "Seal": _object(
        Settled={**_FLAG, "description": "nothing on any server needs another seal key any more"},
        Nodes=_list(
            _object(
                Node=_text("node name"),
                Source=_text("file or passphrase"),
                KeyID=_text("of the seal key in use"),
                SealID=_text("of the data key; equal on servers that have applied the same"),
                Settled=_FLAG,
                ToDo=_text("what is left to an operator there; empty when nothing is"),
            )
        ),
    ),
    "Digest": _object(AppliedIndex=_number(), StateDigest=_text(), LedgerCount=_number(), LedgerDigest=_text()),
    "Metrics": _object(
        Timestamp=_text(),
        Gauges=_list(_object(Name=_text(), Value={"type": "number"}, Labels={"type": "object"})),
        Points=_list({"type": "object"}),
        Counters=_list(
            _object(Name=_text(), Count=_number("since the start"), Sum={"type": "number"}, Labels={"type": "object"})
        ),
        Samples=_list(
            _object(
                Name=_text(),
                Count=_number("since the start"),
                Sum={"type": "number"},
                Mean={"type": "number"},
                Labels={"type": "object"},
            )
        ),
    ),
}

_PEM_OR_JSON: Final = {
    **_json(_ref("Roots")),
    "application/pem-certificate-chain": {"schema": _text("every root, each followed by its intermediates")},
}
_SIGN: Final = _operation(
    "Sign a CSR; the certificate is on record before it is answered",
    _json(_ref("IssuedCert")),
    body=_object(CSR=_text("PEM; exactly one URI SAN, a SPIFFE ID of this trust domain")),
    errors=(400, 413, 429, 500, 503, 504),
)
_AUTHORIZE: Final = _operation(
    "Whether a client, by its SPIFFE ID, may connect to a service",
    _json(_object(Authorized=_FLAG, Reason=_text())),
    body={
        **_object(Target=_text("service"), ClientCertURI=_text("SPIFFE ID"), ClientCertSerial=_text()),
        "required": ["Target", "ClientCertURI"],
    },
    errors=(400, 413, 500),
)
_TRANSFER: Final = _operation(
    "Hand leadership to another server",
    _json(_object(Success=_FLAG)),
    _parameter("id", "the server to lead; absent: the leader chooses"),
    errors=(400, 422, 500, 503),
)
_HEALTH: Final = _operation(
    "Health of the servers; 429, with the same body, when not healthy", _json(_ref("Health")), *_READ
)
_HEALTH["responses"]["429"] = {"description": "Not healthy", "content": _json(_ref("Health"))}

_PATHS: Final[_Json] = {
    "/v1/connect/ca/sign": {"put": _SIGN, "post": _SIGN},
    "/v1/connect/ca/roots": {
        "get": _operation(
            "Trusted roots",
            _PEM_OR_JSON,
            _parameter("pem", "true: PEM instead of JSON", _FLAG),
            *_READ,
            *_BLOCKING,
            is_query=True,
        )
    },
    "/v1/connect/ca/configuration": {
        "get": _operation("CA configuration", _json(_ref("Configuration")), *_READ, *_BLOCKING, is_query=True),
        "put": _operation(
            "Change the CA configuration; a new root key is a rotation",
            None,
            body=_ref("ConfigurationUpdate"),
            errors=(400, 409, 413, 422, 500, 503, 504),
        ),
    },
    "/v1/connect/ca/roots/{id}": {
        "delete": _operation(
            "Stop trusting a retired root at once, before its time",
            None,
            _parameter("id", "colon-hex SHA-1 of the root", where="path"),
            errors=(400, 404, 422, 500, 503, 504),
        )
    },
    "/v1/connect/ca/rotation": {
        "get": _operation(
            "The rotation of the root that is under way, and how the last one ended",
            _json(_ref("RotationStatus")),
            *_READ,
            is_query=True,
        ),
        "put": _operation(
            "Rotate to a fresh key, or plan that; pause, resume, activate or abort a rotation",
            _json({"oneOf": [_ref("RotationStatus"), _ref("RotationPlan")]}),
            body=_ref("RotationRequest"),
            errors=(400, 413, 422, 500, 503, 504),
        ),
    },
    "/v1/connect/ca/certs": {
        "get": _operation(
            "Issued certificates, oldest first; filters are joined by AND",
            _json(_object(Certs=_list(_ref("CertRecord")), Next=_nullable(_text("cursor for `after`")))),
            _parameter("service", "service name"),
            _parameter("spiffe_id", "SPIFFE ID"),
            _parameter("kind", "what it was issued for", {"type": "string", "enum": [*LEAF_KINDS]}),
            _parameter("issuer", "key id of the signer, hex with or without colons"),
            _parameter("expires_before", "RFC 3339 or Unix seconds"),
            _parameter("limit", "1 to 1000; default 100; a page may end earlier, at 1 MiB", _number()),
            _parameter("after", "`Next` of the page before"),
            _STALE,
        )
    },
    "/v1/connect/ca/certs/{serial}": {
        "get": _operation(
            "One issued certificate",
            _json(_ref("CertRecord")),
            _parameter("serial", "hex, with or without colons", where="path"),
            _STALE,
            errors=(400, 404, 500, 503),
        )
    },
    "/v1/agent/connect/ca/roots": {
        "get": _operation(
            "Trusted roots; without a leader, those that this node knows",
            _json(_ref("Roots")),
            *_READ,
            *_BLOCKING,
            is_query=True,
            errors=(400, 500),
        )
    },
    "/v1/agent/connect/ca/leaf/{service}": {
        "get": _operation(
            "Leaf and private key of a service on this node's host, renewed when it is due",
            _json(_ref("IssuedCert")),
            _parameter("service", "service name", where="path"),
            *_BLOCKING,
            errors=(400, 429, 500),
            is_query=True,
        )
    },
    "/v1/agent/connect/authorize": {"post": _AUTHORIZE, "put": _AUTHORIZE},
    "/v1/agent/self": {
        "get": _operation(
            "This node",
            _json(
                _object(
                    **{key: {"type": "object"} for key in ("Config", "DebugConfig", "Member", "Stats", "Meta", "xDS")},
                    Coord={"type": "null"},
                )
            ),
        )
    },
    "/v1/agent/metrics": {
        "get": _operation(
            "Metrics of this node",
            {**_json(_ref("Metrics")), "text/plain": {"schema": _text("Prometheus")}},
            _parameter("format", "json or prometheus", {"type": "string", "enum": ["json", "prometheus"]}),
            errors=(400,),
        )
    },
    "/v1/status/leader": {"get": _operation("Raft address of the leader, or empty", _json(_text()), errors=(400, 500))},
    "/v1/status/peers": {"get": _operation("Raft addresses of the servers", _json(_list(_text())), errors=(400, 500))},
    "/v1/operator/raft/configuration": {
        "get": _operation(
            "Servers of the Raft cluster", _json(_object(Servers=_list(_ref("Server")), Index=_number())), *_READ
        )
    },
    "/v1/operator/raft/transfer-leader": {"post": _TRANSFER, "put": _TRANSFER},
    "/v1/operator/raft/peer": {
        "put": _operation(
            "Add a server: it learns the log first, then votes. Again as it is: take the key that it has now",
            None,
            body=_object(ID=_text("node name"), Address=_text("Raft host:port"), RPC=_text("RPC host:port")),
            errors=(400, 409, 413, 422, 500, 503, 504),
        ),
        "delete": _operation(
            "Remove a server, by one of the two",
            None,
            _parameter("id", "node name"),
            _parameter("address", "Raft host:port"),
            errors=(400, 404, 422, 500, 503, 504),
        ),
    },
    "/v1/operator/autopilot/health": {"get": _HEALTH},
    "/v1/operator/digest": {
        "get": _operation("What nodes compare; equal at the same index", _json(_ref("Digest")), _STALE)
    },
    "/v1/operator/seal": {
        "get": _operation("Which seal key each server has, and what is left to do", _json(_ref("Seal"))),
        "put": _operation(
            "Seal everything again with another data key, under the next seal key; goes on by itself on each server",
            _json(_ref("Seal")),
            body=_object(False, KeepKey={**_FLAG, "description": "change the data key only; default: false"}),
            errors=(400, 413, 422, 500, 503, 504),
        ),
    },
    "/v1/snapshot": {
        "get": _operation(
            "Save the CA and the record of certificates; private keys in it are sealed",
            {"application/x-gzip": {"schema": {"type": "string", "format": "binary"}}},
            *_READ,
            errors=(400, 422, 500, 503),
            is_query=True,
        ),
        "put": {
            **_operation(
                "Put a saved CA in the place of the present one; a file that is refused changes nothing. The answer"
                " names the roots that are trusted now and were not before",
                {"text/plain": {"schema": _text()}},
                _parameter(
                    "force", "take a file without a MAC, and trust in roots that are no longer listed here", _FLAG
                ),
                errors=(400, 413, 422, 500, 503, 504),
            ),
            "requestBody": {
                "required": True,
                "content": {"application/x-gzip": {"schema": {"type": "string", "format": "binary"}}},
            },
        },
    },
    "/v1/catalog/datacenters": {"get": _operation("Known datacenters", _json(_list(_text())), errors=(400, 500))},
    "/v1/openapi.json": {"get": _operation("This document", _json({"type": "object"}), errors=(400, 500))},
}

DOCUMENT: Final[_Json] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Quorum CA",
        "version": version("quorumca"),
        "description": "Consul's Connect CA API, and what is ours beside it. Errors are text, not JSON.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "paths": _PATHS,
    "components": {"schemas": _SCHEMAS},
}
