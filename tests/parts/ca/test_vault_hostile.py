"""A Vault that is not what it should be, and configurations that would have secrets sent to one: what is refused, in
which words, and that nothing has changed and nothing is left behind.
"""

import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from cluster.api.ca import ConfigUpdate
from cluster.backup.restore import check_seal
from cluster.base.config import ConnectSection
from cluster.base.errors import BadRequest, InternalError, Refused
from cluster.base.log import SAME
from cluster.signing.serials import new_serial
from fsm.ca import CARoot, RenewSigning
from fsm.commands import RestoreCA
from providers import registry
from providers.pki import verify
from providers.pki.serials import serial_bytes
from providers.vault.config import TLSOptions
from providers.vault.provider import VaultProvider
from providers.vault.transport import Answer, Transport, TransportFailure
from tests.kit.callers import anybody
from tests.kit.clock import FakeClock
from tests.kit.fake_cluster import FakeCluster, Node, bootstrapped, looked_again, put, running, update
from tests.kit.fake_vault import TOKEN, FakeVault, Mount, data, failure, listing
from tests.kit.wait import until

HOME = "https://vault.test:8200"
NOBODY = "https://nobody.test:8200"
CONFIG: dict[str, object] = {
    "Address": HOME,
    "Token": TOKEN,
    "RootPKIPath": "root",
    "IntermediatePKIPath": "int",
    "CSRMaxPerSecond": 0,
}
WITHOUT_TOKEN = {key: value for key, value in CONFIG.items() if key != "Token"}
MOVED: dict[str, object] = {**CONFIG, "RootPKIPath": "other", "IntermediatePKIPath": "otherint"}
METHOD = {"Type": "approle", "Params": {"role_id": "r", "secret_id": "s-secret"}}
LONG = "\x1b[31mno " + 700_000 * "x"


class Nobody:
    """Where no Vault is."""

    def send(self, method: str, path: str, **_: object) -> Answer:
        raise TransportFailure(f"{NOBODY} cannot be reached: connection refused")

    def close(self) -> None: ...


class Vaults(FakeVault):
    """The same one at every address but NOBODY; notes where a connection was made to, and with which TLS trust."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def connect(self, address: str, tls: object) -> Any:
        self.addresses.append(address)
        return Nobody() if address == NOBODY else self


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.ca.leader._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("cluster.ca.leader._LOOK_SECONDS", 0.05)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now=time.time())


@pytest.fixture
def vault(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Vaults:
    vault = Vaults()
    real = registry._constructor

    def connect(address: str, tls: TLSOptions) -> Transport:
        connected: Transport = vault.connect(address, tls)
        return connected

    def constructor(name: str) -> Callable[[], Any]:
        return (lambda: VaultProvider(connect, clock.monotonic, clock.now)) if name == "vault" else real(name)

    monkeypatch.setattr(registry, "_constructor", constructor)
    return vault


@pytest.fixture
async def node(cluster: FakeCluster, vault: Vaults, clock: FakeClock) -> AsyncIterator[Node]:
    """A leader whose CA, in Vault, is up."""
    node = Node(cluster, "a", clock=clock, connect=ConnectSection(ca_provider="vault", ca_config=CONFIG))
    async with running(node):
        await bootstrapped(node)
        yield node
        node.pool.renew()


@pytest.fixture
async def builtin(cluster: FakeCluster, vault: Vaults, clock: FakeClock) -> AsyncIterator[Node]:
    """A leader whose CA holds its own key."""
    node = Node(cluster, "a", clock=clock)
    async with running(node):
        await bootstrapped(node)
        yield node
        node.pool.renew()


def active(node: Node) -> CARoot:
    assert node.cluster.state.active_root is not None
    return node.cluster.state.active_root


def to_vault(config: Mapping[str, object], **how: Any) -> ConfigUpdate:
    return update(dict(config), provider="vault", **how)


async def settled(node: Node) -> None:
    await until(lambda: node.authority.is_ready and not node.authority.is_behind(node.cluster.state))


async def signs(node: Node) -> None:
    """And who trusts any listed root accepts it."""
    state = node.cluster.state
    csr_pem, _ = await node.pool.make_csr(f"spiffe://{state.trust_domain}/ns/default/dc/dc1/svc/web", (), ())
    chain_pem = (await node.authority.sign(csr_pem, serial_bytes(new_serial()), "test", anybody)).cert_pem
    stores = {root.root_id: [root.root_pem] for root in state.roots}
    verify.verify_leaf(chain_pem, stores, now=int(node.clock.now()))


async def refused(node: Node, wanted: ConfigUpdate, error: type[Exception]) -> str:
    """The text; nothing has been committed, and nothing is left in the workers or at Vault."""
    before, proposed = node.cluster.state, len(node.cluster.proposed)
    configured = set(node.worker.keys)
    with pytest.raises(error) as caught:
        await put(node, wanted)
    assert node.cluster.state == before
    assert len(node.cluster.proposed) == proposed
    assert node.worker.keys == configured
    return str(caught.value)


async def outcome(node: Node, wanted: ConfigUpdate) -> InternalError | None:
    try:
        await put(node, wanted)
    except InternalError as error:
        return error
    return None


# --- secrets go only to where they were given for -------------------------------------------------------------------

MOVES: list[dict[str, object]] = [
    {"Address": "https://evil.test:8200"},
    {"address": "https://evil.test:8200", "Address": None},
    {"Address": "http://vault.test:8200"},
    {"Address": HOME + "/prefix"},
    {"Namespace": "team"},
    {"RootPKINamespace": "team"},
    {"IntermediatePKINamespace": "team"},
    {"CAFile": "/tmp/ca.pem"},
    {"CAPath": "/tmp/cas"},
    {"ca_file": "/tmp/ca.pem"},
    {"RootPKIPath": "team/root"},
    {"IntermediatePKIPath": "/team/below/int"},
    {"TLSServerName": "evil.test"},
    {"TLSSkipVerify": True},
    {"tls-skip-verify": "1"},
]


@pytest.mark.parametrize("move", MOVES, ids=str)
@pytest.mark.parametrize("secret", ["Token", "AuthMethod"])
async def test_stored_login_is_not_sent_elsewhere(
    node: Node, vault: Vaults, move: dict[str, object], secret: str
) -> None:
    if secret == "AuthMethod":
        vault.logins["auth/approle/login"] = lambda body: body == METHOD["Params"]
        await put(node, to_vault({**WITHOUT_TOKEN, "AuthMethod": METHOD}))
    vault.addresses.clear()
    wanted = {key: value for key, value in {**WITHOUT_TOKEN, **move}.items() if value is not None}
    text = await refused(node, to_vault(wanted), BadRequest)
    [key] = [key for key, value in move.items() if value is not None]
    canonical = {"address": "Address", "ca_file": "CAFile", "tls-skip-verify": "TLSSkipVerify"}.get(key, key)
    assert text.startswith(f"{canonical} is changed, so {secret} must be given again")
    assert vault.addresses == []
    assert TOKEN not in text


@pytest.mark.parametrize(
    "same",
    [{"Address": HOME + "/"}, {"Namespace": "/"}, {"TLSSkipVerify": "false"}, {"CAFile": ""}, {"LeafCertTTL": "24h"}],
    ids=str,
)
async def test_what_means_the_same_place_keeps_the_login(node: Node, same: dict[str, object]) -> None:
    await put(node, to_vault({**WITHOUT_TOKEN, **same}))
    await settled(node)
    await signs(node)


@pytest.mark.parametrize(
    "odd",
    [
        {"IntermediatePKIPath": "kv/foo#"},
        {"RootPKIPath": "a/../sys"},
        {"Token": "s.0123 4567"},
        {"Namespace": "team a"},
        {"Token": "", "AuthMethod": {**METHOD, "MountPath": "x?"}},
    ],
    ids=str,
)
async def test_text_that_would_make_another_request_is_refused_before_any_is_made(
    node: Node, vault: Vaults, odd: dict[str, object]
) -> None:
    vault.addresses.clear()
    text = await refused(node, to_vault({**CONFIG, **odd}), BadRequest)
    assert list(odd)[-1] in text
    assert vault.addresses == []


async def test_login_that_is_given_again_goes_to_the_new_place(node: Node, vault: Vaults) -> None:
    vault.addresses.clear()
    await put(node, to_vault({**CONFIG, "Address": "https://vault-2.test:8200"}))
    assert set(vault.addresses) == {"https://vault-2.test:8200"}
    await signs(node)
    # It was given for that one: the way back asks for it, too.
    assert "Token must be given again" in await refused(node, to_vault(WITHOUT_TOKEN), BadRequest)


async def test_login_does_not_come_back_with_a_provider_that_was_left(node: Node) -> None:
    rotation_id = await put(node, update({"CSRMaxPerSecond": 0}))
    await node.reconfigurer.wait_for_rotation(rotation_id)
    moved = {key: value for key, value in MOVED.items() if key != "Token"}
    text = await refused(node, to_vault({**moved, "Address": "https://evil.test:8200"}), InternalError)
    assert "must provide a Vault token" in text


async def test_configuration_that_was_changed_beside_its_sealed_login_gets_none_of_it(
    node: Node, vault: Vaults
) -> None:
    """In a snapshot, or in files of a node: the address is in clear there, and the token is not."""
    state = node.cluster.state
    assert state.config is not None
    stored = {**json.loads(state.config.config_json), "Address": "https://evil.test:8200"}
    tampered = replace(state, config=replace(state.config, config_json=json.dumps(stored)))
    with pytest.raises(Refused, match=r"Address in the snapshot's configuration is not what its secrets were sealed"):
        check_seal(node.sealer, tampered)
    check_seal(node.sealer, state)

    vault.addresses.clear()
    node.cluster.commit(RestoreCA(state.ca_index, tampered))  # as by a release that did not look
    with pytest.raises(InternalError, match=r"Address in the stored configuration is not what its secrets were sealed"):
        await node.authority.adopt(node.cluster.state)
    text = await refused(node, to_vault({**WITHOUT_TOKEN, "Address": "https://evil.test:8200"}), InternalError)
    assert "must provide a Vault token" in text
    assert vault.addresses == []
    await put(node, to_vault(CONFIG))
    await settled(node)
    await signs(node)


# --- what looks like a secret ---------------------------------------------------------------------------------------

PEM_KEY = "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ({"VaultToken": "s3cr3t"}, "VaultToken"),
        ({"vault_token": "s3cr3t"}, "vault_token"),
        ({"Note": PEM_KEY}, "Note"),
        ({"RootCert": "-----BEGIN CERTIFICATE-----\n" + PEM_KEY}, "RootCert"),
        ({"root_cert": PEM_KEY}, "RootCert"),
        ({"Nested": {"deeper": [{"Password": "s3cr3t"}]}}, "Nested.deeper[0].Password"),
        ({"Vault": {"auth_method": {"x": "s3cr3t"}}}, "Vault.auth_method"),
        ({"ApiCredentials": ["s3cr3t"]}, "ApiCredentials"),
    ],
)
async def test_secret_under_a_name_that_is_not_kept_secret_is_refused_and_named(
    builtin: Node, config: dict[str, object], place: str
) -> None:
    text = await refused(builtin, update(config), BadRequest)
    assert f": {place}. Secrets of the provider" in text
    for shown in (text, str(builtin.log.events)):
        assert "s3cr3t" not in shown
        assert "c2VjcmV0" not in shown


@pytest.mark.parametrize("name", ["private_key", "Private-Key", "PRIVATE_KEY", "privatekey"])
async def test_known_secret_is_sealed_in_any_spelling(builtin: Node, name: str) -> None:
    text = await refused(builtin, update({name: PEM_KEY}), InternalError)
    assert text.startswith("error configuring provider: PrivateKey cannot be used: ")
    assert "c2VjcmV0" not in text


async def test_key_that_comes_twice_is_refused(builtin: Node) -> None:
    text = await refused(builtin, update({"PrivateKey": "", "private_key": "x"}), BadRequest)
    assert text == "PrivateKey and private_key name the same key: give one of them"


# --- a change counts once it signs ----------------------------------------------------------------------------------


async def test_address_where_nobody_listens_is_refused(node: Node) -> None:
    text = await refused(node, to_vault({**CONFIG, "Address": NOBODY}), InternalError)
    assert text.startswith("error configuring provider: Vault is unavailable: ")
    await signs(node)


async def test_configuration_with_which_vault_refuses_to_sign_is_refused(node: Node, vault: Vaults) -> None:
    vault.tokens["weak"] = {"ttl": 0, "renewable": False}
    vault.replace["/sign/"] = lambda answer: failure(403, "permission denied")
    text = await refused(node, to_vault({**CONFIG, "Token": "weak"}), InternalError)
    assert text.startswith("error configuring provider: error issuing cert: Vault denies PUT int/issuer/")
    vault.replace.clear()
    await signs(node)


async def test_leader_comes_up_while_vault_is_away_and_changes_nothing(node: Node, vault: Vaults) -> None:
    vault.outage = TransportFailure(f"{HOME} cannot be reached: connection refused")
    await node.authority.drop()
    node.authority.lead()
    await node.authority.adopt(node.cluster.state)
    assert node.authority.is_ready
    assert "Vault is unavailable" in await refused(node, to_vault({**CONFIG, "LeafCertTTL": "24h"}), InternalError)
    vault.outage = None


async def test_change_repairs_a_ca_whose_signing_key_is_gone(node: Node, vault: Vaults) -> None:
    before = active(node)
    del vault.mounts["int"]
    await put(node, to_vault({**CONFIG, "LeafCertTTL": "24h"}))
    await until(lambda: any(isinstance(command, RenewSigning) for command in node.cluster.committed))
    await settled(node)
    await signs(node)
    assert active(node).root_id == before.root_id
    assert len(vault.mounts["int"].issuers) == 1


# --- what Vault refuses for good ------------------------------------------------------------------------------------


def _kv(path: str) -> Callable[[Vaults], None]:
    def mount(vault: Vaults) -> None:
        vault.mounts[path] = Mount("a kv store", engine="kv")

    return mount


def _short(vault: Vaults) -> None:
    vault.mount_root("other", path_length=0)


def _short_above(vault: Vaults) -> None:
    vault.mount_root("other", is_below=True, path_length=1)


def _denied(vault: Vaults) -> None:
    vault.denied = {" other/ca/pem"}


@pytest.mark.parametrize(
    ("arrange", "text"),
    [
        (_kv("other"), "what is mounted at other is not the PKI engine: Vault answers 404 to GET other/ca/pem"),
        (_kv("otherint"), "what is mounted at otherint is not the PKI engine: Vault answers 404 to GET otherint/ca"),
        (_short, "the CA at RootPKIPath other cannot sign an intermediate: the path length of CN=other root is 0"),
        (_short_above, "the path length of CN=other root is 1, and must be 2 or more"),
        (_denied, "Vault denies GET other/ca/pem (permission denied)"),
    ],
    ids=["kv-root", "kv-intermediate", "path-length", "path-length-above", "denied"],
)
async def test_mount_that_will_never_do_is_told_at_once_and_no_other_is_made(
    builtin: Node, vault: Vaults, arrange: Callable[[Vaults], None], text: str
) -> None:
    arrange(vault)
    mounts = dict(vault.mounts)
    assert text in await refused(builtin, to_vault(MOVED), InternalError)
    assert vault.mounts == mounts
    await signs(builtin)


@pytest.mark.parametrize(
    "call",
    ["root/generate/internal", "sys/mounts/otherint", "intermediate/generate/internal", "root/sign-intermediate"],
)
@pytest.mark.parametrize("status", [400, 403, 404])
async def test_refusal_for_good_ends_the_change_at_once_and_leaves_no_mount(
    builtin: Node, vault: Vaults, call: str, status: int
) -> None:
    before = active(builtin)
    vault.denied = set()
    vault.replace[call] = lambda answer: failure(status, "because") if answer.status < 400 else answer
    if call.startswith("sys/"):
        vault.denied, vault.replace = {f"post {call}"}, {}
    rotation_id = await put(builtin, to_vault(MOVED))
    with pytest.raises(InternalError, match=r"Vault (answers|denies) .*(because|permission denied)"):
        await builtin.reconfigurer.wait_for_rotation(rotation_id)  # the clock stands still: it was not tried again
    assert vault.mounts == {}
    assert active(builtin) == before
    await signs(builtin)


async def test_reason_that_can_pass_is_waited_for(builtin: Node, vault: Vaults) -> None:
    left = [failure(500, "storage is busy"), failure(412, "try again"), failure(409, "conflict")]
    vault.replace["root/sign-intermediate"] = lambda answer: left.pop() if left else answer
    await builtin.reconfigurer.wait_for_rotation(await put(builtin, to_vault(MOVED)))
    assert left == []
    await settled(builtin)
    await signs(builtin)


async def test_mount_of_somebody_else_stays_when_a_change_fails(builtin: Node, vault: Vaults) -> None:
    theirs = vault.mount_root("other")
    made = vault.mounts["otherint"] = Mount("theirs, too")
    vault.replace["root/sign-intermediate"] = lambda _: failure(400, "because")
    with pytest.raises(InternalError, match="because"):
        await builtin.reconfigurer.wait_for_rotation(await put(builtin, to_vault(MOVED)))
    assert vault.mounts == {"other": theirs, "otherint": made}


@pytest.mark.parametrize("arrange", ["kv", "refused"])
async def test_path_for_intermediates_that_will_never_do_is_refused(node: Node, vault: Vaults, arrange: str) -> None:
    if arrange == "kv":
        vault.mounts["elsewhere"] = Mount("a kv store", engine="kv")
    else:
        vault.replace["root/sign-intermediate"] = lambda _: failure(400, "because")
    mounts = dict(vault.mounts)
    text = await refused(node, to_vault({**CONFIG, "IntermediatePKIPath": "elsewhere"}), InternalError)
    assert text.startswith("error configuring provider: ")
    assert ("not the PKI engine" if arrange == "kv" else "because") in text
    assert vault.mounts == mounts
    await signs(node)


# --- what Vault says ------------------------------------------------------------------------------------------------


async def test_refusal_of_any_length_ends_the_rotation_and_is_told_in_few_words(builtin: Node, vault: Vaults) -> None:
    vault.replace["root/generate"] = lambda _: failure(400, LONG)
    rotation_id = await put(builtin, to_vault(MOVED))
    with pytest.raises(InternalError) as caught:
        await builtin.reconfigurer.wait_for_rotation(rotation_id)
    last = builtin.cluster.state.last_rotation
    assert last is not None
    for text in (str(caught.value), last.reason, *map(str, builtin.log.events)):
        assert len(text) < 1200
        assert "\x1b" not in text
    assert "no xxx" in last.reason


async def test_trouble_that_stays_is_told_once(builtin: Node, vault: Vaults) -> None:
    vault.replace["root/sign-intermediate"] = lambda _: failure(500, LONG)
    rotation_id = await put(builtin, to_vault(MOVED))

    def reasons() -> list[object]:
        return [fields["reason"] for event, fields in builtin.log.events if event == "duty.failed"]

    await until(lambda: len(reasons()) >= 4)
    first, *others = reasons()
    assert "no xxx" in str(first)
    assert set(others) == {SAME}
    assert len(builtin.health.now.trouble) < 1200
    vault.replace["root/sign-intermediate"] = lambda _: failure(500, "another reason")
    await until(lambda: "another reason" in str(reasons()[-2:]))
    builtin.clock.advance(61)
    with pytest.raises(InternalError, match="another reason"):
        await builtin.reconfigurer.wait_for_rotation(rotation_id)


async def test_garbage_in_place_of_every_answer_changes_nothing(node: Node, vault: Vaults) -> None:
    """Whatever a Vault answers to whichever call, the CA is as it was, and signs once the answers are right again."""
    before = active(node)
    answers = [
        Answer(200),
        Answer(200, text="\x00" * 70_000),
        Answer(200, text="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * 500),
        Answer(200, body={"data": {"certificate": "x" * 70_000, "csr": "x" * 70_000, "keys": ["../" * 100_000]}}),
        Answer(200, body={"data": {"keys": [7, None, "a/../b"], "key_info": [], "certificate": 7, "mapping": []}}),
        Answer(200, body={"data": {"default": {"x": 1}, "key_id": "../../sys/seal", "csr": "no"}}),
        Answer(204),
        failure(418, LONG),
    ]
    calls = ("ca/pem", "ca_chain", "sys/mounts", "root/", "intermediate/", "keys", "issuer", "config/", "roles")
    for answer, path in itertools.product(answers, calls):
        vault.replace = {path: lambda _, answer=answer: answer}  # type: ignore[misc]
        error = await outcome(node, to_vault({**CONFIG, "IntermediatePKIPath": "elsewhere"}))
        assert error is None or len(str(error)) < 5000
        vault.replace = {}
        if error is None:  # it did not need that call
            await put(node, to_vault(CONFIG))
            await settled(node)
            await until(lambda: not node.authority.wants_renewal)
        vault.mounts.pop("elsewhere", None)
    await looked_again(node)
    await settled(node)
    await signs(node)
    assert active(node).root_id == before.root_id
    assert max(len(str(event)) for event in node.log.events) < 2000


async def test_id_that_is_none_is_neither_asked_for_nor_kept(node: Node, vault: Vaults) -> None:
    """It would be part of paths, and of the replicated state."""
    for found in ("../../sys/seal", "x" * 129, "a b", "é"):
        for path, answer in (
            ("elsewhere/keys", listing({found: {"key_name": "x"}})),
            ("elsewhere/issuers", listing({found: {}})),
            ("elsewhere/intermediate/generate", data({"csr": "x", "key_id": found})),
            ("elsewhere/intermediate/set-signed", data({"mapping": {found: "x"}})),
        ):
            vault.replace, before = {path: lambda _, answer=answer: answer}, len(vault.calls)  # type: ignore[misc]
            text = await refused(node, to_vault({**CONFIG, "IntermediatePKIPath": "elsewhere"}), InternalError)
            assert "Vault's answer has an id that is none" in text
            assert not [call for call in vault.calls[before:] if found in call]
