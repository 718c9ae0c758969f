"""The Vault provider against a real server: what the memory one in tests/unit cannot know.

Logins, policies, namespaces, TLS, and a server that is sealed, stopped, restarted, slow, or changed behind our back.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import signal
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from providers.api import IntermediateRequest
from providers.errors import (
    ConfigInvalid,
    ProviderError,
    ProviderRefused,
    ProviderUnavailable,
    RateLimited,
    SigningKeyGone,
)
from providers.pki import verify
from providers.vault.provider import VaultProvider
from tests.contract.conftest import CA, Bench, Subject
from tests.kit import pki
from tests.kit.vault_server import Refused, VaultServer, any_vault, named_vault, running_vault, standby_of, write_tls
from tests.kit.wait import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultServer]:
    with any_vault(tmp_path_factory.mktemp("vault")) as server:
        yield server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[VaultServer]:
    """One that a test may hurt."""
    with running_vault(tmp_path) as server:
        yield server


def bench_of(server: VaultServer) -> Bench:
    return Bench(Subject("vault", VaultProvider, server.config))


@pytest.fixture
def bench(server: VaultServer) -> Iterator[Bench]:
    bench = bench_of(server)
    yield bench
    for provider in bench.made:
        provider.close()


@pytest.fixture
def own(own_server: VaultServer) -> Iterator[Bench]:
    bench = bench_of(own_server)
    yield bench
    for provider in bench.made:
        provider.close()


class MovedClock:
    """The real time, moved on where a test would have to wait."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def moved(server: VaultServer, clock: MovedClock) -> Iterator[Bench]:
    """Providers whose upkeep goes by `clock`."""
    bench = Bench(Subject("vault", lambda: VaultProvider(clock=clock), server.config))
    yield bench
    for provider in bench.made:
        provider.close()


def can_sign(ca: CA) -> bool:
    try:
        ca.leaf()
    except ProviderError:
        return False
    return True


def mount_of(ca: CA, which: str) -> str:
    return str(ca.settings.config[which]).strip("/")


# --- calls and policies -------------------------------------------------------------------------------------------

_DOCUMENT = Path(__file__).parents[2] / "docs" / "vault.md"
#: What that tells operators to allow: for mounts that we make, and for those of others, which we may use and no more.
_POLICY, _MANAGED_POLICY = re.findall(r'(?:^path ".*\n)+', _DOCUMENT.read_text(), re.MULTILINE)


def config_with(server: VaultServer, policy: str) -> dict[str, Any]:
    """The mounts of the document are ours."""
    config = server.config()
    for name, paths in (("RootPKIPath", r"(mesh|corp)-root"), ("IntermediatePKIPath", r"(mesh|corp)-dc1")):
        policy = re.sub(rf"\b{paths}\b", str(config[name]).strip("/"), policy)
    return {**config, "Token": server.token_for(policy, no_default_policy=False)}


def test_documented_policy_is_enough_for_everything(bench: Bench, server: VaultServer) -> None:
    config = config_with(server, _POLICY)
    ca = bench.primary(**config)
    ca.leaf()
    assert ca.provider.supports_cross_signing()
    ca.cross_sign(bench.primary().chain.root_pem)
    secondary = bench.secondary(ca)
    secondary.leaf()
    _, state = ca.provider.renew_signing_cert()
    renewed = bench.provider(replace(ca.settings, state=state))
    renewed.cleanup()
    with pytest.raises(Refused):
        server.call("GET", f"sys/mounts/{mount_of(ca, 'IntermediatePKIPath')}")


def test_mounts_managed_by_others_are_used_and_left_alone(bench: Bench, server: VaultServer) -> None:
    config = config_with(server, _MANAGED_POLICY)
    root, intermediate = (str(config[name]).strip("/") for name in ("RootPKIPath", "IntermediatePKIPath"))
    for path in (root, intermediate):
        server.call("POST", f"sys/mounts/{path}", {"type": "pki", "config": {"max_lease_ttl": "90000h"}})
    body = {"common_name": "their root", "key_type": "rsa", "key_bits": 2048, "ttl": "90000h"}
    theirs = server.call("POST", f"{root}/root/generate/internal", body)["data"]["certificate"]
    ca = bench.primary(**config)
    assert pki.load(ca.chain.root_pem) == pki.load(theirs)
    leaf = ca.leaf()
    verify.verify_leaf(ca.served(leaf), {"theirs": [theirs]}, now=bench.now, spiffe_id=ca.uri())
    assert not ca.provider.supports_cross_signing()
    ca.provider.cleanup()
    assert server.issuers(intermediate) == server.keys(intermediate) == []
    assert server.call("GET", f"sys/mounts/{intermediate}")["type"] == "pki"


def test_path_that_the_policy_denies_is_named(bench: Bench, server: VaultServer) -> None:
    config = config_with(server, 'path "mesh-root/*" { capabilities = ["read"] }')
    with pytest.raises(ProviderRefused, match=r"Vault denies (POST|GET) .*policy of the token"):
        bench.primary(**config)


@pytest.mark.parametrize("which", ["RootPKIPath", "IntermediatePKIPath"])
@pytest.mark.parametrize("engine", [{"type": "kv"}, {"type": "kv", "options": {"version": "2"}}, {"type": "transit"}])
def test_mount_of_another_engine_is_refused_before_anything_is_made(
    bench: Bench, server: VaultServer, which: str, engine: dict[str, Any]
) -> None:
    config = server.config()
    server.call("POST", f"sys/mounts/{str(config[which]).strip('/')}", engine)
    mounts = set(server.call("GET", "sys/mounts")["data"])
    with pytest.raises(ProviderRefused, match="is not the PKI engine: Vault answers 40"):
        bench.primary(**config)
    assert set(server.call("GET", "sys/mounts")["data"]) == mounts


def test_root_that_may_not_sign_an_intermediate_is_refused_before_anything_is_made(
    bench: Bench, server: VaultServer
) -> None:
    config = server.config()
    root = str(config["RootPKIPath"]).strip("/")
    server.call("POST", f"sys/mounts/{root}", {"type": "pki"})
    body = {"common_name": "short", "key_type": "ec", "key_bits": 256, "max_path_length": 0}
    server.call("POST", f"{root}/root/generate/internal", body)
    mounts = set(server.call("GET", "sys/mounts")["data"])
    with pytest.raises(ConfigInvalid, match="cannot sign an intermediate: the path length of CN=short is 0"):
        bench.primary(**config)
    assert set(server.call("GET", "sys/mounts")["data"]) == mounts


def test_ca_that_never_came_into_use_leaves_no_mount(bench: Bench, server: VaultServer) -> None:
    ca = bench.primary()
    ca.provider.cleanup(is_unused=True)
    mounts = server.call("GET", "sys/mounts")["data"]
    assert not [
        path for path in mounts if path.strip("/") in (mount_of(ca, "RootPKIPath"), mount_of(ca, "IntermediatePKIPath"))
    ]


def test_nothing_that_is_signed_stays_in_vault(bench: Bench, server: VaultServer) -> None:
    ca = bench.primary()
    before = server.certificates(mount_of(ca, "IntermediatePKIPath"))
    ca.leaves([ca.csr()] * 5)
    assert server.certificates(mount_of(ca, "IntermediatePKIPath")) == before


def test_trust_anchor_may_be_above_the_mounted_ca(bench: Bench, server: VaultServer) -> None:
    config = server.config()
    root = str(config["RootPKIPath"]).strip("/")
    server.call("POST", f"sys/mounts/{root}", {"type": "pki", "config": {"max_lease_ttl": "90000h"}})
    body = {"common_name": "CA below", "key_type": "ec", "key_bits": 256}
    csr = server.call("POST", f"{root}/intermediate/generate/internal", body)["data"]["csr"]
    top = bench.primary()
    above = mount_of(top, "RootPKIPath")
    # Vault lets an intermediate outlive its root by the seconds between the two calls; a ttl of its own keeps it below.
    asked = {"csr": csr, "common_name": "CA below", "ttl": "80000h"}
    signed = server.call("POST", f"{above}/root/sign-intermediate", asked)["data"]
    pems = signed["certificate"] + "\n" + top.chain.root_pem
    server.call("POST", f"{root}/intermediate/set-signed", {"certificate": pems})
    ca = bench.primary(**config)
    assert pki.load(ca.chain.root_pem) == pki.load(top.chain.root_pem)
    assert len(ca.chain.intermediate_pems) == 2
    anchor = {"anchor": [ca.chain.root_pem]}
    verify.verify_leaf(ca.served(ca.leaf()), anchor, now=bench.now, spiffe_id=ca.uri())


def test_namespaces_keep_mounts_apart(bench: Bench, server: VaultServer) -> None:
    try:
        for name in ("nsroot", "nsint"):
            server.call("POST", f"sys/namespaces/{server.prefix}{name}", {})
    except Refused:
        pytest.skip("this server has no namespaces")
    root, intermediate = f"{server.prefix}nsroot", f"{server.prefix}nsint"
    ca = bench.primary(RootPKINamespace=root, IntermediatePKINamespace=intermediate)
    ca.leaf()
    path = mount_of(ca, "RootPKIPath")
    assert server.call("GET", f"sys/mounts/{path}", ns=root)["description"] == "root CA backend for Consul Connect"
    with pytest.raises(Refused):
        server.call("GET", f"sys/mounts/{path}")


def test_rate_limit_of_vault_is_passed_on(bench: Bench, server: VaultServer) -> None:
    ca = bench.primary()
    ca.leaf()
    quota = f"sys/quotas/rate-limit/{server.prefix}"
    path = mount_of(ca, "IntermediatePKIPath")
    server.call("POST", quota, {"path": path, "rate": 1, "interval": "60s"})
    try:
        results = ca.leaves([ca.csr()] * 20)
    finally:
        server.call("DELETE", quota)
    limited = [result for result in results if isinstance(result, RateLimited)]
    assert limited
    assert limited[0].retry_after_seconds >= 1
    assert can_sign(ca)


# --- logins -------------------------------------------------------------------------------------------------------


def _auth(server: VaultServer, kind: str) -> str:
    """A fresh mount of an auth method; its path."""
    path = f"{server.prefix}-{kind}-{next(server.names)}"
    server.call("POST", f"sys/auth/{path}", {"type": kind})
    return path


@pytest.fixture
def everything(server: VaultServer) -> str:
    """A policy that allows all that a test needs."""
    name = f"{server.prefix}-all"
    capabilities = '["create", "read", "update", "delete", "list", "sudo"]'
    server.call("PUT", f"sys/policies/acl/{name}", {"policy": f'path "*" {{ capabilities = {capabilities} }}'})
    return name


def _primary_by_login(
    bench: Bench, kind: str, path: str, params: dict[str, object], files: Path | None = None, **config: object
) -> CA:
    """`files` is the node's directory for credentials."""
    method = {"Type": kind, "MountPath": path, "Params": params}
    bench.credentials_dir = str(files or "")
    ca = bench.primary(Token="", AuthMethod=method, **config)
    ca.leaf()
    return ca


def test_approle_logs_in_again_when_its_token_is_revoked(bench: Bench, server: VaultServer, everything: str) -> None:
    path = _auth(server, "approle")
    server.call("POST", f"auth/{path}/role/mesh", {"token_policies": [everything], "token_ttl": "1h"})
    role_id = server.call("GET", f"auth/{path}/role/mesh/role-id")["data"]["role_id"]
    secret_id = server.call("POST", f"auth/{path}/role/mesh/secret-id", {})["data"]["secret_id"]
    ca = _primary_by_login(bench, "approle", path, {"role_id": role_id, "secret_id": secret_id})
    server.call("POST", f"sys/leases/revoke-prefix/auth/{path}/login", {"sync": True})
    wait_until("it signs", lambda: can_sign(ca))
    with pytest.raises(ProviderUnavailable, match="error logging in to Vault with auth method approle"):
        _primary_by_login(bench, "approle", path, {"role_id": role_id, "secret_id": "wrong"})


def test_userpass_logs_in(bench: Bench, server: VaultServer, everything: str) -> None:
    path = _auth(server, "userpass")
    server.call("POST", f"auth/{path}/users/ann", {"password": "p-secret", "token_policies": [everything]})
    _primary_by_login(bench, "userpass", path, {"username": "ann", "password": "p-secret"})
    with pytest.raises(ProviderUnavailable, match="error logging in") as caught:
        _primary_by_login(bench, "userpass", path, {"username": "ann", "password": "q-secret"})
    assert "secret" not in str(caught.value)


def test_client_certificate_logs_in(bench: Bench, server: VaultServer, everything: str) -> None:
    if server.directory is None:
        pytest.skip("needs a listener with our CA")
    path = _auth(server, "cert")
    ca_pem = Path(server.ca_file).read_text()
    server.call("POST", f"auth/{path}/certs/mesh", {"certificate": ca_pem, "token_policies": [everything]})
    files = {"CertFile": str(server.directory / "client.pem"), "KeyFile": str(server.directory / "client.key")}
    _primary_by_login(bench, "cert", path, {"name": "mesh"}, server.directory, **files)


def test_jwt_logs_in(bench: Bench, server: VaultServer, everything: str, tmp_path: Path) -> None:
    path = _auth(server, "jwt")
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    server.call("POST", f"auth/{path}/config", {"jwt_validation_pubkeys": [public.decode()]})
    role = {"role_type": "jwt", "bound_audiences": ["vault"], "user_claim": "sub", "token_policies": [everything]}
    server.call("POST", f"auth/{path}/role/mesh", role)
    now = int(time.time())
    (tmp_path / "jwt").write_text(_jwt(key, {"sub": "node", "aud": "vault", "nbf": now - 60, "exp": now + 600}))
    _primary_by_login(bench, "jwt", path, {"role": "mesh", "path": str(tmp_path / "jwt")}, tmp_path)


def test_service_account_of_kubernetes_logs_in(
    bench: Bench, server: VaultServer, everything: str, tmp_path: Path
) -> None:
    if server.directory is None:
        pytest.skip("needs certificates of ours")
    path = _auth(server, "kubernetes")
    now = int(time.time())
    claims = {
        "sub": "system:serviceaccount:mesh:ca",
        "nbf": now - 60,
        "exp": now + 600,
        "kubernetes.io": {"namespace": "mesh", "serviceaccount": {"name": "ca", "uid": "u-1"}},
    }
    token = _jwt(ec.generate_private_key(ec.SECP256R1()), claims)
    with _kubernetes(server.directory, token) as address:
        ca_pem = Path(server.ca_file).read_text()
        config = {"kubernetes_host": address, "kubernetes_ca_cert": ca_pem, "disable_local_ca_jwt": True}
        server.call("POST", f"auth/{path}/config", config)
        role = {
            "bound_service_account_names": ["ca"],
            "bound_service_account_namespaces": ["mesh"],
            "token_policies": [everything],
        }
        server.call("POST", f"auth/{path}/role/mesh", role)
        (tmp_path / "token").write_text(token)
        _primary_by_login(bench, "kubernetes", path, {"role": "mesh", "token_path": str(tmp_path / "token")}, tmp_path)


@contextlib.contextmanager
def _kubernetes(directory: Path, token: str) -> Iterator[str]:
    """As much of its API as Vault asks: whose token this is."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the library's name
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            user = {"username": "system:serviceaccount:mesh:ca", "uid": "u-1", "groups": []}
            status = {"authenticated": asked["spec"]["token"] == token, "user": user}
            body = json.dumps({**asked, "status": status}).encode()
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as api:
        api.socket = context.wrap_socket(api.socket, server_side=True)
        thread = threading.Thread(target=api.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"https://127.0.0.1:{api.server_address[1]}"
        finally:
            api.shutdown()
            thread.join()


def _jwt(key: ec.EllipticCurvePrivateKey, claims: dict[str, object]) -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = ".".join(part(json.dumps(value).encode()) for value in ({"alg": "ES256", "typ": "JWT"}, claims))
    digest = hashlib.sha256(signed.encode()).digest()
    r, s = utils.decode_dss_signature(key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256()))))
    return f"{signed}.{part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def test_short_token_is_renewed_while_nothing_is_signed(bench: Bench, server: VaultServer, everything: str) -> None:
    answer = server.call("POST", "auth/token/create", {"policies": [everything], "period": "12s", "orphan": True})
    ca = bench.primary(Token=answer["auth"]["client_token"])
    deadline = time.monotonic() + 30
    wait_until("twice its lifetime", lambda: time.monotonic() > deadline - 5)
    ca.leaf()
    assert list(ca.provider.warnings()) == []


def test_token_that_cannot_be_renewed_is_warned_of(bench: Bench, server: VaultServer, everything: str) -> None:
    body = {"policies": [everything], "ttl": "1h", "renewable": False}
    ca = bench.primary(Token=server.call("POST", "auth/token/create", body)["auth"]["client_token"])
    [warning] = ca.provider.warnings()
    assert "is not renewable: configure another Token, or an AuthMethod" in warning


def test_revoked_token_is_said_and_another_repairs(bench: Bench, server: VaultServer, everything: str) -> None:
    token = server.call("POST", "auth/token/create", {"policies": [everything]})["auth"]["client_token"]
    ca = bench.primary(Token=token)
    server.call("POST", "auth/token/revoke", {"token": token})
    with pytest.raises(ProviderUnavailable, match="the Vault token is refused") as caught:
        ca.leaf()
    assert token not in str(caught.value)
    ca.provider = ca.reopened(Token=server.token)
    assert ca.provider.chain() == ca.chain
    ca.leaf()


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(server: VaultServer) -> VaultServer:
    if server.directory is None:
        pytest.skip("needs a listener with our CA")
    return server


def test_ca_path_and_server_name_are_used(bench: Bench, tls: VaultServer, tmp_path: Path) -> None:
    (tmp_path / "any-name").write_text(Path(tls.ca_file).read_text())
    bench.primary(CAFile="", CAPath=str(tmp_path), TLSServerName="vault.test").leaf()
    bench.primary(CAFile="", TLSSkipVerify=True).leaf()


@pytest.mark.parametrize("change", [{"CAFile": ""}, {"TLSServerName": "other.test"}], ids=["stranger", "name"])
def test_server_that_is_not_the_right_one_is_not_talked_to(
    bench: Bench, tls: VaultServer, change: dict[str, str]
) -> None:
    with pytest.raises(ProviderUnavailable, match=r"no TLS connection .*certificate verify failed.*: check Address"):
        bench.primary(**change)


def test_plain_http_to_a_tls_listener_is_said(bench: Bench, tls: VaultServer) -> None:
    with pytest.raises(ProviderError):
        bench.primary(Address=tls.address.replace("https", "http"))


def test_missing_tls_file_is_named(bench: Bench) -> None:
    with pytest.raises(ConfigInvalid, match=r"CAFile /nowhere\.pem cannot be used"):
        bench.primary(CAFile="/nowhere.pem")


# --- a server in trouble ------------------------------------------------------------------------------------------

needs_own = pytest.mark.skipif(named_vault() is not None, reason="the named server is not ours to hurt")


@needs_own
def test_sealed_server_is_said_and_signing_goes_on_when_it_is_unsealed(own: Bench, own_server: VaultServer) -> None:
    ca = own.primary()
    ca.leaf()
    own_server.seal()
    with pytest.raises(ProviderUnavailable, match="Vault is sealed"):
        ca.leaf()
    # A new leader has the CA all the same.
    ca.provider = ca.reopened()
    assert ca.provider.chain() == ca.chain
    with pytest.raises(ProviderUnavailable, match="Vault is sealed"):
        ca.leaf()
    own_server.unseal()
    wait_until("it signs", lambda: can_sign(ca))


@needs_own
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
def test_restarted_server_goes_on_with_the_same_ca(own: Bench, own_server: VaultServer, how: signal.Signals) -> None:
    ca = own.primary()
    before = ca.leaf()
    own_server.stop(how)
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        ca.leaf()
    own_server.start()
    wait_until("it signs", lambda: can_sign(ca))
    assert ca.leaf().issuer_key_id == before.issuer_key_id
    assert ca.provider.renew_signing_cert()[0].root_pem == ca.chain.root_pem


@needs_own
def test_slow_server_holds_up_nobody_for_long(own: Bench, own_server: VaultServer) -> None:
    ca = own.primary()
    ca.leaf()
    own_server.pause()
    try:
        started = time.monotonic()
        results = ca.leaves([ca.csr()] * 32)
        first = time.monotonic() - started
        started = time.monotonic()
        again = ca.leaves([ca.csr()] * 32)
        second = time.monotonic() - started
    finally:
        own_server.resume()
    assert all(isinstance(result, ProviderUnavailable) for result in [*results, *again])
    assert "does not answer in time" in str(again[-1])
    assert first < 20
    assert second < 10  # at most one try; all others are refused at once
    wait_until("it signs", lambda: can_sign(ca))


@needs_own
def test_standby_passes_on_to_the_active_server_and_says_when_there_is_none(
    own: Bench, own_server: VaultServer, tmp_path: Path
) -> None:
    """OpenBao's signs by itself what it need not store; so what must be stored is asked of it."""
    with standby_of(own_server, tmp_path / "standby") as standby:
        ca = own.primary()
        ca.provider = ca.reopened(Address=standby.address)
        wait_until("it signs", lambda: can_sign(ca))  # it learns of new mounts a moment later
        ca.provider.renew_signing_cert()
        own_server.stop(signal.SIGKILL)

        def is_said() -> bool:
            with pytest.raises(ProviderUnavailable) as caught:
                ca.provider.renew_signing_cert()
            # It may send to the active server that was, too.
            return str(caught.value).startswith("Vault is unavailable")

        def is_renewed() -> bool:
            with contextlib.suppress(ProviderUnavailable):
                return ca.provider.renew_signing_cert()[0].root_pem == ca.chain.root_pem
            return False

        wait_until("it says what is wrong", is_said)
        own_server.start()
        wait_until("it renews", is_renewed)
        wait_until("it signs", lambda: can_sign(ca))


@needs_own
def test_server_with_a_strangers_certificate_is_left_alone_until_it_has_its_own_again(
    own: Bench, own_server: VaultServer, tmp_path: Path
) -> None:
    ca = own.primary()
    ca.leaf()
    own_files, others = tmp_path / "own", tmp_path / "others"
    others.mkdir()
    write_tls(others)
    own_server.save_tls(own_files)
    own_server.restart_with_tls(others)

    def is_said() -> bool:
        with pytest.raises(ProviderUnavailable) as caught:
            ca.leaf()
        return "no TLS connection" in str(caught.value) and "certificate verify failed" in str(caught.value)

    wait_until("it says what is wrong", is_said)
    own_server.restart_with_tls(own_files)
    wait_until("it signs", lambda: can_sign(ca))


def test_answers_that_a_proxy_delays_are_waited_for_and_not_for_long(bench: Bench, tls: VaultServer) -> None:
    host, _, port = tls.address.removeprefix("https://").partition(":")
    with relay_to(host, int(port)) as relay:
        ca = bench.primary(Address=f"https://127.0.0.1:{relay.server_address[1]}")
        relay.delay_seconds = 0.5
        ca.leaf()  # slow is not away
        relay.delay_seconds = 8.0
        started = time.monotonic()
        results = ca.leaves([ca.csr()] * 32)
        assert time.monotonic() - started < 20
        assert all("does not answer in time" in str(result) for result in results)
        relay.delay_seconds = 0.0
        wait_until("it signs", lambda: can_sign(ca))


class _Relay(socketserver.ThreadingTCPServer):
    """What comes back from the target comes late."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Relaying)
        self.target = host, port
        self.delay_seconds = 0.0


class _Relaying(socketserver.BaseRequestHandler):
    server: _Relay

    def handle(self) -> None:
        with socket.create_connection(self.server.target) as there:
            back = threading.Thread(target=self._pass, args=(there, self.request), daemon=True)
            back.start()
            self._pass(self.request, there)
            back.join()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if sink is self.request:
                    time.sleep(self.server.delay_seconds)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def relay_to(host: str, port: int) -> Iterator[_Relay]:
    with _Relay(host, port) as relay:
        thread = threading.Thread(target=relay.serve_forever, daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            relay.shutdown()
            thread.join()


def test_clock_that_is_behind_that_of_vault_is_said(bench: Bench) -> None:
    ca = bench.primary()
    bench.now -= 300
    with pytest.raises(
        ProviderUnavailable, match=r"begins \d+s from now: the clock of Vault, or of this node, is wrong"
    ):
        ca.leaf()
    bench.now += 300
    ca.leaf()


@needs_own
def test_deleted_mount_is_repaired_below_the_same_root(own: Bench, own_server: VaultServer) -> None:
    ca = own.primary()
    ca.leaf()
    own_server.call("DELETE", f"sys/mounts/{mount_of(ca, 'IntermediatePKIPath')}")
    with pytest.raises(SigningKeyGone, match="has been removed"):
        ca.leaf()
    chain, state = ca.provider.renew_signing_cert()
    assert chain.root_pem == ca.chain.root_pem
    repaired = CA(own, own.provider(replace(ca.settings, state=state)), chain, ca.settings)
    repaired.leaf()


def test_deleted_issuer_and_role_are_noticed(bench: Bench, server: VaultServer) -> None:
    ca = bench.primary()
    mount = mount_of(ca, "IntermediatePKIPath")
    ca.leaf()
    server.call("DELETE", f"{mount}/roles/leaf-cert")
    ca.leaf()
    [issuer] = server.issuers(mount)
    server.call("DELETE", f"{mount}/issuer/{issuer}")
    with pytest.raises(SigningKeyGone):
        ca.leaf()


def test_replaced_root_is_reported(bench: Bench, server: VaultServer) -> None:
    ca = bench.primary()
    root = mount_of(ca, "RootPKIPath")
    body = {"common_name": "another", "key_type": "ec", "key_bits": 256}
    other = server.call("POST", f"{root}/root/rotate/internal", body)["data"]["issuer_id"]
    server.call("POST", f"{root}/root/replace", {"default": other})
    wait_until("it is warned of", ca.provider.warnings)
    assert "is not the one at RootPKIPath" in ca.provider.warnings()[0]
    ca.leaf()
    with pytest.raises(ProviderError, match="is not the one at RootPKIPath"):
        ca.sign_intermediate(pki.csr_pem(pki.key(number=9), uri=pki.ROOT_URI))


# --- one intermediate for each need -------------------------------------------------------------------------------


def test_elections_and_renewals_leave_one_intermediate_behind(
    moved: Bench, clock: MovedClock, server: VaultServer
) -> None:
    ca = moved.primary()
    mount = mount_of(ca, "IntermediatePKIPath")
    for _ in range(3):
        ca.reopened().generate_root()
    assert len(server.issuers(mount)) == len(server.keys(mount)) == 1
    for _ in range(3):
        _, state = ca.provider.renew_signing_cert()
        ca.settings = replace(ca.settings, state=state)
        ca.provider = ca.reopened()
        ca.leaf()
    assert len(server.issuers(mount)) == len(server.keys(mount)) == 2
    clock.advance(61)
    wait_until(
        "one intermediate is left",
        lambda: len(server.issuers(mount)) == len(server.keys(mount)) == 1,
    )
    default = server.call("GET", f"{mount}/config/issuers")["data"]["default"]
    assert [default] == server.issuers(mount)


def test_secondary_keeps_one_intermediate(moved: Bench, clock: MovedClock, server: VaultServer) -> None:
    primary = moved.primary()
    secondary = moved.secondary(primary)
    mount = mount_of(secondary, "IntermediatePKIPath")
    for number in range(3):
        csr, _ = secondary.provider.generate_intermediate_csr()
        request = IntermediateRequest(csr, pki.serial(number), moved.now)
        answer = primary.provider.sign_intermediate(request)
        _, state = secondary.provider.set_intermediate(answer, primary.chain.root_pem)
        secondary.settings = replace(secondary.settings, state=state)
        secondary.provider = secondary.reopened()
        clock.advance(61)
        wait_until(
            "one intermediate is left",
            lambda: len(server.issuers(mount)) == len(server.keys(mount)) == 1,
        )
        secondary.leaf()
