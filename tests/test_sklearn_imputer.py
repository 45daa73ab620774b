"""The imputer is an estimator of scikit-learn, keeps what is observed to the last bit, and knows more than the mean."""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import nbridge
from nbridge import NBridgeImputer
from nbridge.errors import DataError

NAN = float("nan")


@parametrize_with_checks([NBridgeImputer(epochs=1, hidden=(8,), features=4, latent_dim=2, random_state=0)])
def test_scikit_learn_finds_nothing_to_complain_of(estimator: Any, check: Any):
    """None is left out; which of them apply is told by the imputer's tags: NaN is allowed, infinities and sparse tables are not."""
    check(estimator)


def table(rows: int = 240, seed: int = 0) -> np.ndarray:
    """Two columns and a class that tell each other, and a count, with holes."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, rows)
    X = np.column_stack([rng.normal(3 * label[:, None], 0.3, (rows, 2)), np.array([10, 20, 40])[label], rng.poisson(1 + 4 * label)])
    X[: rows // 8, :2] = NAN
    X[rows // 8 : rows // 4, 2] = NAN
    X[-4, 0] = NAN
    X[-3] = NAN
    return X


GROUPS = {"signal": [0, 1], "label": [2], "count": slice(3, 4)}
LIKELIHOODS = {"label": "categorical", "count": "poisson"}


def small(**options: Any) -> NBridgeImputer:
    settings = {"groups": GROUPS, "likelihoods": LIKELIHOODS, "latent_dim": 3, "hidden": (16,), "features": 8, "random_state": 0}
    return NBridgeImputer(**{**settings, **options})


@pytest.fixture(scope="module")
def fitted() -> NBridgeImputer:
    return small(weights={"label": 10}, epochs=60).fit(table())


def test_holes_are_filled_and_observed_cells_are_bit_identical(fitted: NBridgeImputer):
    X = table(seed=1)
    X *= np.where(np.isin(np.arange(4), [0, 1]), 1 + 1e-12, 1)  # digits that float32 cannot hold
    before, done = X.copy(), fitted.transform(X)
    np.testing.assert_array_equal(X, before)
    assert done.dtype == X.dtype
    assert np.isfinite(done).all()
    np.testing.assert_array_equal(done[~np.isnan(X)], X[~np.isnan(X)])
    assert set(done[:, 2]) == {10, 20, 40}
    assert (done[:, 3] == done[:, 3].round()).all()
    single = fitted.transform(table(seed=1).astype(np.float32))
    assert single.dtype == np.float32


def test_classes_and_values_are_told_from_the_other_groups(fitted: NBridgeImputer):
    whole = np.random.default_rng(5).integers(0, 3, 200)
    truth = np.column_stack([3.0 * whole, 3.0 * whole, np.array([10, 20, 40])[whole]])
    X = np.column_stack([truth, np.full(200, NAN)])
    hidden = X.copy()
    hidden[:, 2] = NAN
    assert (fitted.transform(hidden)[:, 2] == truth[:, 2]).mean() > 0.95
    hidden = X.copy()
    hidden[:, :2] = NAN
    # The noise of .3, and some for the model; the mean alone is off by 2.4.
    assert np.sqrt(np.mean((fitted.transform(hidden)[:, :2] - truth[:, :2]) ** 2)) < 0.8


def test_a_row_of_nothing_gets_the_prior_and_depends_on_nothing(fitted: NBridgeImputer):
    X = np.full((3, 4), NAN)
    done = fitted.transform(X)
    np.testing.assert_allclose(done[0, :2], done[1, :2])
    np.testing.assert_allclose(done[0, :2], fitted.transform(X[:1])[0, :2], rtol=1e-5)
    # The middle of three classes at 0, 3 and 6.
    assert 1 < done[0, 0] < 5


def test_completions_are_coherent_differ_and_keep_what_is_observed(fitted: NBridgeImputer):
    X = table(seed=2)
    draws = fitted.sample(X, 7, seed=3)
    assert draws.shape == (7, *X.shape)
    for draw in draws:
        np.testing.assert_array_equal(draw[~np.isnan(X)], X[~np.isnan(X)])
    np.testing.assert_array_equal(draws, fitted.sample(X, 7, seed=3))
    assert draws[:, :30, 0].std(0).min() > 0.01
    # Of rows without anything, the groups of a draw belong together, and those of two draws do not.
    nothing = fitted.sample(np.full((500, 4), NAN), 2)
    nearest = np.array([10, 20, 40])[np.abs(nothing[..., :1] - [0, 3, 6]).argmin(-1)]
    assert (nearest == nothing[..., 2]).mean() > 0.2 + (nearest == nothing[::-1, :, 2]).mean()
    with pytest.raises(DataError, match=r"^samples is 0, expected 1 or more$"):
        fitted.sample(X, 0)


def test_intervals_hold_the_values_that_were_hidden(fitted: NBridgeImputer):
    X = table(400, seed=3)
    X = X[~np.isnan(X).any(1)]
    hidden = X.copy()
    hidden[:, :2] = NAN
    lower, upper = fitted.interval(hidden, 0.9)
    assert np.isnan(fitted.interval(np.full((1, 4), NAN))[0][0, 2])
    np.testing.assert_array_equal(lower[:, 2:], X[:, 2:])
    inside = np.clip(X, lower, upper) == X
    assert 0.75 < inside[:, :2].mean() <= 1
    with pytest.raises(DataError, match=r"^intervals: level 90, expected"):
        fitted.interval(X, 90)


def test_the_same_seed_trains_the_same_model_and_copies_serve_alike(fitted: NBridgeImputer):
    X = table(seed=4)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X))
    one, two = (clone(small(epochs=2)).fit(table()).transform(X) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, small(epochs=2, random_state=1).fit(table()).transform(X))
    copy = clone(fitted).set_params(epochs=3)
    assert copy.get_params()["epochs"] == 3
    with pytest.raises(NotFittedError):
        copy.transform(X)


def test_the_model_serves_the_library(fitted: NBridgeImputer):
    assert fitted.model_.names == ("signal", "label", "count")
    assert {name: columns.tolist() for name, columns in fitted.groups_.items()} == {"signal": [0, 1], "label": [2], "count": [3]}
    np.testing.assert_array_equal(fitted.categories_["label"], [10, 20, 40])
    done = fitted.model_.impute({"label": [0.0, 2.0]})
    assert done["signal"].shape == (2, 2)


def test_training_is_silent_unless_asked_to_speak(capsys: pytest.CaptureFixture[str]):
    small(epochs=1).fit(table())
    assert capsys.readouterr() == ("", "")
    small(epochs=1, verbose=True).fit(table())
    assert "stage joint: " in capsys.readouterr().out


# Columns


def frame(X: np.ndarray) -> pa.Table:
    return pa.table({name: X[:, number] for number, name in enumerate(["size (cm)", "width", "type", "3rd"])})


def test_columns_have_names_where_the_table_has_them():
    groups = {"signal": ["size (cm)", "width"], "a type": "type", "count": [False, False, False, True]}
    imputer = small(groups=groups, likelihoods={"a type": "categorical", "count": "poisson"}, epochs=1).fit(frame(table()))
    assert imputer.feature_names_in_.tolist() == ["size (cm)", "width", "type", "3rd"]
    assert imputer.get_feature_names_out().tolist() == ["size (cm)", "width", "type", "3rd"]
    assert imputer.model_.names == ("signal", "a_type", "count")
    plain = small(epochs=1).fit(table())
    np.testing.assert_array_equal(imputer.transform(frame(table())), plain.transform(table()))
    unseen = r"feature names should match those that were passed during fit\.\nFeature names unseen at fit time:\n- size\n"
    with pytest.raises(ValueError, match=unseen):
        imputer.transform(frame(table()).rename_columns(["size", "width", "type", "3rd"]))


@pytest.mark.parametrize("named", [False, True])
def test_without_groups_all_columns_are_one_modality_with_a_likelihood_each(named: bool):
    key: Any = "type" if named else 2
    X = frame(table()) if named else table()
    imputer = NBridgeImputer(likelihoods={key: "categorical", 3: "poisson"}, epochs=1, random_state=0).fit(X)
    assert imputer.model_.names == ("table",)
    assert [columns.tolist() for columns in imputer.groups_.values()] == [[0, 1, 2, 3]]
    assert [column.kind.type for column in imputer.mixed_["table"].columns] == ["normal", "normal", "categorical", "poisson"]
    np.testing.assert_array_equal(imputer.categories_[2], [10, 20, 40])
    for done in (imputer.transform(X), *imputer.sample(X, 2)):
        assert not np.isnan(done).any()
        assert set(done[:, 2]) == {10, 20, 40}
        np.testing.assert_array_equal(done[:, 3], done[:, 3].round())
        assert (done[:, 3] >= 0).all()


def test_one_hot_columns_are_one_class():
    X = np.hstack([np.random.default_rng(0).normal(size=(60, 2)), np.eye(3)[np.arange(60) % 3]])
    X[:9, 2:] = NAN
    imputer = NBridgeImputer({"x": [0, 1], "label": [2, 3, 4]}, likelihoods={"label": "categorical"}, epochs=1).fit(X)
    np.testing.assert_array_equal(imputer.transform(X)[:, 2:].sum(1), 1)


def test_a_column_of_one_class_is_filled_with_it():
    X = np.column_stack([np.random.default_rng(0).normal(size=40), np.full(40, 7.0)])
    X[:5, 1] = NAN
    assert (NBridgeImputer(likelihoods={1: "categorical"}, epochs=1).fit_transform(X)[:, 1] == 7).all()


def test_a_column_of_one_value_is_filled_with_it():
    X = np.column_stack([np.random.default_rng(0).normal(size=(40, 2)), np.full(40, 0.7), np.full(40, 3)])
    X[:5, 1:], X[5:9, 3] = NAN, NAN
    imputer = NBridgeImputer({"a": [0, 1, 2], "b": [3]}, likelihoods={"b": "poisson"}, epochs=1).fit(X)
    np.testing.assert_array_equal(imputer.constants_, [NAN, NAN, 0.7, 3])
    for done in (imputer.transform(X), *imputer.sample(X, 2), *imputer.interval(X)):
        np.testing.assert_array_equal(done[:, 2:], np.broadcast_to([0.7, 3], (40, 2)))
        assert len(np.unique(done[:5, 1])) == 5


# Mistakes

BAD = {
    "groups are no mapping": (
        {"groups": [[0, 1], [2, 3]]},
        "groups: a list, expected a mapping of names to columns, such as {'rna': [0, 1], 'age': [2]}",
    ),
    "no such number": ({"groups": {"a": [0, 1, 2, 4]}}, "groups: 'a' has column 4, but X has columns 0 to 3"),
    "a column twice": ({"groups": {"a": [0, 1], "b": [1, 2, -1]}}, "groups: column 1 is in both 'a' and 'b'; remove it from one"),
    "a column in no group": ({"groups": {"a": [0, 1], "b": [3]}}, "groups: column 2 is in no group; add it to one, or remove it from X"),
    "an empty group": ({"groups": {"a": slice(4), "b": []}}, "groups: 'b' has no columns"),
    "names without names": (
        {"groups": {"a": ["age"]}},
        "groups: 'a' has 'age', but X has no column names; use indices, or fit a data frame",
    ),
    "no number": ({"groups": {"a": [0.5]}}, "groups: 'a' has 0.5, expected a column index or name"),
    "too few truth values": ({"groups": {"a": [True, False]}}, "groups: 'a' is a mask of length 2, but X has 4 columns"),
    "an option of no group": (
        {"likelihoods": {"lable": "categorical"}},
        "likelihoods: no group 'lable'. Did you mean 'label'? Groups: signal, label, count",
    ),
    "an option of another kind": ({"weights": 3}, "weights: a number, expected a mapping by group"),
    "a share of more than all": ({"validation_fraction": 1.5}, "validation_fraction is 1.5, expected a share from 0 to below 1"),
    "no epoch": ({"epochs": 0}, "epochs is 0, expected 1 or more"),
    "outside the support": (
        {"likelihoods": {"signal": "poisson"}},
        "modality 'signal', row 30: value -0.0792838 is outside the support of Poisson, whole numbers from 0 (210 such rows). "
        "Rescale the values or choose another likelihood.",
    ),
}


@pytest.mark.parametrize("mistake", BAD)
def test_options_that_do_not_fit_are_told_in_one_line(mistake: str):
    options, message = BAD[mistake]
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is compared below)
        small(**{**({"likelihoods": "normal"} if "groups" in options else {}), "epochs": 1, **options}).fit(table())
    start, end = message.split("-0.0792838") if "-0.0792838" in message else (message, "")
    assert str(error.value).startswith(start)
    assert "\n" not in str(error.value)
    assert end[:20] in str(error.value)


def test_an_unknown_likelihood_is_told_with_those_there_are():
    with pytest.raises(nbridge.SpecError, match=r"modalities.signal.likelihood: unknown likelihood 'norml'. Did you mean 'normal'?"):
        small(likelihoods={"signal": "norml"}).fit(table())


def test_a_column_without_any_value_is_refused_by_name():
    X = table()
    X[:, 1] = NAN
    with pytest.raises(DataError, match=r"^column 1: all NaN, so that nothing can be learned about it; leave it out, or fill it in$"):
        small().fit(X)
    with pytest.raises(DataError, match=r"^column 'width': all NaN"):
        small().fit(frame(X))


def test_a_class_that_fit_has_not_seen_is_refused(fitted: NBridgeImputer):
    X = table()
    X[100, 2] = 30
    with pytest.raises(DataError) as error:
        fitted.transform(X)
    assert (
        str(error.value)
        == "column 2: row 100 holds 30, a category that fit has not seen; it saw 10, 20, 40. NaN in its place is filled in."
    )


def test_other_columns_than_in_fit_are_told_by_scikit_learn(fitted: NBridgeImputer):
    with pytest.raises(ValueError, match="X has 3 features, but NBridgeImputer is expecting 4 features as input"):
        fitted.transform(table()[:, :3])


# Real data


def hidden_blocks(X: np.ndarray, blocks: list[slice], share: float, seed: int) -> np.ndarray:
    """The table with some of the blocks of a share of the rows hidden, never all of one row."""
    rng = np.random.default_rng(seed)
    X = X.copy()
    for row in np.flatnonzero(rng.random(len(X)) < share):
        for block in rng.permutation(len(blocks))[: rng.integers(1, len(blocks))]:
            X[row, blocks[block]] = NAN
    return X


def error(X: np.ndarray, hidden: np.ndarray, done: np.ndarray) -> float:
    """Root-mean-square error of what was hidden, in units of each column's deviation."""
    scale = X.std(0)
    return float(np.sqrt(np.mean((((done - X) / np.where(scale > 0, scale, 1))[np.isnan(hidden)]) ** 2)))


def test_hidden_blocks_of_real_digits_are_filled_in_better_than_by_their_means(real_data: Path):
    archive = np.load(real_data / "mfeat" / "mfeat.npz")
    order = np.random.default_rng(0).permutation(2000)[:1000]
    views = [archive[name][order].astype(float) for name in ("fou", "kar", "zer")]
    X = np.hstack([*views, archive["labels"][order, None].astype(float)])
    ends = np.cumsum([0, *(view.shape[1] for view in views), 1]).tolist()
    blocks = [slice(start, stop) for start, stop in pairwise(ends)]
    hidden = hidden_blocks(X, blocks, 0.4, 0)
    groups = dict(zip(("fou", "kar", "zer", "digit"), blocks, strict=True))
    imputer = NBridgeImputer(groups, likelihoods={"digit": "categorical"}, weights={"digit": 10}, latent_dim=16, epochs=20, random_state=0)
    train, test = slice(0, 800), slice(800, None)
    imputer.fit(hidden[train])
    done, means = imputer.transform(hidden[test]), SimpleImputer().fit(hidden[train]).transform(hidden[test])
    cells = slice(0, -1)
    ours, theirs = (error(X[test, cells], hidden[test, cells], guess[:, cells]) for guess in (done, means))
    assert ours < 0.9 * theirs
    lower, upper = (ends[:, cells][np.isnan(hidden[test, cells])] for ends in imputer.interval(hidden[test], 0.9))
    truth = X[test, cells][np.isnan(hidden[test, cells])]
    assert 0.8 < ((lower <= truth) & (truth <= upper)).mean() < 0.96
    absent = np.isnan(hidden[test, -1])
    assert (done[absent, -1] == X[test, -1][absent]).mean() > 0.7


@pytest.mark.parametrize("alone", [True, False])
def test_cells_of_wine_are_filled_in_better_than_by_their_means(alone: bool):
    X = load_wine().data[:, :5] if alone else load_wine().data
    hidden = np.where(np.random.default_rng(1).random(X.shape) < 0.1, NAN, X)
    done = NBridgeImputer(epochs=60, random_state=0).fit_transform(hidden)
    assert error(X, hidden, done) < error(X, hidden, SimpleImputer().fit_transform(hidden))


def test_it_serves_in_a_pipeline_with_a_classifier():
    X, y = load_digits(return_X_y=True)
    X = X[:400]
    halves = {"top": slice(0, 32), "bottom": slice(32, 64)}
    hidden = hidden_blocks(X, [slice(0, 32), slice(32, 64)], 0.5, 0)
    pipeline = make_pipeline(NBridgeImputer(halves, epochs=10, random_state=0), LogisticRegression(max_iter=2000))
    assert pipeline.fit(hidden[:300] / 16, y[:300]).score(hidden[300:] / 16, y[300:400]) > 0.6
