"""Servers come, go, die and are replaced while clients sign through all of them."""

import asyncio
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.load import run_load, sign_plan
from tests.integration.load import assert_all_on_record, signing_load
from tests.integration.peers import (
    JOIN_SECONDS,
    PEER,
    add_peer,
    assert_out_of_it,
    assert_undisturbed,
    events,
    join,
    operator_raft,
    peer_of,
    remove_peer,
    term_of,
    voters,
    wait_until_voting,
    wipe,
)
from tests.kit.real_cluster import LocalCluster, Node, Settings, make_csr
from tests.kit.wait import eventually, wait_until

pytestmark = pytest.mark.slow

UNLIMITED = {"ca_config": {"csr_max_per_second": 0}}
SETTINGS: Settings = {"connect": UNLIMITED}
#: A log so short that whoever was away for a moment needs a snapshot.
SHORT_LOG: Settings = {"connect": UNLIMITED, "raft": {"compact_bytes": 64 << 10, "keep_bytes": 16 << 10}}
FOUNDERS = {f"node-{number}": True for number in (1, 2, 3)}
#: Several times the longest election time-out.
CALM_SECONDS = 4.0
FLOWING = 30
FLOWING_SECONDS = 20.0

ROWS = 6_000
ROWS_PER_PART = 1_000
KILLS = 3

Record = Callable[[str, object], None]


async def test_server_is_added_and_removed_under_load(tmp_path: Path, record_property: Record) -> None:
    async with LocalCluster(tmp_path, settings=SETTINGS) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        csr_pem, _ = make_csr(await cluster.service_uri())
        async with signing_load(cluster) as load:
            await load.acknowledges(FLOWING, FLOWING_SECONDS)
            leader = await cluster.leader()
            via = next(node for node in cluster.nodes if node is not leader)

            new = cluster.add()
            assert (await add_peer(cluster, via, new)).status == 200
            await load.acknowledges(FLOWING, FLOWING_SECONDS)
            assert await voters(cluster, via) == {**FOUNDERS, "node-4": False}, "it has nothing yet"
            cluster.start(new)
            await wait_until_voting(cluster, via, new)

            by_command = cluster.add()
            peer = ("-id", by_command.name, "-address", by_command.local.raft, "-rpc", by_command.local.rpc)
            assert 'Added peer with id "node-5"' in await operator_raft(via, "add-peer", *peer)
            cluster.start(by_command)
            await wait_until_voting(cluster, via, by_command)
            await load.acknowledges(FLOWING, FLOWING_SECONDS)

            leader = await cluster.leader()
            gone = next(node for node in cluster.nodes if node not in (leader, via))
            cluster.part_with(gone)
            assert (await remove_peer(cluster, via, gone)).status == 200
            assert gone.name not in await voters(cluster, via)
            # It goes on running, and does not know.
            await _assert_harmless(cluster, gone, csr_pem)
            await cluster.restart(gone, signal.SIGKILL)
            await _assert_harmless(cluster, gone, csr_pem)
            await load.acknowledges(FLOWING, FLOWING_SECONDS)
        record_property("clients", str(load))
        load.assert_only_allowed_answers()
        await assert_all_on_record(cluster, load)


async def test_leader_is_removed_and_a_dead_server_replaced_under_load(tmp_path: Path, record_property: Record) -> None:
    async with LocalCluster(tmp_path, settings=SETTINGS) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        csr_pem, _ = make_csr(await cluster.service_uri())
        async with signing_load(cluster) as load:
            await load.acknowledges(FLOWING, FLOWING_SECONDS)
            await join(cluster, cluster.nodes[0])

            leader = await cluster.leader()
            begin = time.monotonic()
            # Asked of the leader itself, which has to hand over first.
            assert f'Removed peer with id "{leader.name}"' in await operator_raft(
                leader, "remove-peer", "-id", leader.name
            )
            cluster.part_with(leader)
            next_leader = await cluster.leader()
            assert leader.name not in await voters(cluster, next_leader)
            await load.acknowledges(FLOWING, FLOWING_SECONDS)
            record_property("seconds without a signature, leader removed", f"{load.longest_silence(begin):.2f}")
            await _assert_harmless(cluster, leader, csr_pem)

            dead = next(node for node in cluster.nodes if node is not next_leader)
            await cluster.kill(dead)
            wipe(dead)
            cluster.part_with(dead)
            assert (await remove_peer(cluster, next_leader, dead)).status == 200
            replacement = await join(cluster, next_leader)
            assert replacement.name == "node-5"
            # Its old self comes back from the shelf, empty, and takes itself for a founder.
            cluster.start(dead)
            await _assert_harmless(cluster, dead, csr_pem)
            await load.acknowledges(FLOWING, FLOWING_SECONDS)
            assert await voters(cluster, next_leader) == dict.fromkeys((node.name for node in cluster.nodes), True)
        record_property("clients", str(load))
        load.assert_only_allowed_answers()
        await assert_all_on_record(cluster, load)


async def _assert_harmless(cluster: LocalCluster, former: Node, csr_pem: str) -> None:
    """A former server that runs, or starts, is in nobody's way and answers for nobody."""
    await asyncio.gather(assert_undisturbed(cluster, CALM_SECONDS), assert_out_of_it(cluster, former, csr_pem))


async def test_leader_is_killed_while_servers_change(tmp_path: Path, record_property: Record) -> None:
    async with LocalCluster(tmp_path, settings=SETTINGS) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        async with signing_load(cluster) as load:
            new = cluster.add()
            for change in (add_peer, remove_peer, add_peer):
                await load.acknowledges(FLOWING, FLOWING_SECONDS)
                leader = await _leader_but(cluster, new)
                via = next(node for node in cluster.nodes if node not in (leader, new))
                asked = asyncio.create_task(change(cluster, via, new))
                await cluster.kill(leader)
                # Done, not done, or not known: an operator looks, and asks again.
                while (answer := await asked).status not in (200, 404):
                    assert answer.status in (503, 504), answer
                    asked = asyncio.create_task(change(cluster, via, new))
                cluster.start(leader)
                if change is add_peer:
                    cluster.start(new)  # the second time with the disk that it had
                    await wait_until_voting(cluster, via, new)
                else:
                    assert await voters(cluster, via) == FOUNDERS
                    await cluster.kill(new)
                await cluster.wait_ready()
            await load.acknowledges(FLOWING, FLOWING_SECONDS)
        record_property("clients", str(load))
        load.assert_only_allowed_answers()
        assert await voters(cluster, cluster.nodes[0]) == {**FOUNDERS, "node-4": True}
        await assert_all_on_record(cluster, load)


async def _leader_but(cluster: LocalCluster, node: Node) -> Node:
    """The leader, which is another than `node` from now on."""
    if await cluster.leader() is node:
        assert (await cluster.ask(node, "PUT", "/v1/operator/raft/transfer-leader")).status == 200
    return await cluster.leader()


async def test_new_server_goes_on_with_its_copy_wherever_it_was_killed(tmp_path: Path, record_property: Record) -> None:
    async with LocalCluster(tmp_path, settings=SHORT_LOG) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        await _fill(cluster, ROWS)
        async with signing_load(cluster, clients=3) as load:
            await load.acknowledges(FLOWING, FLOWING_SECONDS)
            leader = await cluster.leader()
            term = await term_of(cluster, leader)
            new = cluster.add()
            assert (await add_peer(cluster, leader, new)).status == 200
            reached = [0]
            for _ in range(KILLS):
                cluster.start(new)
                await asyncio.to_thread(_wait_for_rows, new, reached[-1] + 1)
                await cluster.kill(new)
                reached.append(_last_row(new))
            cluster.start(new)
            await wait_until_voting(cluster, leader, new)
            assert (await cluster.leader(), await term_of(cluster, leader)) == (leader, term)
            await load.acknowledges(FLOWING, FLOWING_SECONDS)
        record_property("rows after each kill", reached[1:])
        assert all(earlier < later for earlier, later in pairwise(reached))
        assert reached[-1] < ROWS, "the copy was over before the kills were"
        # Each run has asked for what is behind the last row of the run before: nothing was sent twice.
        wanted = [event["bulk_position"] for event in events(new, "snapshot.wanted")]
        assert wanted == sorted(wanted)
        assert set(reached) <= set(wanted), (reached, wanted)
        copied = events(new, "bulk.copied")
        assert copied[0]["after"] == reached[-1]
        for copy in copied:
            assert copy["parts"] <= (copy["position"] - copy["after"]) // ROWS_PER_PART + 2, copied
        assert events(new, "snapshot.installed")
        load.assert_only_allowed_answers()
        await assert_all_on_record(cluster, load)


async def _fill(cluster: LocalCluster, rows: int) -> None:
    """Certificates on record, faster than the clients of a test would get them."""
    uri = await cluster.service_uri()
    csrs = [make_csr(uri)[0] for _ in range(8)]
    target = (await cluster.leader()).local.http
    plan = sign_plan([target], 128, 120.0, csrs, warmup_seconds=0.0, count=rows)
    assert (await asyncio.to_thread(run_load, plan)).successes >= rows


def _last_row(node: Node) -> int:
    """How far its ledger reaches, as a reader beside it sees."""
    try:
        with closing(sqlite3.connect(f"file:{node.data_dir / 'ledger.db'}?mode=ro", uri=True)) as db:
            (last,) = db.execute("SELECT max(id) FROM cert").fetchone()
    except sqlite3.OperationalError:  # not made yet
        return 0
    return int(last or 0)


def _wait_for_rows(node: Node, least: int) -> None:
    wait_until(f"{node.name} copies", lambda: _last_row(node) >= least, JOIN_SECONDS, pause=0.002)


async def test_server_that_cannot_be_is_refused_and_nothing_changes(cluster: LocalCluster) -> None:
    first, second = cluster.nodes[:2]
    before = await voters(cluster, first)
    free = peer_of(cluster.add())
    for change, status, text in (
        ({"Address": "nowhere"}, 400, "Address"),
        ({"Address": "127.0.0.1:0"}, 400, "Address"),
        ({"RPC": "127.0.0.1:65536"}, 400, "RPC"),
        ({"RPC": free["Address"]}, 400, "RPC"),
        ({"ID": "Node_4"}, 400, "ID"),
        ({"ID": second.name}, 422, f"ID '{second.name}' is a server already, at {second.local.raft}"),
        ({"Address": second.local.raft}, 422, f"Address '{second.local.raft}' is an address of the server node-2"),
        ({"Address": second.local.rpc}, 422, f"Address '{second.local.rpc}' is an address of the server node-2"),
        ({"RPC": second.local.rpc}, 422, f"RPC '{second.local.rpc}' is an address of the server node-2"),
    ):
        for node in cluster.nodes[:3]:
            answer = await cluster.ask(node, "PUT", PEER, {**free, **change})
            assert (answer.status, answer.text.startswith(text)) == (status, True), answer
    assert (await cluster.ask(first, "DELETE", PEER, query={"id": "node-9"})).status == 404
    assert (await add_peer(cluster, first, second)).status == 200, "it is there, just so"
    assert await voters(cluster, second) == before


async def test_changes_at_once_have_one_clear_outcome_each(cluster: LocalCluster) -> None:
    first, second, third = cluster.nodes
    new, other, unused, waiting = (peer_of(cluster.add()) for _ in range(4))
    for pair, names in (
        ((new, {**new, "Address": unused["Address"]}), ("node-4",)),
        ((other, {**other, "ID": "node-7"}), ("node-5", "node-7")),
    ):
        answers = await asyncio.gather(
            *(cluster.ask(node, "PUT", PEER, body) for node, body in zip((first, second), pair, strict=True))
        )
        assert sorted(answer.status for answer in answers) == [200, 422], answers
        servers = await voters(cluster, third)
        [learner] = servers.keys() - FOUNDERS.keys()
        assert learner in names
        # Nobody is there: it never votes, and is in nobody's way, but for the next one, which has to wait.
        assert servers == {**FOUNDERS, learner: False}
        refused = await cluster.ask(third, "PUT", PEER, {**waiting, "ID": "node-8"})
        assert (refused.status, f"remove-peer -id {learner}" in refused.text) == (409, True), refused
        removed = await asyncio.gather(
            *(cluster.ask(node, "DELETE", PEER, query={"id": learner}) for node in (first, second, third))
        )
        assert sorted(answer.status for answer in removed) == [200, 404, 404], removed
        assert await voters(cluster, third) == FOUNDERS
    csr_pem, _ = make_csr(await cluster.service_uri())
    assert (await cluster.sign(third, csr_pem))["SerialNumber"]


async def test_server_without_which_there_is_no_quorum_is_not_removed(cluster: LocalCluster) -> None:
    leader = await cluster.leader()
    dead, alive = (node for node in cluster.nodes if node is not leader)
    await cluster.kill(dead)

    async def is_noticed() -> bool | None:
        return (await cluster.ask(leader, "GET", "/v1/operator/autopilot/health")).status == 429 or None

    await eventually(f"{dead.name} is missed", is_noticed, FLOWING_SECONDS)
    answer = await remove_peer(cluster, leader, alive)
    assert (answer.status, dead.name in answer.text) == (422, True), answer
    assert await voters(cluster, leader) == FOUNDERS
    assert (await remove_peer(cluster, leader, dead)).status == 200
    assert dead.name not in await voters(cluster, alive)
