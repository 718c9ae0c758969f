"""What a TLS port takes, found out by trying all of it: a scanner, on nassl, the engine of sslyze.

nassl brings two OpenSSLs: one of today's family, and one of 1.0.2, which still speaks SSL 2 and 3, EXPORT ciphers,
compression, and renegotiation that anybody asks for.
"""

import contextlib
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from nassl._nassl import OpenSSLError
from nassl.ephemeral_key_info import OpenSslEcNidEnum
from nassl.legacy_ssl_client import LegacySslClient
from nassl.ssl_client import ClientCertificateRequested, OpenSslVerifyEnum, OpenSslVersionEnum, SslClient

_SECONDS: Final = 5.0
_EVERYTHING: Final = "ALL:COMPLEMENTOFALL"
_TLS13_SUITES: Final = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
)
#: A ClientHello of TLS 1.2 with one extension, heartbeat (RFC 6520), with cipher suites of that time.
_HELLO_BODY: Final = (
    bytes.fromhex("0303")
    + bytes(32)
    + bytes.fromhex("00" + "0008" + "c02fc030c02bc02c" + "0100")
    + bytes.fromhex("001d" + "000f000101" + "000a00040002001d" + "000d000800060403050308 04".replace(" ", ""))
)
_HANDSHAKE: Final = 22
_HEARTBEAT: Final = 24
#: A heartbeat request that says it has 16 KB, and has none.
_BLEEDING: Final = bytes.fromhex("180303000301 4000".replace(" ", ""))


@dataclass(frozen=True, slots=True)
class Findings:
    versions: frozenset[str]
    tls12_ciphers: frozenset[str]
    tls13_suites: frozenset[str]
    groups: frozenset[str]
    #: None: there is no TLS 1.2, or none that was agreed on.
    compression: str | None
    renegotiates: bool | None
    falls_back: bool  # takes an older version from a client that says that it has been made to
    answers_heartbeats: bool


class Scanner:
    """Of one port, `host:port`."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = host, int(port)

    def findings(self) -> Findings:
        return Findings(
            versions=frozenset(self._versions()),
            tls12_ciphers=frozenset(self._tls12_ciphers()),
            tls13_suites=frozenset(suite for suite in _TLS13_SUITES if self._takes_suite(suite)),
            groups=frozenset(self._groups()),
            compression=self._compression(),
            renegotiates=self._renegotiates(),
            falls_back=self._falls_back(),
            answers_heartbeats=self._answers_heartbeats(),
        )

    def _versions(self) -> Iterator[str]:
        for version in OpenSslVersionEnum:
            if version is OpenSslVersionEnum.SSLV23:
                continue  # any
            with self._client(version, is_legacy=version is not OpenSslVersionEnum.TLSV1_3) as client:
                if version is not OpenSslVersionEnum.TLSV1_3 and version is not OpenSslVersionEnum.SSLV2:
                    client.set_cipher_list(_EVERYTHING)
                if _shakes_hands(client):
                    yield version.name

    def _tls12_ciphers(self) -> Iterator[str]:
        for is_legacy in (True, False):
            with self._client(OpenSslVersionEnum.TLSV1_2, is_legacy=is_legacy) as client:
                client.set_cipher_list(_EVERYTHING)
                offered = [name for name in client.get_cipher_list() if not name.startswith("TLS_")]
            assert len(offered) > 50
            # All at once, and those that are taken left out one by one: most are never taken.
            while offered:
                with self._client(OpenSslVersionEnum.TLSV1_2, is_legacy=is_legacy) as client:
                    client.set_cipher_list(":".join(offered))
                    if not _shakes_hands(client):
                        break
                    taken = client.get_current_cipher_name()
                yield taken
                offered.remove(taken)

    def _takes_suite(self, suite: str) -> bool:
        with self._client(OpenSslVersionEnum.TLSV1_3) as client:
            assert isinstance(client, SslClient)
            client.set_ciphersuites(suite)
            return _shakes_hands(client)

    def _groups(self) -> Iterator[str]:
        for version in (OpenSslVersionEnum.TLSV1_2, OpenSslVersionEnum.TLSV1_3):
            for group in OpenSslEcNidEnum:
                with self._client(version) as client:
                    assert isinstance(client, SslClient)
                    try:
                        client.set_groups([group])
                    except OpenSSLError:
                        continue  # TLS 1.3 has no word for it
                    if _shakes_hands(client):
                        yield group.name

    def _compression(self) -> str | None:
        assert LegacySslClient.get_available_compression_methods(), "the scanner itself cannot compress"
        with self._client(OpenSslVersionEnum.TLSV1_2, is_legacy=True) as client:
            assert isinstance(client, LegacySslClient)
            return (client.get_current_compression_method() or "") if _shakes_hands(client) else None

    def _renegotiates(self) -> bool | None:
        with self._client(OpenSslVersionEnum.TLSV1_2, is_legacy=True) as client:
            assert isinstance(client, LegacySslClient)
            if not _shakes_hands(client):
                return None
            assert client.get_secure_renegotiation_support()  # RFC 5746
            try:
                client.do_renegotiate()
            except (OpenSSLError, OSError):
                return False
            return True

    def _falls_back(self) -> bool:
        with self._client(OpenSslVersionEnum.TLSV1_2, is_legacy=True) as client:
            assert isinstance(client, LegacySslClient)
            client.enable_fallback_scsv()
            return _shakes_hands(client)

    def _answers_heartbeats(self) -> bool:
        message = b"\x01" + len(_HELLO_BODY).to_bytes(3) + _HELLO_BODY
        record = bytes([_HANDSHAKE]) + b"\x03\x01" + len(message).to_bytes(2) + message
        with socket.create_connection(self._address, _SECONDS) as sock:
            sock.sendall(record)
            # Whatever it says to the first, the second comes right behind, before there are keys: as Heartbleed was.
            sock.sendall(_BLEEDING)
            return _HEARTBEAT in _record_types(sock)

    @contextlib.contextmanager
    def _client(self, version: OpenSslVersionEnum, *, is_legacy: bool = False) -> Iterator[LegacySslClient | SslClient]:
        kind = LegacySslClient if is_legacy else SslClient
        with socket.create_connection(self._address, _SECONDS) as sock:
            yield kind(sock, version, OpenSslVerifyEnum.NONE)


def _shakes_hands(client: LegacySslClient | SslClient) -> bool:
    try:
        client.do_handshake()
    except ClientCertificateRequested:
        return True  # all that was asked for was agreed on
    except (OpenSSLError, OSError):
        return False
    return True


def _record_types(sock: socket.socket) -> Iterable[int]:
    data = b""
    with contextlib.suppress(OSError):
        while chunk := sock.recv(65536):
            data += chunk
    while len(data) >= 5:
        yield data[0]
        data = data[5 + int.from_bytes(data[3:5]) :]
