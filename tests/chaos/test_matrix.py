"""Every process of a suite × every kind of fault, at a seeded moment of a mixed run; and storms of faults.

Other seeds: `make chaos ROUNDS=20 SEED=1000`.
"""

from pathlib import Path

import pytest
from tests.chaos.conftest import Tell
from tests.chaos.faults import Victim
from tests.chaos.matrix import CASES, Kind, Plan, plan_case, plan_storm, run_plan

SEED = 1


@pytest.mark.parametrize(("victim", "kind"), CASES)
async def test_a_fault_costs_seconds_and_nothing_else(victim: Victim, kind: Kind, tmp_path: Path, tell: Tell) -> None:
    await run_and_tell(plan_case(victim, kind, SEED), tmp_path, tell)


async def test_a_storm_costs_seconds_and_nothing_else(tmp_path: Path, tell: Tell) -> None:
    await run_and_tell(plan_storm(SEED), tmp_path, tell)


async def run_and_tell(plan: Plan, directory: Path, tell: Tell) -> None:
    measured = await run_plan(plan, directory)
    tell(f"{plan}: longest silence {measured.silence_s:.2f} s, last execution after {measured.stall_s:.2f} s")
