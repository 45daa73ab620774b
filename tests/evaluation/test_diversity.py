"""Variances and distances against scipy, closed forms, and models whose draws are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor
from toys import CLASSES, Toy, attributes, labelled_rows, of_nothing, of_the_label, reader

from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.evaluation.diversity import class_variances, diversity, frechet_distance, variance_ratio

SEEDS = st.integers(0, 2**31)


def mixed(rows: int, seed: int, width: int = 5) -> np.ndarray:
    """Features that are correlated."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, width)) @ rng.normal(size=(width, width)) + rng.normal(size=width)


def by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    root = np.real(sqrtm(np.cov(a.T) @ np.cov(b.T)))
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root))


def exactly(mean: np.ndarray, scale: np.ndarray, seed: int) -> Tensor:
    """Rows with exactly this mean and, on the diagonal, these standard deviations; no correlation."""
    rows = 3 * len(mean)
    centred = np.random.default_rng(seed).normal(size=(rows, len(mean)))
    directions = np.linalg.qr(centred - centred.mean(0))[0] * np.sqrt(rows - 1)
    return torch.as_tensor(mean + directions * scale)


@given(SEEDS, st.integers(6, 30), st.integers(6, 30))
def test_the_frechet_distance_is_that_of_scipys_matrix_root(seed: int, rows: int, others: int):
    a, b = mixed(rows, seed), mixed(others, seed + 1)
    assert frechet_distance(torch.as_tensor(a), torch.as_tensor(b)) == pytest.approx(by_scipy(a, b), rel=1e-6, abs=1e-6)


@given(SEEDS, st.integers(1, 6))
def test_between_diagonal_gaussians_of_any_rank_it_has_a_closed_form(seed: int, width: int):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(2, width))
    scales = rng.uniform(0.5, 2, size=(2, width)) * rng.integers(2, size=(2, width))
    expected = np.square(means[0] - means[1]).sum() + np.square(scales[0] - scales[1]).sum()
    found = frechet_distance(exactly(means[0], scales[0], seed), exactly(means[1], scales[1], seed + 1))
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-10)


@given(SEEDS, st.integers(2, 8))
def test_it_is_symmetric_zero_for_equal_rows_and_blind_to_rotation(seed: int, rows: int):
    """Fewer rows than features as well: then covariances are singular."""
    a, b = (torch.as_tensor(mixed(rows, seed + i)) for i in range(2))
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))).Q
    distance = frechet_distance(a, b)
    assert distance > 0
    assert frechet_distance(b, a) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(distance, rel=1e-9)
    assert frechet_distance(a, a.flip(0)) == pytest.approx(0, abs=1e-9)


def test_it_takes_two_rows_on_each_side():
    with pytest.raises(DataError) as caught:
        frechet_distance(torch.zeros(3, 2), torch.zeros(1, 2))
    assert str(caught.value) == "Fréchet distance: got 3 and 1 rows, expected 2 or more on each side"


@given(SEEDS, st.floats(-1e3, 1e3))
def test_variances_within_classes_are_numpys(seed: int, offset: float):
    x, classes = mixed(40, seed) + offset, np.random.default_rng(seed).integers(3, size=40)
    expected = [x[classes == c].var(0, ddof=1).sum() for c in range(classes.max() + 1)]
    np.testing.assert_allclose(class_variances(torch.as_tensor(x), torch.as_tensor(classes)), expected, rtol=1e-6)


def test_a_class_of_one_row_has_no_variance_and_one_of_equal_rows_none_that_is_rounding():
    x = torch.tensor([[0.1, 1e3], [0.1, 1e3], [0.1, 1e3], [5.0, 5.0]])
    found = class_variances(x, torch.tensor([0, 0, 0, 2]))
    assert found[0] == 0
    assert found[1:].isnan().all()
    assert variance_ratio(torch.tensor([1.0, 1.0, 9.0]), torch.tensor([2.0, torch.nan, 0.0])) == 0.5
    with pytest.raises(DataError) as caught:
        variance_ratio(found, found)
    assert str(caught.value) == (
        "variance ratio: no class has 2 or more rows with different real values; use more rows, or a label with fewer classes"
    )


def test_draws_like_real_rows_have_their_variance_and_a_distance_at_the_floor():
    model = Toy(of_the_label, scale=0.3)
    found = diversity(model, labelled_rows(800, noise=0.3), ["label"], "a", "label", reader())
    assert (found.rows, found.classes) == (800, CLASSES)
    assert found.variance_ratio == pytest.approx(1, abs=0.06)
    assert 0.5 < found.frechet / found.floor < 2


def test_one_image_for_each_class_has_no_variance_and_a_distance_far_from_the_floor():
    found = diversity(Toy(of_the_label, scale=1e-6), labelled_rows(400, noise=0.3), ["label"], "a", "label", reader())
    assert found.variance_ratio == pytest.approx(0, abs=1e-6)
    assert found.frechet > 4 * found.floor


def test_the_variance_ratio_is_the_mean_over_classes_of_ratios_of_summed_variances():
    """The protocol: for each class, draws given the class, one ratio, then the mean over classes."""
    rows = labelled_rows(200, noise=0.3)
    spread = 1 + rows.values["label"][:, None].float()
    rows = Batch.complete({**rows.values, "a": rows.values["a"] * spread})
    model, label = Toy(lambda batch, samples: of_the_label(batch, samples) * spread, scale=0.2), rows.values["label"]
    expected = np.mean([CLASSES * 0.2**2 / rows.values["a"][label == c].var(0).sum() for c in range(CLASSES)])
    assert diversity(model, rows, ["label"], "a", "label", reader(), samples=50).variance_ratio == pytest.approx(expected, rel=0.03)


def test_generated_and_real_rows_are_never_the_same_rows_and_as_many(monkeypatch: pytest.MonkeyPatch):
    """A model that copies a row is as far from the other half as real rows are."""
    sizes = []

    def recorded(a: Tensor, b: Tensor) -> float:
        sizes.append((len(a), len(b)))
        return frechet_distance(a, b)

    monkeypatch.setattr("nbridge.evaluation.diversity.frechet_distance", recorded)
    model, rows = Toy(lambda batch, samples: batch.values["b"].expand(samples, -1, -1), scale=0), labelled_rows(41, noise=0.3)
    found = diversity(model, Batch.complete({**rows.values, "a": rows.values["b"]}), ["b"], "a", "label", reader(), samples=3)
    assert sizes == [(20, 20)] * 9
    assert found.variance_ratio == pytest.approx(1, abs=1e-6)
    assert found.frechet == pytest.approx(found.floor, rel=1e-5)


def test_noise_of_the_likelihood_counts_as_variety_only_when_asked_for():
    rows = labelled_rows(400, noise=0.5)
    quiet, noisy = (diversity(Toy(of_the_label), rows, ["label"], "a", "label", reader(), noise=noise) for noise in (False, True))
    assert quiet.variance_ratio < 0.01
    assert noisy.variance_ratio == pytest.approx(1, abs=0.1)


def test_each_combination_of_attributes_is_a_class():
    pattern = torch.tensor([[0.0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).repeat_interleave(torch.tensor([20, 20, 1]), 0)
    a = pattern + 0.1 * torch.randn(41, CLASSES, generator=torch.Generator().manual_seed(0))
    model = Toy(lambda batch, samples: batch.values["label"].expand(samples, -1, -1), scale=0.1, label=attributes())
    found = diversity(model, Batch.complete({"a": a, "label": pattern}), ["label"], "a", "label", reader(attributes()), samples=20)
    assert found.classes == 2
    assert found.variance_ratio == pytest.approx(1, abs=0.2)


def test_only_rows_that_have_everything_whole_count():
    rows = labelled_rows(40, noise=0.3)
    cells = torch.ones(40, CLASSES, dtype=torch.bool)
    cells[:10, 1] = False
    holed = Batch(rows.values, dict(rows.present, a=torch.arange(40) < 30), {"a": cells})
    assert diversity(Toy(of_the_label), holed, ["label"], "a", "label", reader()).rows == 20
    with pytest.raises(DataError) as caught:
        diversity(Toy(of_the_label), holed.slice(0, 13), ["label"], "a", "label", reader())
    assert str(caught.value) == "diversity needs 4 or more complete rows of label, a, got 3"


def test_scores_do_not_depend_on_how_rows_are_cut(monkeypatch: pytest.MonkeyPatch):
    """The halves depend on the noise drawn before them; a model without noise has one variance however its rows are cut."""
    model, rows = Toy(lambda batch, samples: batch.values["b"].expand(samples, -1, -1), scale=0), labelled_rows(50, noise=0.5)
    whole = diversity(model, rows, ["b"], "a", "label", reader(), samples=2)
    monkeypatch.setattr("nbridge.inference.impute.ROWS", 7)
    parts = diversity(model, rows, ["b"], "a", "label", reader(), samples=2)
    assert parts.variance_ratio == pytest.approx(whole.variance_ratio, rel=1e-6)


def test_mistakes_are_named():
    rows = labelled_rows(8)
    for options, message in (
        ({"samples": 0}, "samples is 0, expected 1 or more"),
        ({"target": "zz"}, r"no modality 'zz' in this model\. Modalities: a, b, label"),
        ({"label": "a"}, "label 'a': Normal values are neither classes nor attributes"),
    ):
        with pytest.raises(DataError, match=message):
            diversity(Toy(of_nothing), rows, ["label"], classifier=reader(), **({"target": "a", "label": "label"} | options))
