"""Every message between nodes, as each release wrote it: read with the meaning it had, and written so again.

`golden/v1.json` came from the release before the wire had a version, `golden/v2.json` from the first that has one. A
file stays as it is while a release that writes it may run beside this one.
"""

import json
from pathlib import Path
from typing import Any, Final

import msgpack
import pytest
from msgspec import Raw, structs

from cluster.api.ca import RotateRequest, RotationPlan, Steering, Uptake
from cluster.api.leaves import IssuedCert
from cluster.api.seals import NodeSeal
from cluster.api.servers import ClusterInfo, ServerInfo
from cluster.base.errors import AnswerLost, RateLimitReached
from cluster.rpc import messages
from cluster.rpc.envelope import (
    MAX_REQUESTS,
    Asked,
    Outcome,
    pack_outcome,
    pack_outcomes,
    pack_requests,
    unpack_envelope,
    unpack_outcomes,
)
from cluster.rpc.messages import (
    CONFIGURE,
    DONE,
    SIGN,
    WATCHERS,
    AclBootstrapRequest,
    AclCloneRequest,
    AclDeleteRequest,
    AclKeyAnswer,
    AclLoginRequest,
    AclPutRequest,
    AddPeerRequest,
    AgentCARequest,
    AnnounceKeyRequest,
    CheckedRestoreRequest,
    ClusterAnswer,
    ConfigureRequest,
    DistrustRequest,
    JoinRequest,
    JoinTokenAnswer,
    JoinTokenRequest,
    JudgedRestoreRequest,
    NodeCertAnswer,
    Nothing,
    PlanAnswer,
    PlanRequest,
    ProvenRowsRequest,
    RemovePeerRequest,
    RenewNodeRequest,
    RestoreRequest,
    RestoreRowsRequest,
    RotateSealRequest,
    RotationRequest,
    RowMessage,
    SealCheckAnswer,
    SealCheckRequest,
    SealStatusAnswer,
    SignAnswer,
    SignRequest,
    SteerRequest,
    TransferRequest,
    UptakeAnswer,
    WatchersAnswer,
    WatchersRequest,
)
from cluster.rpc.operation import OLDEST, VERSION, Message, NotUnderstood, Operation
from fsm.leaves import LeafRecord

GOLDEN: Final = Path(__file__).parent / "golden"
REQUEST_ID: Final = bytes(range(16))
WEB: Final = "spiffe://x.consul/ns/default/dc/dc1/svc/web"
CERT: Final = IssuedCert(
    (1 << 126) + 5,
    "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n",
    "service",
    "web",
    WEB,
    1_800_000_000,
    1_800_003_600,
    77,
)
RISKS: Final = ("leaves change", "clients rely on the chain")
PLAN: Final = RotationPlan("aa:bb", "consul", "ec", 256, False, True, 5000, 32768, 1, 2, 300, 1_800_500_000, RISKS)
SERVERS: Final = (
    ServerInfo("a", "127.0.0.1:8300", "127.0.0.1:8400", True, True, True, 0, 3, 99, 1_800_000_000),
    ServerInfo("b", "127.0.0.1:8301", "127.0.0.1:8401", False, False, False, None, 3, 0, 1_800_000_001),
)
SEAL: Final = NodeSeal("a", "file", "0123456789abcdef", "fedcba9876543210", True, "move it")
RECORD: Final = LeafRecord(
    (5).to_bytes(16, "big"), 1, "web", WEB, b"\x07" * 32, 1_800_000_000, 1_800_003_600, "127.0.0.1", b""
)
ROTATE: Final = RotateRequest("ec", 384, True, False, 30)
CSR: Final = "-----BEGIN CERTIFICATE REQUEST-----\nAA\n-----END CERTIFICATE REQUEST-----\n"

ACCESSOR: Final = "11111111-2222-3333-4444-555555555555"
SECRET_ID: Final = "66666666-7777-8888-9999-aaaaaaaaaaaa"

#: By operation: what is in both golden files.
MESSAGES: Final[dict[str, tuple[Message, Message]]] = {
    "sign": (SignRequest(CSR, (1 << 126).to_bytes(16, "big"), "127.0.0.1"), SignAnswer.of(CERT)),
    "configure": (
        ConfigureRequest("consul", '{"LeafCertTTL": "72h"}', {"k": "v"}, False, 5, True, 60, REQUEST_ID, 12, False),
        DONE,
    ),
    "plan_rotation": (PlanRequest.of(ROTATE), PlanAnswer.of(PLAN)),
    "rotate": (RotationRequest(None, None, False, False, 0, REQUEST_ID, 12, True), DONE),
    "steer_rotation": (SteerRequest(Steering.PAUSE), DONE),
    "rotation_uptake": (Nothing(), UptakeAnswer.of(Uptake(4, 3, 10, 2))),
    "distrust_root": (DistrustRequest("aa:bb"), DONE),
    "watchers": (WatchersRequest(41), WatchersAnswer(4, 3)),
    "seal_check": (SealCheckRequest("file", "0123456789abcdef", b"salt"), SealCheckAnswer("it is missing")),
    "seal_status": (Nothing(), SealStatusAnswer.of(SEAL)),
    "rotate_seal": (RotateSealRequest(b"fedcba9876543210", False), DONE),
    "restore_rows": (RestoreRowsRequest(b"\x01" * 32, [RowMessage.of(RECORD)]), DONE),
    "restore_proven_rows": (
        ProvenRowsRequest(b"\x01" * 32, [RowMessage.of(RECORD)], "x.consul", 12, b"\x03" * 32),
        DONE,
    ),
    "restore_checked": (CheckedRestoreRequest(b"state", b"sums", "ab" * 32, True, 12, b"\x03" * 32), DONE),
    "restore_ca": (RestoreRequest(b"state"), DONE),
    "restore_judged": (JudgedRestoreRequest(b"state", b"sums", "ab" * 32, True, 12, b"\x03" * 32), DONE),
    "cluster": (Nothing(), ClusterAnswer.of(ClusterInfo(SERVERS, 99))),
    "transfer": (TransferRequest(None), DONE),
    "add_peer": (AddPeerRequest("d", "127.0.0.1:8303", "127.0.0.1:8403"), DONE),
    "remove_peer": (RemovePeerRequest("d", None), DONE),
    "announce_key": (AnnounceKeyRequest(b"\x02" * 72, "d"), DONE),
    "acl_put": (AclPutRequest("policies", ACCESSOR, '{"Name": "web"}'), AclKeyAnswer(ACCESSOR, "")),
    "acl_delete": (AclDeleteRequest("tokens", ACCESSOR), DONE),
    "acl_clone": (AclCloneRequest(ACCESSOR, "another"), AclKeyAnswer(ACCESSOR, SECRET_ID)),
    "acl_bootstrap": (AclBootstrapRequest(SECRET_ID), AclKeyAnswer(ACCESSOR, SECRET_ID)),
    "acl_login": (AclLoginRequest("jwt", "a.b.c", {"pod": "web-1"}), AclKeyAnswer(ACCESSOR, SECRET_ID)),
    "acl_logout": (Nothing(), DONE),
    "set_agent_ca": (AgentCARequest("a certificate", "a key", 259_200), DONE),
    "join_token": (
        JoinTokenRequest("d", "127.0.0.1:8303", "127.0.0.1:8403", 900, True, True),
        JoinTokenAnswer("5ec7e7", 1_800_000_900, "ab" * 32),
    ),
    "join": (
        JoinRequest("d", "127.0.0.1:8303", "127.0.0.1:8403", CSR, b"\x04" * 32, b"\x05" * 64, "a"),
        NodeCertAnswer("a certificate"),
    ),
    "renew_node": (RenewNodeRequest(CSR, "the present one", "d"), NodeCertAnswer("a certificate")),
}
OPERATIONS: Final[dict[str, Operation[Any, Any]]] = {
    found.name: found for found in vars(messages).values() if isinstance(found, Operation)
}
VERSIONS: Final = range(OLDEST, VERSION + 1)


def golden(version: int) -> dict[str, dict[str, str]]:
    loaded: dict[str, dict[str, str]] = json.loads((GOLDEN / f"v{version}.json").read_text())
    return loaded


def test_each_operation_has_a_golden_message() -> None:
    assert set(OPERATIONS) == set(MESSAGES)
    for version in VERSIONS:
        assert set(golden(version)) == {*MESSAGES, "envelope"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_message_is_read_and_written_as_each_release_did(name: str, version: int) -> None:
    operation, written = OPERATIONS[name], golden(version)[name]
    request, answer = MESSAGES[name]
    assert operation.request.pack(request, version).hex() == written["request"]
    assert operation.answer.pack(answer, version).hex() == written["answer"]
    assert operation.request.unpack(bytes.fromhex(written["request"]), version) == request
    assert operation.answer.unpack(bytes.fromhex(written["answer"]), version) == answer


@pytest.mark.parametrize("version", VERSIONS)
def test_envelope_is_read_and_written_as_each_release_did(version: int) -> None:
    written = golden(version)["envelope"]
    assert pack_requests(WATCHERS, [Asked(WatchersRequest(41))], 1.5, version).hex() == written["request"]
    envelope = unpack_envelope(bytes.fromhex(written["request"]))
    assert envelope.milliseconds == 1500
    assert [WATCHERS.request.unpack(one, version) for one in envelope.requests] == [WatchersRequest(41)]
    refused = RateLimitReached("wait", 2.5)
    outcomes = [pack_outcome(WATCHERS, outcome, version) for outcome in (WatchersAnswer(4, 3), refused)]
    assert pack_outcomes(outcomes).hex() == written["answer"]
    answer, error = unpack_outcomes(WATCHERS, bytes.fromhex(written["answer"]), 2, version)
    assert answer == WatchersAnswer(4, 3)
    assert isinstance(error, RateLimitReached)
    assert (str(error), error.retry_after_seconds) == ("wait", 2.5)


@pytest.mark.parametrize("name", OPERATIONS)
def test_fields_of_a_newer_release_are_passed_over(name: str) -> None:
    operation = OPERATIONS[name]
    for form, message in zip((operation.request, operation.answer), MESSAGES[name], strict=True):
        newer = [*msgpack.unpackb(form.pack(message, VERSION)), {"something": ["new"]}]
        assert form.unpack(msgpack.packb(newer), VERSION) == message


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_field_has_its_type_and_no_other(name: str, version: int) -> None:
    """Neither a request nor an answer is taken with one field replaced by a value of a kind that no field has."""
    operation = OPERATIONS[name]
    for form, message in zip((operation.request, operation.answer), MESSAGES[name], strict=True):
        plain = msgpack.unpackb(form.pack(message, version))
        if version == 1 and len(structs.fields(type(message))) < 2:
            changed: list[Any] = [3.5]
        else:
            changed = [[*plain[:k], 3.5, *plain[k + 1 :]] for k in range(len(plain))]
        for value in changed:
            with pytest.raises(NotUnderstood):
                form.unpack(msgpack.packb(value), version)


@pytest.mark.parametrize(
    "request_",
    [
        SignRequest("x" * ((1 << 19) + 1), b"1", ""),
        SignRequest("", b"", ""),
        SignRequest("", b"x" * 21, ""),
        SignRequest("", b"1", "x" * 4097),
    ],
    ids=["csr", "no serial", "long serial", "requester"],
)
def test_fields_are_bounded(request_: SignRequest) -> None:
    with pytest.raises(NotUnderstood):
        SIGN.request.unpack(SIGN.request.pack(request_, VERSION), VERSION)


@pytest.mark.parametrize("index", [-1, True, 1 << 63, "5"])
def test_index_is_a_count(index: object) -> None:
    request, _ = MESSAGES["configure"]
    assert isinstance(request, ConfigureRequest)
    plain = msgpack.unpackb(CONFIGURE.request.pack(request, VERSION))
    plain[8] = index
    with pytest.raises(NotUnderstood, match=r"\$\[8\]"):
        CONFIGURE.request.unpack(msgpack.packb(plain), VERSION)


def test_envelope_is_bounded_and_outcomes_are_counted() -> None:
    with pytest.raises(NotUnderstood):
        unpack_envelope(msgpack.packb([1, [None] * (MAX_REQUESTS + 1)]))
    with pytest.raises(NotUnderstood):
        unpack_envelope(msgpack.packb([-1, []]))
    with pytest.raises(NotUnderstood, match="0 outcomes for 1 requests"):
        unpack_outcomes(WATCHERS, msgpack.packb([]), 1, VERSION)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91" * 4000 + b"\xc0", b"\xa1\xff", b"\x90"])
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for operation in OPERATIONS.values():
        for form in (operation.request, operation.answer):
            for version in VERSIONS:
                try:
                    form.unpack(Raw(data) if data else data, version)
                except NotUnderstood:
                    continue


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_csr_may_hold_fits_into_the_answer(version: int) -> None:
    """The longest SPIFFE ID of a CSR, and an agent's, whose trust domain is replaced by a longer one."""
    longest = structs.replace(SignAnswer.of(CERT), name="a" * 2048, spiffe_id="spiffe://" + "x" * 2100)
    assert SIGN.answer.unpack(SIGN.answer.pack(longest, version), version) == longest


def test_answer_that_is_not_understood_costs_no_other_and_is_not_asked_for_again() -> None:
    good = pack_outcome(WATCHERS, WatchersAnswer(4, 3), VERSION)
    newer = Outcome(None, Raw(msgpack.packb(["four", 3])))
    answer, lost = unpack_outcomes(WATCHERS, pack_outcomes([good, newer]), 2, VERSION)
    assert answer == WatchersAnswer(4, 3)
    assert type(lost) is AnswerLost
    assert "'watchers' is not understood" in str(lost)


def test_errors_of_a_peer_are_bounded() -> None:
    text, pause = "x" * (1 << 20), 0.0
    packed = msgpack.packb([[["ProviderUnavailable", text, pause], None]])
    [error] = unpack_outcomes(WATCHERS, packed, 1, VERSION)
    assert len(str(error)) == 64 << 10
    for pause in (float("inf"), float("nan"), -1.0):
        with pytest.raises(NotUnderstood):
            unpack_outcomes(WATCHERS, msgpack.packb([[["RateLimited", "", pause], None]]), 1, VERSION)
    with pytest.raises(NotUnderstood):
        unpack_outcomes(WATCHERS, msgpack.packb([[None, None]] * (MAX_REQUESTS + 1)), MAX_REQUESTS + 1, VERSION)


def test_values_arrive_whole() -> None:
    for serial in (1, (1 << 64) + 1, (1 << 160) - 1):
        cert = IssuedCert(serial, "pem\n", "service", "web", "spiffe://x", 1, 2, 3)
        assert SignAnswer.of(cert).value() == cert
    assert PlanAnswer.of(PLAN).value() == PLAN
    assert PlanRequest.of(ROTATE).value() == ROTATE
    assert RotationRequest("ec", 384, True, False, 30, REQUEST_ID, 1, False).value() == ROTATE
    assert ClusterAnswer.of(ClusterInfo(SERVERS, 9)).value() == ClusterInfo(SERVERS, 9)
    assert UptakeAnswer.of(None).value() is None
    assert UptakeAnswer.of(Uptake(1, 2, 3, 4)).value() == Uptake(1, 2, 3, 4)
    assert RowMessage.of(RECORD).value() == RECORD
