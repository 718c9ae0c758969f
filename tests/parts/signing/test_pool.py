"""The worker processes: real ones, which may die."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.signing import pool as pool_module
from cluster.signing.pool import ProviderSetup, WorkerPool
from providers.api import IssuedLeaf, RootIntent
from providers.errors import ConfigInvalid, CSRRejected, NotInitialized, NotSupported, ProviderUnavailable
from providers.pki.serials import serial_bytes
from providers.pki.x509 import load_cert
from tests.kit import pki
from tests.kit.csrs import serial, service_csr
from tests.kit.log import EventLog
from tests.kit.wait import until

pytestmark = pytest.mark.slow

DOMAIN = f"{pki.CLUSTER_ID}.consul"


@pytest.fixture
async def log() -> EventLog:
    return EventLog()


@pytest.fixture
async def pool(log: EventLog) -> AsyncIterator[WorkerPool]:
    pool = await WorkerPool.start(2, log)
    yield pool
    await pool.stop()


def setup(state: bytes = b"", **config: object) -> ProviderSetup:
    return ProviderSetup("consul", pki.CLUSTER_ID, "dc1", is_primary=True, config=config, state=state)


async def with_root(pool: WorkerPool, key: str = "k") -> str:
    """A provider with a root in every worker; the root."""
    await pool.configure(key, setup())
    await pool.prepare_root(key, RootIntent(pki.intent().serial, "abc", pki.NOW))
    chain, state = await pool.generate_root(key)
    configured = await pool.configure(key, setup(state))
    assert configured.chain == chain
    return chain.root_pem


async def sign(pool: WorkerPool, number: int, csr_pem: str | None = None) -> IssuedLeaf:
    requests = [(csr_pem or service_csr(DOMAIN), serial(number))]
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
        await pool.check_csr(DOMAIN, "dc1", "rubbish")
    assert await pool.check_csr(DOMAIN, "dc1", service_csr(DOMAIN)) == (
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
    assert (await pool.check_csr(DOMAIN, "dc1", csr_pem))[1] == "db"


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
    vault = ProviderSetup("vault", pki.CLUSTER_ID, "dc1", is_primary=True, config=config, state=b"")
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
    await pool.forget_all()
    for number in range(4):
        with pytest.raises(NotInitialized):
            await sign(pool, number)


async def test_workers_end_with_the_pool() -> None:
    pool = await WorkerPool.start(1, EventLog())
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
    pool = await WorkerPool.start(1, log)
    try:
        real, left = pool_module._Worker.start, [OSError(24, "too many files"), RuntimeError("no thread")]

        async def start() -> Any:
            if left:
                raise left.pop()
            return await real()

        monkeypatch.setattr(pool_module._Worker, "start", start)
        [old] = pool.pids
        os.kill(old, signal.SIGKILL)
        await until(lambda: pool.pids != [old])
    finally:
        await pool.stop()
    assert log.names().count("worker.unreplaced") == 2
