import io
import json
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.kit.fake_api import FakeApi
from tests.parts.cli.conftest import Run

SIGN = "/v1/connect/ca/sign"
CHAIN = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
ISSUED = {"SerialNumber": "0e", "CertPEM": CHAIN, "Service": "web"}


@pytest.fixture
def cluster(api: FakeApi) -> FakeApi:
    api.answer("GET", "/v1/connect/ca/roots", {"TrustDomain": "11111111-2222.consul", "Roots": []})
    api.answer("GET", "/v1/catalog/datacenters", ["dc7", "dc8"])
    api.answer("PUT", SIGN, ISSUED)
    return api


def test_signs_a_csr(run: Run, cluster: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "csr.pem").write_text("the CSR")
    result = run("ca sign --csr csr.pem")
    assert (result.code, result.out, result.err) == (0, CHAIN, "")
    assert cluster.last.body == {"CSR": "the CSR"}

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert json.loads(run("ca sign -csr - -format json").out) == ISSUED
    assert cluster.last.body == {"CSR": "piped"}


def test_writes_the_chain_to_a_new_file(run: Run, cluster: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "csr.pem").write_text("the CSR")
    result = run("ca sign -csr csr.pem -out web.pem")
    assert (result.code, result.out) == (0, "")
    assert (tmp_path / "web.pem").read_text() == CHAIN

    count = len(cluster.requests)
    result = run("ca sign -csr csr.pem -out web.pem")
    assert (result.code, result.err) == (1, "Error signing certificate: web.pem already exists.\n")
    assert len(cluster.requests) == count, "a certificate that cannot be stored must not be issued"


def test_service_gets_a_key_and_a_csr_in_the_clusters_names(run: Run, cluster: FakeApi, tmp_path: Path) -> None:
    result = run("ca sign -service web -key-out key.pem -dns-san web.local -ip-san ::1 -ip-san 10.0.0.1")
    assert (result.code, result.out) == (0, CHAIN)

    csr = x509.load_pem_x509_csr(cluster.last.body["CSR"].encode())
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://11111111-2222.consul/ns/default/dc/dc7/svc/web"
    ]
    assert names.get_values_for_type(x509.DNSName) == ["web.local"]
    assert list(map(str, names.get_values_for_type(x509.IPAddress))) == ["::1", "10.0.0.1"]

    key_file = tmp_path / "key.pem"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert load_pem_private_key(key_file.read_bytes(), None).public_key() == csr.public_key()


def test_service_in_another_datacenter(run: Run, cluster: FakeApi) -> None:
    assert run("ca sign -service web -key-out key.pem -datacenter dc2").code == 0
    csr = x509.load_pem_x509_csr(cluster.last.body["CSR"].encode())
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier)[0].endswith("/dc/dc2/svc/web")
    assert {request.query["dc"] for request in cluster.requests} == {"dc2"}


def test_key_file_is_never_replaced(run: Run, cluster: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("old")
    result = run("ca sign -service web -key-out key.pem")
    assert (result.code, result.err) == (1, "Error signing certificate: key.pem already exists.\n")
    assert (tmp_path / "key.pem").read_text() == "old"
    assert SIGN not in [request.path for request in cluster.requests]


@pytest.mark.parametrize("answer", [("Rate limit reached, try again later", 429), ({"SerialNumber": "0e"}, 200)])
def test_no_file_is_left_when_signing_fails(
    run: Run, cluster: FakeApi, tmp_path: Path, answer: tuple[object, int]
) -> None:
    cluster.answer("PUT", SIGN, *answer)
    result = run("ca sign -service web -key-out key.pem -out cert.pem")
    assert result.code == 1
    assert result.err.startswith("Error signing certificate: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("", "one of the arguments --csr --service is required"),
        ("-csr a -service b", "--service: not allowed with argument --csr"),
        ("-service web", "--service requires --key-out"),
        ("-csr a -key-out b", "--key-out requires --service"),
        ("-csr a -dns-san b", "--dns-san requires --service"),
        ("-service web -key-out k -ip-san web", "argument --ip-san: 'web' is not allowed: must be an IP address"),
        ("-service web -key-out k -dns-san a..b", "argument --dns-san: 'a..b' is not allowed: must be a DNS name"),
        ("-service .. -key-out k", "--service is not allowed: service name '..': must be 1 to 128 of the characters"),
    ],
)
def test_usage_errors(run: Run, cluster: FakeApi, tmp_path: Path, argv: str, text: str) -> None:
    result = run(f"ca sign {argv}")
    assert result.code == 2
    assert text in result.err
    assert list(tmp_path.iterdir()) == []
