"""What a machine shows of its join token: a signature, over what it asks for and over whom it asks.

The token is the seed of an Ed25519 key (RFC 8032) and never leaves the machine; the cluster keeps the public half. What
is signed is good for one server's key, the one that the machine has met in the handshake. So somebody who has a
certificate of the agent CA, and gets a machine to ask there, has nothing that a server would take.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

#: Of the public half.
PUBLIC_BYTES: Final = 32
PROOF_BYTES: Final = 64
#: SHA-256 of a public key.
SERVER_KEY_BYTES: Final = 32
_SEED: Final = b"quorumca join token 1"
_SIGNED: Final = b"quorumca join 1"


@dataclass(frozen=True, slots=True)
class JoinStatement:
    """What is asked for, and of whom."""

    name: str
    raft_address: str
    rpc_address: str
    csr_pem: str
    server_key: bytes  # of the server that the machine has met (`keys.hash_of_certificate`)

    def packed(self) -> bytes:
        """Each part with its length: nothing of one can be taken for a part of the next."""
        texts = (self.name, self.raft_address, self.rpc_address, self.csr_pem)
        parts = (_SIGNED, *(text.encode("utf-8", "surrogatepass") for text in texts), self.server_key)
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def public_of(token: str) -> bytes:
    """What the cluster keeps of a token."""
    return _key_of(token).public_key().public_bytes_raw()


def prove(token: str, statement: JoinStatement) -> bytes:
    return _key_of(token).sign(statement.packed())


def is_proved(public: bytes, statement: JoinStatement, proof: bytes) -> bool:
    # Here and not above: it takes long to import, and a node that nobody joins by has no use for it.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(proof, statement.packed())
    except (InvalidSignature, ValueError):
        return False
    return True


def _key_of(token: str) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    seed = HKDF(SHA256(), 32, salt=None, info=_SEED).derive(token.encode("utf-8", "surrogatepass"))
    return Ed25519PrivateKey.from_private_bytes(seed)
