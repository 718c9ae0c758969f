"""Requests of another node, one for each operation, and what becomes of them when something in them is changed: of the
right form or nearly, with whatever values.
"""

import random
from typing import Any, Final

from cluster.tls.keys import KEY_BYTES
from fsm.codec import dump_state
from fsm.fields import LAST_SECOND
from tests.kit import acl_samples, samples

SERIAL: Final = (1 << 127).to_bytes(16, "big")
ROW: Final = [SERIAL, 1, "web", "spiffe://x", b"h" * 32, 0, 1, "me", b""]
#: What fits, in the form of version 2.
REQUESTS: Final[dict[str, list[Any]]] = {
    "sign": ["csr", SERIAL, "me"],
    "configure": ["consul", '{"LeafCertTTL": "72h"}', None, False, 0, False, 0, b"r" * 16, 0, False],
    "plan_rotation": [None, None, False, False, 0],
    "rotate": [None, None, False, False, 0, b"r" * 16, 0, False],
    "steer_rotation": ["pause"],
    "rotation_uptake": [],
    "distrust_root": ["aa:bb"],
    "watchers": [41],
    "restore_rows": [b"k" * 20, [ROW]],
    "restore_proven_rows": [b"k" * 20, [ROW], "x.consul", 5, b"p" * 32],
    "restore_checked": [dump_state(samples.full_state()), b"sums", "ab" * 32, True, 5, b"p" * 32],
    "restore_ca": [dump_state(samples.full_state())],
    "restore_judged": [dump_state(samples.full_state()), b"sums", "ab" * 32, True, 5, b"p" * 32],
    "cluster": [],
    "transfer": ["nobody"],
    "add_peer": ["d", "127.0.0.1:1", "127.0.0.1:2"],
    "remove_peer": ["d", None],
    "seal_check": ["file", "0123456789abcdef", b""],
    "rotate_seal": [b"0123456789abcdef", True],
    "seal_status": [],
    "announce_key": [b"k" * KEY_BYTES, "d"],
    "acl_put": ["policies", "", '{"Name": "web"}'],
    "acl_delete": ["tokens", acl_samples.uuid(1)],
    "acl_clone": [acl_samples.uuid(1), "another"],
    "acl_bootstrap": [""],
    "acl_login": ["jwt", "a.b.c", {"pod": "web-1"}],
    "acl_logout": [],
    "set_agent_ca": ["a certificate", "a key", 3600],
    "join_token": ["d", "127.0.0.1:8303", "127.0.0.1:8403", 900, False, False],
    "join": ["d", "127.0.0.1:8303", "127.0.0.1:8403", "a request", b"k" * 32, b"p" * 64, "b"],
    "renew_node": ["a request", "a certificate", "d"],
}
_WILD: Final[list[Any]] = [
    *(None, True, False, 0, 1, -1, 99, 1.5, float("nan"), float("inf")),
    *(1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), LAST_SECOND, LAST_SECOND + 1),
    *("", "x", "nul\0", "x" * 300, "x" * 70_000, "{", "[" * 20_000, '{"a":' * 5000, '{"LeafCertTTL":"\\ud800"}', "٣"),
    *('{"LeafCertTTL":1e999}', '{"LeafCertTTL":99999999999999999999999}', "null", "[]", "../..", "spiffe://", "a/b"),
    *(b"", b"\x01", bytes(16), bytes(20), bytes(21), bytes(65), bytes(1000), b"\x91" * 3000),
    *([], [[]], {}, {"a": 1}, [None] * 30, [[1, 2], [3]], [ROW], [ROW, ROW], [[*ROW[:6], 1 << 63, *ROW[7:]]]),
]


class WildRequest:
    """A POST of a member, as far as the RPC server looks at it."""

    def __init__(self, operation: str, body: bytes, version: int | str) -> None:
        self.match_info = {"operation": operation}
        self.headers = {"Quorumca-Rpc": str(version)}
        self.transport = self
        self.protocol = None
        self._body = body

    def get_extra_info(self, _name: str) -> None:
        return None

    async def read(self) -> bytes:
        return self._body


class AnyTls:
    """Everybody is the member b."""

    def peer_name(self, _certificate: object) -> str:
        return "b"

    def peer_key(self, _connection: object) -> bytes:
        return b"k" * KEY_BYTES


def mutated(value: Any, rng: random.Random) -> Any:
    """One place somewhere in it is something else, or missing, or there twice."""
    if isinstance(value, list) and value and rng.random() < 0.85:
        position = rng.randrange(len(value))
        rest = value[position + 1 :]
        if (chance := rng.random()) < 0.06:
            return [*value[:position], *rest]
        if chance < 0.12:
            return [*value[: position + 1], value[position], *rest]
        return [*value[:position], mutated(value[position], rng), *rest]
    if isinstance(value, bytes) and value and rng.random() < 0.5:
        damaged = bytearray(value)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        return bytes(damaged)
    return rng.choice(_WILD)
