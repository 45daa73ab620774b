"""Covariates beside a mixed modality and a text: both depend on the batch that decoders are given, and runs are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import nbridge
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord

SHIFT, RATES, WORDS = 3.0, {"A": 2.0, "B": 8.0}, {"A": "red", "B": "blue"}
HIDDEN = {"dose": np.nan, "visits": np.nan, "ill": np.nan, "words": ""}
NETWORKS = {"hidden": [32]}
SPEC: dict[str, Any] = {
    "latent_dim": 2, "fusion": NETWORKS, "bridges": NETWORKS, "covariates": {"batch": "categorical"},
    "data": {"source": "frame", "columns": {"x": "x_*", "table": ["dose", "visits", "ill"], "words": ["words"]}},
    "modalities": {
        "x": {"shape": 2, "encoder": {"type": "mlp", **NETWORKS}, "features": 16, "likelihood": "normal"},
        "table": {
            "shape": 3, "encoder": {"type": "table", **NETWORKS}, "features": 16,
            "likelihood": {"type": "mixed", "columns": {"dose": "normal", "visits": "poisson", "ill": "bernoulli"}},
        },
        "words": {
            "shape": 6, "encoder": {"type": "text", "width": 8, "layers": 1}, "features": 16,
            "likelihood": {"type": "text", "tokens": "words", "width": 16},
        },
    },
}  # fmt: skip


def rows(count: int, seed: int = 0) -> pd.DataFrame:
    """A factor that x and the dose follow, and a batch that shifts the dose, raises the visits, and chooses the first word."""
    rng = np.random.default_rng(seed)
    factor, batch = rng.normal(size=count), rng.choice(["A", "B"], count)
    later = batch == "B"
    return pd.DataFrame({
        "batch": batch, "x_0": factor + 0.1 * rng.normal(size=count), "x_1": -factor + 0.1 * rng.normal(size=count),
        "dose": factor + SHIFT * later + 0.2 * rng.normal(size=count), "visits": rng.poisson([RATES[one] for one in batch]),
        "ill": (rng.random(count) < np.where(later, 0.9, 0.1)).astype(float),
        "words": [f"{WORDS[one]} {'big' if high else 'small'}" for one, high in zip(batch, factor > 0, strict=True)],
    })  # fmt: skip


@pytest.fixture(scope="module")
def model() -> nbridge.Model:
    return nbridge.train({**SPEC, "training": {"updates": 110, "learning_rate": 1e-2}}, rows(400), device="cpu").model


def test_imputations_at_a_fixed_batch_differ_as_the_batch_does(model: nbridge.Model):
    new = rows(150, seed=1)
    in_a, in_b = (model.impute(new.assign(**HIDDEN), covariates={"batch": batch}) for batch in "AB")
    plain = new["dose"] - SHIFT * (new["batch"] == "B")
    assert (in_b["dose"] - in_a["dose"]).mean() == pytest.approx(SHIFT, abs=0.5)
    assert np.sqrt(((in_a["dose"] - plain) ** 2).mean()) < 0.6 < 0.8 * plain.std()
    for done, batch in ((in_a, "A"), (in_b, "B")):
        assert done["visits"].mean() == pytest.approx(RATES[batch], rel=0.25)
        assert done["ill"].eq(float(batch == "B")).mean() > 0.9
        assert done["words"].str.startswith(WORDS[batch]).mean() > 0.9
    # The other word follows from x, whatever the batch is.
    assert (in_a["words"].str.endswith("big") == (new["x_0"] > 0)).mean() > 0.8


def test_single_cells_and_intervals_are_those_of_the_fixed_batch(model: nbridge.Model):
    new = rows(150, seed=2)
    new["dose"] += SHIFT * (new["batch"] == "A")
    in_b = model.impute(new.assign(dose=np.nan), covariates={"batch": "B"}, intervals=(0.9,))
    inside = in_b["dose__lower"].le(new["dose"]) & new["dose"].le(in_b["dose__upper"])
    assert 0.75 < inside.mean() <= 1
    # Observed cells and texts come back unchanged.
    assert in_b[["visits", "ill", "words"]].equals(new[["visits", "ill", "words"]])


def test_a_saved_model_imputes_bit_identically(model: nbridge.Model, tmp_path: Path):
    loaded = nbridge.load(model.save(tmp_path / "model"))
    new = rows(20, seed=3).assign(**HIDDEN)
    for options in ({}, {"covariates": {"batch": "B"}}):
        assert loaded.impute(new, **options).equals(model.impute(new, **options))


def test_a_stopped_run_resumes_to_the_same_bytes(tmp_path: Path):
    class Stop(Callback):
        def on_validation(self, record: EpochRecord) -> None:
            if record.update >= 2:
                raise KeyboardInterrupt

    spec = {**SPEC, "training": {"updates": 4, "batch_size": 24, "checkpoint_seconds": 0}}
    whole = nbridge.train(spec, rows(60), out=tmp_path / "whole", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        nbridge.train(spec, rows(60), out=tmp_path / "stopped", device="cpu", callbacks=[Stop()])
    resumed = nbridge.resume(tmp_path / "stopped", rows(60), device="cpu")
    one, other = whole.model.network.state_dict(), resumed.model.network.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
