"""A root that cannot be used: it is told what is wrong with it, in words about the root and about nothing inside."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cluster.base.errors import ClusterError
from providers.errors import ProviderError
from tests.kit import pki
from tests.kit.fake_cluster import Node, put, update
from tests.kit.wait import until
from tests.kit.words import assert_plain

Extensions = list[tuple[x509.ExtensionType, bool]]
Change = Callable[[Extensions], Extensions]


def _put(value: x509.ExtensionType, *, critical: bool) -> Change:
    return lambda extensions: [*pki.without(extensions, type(value)), (value, critical)]


UNUSABLE: dict[str, Change] = {
    "no CA": _put(x509.BasicConstraints(ca=False, path_length=None), critical=True),
    "path length 0": _put(x509.BasicConstraints(ca=True, path_length=0), critical=True),
    "no certificate signing": _put(pki.key_usage(crl_sign=True), critical=True),
    "other purpose": _put(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False),
    "for servers only": _put(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False),
    "constraints on DNS": _put(x509.NameConstraints([x509.DNSName("x.org")], None), critical=True),
    "constraints on URIs": _put(x509.NameConstraints([x509.UniformResourceIdentifier("x.org")], None), critical=True),
    "unknown critical extension": _put(
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical=True
    ),
    "no identifier": lambda extensions: pki.without(extensions, x509.SubjectKeyIdentifier),
    "another authority": _put(x509.AuthorityKeyIdentifier(b"other", None, None), critical=False),
}


@pytest.mark.parametrize("name", UNUSABLE)
async def test_unusable_root_is_told_in_words_about_the_root(node: Node, name: str) -> None:
    private = pki.key()
    public = private.public_key()
    uri = f"spiffe://{node.cluster.state.trust_domain}"
    extensions = UNUSABLE[name](pki.ca_extensions(public, pki.key_id(public), uris=[uri]))
    now = int(datetime.now(UTC).timestamp())
    root = pki.certificate(
        public, private, extensions, subject="r", issuer="r", not_before=now - 60, not_after=now + 20 * pki.YEAR
    )
    texts: list[str] = []
    try:
        await put(node, update({"PrivateKey": pki.key_pem(private), "RootCert": pki.pem(root)}))
        await until(lambda: node.cluster.state.rotation is None)
    except (ClusterError, ProviderError) as error:
        texts.append(str(error))
    texts += [str(fields["reason"]) for _, fields in node.log.events if "reason" in fields]
    for text in texts:
        assert_plain(text)
        assert "gateway" not in text, text
        assert "candidates" not in text, text
