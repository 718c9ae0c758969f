"""Who can put a root into a snapshot: nobody without the seal key; and which roots come back only when that is said."""

import hashlib
import io
import itertools
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgpack
import pytest

from cluster.backup import archive
from cluster.backup import file as backup
from cluster.backup.trust import trust_change
from cluster.base.errors import Refused
from cluster.rpc.messages import DISTRUST_ROOT, DistrustRequest
from cluster.seal.sealer import Sealer
from cluster.seal.sources import FileKey
from fsm.ca import CARoot
from fsm.codec import dump_state, load_state
from fsm.state import State
from tests.kit import samples
from tests.kit.backups import restore, sign, snapshots
from tests.kit.callers import ANYBODY
from tests.kit.fake_cluster import Node, put, update
from tests.kit.keeper import kept
from tests.kit.log import EventLog
from tests.kit.wait import until

Two = tuple[Node, Node]
#: As the release before wrote it (make_golden.py beside it), with the seal key of its cluster.
GOLDEN: Final = Path(__file__).parent / "golden"


def parts_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: _content(tar, member) for member in tar}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def packed(path: Path, parts: Mapping[str, bytes]) -> None:
    archive.write(path, [(name, len(data), io.BytesIO(data)) for name, data in parts.items()], 1 << 30)


def with_new_sums(parts: Mapping[str, bytes], *, mac: str | None = None) -> dict[str, bytes]:
    """What anybody can do who has the file: checksums that fit, beside the MAC that was there, or another, or none."""
    *_, old = parts["SHA256SUMS"].decode().splitlines()
    sums = "".join(f"{hashlib.sha256(parts[name]).hexdigest()}  {name}\n" for name in ("meta.json", "state.bin"))
    return {**parts, "SHA256SUMS": (sums + (f"{old}\n" if mac is None else mac)).encode()}


def with_state(parts: Mapping[str, bytes], change: Callable[[State], State]) -> dict[str, bytes]:
    """Another state, and all the rest as it was."""
    unpacker = msgpack.Unpacker(io.BytesIO(parts["state.bin"]))
    form, state, *rows = list(unpacker)
    changed = dump_state(change(load_state(state)))
    return {**parts, "state.bin": b"".join(map(msgpack.packb, (form, changed, *rows)))}


def with_a_root(parts: Mapping[str, bytes]) -> dict[str, bytes]:
    """One more root, as its key's owner would like it."""

    def change(saved: State) -> State:
        root = saved.roots[0]
        foreign = replace(root, root_id="66:6f", name="Foreign", root_pem=root.root_pem + "\n", is_active=False)
        return replace(saved, roots=(*saved.roots, foreign))

    return with_state(parts, change)


async def assert_refused(node: Node, path: Path, match: str, *, is_forced: bool = False) -> str:
    """And nothing has changed."""
    before, log_index = node.cluster.state, node.cluster.log_index
    count = node.cluster.machine.ledger_summary.count
    with pytest.raises(Refused, match=match) as refused:
        await restore(node, path, is_forced=is_forced)
    assert (node.cluster.state, node.cluster.log_index) == (before, log_index)
    assert node.cluster.machine.ledger_summary.count == count
    return str(refused.value)


def kept_here(trust_domain: str, *, word: str = "still") -> str:
    return f"The trust domain is {word} {trust_domain}: tokens, policies, roles and auth methods stay as they are here"


def no_more(root: CARoot) -> str:
    return f"Root {root.root_id} ({root.name}) is not trusted any more: leaves that lead to no other root are refused"


# -- what the MAC protects


@pytest.mark.parametrize("is_forced", [False, True])
async def test_root_added_with_sums_made_anew_is_refused_even_by_force(two: Two, saved: Path, is_forced: bool) -> None:
    packed(saved, with_new_sums(with_a_root(parts_of(saved))))
    await assert_refused(two[1], saved, "MAC is wrong", is_forced=is_forced)


@pytest.mark.parametrize("mac", ["0" * 64, "f" * 64])
async def test_mac_of_another_key_is_refused(two: Two, saved: Path, mac: str) -> None:
    line = f"# HMAC-SHA256 quorumca-snapshot-1 {mac}\n"
    packed(saved, with_new_sums(with_a_root(parts_of(saved)), mac=line))
    await assert_refused(two[1], saved, "MAC is wrong")


async def test_file_whose_mac_was_taken_away_is_refused_and_says_what_it_would_add(two: Two, saved: Path) -> None:
    packed(saved, with_new_sums(with_a_root(parts_of(saved)), mac=""))
    text = await assert_refused(two[1], saved, "the snapshot is not authenticated: it has no MAC")
    assert "66:6f (Foreign)" in text
    assert "; tokens, policies, roles and auth methods stay as they are here; " in text
    assert "?force" in text


async def test_any_byte_of_either_member_changed_is_refused(two: Two, saved: Path, tmp_path: Path) -> None:
    """With sums that fit. What is changed may not even be readable any more: that is no way around it."""
    _, target = two
    parts = parts_of(saved)
    for name in ("meta.json", "state.bin"):
        step = max(1, len(parts[name]) // 40)
        for offset in range(0, len(parts[name]), step):
            changed = bytearray(parts[name])
            changed[offset] ^= 0x01
            packed(tmp_path / "changed", with_new_sums({**parts, name: bytes(changed)}))
            await assert_refused(target, tmp_path / "changed", "snapshot", is_forced=True)


@pytest.mark.parametrize("line", range(3))
async def test_any_byte_of_the_sums_changed_is_refused(two: Two, saved: Path, tmp_path: Path, line: int) -> None:
    parts = parts_of(saved)
    lines = parts["SHA256SUMS"].splitlines(keepends=True)
    for offset in range(0, len(lines[line]), 5):
        changed = bytearray(lines[line])
        changed[offset] ^= 0x01
        sums = b"".join((*lines[:line], bytes(changed), *lines[line + 1 :]))
        packed(tmp_path / "changed", {**parts, "SHA256SUMS": sums})
        await assert_refused(two[1], tmp_path / "changed", "snapshot", is_forced=True)


async def test_members_of_two_good_snapshots_cannot_be_put_together(two: Two, saved: Path, tmp_path: Path) -> None:
    source, target = two
    await sign(source, "later")
    await snapshots(source).save(tmp_path / "later")
    one, other = parts_of(saved), parts_of(tmp_path / "later")
    for chosen in itertools.product((one, other), repeat=3):
        if len({id(parts) for parts in chosen}) == 1:
            continue
        mixed = {name: parts[name] for name, parts in zip(one, chosen, strict=True)}
        for anew in (dict(mixed), with_new_sums(mixed)):
            packed(tmp_path / "mixed", anew)
            await assert_refused(target, tmp_path / "mixed", "snapshot", is_forced=True)


async def test_records_left_out_are_refused(two: Two, saved: Path, tmp_path: Path) -> None:
    """With a description that fits: a certificate that was never on record cannot be revoked, or found."""
    parts = parts_of(saved)
    form, state, *_ = list(msgpack.Unpacker(io.BytesIO(parts["state.bin"])))
    fewer = {
        **parts,
        "state.bin": msgpack.packb(form) + msgpack.packb(state),
        "meta.json": parts["meta.json"].replace(b'"certificates": 1', b'"certificates": 0'),
    }
    packed(tmp_path / "fewer", with_new_sums(fewer))
    assert backup.read(tmp_path / "fewer").meta.certificates == 0
    await assert_refused(two[1], tmp_path / "fewer", "MAC is wrong", is_forced=True)


def test_mac_does_not_keep_the_release_before_from_reading_the_sums(saved: Path) -> None:
    """It takes lines of two words: a checksum and a name."""
    lines = [line.split() for line in parts_of(saved)["SHA256SUMS"].decode().splitlines()]
    assert [(len(line), line[-1]) for line in lines[:2]] == [(2, "meta.json"), (2, "state.bin")]
    assert len(lines[2]) > 2
    assert lines[2][0] == "#"


async def test_snapshot_can_be_saved_after_the_key_file_was_lost(two: Two, tmp_path: Path) -> None:
    """Above all then: nodes that run still have the data key."""
    source, target = two
    (source.cluster.directory / "seal.key").unlink()
    await snapshots(source).save(tmp_path / "late")
    assert await restore(target, tmp_path / "late") != ()


async def test_node_that_has_neither_key_says_so(two: Two, tmp_path: Path) -> None:
    source, _ = two
    (source.cluster.directory / "seal.key").unlink()
    directory = source.cluster.directory
    stranger = kept(Sealer(FileKey(directory / "seal.key")), directory).sealer
    with pytest.raises(Refused, match="could not be given its MAC"):
        await snapshots(source, stranger).save(tmp_path / "late")
    assert not (tmp_path / "late").exists()


# -- trust that is added, and trust that comes back


async def test_on_new_machines_nothing_is_asked_and_the_roots_are_named(two: Two, saved: Path) -> None:
    source, target = two
    root, first = source.cluster.state.roots[0], target.cluster.state.roots[0]
    log = EventLog()
    notes = await snapshots(target, log=log).restore(saved, is_forced=False)
    kept = kept_here(source.cluster.state.trust_domain, word="now")  # it is of a cluster without access control
    assert notes == (f"Root {root.root_id} ({root.name}) is trusted from now on", no_more(first), kept)
    [(event, fields)] = log.events
    assert event == "snapshot.restored"
    assert (fields["is_authentic"], fields["is_forced"]) == (True, False)
    assert (fields["added_roots"], fields["removed_roots"]) == ([root.root_id], [first.root_id])


async def test_where_its_roots_are_listed_a_snapshot_changes_no_trust(two: Two, saved: Path) -> None:
    source, _ = two
    log = EventLog()
    kept = kept_here(source.cluster.state.trust_domain)
    assert await snapshots(source, log=log).restore(saved, is_forced=False) == (kept,)
    [(_, fields)] = log.events
    assert (fields["added_roots"], fields["removed_roots"]) == ([], [])


async def test_roots_that_a_snapshot_does_not_know_are_named(two: Two, saved: Path) -> None:
    """It was saved before them. Nothing comes back, so nobody was asked: the answer is the only word about it."""
    source, _ = two
    old = source.cluster.state.roots[0]
    for bits in (384, 256):
        key = {"PrivateKeyType": "ec", "PrivateKeyBits": bits}
        await put(source, update({"LeafCertTTL": "72h", **key}))
        await until(lambda: source.cluster.state.rotation is None)
    newer = [root for root in source.cluster.state.roots if root.root_id != old.root_id]
    assert len(newer) == 2
    log = EventLog()
    caller = replace(ANYBODY, asked_from="10.0.0.7")
    notes = await snapshots(source, log=log).restore(saved, is_forced=False, caller=caller)
    assert [root.root_id for root in source.cluster.state.roots] == [old.root_id]
    assert sorted(notes) == sorted([*map(no_more, newer), kept_here(source.cluster.state.trust_domain)])
    [(_, fields)] = log.events
    assert fields["added_roots"] == []
    assert sorted(fields["removed_roots"]) == sorted(root.root_id for root in newer)
    [on_leader] = [fields for event, fields in source.log.events if event == "ca.restored"]
    assert sorted(on_leader["removed_roots"]) == sorted(root.root_id for root in newer)
    assert (fields["by"].endswith("10.0.0.7"), on_leader["by"].endswith("10.0.0.7")) == (True, True)


async def test_root_that_was_taken_away_comes_back_only_by_force(two: Two, saved: Path) -> None:
    source, _ = two
    old = source.cluster.state.roots[0]
    await put(source, update({"LeafCertTTL": "72h", "PrivateKeyType": "ec", "PrivateKeyBits": 384}))
    await until(lambda: len(source.cluster.state.roots) == 2 and source.cluster.state.rotation is None)
    await source.operations.run(DISTRUST_ROOT, DistrustRequest(old.root_id))
    [new] = source.cluster.state.roots
    assert new.root_id != old.root_id

    text = await assert_refused(source, saved, "brings back trust that was taken away here")
    assert f"{old.root_id} ({old.name})" in text
    assert "?force" in text

    log = EventLog()
    notes = await snapshots(source, log=log).restore(saved, is_forced=True)
    kept = kept_here(source.cluster.state.trust_domain)
    assert notes == (f"Root {old.root_id} ({old.name}) is trusted again", no_more(new), kept)
    assert [root.root_id for root in source.cluster.state.roots] == [old.root_id]
    [(_, fields)] = log.events
    assert (fields["is_forced"], fields["added_roots"]) == (True, [old.root_id])


async def test_another_certificate_under_a_listed_id_is_a_root_that_is_added(two: Two, saved: Path) -> None:
    source, _ = two
    read = backup.read(saved)
    assert read.state.seal is not None
    changed = replace(read.state.roots[0], root_pem=read.state.roots[0].root_pem.replace("\n", "\n\n", 1))
    state = replace(read.state, roots=(changed,))
    backup.write(saved, read.meta, state, source.sealer.opened(read.state.seal).mac, lambda _: [])
    await assert_refused(source, saved, "brings back trust")


def test_root_of_a_rotation_that_was_under_way_is_named_too() -> None:
    """It is not listed in the snapshot yet, and would be trusted as soon as the rotation goes on."""
    state = samples.full_state()
    assert state.rotation is not None
    root = replace(state.roots[0], root_id="77:77", root_pem="another", name="Coming")
    saved = replace(state, rotation=replace(state.rotation, root=root))
    change = trust_change(state, saved, is_authentic=True)
    assert change.roots == (root,)
    assert change.refusal is not None
    assert "77:77 (Coming)" in change.refusal
    assert trust_change(saved, replace(saved, roots=(*state.roots, root)), is_authentic=True).roots == (root,)
    # The other way round: where it is trusted already, it is not from the restore on until the rotation goes on.
    published = replace(state, roots=(*state.roots, root))
    assert trust_change(published, saved, is_authentic=True).removed == (root,)


def test_another_certificate_under_the_id_of_a_root_does_not_hide_that_it_is_removed() -> None:
    state = samples.full_state()
    first, *others = state.roots
    saved = replace(state, roots=(replace(first, root_pem="another"), *others))
    assert trust_change(state, saved, is_authentic=True).removed == (first,)


# -- snapshots of the release before


async def test_snapshot_of_the_release_before_is_restored_by_force_and_saved_anew_with_a_mac(
    heir: Node, tmp_path: Path
) -> None:
    previous = GOLDEN / "previous.snapshot"
    text = await assert_refused(heir, previous, "the snapshot is not authenticated: it has no MAC")
    wanted = backup.read(previous).state
    [first] = heir.cluster.state.roots
    assert wanted.roots[0].root_id in text
    log = EventLog()
    warning, *notes, kept = await snapshots(heir, log=log).restore(previous, is_forced=True)
    assert warning == "The snapshot is not authenticated: it has no MAC"
    added = [f"Root {root.root_id} ({root.name}) is trusted from now on" for root in wanted.roots]
    assert notes == [*added, no_more(first)]
    assert kept == kept_here(wanted.trust_domain, word="now")
    assert [fields["is_authentic"] for _, fields in log.events] == [False]
    assert [root.root_pem for root in heir.cluster.state.roots] == [root.root_pem for root in wanted.roots]
    await until(lambda: heir.authority.is_ready and not heir.authority.is_behind(heir.cluster.state))
    await sign(heir, "web")
    await snapshots(heir).save(tmp_path / "anew")
    assert backup.read(tmp_path / "anew").has_mac
    assert await restore(heir, tmp_path / "anew") == (kept_here(wanted.trust_domain),)


async def test_root_added_to_a_snapshot_of_the_release_before_is_named_before_it_is_trusted(
    heir: Node, tmp_path: Path
) -> None:
    """Nothing protects such a file: the operator is told what it would add, and decides."""
    packed(tmp_path / "forged", with_new_sums(with_a_root(parts_of(GOLDEN / "previous.snapshot")), mac=""))
    text = await assert_refused(heir, tmp_path / "forged", "not authenticated")
    assert "66:6f (Foreign)" in text
