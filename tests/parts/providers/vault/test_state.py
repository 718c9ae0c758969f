"""The state: what goes in comes out, and what is not ours is none."""

from dataclasses import replace

import msgpack
import pytest

from providers.builtin.provider import BuiltinProvider
from providers.errors import ConfigInvalid
from providers.pki.keys import KeyKind
from providers.vault import state as vault_state
from providers.vault.config import Place
from providers.vault.mount import Issuer
from providers.vault.state import Held, Pending, VaultState
from tests.kit import pki
from tests.kit.fake_vault import TOKEN
from tests.parts.providers.vault.conftest import Caller

HELD = Held(Place("team", "int"), Issuer("issuer", "key", "pem\n"))
PRIMARY = VaultState(
    cluster_id=pki.CLUSTER_ID,
    is_primary=True,
    root=Place("", "root"),
    key_kind=KeyKind("rsa", 2048),
    intent=pki.intent(),
    root_pem="root\n",
    above=("ca\n",),
    signing=HELD,
    generation=3,
    superseded=(HELD, replace(HELD, issuer=Issuer("old", "", "old\n"))),
)
SECONDARY = VaultState(
    pki.CLUSTER_ID, False, Place("", ""), KeyKind("ec", 256), pending=Pending(HELD.place, "k", "csr")
)


@pytest.mark.parametrize("state", [PRIMARY, SECONDARY, replace(PRIMARY, signing=None, above=(), superseded=())])
def test_state_comes_back_as_it_was(state: VaultState) -> None:
    assert vault_state.decode(vault_state.encode(state)) == state


def test_chain_is_the_intermediate_and_what_is_above_it() -> None:
    chain = PRIMARY.chain
    assert chain is not None
    assert (chain.root_pem, chain.signing_cert_pem) == ("root\n", "pem\n")
    assert chain.intermediate_pems == ("pem\n", "ca\n")
    assert SECONDARY.chain is None


def test_state_of_another_provider_is_none() -> None:
    builtin = BuiltinProvider()
    builtin.configure(pki.settings())
    state = builtin.prepare_root(pki.intent())
    for data in (
        b"",
        b"\xc1",
        state,
        vault_state.encode(PRIMARY)[:-9],
        msgpack.packb({"provider": "vault", "format": 1}),
    ):
        assert vault_state.decode(data) is None


def test_state_of_a_newer_version_is_an_error() -> None:
    head = msgpack.unpackb(vault_state.encode(PRIMARY))
    with pytest.raises(ConfigInvalid, match="format 2, this version knows up to 1"):
        vault_state.decode(msgpack.packb({**head, "format": 2}))


def test_state_holds_no_secret(modern: Caller) -> None:
    modern.primary()
    assert TOKEN.encode() not in modern.state
    assert b"PRIVATE KEY" not in modern.state


@pytest.mark.parametrize("damage", ["cert", "truncated"])
def test_state_that_cannot_be_used_is_set_aside(modern: Caller, damage: str) -> None:
    modern.primary()
    if damage == "cert":
        state = vault_state.decode(modern.state)
        assert state is not None
        modern.state = vault_state.encode(replace(state, signing=HELD))
    else:
        modern.state = modern.state[:-1]
    assert modern.provider().chain() is None
