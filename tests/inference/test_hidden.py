"""The predictive log-likelihood of hidden modalities: against an oracle, and what it must not depend on."""

from __future__ import annotations

import math

import pytest
import torch

import nbridge
from nbridge.data.batch import Batch
from nbridge.inference.hidden import HiddenModalities, free_baseline, hidden_log_likelihood, random_parts
from nbridge.models.base import MultimodalVAE

MODALITIES = {
    "a": {"shape": 3, "features": 8, "encoder": {"type": "mlp", "hidden": [8]}, "likelihood": "normal"},
    "b": {"shape": 5, "features": 6, "encoder": {"type": "mlp", "hidden": [8]}, "likelihood": "bernoulli"},
    "c": {"shape": 4, "features": 8, "encoder": {"type": "mlp", "hidden": [8]}, "likelihood": "categorical"},
}
KINDS = ["jmvae", "mvae", "bridged", "flow"]


def model_of(kind: str) -> MultimodalVAE:
    bridges = {"type": "flow", "width": 8} if kind == "flow" else {"hidden": [8]}
    keys = {"latent_dim": 2, "modalities": MODALITIES, "fusion": {"hidden": [8]}}
    keys |= {"bridges": bridges} if kind in ("flow", "bridged") else {"model": kind}
    torch.manual_seed(0)
    return nbridge.build_model(nbridge.Spec.model_validate(keys)).eval()


def rows(number: int = 60) -> Batch:
    generator = torch.Generator().manual_seed(5)
    values = {
        "a": torch.randn(number, 3, generator=generator),
        "b": (torch.rand(number, 5, generator=generator) > 0.5).float(),
        "c": torch.randint(0, 4, (number,), generator=generator),
    }
    present = {name: torch.rand(number, generator=generator) < 0.8 for name in values}
    return Batch(values, present)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_nonempty_and_leave_something_hidden(kind: str):
    model, batch = model_of(kind), rows()
    parts, present = random_parts(model, batch, torch.Generator().manual_seed(1)), model.presence(batch)
    several = present.sum(0) >= 2
    assert not (parts & ~present).any()
    assert (parts.sum(0)[several] >= 1).all()
    assert (parts.sum(0)[several] < present.sum(0)[several]).all()
    assert not parts[:, ~several].any()
    assert torch.equal(parts, random_parts(model, batch, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_scores_approach_the_mean_likelihood_over_the_posterior(kind: str):
    model, batch = model_of(kind), model_of(kind).prepare(rows(12))
    parts = random_parts(model, batch, torch.Generator().manual_seed(1))
    scores = hidden_log_likelihood(model, batch, parts, 4000, torch.Generator().manual_seed(2))
    for place, name in enumerate(model.names):
        hidden = (batch.present[name] & ~parts[place]).nonzero()[:, 0].tolist()
        assert len(scores[name]) == len(hidden)
        for row, score in zip(hidden, scores[name].tolist(), strict=True):
            one = batch.index(torch.tensor([row])).only(*(other for m, other in enumerate(model.names) if parts[m, row]))
            z = model.posterior(one, 4000).sample()
            each = model.decoder(name).log_prob(z, one.values[name])
            assert score == pytest.approx((each.logsumexp(0) - math.log(4000)).item(), abs=0.25)


def test_what_is_hidden_is_not_seen_and_randomness_of_others_is_left_alone():
    model, batch = model_of("bridged"), model_of("bridged").prepare(rows())
    parts = random_parts(model, batch, torch.Generator().manual_seed(1))
    place = model.names.index("a")
    hidden = batch.present["a"] & ~parts[place]
    other = Batch({**batch.values, "a": torch.where(hidden[:, None], batch.values["a"] + 100, batch.values["a"])}, batch.present)
    state = torch.random.get_rng_state()
    one = hidden_log_likelihood(model, batch, parts, 3, torch.Generator().manual_seed(2))
    two = hidden_log_likelihood(model, other, parts, 3, torch.Generator().manual_seed(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one["b"], two["b"])
    assert torch.equal(one["c"], two["c"])
    assert (one["a"] > two["a"]).all()


def test_gradients_reach_what_the_posterior_is_made_of():
    model, batch = model_of("mvae"), rows()
    parts = random_parts(model, model.prepare(batch), torch.Generator().manual_seed(1))
    scores = hidden_log_likelihood(model, batch, parts, 3, torch.Generator().manual_seed(2))
    torch.cat(list(scores.values())).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoders["a"].parameters() if p.requires_grad and p.ndim > 1)


def test_figures_are_means_relative_to_the_free_baseline_and_chunks_add_up():
    model, batch = model_of("jmvae"), model_of("jmvae").prepare(rows())
    free = free_baseline(model, batch)
    score = HiddenModalities(model, batch, free, draws=5, seed=3, chunk=1000)
    assert len(score) == int((model.presence(batch).sum(0) >= 2).sum())
    scores = hidden_log_likelihood(model, score.rows, score.parts, 5, torch.Generator().manual_seed(4))
    figures = score.figures()
    for place, name in enumerate(model.names):
        hidden = score.hidden[place]
        expected = (scores[name].double() - free[name].log_prob(score.rows.values[name][hidden])).mean().item()
        assert figures[name] == pytest.approx(expected, rel=1e-6)
    assert score.figures() == figures
    apart = HiddenModalities(model, batch, free, draws=200, seed=3, chunk=7)
    assert apart.chunks > 1
    together = HiddenModalities(model, batch, free, draws=200, seed=3, chunk=1000).figures()
    assert apart.figures() == pytest.approx(together, abs=0.1)


def test_one_figure_weighs_modalities_as_the_model_does():
    model, batch = model_of("jmvae"), model_of("jmvae").prepare(rows())
    score = HiddenModalities(model, batch, free_baseline(model, batch))
    model.weights = {"a": 1.0, "b": 0.0, "c": 3.0}
    assert score.overall({"a": 2.0, "b": 100.0, "c": 6.0}) == pytest.approx(5.0)
    model.weights = dict.fromkeys(model.weights, 0.0)
    assert score.overall({"a": 2.0, "b": 4.0}) == pytest.approx(3.0)


def test_overflows_keep_a_figure_finite(monkeypatch: pytest.MonkeyPatch):
    model, batch = model_of("jmvae"), model_of("jmvae").prepare(rows())
    score = HiddenModalities(model, batch, free_baseline(model, batch))
    monkeypatch.setattr(model.decoder("a"), "log_prob", lambda z, *_: torch.full(z.shape[:-1], math.nan))
    assert score.figures()["a"] == pytest.approx(-1e6)


def test_cells_that_are_absent_do_not_count():
    model, batch = model_of("jmvae"), rows()
    cells = {"a": torch.rand(len(batch), 3, generator=torch.Generator().manual_seed(8)) < 0.7}
    figures = []
    for filler in (0.0, math.nan):
        values = {**batch.values, "a": torch.where(cells["a"], batch.values["a"], filler)}
        prepared = model.prepare(Batch(values, batch.present, cells))
        figures.append(HiddenModalities(model, prepared, free_baseline(model, prepared)).figures())
    assert figures[0] == figures[1]
