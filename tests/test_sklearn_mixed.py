"""The imputer without groups: any cell from any others of its row, each column with a likelihood of its own, values in its own set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from nbridge.common.warnings import NBridgeWarning
from nbridge.errors import DataError
from nbridge.sklearn import NBridgeImputer

ROWS = 300
NAN = float("nan")


def truth(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Columns of all kinds that one number explains."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=rows)
    return pd.DataFrame({
        "size": z + 0.2 * rng.normal(size=rows),
        "income": np.exp(1 + z + 0.2 * rng.normal(size=rows)),
        "year": (2000 + 8 * z + rng.normal(size=rows)).round(),
        "flag": (z + 0.3 * rng.normal(size=rows) > 0).astype(float),
        "answer": np.digitize(z + 0.2 * rng.normal(size=rows), [-1, -0.3, 0.3, 1]) + 1.0,
        "town": np.array(["Aachen", "Bonn", "Celle"])[np.digitize(z, [-0.5, 0.5])],
    })  # fmt: skip


def with_holes(frame: pd.DataFrame, share: float = 0.2, seed: int = 1) -> pd.DataFrame:
    hidden = np.random.default_rng(seed).random(frame.shape) < share
    return frame.mask(pd.DataFrame(hidden, columns=frame.columns, index=frame.index))


@pytest.fixture(scope="module")
def fitted() -> NBridgeImputer:
    return NBridgeImputer(random_state=0, epochs=60).fit(with_holes(truth()))


def test_the_likelihood_of_each_column_follows_from_its_values(fitted: NBridgeImputer):
    kinds = [column.kind for column in fitted.mixed_["table"].columns]
    assert [kind.type for kind in kinds] == ["normal", "lognormal", "normal", "bernoulli", "ordinal", "categorical"]
    assert [kind.whole for kind in kinds] == [False, False, True, False, False, False]
    assert [kind.classes for kind in kinds] == [None, None, None, None, 5, 3]
    likelihood: Any = fitted.model_.likelihoods["table"]
    assert list(likelihood.kinds) == list(truth().columns)


def test_values_come_back_in_the_set_of_their_column(fitted: NBridgeImputer):
    given = with_holes(truth(seed=5), seed=6)
    for done in (fitted.transform(given), *fitted.sample(given, 3)):
        out = pd.DataFrame(done, columns=given.columns)
        kept = given.notna().to_numpy()
        assert (out.to_numpy()[kept] == given.to_numpy()[kept]).all()
        assert set(out["town"]) == {"Aachen", "Bonn", "Celle"}
        assert set(out["answer"]) == {1.0, 2.0, 3.0, 4.0, 5.0}
        assert set(out["flag"]) == {0.0, 1.0}
        assert (out["year"] == out["year"].astype(float).round()).all()
        assert (out["income"] > 0).all()


def test_any_cell_is_imputed_from_the_others_of_its_row(fitted: NBridgeImputer):
    whole = truth(seed=7)
    for column in whole.columns:
        given = whole.copy()
        given[column] = np.nan if column != "town" else None
        done = fitted.transform(given)[:, whole.columns.get_loc(column)]
        if column in ("town", "flag", "answer"):
            # By the others' z, at most about .8 to .9; the most frequent value is right for a third to a half.
            assert (done == whole[column].to_numpy()).mean() > 0.55
        else:
            error = np.log(done.astype(float) / whole[column]) if column == "income" else done.astype(float) - whole[column]
            assert error.std() < 0.7 * (np.log(whole[column]) if column == "income" else whole[column]).std()


def test_intervals_hold_numbers_and_ordered_levels_and_none_of_other_classes(fitted: NBridgeImputer):
    whole = truth(seed=8)
    given = with_holes(whole, 0.3, seed=9)
    lower, upper = fitted.interval(given, 0.9)
    hidden = given.isna().to_numpy()
    for number, column in enumerate(whole.columns):
        ends = lower[hidden[:, number], number], upper[hidden[:, number], number]
        if column == "town":
            assert np.isnan(ends).all()
            continue
        true = whole[column].to_numpy()[hidden[:, number]].astype(float)
        assert ((ends[0] <= true) & (true <= ends[1])).mean() > 0.75
    assert set(lower[:, 4]) | set(upper[:, 4]) <= {1.0, 2.0, 3.0, 4.0, 5.0}


def test_a_value_that_an_inferred_likelihood_does_not_admit_is_kept_and_told(fitted: NBridgeImputer):
    given = truth(seed=3)
    given.loc[4, "answer"], given.loc[5, "flag"], given.loc[6:7, "income"] = 9.0, 0.5, -1.0
    given.loc[4:7, "size"] = np.nan
    with pytest.warns(NBridgeWarning) as warned:
        done = fitted.transform(given)
    assert [str(one.message) for one in warned] == [
        "column 'income': row 6 holds -1, but fit has seen positive numbers only (2 such rows); other cells are imputed without it",
        "column 'flag': row 5 holds 0.5, which fit has not seen (1 such rows); other cells are imputed without it",
        "column 'answer': row 4 holds 9, which fit has not seen (1 such rows); other cells are imputed without it",
    ]
    assert (done[4, 4], done[5, 3], done[6, 1]) == (9.0, 0.5, -1.0)
    assert not pd.isna(pd.DataFrame(done)).to_numpy().any()


def test_likelihoods_that_are_given_are_kept_and_their_mistakes_are_told():
    frame = with_holes(truth())
    given = {"size": {"type": "normal", "low": -1}, "answer": "poisson", "year": "categorical", 1: "normal"}
    found = NBridgeImputer(likelihoods=given, epochs=1, random_state=0).fit(frame)
    kinds = [column.kind.type for column in found.mixed_["table"].columns]
    assert kinds == ["normal", "normal", "categorical", "bernoulli", "poisson", "categorical"]
    done = found.transform(frame.assign(size=NAN))
    assert done[:, 0].min() >= -1
    new = truth(seed=2)
    new.loc[3, "year"] = 1900.0
    with pytest.raises(DataError, match=r"^column 'year': row 3 holds 1900, a category that fit has not seen; it saw 19"):
        found.transform(new)
    for likelihoods, message in (
        ({"sise": "normal"}, r"^likelihoods: no column 'sise'\. Did you mean 'size'\? Columns: size, income"),
        ({"size": "norml"}, r"^likelihoods: column 'size': norml is not a likelihood of a column; expected normal, lognormal, bernoulli"),
        ({"town": "poisson"}, r"^likelihoods: column 'town' is poisson, but contains text; use categorical$"),
        (3, r"^likelihoods: a number, expected a likelihood, or a mapping by column$"),
    ):
        with pytest.raises(DataError, match=message):
            NBridgeImputer(likelihoods=likelihoods, epochs=1).fit(frame)


def test_one_likelihood_is_that_of_all_numbers():
    found = NBridgeImputer(likelihoods="normal", epochs=1, random_state=0).fit(with_holes(truth()))
    assert [column.kind.type for column in found.mixed_["table"].columns] == [*["normal"] * 5, "categorical"]


def test_a_mixed_group_beside_others_has_likelihoods_of_its_own():
    frame = with_holes(truth())
    groups = {"numbers": ["size", "income"], "rest": ["year", "flag", "answer", "town"]}
    options = {"rest": {"type": "mixed", "columns": {"year": "lognormal"}}}
    found = NBridgeImputer(groups, likelihoods=options, epochs=1, random_state=0).fit(frame)
    assert [column.kind.type for column in found.mixed_["rest"].columns] == ["lognormal", "bernoulli", "ordinal", "categorical"]
    assert set(found.transform(frame)[:, 5]) == {"Aachen", "Bonn", "Celle"}


def test_pixels_that_are_rare_do_not_stop_a_table_of_new_rows():
    rng = np.random.default_rng(0)
    X = rng.poisson(0.3, (200, 30)).astype(float)
    X[rng.random(X.shape) < 0.1] = NAN
    train, test = train_test_split(X, random_state=0)
    found = NBridgeImputer(epochs=1, random_state=0).fit(train)
    test[0, :5] = 7.0
    with pytest.warns(NBridgeWarning, match="which fit has not seen"):
        done = found.transform(test)
    assert (done[0, :5] == 7.0).all()
    assert np.isfinite(done).all()


def test_intervals_of_a_table_without_classes_are_those_of_numbers():
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[:9, 0] = NAN
    lower, upper = NBridgeImputer(epochs=1, random_state=0).fit(X).interval(X)
    assert (lower[:9, 0] < upper[:9, 0]).all()
    np.testing.assert_array_equal(lower[9:], X[9:])
