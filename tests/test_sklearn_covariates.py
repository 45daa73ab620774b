"""Covariates of `NBridgeImputer`: columns that are always given, and come back unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from nbridge import NBridgeImputer
from nbridge.errors import DataError

SHIFT = np.array([0.0, 4.0])


def table(rows: int = 300, seed: int = 0) -> pd.DataFrame:
    """Three columns that follow a factor, two of which the batch shifts."""
    rng = np.random.default_rng(seed)
    factor, batch = rng.normal(size=rows), rng.integers(0, 2, rows)
    shifted = factor + SHIFT[batch]
    return pd.DataFrame({
        "a": shifted + 0.2 * rng.normal(size=rows), "batch": np.array(["north", "south"])[batch],
        "b": shifted + 0.2 * rng.normal(size=rows), "c": factor + 0.2 * rng.normal(size=rows),
        "age": rng.normal(50, 10, rows), "sex": rng.choice(["f", "m"], rows),
    })  # fmt: skip


def small(**options: Any) -> NBridgeImputer:
    return NBridgeImputer(
        **{
            "covariates": ["batch", "age"],
            "latent_dim": 2,
            "hidden": (16,),
            "features": 8,
            "learning_rate": 1e-2,
            "random_state": 0,
            **options,
        }
    )


def with_holes(frame: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    cells = ["a", "b", "c", "sex"]
    return frame.assign(**{name: frame[name].mask(rng.random(len(frame)) < 0.3) for name in cells})


@pytest.fixture(scope="module")
def fitted() -> NBridgeImputer:
    return small(epochs=90).fit(with_holes(table()))


def test_covariates_come_back_unchanged_and_are_in_no_modality(fitted: NBridgeImputer):
    frame = with_holes(table(60, seed=2))
    done = fitted.transform(frame)
    assert fitted.model_.network.covariates is not None
    assert fitted.covariates_ == {"batch": 1, "age": 4}
    assert {number for columns in fitted.groups_.values() for number in columns} == {0, 2, 3, 5}
    assert (done[:, [1, 4]] == frame[["batch", "age"]].to_numpy()).all()
    observed = frame.notna().to_numpy()
    assert (done[observed] == frame.to_numpy()[observed]).all()
    assert not pd.isna(done).any()
    assert fitted.get_feature_names_out().tolist() == list(frame)
    assert clone(fitted).get_params()["covariates"] == ["batch", "age"]


def test_a_row_of_nothing_else_gets_the_means_of_its_batch(fitted: NBridgeImputer):
    frame = table(20, seed=3).assign(a=np.nan, b=np.nan, c=np.nan, age=50.0)
    done = pd.DataFrame(fitted.transform(frame), columns=list(frame)).astype({"a": float, "b": float})
    means = done.groupby("batch")[["a", "b"]].mean()
    assert np.abs(means.loc["south"] - means.loc["north"] - SHIFT[1]).max() < 1


def test_intervals_with_covariates_hold_the_values_and_are_nan_for_text(fitted: NBridgeImputer):
    whole = table(200, seed=4)
    frame = with_holes(whole, seed=5)
    lower, upper = fitted.interval(frame, 0.9)
    assert lower.shape == upper.shape == frame.shape
    hidden = frame["a"].isna().to_numpy()
    truth = whole["a"].to_numpy()[hidden]
    assert 0.78 < ((lower[hidden, 0] <= truth) & (truth <= upper[hidden, 0])).mean() <= 1
    # Narrower than the two batches are apart: the batch is known.
    assert np.median(upper[hidden, 0] - lower[hidden, 0]) < 3
    np.testing.assert_array_equal(lower[:, 4], frame["age"])
    assert np.isnan(lower[:, [1, 5]]).all()
    assert np.isnan(upper[:, [1, 5]]).all()
    assert fitted.sample(frame, 2).shape == (2, *frame.shape)


def test_arrays_have_covariates_by_index_and_groups_leave_them_out():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.normal(size=(40, 3)), np.arange(40) % 3])
    X[:5, 0] = np.nan
    imputer = small(covariates=-1, groups={"a": [0, 1], "b": [2]}, epochs=1).fit(X)
    assert imputer.covariates_ == {"column_3": 3}
    np.testing.assert_array_equal(imputer.transform(X)[:, 3], X[:, 3])
    X[7, 3] = 5
    with pytest.raises(DataError, match=r"^column 3: row 7 holds 5, a category that fit has not seen; it saw 0, 1, 2. A covariate"):
        imputer.transform(X)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"covariates": ["bach"]}, "covariates: the list has 'bach', no such column. Did you mean 'batch'? Columns: a, batch"),
    "no such index": ({"covariates": [9]}, "covariates: the list has column 9, but X has columns 0 to 5"),
    "twice": ({"covariates": ["batch", 1]}, "covariates: column 'batch' is given twice"),
    "all": ({"covariates": list(range(6))}, "covariates: all columns, so that there is none to impute; leave some out"),
    "no list": ({"covariates": 1.5}, "covariates: the list has 1.5, expected a column index or name"),
    "with a hole": ({"covariates": ["c"]}, "covariates: column 'c': row 1 has no value (1 more such row); fill it in"),
    "in a group": (
        {"groups": {"x": ["a", "b", "c", "sex", "age"], "y": ["batch"]}, "covariates": ["batch"]},
        "groups: column 'batch' of 'y' is a covariate as well; remove it from one",
    ),
}


@pytest.mark.parametrize(("options", "text"), BAD.values(), ids=BAD)
def test_covariates_that_do_not_fit_are_one_line(options: dict[str, Any], text: str):
    frame = table(12)
    frame.loc[[1, 4], "c"] = np.nan
    with pytest.raises(DataError) as error:
        small(epochs=1, **options).fit(frame)
    assert str(error.value).startswith(text)
    assert "\n" not in str(error.value)


def test_a_row_without_a_covariate_and_an_unseen_level_are_refused(fitted: NBridgeImputer):
    frame = table(5)
    with pytest.raises(DataError, match=r"covariates: column 'age': row 2 has no value; fill it in, or leave such rows out"):
        fitted.transform(frame.assign(age=[1, 2, np.nan, 4, 5]))
    with pytest.raises(
        DataError, match=r"^column 'batch': row 1 holds \"west\", .* it saw north, south\. A covariate needs one of them\.$"
    ):
        fitted.transform(frame.assign(batch=["north", "west", "south", "north", "north"]))
