"""The seal key is changed while real nodes sign: nothing stops, and the key of before opens nothing any more."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster.seal.sealer import Sealer
from cluster.seal.sources import NEXT_KEY, FileKey, SealError, write_key_file
from tests.integration.key_search import stored_states
from tests.integration.killer import Desk, Moment, Order, Step
from tests.integration.load import assert_all_on_record, signing_load
from tests.kit.real_cluster import Answer, LocalCluster, Node
from tests.kit.wait import eventually

pytestmark = pytest.mark.slow

SEAL = "/v1/operator/seal"
RESEAL = Step("Reseal")
SETTINGS = {"limits": {"signing_workers": 1}}
SETTLE_SECONDS = 30.0


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "desk").mkdir()
    return Desk(tmp_path / "desk")


@pytest.fixture
async def cluster(tmp_path: Path, desk: Desk) -> AsyncIterator[LocalCluster]:
    (tmp_path / "nodes").mkdir()
    async with LocalCluster(tmp_path / "nodes", settings=SETTINGS) as made:
        for node in made.nodes:
            start(made, node)
        await made.wait_ready()
        yield made


def start(cluster: LocalCluster, node: Node) -> None:
    cluster.start_through(node, "tests.integration.killer", cluster.root.parent / "desk")


def give_next_key(nodes: list[Node], directory: Path) -> Path:
    """To these nodes; returns where it is kept apart from them."""
    kept = directory / f"kept-{len(list(directory.glob('kept-*')))}"
    write_key_file(kept)
    for node in nodes:
        path = node.data_dir / NEXT_KEY
        path.touch(0o600)
        path.write_bytes(kept.read_bytes())
    return kept


async def follower(cluster: LocalCluster) -> Node:
    leader = await cluster.leader()
    return next(node for node in cluster.nodes if node is not leader and node.is_running)


async def rotate(cluster: LocalCluster, **body: object) -> Answer:
    return await cluster.ask(await follower(cluster), "PUT", SEAL, body)


async def settled(cluster: LocalCluster) -> dict[str, Any]:
    """Once no node needs another key any more."""

    async def look() -> dict[str, Any] | None:
        status = dict((await cluster.ask(await follower(cluster), "GET", SEAL)).json())
        seals = {(node["KeyID"], node["SealID"]) for node in status["Nodes"]}
        return status if status["Settled"] and len(seals) == 1 else None

    return await eventually("all nodes are done", look, SETTLE_SECONDS)


def opens(data_dir: Path, key: Path) -> int:
    """How many of the states that are in this node's files the key opens, all of which have something sealed."""
    opened = 0
    for state in stored_states(data_dir):
        if state.seal is None:
            continue
        try:
            Sealer(FileKey(key)).unlock(state.seal)
        except SealError:
            continue
        opened += 1
    return opened


@pytest.mark.parametrize("moment", [None, *Moment])
async def test_key_changes_under_load_whoever_is_killed_and_the_one_before_opens_nothing(
    cluster: LocalCluster, desk: Desk, tmp_path: Path, moment: Moment | None
) -> None:
    old = tmp_path / "old.key"
    old.touch(0o600)
    old.write_bytes((cluster.nodes[0].data_dir / "seal.key").read_bytes())
    before = await cluster.roots(cluster.nodes[0])
    first = await settled(cluster)
    new = give_next_key(cluster.nodes, tmp_path)
    async with signing_load(cluster) as load:
        await load.acknowledges(50, seconds=20.0)
        if moment is not None:
            desk.order(Order(RESEAL, moment))
        asked = asyncio.ensure_future(rotate(cluster))
        if moment is not None:
            dead = await eventually("a leader dies", lambda: first_dead(cluster), 20.0)
            start(cluster, dead)
        answer = await asked
        if moment is None:
            assert answer.status == 200, answer
        elif answer.status != 200:
            # Not known, or refused because the node that died does not answer: it is asked for again.
            assert answer.status in (422, 503, 504), answer
            await eventually("the change is made", lambda: is_made(cluster), 20.0)
        await cluster.wait_ready()
        status = await settled(cluster)
        await load.acknowledges(50, seconds=20.0)
    load.assert_only_allowed_answers()
    await assert_all_on_record(cluster, load)
    assert list(desk.applied().values()).count("Reseal") == 1
    assert status["Nodes"][0]["KeyID"] != first["Nodes"][0]["KeyID"]
    assert [node["ToDo"] for node in status["Nodes"]] == ["", "", ""]
    # All start again with the new key alone, which has taken the place of the one before.
    for node in cluster.nodes:
        assert await cluster.stop(node) == 0
        assert (node.data_dir / "seal.key").read_bytes() == new.read_bytes()
        assert not (node.data_dir / NEXT_KEY).exists()
        assert opens(node.data_dir, old) == 0, "the key of before opens what is in the log"
        assert opens(node.data_dir, new) > 0
    for node in cluster.nodes:
        start(cluster, node)
    await cluster.wait_ready()
    assert await cluster.roots(cluster.nodes[0]) == before
    async with signing_load(cluster) as load:
        await load.acknowledges(20, seconds=20.0)
    # And with the key of before none does.
    victim = await follower(cluster)
    await cluster.stop(victim)
    (victim.data_dir / "seal.key").write_bytes(old.read_bytes())
    start(cluster, victim)

    async def has_ended() -> bool:
        return not victim.is_running

    await eventually("a node with the key of before ends", has_ended, 20.0)
    assert "wrong seal key" in victim.log_tail(5)


async def is_made(cluster: LocalCluster) -> bool:
    """Now, or before: then the next key is the one in force, or has taken its place already."""
    answer = await rotate(cluster)
    return answer.status == 200 or "is the one in force" in answer.text or "no next seal key" in answer.text


async def first_dead(cluster: LocalCluster) -> Node | None:
    return next((node for node in cluster.nodes if node.started is not None and not node.is_running), None)


async def test_change_waits_for_every_server_and_each_node_that_is_killed_on_its_way_ends_it(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    lacking = await follower(cluster)
    give_next_key([node for node in cluster.nodes if node is not lacking], tmp_path)
    refused = await rotate(cluster)
    assert refused.status == 422, refused
    assert f"{lacking.name}: " in refused.text
    source = next(node for node in cluster.nodes if node is not lacking)
    (lacking.data_dir / NEXT_KEY).touch(0o600)
    (lacking.data_dir / NEXT_KEY).write_bytes((source.data_dir / NEXT_KEY).read_bytes())
    assert (await rotate(cluster)).status == 200
    for node in cluster.nodes:  # wherever each of them is
        await cluster.kill(node)
    for node in cluster.nodes:
        start(cluster, node)
    await cluster.wait_ready()
    await settled(cluster)
    # The data key alone, again and again, under load.
    seals = set()
    async with signing_load(cluster) as load:
        for _ in range(3):
            await load.acknowledges(10, seconds=20.0)
            assert (await rotate(cluster, KeepKey=True)).status == 200
            status = await settled(cluster)
            seals.add(status["Nodes"][0]["SealID"])
    assert len(seals) == 3
    load.assert_only_allowed_answers()
    assert load.answers.keys() <= {200}, load
    facts = json.loads((lacking.data_dir / "node.json").read_text())
    assert facts["seal"]["kek_id"] == status["Nodes"][0]["KeyID"]
    assert os.stat(lacking.data_dir / "seal.key").st_mode & 0o077 == 0
