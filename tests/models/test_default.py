"""The default model on awkward data: it trains to something sensible, or says in one line why it does not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

import nbridge
from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.inference.weights import fit_weights, weights_of
from nbridge.models import joint
from nbridge.models.bridged import BridgedVAE
from nbridge.models.joint import JointVAE, contrast

ROWS = 150


def part(shape: int, likelihood: str = "normal", **more: object) -> dict[str, object]:
    return {"shape": shape, "encoder": {"type": "mlp", "hidden": [8]}, "features": 6, "likelihood": likelihood, **more}


def spec(modalities: Mapping[str, Mapping[str, object]], **more: object) -> dict[str, object]:
    return {
        "latent_dim": 3, "modalities": dict(modalities), "fusion": {"hidden": [8]}, "bridges": {"hidden": [8]},
        "training": {"batch_size": 32, "updates": 20}, **more,
    }  # fmt: skip


THREE = {"a": part(3), "b": part(2), "label": part(3, "categorical")}


def values(rows: int = ROWS, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, rows)
    return {
        "a": label[:, None] + 0.3 * rng.normal(size=(rows, 3)),
        "b": -label[:, None] + 0.3 * rng.normal(size=(rows, 2)),
        "label": label.astype(float),
    }


def imputes(run: nbridge.runs.run.Run) -> bool:
    """Whether every modality is imputed by finite values from every other one."""
    batch = run.splits.train.sample(8)
    for given in batch.names:
        done = run.model.impute(batch.only(given))
        if not all(torch.isfinite(x.double()).all() for x in done.values.values()):
            return False
    return True


def test_a_spec_without_options_has_own_encoders_a_coupling_and_fitted_exponents():
    model = nbridge.train(spec(THREE), values()).model
    assert isinstance(model.network, BridgedVAE)
    network = model.network
    assert (network.coupling, network.leave_one_out, network.contrast, network.subsets, network.combine) == (
        1.0,
        0.3,
        0.07,
        "random",
        "poe",
    )
    assert len(model.network.sources) == 3
    assert model.network.exponents is not None
    assert not (model.network.exponents == 1).all()


def test_one_modality_has_no_product_to_fit():
    network = nbridge.Model.from_spec(nbridge.Spec.model_validate(spec({"a": part(3)}))).network
    assert isinstance(network, BridgedVAE)
    assert (network.exponents, network.codes) == (None, None)


def test_the_papers_objective_is_one_word_and_brings_back_all_that_the_paper_has():
    model = nbridge.train(spec(THREE, bridges={"hidden": [8], "objective": "paper"}), values()).model
    assert isinstance(model.network, BridgedVAE)
    network = model.network
    assert (network.coupling, network.leave_one_out, network.contrast, network.subsets, network.combine) == (
        0.0,
        0.0,
        0.0,
        "singletons",
        "mean",
    )
    assert (len(model.network.sources), model.network.exponents) == (0, None)
    assert set(model.network.weights.values()) == {1.0}
    assert all(likelihood.spread is None or (likelihood.spread == 1).all() for likelihood in model.likelihoods.values())


def test_weights_follow_from_the_nats_of_the_training_rows_and_do_not_depend_on_units():
    run = nbridge.train(spec(THREE), values())
    nats = {"a": 3 * 0.5 * np.log(2 * np.pi * np.e), "b": 2 * 0.5 * np.log(2 * np.pi * np.e), "label": np.log(3)}
    assert run.model.network.weights == pytest.approx(weights_of(nats), rel=0.02)
    assert sum(run.model.network.weights[name] * nats[name] for name in nats) == pytest.approx(sum(nats.values()), rel=0.02)
    scaled = {name: x * 1000 if name != "label" else x for name, x in values().items()}
    assert nbridge.train(spec(THREE), scaled).model.network.weights == pytest.approx(run.model.network.weights, rel=1e-3)


def test_weights_that_a_spec_gives_stay_and_the_others_follow():
    given = {**THREE, "label": part(3, "categorical", weight=7)}
    assert nbridge.train(spec(given), values()).model.network.weights["label"] == 7.0


def test_a_modality_of_no_rows_and_one_that_never_varies_have_bounded_weights():
    model = nbridge.build_model(nbridge.Spec.model_validate(spec(THREE)))
    batch = Batch.complete({"a": torch.randn(40, 3), "b": torch.ones(40, 2), "label": torch.zeros(40, dtype=torch.long)})
    found = fit_weights(model, batch.hide("a"))
    assert found["a"] == 1.0
    assert all(0 < weight < 100 for weight in found.values())


CASES = {
    "no validation rows": (THREE, {}, {"data": {"source": "memory", "validation": 0.0}}),
    "one modality": ({"a": part(3)}, {}, {}),
    "two modalities": ({"a": part(3), "label": part(3, "categorical")}, {}, {}),
    "a class seen once": ({**THREE, "label": part(4, "categorical")}, {"label": np.r_[3.0, np.arange(ROWS - 1) % 3]}, {}),
    "constant columns": (THREE, {"b": np.full((ROWS, 2), 5.0)}, {}),
    "weights of 0": ({**THREE, "b": part(2, weight=0)}, {}, {}),
    "all weights of 0": ({name: {**one, "weight": 0} for name, one in THREE.items()}, {}, {}),
}


@pytest.mark.parametrize(("modalities", "changes", "more"), CASES.values(), ids=CASES)
def test_awkward_data_trains_to_something_finite(
    modalities: dict[str, dict[str, object]], changes: dict[str, np.ndarray], more: dict[str, object]
):
    rows = {name: x for name, x in (values() | changes).items() if name in modalities}
    assert imputes(nbridge.train(spec(modalities, **more), rows))


def test_the_contrast_is_of_what_two_parts_of_a_row_say(monkeypatch: pytest.MonkeyPatch):
    network = nbridge.Model.from_spec(nbridge.Spec.model_validate(spec(THREE))).network.eval()
    assert isinstance(network, JointVAE)
    network.contrast, network.contrast_nats = 1.0, 0.5
    batch = network.prepare(Batch.complete({name: torch.as_tensor(x, dtype=torch.float32) for name, x in values(12).items()}))
    first = torch.tensor([[True] * 12, [False] * 12, [False] * 6 + [True] * 6])
    parts = iter([first, ~first])
    monkeypatch.setattr(joint, "random_subset", lambda _: next(parts))
    terms = network.stages()[0].loss(batch, {}, 1.0)
    one, other = (
        JointVAE.infer(network, network.prepare(Batch(batch.values, dict(zip(network.names, mask, strict=True))))).mean
        for mask in (first, ~first)
    )
    expected = 0.5 * contrast(one, other, torch.ones(12, dtype=torch.bool))
    torch.testing.assert_close(terms["contrast"], expected)


def test_a_row_with_one_modality_is_not_predicted_from_nothing():
    network = nbridge.Model.from_spec(nbridge.Spec.model_validate(spec(THREE))).network
    data = values(12)
    batch = Batch(
        {name: torch.as_tensor(x, dtype=torch.float32) for name, x in data.items()},
        {name: torch.arange(12) % 3 == place for place, name in enumerate(data)},
    )
    terms = network.stages()[0].loss(network.prepare(batch), {}, 1.0)
    assert terms["leave_one_out"].item() == 0
    assert terms["a"].item() != 0
    # Nor does a modality that no row has cost anything.
    terms = network.stages()[0].loss(network.prepare(batch.index(torch.tensor([1, 4, 7]))), {}, 1.0)
    assert (terms["a"].item(), terms["label"].item()) == (0, 0)
    assert terms["b"].item() != 0


def test_rows_none_of_which_is_complete_train():
    rows = values()
    for number, x in enumerate(rows.values()):
        x[np.arange(ROWS) % 3 == number] = np.nan
    assert imputes(nbridge.train(spec(THREE), rows))


def test_a_modality_that_is_never_observed_with_others_trains():
    rows = values()
    alone = np.arange(ROWS) % 2 == 0
    rows["b"][~alone] = np.nan
    rows["a"][alone], rows["label"][alone] = np.nan, np.nan
    assert imputes(nbridge.train(spec(THREE), rows))


def test_twenty_modalities_train():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(ROWS, 1))
    rows = {f"m{number}": shared + rng.normal(size=(ROWS, 2)) for number in range(20)}
    run = nbridge.train(spec(dict.fromkeys(rows, part(2)), training={"batch_size": 32, "updates": 4}), rows)
    done = run.model.impute(run.splits.train.sample(4).only("m3", "m7"))
    assert all(torch.isfinite(x).all() for x in done.values.values())


def test_a_modality_without_training_rows_is_one_line():
    rows = values()
    rows["b"][:] = np.nan
    with pytest.raises(DataError, match=r"^modality 'b': present in none of the 150 rows, expected at least one$"):
        nbridge.train(spec(THREE), rows)
