"""A throw-away CA for node-to-node TLS, and certificates of any name, as PEM files."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)
_USAGES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


class Authority:
    """Its own key, valid for a day around now."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test agent CA")])
        key_usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        self._cert = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def write_ca(self, path: Path) -> None:
        path.write_bytes(self._cert.public_bytes(serialization.Encoding.PEM))

    def write_server(self, directory: Path, node: str, days_from_now: float = 0.0) -> None:
        """`<node>.pem` and `<node>.key` of a server of datacenter dc1; good for a day around that moment."""
        self.write_certificate(directory, node, f"{node}.server.dc1.consul", days_from_now)

    def renew_server(self, directory: Path, node: str) -> None:
        """Another certificate for the key that is there."""
        key = serialization.load_pem_private_key((directory / f"{node}.key").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._write(directory, node, f"{node}.server.dc1.consul", key)

    def write_certificate(self, directory: Path, file_name: str, dns_name: str, days_from_now: float = 0.0) -> None:
        self._write(directory, file_name, dns_name, ec.generate_private_key(ec.SECP256R1()), days_from_now)

    def _write(
        self,
        directory: Path,
        file_name: str,
        dns_name: str,
        key: ec.EllipticCurvePrivateKey,
        days_from_now: float = 0.0,
    ) -> None:
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        names = x509.SubjectAlternativeName([x509.DNSName(dns_name), x509.DNSName("localhost"), address])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, dns_name)])
        cert = (
            self._builder(subject, key.public_key(), days_from_now)
            .add_extension(names, critical=False)
            .add_extension(x509.ExtendedKeyUsage(_USAGES), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        (directory / f"{file_name}.pem").write_bytes(cert.public_bytes(pem))
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (directory / f"{file_name}.key").write_bytes(private)

    def _builder(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, days_from_now: float = 0.0
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC) + days_from_now * _DAY
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
        )


#: How a key says that it is encrypted: as PKCS#8 does, and as OpenSSL's own format did before it.
ENCRYPTED_FORMS = {
    "pkcs8": serialization.PrivateFormat.PKCS8,
    "traditional": serialization.PrivateFormat.TraditionalOpenSSL,
}


def encrypted(key_pem: bytes, form: str) -> bytes:
    """The same key under a passphrase, in one of ENCRYPTED_FORMS."""
    key = serialization.load_pem_private_key(key_pem, None)
    encryption = serialization.BestAvailableEncryption(b"a passphrase")
    return key.private_bytes(serialization.Encoding.PEM, ENCRYPTED_FORMS[form], encryption)
