"""Counts at the depth of their row: size factors in likelihoods, encoders, imputations, scores and messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import nbridge
from nbridge.data.batch import Batch
from nbridge.errors import DataError, SpecError
from nbridge.evaluation.calibration import interval_scores
from nbridge.evaluation.crossmodal import predict
from nbridge.inference.free import fit_marginal
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import NegativeBinomial, Poisson

GENES = 60
SIZED = {"type": "negative_binomial", "size_factor": "auto"}


def spec(likelihood: object = SIZED, genes: int = GENES, **more: object) -> dict[str, Any]:
    part = {"encoder": {"type": "mlp", "hidden": [32]}, "features": 16}
    return {
        "latent_dim": 4, "fusion": {"hidden": [16]}, "bridges": {"hidden": [16]},
        "modalities": {
            "rna": {"shape": genes, "likelihood": likelihood, **part},
            "kind": {"shape": 3, "likelihood": "categorical", **part},
        },
        "training": {"stages": {"joint": {"epochs": 15}, "bridges": {"epochs": 10}}}, **more,
    }  # fmt: skip


def cells(rows: int, seed: int = 0, genes: int = GENES) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Counts of cells along two programmes, with depths that differ twentyfold, and their rates at depth 1."""
    rng, genes_rng = np.random.default_rng(seed), np.random.default_rng(99)
    programmes = rng.normal(size=(rows, 2))
    rates = np.exp(genes_rng.normal(4.0, 0.5, genes) + 0.4 * programmes @ genes_rng.normal(size=(2, genes)))
    depth = np.exp(rng.uniform(-1.5, 1.5, (rows, 1)))
    kind = (programmes[:, 0] > 0).astype(int) + (programmes[:, 1] > 0)
    return {"rna": rng.poisson(rng.gamma(3.0, depth * rates / 3)).astype(np.float32), "kind": kind.astype(float)}, rates


def blind(likelihood: object = SIZED, means: torch.Tensor | None = None) -> MultimodalVAE:
    """A model whose decoder of counts ignores z, so that all it predicts is the size of a row times the mean of each gene."""
    network = nbridge.build_model(nbridge.Spec.model_validate(spec(likelihood))).eval()
    for parameter in network.decoder("rna").network.parameters():
        torch.nn.init.zeros_(parameter)
    log_mean = network.likelihoods["rna"].get_buffer("log_mean")
    log_mean.copy_(torch.linspace(1.0, 20.0, GENES).log() if means is None else means.log())
    return network


@pytest.mark.parametrize("kind", [Poisson, NegativeBinomial])
def test_the_size_of_a_row_is_what_its_counts_are_relative_to_those_of_training_rows(kind: type[Poisson | NegativeBinomial]):
    likelihood = kind((GENES,), size_factor="auto")
    x = torch.from_numpy(cells(50)[0]["rna"])
    likelihood.fit(x, torch.ones_like(x, dtype=torch.bool))
    size = likelihood.log_size(x)
    assert size is not None
    np.testing.assert_allclose(size.exp()[:, 0], x.sum(1) / x.mean(0).sum(), rtol=0.01)
    some = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    part = likelihood.log_size(x, some)
    assert part is not None
    np.testing.assert_allclose(part.exp()[:, 0], (x * some).sum(1) / (x.mean(0) * some).sum(1), rtol=0.02)


def test_without_a_size_factor_there_is_no_size():
    assert Poisson((3,)).log_size(torch.ones(2, 3)) is None
    assert not NegativeBinomial((3,), size_factor=1).has_size


def test_rows_without_counts_have_a_small_size_and_rows_without_observations_have_size_one():
    likelihood = NegativeBinomial((GENES,), size_factor="auto")
    nothing = torch.zeros(1, GENES)
    shallow, absent = likelihood.log_size(nothing), likelihood.log_size(nothing, torch.zeros(1, GENES, dtype=torch.bool))
    assert shallow is not None
    assert absent is not None
    assert shallow.item() == pytest.approx(-np.log(1 + GENES))
    assert absent.item() == 0


@given(st.floats(0.1, 50.0), st.integers(0, 1000))
@settings(max_examples=25)
def test_the_density_of_counts_is_that_of_scipy_at_the_size_of_their_row(depth: float, seed: int):
    network = blind()
    likelihood = network.likelihoods["rna"]
    assert isinstance(likelihood, NegativeBinomial)
    x = np.random.default_rng(seed).poisson(depth * 10, (4, GENES))
    batch = network.prepare(Batch.complete({"rna": torch.from_numpy(x), "kind": torch.zeros(4)}))
    found = network.log_prob("rna", torch.zeros(4, 4), batch)
    means = likelihood.log_mean.exp().detach().double().numpy()
    size = (1 + x.sum(1, keepdims=True)) / (1 + means.sum())
    theta = likelihood.log_dispersion.exp().detach().double().numpy()
    expected = stats.nbinom(theta, theta / (theta + size * means)).logpmf(x).sum(1)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-4)


def test_partly_observed_rows_are_imputed_at_their_own_depth_and_absent_ones_at_the_typical_depth():
    network, means = blind(), torch.linspace(1.0, 20.0, GENES)
    model = nbridge.Model(network)
    x = means.repeat(3, 1) * torch.tensor([[10.0], [0.1], [1.0]])
    seen = torch.zeros(3, GENES, dtype=torch.bool)
    seen[:, ::2] = True
    batch = Batch(
        {"rna": x.round(), "kind": torch.zeros(3)},
        {"rna": torch.tensor([True, True, False]), "kind": torch.ones(3, dtype=torch.bool)},
        {"rna": seen},
    )
    hidden = model.impute(batch).values["rna"][:, 1::2]
    np.testing.assert_allclose(hidden[0].sum() / means[1::2].sum(), 10, rtol=0.05)
    np.testing.assert_allclose(hidden[1].sum() / means[1::2].sum(), 0.1, rtol=0.5)
    np.testing.assert_allclose(hidden[2], means[1::2].round(), atol=1)
    found = model.summarise(batch, draws=39).mean["rna"][:, 1::2]
    np.testing.assert_allclose(found.sum(1) / means[1::2].sum(), [10, 0.1, 1], rtol=0.35)


def test_evaluation_scores_hidden_counts_at_the_depth_of_their_row():
    network = blind({"type": "poisson", "size_factor": "auto"})
    rng = np.random.default_rng(0)
    depth = np.exp(rng.uniform(-1.5, 1.5, (400, 1)))
    counts = rng.poisson(depth * np.linspace(1.0, 20.0, GENES))
    batch = Batch.complete({"rna": torch.from_numpy(counts).float(), "kind": torch.zeros(400)})
    scores = interval_scores(network, batch, ["kind"], "rna", samples=50)
    for level, share in scores.coverage.items():
        assert share == pytest.approx(level, abs=0.015)
    # The errors are those of log(1 + x), whose spread is a few tenths, where the counts reach hundreds.
    assert scores.rmse < 0.6 * scores.marginal_rmse < 1
    found = predict(network, batch, ["kind"], "rna", samples=8)
    size = (1 + counts.sum(1, keepdims=True)) / (1 + np.linspace(1.0, 20.0, GENES).sum())
    rates = size * np.linspace(1.0, 20.0, GENES)
    assert found.log_likelihood == pytest.approx(stats.poisson(rates).logpmf(counts).sum(1).mean(), rel=1e-4)
    assert found.rmse == pytest.approx(np.sqrt(np.mean((np.log1p(rates) - np.log1p(counts)) ** 2)), rel=1e-4)


def test_the_free_baseline_knows_the_depth_too():
    """Else a model would look better than the baseline for no more than what it is given."""
    likelihood = NegativeBinomial((GENES,), size_factor="auto")
    x = torch.from_numpy(cells(300)[0]["rna"])
    likelihood.fit(x, torch.ones_like(x, dtype=torch.bool))
    found = fit_marginal(likelihood, x).log_prob(x)
    size = (1 + x.sum(1, keepdim=True).double()) / (1 + likelihood.log_mean.exp().double().sum())
    mean = (x.double().sum(0) + 0.5) / size.sum(0)
    excess = ((x - size * mean).square() - size * mean).sum(0)
    theta = (mean.square() * size.square().sum(0) / excess).numpy()
    expected = stats.nbinom(theta, theta / (theta + (size * mean).numpy())).logpmf(x.numpy()).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.mean() > fit_marginal(NegativeBinomial((GENES,)), x).log_prob(x).mean() + 1


def trained(size_factor: object) -> nbridge.Model:
    training, _ = cells(1200, genes=2 * GENES)
    stages = {"joint": {"epochs": 20}, "bridges": {"epochs": 10}}
    likelihood = {"type": "negative_binomial", "size_factor": size_factor}
    return nbridge.train(spec(likelihood, 2 * GENES, training={"stages": stages}), training).model


def moved(model: nbridge.Model, before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
    """How much the codes of cells move between two versions of their counts, their posterior spread, and how far all move together."""
    unknown = np.full(len(before), np.nan)
    one, other = (model.embed({"rna": x, "kind": unknown}) for x in (before, after))
    difference = other.mean - one.mean
    return difference.square().mean().sqrt().item(), one.stddev.square().mean().sqrt().item(), difference.mean(0).norm().item()


def test_a_depth_varied_tenfold_moves_z_by_less_than_its_posterior_spread():
    model, plain = trained("auto"), trained(1)
    counts = cells(300, seed=1, genes=2 * GENES)[0]["rna"]
    # Nine in ten counts of deep cells are dropped at random; both depths are those of training cells.
    deep = counts[counts.sum(1) > np.median(counts.sum(1))]
    thin = np.random.default_rng(2).binomial(deep.astype(int), 0.1).astype(np.float32)
    by, spread, together = moved(model, deep, thin)
    assert by < spread
    plainly, _, all_together = moved(plain, deep, thin)
    assert by < plainly
    assert together < 0.25 * all_together
    # The same composition at ten times the depth.
    by, spread, _ = moved(model, thin, 10 * thin)
    assert by < 0.1 * spread


def test_rows_without_counts_are_named_in_training_and_imputed():
    rows, _ = cells(80)
    rows["rna"][[3, 7]] = 0
    with pytest.warns(nbridge.NBridgeWarning, match=r"modality 'rna': depth 0, all counts are 0, in rows 3, 7; remove such rows"):
        run = nbridge.train(spec(training={"updates": 2}), rows)
    empty = {"rna": np.zeros((1, GENES), np.float32), "kind": np.array([np.nan])}
    codes = run.model.embed(empty)
    assert codes.mean.isfinite().all()
    assert np.isfinite(run.model.impute(empty)["kind"]).all()
    empty["rna"][0, 5:] = np.nan
    assert np.isfinite(run.model.impute(empty)["rna"]).all()


@pytest.mark.parametrize(("value", "shown"), [("2.5", "2.5"), ("-1", "-1")])
def test_counts_with_fractions_or_negative_are_one_line_with_file_row_and_column(tmp_path: Path, value: str, shown: str):
    path = tmp_path / "cells.csv"
    path.write_text("g0,g1,kind\n" + "1,2,0\n" * 9 + f"3,{value},1\n")
    modalities = {
        "rna": {"shape": 2, "encoder": "mlp", "likelihood": SIZED},
        "kind": {"shape": 2, "encoder": "mlp", "likelihood": "categorical"},
    }
    outside = f"value {shown} is outside the support of NegativeBinomial, whole numbers from 0"
    with pytest.raises(DataError, match=rf"cells.csv: .*column 'g1', row 9 .*{outside}"):
        nbridge.train({"modalities": modalities, "data": {"source": "table", "path": str(path), "columns": {"rna": "g*"}}})


def test_one_count_has_no_depth_of_its_own():
    with pytest.raises(SpecError, match="size_factor: auto, but there is one element"):
        nbridge.build_model(nbridge.Spec.model_validate(spec(genes=1)))
