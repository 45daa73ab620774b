"""Spreads set after training, on rows that no weight was fitted to: what was too narrow becomes honest, and nothing else changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import nbridge
from nbridge.data.batch import Batch
from nbridge.evaluation.calibration import coverage, predictive
from nbridge.evaluation.importance import log_likelihood
from nbridge.inference.calibration import FEWEST, NUMBER_PRIOR, PRIOR, calibrate, uncalibrate
from nbridge.inference.intervals import summarise
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Categorical, Likelihood
from nbridge.sharing.graph import ImputationGraph

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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> nbridge.Run:
    """A run by a spec that says nothing of calibration."""
    return nbridge.train(spec(), model_and_rows(120)[1], out=tmp_path_factory.mktemp("trained") / "run")


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
        return coverage(nbridge.Model(model).impute(hidden, samples=99).values["x"], rows.values["x"], 0.9).mean().item()

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


def test_training_calibrates_at_its_end_unless_asked_not_to_and_changes_no_weight(trained: nbridge.Run):
    _, rows = model_and_rows(120)
    runs = {asked: nbridge.train(spec(calibrate=asked), rows).model.network for asked in (False, True)}
    plain, calibrated = (runs[asked].state_dict() for asked in (False, True))
    changed = {name for name, tensor in plain.items() if not torch.equal(tensor, calibrated[name])}
    assert changed == {f"decoders.{name}.likelihood.spread" for name in ("x", "l", "p", "y")}
    assert factors(runs[False].likelihoods["x"]) == [1] * len(MODALITIES)
    assert torch.equal(
        calibrated["decoders.x.likelihood.spread"],
        trained.model.network.state_dict()["decoders.x.likelihood.spread"],
    )


def test_what_was_calibrated_is_kept_with_the_model(trained: nbridge.Run):
    assert trained.folder is not None
    again = nbridge.load(trained.folder)
    for name, likelihood in trained.model.likelihoods.items():
        assert factors(again.likelihoods[name]) == factors(likelihood)


# By number of modalities given


def spread_by_number(model: MultimodalVAE, *factors: float) -> None:
    """Gives every modality these factors, by number of others given."""
    for likelihood in model.likelihoods.values():
        if likelihood.spread is not None:
            likelihood.spread.copy_(torch.tensor(factors))


def test_a_number_given_has_its_own_factor_where_rows_show_it():
    (model, narrow), (_, wide) = model_and_rows(150, true=1.0), model_and_rows(150, true=3.0)
    # The narrow rows have x and one other modality, the wide ones all five.
    values = {name: torch.cat([narrow.values[name], wide.values[name]]) for name in model.names}
    present = {name: torch.arange(300) >= (0 if name in ("x", "l") else 150) for name in model.names}
    torch.manual_seed(2)
    overall, one, *more = calibrate(model, model.prepare(Batch(values, present)))["x"]
    assert one < overall < min(more)
    assert more == pytest.approx([3, 3, 3], rel=0.15)


def test_a_number_that_few_rows_have_keeps_near_the_factor_of_all():
    (model, narrow), (_, wide) = model_and_rows(200, true=1.0), model_and_rows(2, true=6.0)
    values = {name: torch.cat([narrow.values[name], wide.values[name]]) for name in model.names}
    present = {name: torch.arange(202) >= (0 if name in ("x", "l") else 200) for name in model.names}
    torch.manual_seed(2)
    overall, one, *more = calibrate(model, model.prepare(Batch(values, present)))["x"]
    assert one == pytest.approx(overall, rel=0.15)
    assert all(overall * 0.9 < factor < overall * math.exp(4 * NUMBER_PRIOR) < 6 for factor in more)


def test_fewer_rows_than_a_factor_takes_leave_it_at_one():
    model, rows = model_and_rows(FEWEST - 1)
    assert calibrate(model, model.prepare(rows)) == {}
    assert factors(model.likelihoods["x"]) == [1] * len(model.names)


def test_each_row_is_served_with_the_factor_of_what_it_has():
    model, rows = model_and_rows(200, true=1.0)
    spread_by_number(model, 1.0, 2.0, 4.0, 8.0, 16.0)
    # Two kinds of rows in one batch: one other modality given, or three.
    more = torch.arange(200) >= 100
    present = {"x": torch.zeros(200, dtype=torch.bool), "l": torch.ones(200, dtype=torch.bool), "p": more, "c": more, "y": more & False}
    hidden = Batch(rows.values, present)
    drawn = nbridge.Model(model).impute(hidden, samples=200).values
    for name, parts in {"x": (2.0, 8.0), "y": (2.0, 8.0)}.items():
        with torch.no_grad():
            expected = [model.likelihoods[name](model.decoder(name).network(torch.zeros(1, 3)), torch.tensor(part)) for part in parts]
        for half, distribution in zip((~more, more), expected, strict=True):
            if name == "x":
                assert drawn[name][:, half].std() == pytest.approx(distribution.stddev.mean().item(), rel=0.05)
            else:
                shares = torch.bincount(drawn[name][:, half].flatten(), minlength=3) / drawn[name][:, half].numel()
                torch.testing.assert_close(shares, distribution.probs[0], atol=0.02, rtol=0)
    summary = summarise(model, hidden)
    assert summary.sd["x"][more].mean().item() == pytest.approx(4 * summary.sd["x"][~more].mean().item(), rel=0.05)
    assert summary.probability["y"][~more].amax() > summary.probability["y"][more].amax() + 0.1
    with torch.no_grad():
        q = predictive(model, model.prepare(rows), ("l", "p"), "x", 2)
    assert q.stddev.mean() == pytest.approx(4 * model.decoder("x")(torch.zeros(1, 3)).stddev.mean().item(), rel=0.01)


def test_densities_are_those_of_the_model_as_trained():
    model, rows = model_and_rows(30)
    z, prepared = torch.randn(5, 30, 3), model.prepare(rows)

    def densities() -> tuple[list[float], float]:
        with torch.no_grad():
            return model.log_joint(prepared, z).flatten().tolist(), log_likelihood(model, rows, ["x", "y"], samples=9).log_likelihood

    before = densities()
    spread_by_number(model, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert densities() == before


def test_an_exported_graph_has_the_factors_of_what_is_present():
    model = nbridge.build_model(spec(), seed=3).eval()
    rows = nbridge.Model(model).generate(300, noise=True)
    # Class 0 is the most probable one for most z, and class 1 has the largest logit on the mean over z.
    first, last = nn.Linear(3, 1), nn.Linear(1, 3)
    first.weight.data, first.bias.data = torch.tensor([[1.0, 0, 0]]), torch.tensor([-0.5])
    last.weight.data, last.bias.data = torch.tensor([[0.0], [10], [0]]), torch.tensor([1.0, 0, -9])
    model.decoder("y").network = nn.Sequential(first, nn.ReLU(), last)
    generator = torch.Generator().manual_seed(1)
    present = {name: torch.rand(300, generator=generator) < 0.5 for name in model.names}
    hidden = Batch(rows, {**present, "y": torch.zeros(300, dtype=torch.bool)})

    def guesses() -> tuple[torch.Tensor, torch.Tensor]:
        graph = ImputationGraph(model, model.names, ["y"])
        inputs = {name: model.likelihoods[name].canonical(rows[name]) for name in model.names}
        with torch.no_grad():
            completed = graph({**inputs, **{f"{name}__present": mask for name, mask in hidden.present.items()}})
        return completed["y__completed"], nbridge.Model(model).impute(hidden).values["y"]

    spread_by_number(model, 1.0, 0.02, 50.0, 0.02, 50.0)
    exported, imputed = guesses()
    assert torch.equal(exported, imputed)
    given = model.given("y", hidden)
    found = {number: set(imputed[given == number].tolist()) for number in range(1, 5)}
    assert found == {1: {0}, 2: {1}, 3: {0}, 4: {1}}


def test_the_papers_models_are_calibrated_where_asked_alone():
    def calibrates(**changes: object) -> bool:
        return nbridge.Spec.model_validate({"modalities": MODALITIES, **changes}).training.calibrate

    assert calibrates()
    assert not calibrates(bridges={"objective": "paper"})
    assert calibrates(bridges={"objective": "paper"}, training={"calibrate": True})
    assert not calibrates(training={"calibrate": False})
