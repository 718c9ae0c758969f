"""What `quorumca login` sends for a certificate of the mesh: a proof, made from the files that a workload has."""

import ssl
import time
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cluster.access.methods.tls_proof import ProofRefused, login_proof
from cluster.cli.files import read_text
from cluster.client.errors import CommandError
from cluster.tls.contexts import PemFile, TlsFileRefused, load_pair
from providers.pki.x509 import load_bundle

_MAX_FILE_BYTES: Final = 64 << 10
_ANOTHER: Final = (
    "; where that is the certificate of the connection (QUORUMCA_CLIENT_CERT), give the one that logs in as"
    " --proof-cert and --proof-key"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """Paths of PEM files, and how the flags begin that have given them."""

    cert_file: str
    key_file: str
    given_as: Literal["proof", "client"]


def proof_from(pair: Pair, method: str) -> str:
    """For the trust domain of the certificate, leaf first in its file, with the CAs that it was issued with.

    Raises: CommandError.
    """
    cert = PemFile(f"--{pair.given_as}-cert", pair.cert_file)
    key_file = PemFile(f"--{pair.given_as}-key", pair.key_file)
    # Of the connection it may be that of a proxy's client, which is nobody's in the mesh.
    advice = "" if pair.given_as == "proof" else _ANOTHER
    try:
        # Says in the usual words what is wrong with which of the files.
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), cert, key_file)
        chain = load_bundle(read_text(pair.cert_file, _MAX_FILE_BYTES))
        key = load_pem_private_key(read_text(pair.key_file, _MAX_FILE_BYTES).encode(), None)
        return login_proof(chain, key, method, time.time())
    except ProofRefused as error:
        raise CommandError(f"{cert} cannot log in: {error}{advice}") from error
    except TlsFileRefused as error:
        raise CommandError(str(error)) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CommandError(f"{cert} and {key_file} cannot be used") from error
