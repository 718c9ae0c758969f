"""One round of every kind of harm, one after another on one cluster; `make chaos` runs many."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.chaos.campaign import Campaign
from tests.chaos.evidence import line_of
from tests.chaos.faults import FAULTS

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def campaign(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Campaign]:
    made = Campaign(tmp_path_factory.mktemp("chaos"), seed="one of each")
    yield made
    await made.close()


@pytest.mark.parametrize("fault", FAULTS)
async def test_nothing_acknowledged_is_lost_and_the_cluster_heals(campaign: Campaign, fault: str) -> None:
    found = await campaign.round(fault)
    print(line_of(found), found.statuses, found.notes)
    assert not found.violations, "\n".join(found.violations)
    assert found.acknowledged
    assert found.operations
