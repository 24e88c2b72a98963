"""Every fault once: nothing lost, doubled, left behind, and no two agents at a time."""

from __future__ import annotations

import pytest

from tests.faults.scenarios import SCENARIOS, Scenario

PARAMETERS = [
    pytest.param(scenario, id=scenario.name, marks=[] if scenario.short else [pytest.mark.faults_full])
    for scenario in SCENARIOS
    if scenario.possible()
]


@pytest.mark.parametrize("scenario", PARAMETERS)
async def test_fault(scenario: Scenario) -> None:
    found = await scenario.run(7)
    assert found.clean, found
