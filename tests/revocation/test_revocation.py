"""Some rounds, one of them with a kill of the leader; `make revocation` runs hundreds. No token expires in the time."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.kit import pki
from tests.revocation.campaign import Campaign, Plan
from tests.revocation.evidence import line_of

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pki.needs_openssl]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def campaign(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Campaign]:
    async with Campaign(tmp_path_factory.mktemp("revocation"), seed="some", has_expiring=False) as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "has_kill"),
    [
        ("policy changed", False),
        ("token deleted", True),
        ("role changed", False),
        ("anonymous changed", False),
        ("logged out", False),
        ("auth method deleted", False),
    ],
)
async def test_nothing_is_given_out_a_second_after_rights_have_ended(
    campaign: Campaign, kind: str, has_kill: bool
) -> None:
    found = await campaign.round(Plan(kind, has_kill))
    print(line_of(found), found.statuses, found.honest)
    assert not found.violations, "\n".join(found.violations)
    assert found.given > 0
    assert found.refused > 0
    assert found.honest.get(200)
