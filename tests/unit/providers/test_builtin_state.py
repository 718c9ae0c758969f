"""The state's encoding: what was written once must load for ever, and foreign bytes must not do harm.

`data/builtin_state_v1.json` was made with version 0.1.0: a primary (`prepare_root`, `generate_root` with the intent
below) and a secondary with a pending CSR; hex of the state next to the chain that the provider then had. Its keys
exist for this test only.
"""

import json
from pathlib import Path

import msgpack
import pytest

from providers.api import CAChain
from providers.builtin import state as builtin_state
from providers.builtin.provider import BuiltinProvider
from providers.builtin.state import PrimaryState, SecondaryState
from providers.errors import ConfigInvalid
from providers.pki.keys import KeyKind
from tests.kit import pki

GOLDEN = json.loads((Path(__file__).parent / "data" / "builtin_state_v1.json").read_text())

PRIMARY = PrimaryState(
    cluster_id=pki.CLUSTER_ID,
    key_kind=KeyKind("rsa", 4096),
    key_der=b"key",
    supplied_key_id=b"x" * 32,
    intent=pki.intent(),
    root_ttl_seconds=7,
    root_pem="root",
)
SECONDARY = SecondaryState(
    cluster_id=pki.CLUSTER_ID,
    key_kind=KeyKind("ec", 384),
    key_der=b"key",
    intermediate_pem="intermediate",
    root_pem="root",
    pending_key_der=b"pending",
    pending_csr_pem="csr",
)


@pytest.mark.parametrize("state", [PRIMARY, SECONDARY], ids=["primary", "secondary"])
def test_state_survives_storage(state: builtin_state.State) -> None:
    assert builtin_state.decode(builtin_state.encode(state)) == state


def test_keys_are_not_shown() -> None:
    assert "key'" not in repr(PRIMARY)
    assert "pending'" not in repr(SECONDARY)


@pytest.mark.parametrize("role", ["primary", "secondary"])
def test_state_of_version_1_still_loads(role: str) -> None:
    stored = GOLDEN[role]
    data = bytes.fromhex(stored["state"])
    provider = BuiltinProvider()
    provider.configure(pki.settings(state=data, is_primary=role == "primary"))
    chain = CAChain(stored["root"], stored["signing"], tuple(stored["intermediates"]))
    assert provider.chain() == chain
    decoded = builtin_state.decode(data)
    assert decoded is not None
    assert builtin_state.encode(decoded) == data
    if role == "secondary":
        assert provider.generate_intermediate_csr() == (stored["pending_csr"], data)


def _packed(**changes: object) -> bytes:
    head = msgpack.unpackb(builtin_state.encode(PRIMARY))
    packed: bytes = msgpack.packb({**head, **changes})
    return packed


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xc1",
        b"\x93\x01\x02",
        b"\xff" * 100,
        b"\x81" * 2000,
        builtin_state.encode(PRIMARY)[:-1],
        builtin_state.encode(PRIMARY) + b"\x00",
        _packed(provider="vault"),
        _packed(key_kind=5),
        _packed(serial="x"),
        _packed(format="x"),
        msgpack.packb({"provider": "consul"}),
    ],
)
def test_what_this_provider_has_not_written_is_no_state(data: bytes) -> None:
    assert builtin_state.decode(data) is None


def test_state_of_a_newer_version_is_refused_loudly() -> None:
    with pytest.raises(ConfigInvalid, match="stored state has format 2, this version knows up to 1"):
        builtin_state.decode(_packed(format=2))
