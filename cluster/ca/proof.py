"""Proof that a CA serves before anything of it is committed: a leaf of it, as clients will get it, is verified.

The leaf is thrown away, and so is its key.
"""

from collections.abc import Mapping, Sequence

from cluster.ca.chain_limits import MAX_CHAIN_BYTES
from cluster.ca.parts import Parts
from cluster.signing.serials import new_serial
from fsm.ca import CARoot
from fsm.state import State
from providers.api import IssuedLeaf
from providers.errors import ChainInvalid
from providers.grants import EVERYTHING
from providers.pki import verify
from providers.pki.serials import serial_bytes
from providers.pki.spiffe import Kind, SpiffeId


async def prove(
    parts: Parts, provider_key: str, state: State, root: CARoot, stores: Mapping[str, Sequence[str]], now: int
) -> None:
    """Sign with the provider that the workers have under this key, and verify against each trust store.

    Raises: ProviderError; ChainInvalid when a client with one of the stores would refuse the leaf.
    """
    spiffe_id = SpiffeId(Kind.MESH_GATEWAY, state.trust_domain, parts.datacenter).uri
    csr_pem, _ = await parts.pool.make_csr(spiffe_id, (), ())
    request = (csr_pem, serial_bytes(new_serial()), EVERYTHING.to_bytes())
    [leaf] = await parts.pool.sign_leaves(provider_key, state.trust_domain, parts.datacenter, now, [request])
    if not isinstance(leaf, IssuedLeaf):
        raise _of_the_ca(leaf) if isinstance(leaf, ChainInvalid) else leaf
    chain = leaf.cert_pem + "".join(link.cert_pem for link in root.intermediates)
    if len(chain) > MAX_CHAIN_BYTES:
        raise ChainInvalid(f"the chain of a leaf would have {len(chain)} bytes, more than {MAX_CHAIN_BYTES}")
    try:
        verify.verify_leaf(chain, {name: list(pems) for name, pems in stores.items()}, now=now, spiffe_id=spiffe_id)
    except ChainInvalid as error:
        raise _of_the_ca(error) from error


def _of_the_ca(error: ChainInvalid) -> ChainInvalid:
    """Whoever reads this has brought a CA, and never asked for a leaf."""
    return ChainInvalid(f"clients would refuse the leaves of this CA: {error}")
