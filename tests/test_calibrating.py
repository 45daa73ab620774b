"""Spreads set after training, on rows that no weight was fitted to: what was too narrow becomes honest, and nothing else changes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import nbridge
from nbridge.batch import Batch
from nbridge.calibrating import FEWEST, NUMBER_PRIOR, PRIOR, calibrate, uncalibrate
from nbridge.evaluation.calibration import coverage
from nbridge.likelihoods import Categorical, Likelihood
from nbridge.models.base import MultimodalVAE

MODALITIES = {
    "x": {"shape": 4, "encoder": "mlp", "likelihood": "normal", "features": 4},
    "l": {"shape": 2, "encoder": "mlp", "likelihood": "laplace", "features": 4},
    "p": {"shape": 3, "encoder": "mlp", "likelihood": "discretized_logistic", "features": 4},
    "c": {"shape": 2, "encoder": "mlp", "likelihood": "poisson", "features": 4},
    "y": {"shape": 3, "encoder": "mlp", "likelihood": "categorical", "features": 4},
}


def spec(**training: object) -> nbridge.Spec:
    stages = {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}
    return nbridge.Spec.model_validate({
        "latent_dim": 3, "modalities": MODALITIES, "fusion": {"hidden": [8]}, "bridges": {"hidden": [8]},
        "training": {"batch_size": 16, "stages": stages, **training},
    })  # fmt: skip


def model_and_rows(number: int = 400, true: float = 2.0) -> tuple[MultimodalVAE, Batch]:
    """A model whose decoders say nothing of z but a constant, and rows ``true`` times as spread as it says."""
    torch.manual_seed(0)
    model = nbridge.build_model(spec()).eval()
    for name in model.names:
        network = model.decoder(name).network
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        if isinstance(model.likelihoods[name], Categorical):
            network.get_parameter("network.layers.6.bias").data.copy_(torch.tensor([2.0, 0.0, -2.0]))
    with torch.no_grad():
        z = torch.zeros(number, 3)
        for likelihood in model.likelihoods.values():
            if likelihood.spread is not None:
                likelihood.spread.fill_(true)
        values = {name: model.decoder(name).served(z).sample() for name in model.names}
    uncalibrate(model)
    return model, Batch.complete(values)


def factors(likelihood: Likelihood) -> list[float] | None:
    """By number of other modalities given, the overall one first."""
    return None if likelihood.spread is None else likelihood.spread.tolist()


@pytest.mark.parametrize("true", [0.6, 2.0])
def test_the_spread_of_rows_is_found_whatever_training_made_of_it(true: float):
    model, rows = model_and_rows(true=true)
    found = calibrate(model, model.prepare(rows))
    assert found.keys() == {"x", "l", "p", "y"}
    for name, by_number in found.items():
        assert len(by_number) == len(model.names)
        assert by_number == pytest.approx([true] * len(model.names), rel=0.25 if name == "y" else 0.1), name
        assert factors(model.likelihoods[name]) == pytest.approx(by_number)
    assert factors(model.likelihoods["c"]) is None


def test_intervals_that_were_too_narrow_hold_what_they_promise():
    model, rows = model_and_rows()
    hidden = rows.hide("x")

    def held() -> float:
        return coverage(nbridge.impute(model, hidden, samples=99).values["x"], rows.values["x"], 0.9).mean().item()

    before = held()
    calibrate(model, model.prepare(rows))
    assert before < 0.7
    assert held() == pytest.approx(0.9, abs=0.02)


def test_a_few_labels_all_guessed_rightly_make_no_model_certain():
    model, rows = model_and_rows(10)
    rows = Batch({**rows.values, "y": torch.zeros(10, dtype=torch.long)}, rows.present)
    values = calibrate(model, model.prepare(rows))["y"]
    # Without what is known of factors beforehand the best one is at its bound.
    assert math.exp(-2 * PRIOR) < values[0] < 1
    assert all(math.exp(-2 * PRIOR - 2 * NUMBER_PRIOR) < value < 1 for value in values)


def test_rows_that_lack_a_modality_and_rows_that_have_it_alone_do_not_count():
    model, rows = model_and_rows(60)
    junk = {name: x.clone() for name, x in rows.values.items()}
    junk["x"][:30] = 1e6
    # The first rows have no x, some others nothing but x.
    there = torch.arange(60) >= 30
    alone = torch.arange(60) >= 50
    junk["x"][50:] = 1e6
    present = {name: there if name == "x" else ~alone for name in rows.names}
    torch.manual_seed(1)
    got = calibrate(model, model.prepare(Batch(junk, present)))
    assert got["x"][0] == pytest.approx(2, rel=0.3)
    only = Batch(rows.values, {name: torch.full((60,), name == "x") for name in rows.names})
    assert calibrate(model, model.prepare(only)) == {}
    assert factors(model.likelihoods["x"]) == [1] * len(model.names)


def test_training_calibrates_at_its_end_unless_asked_not_to_and_changes_no_weight():
    _, rows = model_and_rows(120)
    runs = {asked: nbridge.train(spec(calibrate=asked), rows).model for asked in (False, True)}
    plain, calibrated = (runs[asked].state_dict() for asked in (False, True))
    changed = {name for name, tensor in plain.items() if not torch.equal(tensor, calibrated[name])}
    assert changed == {f"decoders.{name}.likelihood.spread" for name in ("x", "l", "p", "y")}
    assert factors(runs[False].likelihoods["x"]) == [1] * len(MODALITIES)
    assert torch.equal(
        calibrated["decoders.x.likelihood.spread"],
        nbridge.train(spec(), rows).model.state_dict()["decoders.x.likelihood.spread"],
    )


def test_what_was_calibrated_is_kept_with_the_model(tmp_path: Path):
    _, rows = model_and_rows(120)
    run = nbridge.train(spec(), rows, out=tmp_path / "run")
    again = nbridge.load(tmp_path / "run")
    for name, likelihood in run.model.likelihoods.items():
        assert factors(again.likelihoods[name]) == factors(likelihood)
