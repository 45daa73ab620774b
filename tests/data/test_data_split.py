"""Splits: every row in exactly one part, by seed alone, official rows where they belong, and groups never cut in two."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbridge.data.batch import Batch
from nbridge.data.split import Dataset, Splits, split
from nbridge.errors import DataError


def refused(message: str) -> Any:
    return pytest.raises(DataError, match=f"^{re.escape(message)}$")


def numbered(rows: int, *, test_rows: int | None = None) -> Dataset:
    """Rows that hold their own number, with an id that follows from it."""
    part = None if test_rows is None else np.repeat(["train", "test"], [rows - test_rows, test_rows])
    return Dataset(Batch.complete({"x": torch.arange(float(rows)).unsqueeze(1)}), np.arange(rows) + 1000, part)


def rows_of(splits: Splits) -> tuple[list[int], list[int], list[int]]:
    train, validation, test = (
        [] if batch is None else batch.values["x"][:, 0].long().tolist() for batch in (splits.train, splits.validation, splits.test)
    )
    return train, validation, test


@given(
    st.integers(20, 60),
    st.sampled_from([0, 0.1, 0.25]),
    st.sampled_from([0, 0.1, 0.3]),
    st.integers(-5, 2**63 - 1),
    st.sampled_from([None, 0, 3]),
)
def test_every_row_falls_in_exactly_one_part(rows: int, validation: float, test: float, seed: int, test_rows: int | None) -> None:
    dataset = numbered(rows, test_rows=test_rows)
    splits = split(dataset, validation=validation, test=test, seed=seed)
    parts = rows_of(splits)
    assert sorted(itertools.chain(*parts)) == list(range(rows))
    held = round(test * rows) if test_rows is None else test_rows
    assert len(parts[2]) == held
    assert len(parts[1]) == round(validation * (rows if test_rows is None else rows - test_rows))
    if test_rows:
        assert set(parts[2]) == set(range(rows - test_rows, rows))
    for numbers, ids in zip(parts, (splits.train_ids, splits.validation_ids, splits.test_ids), strict=True):
        assert (ids is None) == (not numbers)
        assert ids is None or (ids - 1000).tolist() == numbers


def test_a_split_depends_on_its_seed_alone() -> None:
    dataset = numbered(100)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = rows_of(split(dataset, validation=0.1, test=0.2, seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert rows_of(split(dataset, validation=0.1, test=0.2, seed=3)) == first
    assert rows_of(split(dataset, validation=0.1, test=0.2, seed=4)) != first
    assert first[0] != sorted(first[0])


def test_the_test_rows_do_not_depend_on_the_validation_fraction() -> None:
    dataset = numbered(100)
    assert rows_of(split(dataset, validation=0.3, test=0.2, seed=0))[2] == rows_of(split(dataset, validation=0, test=0.2, seed=0))[2]


@given(
    st.lists(st.integers(1, 4), min_size=30, max_size=60),
    st.sampled_from([0, 0.1, 0.25]),
    st.sampled_from([0, 0.1, 0.3]),
    st.integers(0, 2**63 - 1),
    st.randoms(use_true_random=False),
)
def test_a_group_falls_in_one_part_and_parts_are_near_their_share(
    sizes: list[int], validation: float, test: float, seed: int, random: Any
) -> None:
    names = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    random.shuffle(names)
    splits = split(grouped(names), validation=validation, test=test, seed=seed)
    parts = rows_of(splits)
    assert sorted(itertools.chain(*parts)) == list(range(len(names)))
    for share, rows in ((validation, parts[1]), (test, parts[2])):
        assert abs(len(rows) - round(share * len(names))) <= max(sizes) / 2
    members = [{names[row] for row in rows} for rows in parts]
    assert sum(map(len, members)) == len(set(names))

    order = np.argsort(names, kind="stable")
    again = rows_of(split(grouped([names[row] for row in order]), validation=validation, test=test, seed=seed))
    assert [{int(order[row]) for row in rows} for rows in again] == [set(rows) for rows in parts]
    alone = rows_of(split(grouped(list(range(50))), validation=validation, test=test, seed=seed))
    assert alone == rows_of(split(numbered(50), validation=validation, test=test, seed=seed))


def grouped(names: list[Any], part: list[str] | None = None) -> Dataset:
    batch = Batch.complete({"x": torch.arange(float(len(names))).unsqueeze(1)})
    return Dataset(batch, groups=np.array(names), part=None if part is None else np.array(part))


def test_parts_of_the_source_hold_and_validation_groups_come_from_its_training_rows() -> None:
    names = [row // 4 for row in range(40)]
    part = ["train"] * 24 + ["test"] * 16
    train, validation, test = rows_of(split(grouped(names, part), validation=0.2, test=0.5, seed=0))
    assert sorted(test) == list(range(24, 40))
    assert len(validation) == 4
    assert {row // 4 for row in validation}.isdisjoint(row // 4 for row in train)
    part[:8] = ["validation"] * 8
    assert sorted(rows_of(split(grouped(names, part), validation=0.2, test=0.5, seed=0))[1]) == list(range(8))


def test_a_part_that_was_not_asked_for_is_none() -> None:
    splits = split(numbered(10), validation=0, test=0, seed=0)
    assert splits.validation is None
    assert splits.test is None
    assert len(splits.train) == 10


def test_presence_and_cells_travel_with_their_rows() -> None:
    numbers = torch.arange(20.0).unsqueeze(1)
    batch = Batch({"x": numbers}, {"x": numbers[:, 0] % 2 == 0}, {"x": numbers % 4 == 0})
    train = split(Dataset(batch), validation=0.2, test=0.2, seed=0).train
    values = train.values["x"]
    assert torch.equal(train.present["x"], values[:, 0] % 2 == 0)
    assert torch.equal(train.cells["x"], values % 4 == 0)


@pytest.mark.parametrize(
    ("dataset", "validation", "test", "message"),
    [
        (numbered(10), 1.0, 0, "validation: fraction 1.0, expected one in [0, 1)"),
        (numbered(10), 0, -0.1, "test: fraction -0.1, expected one in [0, 1)"),
        (numbered(10), float("nan"), 0, "validation: fraction nan, expected one in [0, 1)"),
        (numbered(10), 0.5, 0.5, "validation 0.5 and test 0.5: they leave no row for training, expected a sum below 1"),
        (numbered(10), 0, 0.01, "test: a fraction of 0.01 of 10 rows is none: give more rows, a larger fraction, or 0"),
        (
            numbered(10, test_rows=7),
            0.1,
            0.5,
            "validation: a fraction of 0.1 of 3 rows is none: give more rows, a larger fraction, or 0",
        ),
        (
            Dataset(numbered(10).batch, groups=np.arange(10) // 5),
            0.2,
            0,
            "validation: a fraction of 0.2 of 10 rows in 2 groups, the largest of 5, is none: give more rows, a larger fraction, or 0",
        ),
        (numbered(4), 0.3, 0.5, "1 of 4 rows for training, expected 2 or more: give more rows or smaller fractions"),
        (numbered(4, test_rows=4), 0, 0, "0 of 4 rows for training, expected 2 or more: give more rows or smaller fractions"),
        (
            Dataset(
                Batch({"x": torch.zeros(4, 1)}, {"x": torch.tensor([False, False, False, True])}), part=np.array(["train"] * 3 + ["test"])
            ),
            0,
            0,
            "modality 'x': present in none of the 3 training rows, so nothing can be learned about it",
        ),
    ],
)
def test_a_split_that_cannot_be_made_says_why(dataset: Dataset, validation: float, test: float, message: str) -> None:
    with refused(message):
        split(dataset, validation=validation, test=test, seed=0)


def test_a_dataset_is_as_long_as_its_ids_and_parts() -> None:
    batch = Batch.complete({"x": torch.zeros(3, 1)})
    with refused("ids: array of shape (2,) for 3 rows, expected (3,)"):
        Dataset(batch, ids=np.arange(2))
    with refused("groups: array of shape (3, 1) for 3 rows, expected (3,)"):
        Dataset(batch, groups=np.zeros((3, 1)))
    with refused("part: 'dev', expected one of train, validation, test"):
        Dataset(batch, part=np.array(["train", "dev", "test"]))
