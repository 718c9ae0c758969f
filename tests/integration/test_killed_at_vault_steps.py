"""The leader is killed by SIGKILL at every commit about keys in a real Vault: the next one takes over what is there.

That nothing is left out is checked in test_killed_at_steps.py.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.integration.ca_procedures import VAULT, VAULT_BOOTSTRAP, VAULT_PROCEDURES, Procedure, Stage
from tests.integration.killer import Order
from tests.integration.test_killed_at_steps import cases
from tests.kit import pki
from tests.kit.vault_server import VaultServer, running_vault

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pki.needs_openssl]


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultServer]:
    with running_vault(tmp_path_factory.mktemp("vault")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_stage(tmp_path_factory: pytest.TempPathFactory, vault: VaultServer) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("steps"), vault.config(**VAULT), vault) as made:
        await made.start_all()
        yield made


def assert_nothing_is_there_twice(stage: Stage) -> None:
    assert len(stage.vault.issuers(stage.mount("RootPKIPath"))) == 1
    assert len(stage.vault.keys(stage.mount("RootPKIPath"))) == 1
    assert len(stage.vault.issuers(stage.mount("IntermediatePKIPath"))) == 1


@pytest.mark.parametrize(("procedure", "order"), cases(*VAULT_PROCEDURES))
async def test_next_leader_ends_what_a_killed_one_has_begun(
    made_stage: Stage, procedure: Procedure, order: Order
) -> None:
    await made_stage.tidy_up()
    await made_stage.play(procedure, order)
    assert_nothing_is_there_twice(made_stage)


@pytest.mark.parametrize(("procedure", "order"), cases(VAULT_BOOTSTRAP))
async def test_new_cluster_gets_one_root_in_vault(
    tmp_path: Path, vault: VaultServer, procedure: Procedure, order: Order
) -> None:
    async with Stage(tmp_path, vault.config(**VAULT), vault) as stage:
        await stage.play(procedure, order)
        assert_nothing_is_there_twice(stage)
