"""What the bench knows of a cluster without starting one."""

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.baseline import measure_baseline
from benchmarks.csrs import make_csrs
from benchmarks.nodes import BenchError, Node, read_nodes, wait_for
from benchmarks.run import main
from providers.api import CSRPolicy
from providers.grants import EVERYTHING
from providers.pki.csr import check_csr

_TRUST_DOMAIN = "11111111-2222-3333-4444-555555555555.consul"


def test_addresses_may_be_urls_or_host_and_port(tmp_path: Path) -> None:
    entry = {"name": "node-1", "pid": 7, "rpc": "127.0.0.1:8400", "data_dir": "d", "config": "c"}
    nodes = [
        {**entry, "http": "http://127.0.0.1:8500/", "raft": "127.0.0.1:8300"},
        {**entry, "http": "127.0.0.1:8500", "raft": "127.0.0.1:8300"},
    ]
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps({"nodes": nodes}))
    assert read_nodes(path) == 2 * [Node("node-1", 7, "127.0.0.1:8500", "127.0.0.1:8300", "c")]


def test_wait_for_takes_trouble_as_not_yet() -> None:
    answers = iter([ValueError("half a file"), None, "there"])

    def look() -> str | None:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert wait_for("it", look, seconds=20.0) == "there"


def test_wait_for_reports_the_last_trouble() -> None:
    def look() -> None:
        raise ConnectionRefusedError("nobody there")

    with pytest.raises(BenchError, match=r"waited 0 s for it.*nobody there"):
        wait_for("it", look, seconds=0.05)


def test_pool_holds_different_acceptable_csrs() -> None:
    csrs = make_csrs(3, _TRUST_DOMAIN)
    names = [check_csr(csr, CSRPolicy(_TRUST_DOMAIN, "dc1"), EVERYTHING).name for csr in csrs]
    assert names == ["svc-0", "svc-1", "svc-2"]
    keys = [x509.load_pem_x509_csr(csr.encode()).public_key() for csr in csrs]
    assert len({key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for key in keys}) == 3


def test_baseline_gives_one_rate_per_block() -> None:
    rates = measure_baseline(0.02, blocks=3)
    assert len(rates) == 3
    assert min(rates) > 50


@pytest.mark.parametrize("arguments", [["--records", "300000,0"], ["--records", "-1"], ["--rounds", "0"]])
def test_wrong_arguments_end_before_anything_starts(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
