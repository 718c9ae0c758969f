"""The key of a TLS certificate, as servers know each other by it: and the CA that it was trusted by.

A server's key counts as long as the CA is in use under which it was learnt, and the certificate has not expired. When
an operator replaces the agent CA, all certificates are new at once, and only those of the new CA get through the
handshake. And whose certificate has expired can prove its key to nobody any more, while it may have another by now.
"""

import hashlib
import ssl
from typing import Any, Final

#: SHA-256 of the certificate's public key, then of that of the trusted CA which its chain ends at: of each the
#: SubjectPublicKeyInfo (RFC 7469 2.4), so that renewed certificates may keep the key. Then the certificate's end, as
#: Unix seconds.
KEY_BYTES: Final = 72
_HASH_BYTES: Final = 32
_EXPIRY_BYTES: Final = 8
_ENCODING_DER: Final = 2  # of OpenSSL's binding
#: A handshake of TLS 1.3 takes fewer.
_FLIGHTS: Final = 4


def public_part(key: bytes) -> bytes:
    return key[:_HASH_BYTES]


def anchor_part(key: bytes) -> bytes:
    return key[_HASH_BYTES : 2 * _HASH_BYTES]


def expiry_part(key: bytes) -> int:
    return int.from_bytes(key[2 * _HASH_BYTES :], "big")


def key_from(certificate: bytes, anchor: bytes | None) -> bytes:
    """Of two certificates in DER; `anchor` None: of none that is trusted. Raises: ValueError."""
    from cryptography import x509

    end = int(x509.load_der_x509_certificate(certificate).not_valid_after_utc.timestamp())
    anchor_hash = bytes(_HASH_BYTES) if anchor is None else hash_of_certificate(anchor)
    return hash_of_certificate(certificate) + anchor_hash + max(0, end).to_bytes(_EXPIRY_BYTES, "big")


def hash_of_certificate(der: bytes) -> bytes:
    """Of its public key. Raises: ValueError for what is no certificate."""
    # Here and not above: it takes long to import, and commands without TLS do not need it.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        public_key = x509.load_der_x509_certificate(der).public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    return hashlib.sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def hashes_of_file(pem: bytes) -> frozenset[bytes]:
    """Of all certificates in a PEM file. Raises: ValueError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return frozenset(
        hash_of_certificate(cert.public_bytes(Encoding.DER)) for cert in x509.load_pem_x509_certificates(pem)
    )


def first_certificate(pem: bytes) -> bytes:
    """In DER, of a PEM file. Raises: ValueError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)


def verified_chain(connection: Any) -> tuple[bytes, ...]:
    """DER, the peer's certificate first, the trusted CA last. `connection` is an `ssl.SSLObject`.

    Raises: ValueError when there is none.
    """
    # The public method is there from Python 3.13 on; what is behind it, since 3.10.
    chain = connection._sslobj.get_verified_chain() if connection is not None else None
    if not chain:
        raise ValueError("no certificate")
    return tuple(certificate.public_bytes(_ENCODING_DER) for certificate in chain)


def shown_by(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, ...]:
    """The chain that a client verifies when it meets this server: a handshake in memory. Raises: ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_side=False),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    waiting = list(ends)
    for _ in range(_FLIGHTS):
        for end in [*waiting]:
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    return verified_chain(ends[0])
