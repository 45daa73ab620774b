"""Predictive scores against sums that are written out."""

from __future__ import annotations

import math

import pytest
import torch

import nbridge
from nbridge.evaluation.crossmodal import predict, predict_each

SPEC = {
    "latent_dim": 3,
    "modalities": {
        "x": {"shape": 2, "encoder": "mlp", "likelihood": "normal"},
        "y": {"shape": 4, "encoder": "mlp", "likelihood": "categorical"},
    },
}


@pytest.fixture
def model() -> nbridge.MultimodalVAE:
    torch.manual_seed(0)
    return nbridge.build_model(nbridge.Spec.model_validate(SPEC)).eval()


def rows(number: int = 30) -> nbridge.Batch:
    generator = torch.Generator().manual_seed(1)
    return nbridge.Batch.complete(
        {"x": torch.randn(number, 2, generator=generator), "y": torch.randint(0, 4, (number,), generator=generator)}
    )


@torch.no_grad()
def test_predictive_scores_equal_their_definition(model: nbridge.MultimodalVAE):
    batch = rows()
    torch.manual_seed(7)
    z = model.posterior(batch.only("x"), 50).sample()
    probability = model.decoders["y"](z).probs
    right = probability[:, torch.arange(30), batch.values["y"]]
    found = predict(model, batch, ["x"], "y", samples=50, seed=7)
    assert found.log_likelihood == pytest.approx(right.mean(0).log().mean().item(), rel=1e-5)
    assert found.accuracy == pytest.approx((probability.mean(0).argmax(-1) == batch.values["y"]).double().mean().item())
    assert found.rmse is None

    torch.manual_seed(7)
    distribution = model.decoders["x"](model.posterior(batch.only("y"), 50).sample())
    density = torch.logsumexp(distribution.log_prob(batch.values["x"]), 0) - math.log(50)
    found = predict(model, batch, ["y"], "x", samples=50, seed=7)
    assert found.log_likelihood == pytest.approx(density.mean().item(), rel=1e-5)
    assert found.rmse == pytest.approx((distribution.mean.mean(0) - batch.values["x"]).square().mean().sqrt().item(), rel=1e-5)
    assert found.accuracy is None


def test_only_rows_that_have_all_the_modalities_count(model: nbridge.MultimodalVAE):
    batch = rows()
    some = nbridge.Batch(batch.values, {"x": torch.arange(30) < 20, "y": torch.arange(30) >= 10})
    assert predict(model, some, ["x"], "y").rows == 10
    assert predict(model, some, [], "y").rows == 20
    with pytest.raises(ValueError, match="no row has x, y together"):
        predict(model, batch.hide("x"), ["x"], "y")


def test_each_modality_is_predicted_from_all_others(model: nbridge.MultimodalVAE):
    assert [(line.given, line.target) for line in predict_each(model, rows(), samples=2)] == [(("y",), "x"), (("x",), "y")]


def test_errors_are_those_of_the_observed_cells(model: nbridge.MultimodalVAE):
    batch = rows()
    cells = torch.arange(60).reshape(30, 2) % 3 > 0
    holed = nbridge.Batch(batch.values, batch.present, {"x": cells})
    point = nbridge.Batch.complete({"y": batch.values["y"]})
    torch.manual_seed(7)
    mean = model.decoders["x"](model.posterior(point, 50).sample()).mean.mean(0)
    square = torch.where(cells, (mean - batch.values["x"]).square(), 0).sum(1) / cells.sum(1)
    assert predict(model, holed, ["y"], "x", samples=50, seed=7).rmse == pytest.approx(square.mean().sqrt().item(), rel=1e-5)


def test_nothing_is_predicted_where_no_row_is_complete(model: nbridge.MultimodalVAE):
    assert predict_each(model, rows().hide("x"), samples=2) == []
    assert predict_each(model, nbridge.Batch.complete({"x": rows().values["x"]}), samples=2) == []


def test_the_gain_of_knowing_more_is_seen(model: nbridge.MultimodalVAE):
    """A trained model predicts a modality better from another that determines it than from the prior."""
    batch = rows(300)
    batch = nbridge.Batch.complete({"x": batch.values["y"][:, None] + 0.1 * batch.values["x"], "y": batch.values["y"]})
    settings = nbridge.TrainingSpec.model_validate({"stages": {"joint": {"epochs": 40}, "bridges": {"epochs": 20}}})
    nbridge.fit(model, batch, None, settings)
    assert predict(model, batch, ["x"], "y").log_likelihood > predict(model, batch, [], "y").log_likelihood + 0.5
