"""The trainer: what a stage may change, what it must not, and what its settings do."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch

import nbridge
from nbridge.acceleration import features
from nbridge.acceleration.precision import matmul_precision
from nbridge.data.batch import Batch
from nbridge.errors import NBridgeError
from nbridge.models.base import MultimodalVAE
from nbridge.nn.networks import StackedMLP
from nbridge.training.budgets import Budget
from nbridge.training.callbacks import Callback, StageBegun, StageEnded
from nbridge.training.records import EpochRecord
from nbridge.training.trainer import TrainingState, fit

ROWS = 96
MODALITIES = {
    "a": {"shape": 3, "features": 8, "encoder": {"type": "mlp", "hidden": [8]}, "likelihood": "normal"},
    "b": {"shape": [1, 4, 4], "features": 6, "encoder": {"type": "conv", "channels": [4]}, "likelihood": "bernoulli"},
    "c": {"shape": 4, "features": 8, "encoder": {"type": "mlp", "hidden": [8]}, "likelihood": "categorical"},
}


def spec_with(**training: object) -> nbridge.Spec:
    stages = training.pop("stages", {"joint": {"epochs": 3}, "bridges": {"epochs": 3}})
    bridges = training.pop("bridges", {"hidden": [8]})
    return nbridge.Spec.model_validate(
        {
            "latent_dim": 4,
            "modalities": MODALITIES,
            "fusion": {"hidden": [8]},
            "bridges": bridges,
            "training": {"batch_size": 32, "stages": stages, **training},
        }
    )


def fresh(spec: nbridge.Spec, seed: int = 0) -> MultimodalVAE:
    return nbridge.build_model(spec, seed=seed)


def rows(number: int = ROWS) -> Batch:
    generator = torch.Generator().manual_seed(5)
    c = torch.randint(0, 4, (number,), generator=generator)
    a = torch.randn(number, 3, generator=generator) + c[:, None]
    b = ((torch.rand(number, 1, 4, 4, generator=generator) + c[:, None, None, None] / 4) > 0.8).float()
    return Batch.complete({"a": a, "b": b, "c": c})


class Records(Callback):
    def __init__(self) -> None:
        self.epochs: list[EpochRecord] = []
        self.stages: list[tuple[str, int, int]] = []
        self.budgets: list[Budget] = []

    def on_stage(self, begun: StageBegun) -> None:
        self.budgets.append(begun.budget)

    def on_validation(self, record: EpochRecord) -> None:
        self.epochs.append(record)

    def on_stage_end(self, ended: StageEnded) -> None:
        self.stages.append((ended.stage, self.budgets[-1].counted(ended.best), self.budgets[-1].counted(ended.done)))


def train(
    spec: nbridge.Spec, batch: Batch | None = None, validation: Batch | None = None, **options: object
) -> tuple[MultimodalVAE, Records]:
    model, records = fresh(spec), Records()
    fit(model, batch or rows(), validation, spec.training, callbacks=[records], **options)
    return model, records


@pytest.mark.parametrize(
    "objective", ["paper", {"distill": 1, "cross": 1}, {"match": 1}, {"elbo": 1, "distill": 0.5, "match": 0.1, "cross": 2}]
)
def test_stage_bridges_leaves_every_joint_tensor_bit_identical_and_changes_every_bridge(objective: object):
    spec = spec_with(bridges={"hidden": [8], "objective": objective})
    model = fresh(spec)
    snapshots: list[dict[str, torch.Tensor]] = []

    def save(state: TrainingState) -> None:
        if state.epoch == 0:  # a stage is over
            snapshots.append({name: tensor.clone() for name, tensor in model.state_dict().items()})

    fit(model, rows(), None, spec.training, save=save)
    after_joint, after_bridges = snapshots
    for name, tensor in after_joint.items():
        if name.startswith(("bridges.", "sources.")):
            if not tensor.is_floating_point():
                continue
            stacked = (tensor != after_bridges[name]).flatten(1).any(1) if tensor.ndim > 1 else tensor != after_bridges[name]
            assert stacked.all() or (name.startswith("sources.") and stacked.any()), f"{name}: a bridge did not change"
        else:
            assert torch.equal(tensor, after_bridges[name]), name


def test_stage_joint_leaves_the_bridges_alone_and_changes_all_else():
    spec = spec_with()
    model = fresh(spec)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    changed: list[set[str]] = []
    fit(
        model,
        rows(),
        None,
        spec.training,
        save=lambda _: changed.append({name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}),
    )
    assert changed[0] == {name for name in before if not name.startswith(("bridges.", "sources."))}


def test_cached_features_give_the_same_training_as_features_on_the_fly():
    _, cached = train(spec_with(cache_features=True), validation=rows(24))
    _, lively = train(spec_with(cache_features=False), validation=rows(24))
    for one, other in zip(cached.epochs, lively.epochs, strict=True):
        # Features of a chunk and of a batch differ by the order of sums alone; training adds up such differences.
        assert other.terms == pytest.approx(one.terms, rel=1e-3, abs=1e-3)
        assert other.validation_terms == pytest.approx(one.validation_terms, rel=1e-3, abs=1e-3)


def test_training_is_a_function_of_the_seed():
    first, second, other = train(spec_with(seed=1))[0], train(spec_with(seed=1))[0], train(spec_with(seed=2))[0]
    same = [torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)]
    differs = [not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True)]
    assert all(same)
    assert any(differs)


def test_training_leaves_the_callers_random_state_alone():
    spec = spec_with()
    model = fresh(spec)
    state = torch.random.get_rng_state()
    fit(model, rows(), rows(20), spec.training)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_goes_on_bit_identically_from_any_saved_state():
    spec = spec_with(checkpoint_seconds=0.0)
    saved: list[tuple[TrainingState, dict[str, torch.Tensor]]] = []
    whole = fresh(spec)
    fit(whole, rows(), rows(20), spec.training, save=lambda state: saved.append((copy.deepcopy(state), copy.deepcopy(whole.state_dict()))))
    assert len(saved) == 8  # three epochs and an end, twice
    for state, tensors in saved:
        model = fresh(spec, seed=99)
        model.load_state_dict(tensors)
        fit(model, rows(), rows(20), spec.training, state=state)
        found = model.state_dict()
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, found[name]), (state.stage, state.epoch, name)


def test_the_best_weights_are_those_of_each_stage():
    """MultiVae's two-stage models keep the best weights of stage one, because the two losses are not comparable."""
    stages = {"joint": {"epochs": 6, "learning_rate": 0.1}, "bridges": {"epochs": 6, "learning_rate": 0.1}}
    spec = spec_with(stages=stages, checkpoint_seconds=0.0, calibrate=False)
    model, records, snapshots = fresh(spec), Records(), {}
    fit(
        model,
        rows(),
        rows(24),
        spec.training,
        callbacks=[records],
        save=lambda state: snapshots.setdefault((state.stage, state.epoch), copy.deepcopy(model.state_dict())),
    )
    for index, (stage, best_epoch, _) in enumerate(records.stages):
        losses = {record.epoch: record.validation_loss for record in records.epochs if record.stage == stage}
        assert best_epoch == min(losses, key=losses.__getitem__)
        assert len(set(losses.values())) == 6
        found = model.state_dict()
        for name, tensor in snapshots[index, best_epoch].items():
            if name.startswith(("bridges.", "sources.")) == (stage == "bridges") and name != "exponents":
                assert torch.equal(found[name], tensor), (stage, name)


def test_without_validation_rows_the_last_weights_are_kept():
    _, records = train(spec_with())
    assert records.stages == [("joint", 3, 3), ("bridges", 3, 3)]
    assert all(record.validation_loss is None for record in records.epochs)


def test_patience_ends_a_stage_that_no_longer_improves():
    spec = spec_with(stages={"joint": {"epochs": 50, "patience": 2, "learning_rate": 1.0}, "bridges": {"epochs": 1}})
    _, records = train(spec, validation=rows(24))
    stage, best, epochs = records.stages[0]
    assert (stage, epochs) == ("joint", best + 2)


def test_the_loss_is_the_sum_of_its_named_terms_and_kl_annealing_weighs_the_kl_alone():
    plain = train(spec_with(stages={"joint": {"epochs": 1}, "bridges": {"epochs": 1}}))[1].epochs[0]
    annealed = train(spec_with(stages={"joint": {"epochs": 1, "kl_annealing": 9}, "bridges": {"epochs": 1}}, learning_rate=1e-30))[
        1
    ].epochs[0]
    still = train(spec_with(stages={"joint": {"epochs": 1}, "bridges": {"epochs": 1}}, learning_rate=1e-30))[1].epochs[0]
    assert set(plain.terms) == {"a", "b", "c", "kl", "coupling", "leave_one_out"}
    assert plain.loss == pytest.approx(sum(plain.terms.values()))
    assert annealed.terms["kl"] == pytest.approx(still.terms["kl"] / 10, rel=1e-5)
    assert annealed.terms["a"] == pytest.approx(still.terms["a"], rel=1e-5)


def test_warm_up_rises_and_cosine_falls_to_nothing():
    spec = spec_with(schedule="cosine", warmup_steps=4, stages={"joint": {"epochs": 8}, "bridges": {"epochs": 1}})
    rates = [record.learning_rate for record in train(spec)[1].epochs if record.stage == "joint"]
    steps, total, warmup = 3, 24, 4
    last_step = [epoch * steps + steps - 1 for epoch in range(8)]
    expected = [
        1e-3 * min(1, (step + 1) / (warmup + 1)) * (1 + math.cos(math.pi * max(0, step - warmup) / (total - warmup))) / 2
        for step in last_step
    ]
    assert rates == pytest.approx(expected)


def test_gradient_clipping_bounds_the_step_and_weight_decay_shrinks():
    frozen = {"joint": {"epochs": 1, "gradient_clip": 1e-12}, "bridges": {"epochs": 1}}
    spec = spec_with(stages=frozen)
    model = fresh(spec)
    before = copy.deepcopy(model.encoders.state_dict())
    fit(model, rows(), None, spec.training)
    # Adam scales a gradient of norm 1e-12 by its own root mean square plus 1e-8, so that a step is about 1e-4 of the learning rate.
    for name, parameter in model.encoders.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=2e-6)
    decayed, plain = train(spec_with(weight_decay=50.0))[0], train(spec_with())[0]
    assert decayed.fusion.network.layers[0].weight.norm() < 0.9 * plain.fusion.network.layers[0].weight.norm()


def test_bf16_products_change_the_result_a_little_and_the_setting_is_put_back():
    before = torch.get_float32_matmul_precision()
    _, exact = train(spec_with())
    _, rounded = train(spec_with(precision="bf16"))
    assert torch.get_float32_matmul_precision() == before
    for one, other in zip(exact.epochs, rounded.epochs, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=0.05)
    # bfloat16 keeps 8 bits: products that were rounded to it cannot agree to six digits.
    assert abs(exact.epochs[0].loss - rounded.epochs[0].loss) > 1e-5


def rounded_product(x, layer):
    """The product of factors rounded to bfloat16, exactly, and then rounded to bfloat16 itself."""
    return (x.bfloat16().double() @ layer.weight.bfloat16().double().T).bfloat16()


def test_bf16_products_are_those_of_rounded_factors_and_what_a_network_gives_is_float32():
    first, last = torch.nn.Linear(64, 32, bias=False), torch.nn.Linear(32, 8, bias=False)
    network, x = torch.nn.Sequential(first, torch.nn.ReLU(), last), torch.randn(16, 64)
    with torch.no_grad(), matmul_precision("bf16", network):
        y = network(x)
    assert y.dtype == torch.float32
    # Sums are taken in another order: a rounding may fall to the other side, 2^-8 of the size at the most.
    torch.testing.assert_close(y, rounded_product(rounded_product(x, first).relu(), last).float(), rtol=2**-7, atol=2**-9)
    assert not torch.allclose(y, network(x), rtol=1e-4, atol=1e-5)
    assert torch.equal(network(x), (x @ first.weight.T).relu() @ last.weight.T)


def test_modules_of_ones_own_see_float32_between_their_layers():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = torch.nn.Linear(4, 4), []

        def forward(self, x):
            self.seen = [self.layer(x), self.layer.weight @ x.T]
            return self.seen[1]

    own = Own()
    with matmul_precision("bf16", own):
        y = own(torch.randn(3, 4))
    assert own.seen[0].dtype == y.dtype == torch.float32


@pytest.mark.parametrize("counts", [None, torch.arange(40) < 25])
def test_the_gradients_of_bf16_products_are_close_to_those_of_float32(counts):
    stack, x = StackedMLP(3, 24, 5, hidden=(48,)), torch.randn(3, 40, 24)
    mask = None if counts is None else counts.expand(3, 40)
    gradients = []
    for products in ("float32", "bf16"):
        stack.zero_grad()
        with matmul_precision(products, stack):
            stack(x, mask).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in stack.parameters()]))
        assert all(p.grad.dtype == torch.float32 for p in stack.parameters())
    exact, rounded = gradients
    assert (exact - rounded).norm() < 0.03 * exact.norm()
    assert not torch.equal(exact, rounded)


def test_features_in_a_file_train_the_same_bridges(monkeypatch):
    _, inside = train(spec_with(), validation=rows(24))
    monkeypatch.setattr(features, "MEMORY_SHARE", 0.0)
    _, outside = train(spec_with(), validation=rows(24))
    assert [e.terms for e in inside.epochs] == [e.terms for e in outside.epochs]


@pytest.mark.slow
def test_a_compiled_stage_learns_what_an_eager_one_does_and_says_what_compiling_took():
    # Annealing changes the weight of a term in the second epoch. Steps are small, because Adam makes whole steps of gradients that are
    # nothing but rounding, such as those of a bias under a normalisation.
    training = {"batch_size": 32, "kl_annealing": 1, "learning_rate": 1e-6, "stages": {"joint": {"epochs": 2}}}
    keys = {"model": "joint", "latent_dim": 4, "modalities": {"a": MODALITIES["a"], "c": MODALITIES["c"]}, "fusion": {"hidden": []}}
    eager, compiled = Records(), Records()
    for recorder, compiling in ((eager, False), (compiled, True)):
        spec = nbridge.Spec.model_validate({**keys, "training": {**training, "compile": compiling}})
        fit(fresh(spec), rows().select("a", "c"), None, spec.training, callbacks=[recorder])
    for one, other in zip(eager.epochs, compiled.epochs, strict=True):
        assert other.terms == pytest.approx(one.terms, rel=1e-4)
        assert one.compile_seconds is None
        assert (other.compile_seconds is not None) == (other.epoch == 1)
        assert other.compile_seconds is None or 0 < other.compile_seconds <= other.seconds


def test_what_cannot_be_compiled_is_told_in_one_line(monkeypatch):
    from torch._dynamo.exc import TorchDynamoException

    def refuse(loss, **_):
        def call(*_):
            raise TorchDynamoException("\nNo working C++ compiler found\nmore")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(NBridgeError) as error:
        train(spec_with(compile=True))
    assert str(error.value) == (
        "stage joint could not be compiled (No working C++ compiler found). "
        "Install a C++ compiler such as g++, or set training.compile to false."
    )


def test_what_the_caller_froze_stays_frozen():
    spec = spec_with()
    model = fresh(spec)
    frozen = model.encoders["a"].requires_grad_(False)
    before = copy.deepcopy(dict(frozen.named_parameters()))
    fit(model, rows(), None, spec.training)
    for name, parameter in frozen.named_parameters():
        assert torch.equal(parameter, before[name])
        assert not parameter.requires_grad
    assert all(parameter.requires_grad for parameter in model.decoders.parameters())


def test_rows_with_absent_modalities_train_every_stage_that_they_can_teach():
    batch = rows()
    partial = Batch(batch.values, {name: torch.arange(ROWS) < number for name, number in (("a", 40), ("b", ROWS), ("c", 60))})

    class Rows(Callback):
        def __init__(self) -> None:
            self.seen: dict[str, tuple[int, int]] = {}

        def on_stage(self, begun: StageBegun) -> None:
            self.seen[begun.stage] = (begun.rows, begun.total_rows)

    for objective, taught in (("paper", ROWS), ({"distill": 1}, 60)):
        spec, counted = spec_with(bridges={"hidden": [8], "objective": objective}), Rows()
        fit(fresh(spec), partial, None, spec.training, callbacks=[counted])
        assert counted.seen == {"joint": (ROWS, ROWS), "bridges": (taught, ROWS)}


@pytest.mark.parametrize("filler", [0.0, 1e6, float("nan")])
def test_what_an_absent_modality_holds_changes_no_trained_tensor(filler: float):
    batch = rows()
    present = {**batch.present, "a": torch.arange(ROWS) < 40}
    hidden = torch.where(present["a"][:, None], batch.values["a"], torch.tensor(filler))
    spec = spec_with(bridges={"hidden": [8], "objective": {"elbo": 1, "distill": 1, "match": 1, "cross": 1}})
    model, other = fresh(spec), fresh(spec)
    fit(model, Batch(batch.values, present), None, spec.training)
    fit(other, Batch({**batch.values, "a": hidden}, present), None, spec.training)
    found = other.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.isfinite(tensor).all(), name
        assert torch.equal(tensor, found[name]), name


def test_a_modality_that_no_row_has_is_a_clear_error():
    batch = rows()
    for never in (batch.hide("b"), batch.select("a", "c")):
        with pytest.raises(nbridge.DataError) as caught:
            train(spec_with(), never)
        assert str(caught.value) == f"modality 'b': present in none of the {ROWS} training rows, expected at least one"


def test_rows_that_teach_bridges_nothing_are_a_clear_error():
    batch, number = rows(), torch.arange(ROWS) % 3
    apart = Batch(batch.values, {name: number == i for i, name in enumerate(batch.names)})
    message = "stage bridges: 0 training rows have the modalities that it needs, expected at least 2. Add rows in which they are present"
    with pytest.raises(nbridge.DataError, match=message):
        train(spec_with(bridges={"hidden": [8], "objective": {"distill": 1}}), apart)


def test_a_loss_that_is_not_finite_stops_training_and_says_what_to_do():
    spec = spec_with(stages={"joint": {"epochs": 30, "learning_rate": 1e18}, "bridges": {"epochs": 1}})
    with pytest.raises(nbridge.NBridgeError, match=r"stage joint, epoch \d+: the loss is (nan|inf) .* Lower training.learning_rate"):
        train(spec)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"b": torch.full((ROWS, 1, 4, 4), 100.0)}, "modality 'b', row 0: value 100 is outside the support of Bernoulli"),
        ({"a": torch.full((ROWS, 3), float("nan"))}, "modality 'a', row 0: value nan is outside the support of Normal"),
        ({"c": torch.full((ROWS,), 4)}, "modality 'c', row 0: value 4 is outside the support of Categorical"),
        ({"c": torch.eye(3).repeat(ROWS // 3, 1)}, "modality 'c': one-hot rows of 3 classes, expected 4"),
        ({"d": torch.zeros(ROWS)}, "no modality 'd' in this model; it has a, b, c"),
    ],
)
def test_rows_that_do_not_fit_are_refused_before_any_training(values: dict[str, torch.Tensor], message: str):
    spec = spec_with()
    model = fresh(spec)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(nbridge.DataError, match=re.escape(message)):
        fit(model, Batch.complete({**rows().values, **values}), None, spec.training)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_infinite_validation_loss_stops_training_and_names_the_term():
    wild = rows(24)
    wild.values["a"][3, 0] = 1e30
    with pytest.raises(nbridge.NBridgeError, match=r"stage joint, epoch 1: the validation loss is inf \(terms: a, kl, leave_one_out\)"):
        train(spec_with(), validation=wild)


def test_validation_rows_that_no_stage_can_use_are_told_of():
    class Validation(Callback):
        def __init__(self) -> None:
            self.rows: list[int] = []

        def on_stage(self, begun: StageBegun) -> None:
            self.rows.append(begun.validation_rows)

    counted, spec = Validation(), spec_with()
    fit(fresh(spec), rows(), rows(24).hide(*rows(24).names), spec.training, callbacks=[counted])
    assert counted.rows == [0, 0]


def test_statistics_are_those_of_the_observed_cells():
    generator = torch.Generator().manual_seed(0)
    x = 1000 + 50 * torch.randn(60, 3, generator=generator)
    cells = torch.arange(180).reshape(60, 3) % 4 > 0  # a hole in most rows
    model = fresh(nbridge.Spec.model_validate({"modalities": {"a": MODALITIES["a"]}}))
    model.fit_statistics(Batch({"a": torch.where(cells, x, 0)}, {"a": torch.ones(60, dtype=torch.bool)}, {"a": cells}))
    for j in range(3):
        seen = x[cells[:, j], j]
        torch.testing.assert_close(model.likelihoods["a"].shift[j], seen.mean())
        torch.testing.assert_close(model.likelihoods["a"].unit[j], seen.std(correction=0))


@pytest.mark.parametrize(("likelihood", "middle"), [("normal", 0.0), ("poisson", 0.0), ("bernoulli", 0.5), ("discretized_logistic", 0.0)])
def test_an_encoder_sees_the_middle_of_the_data_in_place_of_a_hole(likelihood: str, middle: float):
    model = fresh(nbridge.Spec.model_validate({"modalities": {"a": {"shape": 3, "encoder": "mlp", "likelihood": likelihood}}})).eval()
    seen: list[torch.Tensor] = []
    model.encoders["a"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    cells = torch.tensor([[True, False, True]])
    batch = Batch({"a": torch.ones(1, 3)}, {"a": torch.ones(1, dtype=torch.bool)}, {"a": cells})
    model.posterior(batch)
    assert seen[0][0, 1] == middle


def test_one_modality_has_a_single_stage():
    spec = nbridge.Spec.model_validate({"modalities": {"a": MODALITIES["a"]}, "training": {"stages": {"joint": {"epochs": 1}}}})
    _, records = train(spec, Batch.complete({"a": torch.randn(20, 3)}))
    assert [stage for stage, *_ in records.stages] == ["joint"]
