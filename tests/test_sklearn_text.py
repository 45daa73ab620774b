"""The imputer for scikit-learn on tables with columns of text."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nbridge.errors import DataError
from nbridge.sklearn import NBridgeImputer

ROWS = 120
KINDS = np.array(["na\u00efve", "treated", "none"])


def cells() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, ROWS)
    x = codes + 0.1 * rng.normal(size=ROWS)
    return codes, x, rng.normal(size=ROWS)


def table() -> np.ndarray:
    """A column of text that another column tells, and one of numbers; some of each are missing."""
    codes, x, z = cells()
    out = np.empty((ROWS, 3), dtype=object)
    out[:, 0], out[:, 1], out[:, 2] = KINDS[codes], x, z
    out[:3, 0], out[3, 0], out[4:8, 1] = None, np.nan, np.nan
    return out


def fitted(X: Any, **options: Any) -> NBridgeImputer:
    return NBridgeImputer(random_state=0, epochs=options.pop("epochs", 30), latent_dim=4, **options).fit(X)


@pytest.fixture(scope="module")
def imputer() -> NBridgeImputer:
    return fitted(table())


def test_text_is_filled_in_by_its_classes_and_observed_cells_are_what_they_were(imputer: NBridgeImputer):
    given = table()
    done = imputer.transform(given)
    assert (done.dtype, done.shape) == (np.dtype(object), given.shape)
    missing = pd.isna(pd.DataFrame(given)).to_numpy()
    assert all(one is other for one, other in zip(done[~missing], given[~missing], strict=True))
    assert set(done[:4, 0]) <= set(KINDS)
    assert all(isinstance(value, float) for value in done[4:8, 1])
    assert imputer.texts_ == {0: tuple(sorted(KINDS))}
    assert imputer.categories_[0].tolist() == sorted(KINDS)


def test_text_is_filled_in_as_the_numbers_of_its_classes_would_be(imputer: NBridgeImputer):
    ordered = sorted(KINDS)
    numbers = np.array([[np.nan if isinstance(a, float) or a is None else ordered.index(a), b, c] for a, b, c in table()], dtype=float)
    other = fitted(numbers, likelihoods={0: "categorical"})
    expected, done = other.transform(numbers), imputer.transform(table())
    assert done[:, 0].tolist() == [ordered[int(code)] for code in expected[:, 0]]
    assert done[:, 1:].astype(float).tolist() == expected[:, 1:].tolist()


def test_draws_are_such_tables_and_intervals_have_none_of_text(imputer: NBridgeImputer):
    given = table()
    drawn = imputer.sample(given, 3)
    assert drawn.shape == (3, ROWS, 3)
    assert set(drawn[:, :4, 0].ravel()) <= set(KINDS)
    assert (drawn[:, 8:] == given[8:]).all()
    lower, upper = imputer.interval(given, draws=99)
    assert np.isnan(lower[:, 0]).all()
    assert (lower[4:8, 1] < upper[4:8, 1]).all()
    assert lower[8:, 1].tolist() == given[8:, 1].tolist() == upper[8:, 1].tolist()


@pytest.mark.parametrize("kind", ["object", "category", "string"])
def test_a_frame_with_text_is_taken_by_the_names_of_its_columns(kind: str):
    frame = pd.DataFrame(table(), columns=["kind", "x", "z"]).astype({"x": float, "z": float, "kind": kind})
    found = fitted(frame, epochs=2, groups={"lab": ["x", "z"], "stage": "kind"}, likelihoods={"lab": "laplace"})
    assert found.feature_names_in_.tolist() == ["kind", "x", "z"]
    done = found.transform(frame)
    observed = frame["kind"].notna().to_numpy()
    assert done[observed, 0].tolist() == frame["kind"][observed].tolist()
    assert set(done[~observed, 0]) <= set(KINDS)
    assert not pd.isna(pd.DataFrame(done)).to_numpy().any()
    assert found.set_output(transform="pandas").transform(frame).columns.tolist() == ["kind", "x", "z"]


def test_text_and_numbers_are_one_modality_unless_they_are_grouped():
    rng = np.random.default_rng(0)
    X = np.empty((40, 12), dtype=object)
    X[:, 1:], X[:, 0] = rng.normal(size=(40, 11)), np.array(["a", "b"])[np.arange(40) % 2]
    X[0, 0] = ""
    for groups in (None, {"all": slice(None)}, {"text": [0, 1], "numbers": slice(2, 12)}, {"text": [0], "numbers": slice(1, 12)}):
        found = fitted(X, epochs=2, groups=groups)
        alone = groups is not None and groups["text" if "text" in groups else "all"] == [0]
        assert found.model_.likelihoods[next(iter(found.groups_))].__class__.__name__ == ("Categorical" if alone else "Mixed")
        assert found.transform(X)[0, 0] in ("a", "b")


def test_accents_composed_or_not_are_one_class_and_stay_as_they_were():
    X = table()
    X[50:, 0] = [unicodedata.normalize("NFD", text) for text in X[50:, 0]]
    found = fitted(X, epochs=2)
    assert len(found.texts_[0]) == 3
    assert found.transform(X)[8:, 0].tolist() == X[8:, 0].tolist()


def test_texts_of_numbers_are_numbers_and_lists_will_do():
    found = fitted([["a", "1.5"], ["b", "2"], ["a", ""], ["NA", "0"]] * 5, epochs=1)
    assert found.texts_ == {0: ("a", "b")}
    done = found.transform([["", "1"], ["b", None]])
    assert done[0, 0] in ("a", "b")
    assert isinstance(done[1, 1], float)
    assert (done[1, 0], done[0, 1]) == ("b", "1")


def test_what_does_not_fit_is_told(imputer: NBridgeImputer):
    given = table()
    given[9, 0] = "another"
    with pytest.raises(DataError, match=r'^column 0: row 9 holds "another", a category that fit has not seen; it saw na.ve, none, treated'):
        imputer.transform(given)
    given = table()
    given[9, 1] = "tall"
    with pytest.raises(DataError, match=r'^column 1: row 9 holds "tall", expected a number or NaN$'):
        imputer.transform(given)
    with pytest.raises(DataError, match=r"^likelihoods: 'all' is normal, but column 0 contains text; use mixed$"):
        fitted(table(), groups={"all": [0, 1, 2]}, likelihoods={"all": "normal"})
    with pytest.raises(DataError, match=r"^likelihoods: column 0 is normal, but contains text; use categorical$"):
        fitted(table(), likelihoods={0: "normal"})
    with pytest.raises(DataError, match=r"^likelihoods: 'kind' is normal, but column 0 contains text; use categorical$"):
        fitted(table(), groups={"kind": [0], "rest": [1, 2]}, likelihoods={"kind": "normal"})
    with pytest.raises(DataError, match=r"^column 0: all NaN"):
        fitted([[None, "a"], ["", "b"], [np.nan, "a"]])


def test_tables_of_numbers_are_arrays_of_numbers_still():
    X = np.random.default_rng(0).normal(size=(30, 2))
    X[0, 0] = np.nan
    for given in (X, X.astype(object), pd.DataFrame(X), X.tolist()):
        done = fitted(given, epochs=1).transform(given)
        assert done.dtype == np.float64
        assert np.array_equal(done[1:], X[1:])
