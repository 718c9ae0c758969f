"""Proof that a CA serves before anything of it is committed: a leaf of it, as clients will get it, is verified.

The leaf is thrown away, and so is its key.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from cluster.ca.authority import Authority
from cluster.signing.pipeline import minimal
from cluster.signing.serials import new_serial
from fsm.state import CARoot, State
from providers.api import IssuedLeaf
from providers.errors import ChainInvalid
from providers.pki import verify
from providers.pki.spiffe import Kind, SpiffeId

#: Leaf and CAs together, PEM: TLS stacks refuse longer chains, and every handshake carries them.
MAX_CHAIN_BYTES: Final = 32 << 10


async def prove(
    authority: Authority, provider_key: str, state: State, root: CARoot, stores: Mapping[str, Sequence[str]], now: int
) -> None:
    """Sign with the provider that the workers have under this key, and verify against each trust store.

    Raises: ProviderError; ChainInvalid when a client with one of the stores would refuse the leaf.
    """
    spiffe_id = SpiffeId(Kind.MESH_GATEWAY, state.trust_domain, authority.datacenter).uri
    csr_pem, _ = await authority.pool.make_csr(spiffe_id, (), ())
    [leaf] = await authority.pool.sign_leaves(
        provider_key, state.trust_domain, authority.datacenter, now, [(csr_pem, minimal(new_serial()))]
    )
    if not isinstance(leaf, IssuedLeaf):
        raise leaf
    chain = leaf.cert_pem + "".join(link.cert_pem for link in root.intermediates)
    if len(chain) > MAX_CHAIN_BYTES:
        raise ChainInvalid(f"the chain of a leaf would have {len(chain)} bytes, more than {MAX_CHAIN_BYTES}")
    verify.verify_leaf(chain, {name: list(pems) for name, pems in stores.items()}, now=now, spiffe_id=spiffe_id)
