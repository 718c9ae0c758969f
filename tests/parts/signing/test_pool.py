"""The worker processes: real ones, which may die."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.base.errors import NotLeader
from cluster.signing.pool import ProviderSetup, WorkerPool, _next_pause
from cluster.signing.process import Worker
from providers.api import IssuedLeaf, RootIntent
from providers.errors import ConfigInvalid, CSRRejected, NotInitialized, NotSupported, ProviderUnavailable
from providers.grants import EVERYTHING
from providers.pki.serials import serial_bytes
from providers.pki.x509 import load_cert
from tests.kit import pki
from tests.kit.csrs import serial, service_csr
from tests.kit.keeper import granting
from tests.kit.log import EventLog
from tests.kit.wait import until

pytestmark = pytest.mark.slow

DOMAIN = f"{pki.CLUSTER_ID}.consul"


@pytest.fixture
async def log() -> EventLog:
    return EventLog()


@pytest.fixture
async def pool(log: EventLog) -> AsyncIterator[WorkerPool]:
    pool = await WorkerPool.start(2, log, granting())
    yield pool
    await pool.stop()


def setup(state: bytes = b"", **config: object) -> ProviderSetup:
    return ProviderSetup("consul", pki.CLUSTER_ID, "dc1", is_primary=True, config=config, secrets={}, state=state)


async def with_root(pool: WorkerPool, key: str = "k") -> str:
    """A provider with a root in every worker; the root."""
    await pool.configure(key, setup())
    await pool.prepare_root(key, RootIntent(pki.intent().serial, "abc", pki.NOW))
    chain, state = await pool.generate_root(key)
    configured = await pool.configure(key, setup(state))
    assert configured.chain == chain
    return chain.root_pem


async def sign(pool: WorkerPool, number: int, csr_pem: str | None = None) -> IssuedLeaf:
    requests = [(csr_pem or service_csr(DOMAIN), serial(number), EVERYTHING.to_bytes())]
    [leaf] = await pool.sign_leaves("k", DOMAIN, "dc1", pki.NOW, requests)
    if isinstance(leaf, Exception):
        raise leaf
    return leaf


async def test_every_worker_signs_with_what_was_configured(pool: WorkerPool) -> None:
    root = load_cert(await with_root(pool))
    leaves = await asyncio.gather(*(sign(pool, number) for number in range(8)))
    assert {load_cert(leaf.cert_pem).issuer for leaf in leaves} == {root.subject}
    assert [serial_bytes(leaf.serial) for leaf in leaves] == [serial(number) for number in range(8)]
    with pytest.raises(CSRRejected):
        await sign(pool, 9, "rubbish")


async def test_errors_arrive_as_what_they_are(pool: WorkerPool) -> None:
    with pytest.raises(ConfigInvalid, match="leaf cert TTL must be greater"):
        await pool.configure("k", setup(LeafCertTTL="1m"))
    with pytest.raises(CSRRejected):
        await pool.check_csr(DOMAIN, "dc1", "rubbish", EVERYTHING.to_bytes())
    assert await pool.check_csr(DOMAIN, "dc1", service_csr(DOMAIN), EVERYTHING.to_bytes()) == (
        "service",
        "web",
        f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web",
    )


async def test_provider_that_signs_with_its_root_has_nothing_to_renew_or_to_warn_of(pool: WorkerPool) -> None:
    await with_root(pool)
    with pytest.raises(NotSupported, match="the root itself signs leaves"):
        await pool.renew_signing_cert("k")
    assert await pool.warnings("k") == ()


async def test_csr_made_for_an_agent_is_acceptable(pool: WorkerPool) -> None:
    csr_pem, key_pem = await pool.make_csr(f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/db", ["db.local"], ["10.0.0.1"])
    assert "PRIVATE KEY" in key_pem
    assert (await pool.check_csr(DOMAIN, "dc1", csr_pem, EVERYTHING.to_bytes()))[1] == "db"


async def test_worker_that_dies_is_replaced_and_configured_again(pool: WorkerPool, log: EventLog) -> None:
    await with_root(pool)
    old = pool.pids
    os.kill(old[0], signal.SIGKILL)
    await until(lambda: pool.pids[0] not in old)
    for number in range(8):
        await sign(pool, number)
    assert ("worker.lost", {"pid": old[0], "status": -signal.SIGKILL}) in log.events


async def test_replaced_worker_is_configured_as_soon_as_that_works(
    pool: WorkerPool, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that is away when a worker is replaced must not leave it without a CA for ever."""
    monkeypatch.setattr("cluster.signing.pool._FIRST_PAUSE_SECONDS", 0.01)
    await with_root(pool)
    good = pool._setups["k"]
    pool._setups["k"] = setup(b"", LeafCertTTL="1m")  # refused, as a backend's refusal would be
    old = pool.pids
    os.kill(old[0], signal.SIGKILL)
    await until(lambda: "worker.unconfigured" in log.names())
    await until(lambda: pool.pids[0] not in old)
    # Meanwhile the other one does the work, although it has more of it.
    for number in range(8):
        await sign(pool, number)
    assert await pool.warnings("k") == ()
    pool._setups["k"] = good
    await until(lambda: not pool._workers[0].lacking)
    os.kill(pool.pids[1], signal.SIGSTOP)
    stopped = asyncio.ensure_future(pool._workers[1].call("warnings", "k"))
    await until(lambda: pool._workers[1].load)
    await sign(pool, 9)
    os.kill(pool.pids[1], signal.SIGCONT)
    assert await stopped == []


async def test_backend_that_does_not_answer_holds_up_no_other_provider(pool: WorkerPool) -> None:
    """As when the CA is to move to a Vault that takes connections and says nothing."""
    await with_root(pool)
    met = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.set()
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
    config = {"Address": address, "Token": "t", "RootPKIPath": "root", "IntermediatePKIPath": "int"}
    vault = ProviderSetup("vault", pki.CLUSTER_ID, "dc1", is_primary=True, config=config, secrets={}, state=b"")
    configuring = asyncio.ensure_future(pool.configure("slow", vault))
    async with asyncio.timeout(20.0):
        await met.wait()
    for number in range(16):
        await sign(pool, number)
    assert await pool.warnings("k") == ()
    assert not configuring.done()
    # What follows for the same provider comes behind it.
    forgetting = [asyncio.ensure_future(worker.call("forget", "slow")) for worker in pool._workers]
    await sign(pool, 16)
    assert not any(asked.done() for asked in forgetting)
    silent.close()
    with pytest.raises(ProviderUnavailable):
        await configuring
    await asyncio.gather(*forgetting)


@contextlib.asynccontextmanager
async def silent_vault() -> AsyncIterator[ProviderSetup]:
    """It takes connections, and says nothing."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    config = {"Address": address, "Token": "t", "RootPKIPath": "root", "IntermediatePKIPath": "int"}
    yield ProviderSetup("vault", pki.CLUSTER_ID, "dc1", is_primary=True, config=config, secrets={}, state=b"")
    server.close()


async def test_provider_that_does_not_answer_keeps_nothing_else_from_a_worker_that_replaces_one(
    pool: WorkerPool, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.signing.pool._COMPLETE_SECONDS", 1.0)
    await with_root(pool)
    pool.use("k")
    async with silent_vault() as slow:
        pool._setups["a-slow"] = slow  # before the other one in any order of names
        old = pool.pids
        os.kill(old[0], signal.SIGKILL)
        await until(lambda: pool.pids[0] not in old)
        assert "worker.unconfigured" not in log.names()  # the Vault would be waited for five seconds
        await until(lambda: pool._workers[0].lacking == {"a-slow"})
        os.kill(old[1], signal.SIGKILL)
        await until(lambda: pool._workers[1].is_gone)
        await sign(pool, 1)
        await pool.configure("other", setup())
        pool._setups.pop("a-slow")
    await until(lambda: not pool._workers[0].lacking)


async def test_provider_that_signed_before_is_not_given_to_a_worker_that_replaces_one(pool: WorkerPool) -> None:
    """Whatever it does then, nobody needs it there; the others end what is under way."""
    await with_root(pool, "before")
    pool.use("before")
    await with_root(pool)
    pool.use("k")
    old = pool.pids
    os.kill(old[0], signal.SIGKILL)
    await until(lambda: pool.pids[0] not in old)
    with pytest.raises(NotInitialized):
        await pool._workers[0].call("warnings", "before")
    for number in range(4):
        await sign(pool, number)
        requests = [(service_csr(DOMAIN), serial(100 + number), EVERYTHING.to_bytes())]
        [leaf] = await pool.sign_leaves("before", DOMAIN, "dc1", pki.NOW, requests)
        assert isinstance(leaf, IssuedLeaf)
    await with_root(pool, "before")  # as a rotation back to it, or its removal
    assert not any(worker.without for worker in pool._workers)
    assert await pool._workers[0].call("warnings", "before") == []


async def test_only_the_provider_that_signs_costs_a_worker_when_it_hangs(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await with_root(pool)
    pool.use("k")
    old = pool.pids
    monkeypatch.setattr("cluster.signing.process._CALL_SECONDS", 1.0)
    async with silent_vault() as slow:
        with pytest.raises(ProviderUnavailable, match="does not answer"):
            await pool.configure("candidate", slow)
        await pool.forget("candidate")
        assert not any(worker.is_gone for worker in pool._workers)
        for number in range(4):
            await sign(pool, number)
        assert pool.pids == old
        pool.use("candidate")
        with pytest.raises(ProviderUnavailable, match="does not answer"):
            await pool.configure("candidate", slow)
        await until(lambda: not set(pool.pids) & set(old))


async def test_provider_that_could_not_be_forgotten_ends_with_the_leadership(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have a login and a key still."""
    monkeypatch.setattr("cluster.signing.process._CALL_SECONDS", 0.5)
    old = pool.pids
    async with silent_vault() as slow:
        pool.use("k")
        with pytest.raises(ProviderUnavailable, match="does not answer"):
            await pool.configure("candidate", slow)
        await pool.forget("candidate")
        assert pool.pids == old
        pool.renew()
        await until(lambda: not set(pool.pids) & set(old))


async def test_lanes_of_forgotten_providers_end(pool: WorkerPool) -> None:
    for number in range(40):
        await pool.configure(f"candidate-{number}", setup())
        await pool.forget(f"candidate-{number}")
    threads = [len(os.listdir(f"/proc/{pid}/task")) for pid in pool.pids]
    assert max(threads) < 10


async def test_forgotten_provider_is_not_given_to_a_worker_that_lacks_it(pool: WorkerPool, log: EventLog) -> None:
    pool._workers[0].lacking = {"gone"}
    os.kill(pool.pids[0], signal.SIGKILL)
    await until(lambda: "worker.lost" in log.names())
    await until(lambda: not pool._workers[0].is_gone)
    assert pool._workers[0].lacking == set()
    assert "worker.unconfigured" not in log.names()


async def test_worker_that_has_ended_is_not_asked(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its end and its replacement: nobody would answer."""
    monkeypatch.setattr("cluster.signing.pool._RESTART_PAUSE_SECONDS", 5.0)
    await with_root(pool)
    os.kill(pool.pids[0], signal.SIGKILL)
    await until(lambda: pool._workers[0].is_gone)
    async with asyncio.timeout(4.0):
        await sign(pool, 1)
        await pool.configure("other", setup())
        with pytest.raises(ProviderUnavailable, match="ended"):
            await pool._workers[0].call("warnings", "k")


async def test_work_in_a_worker_that_dies_fails_as_unavailable(pool: WorkerPool) -> None:
    await with_root(pool)
    for pid in pool.pids:
        os.kill(pid, signal.SIGSTOP)
    request = asyncio.ensure_future(sign(pool, 1))
    await until(lambda: any(worker.load for worker in pool._workers))
    for pid in pool.pids:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(ProviderUnavailable):
        await request


async def test_forgotten_provider_is_forgotten_everywhere(pool: WorkerPool) -> None:
    await with_root(pool)
    await pool.forget("k")
    for number in range(4):
        with pytest.raises(NotInitialized):
            await sign(pool, number)


# -- the end of leadership


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_processes_end_with_the_leadership_and_fresh_ones_are_ready_for_the_next(
    pool: WorkerPool, log: EventLog
) -> None:
    await with_root(pool)
    old = pool.pids
    pool.renew()
    with pytest.raises(NotLeader):
        await sign(pool, 1)
    await until(lambda: not any(map(is_alive, old)), "the processes with the keys have ended")
    # What any node does for its local services goes on meanwhile.
    assert (await pool.check_csr(DOMAIN, "dc1", service_csr(DOMAIN), EVERYTHING.to_bytes()))[1] == "web"
    await until(lambda: not set(old) & set(pool.pids))
    with pytest.raises(NotLeader):
        await pool.configure("k", setup())
    pool.admit()
    await with_root(pool)
    for number in range(4):
        await sign(pool, number)
    assert "worker.lost" not in log.names()
    assert pool.lost == 0


async def test_leadership_that_held_no_key_ends_no_process(pool: WorkerPool) -> None:
    old = pool.pids
    pool.renew()
    pool.admit()
    await with_root(pool)
    assert pool.pids == old


async def test_call_under_way_at_the_end_of_leadership_is_for_the_next_leader(pool: WorkerPool) -> None:
    """One that takes a moment is waited for; one that hangs is not."""
    await with_root(pool)
    for pid in pool.pids:
        os.kill(pid, signal.SIGSTOP)
    request = asyncio.ensure_future(sign(pool, 1))
    await until(lambda: any(worker.load for worker in pool._workers))
    old = pool.pids
    pool.renew()
    with pytest.raises(NotLeader):
        await request
    await until(lambda: not any(map(is_alive, old)))


async def test_configuration_that_ends_with_the_leadership_is_in_no_process(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was on its way, and waits in the next processes for nobody."""
    await with_root(pool)
    for pid in pool.pids:
        os.kill(pid, signal.SIGSTOP)
    configuring = asyncio.ensure_future(pool.configure("other", setup()))
    await until(lambda: all(worker.load for worker in pool._workers))
    old = pool.pids
    pool.renew()
    for pid in old:
        os.kill(pid, signal.SIGCONT)  # it succeeds, in processes that are about to end
    with pytest.raises(NotLeader):
        await configuring
    await until(lambda: not set(old) & set(pool.pids))
    pool.admit()
    for key in ("k", "other"):
        for worker in pool._workers:
            with pytest.raises(NotInitialized):
                await worker.call("warnings", key)


# -- the sandbox


async def test_worker_that_dies_at_once_is_started_again_with_growing_pauses(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when something that a process needs is refused to it: it would be started ten times in a second, for ever."""
    monkeypatch.setattr("cluster.signing.process.sys", SimpleNamespace(executable=shutil.which("false")))
    pauses: list[float] = []

    def note(pause: float, age_seconds: float) -> float:
        pauses.append(_next_pause(pause, age_seconds))
        return pauses[-1]

    monkeypatch.setattr("cluster.signing.pool._RESTART_PAUSE_SECONDS", 0.005)
    monkeypatch.setattr("cluster.signing.pool._next_pause", note)
    pool = await WorkerPool.start(1, log, granting())
    await until(lambda: pool.lost >= 5)
    await pool.stop()
    assert pauses[:4] == [0.01, 0.02, 0.04, 0.08]


def test_pause_is_bounded_and_over_once_a_worker_has_lived() -> None:
    pause = 0.1
    for _ in range(20):
        pause = _next_pause(pause, 0.0)
    assert pause == 30.0
    assert _next_pause(pause, 11.0) == 0.1


async def test_what_the_system_refuses_is_said_once(log: EventLog) -> None:
    pool = await WorkerPool.start(1, log, granting())
    for worker in pool._workers * 3:
        worker._refused(["the priority cannot be lowered: no"])
    await pool.stop()
    assert log.events.count(("worker.unprotected", {"reason": "the priority cannot be lowered: no"})) == 1


async def test_workers_end_with_the_pool() -> None:
    pool = await WorkerPool.start(1, EventLog(), granting())
    [pid] = pool.pids
    await pool.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_setup_shows_no_secret() -> None:
    text = repr(setup(state=b"very-secret", PrivateKey="very-secret"))
    assert "very-secret" not in text
    assert json.loads(setup(PrivateKey="k").arguments()[4]) == {"PrivateKey": "k"}


async def test_worker_that_cannot_be_replaced_now_is_replaced_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process can be started, for want of descriptors perhaps: whoever keeps the workers must not give up."""
    log = EventLog()
    pool = await WorkerPool.start(1, log, granting())
    try:
        real, left = Worker.start, [OSError(24, "too many files"), RuntimeError("no thread")]

        async def start(*arguments: Any) -> Any:
            if left:
                raise left.pop()
            return await real(*arguments)

        monkeypatch.setattr(Worker, "start", start)
        [old] = pool.pids
        os.kill(old, signal.SIGKILL)
        await until(lambda: pool.pids != [old])
    finally:
        await pool.stop()
    assert log.names().count("worker.unreplaced") == 2


async def test_directory_for_credentials_comes_to_every_worker_also_to_those_that_replace_one(
    log: EventLog, tmp_path: Path
) -> None:
    """Two refusals: where nothing may be read, and where this may not."""
    method = {"Type": "jwt", "Params": {"role": "r", "path": "/etc/hostname"}}
    config = {"Address": "http://127.0.0.1:1", "AuthMethod": method, "RootPKIPath": "r", "IntermediatePKIPath": "i"}
    wanted = ProviderSetup("vault", pki.CLUSTER_ID, "dc1", is_primary=True, config=config, secrets={}, state=b"")
    for directory, text in (("", "this node's names none"), (str(tmp_path), f"which is {tmp_path} on this node")):
        pool = await WorkerPool.start(1, log, granting(), credentials_dir=directory)
        try:
            for _ in range(2):
                with pytest.raises(ConfigInvalid, match=re.escape(text)):
                    await pool.configure("k", wanted)
                [pid] = pool.pids
                os.kill(pid, signal.SIGKILL)
                await replaced(pool, pid)
        finally:
            await pool.stop()


async def replaced(pool: WorkerPool, pid: int) -> None:
    await until(lambda: pid not in pool.pids)
