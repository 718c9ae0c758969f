"""What `quorumca login` sends for a certificate of the mesh: a proof, made from the files that a workload has."""

import ssl
import time
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from cluster.access.methods.tls_proof import ProofRefused, login_proof
from cluster.cli.files import read_text
from cluster.client.api import TlsOptions
from cluster.client.errors import CommandError
from cluster.tls.contexts import PemFile, TlsFileRefused, load_pair
from providers.pki.x509 import load_bundle

_MAX_FILE_BYTES: Final = 64 << 10


def proof_from(tls: TlsOptions, method: str) -> str:
    """For the trust domain of the certificate, leaf first in its file, with the CAs that it was issued with.

    Raises: CommandError.
    """
    try:
        # Says in the usual words what is wrong with which of the files.
        load_pair(
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            PemFile("--client-cert", tls.cert_file),
            PemFile("--client-key", tls.key_file),
        )
        chain = load_bundle(read_text(tls.cert_file, _MAX_FILE_BYTES))
        key = load_pem_private_key(read_text(tls.key_file, _MAX_FILE_BYTES).encode(), None)
        return login_proof(chain, key, method, time.time())
    except ProofRefused as error:
        raise CommandError(f"--client-cert {tls.cert_file} cannot log in: {error}") from error
    except TlsFileRefused as error:
        raise CommandError(str(error)) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CommandError(f"--client-cert {tls.cert_file} and --client-key {tls.key_file} cannot be used") from error
