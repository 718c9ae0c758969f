"""The leader is killed by SIGKILL at every commit of everything it does to a CA: the next one ends it, once.

What the steps are is taken from the code: see the first tests. That each procedure has those steps and no others is
checked at every run (ca_procedures.py).
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import get_args

import pytest
import pytest_asyncio

from fsm.ca import AdvanceRotation, RotationPhase
from fsm.commands import Command
from fsm.duties import Duty
from tests.integration.ca_procedures import (
    BOOTSTRAP,
    BUILTIN,
    NO_STEPS,
    PROCEDURES,
    REAP,
    REPAIR,
    VAULT_BOOTSTRAP,
    VAULT_PROCEDURES,
    Procedure,
    Stage,
)
from tests.integration.killer import Moment, Order
from tests.kit import pki

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pki.needs_openssl]

ALL = (BOOTSTRAP, REPAIR, REAP, *PROCEDURES, VAULT_BOOTSTRAP, *VAULT_PROCEDURES)
ORDERS = [order for procedure in ALL for order in procedure.orders()]


def cases(*procedures: Procedure) -> list[object]:
    return [
        pytest.param(procedure, order, id=f"{procedure}-{order.moment}-{order.step}")
        for procedure in procedures
        for order in procedure.orders()
    ]


# -- nothing is left out


def commands_of(moment: Moment) -> set[str]:
    return {order.step.what.split()[0] for order in ORDERS if order.moment is moment}


@pytest.mark.parametrize("moment", Moment)
async def test_leaders_are_killed_at_every_command_there_is(moment: Moment) -> None:
    excused = {kind.__name__ for kind in NO_STEPS}
    assert commands_of(moment) & excused == set()
    assert commands_of(moment) | excused == {kind.__name__ for kind in get_args(Command)}


@pytest.mark.parametrize("moment", Moment)
async def test_leaders_are_killed_in_every_duty_that_changes_the_ca(moment: Moment) -> None:
    killed_in = {order.step.duty for order in ORDERS if order.moment is moment} - {""}
    assert killed_in == {duty.name for duty in Duty} - {Duty.TIDY_LEDGER.name}


@pytest.mark.parametrize("moment", Moment)
async def test_leaders_are_killed_on_the_way_into_and_out_of_every_phase(moment: Moment) -> None:
    """GENERATE is entered by BeginRotation, and ACTIVATE left by FinishRotation."""
    moved = re.compile(rf"{AdvanceRotation.__name__} (\S+) to ([^\s,]+)")
    ways = {found.groups() for order in ORDERS if order.moment is moment and (found := moved.match(order.step.what))}
    phases = {str(phase) for phase in RotationPhase}
    assert {into for _, into in ways} == phases - {RotationPhase.GENERATE}
    assert {out for out, _ in ways} == phases - {RotationPhase.ACTIVATE}


# -- kill -9


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("steps"), BUILTIN) as made:
        await made.start_all()
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def stage(made_stage: Stage) -> Stage:
    await made_stage.tidy_up()
    return made_stage


@pytest.mark.parametrize(("procedure", "order"), cases(*PROCEDURES))
async def test_next_leader_ends_what_a_killed_one_has_begun(stage: Stage, procedure: Procedure, order: Order) -> None:
    await stage.play(procedure, order)


@pytest.mark.parametrize(("procedure", "order"), cases(BOOTSTRAP))
async def test_new_cluster_gets_one_root_whoever_is_killed(tmp_path: Path, procedure: Procedure, order: Order) -> None:
    async with Stage(tmp_path, BUILTIN) as stage:
        await stage.play(procedure, order)


@pytest.mark.parametrize(("procedure", "order"), cases(REPAIR))
async def test_cluster_is_repaired_once_whoever_is_killed(tmp_path: Path, procedure: Procedure, order: Order) -> None:
    # Of what a node's file may say, this is found out by the leader only.
    async with Stage(tmp_path, {"RootCert": "no root"}) as stage:
        await stage.play(procedure, order)


@pytest.mark.parametrize(("procedure", "order"), cases(REAP))
async def test_expired_tokens_are_dropped_once_whoever_is_killed(
    tmp_path: Path, procedure: Procedure, order: Order
) -> None:
    async with Stage(tmp_path, BUILTIN) as stage:
        await stage.start_all()
        await stage.play(procedure, order)
