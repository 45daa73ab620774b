"""Every metric of a model of mixed tables with holes and a label: measured where it applies, and left out with a reason elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import nbridge
from nbridge.evaluation.classifiers import Classifier
from nbridge.evaluation.results import METRICS, Settings
from nbridge.evaluation.suite import evaluate
from nbridge.nn.encoders import TableEncoder

COLUMNS: dict[str, Any] = {"age": "normal", "sex": "bernoulli", "stage": {"type": "categorical", "classes": 3}, "visits": "poisson",
                           "bili": "lognormal"}  # fmt: skip


@pytest.fixture(scope="module")
def run() -> nbridge.Run:
    draw = np.random.default_rng(0)
    z = draw.normal(size=300)
    stage = np.eye(3)[np.digitize(z, (-0.5, 0.5))].T
    table = np.stack([50 + 10 * z, z > 0, *stage, draw.poisson(np.exp(1 + z)), np.exp(z)], 1).astype(float)
    table[draw.random((300, 1)).repeat(7, 1) < 0.1] = np.nan
    table[draw.random(300) < 0.2, 0] = np.nan
    table[draw.random(300) < 0.2, 2:5] = np.nan
    spec = {
        "latent_dim": 2,
        "modalities": {
            "t": {"columns": COLUMNS, "encoder": {"type": "table", "hidden": [8]}},
            "x": {"shape": 2, "likelihood": "normal", "encoder": {"type": "mlp", "hidden": [8]}},
            "label": {"shape": 2, "likelihood": "categorical", "encoder": {"type": "mlp", "hidden": [8]}},
        },
        "training": {"stages": {"joint": {"updates": 60}, "bridges": {"updates": 20}}},
    }
    return nbridge.train(spec, {"t": table, "x": np.stack([z, -z], 1) + draw.normal(size=(300, 2)), "label": (z > 0).astype(int)})


def test_every_metric_is_measured_or_left_out_with_a_reason(run: nbridge.Run):
    done = evaluate(run.model.network, run.spec, run.splits, Settings(samples=10, draws=39, generated=3))
    measured = {one.metric for one in done.measurements}
    assert measured == set(METRICS) - {"attributes"}
    assert {one.target for one in done.measurements if one.metric == "imputation"} == {("x",)}
    assert {one.target for one in done.measurements if one.metric == "cells"} == {("t",)}
    assert ("t",) in {one.target for one in done.measurements if one.metric == "coherence"}
    # The columns of a table have no common unit.
    for one in done.measurements:
        if one.metric == "predictive":
            assert ("RMSE" in one.figures) is (one.target == ("x",))
    assert all(np.isfinite(list(one.figures.values())).all() for one in done.measurements if one.metric in ("predictive", "cells"))
    assert done.verdict is not None
    assert {one.title for one in done.verdict.modalities} == {"t", "x", "label", "single cells of t"}


def test_a_classifier_of_a_table_reads_which_cells_are_observed(run: nbridge.Run):
    likelihood = run.model.network.likelihoods["t"]
    encoder = TableEncoder((7,), 4, (0, 1, 2, 2, 2, 3, 4), hide=0.0, hidden=(8,))
    classifier = Classifier(encoder, likelihood, run.model.network.likelihoods["label"]).eval()
    x = likelihood.blank(5)
    seen = torch.ones(5, 7, dtype=torch.bool)
    unseen = seen.clone()
    unseen[:, 0] = False
    assert torch.equal(classifier.features(x), classifier.features(x, seen))
    # A value at the middle differs from none at all.
    assert not torch.equal(classifier.features(x, seen), classifier.features(x, unseen))
    assert torch.equal(classifier.features(x, unseen), classifier.features(x + 9 * ~unseen, unseen))
