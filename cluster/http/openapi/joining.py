"""How servers come to their certificates, in the OpenAPI document."""

from typing import Final

from cluster.http.openapi.parts import FLAG, TIME, Json, fields, json_body, operation, ref, text

_JOIN_TOKEN: Final = operation(
    "A token by which one machine becomes the server of this name, once, within minutes",
    json_body(ref("JoinToken")),
    body={
        **fields(
            False,
            Name=text("node name"),
            Address=text("Raft host:port that it must have; left out with Rejoin only"),
            RPC=text("RPC host:port that it must have; left out with Rejoin only"),
            TTL=text("a Go duration from 1m to 1h; default 15m"),
            Rejoin={**FLAG, "description": "for a server that is one already, whose certificate has expired perhaps"},
            Force={**FLAG, "description": "with Rejoin: although the leader hears from that server"},
        ),
        "required": ["Name"],
    },
    errors=(400, 413, 422, 500, 503, 504),
)

PATHS: Final[Json] = {
    "/v1/operator/agent-ca": {
        "get": operation(
            "The agent CA that the cluster signs its servers' certificates with, if it was given one",
            json_body(ref("AgentCA")),
            errors=(400, 404, 500, 503),
        ),
        "put": operation(
            "Hand the agent CA to the cluster: its key is sealed, and servers can join and renew their certificates",
            None,
            body={
                **fields(
                    False,
                    Certificate=text("PEM; the servers must trust it"),
                    PrivateKey=text("PEM"),
                    NodeCertTTL=text("how long servers' certificates are valid, a Go duration; default 72h"),
                ),
                "required": ["Certificate", "PrivateKey"],
            },
            errors=(400, 413, 422, 500, 503, 504),
        ),
        "delete": operation(
            "Take it away: servers' certificates are their operators' matter again", None, errors=(400, 500, 503, 504)
        ),
    },
    "/v1/operator/join-token": {"post": _JOIN_TOKEN, "put": _JOIN_TOKEN},
}

SCHEMAS: Final[Json] = {
    "AgentCA": fields(
        Certificate=text("PEM"),
        Fingerprint=text("SHA-256 of the certificate, hex"),
        NodeCertTTL=text("how long servers' certificates are valid"),
        SetTime=TIME,
    ),
    "JoinToken": fields(
        Token=text("shown this once"),
        Name=text("of the server that it is for"),
        ExpirationTime=TIME,
        CAFingerprint=text("SHA-256 of the agent CA's certificate, hex"),
        JoinAddress=text("where the machine may ask: join.address of this node; empty if it has none"),
        Datacenter=text(),
        Domain=text(),
    ),
}
