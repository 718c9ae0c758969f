"""What an operator's root may say is judged before any of it is committed: a root is refused with the reason and
nothing changes, or it is taken, and then OpenSSL accepts leaves with each listed root, now and once it is rotated out.
"""

import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from cluster.api.ca import RotateRequest
from cluster.base.errors import InternalError, Refused
from cluster.signing.serials import new_serial
from fsm.ca import CARoot
from providers.api import CAChain
from providers.errors import ChainInvalid, CSRRejected
from providers.pki import verify
from providers.pki.serials import serial_bytes
from tests.kit import pki
from tests.kit.callers import anybody
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, put, running, update
from tests.kit.pki import needs_openssl
from tests.kit.wait import until

pytestmark = needs_openssl

_EC: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
_EXTENSIONS: Final = {
    "basicConstraints": "critical,CA:TRUE",
    "keyUsage": "critical,digitalSignature,keyCertSign,cRLSign",
    "subjectKeyIdentifier": "hash",
    "authorityKeyIdentifier": "keyid",
    "subjectAltName": "URI:{uri}",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How `openssl req -x509` makes a root. Empty extensions are left out."""

    extensions: dict[str, str] = field(default_factory=dict)
    key: tuple[str, ...] = _EC
    options: tuple[str, ...] = ()
    subject: str = "/O=Ours/CN=Our mesh root"

    def make(self, directory: Path, uri: str) -> dict[str, object]:
        lines = [f"{name}={value}" for name, value in {**_EXTENSIONS, **self.extensions}.items() if value]
        text = ["[req]", "distinguished_name=dn", "prompt=no", "[dn]", "[ext]", *lines]
        (directory / "req.cnf").write_text("\n".join(text).format(uri=uri))
        command = [
            *("openssl", "req", "-x509", "-nodes", "-config", "req.cnf", "-extensions", "ext", "-subj", self.subject),
            *("-keyout", "key.pem", "-out", "root.pem", "-days", "365", *self.key, *self.options),
        ]
        subprocess.run(command, cwd=directory, capture_output=True, check=True)
        return {
            "CSRMaxPerSecond": 0,
            "PrivateKey": (directory / "key.pem").read_text(),
            "RootCert": (directory / "root.pem").read_text(),
        }


def rsa(bits: int, *more: str) -> tuple[str, ...]:
    return ("-newkey", "rsa", "-pkeyopt", f"rsa_keygen_bits:{bits}", *more)


def curve(name: str, *more: str) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{name}", *more)


TAKEN: Final = {
    "as recommended": Recipe(),
    "room for one": Recipe({"basicConstraints": "critical,CA:TRUE,pathlen:1"}),
    "room for six": Recipe({"basicConstraints": "critical,CA:TRUE,pathlen:6"}),
    "key usage that is not critical": Recipe({"keyUsage": "keyCertSign,cRLSign"}),
    "purpose TLS": Recipe({"extendedKeyUsage": "serverAuth,clientAuth"}),
    "good for some domains": Recipe({"nameConstraints": "critical,permitted;DNS:consul,permitted;DNS:localhost"}),
    "not good for one domain": Recipe({"nameConstraints": "excluded;DNS:example.com"}),
    "good for some addresses": Recipe({"nameConstraints": "critical,permitted;IP:10.0.0.0/255.0.0.0"}),
    "certificate policies": Recipe({"certificatePolicies": "1.2.3.4"}),
    "where its CRL is": Recipe(
        {"crlDistributionPoints": "URI:http://x.test/crl", "authorityInfoAccess": "caIssuers;URI:http://x.test/ca"}
    ),
    "an extension that nobody knows": Recipe({"1.2.3.4": "DER:05:00"}),
    "an alternative name that is critical": Recipe({"subjectAltName": "critical,URI:{uri}"}),
    "an end behind 2050": Recipe(options=("-days", "20000")),
    "no authority key identifier": Recipe({"authorityKeyIdentifier": "none"}),
    "name and serial of its own": Recipe({"authorityKeyIdentifier": "keyid:always,issuer:always"}),
    "a short key identifier": Recipe({"subjectKeyIdentifier": "01:02"}),
    "a name in Latin-1": Recipe(options=("-utf8",), subject="/O=Größe/CN=Our mesh root"),
    "RSA 2048": Recipe(key=rsa(2048)),
    "P-521": Recipe(key=curve("secp521r1")),
}
REFUSED: Final = {
    "room for none": (Recipe({"basicConstraints": "critical,CA:TRUE,pathlen:0"}), r"no CA below it \(path length 0\)"),
    "no CA": (Recipe({"basicConstraints": "critical,CA:FALSE"}), "is not a CA certificate"),
    "a CA that is not critically one": (Recipe({"basicConstraints": "CA:TRUE"}), "is not a CA certificate"),
    "no key usage": (Recipe({"keyUsage": ""}), "key usage must include keyCertSign"),
    "key usage for others": (Recipe({"keyUsage": "critical,cRLSign"}), "key usage must include keyCertSign"),
    "the same, not critical": (Recipe({"keyUsage": "digitalSignature"}), "key usage must include keyCertSign"),
    "purpose code": (Recipe({"extendedKeyUsage": "codeSigning"}), "extended key usage that forbids TLS"),
    "purpose servers": (Recipe({"extendedKeyUsage": "serverAuth"}), "extended key usage that forbids TLS"),
    "purpose TLS, critically": (
        Recipe({"extendedKeyUsage": "critical,serverAuth,clientAuth"}),
        "has a critical extended key usage",
    ),
    "any purpose": (Recipe({"extendedKeyUsage": "anyExtendedKeyUsage"}), "extended key usage that forbids TLS"),
    "good for some URIs": (Recipe({"nameConstraints": "permitted;URI:.consul"}), "name constraints other than on DNS"),
    "not good for mail": (Recipe({"nameConstraints": "excluded;email:x.test"}), "name constraints other than on DNS"),
    "good for what is below": (Recipe({"nameConstraints": "permitted;DNS:.consul"}), "with a dot at an end"),
    "wants policies": (Recipe({"policyConstraints": "requireExplicitPolicy:0"}), "has policy constraints"),
    "wants policies, critically": (
        Recipe({"policyConstraints": "critical,requireExplicitPolicy:1"}),
        r"critical extensions that verifiers refuse \(policyConstraints\)",
    ),
    "no policy will do": (Recipe({"inhibitAnyPolicy": "critical,0"}), r"verifiers refuse \(inhibitAnyPolicy\)"),
    "a critical extension that nobody knows": (Recipe({"1.2.3.4": "critical,DER:05:00"}), r"refuse \(1\.2\.3\.4\)"),
    "critical policies": (Recipe({"certificatePolicies": "critical,1.2.3.4"}), r"refuse \(certificatePolicies\)"),
    "a critical key identifier": (Recipe({"subjectKeyIdentifier": "critical,01:02"}), r"refuse \(subjectKeyIdent"),
    "Netscape's servers": (Recipe({"nsCertType": "server"}), "Netscape certificate type without TLS CA"),
    "no extensions": (Recipe(dict.fromkeys(_EXTENSIONS, "")), "is not a CA certificate"),
    "no key identifier": (Recipe({"subjectKeyIdentifier": "none"}), "no subject key identifier"),
    "no trust domain": (Recipe({"subjectAltName": "DNS:ours.test"}), "expected exactly one: spiffe://"),
    "no name": (Recipe({"subjectAltName": "critical,URI:{uri}"}, subject="/"), "has an empty subject"),
    "SHA-1": (Recipe(key=rsa(2048), options=("-sha1",)), "is signed with sha1"),
    "MD5": (Recipe(key=rsa(2048), options=("-md5",)), "is signed with md5"),
    "RSA 1024": (Recipe(key=rsa(1024)), "RSA key of 1024 bits is not allowed"),
    "an exponent of 3": (Recipe(key=rsa(2048, "-pkeyopt", "rsa_keygen_pubexp:3")), "exponent is not allowed"),
    "RSA-PSS only": (
        Recipe(key=("-newkey", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048")),
        "has a key for rsassaPss only|PrivateKey",
    ),
    "Ed25519": (Recipe(key=("-newkey", "ed25519")), "invalid key type"),
    "a curve of coins": (Recipe(key=curve("secp256k1")), "not allowed|curve"),
    "a small curve": (Recipe(key=curve("secp224r1")), "not allowed|curve"),
    "a curve spelt out": (
        Recipe(key=curve("prime256v1", "-pkeyopt", "ec_param_enc:explicit")),
        "has a key that is not encoded as others read it",
    ),
    "serial 0": (Recipe(options=("-set_serial", "0")), "expected a positive one|serial"),
    "a negative serial": (Recipe(options=("-set_serial", "-5")), "expected a positive one|serial"),
    "a serial of 21 octets": (Recipe(options=("-set_serial", "0x" + "11" * 21)), "at most 20 octets"),
}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("cluster.ca.leader._LOOK_SECONDS", 0.02)


@pytest.fixture
async def node(cluster: FakeCluster) -> AsyncIterator[Node]:
    node = Node(cluster, "a", clock=FakeClock(now=int(time.time()) + 120))
    async with running(node):
        await bootstrapped(node)
        yield node


async def begin(node: Node, config: dict[str, object], *, force: bool = False) -> CARoot:
    request_id = b"%d" % node.cluster.state.ca_index
    rotation_id = await put(node, update(config, force=force), request_id=request_id)
    await node.reconfigurer.wait_for_rotation(rotation_id)
    active = node.cluster.state.active_root
    assert active is not None
    return active


def own(node: Node, recipe: Recipe, directory: Path) -> dict[str, object]:
    return recipe.make(directory, f"spiffe://{node.cluster.state.trust_domain}")


async def sign(node: Node, *hosts: str, addresses: tuple[str, ...] = ()) -> str:
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(node.cluster.state))
    uri = f"spiffe://{node.cluster.state.trust_domain}/ns/default/dc/dc1/svc/web"
    csr_pem = pki.csr_pem(uri=uri, dns=hosts, ips=addresses)
    return (await node.authority.sign(csr_pem, serial_bytes(new_serial()), "test", anybody)).cert_pem


def assert_openssl_accepts(node: Node, chain_pem: str, directory: Path) -> None:
    """With each listed root alone, and with all, for servers and for clients."""
    (directory / "chain.pem").write_text(chain_pem)
    pems = [root.root_pem for root in node.cluster.state.roots]
    moment = str(int(node.clock.now()))
    for store in (*([pem] for pem in pems), pems):
        (directory / "store.pem").write_text("".join(store))
        for purpose in ("sslserver", "sslclient"):
            command = [
                *("openssl", "verify", "-x509_strict", "-purpose", purpose, "-attime", moment),
                *("-CAfile", "store.pem", "-untrusted", "chain.pem", "chain.pem"),
            ]
            judged = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
            assert judged.returncode == 0, judged.stderr


@pytest.mark.parametrize("kind", TAKEN)
async def test_root_that_is_taken_serves_every_client_now_and_once_it_is_rotated_out(
    node: Node, kind: str, tmp_path: Path
) -> None:
    root = await begin(node, own(node, TAKEN[kind], tmp_path))
    assert_openssl_accepts(node, await sign(node), tmp_path)
    plan = await node.operator_rotation.plan(RotateRequest())
    assert plan.links == 2
    await begin(node, {"CSRMaxPerSecond": 0, "PrivateKeyBits": 384})
    assert root.root_id in {listed.root_id for listed in node.cluster.state.roots}
    assert_openssl_accepts(node, await sign(node), tmp_path)


@pytest.mark.parametrize("kind", REFUSED)
async def test_root_that_some_peer_refuses_is_refused_with_the_reason_and_nothing_changes(
    node: Node, kind: str, tmp_path: Path
) -> None:
    recipe, reason = REFUSED[kind]
    config, before = own(node, recipe, tmp_path), node.cluster.state
    with pytest.raises(InternalError, match=reason):
        await put(node, update(config))
    assert node.cluster.state is before
    assert not [key for key in node.worker.keys if key.startswith("candidate")]


async def test_root_with_the_name_of_the_one_before_and_another_key_serves_every_client(
    node: Node, tmp_path: Path
) -> None:
    """As a second `tls ca create -common-name` makes it."""
    for _ in range(3):
        await begin(node, own(node, Recipe(), tmp_path))
    assert_openssl_accepts(node, await sign(node), tmp_path)


@dataclass(frozen=True, slots=True)
class Twin:
    """What a root has in common with one that is trusted."""

    is_key: bool = False
    is_key_id: bool = False
    is_name: bool = False


COLLISIONS: Final = {
    "another key": (Twin(is_key_id=True), "the same subject key identifier with another key: make it with an id"),
    "another key under the same name": (
        Twin(is_key_id=True, is_name=True),
        "the same subject key identifier with another key: make it with an identifier",
    ),
    "another identifier": (
        Twin(is_key=True, is_name=True),
        "the same key with another subject key identifier: use a new key, or make it again with the identifier {key}",
    ),
    "another name": (
        Twin(is_key=True, is_key_id=True),
        r"the same key under another name: use a new key, or make it again with the name 'CN=Our mesh root,O=Ours'",
    ),
    "another name and identifier": (Twin(is_key=True), "the same key with another subject key identifier"),
}


@pytest.mark.parametrize("is_forced", [False, True])
@pytest.mark.parametrize("is_retired", [False, True])
@pytest.mark.parametrize("kind", COLLISIONS)
async def test_root_that_is_half_a_listed_one_is_refused_before_anything_begins(
    node: Node, tmp_path: Path, kind: str, is_retired: bool, is_forced: bool
) -> None:
    """Forced or not: verifiers take one for the other, or find no way between the two."""
    twin, text = COLLISIONS[kind]
    first = own(node, Recipe(), tmp_path)
    root = await begin(node, first)
    if is_retired:
        await begin(node, {"CSRMaxPerSecond": 0, "PrivateKey": "", "RootCert": "", "PrivateKeyBits": 384})
    (tmp_path / "key.pem").write_text(str(first["PrivateKey"]))
    again = Recipe(
        {"subjectKeyIdentifier": root.key_id.upper() if twin.is_key_id else "01:02:03"},
        key=("-key", "key.pem") if twin.is_key else _EC,
        subject=Recipe().subject if twin.is_name else "/CN=Another name",
    )
    config, before = own(node, again, tmp_path), node.cluster.state
    if twin.is_key:
        config["PrivateKey"] = first["PrivateKey"]
    place = f"the root cannot be trusted beside the root {root.root_id}: it has "
    with pytest.raises(InternalError, match=place + text.format(key=root.key_id)):
        await put(node, update(config, force=is_forced))
    assert node.cluster.state is before


async def test_root_that_is_made_again_with_key_name_and_identifier_serves_every_client(
    node: Node, tmp_path: Path
) -> None:
    first = own(node, Recipe(), tmp_path)
    await begin(node, first)
    (tmp_path / "key.pem").write_text(str(first["PrivateKey"]))
    again = own(node, Recipe(key=("-key", "key.pem"), options=("-days", "700")), tmp_path)
    await begin(node, {**again, "PrivateKey": first["PrivateKey"]})
    assert_openssl_accepts(node, await sign(node), tmp_path)
    await begin(node, {"CSRMaxPerSecond": 0, "PrivateKey": "", "RootCert": "", "PrivateKeyBits": 384})
    assert_openssl_accepts(node, await sign(node), tmp_path)


async def test_root_with_the_identifier_of_a_ca_in_a_chain_is_refused_though_no_root_has_it(
    node: Node, tmp_path: Path
) -> None:
    """A link stays after its own root is gone."""
    middle = await begin(node, own(node, Recipe(), tmp_path))
    active = await begin(node, {"CSRMaxPerSecond": 0, "PrivateKey": "", "RootCert": "", "PrivateKeyBits": 384})
    await node.operator_rotation.distrust(middle.root_id)
    again = Recipe({"subjectKeyIdentifier": middle.key_id.upper()})
    config, before = own(node, again, tmp_path), node.cluster.state
    with pytest.raises(InternalError, match=f"beside the chain of the root {active.root_id}: it has the same subject"):
        await put(node, update(config))
    assert node.cluster.state is before


# -- path length


async def test_root_with_room_for_one_says_in_the_plan_from_when_on_a_second_rotation_is_possible(
    node: Node, tmp_path: Path
) -> None:
    await begin(node, own(node, TAKEN["room for one"], tmp_path))
    await begin(node, {"CSRMaxPerSecond": 0, "PrivateKeyBits": 384})
    before = node.cluster.state
    text = r"allows 1 CAs below it \(path length\), and a rotation would put 2 there: possible from \S+ on"
    for ask in (node.operator_rotation.plan(RotateRequest()), begin(node, {"CSRMaxPerSecond": 0})):
        with pytest.raises(Refused, match=text):
            await ask
    assert node.cluster.state is before
    retired = max(root.prune_at for root in before.roots if root.is_retired)
    node.clock.advance(retired - node.clock.now())
    await until(lambda: len(node.cluster.state.roots) == 1)
    await begin(node, {"CSRMaxPerSecond": 0, "PrivateKeyBits": 256})
    assert_openssl_accepts(node, await sign(node), tmp_path)


async def test_root_without_room_from_the_release_before_is_warned_of_and_replaced_by_force(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = tuple(rule for rule in verify._ROOT_RULES if rule is not verify._rule_path_length)
    with monkeypatch.context() as release_before:
        release_before.setattr(verify, "_ROOT_RULES", rules)
        await begin(node, own(node, REFUSED["room for none"][0], tmp_path))
    text = "allows 0 CAs below it (path length), and a rotation would put 1 there: possible with ForceWithoutCrossSign"
    await until(lambda: any(text in warning for warning in node.health.now.warnings))
    before = node.cluster.state
    with pytest.raises(Refused, match="possible with ForceWithoutCrossSigning"):
        await node.operator_rotation.plan(RotateRequest())
    with pytest.raises(Refused, match="possible with ForceWithoutCrossSigning"):
        await begin(node, {"CSRMaxPerSecond": 0, "PrivateKeyBits": 384})
    assert node.cluster.state is before
    await node.operator_rotation.plan(RotateRequest(is_forced=True))
    await begin(node, {"CSRMaxPerSecond": 0, "PrivateKeyBits": 384}, force=True)
    await until(lambda: node.health.now.warnings == ())
    await begin(node, {"CSRMaxPerSecond": 0, "PrivateKeyBits": 256})


# -- name constraints


async def test_names_that_a_trusted_root_does_not_permit_are_refused_until_it_is_not_trusted(
    node: Node, tmp_path: Path
) -> None:
    """Whichever root signs: clients of the constrained one would refuse them."""
    await begin(node, own(node, TAKEN["good for some domains"], tmp_path))
    [first] = [root.root_id for root in node.cluster.state.roots if root.is_retired]
    await node.operator_rotation.distrust(first)  # nothing in a chain says it now, only the root
    text = "'web.example.com', which not every trusted CA may vouch for: .* permits consul, localhost"
    for bits in (0, 384):
        if bits:
            await begin(node, {"CSRMaxPerSecond": 0, "PrivateKeyBits": bits})
        for asked in (("web.example.com",), ("web.consul", "web.example.com")):
            with pytest.raises(CSRRejected, match=text):
                await sign(node, *asked)
        assert_openssl_accepts(node, await sign(node, "web.consul", "a.b.consul"), tmp_path)
    plan = await node.operator_rotation.plan(RotateRequest())
    assert any(
        "Our mesh root,O=Ours is trusted, names that its name constraints do not permit" in risk for risk in plan.risks
    )
    await begin(node, {"CSRMaxPerSecond": 0, "PrivateKeyBits": 521}, force=True)
    await sign(node, "web.example.com")


@pytest.mark.parametrize(
    ("subject", "names", "is_taken"),
    [
        ("/CN=mesh.example.org", "", False),
        ("/O=Ours/CN=mesh", "", False),
        ("/CN=mesh.example.org", ",DNS:mesh.consul", True),
        ("/CN=mesh.CONSUL", "", True),
        ("/CN=mesh of example.org", "", True),
        ("/O=mesh.example.org", "", True),
    ],
)
async def test_next_root_has_a_common_name_that_the_constrained_one_before_permits(
    node: Node, tmp_path: Path, subject: str, names: str, is_taken: bool
) -> None:
    """Java reads it as a DNS name, if it looks like one and there is no other."""
    await begin(node, own(node, TAKEN["good for some domains"], tmp_path))
    config = own(node, Recipe({"subjectAltName": "URI:{uri}" + names}, subject=subject), tmp_path)
    state = node.cluster.state
    if not is_taken:
        with pytest.raises(
            InternalError, match=r"its common name 'mesh\S*' is a DNS name to Java, and .* permits consul"
        ):
            await put(node, update(config))
        assert node.cluster.state is state
        await begin(node, config, force=True)
        return
    await begin(node, config)
    assert_openssl_accepts(node, await sign(node), tmp_path)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            "not good for one domain",
            ("example.org", "*.a.example.org"),
            ("example.com", "a.EXAMPLE.com", "*.a.example.com"),
        ),
        ("good for some addresses", ("10.1.2.3",), ("192.0.2.1", "::1")),
    ],
)
async def test_every_kind_of_limit_is_asked_before_anything_is_signed(
    node: Node, tmp_path: Path, kind: str, good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    await begin(node, own(node, TAKEN[kind], tmp_path))
    await begin(node, {"CSRMaxPerSecond": 0, "PrivateKeyBits": 384})
    is_address = "addresses" in kind

    async def one(name: str) -> str:
        return await (sign(node, addresses=(name,)) if is_address else sign(node, name))

    for name in good:
        assert_openssl_accepts(node, await one(name), tmp_path)
    for name in bad:
        with pytest.raises(CSRRejected, match="which not every trusted CA may vouch for"):
            await one(name)


# -- a backend's CA


@pytest.mark.parametrize("kind", ["purpose code", "good for some URIs", "wants policies", "Netscape's servers"])
def test_ca_of_a_backend_that_some_peer_refuses_is_refused_by_its_name(kind: str, tmp_path: Path) -> None:
    root_pem = str(REFUSED[kind][0].make(tmp_path, "spiffe://x.consul")["RootCert"])
    above = Recipe(subject="/CN=above").make(tmp_path, "spiffe://x.consul")["RootCert"]
    for chain in (CAChain(root_pem, root_pem), CAChain(str(above), root_pem, (root_pem,))):
        with pytest.raises(ChainInvalid, match=f"^CN=Our mesh root,O=Ours .*{REFUSED[kind][1]}"):
            verify.check_for_peers(chain)
