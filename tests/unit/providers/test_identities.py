"""Whose names a leaf may have: SPIFFE IDs, DNS names, addresses and keys, each as a table of its kind.

The rules are in providers/pki/spiffe.py, hosts.py and csr.py; where Consul has a rule, docs/consul-compat.md 3 has it.
"""

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x25519
from hypothesis import example, given, settings
from hypothesis import strategies as st

from providers.api import CSRPolicy
from providers.errors import CSRRejected
from providers.grants import EVERYTHING
from providers.pki import hosts, spiffe
from providers.pki.csr import check_csr, check_intermediate_csr, plain_pem
from tests.kit import pki
from tests.kit.pki import POLICY, ROOT_URI, TRUST_DOMAIN, WEB

AGENT = pki.IDENTITIES["agent"][0]
GATEWAY = pki.IDENTITIES["mesh-gateway"][0]
GOOD = pki.csr_pem()


def _csr(uri: str = WEB, **names: list[str]) -> str:
    return _pem(pki.csr_of(pki.key(), pki.alt_names(uris=[uri], **names)))


def _pem(csr: x509.CertificateSigningRequest) -> str:
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def _refusal(csr: str, policy: CSRPolicy = POLICY) -> str:
    with pytest.raises(CSRRejected) as caught:
        check_csr(csr, policy, EVERYTHING)
    return str(caught.value)


# --- names of services and nodes ----------------------------------------------------------------------------------

RULE = "must be 1 to 128 of the characters A-Z a-z 0-9 . _ -, and neither . nor .."


@pytest.mark.parametrize("name", ["w", "web", "Web-1.v2_x", "...", "-", "a" * 128, "0"])
@pytest.mark.parametrize("uri", [WEB, AGENT])
def test_name_of_the_spiffe_alphabet_is_issued(uri: str, name: str) -> None:
    asked = f"{uri.rpartition('/')[0]}/{name}"
    checked = check_csr(_csr(asked), POLICY, EVERYTHING)
    assert (checked.name, checked.spiffe_id) == (name, asked)


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        ("web%2F..%2Fadmin", "web/../admin"),
        ("a%20b", "a b"),
        ("w%C3%A9b", "wéb"),
        ("%E2%80%AEbew", None),  # not printable: turns what follows around
        ("~", "~"),
        ("a+b", "a+b"),
        ("a:b", "a:b"),
        ("a@b", "a@b"),
        ("a=b,c;d", "a=b,c;d"),
        ("a" * 129, "a" * 128),
    ],
)
@pytest.mark.parametrize(("uri", "what"), [(WEB, "service"), (AGENT, "node")])
def test_name_of_other_characters_is_refused(uri: str, what: str, segment: str, name: str | None) -> None:
    text = _refusal(_csr(f"{uri.rpartition('/')[0]}/{segment}"))
    if name is None:
        assert text == f"Invalid {what}: {segment!r} is not allowed"
    else:
        assert text == f"SPIFFE ID in CSR is not allowed: {what} name {name!r}: {RULE}"


@pytest.mark.parametrize("uri", [f"{ROOT_URI}/ns/default/dc/dc1/svc/%77eb", WEB.replace("default", "%64efault")])
def test_escapes_of_what_needs_none_are_refused(uri: str) -> None:
    assert _refusal(_csr(uri)) == f"SPIFFE ID in CSR is not allowed: {uri!r}: must have no percent-escapes"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/ns/other/dc/dc1/svc/web", "namespace 'other': must be 'default'"),
        ("/ns/Default/dc/dc1/svc/web", "namespace 'Default': must be 'default'"),
        ("/ap/part/ns/default/dc/dc1/svc/web", "partition 'part': must be 'default'"),
        ("/ap/part/agent/client/dc/dc1/id/n", "partition 'part': must be 'default'"),
        ("/ap/part/gateway/mesh/dc/dc1", "partition 'part': must be 'default'"),
    ],
)
def test_other_namespaces_and_partitions_are_refused(path: str, text: str) -> None:
    assert _refusal(_csr(f"{ROOT_URI}{path}")) == f"SPIFFE ID in CSR is not allowed: {text}"


def test_the_default_partition_may_be_said_and_is_not_written() -> None:
    assert check_csr(_csr(f"{ROOT_URI}/ap/default/ns/default/dc/dc1/svc/web"), POLICY, EVERYTHING).spiffe_id == WEB


@pytest.mark.parametrize("uri", [WEB, AGENT, GATEWAY])
@pytest.mark.parametrize("datacenter", ["dc2", "DC1", "dc1.", "d"])
def test_identities_of_another_datacenter_are_refused(uri: str, datacenter: str) -> None:
    text = _refusal(_csr(uri.replace("/dc/dc1", f"/dc/{datacenter}")))
    assert text == f"SPIFFE ID in CSR from a different datacenter: {datacenter}, we are dc1"


@pytest.mark.parametrize("domain", [TRUST_DOMAIN, "other.consul"])
def test_nobody_gets_a_servers_identity(domain: str) -> None:
    text = _refusal(_csr(f"spiffe://{domain}/agent/server/dc/dc1"))
    assert text == "SPIFFE ID in CSR must be a service, mesh-gateway, or agent ID"


@settings(deadline=None, max_examples=400)
@given(st.text(max_size=130) | st.from_regex(r"[A-Za-z0-9._~%/-]{1,12}", fullmatch=True))
@example("web\n")
@example("a" * 129)
def test_what_is_issued_is_exactly_the_alphabet(name: str) -> None:
    is_allowed = re.fullmatch(r"[A-Za-z0-9._-]{1,128}", name) is not None and name not in (".", "..")
    if is_allowed:
        spiffe.check_name("service", name)
        return
    with pytest.raises(spiffe.SpiffeError) as caught:
        spiffe.check_name("service", name)
    assert str(caught.value) == f"service name {name[:128]!r}: {RULE}"


@settings(deadline=None, max_examples=300)
@given(
    st.builds(
        lambda scheme, host, parts, end: f"{scheme}://{host}/{'/'.join(parts)}{end}",
        st.sampled_from(["spiffe", "SPIFFE"]),
        st.sampled_from([TRUST_DOMAIN, TRUST_DOMAIN.upper(), f"{TRUST_DOMAIN}:1", f"u@{TRUST_DOMAIN}", "other.consul"]),
        st.sampled_from(
            [("ns", "default", "dc", "dc1", "svc"), ("agent", "client", "dc", "dc1", "id"), ("ap", "default")]
        ).flatmap(lambda parts: st.text("ab%2F.~_-/é", max_size=6).map(lambda name: (*parts, name))),
        st.sampled_from(["", "", "", "?a=b", "#a", "/", "?", "#"]),
    )
)
def test_an_issued_id_is_canonical_whatever_was_asked_for(uri: str) -> None:
    general = x509.UniformResourceIdentifier._init_without_validation(uri)
    try:
        csr = _pem(pki.csr_of(pki.key(), [general]))
    except ValueError:
        return  # no certificate can hold it
    try:
        checked = check_csr(csr, POLICY, EVERYTHING)
    except CSRRejected:
        return
    segment = r"[A-Za-z0-9._-]{1,128}"
    assert re.fullmatch(rf"{ROOT_URI}/(ns/default/dc/dc1/svc|agent/client/dc/dc1/id)/{segment}", checked.spiffe_id)


# --- DNS names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        *(
            (name, name)
            for name in ("web", "web.example.com", "WEB.Example.com", "_x._tcp.example", "1.example", "com")
        ),
        ("web.example.com.", "web.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        *((name, name) for name in ("*.example.com", "*.example.co.uk", "*.web.service.consul", "*.service.consul")),
        *((name, name) for name in ("*.www.ck", "*.a.unknown-tld", "*.ingress.dc1.consul")),
        # Nobody knows servers by these.
        *((name, name) for name in ("server.service.consul", "server", "server.dc1", "server.dc1.example")),
        *((name, name) for name in ("my-server.dc1.consul", "dc1.consul", "server.consul", "web.service.dc1.consul")),
        ("server.service.dc1.consul", "server.service.dc1.consul"),
    ],
)
def test_dns_name_is_carried(asked: str, written: str) -> None:
    assert list(check_csr(_csr(dns=[asked]), POLICY, EVERYTHING).names) == pki.alt_names([WEB], [written])


SERVERS = "server.<datacenter>.consul and names below it are for the cluster's servers only"
WILDCARD = "a wildcard is allowed only below a domain that one owner has, as in '*.web.example.com'"
NUMBER = "an IP address is allowed as an IP SAN only"
LOCALHOST = "it is allowed for agents only: every host has a localhost of its own"
REFUSED_NAMES = [
    *((name, SERVERS) for name in ("server.dc1.consul", "node-1.server.dc1.consul", "a.b.server.dc1.consul")),
    *((name, SERVERS) for name in ("SERVER.DC1.CONSUL", "Node-1.Server.dc1.Consul.", "*.server.dc1.consul")),
    *((name, SERVERS) for name in ("*.dc1.consul", "server.dc2.consul", "n.server.dc2.consul", "*.dc2.consul")),
    *((f"{name}.{TRUST_DOMAIN}", SERVERS) for name in ("server.dc1.peering", "*.dc1.peering", "x.server.dc1.peering")),
    *((name, WILDCARD) for name in ("*.com", "*.consul", "*.localhost", "*.co.uk", "*.CO.UK", "*.github.io")),
    *((name, WILDCARD) for name in ("*.any.ck", "*.kawasaki.jp", "*.some.kawasaki.jp", "*.xn--p1ai", "*.com.")),
    *((name, NUMBER) for name in ("10.0.0.1", "1.2.3", "web.1", "127.1", "0x7f.1", "a.0x7f", "0X", "*.1.2.3")),
    *((name, LOCALHOST) for name in ("localhost", "LOCALHOST", "localhost.", "a.localhost", "*.a.localhost")),
]


@pytest.mark.parametrize(("name", "rule"), REFUSED_NAMES)
@pytest.mark.parametrize("uri", [WEB, GATEWAY])
def test_dns_name_of_somebody_else_is_refused(uri: str, name: str, rule: str) -> None:
    text = _refusal(_csr(uri, dns=["web.example.com", name]))
    assert text == f"CSR SAN holds the DNS name {name.removesuffix('.')!r}: {rule}"


@pytest.mark.parametrize(("name", "rule"), REFUSED_NAMES)
def test_an_agent_may_be_localhost_and_nothing_else_of_that(name: str, rule: str) -> None:
    csr = _csr(AGENT, dns=[name], ips=["127.0.0.1", "::1"])
    if rule == LOCALHOST:
        assert check_csr(csr, POLICY, EVERYTHING).names[0] == x509.DNSName(name.removesuffix("."))
    else:
        assert _refusal(csr).endswith(rule)


def test_names_of_servers_follow_the_configured_domain_and_datacenter() -> None:
    policy = CSRPolicy(TRUST_DOMAIN, "service", "mesh.example.com")
    csr = {"uri": WEB.replace("dc1", "service")}
    rule = SERVERS.replace("consul", "mesh.example.com")
    # A datacenter that is called as a kind of lookup is: its own servers come first.
    for name in ("server.service.mesh.example.com", "n.server.dc9.mesh.example.com", "*.dc1.mesh.example.com"):
        assert _refusal(_csr(csr["uri"], dns=[name]), policy) == f"CSR SAN holds the DNS name {name!r}: {rule}"
    for name in ("server.dc1.consul", "server.query.mesh.example.com"):
        assert check_csr(_csr(csr["uri"], dns=[name]), policy, EVERYTHING).names[0] == x509.DNSName(name)


def test_wildcard_alone_is_refused() -> None:
    general = x509.DNSName._init_without_validation("*")
    csr = _pem(pki.csr_of(pki.key(), [general, *pki.alt_names(uris=[WEB])]))
    assert _refusal(csr) == "CSR SAN holds a DNS name that is not valid: '*'"


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(hosts._public_suffixes())), st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True))
def test_wildcard_is_refused_directly_below_every_public_suffix(rule: str, label: str) -> None:
    suffix = rule.removeprefix("!").replace("*", label)
    if rule.startswith("!"):
        assert not hosts.is_public_suffix(suffix.split("."))
        return
    if f"!{suffix}" not in hosts._public_suffixes():
        assert _refusal(_csr(dns=[f"*.{suffix}"])).endswith(WILDCARD)


LABELS = st.sampled_from(
    ["server", "SERVER", "dc1", "dc2", "consul", "Consul", "service", "node", "a", "localhost", "com"]
)


@settings(deadline=None, max_examples=600)
@given(st.booleans(), st.lists(LABELS, min_size=1, max_size=5), st.sampled_from([WEB, GATEWAY, AGENT]))
@example(True, ["dc1", "consul"], WEB)
@example(False, ["a", "server", "dc2", "Consul"], AGENT)
def test_no_name_of_a_server_is_carried_however_it_is_put(is_wild: bool, labels: list[str], uri: str) -> None:
    """Against the rule in other words: what a wildcard stands for is tried out."""
    asked = ".".join(["*", *labels] if is_wild else labels)
    stands_for = [asked.lower()] if not is_wild else [asked.lower().replace("*", label) for label in ("server", "a")]
    servers = re.compile(r"(?:.+\.)?server\.(?!(?:addr|connect|ingress|node|query|service|virtual)\.)[^.]+\.consul")
    is_servers = any(servers.fullmatch(name) for name in stands_for)
    is_local = labels[-1] == "localhost" and uri != AGENT
    is_whole = is_wild and (len(labels) == 1 or asked.lower().endswith("*.com"))
    try:
        carried = check_csr(_csr(uri, dns=[asked]), POLICY, EVERYTHING).names[0]
    except CSRRejected:
        carried = None
    assert carried == (None if is_servers or is_local or is_whole else x509.DNSName(asked))


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "127.0.0.1", "::1", "fe80::1", "2001:db8::1", "0.0.0.1", "255.255.255.254"]
)
def test_address_of_a_host_is_carried(address: str) -> None:
    assert list(check_csr(_csr(ips=[address]), POLICY, EVERYTHING).names) == pki.alt_names([WEB], [], [address])


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "224.0.0.1", "239.255.255.255", "ff02::1", "255.255.255.255", "::ffff:224.0.0.1"]
)
def test_address_of_no_host_is_refused(address: str) -> None:
    text = _refusal(_csr(ips=["10.0.0.1", address]))
    assert text.startswith("CSR SAN holds the IP address '")
    assert text.endswith("an address that one host can have is allowed, not an unspecified, multicast or broadcast one")


# --- keys ---------------------------------------------------------------------------------------------------------

KEY = "must be RSA (rsaEncryption) or EC (a named curve)"
PSS = f"CSR key: RSA in another form, such as id-RSASSA-PSS, is not allowed: {KEY}"
# AlgorithmIdentifiers in hex: rsaEncryption with NULL; id-RSASSA-PSS without parameters, and with those of SHA-256.
RSA_ALGORITHM = "300d06092a864886f70d0101010500"
PSS_PLAIN = "300b06092a864886f70d01010a"
PSS_SHA256 = (
    "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
    "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
)


def _with_algorithm(old: str, new: str, uri: str = WEB) -> str:
    """A CSR of an RSA key under another name of its algorithm, and signed anew by that key."""
    private = pki.key("rsa", 2048)
    assert isinstance(private, rsa.RSAPrivateKey)
    request = pki.csr_of(private, pki.alt_names(uris=[uri]))
    spki = pki.spki(private.public_key())
    bits = spki[4 + len(bytes.fromhex(old)) :]
    tbs = _replaced(request, spki, _sequence(bytes.fromhex(new), bits))
    signature = private.sign(tbs, padding.PKCS1v15(), hashes.SHA256())
    return _assembled(tbs, "300d06092a864886f70d01010b0500", signature)


def _replaced(request: x509.CertificateSigningRequest, old: bytes, new: bytes) -> bytes:
    """What of the request is signed, with one part put in the place of another."""
    tbs = request.tbs_certrequest_bytes
    content = tbs[2 if tbs[1] < 0x80 else 2 + (tbs[1] & 0x7F) :]
    assert content.count(old) == 1
    return _sequence(content.replace(old, new))


def _assembled(tbs: bytes, algorithm: str, signature: bytes) -> str:
    return _armour(
        _sequence(tbs, bytes.fromhex(algorithm), b"\x03" + _length(len(signature) + 1) + b"\x00" + signature)
    )


def _sequence(*parts: bytes) -> bytes:
    content = b"".join(parts)
    return b"\x30" + _length(len(content)) + content


def _length(size: int) -> bytes:
    if size < 128:
        return bytes([size])
    data = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 + len(data)]) + data


def _armour(der: bytes, label: str = "CERTIFICATE REQUEST") -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


@pytest.mark.parametrize("algorithm", [PSS_PLAIN, PSS_SHA256])
@pytest.mark.parametrize("check", ["leaf", "intermediate"])
def test_key_for_rsassa_pss_alone_is_refused(algorithm: str, check: str) -> None:
    """Else the certificate would be for a key of another type than the one that was shown to be held."""
    if check == "leaf":
        assert _refusal(_with_algorithm(RSA_ALGORITHM, algorithm)) == PSS
    else:
        with pytest.raises(CSRRejected) as caught:
            check_intermediate_csr(_with_algorithm(RSA_ALGORITHM, algorithm, ROOT_URI), TRUST_DOMAIN)
        assert str(caught.value) == PSS


def test_the_same_key_in_its_usual_form_is_taken() -> None:
    assert check_csr(_with_algorithm(RSA_ALGORITHM, RSA_ALGORITHM), POLICY, EVERYTHING).spiffe_id == WEB


def _signed_by(private: Any) -> str:
    is_ed = isinstance(private, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    builder = x509.CertificateSigningRequestBuilder(subject_name=pki.name("")).add_extension(
        x509.SubjectAlternativeName(pki.alt_names(uris=[WEB])), critical=False
    )
    return _pem(builder.sign(private, None if is_ed else hashes.SHA256()))


def _with_key(spki: bytes) -> str:
    """A CSR with another key put in: of such as cannot sign, or in a form that no builder writes."""
    request = x509.load_pem_x509_csr(GOOD.encode())
    tbs = _replaced(request, pki.spki(pki.key().public_key()), spki)
    return _assembled(tbs, "300a06082a8648ce3d040302", request.signature)


def _with_public(public: Any) -> str:
    return _with_key(public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


# P-256 by its parameters in place of its name (RFC 3279 2.3.5), which RFC 5480 2.1.1 forbids, as
# `openssl ecparam -name prime256v1 -param_enc explicit` writes them.
EXPLICIT_CURVE = (
    "3081f7020101302c06072a8648ce3d0101022100ffffffff00000001000000000000000000000000ffffffffffffffffffff"
    "ffff305b0420ffffffff00000001000000000000000000000000fffffffffffffffffffffffc04205ac635d8aa3a93e7b3eb"
    "bd55769886bc651d06b0cc53b0f63bce3c3e27d2604b031500c49d360886e704936a6678e1139d26b7819f7e900441046b17"
    "d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce3357"
    "6b315ececbb6406837bf51f5022100ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551020101"
)


def _with_explicit_parameters() -> str:
    algorithm = _sequence(bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex(EXPLICIT_CURVE))
    return _with_key(_sequence(algorithm, pki.spki(pki.key().public_key())[23:]))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: _signed_by(ed25519.Ed25519PrivateKey.generate()),
            "CSR key: invalid key type: Ed25519: must be RSA or",
        ),
        (lambda: _signed_by(ed448.Ed448PrivateKey.generate()), "CSR key: invalid key type: Ed448: must be RSA or EC"),
        (
            lambda: _with_public(x25519.X25519PrivateKey.generate().public_key()),
            "CSR key: invalid key type: X25519: must",
        ),
        (lambda: _signed_by(dsa.generate_private_key(2048)), "CSR key: invalid key type: DSA: must be RSA or EC"),
        (
            lambda: _signed_by(ec.generate_private_key(ec.SECP224R1())),
            "CSR key: EC curve secp224r1 is not allowed: must",
        ),
        (
            lambda: _signed_by(ec.generate_private_key(ec.SECP256K1())),
            "CSR key: EC curve secp256k1 is not allowed: must",
        ),
        (
            lambda: _signed_by(ec.generate_private_key(ec.BrainpoolP256R1())),
            "CSR key: EC curve brainpoolP256r1 is not allowed: must be P-256, P-384 or P-521",
        ),
        (
            _with_explicit_parameters,
            "CSR key: EC in another form, such as explicit curve parameters, is not allowed: must be",
        ),
        (
            lambda: _signed_by(rsa.generate_private_key(65537, 1024)),
            "CSR key: RSA key of 1024 bits is not allowed: must",
        ),
        (
            lambda: _signed_by(rsa.generate_private_key(65537, 2040)),
            "CSR key: RSA key of 2040 bits is not allowed: must",
        ),
        (
            lambda: _with_public(rsa.RSAPublicNumbers(65537, (1 << 8192) + 1).public_key()),
            "CSR key: RSA key of 8193 bits",
        ),
    ],
)
def test_key_of_another_kind_is_refused(make: Callable[[], str], text: str) -> None:
    assert _refusal(make()).startswith(text)


# --- the form of PEM ----------------------------------------------------------------------------------------------

NEW = GOOD.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")


@pytest.mark.parametrize(
    "text",
    [
        NEW,
        NEW.replace("\n", "\r\n"),
        NEW.strip(),
        f"\ufeff{NEW}",
        f"Certificate request generated by Netscape certutil\nPhone: (not specified)\n\n{NEW}\n",
        f"{NEW} \t\r\n",
        NEW.replace("\n", "\r"),
    ],
)
def test_csr_with_the_label_of_keytool_certtool_and_certutil_is_taken(text: str) -> None:
    """RFC 7468 section 7: the older label."""
    assert check_csr(text, POLICY, EVERYTHING) == check_csr(GOOD, POLICY, EVERYTHING)
    assert x509.load_pem_x509_csr(plain_pem(text).encode()) == x509.load_pem_x509_csr(GOOD.encode())


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        (NEW.replace("END NEW ", "END "), "no PEM-encoded data found"),
        (NEW.replace("BEGIN NEW ", "BEGIN "), "no PEM-encoded data found"),
        (NEW.replace("NEW", "OLD"), "first PEM-block should be CERTIFICATE REQUEST type"),
        (NEW.replace("NEW", "new"), "first PEM-block should be CERTIFICATE REQUEST type"),
        (NEW + GOOD, "CSR must be one PEM block with nothing behind it"),
        (GOOD + NEW, "CSR must be one PEM block with nothing behind it"),
        (f"{NEW}text behind", "CSR must be one PEM block with nothing behind it"),
        (f"{NEW}\0", "CSR must be one PEM block with nothing behind it"),
    ],
)
def test_other_labels_and_several_blocks_are_refused(text: str, refusal: str) -> None:
    assert _refusal(text) == refusal


DEBUG = re.compile(r"ParseError|Error\(|ValueError|kind:|asn1|codec|<class|object at|__init__|Traceback|\.rs\b")


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60) | st.builds(lambda cut: _der()[:cut], st.integers(1, 400)), st.integers(0, 400))
def test_refusals_are_in_our_own_words(der: bytes, flip: int) -> None:
    changed = bytearray(der or b"\x30")
    changed[flip % len(changed)] ^= 0x41
    text = ""
    try:
        check_csr(_armour(bytes(changed)), POLICY, EVERYTHING)
    except CSRRejected as error:
        text = str(error)
    assert not DEBUG.search(text)


def _der() -> bytes:
    return x509.load_pem_x509_csr(GOOD.encode()).public_bytes(serialization.Encoding.DER)
