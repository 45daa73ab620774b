"""Intervals of mixed tables: numbers have them, and binary columns and classes have probabilities that sum to 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import nbridge
from nbridge.inference.intervals import questions_of
from nbridge.models.holes import with_holes
from nbridge.nn.mixed import Mixed

COLUMNS: dict[str, Any] = {
    "age": "normal", "sex": "bernoulli", "stage": {"type": "categorical", "classes": 3}, "visits": "poisson",
    "edema": {"type": "ordinal", "classes": 3}, "smoker": {"type": "categorical", "classes": 2},
}  # fmt: skip
QUESTIONS = [1, 2, 3, 4, 6, 7, 8, 9]


def frame(rows: int = 60) -> pd.DataFrame:
    """Rows with holes of all kinds of columns; smoker is 0 or 1, the other classes are texts."""
    draw = np.random.default_rng(0)
    whole = pd.DataFrame({
        "age": draw.normal(50, 10, rows).round(2), "sex": draw.choice(["f", "m"], rows), "stage": draw.choice(["I", "II", "III"], rows),
        "visits": draw.poisson(3, rows).astype(float), "edema": draw.choice(["a", "b", "c"], rows), "smoker": draw.integers(2, size=rows),
    })  # fmt: skip
    return whole.mask(pd.DataFrame(draw.random(whole.shape) < 0.3, columns=whole.columns))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> nbridge.Run:
    folder = tmp_path_factory.mktemp("mixed")
    frame().to_csv(folder / "rows.csv", index=False)
    spec = {
        "latent_dim": 2, "modalities": {"t": {"columns": COLUMNS, "encoder": {"type": "table", "hidden": [8]}}},
        "data": {"source": "table", "path": str(folder / "rows.csv")},
        "training": {"stages": {"joint": {"epochs": 2}, "bridges": {"epochs": 1}}},
    }  # fmt: skip
    return nbridge.train(spec, out=folder / "run")


def test_questions_are_binary_and_class_elements(run: nbridge.Run):
    likelihood = run.model.network.likelihoods["t"]
    assert isinstance(likelihood, Mixed)
    assert questions_of(likelihood).nonzero()[:, 0].tolist() == QUESTIONS


def test_questions_have_probabilities_that_sum_to_1_and_no_intervals(run: nbridge.Run):
    rows = frame(30)
    done = run.model.summarise(rows, (0.5, 0.9), draws=99)
    mean, sd, lower, upper, probability = (getattr(done, what)["t"] for what in ("mean", "sd", "lower", "upper", "probability"))
    numbers = [place for place in range(10) if place not in QUESTIONS]
    known = torch.tensor(rows.notna().to_numpy()).repeat_interleave(torch.tensor([1, 1, 3, 1, 3, 1]), 1)
    for ends in (lower, upper):
        assert ends.shape == (2, 30, 10)
        assert torch.equal(ends[..., QUESTIONS].isnan(), ~known[:, QUESTIONS].expand(2, -1, -1))
        assert ends[..., numbers].isfinite().all()
    assert torch.equal(probability[:, QUESTIONS], mean[:, QUESTIONS])
    assert probability[:, numbers].isnan().all()
    for start in (2, 6):
        assert torch.allclose(mean[:, start : start + 3].sum(1), torch.ones(30), atol=1e-6)
    assert torch.allclose(sd[:, QUESTIONS].square(), (mean * (1 - mean))[:, QUESTIONS], atol=1e-6)
    known = torch.tensor(rows["stage"].notna().to_numpy())
    classes = torch.tensor([len(text) - 1 for text in rows["stage"].dropna()])
    assert torch.equal(mean[known, 2:5], torch.nn.functional.one_hot(classes, 3).to(mean))
    assert (lower[..., numbers] <= mean[:, numbers] + 1e-4).all()


def test_probabilities_are_the_shares_of_samples(run: nbridge.Run):
    rows = run.splits.train.sample(20)
    hidden = torch.zeros(20, 10, dtype=torch.bool)
    hidden[:, [1, 2, 3, 4]] = True
    rows = with_holes(rows, {"t": hidden})
    probability = run.model.summarise(rows).probability["t"][:, 1:5]
    drawn = run.model.impute(rows, samples=2000).values["t"][..., 1:5]
    # Standard errors of shares are below 0.012.
    assert torch.allclose(drawn.mean(0), probability, atol=0.06)


def test_files_have_the_probability_of_the_class_written_and_intervals_of_numbers_only(run: nbridge.Run, tmp_path: Path):
    rows = frame(30)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    run.model.impute(tmp_path / "rows.csv", out=tmp_path / "done.csv", intervals=(0.9,))
    done = pd.read_csv(tmp_path / "done.csv")
    expected = run.model.summarise(rows).probability["t"].numpy()
    statistics = {name.rpartition("__")[0]: set() for name in done.columns if "__" in name}
    for name in done.columns:
        if "__" in name:
            column, _, what = name.rpartition("__")
            statistics[column].add(what)
    of_numbers = {"imputed", "mean", "sd", "lower", "upper"}
    assert statistics == {name: of_numbers if name in ("age", "visits") else {"imputed", "probability"} for name in COLUMNS}
    for start, classes, column in ((2, ["I", "II", "III"], "stage"), (6, ["a", "b", "c"], "edema")):
        places = [classes.index(text) for text in done[column]]
        assert np.allclose(done[f"{column}__probability"], expected[np.arange(30), start + np.array(places)], atol=1e-5)
    smoker = done["smoker"] == 1
    assert np.allclose(done["smoker__probability"], np.where(smoker, expected[:, 9], 1 - expected[:, 9]), atol=1e-5)
    assert (done[[f"{name}__probability" for name in ("sex", "stage", "edema", "smoker")]] >= 1 / 3 - 1e-6).all(axis=None)


def test_arrays_hold_probabilities_of_elements_too(run: nbridge.Run, tmp_path: Path):
    x = np.random.default_rng(0).normal(size=(40, 3))
    x[:, 1:] = np.eye(2)[(x[:, 0] > 0).astype(int)]
    np.savez(tmp_path / "rows.npz", t=x)
    spec = {
        "latent_dim": 2, "modalities": {"t": {"columns": {"a": "normal", "b": "bernoulli", "c": "bernoulli"}}},
        "data": {"source": "npz", "path": str(tmp_path / "rows.npz")},
        "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
    }  # fmt: skip
    trained = nbridge.train(spec)
    x[::2, 2] = np.nan
    np.savez(tmp_path / "holes.npz", t=x)
    trained.model.impute(tmp_path / "holes.npz", out=tmp_path / "done.npz", intervals=(0.9,))
    with np.load(tmp_path / "done.npz") as done:
        assert done["t__probability"].shape == (40, 3)
        assert np.isnan(done["t__probability"][:, 0]).all()
        assert np.array_equal(np.isnan(done["t__lower"]), np.isnan(x))
        assert ((done["t__probability"][::2, 2] > 0) & (done["t__probability"][::2, 2] < 1)).all()
        assert np.array_equal(done["t__probability"][1::2, 2], x[1::2, 2])
