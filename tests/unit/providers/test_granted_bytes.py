"""What is judged is what is signed: of a CSR that asks for more than its grant, in whatever place or bytes, comes no
certificate, or one with nothing of that. The certificate is read by a reader of its own.
"""

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cluster.access.authorizer import Authorizer
from cluster.access.rules import parse_rules
from providers.api import CAChain, LeafRequest
from providers.errors import CSRRejected, NotGranted
from providers.grants import Grant
from providers.pki.leaf import LeafSigner
from providers.pki.x509 import Issuer
from tests.fuzz.csr.asked import IDENTITIES, RULE, Case, assert_within_rule, cases, csr_for, twisted
from tests.kit import pki

GRANT = Grant.from_bytes(Authorizer(parse_rules(RULE), allows_by_default=False).grant)
CASES = cases(pki.WEB)
TWISTED = twisted(pki.WEB)


@pytest.fixture(scope="module")
def signer() -> LeafSigner:
    private = pki.key()
    root = pki.root_certificate(private)
    return LeafSigner(CAChain(pki.pem(root), pki.pem(root)), Issuer(root, private), ttl_seconds=pki.DAY)


def status_of(signer: LeafSigner, csr_pem: str, grant: Grant = GRANT) -> int:
    try:
        leaf = signer.sign(LeafRequest(csr_pem, pki.POLICY, pki.serial(1), pki.NOW, grant))
    except CSRRejected:
        return 400
    except NotGranted:
        return 403
    assert leaf.name == "web"
    assert leaf.spiffe_id == pki.WEB
    assert_within_rule(pki.load(leaf.cert_pem).public_bytes(Encoding.DER), pki.WEB)
    return 200


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("is_first", [False, True])
def test_every_kind_of_name_is_judged(signer: LeafSigner, case: Case, is_first: bool) -> None:
    assert status_of(signer, csr_for(pki.WEB, case.names, is_first=is_first)) == case.status


@pytest.mark.parametrize("path", IDENTITIES)
def test_every_spelling_of_an_identity_is_judged(signer: LeafSigner, path: str) -> None:
    assert status_of(signer, csr_for(f"{pki.ROOT_URI}{path}")) == IDENTITIES[path]


@pytest.mark.parametrize("what", TWISTED)
def test_what_a_reader_could_pass_over_is_not_certified(signer: LeafSigner, what: str) -> None:
    status_of(signer, TWISTED[what])


def test_few_of_them_are_sound_enough_to_be_signed(signer: LeafSigner) -> None:
    """And those have nothing more in them. If it were none, the test above could not fail."""
    passed = [what for what in TWISTED if status_of(signer, TWISTED[what]) == 200]
    assert {what for what in passed if "common name" in what}
    assert not [what for what in passed if "SAN twice" in what or "block" in what or "behind" in what]
