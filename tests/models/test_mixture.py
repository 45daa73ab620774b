"""The mixture that generation may begin with: it is the aggregate posterior, it is kept with its model, and nothing else changes by it."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor
from torch.distributions import Independent

import nbridge
from nbridge.common.warnings import Finding
from nbridge.data.numpy.npy import NPYFolder
from nbridge.data.streaming.stored_rows import StoredRows
from nbridge.models import mixture_prior as module
from nbridge.models.mixture_prior import Mixture
from nbridge.nn.distributions import diagonal_normal
from nbridge.spec.components import Component
from nbridge.spec.reader import spec_from_dict
from nbridge.training.callbacks import Callback
from nbridge.training.checkpoint import CONFIG, TENSORS
from tests.oracles import EXACT, LinearGaussian, exact_model

PART = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
SPEC: dict[str, Any] = {
    "latent_dim": 2,
    "modalities": {"x": {**PART, "shape": 3, "likelihood": "normal"}, "y": {**PART, "shape": 2, "likelihood": "categorical"}},
    "fusion": {"hidden": [4]},
    "training": {"batch_size": 32, "checkpoint_seconds": 0, "stages": {name: {"epochs": 2} for name in ("joint", "bridges", "subsets")}},
}
MIXED = {**SPEC, "prior": {"type": "mixture", "components": 3}}
DATA = {"x": np.random.default_rng(0).normal(size=(120, 3)), "y": np.arange(120) % 2}
SIZES = {"a": 5, "b": 4}


def clusters(number: int, dimension: int, apart: float = 3.0) -> Tensor:
    """Codes in two clusters, in double precision."""
    generator = torch.Generator().manual_seed(0)
    side = (torch.arange(number) % 2 * 2 - 1)[:, None] * apart
    return side + torch.randn(number, dimension, generator=generator, dtype=torch.float64)


def shifted_rows(oracle: LinearGaussian, number: int) -> dict[str, np.ndarray]:
    """Rows of which the oracle does not say N(0, I): their z lie around 2 and vary less."""
    rng = np.random.default_rng(1)
    z = 2 + 0.5 * rng.normal(size=(number, oracle.latent_dim))
    return {
        name: z @ W.T + oracle.offsets[name] + oracle.noise[name] * rng.normal(size=(number, len(W))) for name, W in oracle.loadings.items()
    }


@pytest.mark.parametrize("kind", EXACT)
def test_draws_have_the_moments_of_the_aggregate_posterior_whatever_the_model_and_what_rows_lack(kind: str) -> None:
    oracle = LinearGaussian.random(SIZES, 3, seed=0)
    values, number = shifted_rows(oracle, 1200), 1200
    present = {name: torch.arange(number) % 3 != place for place, name in enumerate(SIZES)}
    if kind in ("bridged", "jmvae", "telbo", "mvae"):  # kinds whose oracle is exact for every subset
        rows = nbridge.Batch({name: torch.as_tensor(x) for name, x in values.items()}, present)
    else:
        rows = nbridge.Batch.complete({name: torch.as_tensor(x) for name, x in values.items()})
    each = [{name: values[name][row] for name in SIZES if rows.present[name][row]} for row in range(number)]
    if kind == "bivcca":  # every row is served by the mean of what each modality says alone: its own posterior is the reference
        q = exact_model(oracle, kind).posterior(rows)
        known = [(mean.numpy(), np.diag(variance.numpy())) for mean, variance in zip(q.mean[0], q.variance[0], strict=True)]
    else:
        known = [oracle.posterior(x) for x in each]
    means = np.stack([mean for mean, _ in known])
    covariance = np.cov(means.T, bias=True) + np.mean([spread for _, spread in known], 0)

    mixture = Mixture(3, components=4).double()
    assert mixture.fit_rows(exact_model(oracle, kind).posterior, rows) == 4
    torch.manual_seed(0)
    drawn = mixture.sample(40_000).numpy()
    assert drawn.mean(0) == pytest.approx(means.mean(0), abs=0.03)
    assert np.cov(drawn.T) == pytest.approx(covariance, abs=0.04)
    assert abs(means.mean(0)).max() > 1  # N(0, I) would not do


def test_a_mixture_has_the_density_of_the_codes_where_it_is_known() -> None:
    oracle = LinearGaussian.random(SIZES, 2, seed=3)
    values = oracle.sample(400, seed=4)
    side = np.where(np.arange(400) % 2, 1.0, -1.0)[:, None]
    values = {name: x + 4 * side * oracle.loadings[name].sum(1) for name, x in values.items()}
    model, rows = exact_model(oracle, "joint"), nbridge.Batch.complete({name: torch.as_tensor(x) for name, x in values.items()})
    mixture = Mixture(2, components=2).double()
    mixture.fit_rows(model.posterior, rows)
    q = model.posterior(rows)
    z = q.sample()[0]
    aggregate = Independent(q.base_dist, 1).log_prob(z[:, None]).logsumexp(1) - math.log(400)  # (1/N) sum_n q(z | x_n)
    gap = aggregate - mixture.distribution().log_prob(z)
    assert gap.mean().item() == pytest.approx(0, abs=0.1)
    assert (aggregate - model.prior(400).log_prob(z)).mean() > 2


@pytest.mark.parametrize(("number", "full"), [(2000, True), (120, False)])
def test_a_fit_is_scikit_learns_and_its_density_integrates_to_one(number: int, full: bool) -> None:
    z = clusters(number, 2, apart=1.5)
    mixture = Mixture(2, components=3).double()
    mixture.fit(z, seed=5)
    theirs = GaussianMixture(3, covariance_type="full" if full else "diag", tol=1e-2, random_state=5).fit(z.numpy())
    points = clusters(50, 2)
    assert mixture.distribution().log_prob(points).numpy() == pytest.approx(theirs.score_samples(points.numpy()), abs=1e-9)
    step = 0.1
    axis = torch.arange(-10, 10, step, dtype=torch.float64)
    assert (mixture.distribution().log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * step**2).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("dimension", "shape"), [(3, (50, 3, 3)), (40, (50, 40))])
def test_a_mixture_that_is_not_fitted_is_the_standard_normal(dimension: int, shape: tuple[int, ...]) -> None:
    mixture, z = Mixture(dimension, components=50), torch.randn(7, dimension)
    assert mixture.scales.shape == shape  # where full covariances could never be told, there is no place for them
    normal = diagonal_normal(torch.zeros(dimension), torch.ones(dimension))
    torch.testing.assert_close(mixture.distribution().log_prob(z), normal.log_prob(z))
    assert not list(mixture.parameters())


def test_a_second_fit_leaves_nothing_of_the_first() -> None:
    once, twice = Mixture(2, components=4), Mixture(2, components=4)
    once.fit(clusters(100, 2), 2)
    twice.fit(clusters(4000, 2, apart=9), 4)
    twice.fit(clusters(100, 2), 2)
    assert twice.sample(3).shape == (3, 2)
    points = clusters(20, 2).float()
    assert torch.equal(once.distribution().log_prob(points), twice.distribution().log_prob(points))


def of_x(batch: nbridge.Batch, samples: int) -> Independent:
    """Codes that are x itself, and N(0, I) of rows without it."""
    loc = torch.where(batch.present["x"][:, None], batch.values["x"], 0.0)
    scale = torch.where(batch.present["x"][:, None], 0.1, 1.0).expand_as(loc)
    return diagonal_normal(loc, scale).expand((samples, len(batch)))


def test_rows_with_nothing_observed_do_not_count_and_random_numbers_stay_as_they_were() -> None:
    x = clusters(300, 2).float()
    rows = nbridge.Batch({"x": torch.cat([x, torch.full((50, 2), torch.nan)])}, {"x": torch.arange(350) < 300})
    before = torch.get_rng_state(), torch.get_num_threads()
    learnt, alone = Mixture(2, components=2), Mixture(2, components=2)
    assert (learnt.fit_rows(of_x, rows), alone.fit_rows(of_x, nbridge.Batch.complete({"x": x}))) == (2, 2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    assert all(torch.equal(mine, other) for mine, other in zip(learnt.buffers(), alone.buffers(), strict=True))


def test_of_many_rows_some_are_picked_at_random_and_streamed_ones_teach_as_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", 200)
    monkeypatch.setattr(module, "CHUNK", 64)
    x = clusters(1000, 2)[torch.arange(1000).argsort(stable=True)]
    x = torch.cat([x[0::2], x[1::2]]).float()  # all of one cluster first
    np.save(tmp_path / "x.npy", x.numpy())
    stored = NPYFolder(path=str(tmp_path)).load({"x": (2,)}).batch
    assert isinstance(stored, StoredRows)
    seen: list[int] = []

    def counted(batch: nbridge.Batch, samples: int) -> Independent:
        seen.append(len(batch) * samples)
        return of_x(batch, samples)

    memory, disk = Mixture(2, components=2), Mixture(2, components=2)
    memory.fit_rows(counted, nbridge.Batch.complete({"x": x}), seed=1)
    assert (sum(seen), max(seen)) == (200, 64)
    assert memory.weights.min() > 0.4
    assert memory.means[:, 0].sort().values.tolist() == pytest.approx([-3, 3], abs=0.5)
    disk.fit_rows(of_x, stored, seed=1)
    assert all(torch.equal(mine, other) for mine, other in zip(memory.buffers(), disk.buffers(), strict=True))


class Listener(Callback):
    """Keeps what it hears of."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def on_warning(self, finding: Finding) -> None:
        self.found.append(finding)


def test_few_rows_have_fewer_components_and_one_line_says_so() -> None:
    listener = Listener()
    few = {name: x[:40] for name, x in DATA.items()}
    run = nbridge.train({**SPEC, "prior": {"type": "mixture", "components": 50}}, few, callbacks=[listener])
    assert run.model.network.mixture is not None
    assert int((run.model.network.mixture.weights > 0).sum()) == 5
    assert [finding.line for finding in listener.found] == [
        "warning: prior: 28 training rows are too few for a mixture of 50 components; 5 are used"
    ]
    assert run.model.generate(3)["x"].shape == (3, 3)


@pytest.mark.parametrize("model", ["bridged", "flow", "joint", "jmvae", "telbo", "mvae", "bivcca", "vae"])
def test_every_kind_of_model_is_fitted_kept_and_drawn_from(model: str, tmp_path: Path) -> None:
    choice = (
        {"bridges": {"type": "flow"}} if model == "flow" else {"model": {"type": model, **({"modality": "x"} if model == "vae" else {})}}
    )
    data = {**DATA, "x": np.where((np.arange(120) % 5 == 0)[:, None], np.nan, DATA["x"])}
    run = nbridge.train({**MIXED, **choice}, data, out=tmp_path / "run")
    assert run.model.network.mixture is not None
    assert run.model.network.mixture.weights.sum().item() == pytest.approx(1)
    loaded = nbridge.load(tmp_path / "run")
    for noise in (False, True):
        mine, theirs = (nbridge.Model(one).generate(1100, noise=noise, seed=3) for one in (run.model.network, loaded.network))
        assert mine.keys() == theirs.keys() == set(run.model.names)
        assert all(torch.equal(mine[name], theirs[name]) and len(mine[name]) == 1100 for name in mine)
    assert not torch.equal(mine["x"], loaded.generate(1100, noise=True, seed=3, prior="normal")["x"])


def test_a_run_cut_off_before_the_fit_or_in_the_middle_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbridge.train(MIXED, DATA, out=tmp_path / "whole")
    whole = nbridge.load(tmp_path / "whole").network.state_dict()
    assert {name for name in whole if name.startswith("mixture.")} == {"mixture.weights", "mixture.means", "mixture.scales"}

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    for owner, method, folder in ((Mixture, "fit_rows", "late"), (Listener, "on_validation", "early")):
        with monkeypatch.context() as patched:
            patched.setattr(owner, method, cut)
            with pytest.raises(KeyboardInterrupt):
                nbridge.train(MIXED, DATA, out=tmp_path / folder, callbacks=[Listener()])
    for folder in ("late", "early"):
        assert not (tmp_path / folder / "model").exists()
        nbridge.resume(tmp_path / folder, DATA)
        tensors = nbridge.load(tmp_path / folder).network.state_dict()
        assert tensors.keys() == whole.keys()
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in whole.items())


def test_a_mixture_changes_nothing_but_generation_from_nothing(tmp_path: Path) -> None:
    plain, mixed = nbridge.train(SPEC, DATA, out=tmp_path / "plain").model, nbridge.train(MIXED, DATA).model
    assert plain.network.mixture is None
    tensors = mixed.network.state_dict()
    assert {name for name in tensors if not name.startswith("mixture.")} == plain.network.state_dict().keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in plain.network.state_dict().items())
    assert json.loads((tmp_path / "plain" / "model" / CONFIG).read_text())["spec"]["prior"] == {"type": "normal"}

    rows = nbridge.Batch({"y": torch.tensor([0, 1, 0])}, {"y": torch.tensor([True, False, False])})
    for one, other in (
        (plain.generate(5), mixed.generate(5, prior="normal")),
        (plain.generate(5, prior="normal"), plain.generate(5)),
        (plain.generate(5, {"y": 1}), mixed.generate(5, {"y": 1})),
        (plain.impute(rows, samples=4).values, mixed.impute(rows, samples=4).values),
    ):
        assert all(torch.equal(one[name], other[name]) for name in ("x", "y"))
    z = torch.randn(2, 3, 2)
    assert torch.equal(plain.network.log_joint(rows, z), mixed.network.log_joint(rows, z))


def test_a_model_that_was_saved_before_there_were_priors_is_read(tmp_path: Path) -> None:
    run = nbridge.train(SPEC, DATA, out=tmp_path / "run")
    path = tmp_path / "run" / "model" / CONFIG
    config = json.loads(path.read_text())
    del config["spec"]["prior"]
    path.write_text(json.dumps(config))
    old = nbridge.load(tmp_path / "run")
    assert all(torch.equal(x, old.generate(4)[name]) for name, x in run.model.generate(4).items())


def test_a_model_folder_without_the_mixture_that_its_spec_names_is_refused(tmp_path: Path) -> None:
    nbridge.train(SPEC, DATA, out=tmp_path / "plain")
    nbridge.train(MIXED, DATA, out=tmp_path / "mixed")
    shutil.copy(tmp_path / "plain" / "model" / TENSORS, tmp_path / "mixed" / "model" / TENSORS)
    with pytest.raises(nbridge.RunError, match=r"tensor mixture.weights is missing, so this is not a checkpoint of this model"):
        nbridge.load(tmp_path / "mixed")


def test_a_prior_is_spelt_as_a_word_or_with_its_components() -> None:
    for said, meant in (
        ({}, Component("normal")),
        ({"prior": "normal"}, Component("normal")),
        ({"prior": "mixture"}, Component("mixture", {"components": 10})),
        ({"prior": {"type": "mixture", "components": 200}}, Component("mixture", {"components": 200})),
    ):
        assert spec_from_dict({**SPEC, **said}).prior == meant
        assert nbridge.Spec.model_validate(spec_from_dict({**SPEC, **said}).as_dict()).prior == meant


OWN = "For your own class write 'package.module:Class'."
MISTAKES = {
    "mixtrue": ("mixtrue", f"prior: unknown prior 'mixtrue'. Did you mean 'mixture'? Known: mixture, normal. {OWN}"),
    "a number": (3, "prior: expected a type or a mapping with the key 'type', got 3"),
    "no components": ({"type": "mixture", "components": 0}, "prior.components: expected 1 or more, got 0"),
    "too many": ({"type": "mixture", "components": 201}, "prior.components: expected 200 or less, got 201"),
    "half": ({"type": "mixture", "components": 2.5}, "prior.components: expected an integer, got 2.5"),
    "a slip": (
        {"type": "mixture", "component": 5},
        "prior.component: unknown key 'component'. Did you mean 'components'? Known: type, components",
    ),
    "of a normal": ({"type": "normal", "components": 5}, "prior.components: unknown key 'components'. Known: type"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_in_a_prior_is_told_where_it_stands(kind: str) -> None:
    said, message = MISTAKES[kind]
    with pytest.raises(nbridge.SpecError) as caught:
        spec_from_dict({**SPEC, "prior": said})
    assert caught.value.problems == [message]


REFUSED = {
    "norml": ({"prior": "norml"}, "unknown prior 'norml'. Did you mean 'normal'? Known: normal, mixture"),
    "none there": ({"prior": "mixture"}, "this model has no mixture prior; train it with prior: mixture"),
    "given": (
        {"prior": "normal", "given": {"y": 1}},
        "prior cannot be combined with given values (y); leave one of them out",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_prior_that_is_not_to_be_had_is_told(kind: str) -> None:
    options, message = REFUSED[kind]
    with pytest.raises(nbridge.DataError, match=f"^{re.escape(message)}$"):
        nbridge.Model(nbridge.build_model(spec_from_dict(SPEC))).generate(2, **options)
