"""Scores of attributes against scikit-learn and against sums that are written out."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, brier_score_loss
from torch import Tensor, nn

import nbridge
from nbridge.common.randomness import own_draws
from nbridge.errors import DataError
from nbridge.evaluation.attributes import attribute_errors

SPEC = {
    "latent_dim": 3,
    "modalities": {
        "x": {"shape": 2, "encoder": {"type": "mlp", "hidden": [16]}, "likelihood": "normal"},
        "tags": {"shape": 3, "encoder": {"type": "mlp", "hidden": [16]}, "likelihood": {"type": "bernoulli", "attributes": True}},
        "pixels": {"shape": 4, "encoder": {"type": "mlp", "hidden": [16]}, "likelihood": "bernoulli"},
    },
}


@pytest.fixture
def model() -> nbridge.MultimodalVAE:
    model = nbridge.build_model(nbridge.Spec.model_validate(SPEC), seed=5).eval()
    last = layers(model)[-1]
    nn.init.normal_(last.weight, std=3.0, generator=torch.Generator().manual_seed(5))
    return model


def layers(model: nbridge.MultimodalVAE) -> list[nn.Linear]:
    return [layer for layer in model.decoder("tags").modules() if isinstance(layer, nn.Linear)]


def rows(number: int = 60, seed: int = 1) -> nbridge.Batch:
    rng = np.random.default_rng(seed)
    tags = rng.random((number, 3)) < [0.2, 0.5, 0.9]
    return nbridge.Batch.complete({"x": torch.as_tensor(rng.normal(size=(number, 2))).float(), "tags": torch.as_tensor(tags).float()})


@torch.no_grad()
def probabilities(model: nbridge.MultimodalVAE, batch: nbridge.Batch, samples: int, seed: int) -> Tensor:
    with own_draws(seed):
        return model.decoder("tags")(model.posterior(batch.only("x"), samples).sample()).mean.mean(0)


def test_scores_are_those_of_scikit_learn(model: nbridge.MultimodalVAE):
    batch = rows()
    found = attribute_errors(model, batch, ["x"], "tags", samples=50, bins=5, seed=7)
    p, tags = probabilities(model, batch, 50, 7), batch.values["tags"]
    guess = p >= 0.5
    assert guess.any()
    assert not guess.all()
    for i, line in enumerate(found.attributes):
        assert (line.name, line.cells) == (str(i), 60)
        assert line.base_rate == pytest.approx(tags[:, i].mean().item())
        assert line.accuracy == pytest.approx(accuracy_score(tags[:, i], guess[:, i]))
        assert line.balanced_accuracy == pytest.approx(balanced_accuracy_score(tags[:, i], guess[:, i]))
        assert line.majority_rate == pytest.approx(max(tags[:, i].mean().item(), 1 - tags[:, i].mean().item()))
    for mean, name in (
        (found.accuracy, "accuracy"),
        (found.majority_rate, "majority_rate"),
        (found.balanced_accuracy, "balanced_accuracy"),
    ):
        assert mean == pytest.approx(np.mean([getattr(line, name) for line in found.attributes]))
    assert found.brier == pytest.approx(brier_score_loss(tags.flatten(), p.flatten()), rel=1e-5)
    assert (found.given, found.target, found.rows) == (("x",), "tags", 60)


def test_the_calibration_error_is_of_the_probability_of_yes(model: nbridge.MultimodalVAE):
    batch = rows()
    found = attribute_errors(model, batch, ["x"], "tags", samples=50, bins=4, seed=7)
    p, yes = probabilities(model, batch, 50, 7).flatten(), batch.values["tags"].flatten()
    expected = 0.0
    for b in range(4):
        inside = (p > b / 4) & (p <= (b + 1) / 4)
        if inside.any():
            expected += inside.double().mean().item() * abs(yes[inside].mean() - p[inside].mean()).item()
    assert found.ece == pytest.approx(expected, rel=1e-4)
    assert sum(line.count for line in found.reliability) == 180


def test_a_model_that_knows_only_the_rates_is_calibrated_and_no_better_than_the_majority(model: nbridge.MultimodalVAE):
    batch = rows(4000)
    last = layers(model)[-1]
    nn.init.zeros_(last.weight)
    last.bias.data = torch.logit(torch.tensor([0.2, 0.45, 0.9]))
    found = attribute_errors(model, batch, ["x"], "tags", samples=2, reference=rows(500, seed=2))
    assert found.ece == pytest.approx(0.05 / 3, abs=0.015)
    assert found.brier == pytest.approx((0.2 * 0.8 + 0.25 + 0.05**2 + 0.9 * 0.1) / 3, abs=0.01)
    assert found.balanced_accuracy == 0.5
    last.bias.data *= -1
    assert attribute_errors(model, batch, ["x"], "tags", samples=2).ece > 0.3


def test_only_observed_cells_count(model: nbridge.MultimodalVAE):
    batch = rows()
    cells = torch.ones(60, 3, dtype=torch.bool)
    cells[::2, 0], cells[:, 1] = False, False
    tags = torch.where(cells, batch.values["tags"], math.nan)
    holed = nbridge.Batch({**batch.values, "tags": tags}, batch.present, {"tags": cells})
    found = attribute_errors(model, holed, ["x"], "tags", seed=7)
    half = attribute_errors(model, batch, ["x"], "tags", seed=7)
    first, second, third = found.attributes
    odd, p = batch.values["tags"][1::2, 0], probabilities(model, batch, 200, 7)
    assert first.cells == 30
    assert first.accuracy == pytest.approx(accuracy_score(odd, p[1::2, 0] >= 0.5))
    assert (second.cells, second.base_rate, second.accuracy, second.majority_rate, second.balanced_accuracy) == (0, None, None, None, None)
    assert third == half.attributes[2]
    assert first.accuracy is not None
    assert third.accuracy is not None
    assert found.accuracy == pytest.approx((first.accuracy + third.accuracy) / 2)
    assert sum(line.count for line in found.reliability) == 90


def test_rows_that_lack_a_modality_count_for_nothing(model: nbridge.MultimodalVAE):
    batch, kept = rows(), torch.arange(60) % 3 > 0
    tags = torch.where(kept[:, None], batch.values["tags"], 0.5)
    some = nbridge.Batch({**batch.values, "tags": tags}, {"x": batch.present["x"], "tags": kept})
    assert attribute_errors(model, some, ["x"], "tags") == attribute_errors(model, batch.index(kept), ["x"], "tags")


def test_the_majority_may_be_that_of_training_rows(model: nbridge.MultimodalVAE):
    batch = rows()
    contrary = nbridge.Batch.complete({"tags": 1 - batch.values["tags"]})
    own = attribute_errors(model, batch, ["x"], "tags")
    found = attribute_errors(model, batch, ["x"], "tags", reference=contrary)
    for line, other in zip(found.attributes, own.attributes, strict=True):
        assert line.majority_rate == pytest.approx(1 - (other.majority_rate or 0))
        assert dataclasses.replace(line, majority_rate=other.majority_rate) == other


def test_an_attribute_with_one_answer_has_no_balanced_accuracy(model: nbridge.MultimodalVAE):
    batch = rows()
    yes = nbridge.Batch.complete({**batch.values, "tags": torch.ones(60, 3)})
    found = attribute_errors(model, yes, ["x"], "tags")
    assert [line.balanced_accuracy for line in found.attributes] == [None] * 3
    assert found.balanced_accuracy is None
    assert found.majority_rate == 1


def test_results_carry_names_and_can_be_written_as_json(model: nbridge.MultimodalVAE):
    found = attribute_errors(model, rows(), ["x"], "tags", names=["Bald", "Male", "Smiling"])
    assert [line.name for line in found.attributes] == ["Bald", "Male", "Smiling"]
    assert json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))["attributes"][1]["name"] == "Male"


def with_tags(batch: nbridge.Batch, tags: Tensor) -> nbridge.Batch:
    return nbridge.Batch.complete({**batch.values, "tags": tags})


def half_way() -> nbridge.Batch:
    tags = torch.ones(60, 3)
    tags[4, 2] = 0.5
    return with_tags(rows(), tags)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: attribute_errors(model, half_way(), ["x"], "tags"), "modality 'tags', row 4: attribute 2 is 0.5, expected 0 or 1"),
        (
            lambda model: attribute_errors(model, rows(), ["x"], "tags", reference=half_way()),
            "modality 'tags', row 4: attribute 2 is 0.5, expected 0 or 1",
        ),
        (
            lambda model: attribute_errors(model, rows(), ["x"], "tags", reference=rows().hide("tags")),
            "no row has tags",
        ),
        (
            lambda model: attribute_errors(model, rows(), ["x"], "tags", names=["Bald"]),
            "names: got 1 for the 3 attributes of 'tags', expected one each",
        ),
        (
            lambda model: attribute_errors(model, rows(), ["tags"], "x"),
            "metric attribute_errors: modality 'x' has a Normal likelihood, expected a bernoulli one with attributes: true",
        ),
        (
            lambda model: attribute_errors(model, nbridge.Batch.complete({"pixels": torch.rand(3, 4)}), [], "pixels"),
            "metric attribute_errors: modality 'pixels' has a Bernoulli likelihood, expected a bernoulli one with attributes: true",
        ),
        (lambda model: attribute_errors(model, rows(), ["x"], "tags", bins=0), "bins is 0, expected 1 or more"),
        (
            lambda model: attribute_errors(model, rows(), ["x"], "tag"),
            "no modality 'tag' in this model. Did you mean 'tags'? Modalities: x, tags, pixels",
        ),
    ],
)
def test_what_cannot_be_scored_is_one_clear_line(model: nbridge.MultimodalVAE, call: Callable[..., object], message: str):
    with pytest.raises(DataError) as error:
        call(model)
    assert str(error.value) == message
