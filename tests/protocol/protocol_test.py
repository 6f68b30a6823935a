"""Hand-offs and rights in every state of small pools; the larger ones are a benchmark's."""

from __future__ import annotations

import pytest

from tests.protocol import models, mutants
from tests.protocol.explore import Violation, explore

SLICE = 20_000
"""States of a larger pool that are visited here."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        models.two_by_one,
        models.rights_that_ride,
        models.rights_on_request,
        models.reborn,
        models.owner_lost,
        models.guardian_lost,
        models.moved_and_lost,
    ],
)
def test_a_small_pool_is_safe_and_can_always_complete(model: object) -> None:
    assert callable(model)
    found = explore(model())
    assert not found.cut
    assert found.complete


@pytest.mark.slow
@pytest.mark.parametrize("model", [models.two_by_two, models.three_by_one, models.voted])
def test_the_first_states_of_a_larger_pool_are_safe(model: object) -> None:
    assert callable(model)
    found = explore(model(), SLICE)
    assert found.cut
    assert found.states >= SLICE


@pytest.mark.slow
@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_a_seeded_fault_is_found(name: str) -> None:
    with mutants.seeded(name) as model, pytest.raises(Violation) as found:
        explore(model)
    allowed = mutants.MUTANTS[name].found
    rule = found.value.rule
    assert found.value.path
    assert rule in allowed if allowed else rule.endswith(f"rights of {models.UNITS}")
