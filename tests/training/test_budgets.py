"""How long a stage is trained: what the spec says, or what follows from its rows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbridge.spec.training import StageSpec, TrainingSpec
from nbridge.training.budgets import PATIENCE, ROUNDS, Budget, budget_of, patience_of, schedule_of


def stage(**settings: object) -> StageSpec:
    return TrainingSpec.model_validate({"stages": {"joint": settings}}).stage("joint")


def test_epochs_and_updates_are_taken_as_given():
    assert budget_of("joint", stage(epochs=7), 12) == Budget(84, 12, 7)
    assert budget_of("joint", stage(updates=4000), 12) == Budget(4000, 12)


@pytest.mark.parametrize(("rows", "updates"), [(240, 1500), (1300, 1500), (6400, 3000), (60_000, 10_000), (10**7, 10_000)])
def test_few_rows_get_more_epochs_and_many_rows_fewer(rows: int, updates: int):
    budget = budget_of("joint", stage(), rows // 128)
    assert (budget.updates, budget.automatic) == (updates, True)


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 10**5), st.booleans())
def test_rounds_cover_the_budget(steps: int, number: int, in_epochs: bool):
    budget = budget_of("joint", stage(**({"epochs": number} if in_epochs else {"updates": number})), steps)
    rounds = -(-budget.updates // budget.round)
    assert rounds == number if in_epochs else 1 <= rounds <= ROUNDS
    assert budget.counted(budget.updates) == budget.total == number


def test_patience_is_on_by_default_unless_epochs_are_given_and_counts_rounds():
    automatic, updates, epochs = (budget_of("joint", one, 10) for one in (stage(), stage(updates=500), stage(epochs=20)))
    assert patience_of(stage(), automatic) == PATIENCE * 30
    assert patience_of(stage(updates=500), updates) == PATIENCE * 10
    assert patience_of(stage(updates=500, patience=3), updates) == 30
    assert patience_of(stage(updates=500, patience=None), updates) is None
    assert patience_of(stage(epochs=20), epochs) is None
    assert patience_of(stage(epochs=20, patience=3), epochs) == 30


def test_the_schedule_follows_the_budget_unless_it_is_given():
    updates, epochs = budget_of("joint", stage(updates=500), 10), budget_of("joint", stage(epochs=20), 10)
    assert (schedule_of(stage(), updates), schedule_of(stage(), epochs)) == ("decay", "constant")
    assert [schedule_of(stage(schedule="cosine"), budget) for budget in (updates, epochs)] == ["cosine", "cosine"]
