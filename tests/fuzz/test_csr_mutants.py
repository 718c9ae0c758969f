"""The mutants of CSRs do what they are for: most hold together, many are good, and together they meet every rule."""

import random

import pytest
from cryptography import x509

from tests.fuzz.campaign import run
from tests.fuzz.csr import der, elements, keys, mutants
from tests.fuzz.csr.request import der_of, read_request, sign
from tests.fuzz.targets import targets

pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length")

SEED = 20270115
INPUTS = 5000
#: A third, nearly: whatever comes after the rules, signing included, is reached as often.
UNDERSTOOD = 0.3
#: Of all: understood, or refused by a rule of ours and not by the decoders of PEM and ASN.1.
DECODED = 0.5
NOT_DECODED = ("malformed CSR", "no PEM", "first PEM-block", "CSR is required", "CSR is larger", "CSR must be one PEM")

SHARED_RULES = (
    "CSR is required",
    "CSR is larger than _ bytes",
    "no PEM-encoded data found",
    "first PEM-block should be CERTIFICATE REQUEST type",
    "CSR must be one PEM block with nothing behind it",
    "malformed CSR: it must be one PKCS#_ request (RFC _) in DER",
    "malformed CSR: its public key cannot be decoded",
    "malformed CSR: an extension occurs twice",
    "CSR SAN contains _ names",
    "SPIFFE ID must have _ scheme",
    "SPIFFE ID is not in the expected format",
    "Invalid service",
    "Invalid namespace",
    "Invalid datacenter",
    "Invalid admin partition",
    "CSR key: invalid key type",
    "CSR key: EC curve secp_r_ is not allowed",
    "CSR key: RSA key of _ bits is not allowed",
    "CSR key: RSA public exponent is not allowed",
    "CSR key: RSA modulus is not allowed",
    "CSR signature algorithm is not allowed",
    "CSR signature does not verify with the CSR's own public key",
)
RULES = {
    "csr": (
        *SHARED_RULES,
        "Invalid node",
        "CSR SAN contains an invalid number of URIs",
        "CSR SAN does not allow specifying email addresses",
        "CSR SAN holds a name that is neither URI, DNS name nor IP address",
        "CSR SAN holds a DNS name that is not valid",
        "CSR SAN holds the DNS name _",
        "CSR SAN holds the IP address _",
        "SPIFFE ID in CSR is not allowed",
        "SPIFFE ID in CSR must be a service, mesh-gateway, or agent ID",
        "SPIFFE ID in CSR from a different datacenter",
        "SPIFFE ID in CSR from a different trust domain",
    ),
    "csr-intermediate": (
        *SHARED_RULES,
        "incoming CSR has unexpected number of URIs",
        "incoming CSR domain _ is not valid for our domain _",
    ),
}
SEEDS = [*mutants.leaf_seeds(), *mutants.intermediate_seeds()]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.slow
def test_mutants_meet_every_rule_and_many_are_good(name: str) -> None:
    result = run(targets()[name], SEED, inputs=INPUTS)
    assert [rule for rule in RULES[name] if rule not in result.reasons] == []
    decoded = sum(count for reason, count in result.reasons.items() if not reason.startswith(NOT_DECODED))
    assert result.accepted > UNDERSTOOD * INPUTS
    assert result.accepted + decoded > DECODED * INPUTS


@pytest.mark.parametrize("pem", SEEDS)
def test_tree_without_changes_is_written_as_it_was_read(pem: bytes) -> None:
    data = der_of(pem)
    assert der.write(der.read(data)) == data


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"\x30\x05\x02\x01", b"\x30\x80\x00\x00", b"\x02\x01\x00\x00", b"\x1f\x81\x01\x00"]
)
def test_what_is_not_one_element_is_not_read(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"elements|length|announced"):
        der.read(data)


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, b"\0"), (127, b"\x7f"), (128, b"\0\x80"), (-1, b"\xff"), (-128, b"\xff\x80"), (256, b"\1\0")],
)
def test_integers_are_written_with_their_sign(value: int, written: bytes) -> None:
    assert der.integer(value).data == written


def test_lengths_are_in_the_shortest_form_unless_asked_for_otherwise() -> None:
    assert der.length_of(127) == b"\x7f"
    assert der.length_of(128) == b"\x81\x80"
    assert der.length_of(256) == b"\x82\x01\x00"
    assert der.length_of(5, least=2) == b"\x82\x00\x05"


@pytest.mark.parametrize("owner", keys.allowed(), ids=lambda owner: owner.spki[:40].hex())
def test_signature_holds_under_each_key_that_is_put_in(owner: keys.Owner) -> None:
    request = read_request(SEEDS[0], SEEDS)
    request.names.children = []
    request.spki.children, request.private = der.read(owner.spki).children, owner.private
    sign(request)
    csr = x509.load_der_x509_csr(der.write(request.whole))
    assert csr.is_signature_valid
    assert csr.public_key() == owner.private.public_key()


def test_every_change_changes_something_and_lengths_around_it_fit() -> None:
    for change in {change for kind in mutants.KINDS for change in kind}:
        outcomes = set()
        for number in range(40):
            request = read_request(SEEDS[0], SEEDS)
            change(request, random.Random(f"{change.__name__}/{number}"))
            sign(request)
            data = der.write(request.whole)
            outcomes.add(data)
            if change not in (elements.lie, elements.retag):  # these are to look like something else
                assert der.read(data).tag == der.SEQUENCE, (change.__name__, number)
        assert len(outcomes) > 1, change.__name__
