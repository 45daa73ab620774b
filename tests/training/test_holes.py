"""Tables whose cells are imputed from each other: holes in training, validation by hidden cells, and calibration by column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nbridge
from nbridge.data.batch import Batch
from nbridge.inference.column_calibration import fit_columns
from nbridge.inference.hidden import HiddenModalities, free_baseline
from nbridge.models.holes import with_holes
from nbridge.nn.distributions import diagonal_kl
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord

COLUMNS: dict[str, Any] = {"height": "normal", "mass": "normal", "large": "bernoulli", "kind": {"type": "categorical", "classes": 3}}
SPEC: dict[str, Any] = {
    "latent_dim": 4,
    "data": {"test": 0.0},
    "modalities": {"table": {"columns": COLUMNS, "encoder": {"type": "table", "hidden": [32]}, "features": 32}},
    "fusion": {"hidden": []},
    "training": {"updates": 600, "learning_rate": 3e-3},
}


def rows(number: int = 400, seed: int = 0) -> np.ndarray:
    """Four columns that tell much of each other: two measures of one size, whether it is large, and three kinds by size."""
    draw = np.random.default_rng(seed)
    size = draw.normal(size=number)
    kind = np.eye(3)[np.digitize(size, [-0.5, 0.5])]
    height, mass = 150 + 10 * size + draw.normal(size=number), 60 + 8 * size + draw.normal(size=number)
    return np.column_stack([height, mass, size > 0, kind]).astype(np.float32)


def with_empty_cells(x: np.ndarray, share: float, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    hidden = draw.random((len(x), 4)) < share
    hidden[hidden.all(1), 0] = False
    return np.where(hidden[:, [0, 1, 2, 3, 3, 3]], np.nan, x)


@pytest.fixture(scope="module")
def run() -> nbridge.Run:
    return nbridge.train(SPEC, {"table": with_empty_cells(rows(), 0.1, 1)}, device="cpu")


def test_any_cell_is_imputed_from_the_others_of_its_own_modality(run: nbridge.Run) -> None:
    truth = rows(300, seed=2)
    hidden = with_empty_cells(truth, 0.3, 3)
    done = run.model.impute({"table": hidden})["table"]
    empty = np.isnan(hidden)
    assert np.array_equal(done[~empty], truth[~empty])
    for column, spread in ((0, 10.0), (1, 8.0)):
        own = empty[:, column]
        error = np.sqrt(np.mean((done[own, column] - truth[own, column]) ** 2)) / spread
        # A fifth of the spread is noise; of some rows only the kind is known.
        assert error < 0.6, (column, error)
    assert (done[empty[:, 2], 2] == truth[empty[:, 2], 2]).mean() > 0.8
    kind = empty[:, 3]
    assert (done[kind, 3:].argmax(1) == truth[kind, 3:].argmax(1)).mean() > 0.75
    assert np.array_equal(done[kind, 3:].sum(1), np.ones(kind.sum()))


def test_draws_of_hidden_cells_are_values_of_their_columns(run: nbridge.Run) -> None:
    hidden = with_empty_cells(rows(50, seed=4), 0.4, 5)
    draws = run.model.impute({"table": hidden}, samples=7)["table"]
    assert draws.shape == (7, 50, 6)
    assert np.array_equal(draws[..., 3:].sum(-1), np.ones((7, 50)))
    assert set(np.unique(draws[..., 2:])) <= {0.0, 1.0}


def test_intervals_of_hidden_cells_hold_what_they_say(run: nbridge.Run) -> None:
    truth = rows(1500, seed=6)
    hidden = with_empty_cells(truth, 0.2, 7)
    done = run.model.impute({"table": hidden}, intervals=(0.9,))
    inside = (done["table__lower"] <= truth) & (truth <= done["table__upper"])
    empty = np.isnan(hidden)[:, :2]
    assert 0.84 < inside[:, :2][empty].mean() < 0.96


def test_validation_scores_hidden_cells_of_a_single_modality(run: nbridge.Run) -> None:
    network = run.model.network
    batch = network.prepare(run.splits.validation.representative())
    scores = HiddenModalities(network, batch, free_baseline(network, batch), draws=16)
    # Far better than what is known of a column without its row.
    assert scores.figures()["table"] > 0.5


def test_a_row_that_shows_its_holes_scores_the_same_whatever_they_hold(run: nbridge.Run) -> None:
    network = run.model.network
    x = torch.from_numpy(rows(20, seed=8))
    batch = Batch.complete({"table": x})
    holes = torch.zeros(20, 6, dtype=torch.bool)
    holes[:, 0] = True
    hidden = with_holes(batch, {"table": holes})
    changed = Batch({"table": torch.where(holes, 1e6, x)}, hidden.present, hidden.cells)
    assert torch.equal(network.posterior(hidden).mean, network.posterior(changed).mean)
    assert torch.isfinite(network.log_joint(changed, torch.zeros(1, 20, 4))).all()


def test_factors_by_column_are_1_where_the_spread_is_right_and_widen_a_column_that_is_too_narrow(run: nbridge.Run) -> None:
    network = run.model.network
    batch = network.prepare(Batch.complete({"table": torch.from_numpy(rows(1000, seed=9))}))
    likelihood = network.likelihoods["table"]
    reals = likelihood.get_submodule("families.0")
    torch.manual_seed(0)
    before = fit_columns(network, "table", batch)
    assert before is not None
    assert before.shape == (2, 6)
    assert torch.equal(before[:, 3], before[:, 5])
    with torch.no_grad():
        reals.get_parameter("log_scale")[0] -= 1.0
    torch.manual_seed(0)
    after = fit_columns(network, "table", batch)
    with torch.no_grad():
        reals.get_parameter("log_scale")[0] += 1.0
    assert after is not None
    assert after[1, 0] > 1.5 * before[1, 0]
    torch.testing.assert_close(after[1, 1:], before[1, 1:])


def test_nothing_hidden_is_the_plain_bound() -> None:
    spec = {**SPEC, "modalities": {"table": {"columns": COLUMNS, "encoder": {"type": "table", "hide": 0.0, "dropout": 0.0}}}}
    network = nbridge.build_model(nbridge.Spec.model_validate(spec)).train()
    batch = network.prepare(Batch.complete({"table": torch.from_numpy(rows(30))}))
    (stage,) = network.stages()
    torch.manual_seed(3)
    terms = stage.loss(batch, {}, 1.0)
    torch.manual_seed(3)
    q = network.observed_posterior(network.encode(batch), batch)
    z = q.rsample()
    assert set(terms) == {"table", "kl"}
    torch.testing.assert_close(terms["table"], -network.log_prob("table", z, batch).mean())
    torch.testing.assert_close(terms["kl"], diagonal_kl(q).mean())


def test_a_stopped_run_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    spec = {**SPEC, "training": {"updates": 40, "batch_size": 32, "checkpoint_seconds": 0}}
    data = {"table": with_empty_cells(rows(120), 0.1, 1)}
    whole = nbridge.train(spec, data, out=tmp_path / "whole", device="cpu")

    class Stop(Callback):
        def on_validation(self, record: EpochRecord) -> None:
            if record.update >= 20:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nbridge.train(spec, data, out=tmp_path / "stopped", device="cpu", callbacks=[Stop()])
    resumed = nbridge.resume(tmp_path / "stopped", data, device="cpu")
    one, other = whole.model.network.state_dict(), resumed.model.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
