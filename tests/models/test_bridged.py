"""The bridged model's losses against hand computations, and its posteriors against closed forms."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import LinearGaussian, exact_model
from strategies import SEEDS, grown_model, rows_of, served
from torch import Tensor
from torch.nn import functional as F

from nbridge.data.batch import Batch
from nbridge.models.base import MultimodalVAE, Stage
from nbridge.models.bridged import BridgedVAE
from nbridge.models.subsets import random_subset
from nbridge.nn.distributions import diagonal_kl, diagonal_normal
from nbridge.spec.objectives import DEFAULT_OBJECTIVE, PAPER_OBJECTIVE
from nbridge.spec.spec import Spec
from nbridge.training.build import build_model

# Float32 through a few layers and sums over a few rows.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
WEIGHTS = {"image": 1.0, "tag": 10.0, "size": 0.5}
ROWS = 6


def small_model(
    combine: str = "poe", objective: Any = "paper", seed: int = 0, subsets: str = "singletons", encoders: str = "shared"
) -> BridgedVAE:
    """An image, a class and two reals, with weights, in eval mode so that every pass gives the same."""
    modalities = {
        "image": {"shape": [1, 2, 3], "encoder": {"type": "mlp", "hidden": [5]}, "likelihood": "bernoulli", "features": 4},
        "tag": {"shape": 3, "encoder": {"type": "embedding", "embedding_dim": 2}, "likelihood": "categorical", "features": 3},
        "size": {"shape": 2, "encoder": "mlp", "likelihood": {"type": "normal", "scale": 0.7}, "features": 4},
    }
    spec = Spec.model_validate(
        {
            "latent_dim": 3,
            "modalities": {name: part | {"weight": WEIGHTS[name]} for name, part in modalities.items()},
            "fusion": {"hidden": [6]},
            "bridges": {"hidden": [5], "objective": objective, "combine": combine, "subsets": subsets, "encoders": encoders},
        }
    )
    model = grown_model(spec, seed)
    assert isinstance(model, BridgedVAE)
    return model


def some_rows(model: MultimodalVAE, seed: int = 1, *, complete: bool = False) -> Batch:
    """Rows of all kinds: the first complete, the last empty, the others in between."""
    batch = Batch.complete(rows_of(model, ROWS, seed))
    if complete:
        return model.prepare(batch)
    table = [[1, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0]]
    masks = {name: torch.tensor(row, dtype=torch.bool) for name, row in zip(model.names, table, strict=True)}
    return model.prepare(Batch(batch.values, masks))


def stage(model: MultimodalVAE, name: str) -> Stage:
    return {stage.name: stage for stage in model.stages()}[name]


# Hand computations


def posterior_by_hand(model: BridgedVAE, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    raw = model.fusion.network(torch.cat([features[name] for name in ("image", "tag", "size")], -1))
    return raw[..., :3], raw[..., 3:].clamp(-10, 4)


def log_prob_by_hand(model: BridgedVAE, name: str, z: Tensor, batch: Batch) -> Tensor:
    """log p(x_i | z), shape (B,), for z of shape (B, D)."""
    raw, x = model.decoders[name].network(z), batch.values[name]
    if name == "image":
        return -F.binary_cross_entropy_with_logits(raw, x, reduction="none").flatten(1).sum(1)
    if name == "tag":
        return -F.cross_entropy(raw, x, reduction="none")
    likelihood = model.likelihoods[name]
    loc, scale = likelihood.shift + likelihood.unit * raw, likelihood.unit * 0.7
    return (-0.5 * ((x - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum(1)


def kl_by_hand(loc: Tensor, log_variance: Tensor, loc2: Tensor | float = 0.0, log_variance2: Tensor | float = 0.0) -> Tensor:
    log_variance2 = torch.as_tensor(log_variance2)
    ratio = (log_variance - log_variance2).exp()
    return 0.5 * (ratio + (loc - loc2) ** 2 / log_variance2.exp() - 1 - log_variance + log_variance2).sum(-1)


def draw(loc: Tensor, log_variance: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return loc + (log_variance / 2).exp() * torch.normal(torch.zeros_like(loc), torch.ones_like(loc))


def mean_over(loss: Tensor, rows: Tensor) -> Tensor:
    """The mean over the rows that count, zero where there are none."""
    return loss[rows].mean() if rows.any() else loss.new_zeros(())


@pytest.mark.parametrize("kl_weight", [1.0, 0.25])
def test_the_joint_loss_is_equation_7(kl_weight: float) -> None:
    model = small_model()
    batch = some_rows(model, complete=True)
    torch.manual_seed(5)
    terms = stage(model, "joint").loss(batch, {}, kl_weight)
    loc, log_variance = posterior_by_hand(model, model.encode(batch))
    z = draw(loc, log_variance, 5)
    expected = {name: -WEIGHTS[name] * log_prob_by_hand(model, name, z, batch).mean() for name in model.names}
    expected["kl"] = kl_weight * kl_by_hand(loc, log_variance).mean()
    torch.testing.assert_close(terms, expected, **CLOSE)


def bridges_by_hand(model: BridgedVAE, batch: Batch, seed: int, kl_weight: float) -> dict[str, Tensor]:
    """Every term of stage ``bridges``, unweighted, source by source."""
    h, present = model.encode(batch), batch.present
    teacher_loc, teacher_log_variance = posterior_by_hand(model, {name: x * present[name][:, None] for name, x in h.items()})
    read = {name: encoder(model.inputs(batch)[name]) for name, encoder in model.sources.items()} if model.sources else h
    hallucinated = model.bridges.hallucinate(read)
    names = model.names
    filled = [{name: h[name] if name == source else hallucinated[source, name] for name in names} for source in names]
    posteriors = [posterior_by_hand(model, features) for features in filled]
    loc, log_variance = (torch.stack(part) for part in zip(*posteriors, strict=True))
    z = draw(loc, log_variance, seed)
    several = torch.stack([present[name] for name in names]).sum(0) >= 2
    terms = dict.fromkeys(("elbo.nll", "elbo.kl", "distill", "match", "cross"), torch.zeros(()))
    for i, source in enumerate(names):
        own = -WEIGHTS[source] * log_prob_by_hand(model, source, z[i], batch)
        terms["elbo.nll"] = terms["elbo.nll"] + mean_over(own, present[source])
        terms["elbo.kl"] = terms["elbo.kl"] + kl_weight * mean_over(kl_by_hand(loc[i], log_variance[i]), present[source])
        divergence = kl_by_hand(teacher_loc, teacher_log_variance, loc[i], log_variance[i])
        terms["distill"] = terms["distill"] + mean_over(divergence, present[source] & several)
        for target in names:
            both = present[source] & present[target]
            if target != source:
                error = ((hallucinated[source, target] - h[target]) ** 2).sum(1)
                terms["match"] = terms["match"] + mean_over(error, both)
            if target == "tag" != source:
                guess = -WEIGHTS["tag"] * log_prob_by_hand(model, "tag", z[i], batch)
                terms["cross"] = terms["cross"] + mean_over(guess, both)
    return terms


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("encoders", ["shared", "own"])
@pytest.mark.parametrize(
    "objective",
    [
        {"elbo": 1.0},
        {"distill": 1.0},
        {"match": 1.0},
        {"cross": 1.0},
        {"elbo": 0.5, "distill": 2.0, "match": 3.0, "cross": 0.1},
        "paper",
    ],
)
def test_every_term_of_the_bridges_objective_is_what_the_table_says(objective: Any, encoders: str, complete: bool) -> None:
    model = small_model(objective=objective, encoders=encoders)
    batch = some_rows(model, complete=complete)
    bridges = stage(model, "bridges")
    features = bridges.features(batch)
    torch.manual_seed(7)
    terms = bridges.loss(batch, features, 0.25)
    weights = {"elbo": 1.0} if objective == "paper" else objective
    by_hand = bridges_by_hand(model, batch, 7, 0.25)
    expected = {name: weights[name.split(".")[0]] * term for name, term in by_hand.items() if name.split(".")[0] in weights}
    torch.testing.assert_close(terms, expected, **CLOSE)


EVERY_TERM = {"elbo": 0.5, "distill": 2.0, "match": 3.0, "cross": 0.1}


@pytest.mark.parametrize("combine", ["mean", "poe"])
@pytest.mark.parametrize("subsets", ["random", "all"])
def test_larger_sets_of_sources_are_asked_the_same_with_the_posterior_that_serves_them(subsets: str, combine: str) -> None:
    """Of rows that have more than the set: what it adds to the terms of single sources, set by set and row by row."""
    model, plain = small_model(combine, EVERY_TERM, subsets=subsets), small_model(combine, EVERY_TERM)
    batch, names = some_rows(model), model.names
    features = stage(model, "bridges").features(batch)
    torch.manual_seed(7)
    alone = stage(plain, "bridges").loss(batch, features, 0.25)
    state = torch.get_rng_state()
    torch.manual_seed(7)
    terms = stage(model, "bridges").loss(batch, features, 0.25)
    torch.set_rng_state(state)
    if subsets == "all":
        sets = [[{*pair}] * ROWS for pair in (names[:2], (names[0], names[2]), names[1:])]
    else:
        part = random_subset(model.presence(batch), 2)
        sets = [[{name for name, member in zip(names, part[:, row].tolist(), strict=True) if member} for row in range(ROWS)]]
    expected = {term: loss.clone() for term, loss in alone.items()}
    for members in sets:
        noise, found = torch.randn(ROWS, model.latent_dim), {term: [] for term in expected}
        for row, members_of_row in enumerate(members):
            one = batch.slice(row, row + 1)
            has = {name for name in names if bool(one.present[name])}
            if not (members_of_row < has and len(members_of_row) == 2):
                continue
            q = model.infer(model.prepare(one.only(*members_of_row)))
            z = q.mean + q.stddev * noise[row]
            said = {name: -WEIGHTS[name] * model.log_prob(name, z, one)[0] for name in names}
            teacher = diagonal_normal(features["teacher.loc"][row], features["teacher.scale"][row])
            found["elbo.nll"].append(torch.stack([said[name] for name in members_of_row]).sum())
            found["elbo.kl"].append(0.25 * model.kl_to_prior(q)[0])
            found["distill"].append(diagonal_kl(teacher, q)[0])
            found["cross"] += [said["tag"]] if "tag" in has - members_of_row else []
        for term, losses in found.items():
            expected[term] = expected[term] + EVERY_TERM[term.split(".")[0]] * (torch.stack(losses).mean() if losses else 0.0)
    torch.testing.assert_close(terms, expected, **CLOSE)


def test_the_default_objective_and_the_papers() -> None:
    assert dict(DEFAULT_OBJECTIVE) == {"distill": 1.0, "cross": 1.0}
    assert dict(PAPER_OBJECTIVE) == {"elbo": 1.0}
    assert small_model(objective="paper").objective == {"elbo": 1.0}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("source", ["image", "tag", "size"])
def test_rows_that_hold_one_modality_train_only_the_bridges_that_leave_it(source: str, training: bool) -> None:
    model = small_model(objective={"elbo": 1.0, "distill": 1.0, "match": 1.0, "cross": 1.0})
    bank = model.bridges.train(training)
    before = {name: buffer.clone() for name, buffer in bank.named_buffers()}
    batch = model.prepare(Batch.complete(rows_of(model, ROWS, 1)).only(source))
    bridges = stage(model, "bridges")
    sum(bridges.loss(batch, bridges.features(batch), 1.0).values()).backward()
    for group, pairs in bank.groups.items():
        for position, (leaves, _) in enumerate(pairs):
            gradients = [parameter.grad[position] for parameter in bank.stacks[group].parameters()]
            assert any(gradient.any() for gradient in gradients) == (leaves == source)
            moved = [not torch.equal(b[position], before[f"stacks.{group}.{n}"][position]) for n, b in bank.stacks[group].named_buffers()]
            assert all(moved) == any(moved) == (training and leaves == source)


@pytest.mark.parametrize("term", ["elbo", "distill", "match", "cross"])
def test_no_value_of_an_absent_modality_reaches_the_gradient(term: str) -> None:
    gradients = []
    for junk in (0.0, float("nan"), 1e4):
        model = small_model(objective={term: 1.0})
        model.bridges.train()
        clean = some_rows(model)
        values = {
            name: torch.where(clean.present[name].reshape(-1, *(1 for _ in x.shape[1:])), x.float(), junk)
            for name, x in clean.values.items()
        }
        batch = model.prepare(Batch(values, clean.present))
        bridges = stage(model, "bridges")
        torch.manual_seed(3)
        sum(bridges.loss(batch, bridges.features(batch), 1.0).values()).backward()
        gradients.append([parameter.grad for parameter in model.bridges.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients[0])
    assert any(gradient.any() for gradient in gradients[0])
    for other in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], other, strict=True))


# Which rows teach which stage


def test_cross_takes_the_rows_that_have_its_target_and_another_modality() -> None:
    model = small_model(objective={"cross": 1})
    batch = some_rows(model)
    targets = [name for name, likelihood in model.likelihoods.items() if likelihood.discrete]
    number = torch.stack(list(batch.present.values())).sum(0)
    expected = torch.stack([batch.present[name] for name in targets]).any(0) & (number >= 2)
    assert torch.equal(stage(model, "bridges").rows(batch), expected)


@pytest.mark.parametrize(("objective", "least"), [({"elbo": 1}, 1), ({"match": 1}, 2), ({"distill": 1}, 2), ({"elbo": 1, "distill": 1}, 1)])
def test_a_stage_takes_the_rows_that_can_teach_it(objective: dict[str, float], least: int) -> None:
    model = small_model(objective=objective)
    batch = some_rows(model)
    number = torch.stack(list(batch.present.values())).sum(0)
    assert torch.equal(stage(model, "joint").rows(batch), number >= 1)
    assert torch.equal(stage(model, "bridges").rows(batch), number >= least)


@pytest.mark.parametrize("encoders", ["shared", "own"])
def test_stage_joint_trains_all_but_the_bridges_and_stage_bridges_the_rest(encoders: str) -> None:
    model = small_model(encoders=encoders)
    trained = [{id(p) for module in stage(model, name).modules for p in module.parameters()} for name in ("joint", "bridges")]
    assert trained[0].isdisjoint(trained[1])
    assert trained[0] | trained[1] == {id(parameter) for parameter in model.parameters()}
    assert trained[1] == {id(parameter) for module in (model.bridges, model.sources) for parameter in module.parameters()}
    assert bool(model.sources) is (encoders == "own")


@pytest.mark.parametrize("combine", ["mean", "poe"])
def test_encoders_of_their_own_begin_as_the_joint_ones_and_leave_complete_rows_alone(combine: str) -> None:
    own, shared = small_model(combine, encoders="own"), small_model(combine)
    shared.load_state_dict({name: x for name, x in own.state_dict().items() if not name.startswith("sources.")})
    batch, complete = some_rows(own), some_rows(own, complete=True)
    assert not torch.allclose(own.infer(batch).mean, shared.infer(batch).mean)
    assert torch.equal(own.infer(complete).mean, shared.infer(complete).mean)
    begin = stage(own, "bridges").begin
    assert begin is not None
    begin(())
    torch.testing.assert_close(own.infer(batch).mean, shared.infer(batch).mean, **CLOSE)
    assert all(a is not b for a, b in zip(own.sources.parameters(), own.encoders.parameters(), strict=True))


def test_encoders_of_their_own_are_one_for_each_modality() -> None:
    model = build_model(two_reals(encoders="own"))
    parts = (dict(model.encoders), dict(model.decoders), model.fusion, model.bridges)
    with pytest.raises(ValueError, match=r"^encoders of bridges for \['x'\], expected one for each of x, y$"):
        BridgedVAE(*parts, sources={"x": model.sources["x"]}, objective={"elbo": 1.0})


# Objectives that leave nothing to train


def two_reals(**bridges: Any) -> Spec:
    return Spec.model_validate(
        {"modalities": {name: {"shape": 2, "encoder": "mlp", "likelihood": "normal", "features": 3} for name in "xy"}, "bridges": bridges}
    )


def test_cross_alone_is_refused_where_nothing_is_discrete() -> None:
    model = build_model(two_reals())
    parts = (dict(model.encoders), dict(model.decoders), model.fusion, model.bridges)
    with pytest.raises(
        ValueError, match=r"^objective \{'cross': 1.0\} trains nothing: 'cross' needs a modality with a discrete likelihood$"
    ):
        BridgedVAE(*parts, objective={"cross": 1.0})


def test_cross_beside_other_terms_is_passed_over_where_nothing_is_discrete() -> None:
    assert build_model(two_reals(objective={"distill": 1, "cross": 1})).objective == {"distill": 1.0}


def test_a_single_modality_has_no_stage_of_bridges() -> None:
    modalities = {"x": {"shape": 2, "encoder": "mlp", "likelihood": "normal"}}
    model = grown_model(Spec.model_validate({"modalities": modalities, "bridges": {"encoders": "own"}}), 0)
    assert not model.sources
    assert [stage.name for stage in model.stages()] == ["joint"]
    batch = Batch.complete(rows_of(model, 4, 0))
    q = model.posterior(Batch(batch.values, {"x": torch.tensor([True, True, False, True])}))
    assert torch.equal(q.mean[0, 0], model.posterior(batch).mean[0, 0])
    assert (q.mean[0, 2] == 0).all()


@pytest.mark.parametrize("broken", ["decoders", "weights"])
def test_names_that_disagree_are_refused(broken: str) -> None:
    model = build_model(two_reals())
    encoders, decoders, weights = dict(model.encoders), dict(model.decoders), {"x": 1.0}
    if broken == "decoders":
        decoders["z"] = decoders.pop("y")
    else:
        weights["z"] = 2.0
    with pytest.raises(ValueError, match=f"^(encoders|weights) .*{'x.*y.*x.*z' if broken == 'decoders' else 'unknown.*z'}"):
        BridgedVAE(encoders, decoders, model.fusion, model.bridges, weights, objective={"elbo": 1.0})


# Serving


@given(drawn=served(max_size=5, kinds=["bridged"]), data=st.data())
def test_with_one_modality_present_mean_and_poe_are_one(drawn: tuple[Spec, MultimodalVAE, Batch], data: st.DataObject) -> None:
    _, model, batch = drawn
    source = data.draw(st.sampled_from(model.names))
    batch = batch.only(source)
    posteriors = []
    for combine in ("mean", "poe"):
        twin = copy.deepcopy(model)
        twin.combine = combine
        posteriors.append(twin.posterior(batch))
    mean, poe = posteriors
    # Float32: a precision, its logarithm and a quotient.
    torch.testing.assert_close(poe.mean, mean.mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(poe.stddev, mean.stddev, rtol=1e-3, atol=1e-4)


@given(drawn=served(max_size=5, kinds=["bridged"]))
def test_complete_rows_get_the_joint_posterior_whatever_stands_beside_them(drawn: tuple[Spec, MultimodalVAE, Batch]) -> None:
    _, model, batch = drawn
    complete = torch.stack(list(batch.present.values())).all(0)
    prepared = model.prepare(batch)
    joint = model.fusion(model.encode(prepared))
    q = model.posterior(batch, samples=2)
    if complete.all():
        assert torch.equal(q.mean, joint.mean.expand(2, -1, -1))
    # Among other rows the same networks, whose products may add up in another order.
    torch.testing.assert_close(q.mean[:, complete], joint.mean[complete].expand(2, -1, -1), rtol=1e-5, atol=1e-5)
    # The scale goes through a logarithm and an exponential, which may cost its last bits.
    torch.testing.assert_close(q.stddev[:, complete], joint.stddev[complete].expand(2, -1, -1), rtol=1e-5, atol=1e-6)


@given(drawn=served(max_size=4, kinds=["bridged"]))
def test_the_mean_combines_features_and_poe_posteriors(drawn: tuple[Spec, MultimodalVAE, Batch]) -> None:
    _, model, batch = drawn
    prepared = model.prepare(batch)
    h = model.encode(prepared)
    read = model.read(h, model.inputs(prepared))
    q = model.posterior(batch)
    for row in range(len(batch)):
        present = [name for name in model.names if batch.present[name][row]]
        if not 0 < len(present) < len(model.names):
            continue
        guesses = model.bridges.hallucinate({name: x[row : row + 1] for name, x in read.items()})
        if model.combine == "mean":
            features = {
                name: h[name][row : row + 1] if name in present else torch.stack([guesses[i, name] for i in present]).mean(0)
                for name in model.names
            }
            expected = model.fusion(features)
            loc, precision = expected.mean[0].double(), expected.variance[0].double() ** -1
        else:
            parts = [
                model.fusion({name: h[name][row : row + 1] if name == i else guesses[i, name] for name in model.names}) for i in present
            ]
            precisions = torch.stack([part.variance[0].double() ** -1 for part in parts])
            precision = torch.maximum(precisions.sum(0) - (len(parts) - 1), precisions.amax(0))
            loc = sum(p * part.mean[0] for p, part in zip(precisions, parts, strict=True)) / precision
        # Float32 in the networks, and a difference of precisions.
        torch.testing.assert_close(q.mean[0, row].double(), loc, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(q.stddev[0, row].double(), precision**-0.5, rtol=1e-3, atol=1e-4)


sizes = st.lists(st.integers(1, 4), min_size=2, max_size=5)


@given(sizes=sizes, latent_dim=st.integers(1, 3), seed=SEEDS, combine=st.sampled_from(["mean", "poe"]), data=st.data())
def test_the_posterior_and_the_evidence_of_a_linear_gaussian_model_are_exact(
    sizes: list[int], latent_dim: int, seed: int, combine: str, data: st.DataObject
) -> None:
    oracle = LinearGaussian.random({f"m{i}": size for i, size in enumerate(sizes)}, latent_dim, seed)
    model = exact_model(oracle, combine=combine)
    present = data.draw(hnp.arrays(bool, (len(sizes), 3)))
    x = {name: value.astype(np.float32).astype(np.float64) for name, value in oracle.sample(3, seed + 1).items()}
    masks = {name: torch.as_tensor(mask.copy()) for name, mask in zip(x, present, strict=True)}
    batch = Batch({name: torch.as_tensor(value) for name, value in x.items()}, masks)
    with torch.no_grad():
        q = model.posterior(batch, samples=4)
        torch.manual_seed(seed)
        z = q.sample()
        evidence = model.log_joint(batch, z) - q.log_prob(z)
    for row in range(3):
        observed = {name: value[row] for name, value in x.items() if masks[name][row]}
        mean, covariance = oracle.posterior(observed)
        # Float64: sums, inverses and logarithms.
        np.testing.assert_allclose(q.mean[0, row], mean, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(q.variance[0, row], np.diag(covariance), rtol=1e-8)
        # Under the exact posterior log p(x, z) - log q(z | x) is log p(x) for every z; the prior is in float32.
        expected = oracle.log_prob(observed) if observed else 0.0
        np.testing.assert_allclose(evidence[:, row], expected, rtol=1e-6, atol=1e-5)


@settings(max_examples=10)
@given(seed=SEEDS)
def test_the_joint_loss_is_the_evidence_where_the_posterior_is_exact(seed: int) -> None:
    oracle = LinearGaussian.random({"a": 2, "b": 3}, 2, seed)
    model = exact_model(oracle)
    x = {name: value.astype(np.float32).astype(np.float64) for name, value in oracle.sample(400, seed).items()}
    batch = model.prepare(Batch.complete({name: torch.as_tensor(value) for name, value in x.items()}))
    torch.manual_seed(seed)
    loss = sum(stage(model, "joint").loss(batch, {}, 1.0).values()).item()
    evidence = np.mean([oracle.log_prob({name: value[row] for name, value in x.items()}) for row in range(400)])
    # One draw a row: the bound's own noise is a standard deviation of about one nat, so 0.05 for 400 rows; six of them.
    assert -loss == pytest.approx(evidence, abs=0.3)
