"""Budgets in updates: rounds, the figure that picks the best weights, patience, the decay of the learning rate, and resuming."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import nbridge
from nbridge.common.randomness import own_draws
from nbridge.data.batch import Batch
from nbridge.inference.hidden import HiddenModalities
from nbridge.models.base import MultimodalVAE
from nbridge.runs.run import resume
from nbridge.training.budgets import Budget
from nbridge.training.callbacks import Callback, StageBegun, StageEnded
from nbridge.training.progress import ConsoleProgress
from nbridge.training.records import EpochRecord
from nbridge.training.trainer import TrainingState, fit
from nbridge.training.validation import Validator

MODALITIES = {
    "a": {"shape": 3, "features": 6, "encoder": {"type": "mlp", "hidden": [6]}, "likelihood": "normal"},
    "b": {"shape": 4, "features": 6, "encoder": {"type": "mlp", "hidden": [6]}, "likelihood": "bernoulli"},
    "c": {"shape": 4, "features": 6, "encoder": {"type": "mlp", "hidden": [6]}, "likelihood": "categorical", "weight": 2},
}
FLOW = {"type": "flow", "width": 8, "steps": 1}


def spec_with(updates: int | None = 100, **keys: Any) -> nbridge.Spec:
    training = {"batch_size": 16, "updates": updates, **keys.pop("training", {})}
    small = {"latent_dim": 2, "modalities": MODALITIES, "fusion": {"hidden": [6]}, "bridges": {"hidden": [6]}}
    return nbridge.Spec.model_validate({**small, **keys, "training": training})


def fresh(spec: nbridge.Spec, seed: int = 0) -> MultimodalVAE:
    return nbridge.build_model(spec, seed=seed)


def rows(number: int, seed: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    c = torch.randint(0, 4, (number,), generator=generator)
    a = torch.randn(number, 3, generator=generator) + c[:, None]
    b = ((torch.rand(number, 4, generator=generator) + c[:, None] / 4) > 0.8).float()
    return Batch.complete({"a": a, "b": b, "c": c})


class Records(Callback):
    def __init__(self) -> None:
        self.rounds: list[EpochRecord] = []
        self.ends: dict[str, tuple[int, int]] = {}
        self.budgets: dict[str, Budget] = {}

    def on_stage(self, begun: StageBegun) -> None:
        self.budgets[begun.stage] = begun.budget

    def on_validation(self, record: EpochRecord) -> None:
        self.rounds.append(record)

    def on_stage_end(self, ended: StageEnded) -> None:
        self.ends[ended.stage] = (ended.best, ended.done)

    def of(self, stage: str) -> list[EpochRecord]:
        return [record for record in self.rounds if record.stage == stage]


def train(
    spec: nbridge.Spec, training: Batch | None = None, validation: Batch | None = None, **options: Any
) -> tuple[MultimodalVAE, Records]:
    model, records = fresh(spec), Records()
    fit(model, training or rows(90), validation, spec.training, callbacks=[records], **options)
    return model, records


def scored(monkeypatch: pytest.MonkeyPatch, figure: Callable[[int], float]) -> None:
    """Replaces the figure of hidden modalities by a function of how often it was asked for."""
    asked = iter(range(10**6))
    monkeypatch.setattr(HiddenModalities, "overall", lambda *_: figure(next(asked)))


def test_rounds_are_two_per_cent_of_the_updates_and_cross_epochs():
    _, records = train(spec_with(130, training={"patience": None}), validation=rows(40))
    joint = records.of("joint")
    assert [record.update for record in joint] == [*range(3, 130, 3), 130]
    assert [record.epoch for record in joint] == [round(record.update / 5, 3) for record in joint]
    assert records.budgets["joint"] == Budget(130, 5)
    budgets = train(spec_with(None, training={"stages": {"joint": {"updates": 2}, "bridges": {"epochs": 1}}}))[1].budgets
    assert budgets == {"joint": Budget(2, 5), "bridges": Budget(5, 5, 1)}


def test_every_row_comes_once_an_epoch_whatever_the_rounds():
    seen: list[Tensor] = []

    class Watched(Batch):
        def batches(self, parts: Any) -> Any:
            seen.extend(parts)
            return super().batches(parts)

        def subset(self, rows: Tensor) -> Any:
            return Watched(*(getattr(self.index(rows), name) for name in ("values", "present", "cells")))

        def through(self, change: Any) -> Any:
            return Watched(*(getattr(change(self), name) for name in ("values", "present", "cells")))

    batch = rows(80)
    watched = Watched(batch.values, batch.present)
    train(spec_with(130, model="joint", training={"schedule": "constant"}), watched)
    assert len(seen) == 130
    for epoch in range(130 // 5):
        assert torch.equal(torch.cat(seen[5 * epoch : 5 * epoch + 5]).sort().values, torch.arange(80))
    assert not torch.equal(seen[0], seen[5])


@pytest.mark.parametrize(
    ("keys", "serving"),
    [
        ({}, {"bridges"}),
        ({"bridges": FLOW}, {"bridges"}),
        ({"model": "jmvae"}, {"joint"}),
        ({"model": "mvae"}, {"joint"}),
        ({"model": "joint"}, {"joint"}),
        ({"model": "bivcca"}, {"joint"}),
        ({"model": "telbo"}, {"subsets"}),
        ({"model": {"type": "telbo", "one_stage": True}}, {"joint"}),
    ],
)
def test_the_stage_that_serves_is_judged_by_hidden_modalities_and_others_by_their_loss(keys: dict[str, Any], serving: set[str]):
    model, records = train(spec_with(24, training={"patience": None, "learning_rate": 0.02}, **keys), validation=rows(40, seed=6))
    for stage, (best, _) in records.ends.items():
        rounds = records.of(stage)
        assert all((record.hidden is not None) == (stage in serving) for record in rounds)
        if stage in serving:
            assert best == max(rounds, key=lambda record: record.hidden or 0).update
            assert all(set(record.hidden_terms) == set(model.names) for record in rounds)
            weighted = sum(model.weights[name] * value for name, value in rounds[0].hidden_terms.items()) / sum(model.weights.values())
            assert rounds[0].hidden == pytest.approx(weighted)
        else:
            assert best == min(rounds, key=lambda record: record.validation_loss or 0).update
    assert serving <= records.ends.keys()


def test_the_figure_of_the_kept_weights_is_that_of_the_model_in_the_end():
    spec = spec_with(60, model="mvae", training={"patience": None, "learning_rate": 0.05})
    kept: list[Validator] = []
    original = Validator.of

    def keep(*arguments: Any, **options: Any) -> Validator:
        kept.append(original(*arguments, **options))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Validator, "of", keep)
        _, records = train(spec, validation=rows(40, seed=6))
    best = max(record.hidden or -1e9 for record in records.rounds)
    with own_draws(0):
        again = kept[0]((*records.rounds[0].terms,))
    assert again.hidden == pytest.approx(best, rel=1e-6)


def test_patience_ends_the_constant_schedule_and_begins_the_decay_of_the_default_one(monkeypatch: pytest.MonkeyPatch):
    def trained(**keys: Any) -> Records:
        # Rounds are of two updates, and the fifth is the best.
        scored(monkeypatch, lambda number: -abs(number - 4))
        return train(spec_with(100, model="mvae", training=keys), validation=rows(40))[1]

    assert trained(schedule="constant").ends == {"joint": (10, 30)}
    decay = trained()
    assert decay.ends == {"joint": (10, 40)}
    rates = {record.update: record.learning_rate for record in decay.rounds}
    assert rates[30] == 1e-3
    assert [rates[update] for update in (32, 36, 40)] == pytest.approx([1e-3 * (1 - 1 / 10), 1e-3 * (1 - 5 / 10), 1e-3 / 10])
    assert trained(patience=2).ends == {"joint": (10, 24)}
    assert trained(patience=None).ends == {"joint": (10, 100)}


def test_the_decay_begins_from_the_best_weights_and_at_the_end_of_the_budget_by_itself(monkeypatch: pytest.MonkeyPatch):
    spec = spec_with(100, model="mvae", training={"patience": 3, "checkpoint_seconds": 0})
    states: dict[int, dict[str, Tensor]] = {}
    model = fresh(spec)
    scored(monkeypatch, lambda number: -abs(number - 4))

    def save(state: TrainingState) -> None:
        states.setdefault(state.update, {name: tensor.clone() for name, tensor in model.state_dict().items()})

    fit(model, rows(90), rows(40), spec.training, save=save)
    assert all(torch.equal(tensor, states[16][name]) for name, tensor in states[10].items())
    assert not all(torch.equal(tensor, states[14][name]) for name, tensor in states[10].items())
    scored(monkeypatch, lambda number: number)
    _, records = train(spec, validation=rows(40))
    assert records.ends == {"joint": (100, 100)}
    assert [record.learning_rate for record in records.rounds[-6:]] == pytest.approx([1e-3, 9e-4, 7e-4, 5e-4, 3e-4, 1e-4])


@pytest.mark.parametrize("keys", [{}, {"bridges": FLOW}, {"model": "mvae"}], ids=str)
def test_training_goes_on_bit_identically_in_the_middle_of_an_epoch(keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    spec = spec_with(60, training={"checkpoint_seconds": 0, "patience": 4, "learning_rate": 0.05}, **keys)
    batch, held_out = rows(90), rows(40, seed=6)
    saved: list[tuple[TrainingState, dict[str, Tensor]]] = []
    whole, first = fresh(spec), Records()
    fit(
        whole, batch, held_out, spec.training, callbacks=[first],
        save=lambda state: saved.append((copy.deepcopy(state), copy.deepcopy(whole.state_dict()))),
    )  # fmt: skip
    assert any(state.update % 5 for state, _ in saved)
    for state, tensors in saved[:: max(1, len(saved) // 4)]:
        model, again = fresh(spec, seed=99), Records()
        model.load_state_dict(tensors)
        before = [one for one in first.rounds if one.stage != first.rounds[0].stage or state.stage == 0]
        fit(model, batch, held_out, spec.training, callbacks=[again], state=copy.deepcopy(state))
        found = model.state_dict()
        assert all(torch.equal(tensor, found[name]) for name, tensor in whole.state_dict().items()), state.update
        expected = [(one.stage, one.update, one.loss, one.hidden) for one in before][-len(again.rounds) or len(before) :]
        assert [(one.stage, one.update, one.loss, one.hidden) for one in again.rounds] == expected


def test_a_state_that_is_written_comes_back_with_its_decay(tmp_path: Any):
    spec = spec_with(60, model="mvae", training={"checkpoint_seconds": 0, "patience": 2, "learning_rate": 0.3})

    class Stop(Callback):
        def __init__(self, update: int) -> None:
            self.update = update

        def on_validation(self, record: EpochRecord) -> None:
            if record.update == self.update:
                raise KeyboardInterrupt

    values = {name: x.numpy() for name, x in rows(120).values.items()}
    whole = nbridge.train(spec, values, out=tmp_path / "whole", device="cpu")
    updates = [round_.update for round_ in map_records(tmp_path / "whole")]
    assert updates[-1] < 60
    stops = (updates[1], updates[-2])
    with pytest.raises(KeyboardInterrupt):
        nbridge.train(spec, values, out=tmp_path / "cut", device="cpu", callbacks=[Stop(stops[0])])
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path / "cut", values, callbacks=[Stop(stops[1])])
    cut = resume(tmp_path / "cut", values)
    found = cut.model.network.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in whole.model.network.state_dict().items())
    assert [without_time(one) for one in map_records(tmp_path / "cut")] == [without_time(one) for one in map_records(tmp_path / "whole")]


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Any):
    from nbridge.training.checkpoint import save_tensors
    from nbridge.training.run_folder import CHECKPOINT
    from nbridge.training.state import restore_state

    (tmp_path / CHECKPOINT).parent.mkdir(parents=True, exist_ok=True)
    save_tensors(tmp_path / CHECKPOINT, {}, {"stage": 0, "epoch": 3, "best_loss": 1.0, "best_epoch": 2, "lines": 3})
    with pytest.raises(nbridge.RunError, match="best_score is missing; written by another version of nbridge, so train a new run"):
        restore_state(tmp_path, fresh(spec_with()))


class StopAt(Callback):
    def __init__(self, update: int) -> None:
        self.update = update

    def on_validation(self, record: EpochRecord) -> None:
        if record.update == self.update:
            raise KeyboardInterrupt


@pytest.mark.parametrize("share", [1, 0.999, 0.5, 0])
def test_metrics_that_lost_lines_are_a_warning_and_no_line_is_glued_to_another(tmp_path: Any, share: float):
    from nbridge.training.run_folder import METRICS

    spec, values = spec_with(20, training={"checkpoint_seconds": 0}), {name: x.numpy() for name, x in rows(60).values.items()}
    with pytest.raises(KeyboardInterrupt):
        nbridge.train(spec, values, out=tmp_path / "run", device="cpu", callbacks=[StopAt(10)])
    path = tmp_path / "run" / METRICS
    before = path.read_text().splitlines()
    # The last line lost its end at least.
    text = "\n".join(before)
    path.write_text(text[: int(share * len(text))])
    kept = [line for line in path.read_text().splitlines() if line in before]
    done = resume(tmp_path / "run", values, callbacks=[Callback()])
    lost = f"{path}: {len(kept)} of the {len(before)} lines before the checkpoint can be read; the report shows only these"
    assert [finding.text for finding in done.warnings if finding.kind == "damaged"] == ([lost] if len(kept) < len(before) else [])
    assert path.read_text().splitlines()[: len(kept)] == kept
    assert [record.update for record in map_records(tmp_path / "run")][len(kept)] > 10


def map_records(folder: Any) -> list[EpochRecord]:
    from nbridge.training.state import read_records

    return list(read_records(folder))


def without_time(record: EpochRecord) -> dict[str, object]:
    return {name: value for name, value in record.as_dict().items() if name != "seconds"}


@pytest.mark.parametrize("hidden", [["b", "c"], ["a", "b", "c"]], ids=len)
def test_where_no_validation_row_has_two_modalities_the_loss_decides(hidden: list[str]):
    _, records = train(spec_with(60, model="mvae", training={"patience": None}), validation=rows(40).hide(*hidden))
    (best, _), losses = records.ends["joint"], {record.update: record.validation_loss for record in records.rounds}
    assert all(record.hidden is None for record in records.rounds)
    if len(hidden) == 2:
        assert best == min(losses, key=lambda update: losses[update] or 0)
    else:
        assert set(losses.values()) == {None}
        assert best == 60


def test_without_validation_rows_the_last_weights_are_kept_and_nothing_stops_early():
    _, records = train(spec_with(60))
    assert records.ends == {"joint": (60, 60), "bridges": (60, 60)}
    assert all(record.hidden is None and record.validation_loss is None for record in records.rounds)


def test_one_modality_is_trained_by_its_loss():
    spec = spec_with(60, modalities={"a": MODALITIES["a"]}, training={"patience": None})
    _, records = train(spec, rows(90).select("a"), rows(40).select("a"))
    losses = {record.update: record.validation_loss for record in records.rounds}
    assert records.ends == {"joint": (min(losses, key=lambda update: losses[update] or 0), 60)}


def test_a_modality_that_is_never_hidden_has_no_figure():
    held_out = rows(40)
    present = {**held_out.present, "b": torch.zeros(40, dtype=torch.bool)}
    _, records = train(spec_with(20, model="mvae"), validation=Batch(held_out.values, present))
    assert set(records.rounds[0].hidden_terms) == {"a", "c"}


def test_explicit_epochs_validate_once_an_epoch_by_the_loss_alone():
    spec = spec_with(None, training={"stages": {"joint": {"epochs": 3}, "bridges": {"epochs": 2}}})
    _, records = train(spec, validation=rows(40))
    assert [(record.stage, record.epoch, record.update) for record in records.rounds] == [
        ("joint", 1, 5), ("joint", 2, 10), ("joint", 3, 15), ("bridges", 1, 5), ("bridges", 2, 10)
    ]  # fmt: skip
    assert all(record.hidden is None and isinstance(record.epoch, int) for record in records.rounds)
    assert all("hidden" not in record.as_dict() for record in records.rounds)


def test_an_infinite_loss_names_the_update():
    with pytest.raises(nbridge.NBridgeError, match=r"stage joint, update \d+: the loss is (nan|inf) .* Lower training.learning_rate"):
        train(spec_with(100, training={"learning_rate": 1e18}))


def test_the_console_shows_budget_place_figure_and_time_left():
    out = io.StringIO()
    spec = spec_with(100, model="mvae", training={"patience": None})
    fit(fresh(spec), rows(90), rows(40), spec.training, callbacks=[ConsoleProgress(Console(file=out, width=300))])
    lines = out.getvalue().splitlines()
    assert lines[0] == "stage joint: 90 rows, 100 updates (20 epochs)"
    pattern = r"  joint 2/100 updates  loss [\d.]+ \(validation [\d.]+\)  hidden [+-][\d.]+ nats over marginals  a .*  ETA \d+:\d\d"
    assert re.fullmatch(pattern, lines[1])
    assert lines[-2].startswith("  joint 100/100 updates  loss ")
    assert "ETA" not in lines[-2]
    assert re.fullmatch(r"stage joint: done, weights of update \d+ kept", lines[-1])
    assert 10 <= len(lines) <= 14
