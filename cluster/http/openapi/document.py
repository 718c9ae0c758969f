"""One OpenAPI document that describes the whole API. A test holds it against the routes."""

from importlib.metadata import version
from typing import Final

from cluster.http.openapi import acl, joining
from cluster.http.openapi.parts import (
    BLOCKING,
    DURATION,
    FLAG,
    READ,
    STALE,
    TIME,
    Json,
    fields,
    json_body,
    list_of,
    nullable,
    number,
    operation,
    parameter,
    ref,
    text,
)
from cluster.http.routes.rotation import ACTIONS
from fsm.ca import RotationPhase
from fsm.leaves import LEAF_KINDS

# -- the document

_SCHEMAS: Final[Json] = {
    "Roots": fields(ActiveRootID=text(), TrustDomain=text(), Roots=list_of(ref("Root"))),
    "Root": fields(
        ID=text("colon-hex SHA-1 of the certificate"),
        Name=text(),
        SerialNumber=number("low 64 bits of the serial number"),
        SigningKeyID=text("colon-hex key id of what signs leaves now: their authority key id"),
        ExternalTrustDomain=text("without .consul"),
        NotBefore=TIME,
        NotAfter=TIME,
        RootCert=text("PEM"),
        IntermediateCerts=nullable(list_of(text("PEM"))),
        Active=FLAG,
        PrivateKeyType=text("ec or rsa"),
        PrivateKeyBits=number(),
        CreateIndex=number(),
        ModifyIndex=number(),
    ),
    "Configuration": fields(
        Provider=text(),
        Config={"type": "object", "description": "the provider's settings; no secrets"},
        State=nullable({"type": "object", "additionalProperties": text()}),
        ForceWithoutCrossSigning=FLAG,
        CreateIndex=number(),
        ModifyIndex=number(),
    ),
    "ConfigurationUpdate": fields(
        False,
        Provider=text(),
        Config={"type": "object", "description": "replaces the stored settings; an omitted secret keeps its value"},
        State=nullable({"type": "object", "additionalProperties": text(), "description": "read-only"}),
        ForceWithoutCrossSigning=FLAG,
        ModifyIndex=number("check-and-set against the stored ModifyIndex; 0 or absent: unconditional"),
        RotationMode={
            "type": "string",
            "enum": ["", "direct", "staged"],
            "description": "if the root changes; staged: clients learn the new root before it signs",
        },
        RotationWait=DURATION,
    ),
    "RotationStatus": fields(
        Rotation=nullable(
            fields(
                ID=text(),
                Phase={"type": "string", "enum": [phase.value for phase in RotationPhase]},
                StartedAt=TIME,
                PhaseSince=TIME,
                Provider=text("of the new root"),
                Staged=FLAG,
                Forced=FLAG,
                Paused=FLAG,
                WaitUntil=nullable({**TIME, "description": "in phase wait: when the new root signs at the latest"}),
                WaitingFor=text("a sentence for people"),
                NewRootID=text("empty until it is made"),
                Uptake=nullable(
                    fields(
                        Watchers=number("blocking queries on the roots"),
                        WatchersSeen=number("of these, how many have the new root"),
                        Identities=number("SPIFFE IDs with a valid leaf"),
                        IdentitiesRenewed=number("of these, how many got one since the new root was listed"),
                        Percent=number("of the watchers; of the identities where nobody watches"),
                    )
                ),
            )
        ),
        Last=nullable(
            fields(
                ID=text(),
                EndedAt=TIME,
                RootID=text("the new active root; empty when the rotation was given up"),
                Reason=text("why it was given up"),
                Forced=FLAG,
                ClientsMayFailUntil=nullable(
                    {**TIME, "description": "behind a forced rotation, for clients that have not fetched the roots"}
                ),
            )
        ),
        Roots=list_of(
            fields(
                ID=text(),
                Active=FLAG,
                RotatedOutAt=nullable(TIME),
                PruneAt=nullable({**TIME, "description": "when it is no longer trusted"}),
                NotAfter=TIME,
            )
        ),
        CutOffRoots=list_of(text("listed, but new leaves do not lead to it: clients that know no other refuse them")),
    ),
    "RotationPlan": fields(
        ActiveRootID=text(),
        Provider=text(),
        PrivateKeyType=text("of the new root"),
        PrivateKeyBits=number(),
        Forced=FLAG,
        Staged=FLAG,
        ChainBytes=number("what every leaf would carry, PEM, at most"),
        MaxChainBytes=number("where a rotation is refused"),
        Links=number("cross-signed certificates in that chain"),
        TrustedRoots=number("listed once it is done"),
        AffectedLeaves=number("valid, and signed by a key that will no longer sign"),
        RetiredUntil={**TIME, "description": "when the active root would be of no use to anybody: pruned, or ended"},
        Risks=list_of(text()),
        CutOffRoots=list_of(text("listed afterwards, but new leaves will not lead to it")),
    ),
    "RotationRequest": {
        **fields(
            False,
            Action={"type": "string", "enum": [str(action) for action in ACTIONS]},
            PrivateKeyType=text("rotate, plan: ec or rsa; absent: as configured"),
            PrivateKeyBits=number("rotate, plan: 256, 384, 521; 2048, 4096; absent: as configured"),
            ForceWithoutCrossSigning=FLAG,
            Staged=FLAG,
            Wait=DURATION,
        ),
        "required": ["Action"],
        "additionalProperties": False,
    },
    "IssuedCert": {
        **fields(
            False,
            SerialNumber=text("colon-hex"),
            CertPEM=text("leaf first, then its intermediates"),
            PrivateKeyPEM=text("only where this node made the key"),
            Service=text(),
            ServiceURI=text("SPIFFE ID"),
            Agent=text(),
            AgentURI=text("SPIFFE ID"),
            ServerURI=text("SPIFFE ID"),
            Kind=text("mesh-gateway"),
            KindURI=text("SPIFFE ID"),
            ValidAfter=TIME,
            ValidBefore=TIME,
            CreateIndex=number(),
            ModifyIndex=number(),
        ),
        "required": ["SerialNumber", "CertPEM", "ValidAfter", "ValidBefore", "CreateIndex", "ModifyIndex"],
    },
    "CertRecord": {
        **fields(
            False,
            SerialNumber=text("colon-hex"),
            Kind={"type": "string", "enum": [*LEAF_KINDS]},
            Service=text("service or node name"),
            SpiffeID=text(),
            IssuerKeyID=text("colon-hex"),
            PublicKeySHA256=text("colon-hex"),
            ValidAfter=TIME,
            ValidBefore=TIME,
            RequestedBy=text("who asked, as the server saw it that was asked"),
            RequestedVia=text("the server that says so, where it was not the leader itself"),
            RequestedByAccessorID=text("of the token that it was asked with, as the leader has looked it up"),
            CreateIndex=number(),
        ),
        "required": [
            *("SerialNumber", "Kind", "Service", "SpiffeID", "IssuerKeyID", "PublicKeySHA256"),
            *("ValidAfter", "ValidBefore", "RequestedBy", "CreateIndex"),
        ],
    },
    "Member": fields(
        Name=text("node name"),
        Addr=text(),
        Port=number(),
        Tags={"type": "object", "additionalProperties": text()},
        Status=number("1: alive, 4: failed, 0: not known"),
        **{f"{what}{which}": number("0") for what in ("Protocol", "Delegate") for which in ("Min", "Max", "Cur")},
    ),
    "Server": fields(
        ID=text("node name"),
        Node=text(),
        Address=text("Raft address"),
        RPC=text("RPC address"),
        Leader=FLAG,
        ProtocolVersion=text(),
        Voter=FLAG,
        LastIndex=number("Raft log index"),
    ),
    "Health": fields(
        Healthy=FLAG,
        FailureTolerance=number("healthy voters that may fail before the quorum is lost"),
        Servers=list_of(
            fields(
                ID=text(),
                Name=text(),
                Address=text(),
                SerfStatus=text("alive or failed"),
                Version=text(),
                Leader=FLAG,
                LastContact=nullable(text("Go duration")),
                LastTerm=number(),
                LastIndex=number(),
                Healthy=FLAG,
                Voter=FLAG,
                StableSince=TIME,
            )
        ),
    ),
    "Seal": fields(
        Settled={**FLAG, "description": "nothing on any server needs another seal key any more"},
        Nodes=list_of(
            fields(
                Node=text("node name"),
                Source=text("file or passphrase"),
                KeyID=text("of the seal key in use"),
                SealID=text("of the data key; equal on servers that have applied the same"),
                Settled=FLAG,
                ToDo=text("what is left to an operator there; empty when nothing is"),
            )
        ),
    ),
    "Digest": fields(AppliedIndex=number(), StateDigest=text(), LedgerCount=number(), LedgerDigest=text()),
    "Metrics": fields(
        Timestamp=text(),
        Gauges=list_of(fields(Name=text(), Value={"type": "number"}, Labels={"type": "object"})),
        Points=list_of({"type": "object"}),
        Counters=list_of(
            fields(Name=text(), Count=number("since the start"), Sum={"type": "number"}, Labels={"type": "object"})
        ),
        Samples=list_of(
            fields(
                Name=text(),
                Count=number("since the start"),
                Sum={"type": "number"},
                Mean={"type": "number"},
                Labels={"type": "object"},
            )
        ),
    ),
}


def _open(summary: str, answer: Json) -> Json:
    return operation(summary, answer, errors=(400, 500), is_open=True)


def _probe(summary: str, errors: tuple[int, ...]) -> Json:
    return operation(summary, {"text/plain": {"schema": text()}}, errors=errors, is_open=True)


_PEM_OR_JSON: Final = {
    **json_body(ref("Roots")),
    "application/pem-certificate-chain": {"schema": text("every root, each followed by its intermediates")},
}
_SIGN: Final = operation(
    "Sign a CSR; the certificate is on record before it is answered",
    json_body(ref("IssuedCert")),
    body=fields(CSR=text("PEM; exactly one URI SAN, a SPIFFE ID of this trust domain")),
    errors=(400, 413, 429, 500, 503, 504),
)
_AUTHORIZE: Final = operation(
    "Whether a client, by its SPIFFE ID, may connect to a service",
    json_body(fields(Authorized=FLAG, Reason=text())),
    body={
        **fields(Target=text("service"), ClientCertURI=text("SPIFFE ID"), ClientCertSerial=text()),
        "required": ["Target", "ClientCertURI"],
    },
    errors=(400, 413, 500),
)
_TRANSFER: Final = operation(
    "Hand leadership to another server",
    json_body(fields(Success=FLAG)),
    parameter("id", "the server to lead; absent: the leader chooses"),
    errors=(400, 422, 500, 503),
)
_HEALTH: Final = operation(
    "Health of the servers; 429, with the same body, when not healthy", json_body(ref("Health")), *READ
)
_HEALTH["responses"]["429"] = {"description": "Not healthy", "content": json_body(ref("Health"))}

_PATHS: Final[Json] = {
    "/v1/connect/ca/sign": {"put": _SIGN, "post": _SIGN},
    "/v1/connect/ca/roots": {
        "get": operation(
            "Trusted roots",
            _PEM_OR_JSON,
            parameter("pem", "true: PEM instead of JSON", FLAG),
            *READ,
            *BLOCKING,
            is_query=True,
            is_open=True,
        )
    },
    "/v1/connect/ca/configuration": {
        "get": operation("CA configuration", json_body(ref("Configuration")), *READ, *BLOCKING, is_query=True),
        "put": operation(
            "Change the CA configuration; a new root key is a rotation",
            None,
            body=ref("ConfigurationUpdate"),
            errors=(400, 409, 413, 422, 500, 503, 504),
        ),
    },
    "/v1/connect/ca/roots/{id}": {
        "delete": operation(
            "Stop trusting a retired root at once, before its time",
            None,
            parameter("id", "colon-hex SHA-1 of the root", where="path"),
            errors=(400, 404, 422, 500, 503, 504),
        )
    },
    "/v1/connect/ca/rotation": {
        "get": operation(
            "The rotation of the root that is under way, and how the last one ended",
            json_body(ref("RotationStatus")),
            *READ,
            is_query=True,
        ),
        "put": operation(
            "Rotate to a fresh key, or plan that; pause, resume, activate or abort a rotation",
            json_body({"anyOf": [ref("RotationStatus"), ref("RotationPlan")]}),
            body=ref("RotationRequest"),
            errors=(400, 413, 422, 500, 503, 504),
        ),
    },
    "/v1/connect/ca/certs": {
        "get": operation(
            "Issued certificates, oldest first; filters are joined by AND",
            json_body(fields(Certs=list_of(ref("CertRecord")), Next=nullable(text("cursor for `after`")))),
            parameter("service", "service name"),
            parameter("spiffe_id", "SPIFFE ID"),
            parameter("kind", "what it was issued for", {"type": "string", "enum": [*LEAF_KINDS]}),
            parameter("issuer", "key id of the signer, hex with or without colons"),
            parameter("expires_before", "RFC 3339 or Unix seconds"),
            parameter("accessor", "AccessorID of the token that it was asked with; needs operator:read"),
            parameter("limit", "1 to 1000; default 100; a page may end earlier, at 1 MiB", number()),
            parameter("after", "`Next` of the page before"),
            STALE,
        )
    },
    "/v1/connect/ca/certs/{serial}": {
        "get": operation(
            "One issued certificate",
            json_body(ref("CertRecord")),
            parameter("serial", "hex, with or without colons", where="path"),
            STALE,
            errors=(400, 404, 500, 503),
        )
    },
    "/v1/agent/connect/ca/roots": {
        "get": operation(
            "Trusted roots; without a leader, those that this node knows",
            json_body(ref("Roots")),
            *READ,
            *BLOCKING,
            is_query=True,
            is_open=True,
            errors=(400, 500),
        )
    },
    "/v1/agent/connect/ca/leaf/{service}": {
        "get": operation(
            "Leaf and private key of a service on this node's host, renewed when it is due",
            json_body(ref("IssuedCert")),
            parameter("service", "service name", where="path"),
            *BLOCKING,
            errors=(400, 429, 500),
            is_query=True,
        )
    },
    "/v1/agent/connect/authorize": {"post": _AUTHORIZE, "put": _AUTHORIZE},
    "/v1/agent/members": {
        "get": operation(
            "The servers that the caller may read (node:read)",
            json_body(list_of(ref("Member"))),
            parameter("wan", "of other datacenters too: there are none"),
            parameter("segment", "_all or empty; no others are known"),
            errors=(400, 500, 503),
        )
    },
    "/v1/agent/self": {
        "get": operation(
            "This node",
            json_body(
                fields(
                    **{key: {"type": "object"} for key in ("Config", "DebugConfig", "Member", "Stats", "Meta", "xDS")},
                    Coord={"type": "null"},
                )
            ),
        )
    },
    "/v1/agent/metrics": {
        "get": operation(
            "Metrics of this node",
            {**json_body(ref("Metrics")), "text/plain": {"schema": text("Prometheus")}},
            parameter("format", "json or prometheus", {"type": "string", "enum": ["json", "prometheus"]}),
            errors=(400,),
        )
    },
    "/v1/status/leader": {"get": _open("Raft address of the leader, or empty", json_body(text()))},
    "/v1/status/peers": {"get": _open("Raft addresses of the servers", json_body(list_of(text())))},
    "/v1/status/live": dict.fromkeys(("get", "head"), _probe("Whether this node answers at all", errors=(400,))),
    "/v1/status/ready": dict.fromkeys(
        ("get", "head"),
        _probe("Whether requests are of use here: a leader is known, and there is a CA", errors=(400, 503)),
    ),
    "/v1/operator/raft/configuration": {
        "get": operation(
            "Servers of the Raft cluster", json_body(fields(Servers=list_of(ref("Server")), Index=number())), *READ
        )
    },
    "/v1/operator/raft/transfer-leader": {"post": _TRANSFER, "put": _TRANSFER},
    "/v1/operator/raft/peer": {
        "put": operation(
            "Add a server: it learns the log first, then votes. Again as it is: take the key that it has now",
            None,
            body=fields(ID=text("node name"), Address=text("Raft host:port"), RPC=text("RPC host:port")),
            errors=(400, 409, 413, 422, 500, 503, 504),
        ),
        "delete": operation(
            "Remove a server, by one of the two",
            None,
            parameter("id", "node name"),
            parameter("address", "Raft host:port"),
            errors=(400, 404, 422, 500, 503, 504),
        ),
    },
    "/v1/operator/autopilot/health": {"get": _HEALTH},
    "/v1/operator/digest": {
        "get": operation("What nodes compare; equal at the same index", json_body(ref("Digest")), STALE)
    },
    "/v1/operator/seal": {
        "get": operation("Which seal key each server has, and what is left to do", json_body(ref("Seal"))),
        "put": operation(
            "Seal everything again with another data key, under the next seal key; goes on by itself on each server",
            json_body(ref("Seal")),
            body=fields(False, KeepKey={**FLAG, "description": "change the data key only; default: false"}),
            errors=(400, 413, 422, 500, 503, 504),
        ),
    },
    "/v1/snapshot": {
        "get": operation(
            "Save the CA and the record of certificates; private keys in it are sealed",
            {"application/x-gzip": {"schema": {"type": "string", "format": "binary"}}},
            *READ,
            errors=(400, 422, 500, 503),
            is_query=True,
        ),
        "put": {
            **operation(
                "Put a saved CA in the place of the present one; a file that is refused changes nothing. The answer"
                " names the roots that are trusted now and were not before",
                {"text/plain": {"schema": text()}},
                parameter(
                    "force", "take a file without a MAC, and trust in roots that are no longer listed here", FLAG
                ),
                errors=(400, 413, 422, 500, 503, 504),
            ),
            "requestBody": {
                "required": True,
                "content": {"application/x-gzip": {"schema": {"type": "string", "format": "binary"}}},
            },
        },
    },
    "/v1/catalog/datacenters": {"get": _open("Known datacenters", json_body(list_of(text())))},
    "/v1/openapi.json": {"get": _open("This document", json_body({"type": "object"}))},
}

DOCUMENT: Final[Json] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Quorum CA",
        "version": version("quorumca"),
        "description": "Consul's Connect CA API, and what is ours beside it. Errors are text, not JSON.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    # One of them, or none: what a request without a token may do is the anonymous token's.
    "security": [{}, {"header": []}, {"bearer": []}, {"query": []}],
    "paths": {**_PATHS, **acl.PATHS, **joining.PATHS},
    "components": {
        "schemas": {**_SCHEMAS, **acl.SCHEMAS, **joining.SCHEMAS},
        "securitySchemes": {
            "header": {"type": "apiKey", "in": "header", "name": "X-Consul-Token", "description": "a SecretID"},
            "bearer": {"type": "http", "scheme": "bearer", "description": "a SecretID"},
            "query": {
                "type": "apiKey",
                "in": "query",
                "name": "token",
                "description": "a SecretID; what is in a URL is in other people's logs, too",
            },
        },
    },
}
