"""The training loop of one stage: updates, validation, best weights, learning rate and early stopping."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from nbridge.acceleration.compiling import CompiledLoss
from nbridge.acceleration.distributed import World
from nbridge.acceleration.gradients import shared_loss
from nbridge.common.randomness import generator, reseed
from nbridge.data.rows import Rows
from nbridge.errors import NBridgeError
from nbridge.inference.free import Marginal
from nbridge.models.base import MultimodalVAE, Stage
from nbridge.spec.training import StageSpec, TrainingSpec
from nbridge.training.budgets import Budget, budget_of, patience_of, schedule_of
from nbridge.training.callbacks import Callbacks, StageBegun, StageEnded, StopTraining
from nbridge.training.records import EpochRecord
from nbridge.training.seeds import derive_seed
from nbridge.training.stage_rows import FeatureBatch, StageRows
from nbridge.training.validation import Validator


@dataclass
class TrainingState:
    """The state of training: everything needed to resume bit-identically, besides the model's own tensors.

    Arguments:
        stage: Index of the current stage.
        epoch: Its completed epochs.
        best_score: Lowest validation score of this stage: its loss, or the negative log-likelihood of hidden modalities.
        best_update: The update that reached it.
        decay_from: The update at which an early decay of the learning rate began because patience ran out; else None.
        best: The tensors of the stage's modules at ``best_update``.
        optimizer: Adam's moments and step counts in the current stage.
    """

    stage: int = 0
    epoch: int = 0
    update: int = 0
    best_score: float = math.inf
    best_update: int = 0
    decay_from: int | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)


class StateError(NBridgeError):
    """A state to resume from that does not match the spec or the rows."""


@dataclass(frozen=True)
class Hooks:
    """What is called during a stage: callbacks of the user, and those that write checkpoints and metrics."""

    callbacks: Callbacks
    save: Callable[[TrainingState], None] | None = None
    log: Callable[[EpochRecord], None] | None = None
    keep: Callable[[TrainingState], None] | None = None


class StageRun:
    """Trains one stage, from the current state to its best weights; everything else in the model is frozen (`only_trainable`)."""

    def __init__(
        self, model: MultimodalVAE, stage: Stage, settings: TrainingSpec, state: TrainingState, hooks: Hooks,
        free: Callable[[], Mapping[str, Marginal]], world: World,
    ) -> None:  # fmt: skip
        self.model, self.stage, self.state, self.world, self.free = model, stage, state, world, free
        self.callbacks, self.save, self.log, self.keep = hooks.callbacks, hooks.save, hooks.log, hooks.keep
        self.on_update = self.callbacks.on_update if self.callbacks.overrides("on_update") else None
        self.stopped = False
        self.seed, self.cache, self.checkpoint_seconds = settings.seed, settings.cache_features, settings.checkpoint_seconds
        self.settings: StageSpec = settings.stage(stage.name)
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay, fused=True
        )
        self.tensors, self.device = tensors_of(model, stage.modules), model.device
        self.loss = CompiledLoss(stage.loss, f"stage {stage.name}", model.device) if settings.compile else stage.loss
        self._restore()

    def __call__(self, train: Rows, validation: Rows | None) -> None:
        """Trains the stage. All rows are prepared."""
        rows = StageRows.of(self.stage, train, cache=self.cache)
        self._plan(rows)
        options = {"cache": self.cache, "seed": self.seed, "world": self.world}
        validator = Validator.of(self.model, self.stage, validation, self.free, self.budget, self.batch_size, **options)
        self.callbacks.on_stage(StageBegun(self.stage.name, len(rows), len(train), len(validator), self.budget, self.state.update))
        if self.stage.begin and self.state.update == 0:
            parts = (rows.chunk(number) for number in range(rows.chunks))
            self.stage.begin((part.batch, rows.features_of(part)) for part in parts)
        saved = time.monotonic()
        while self.state.update < self._end() and not self._is_stopped():
            record = self._round(rows, validator)
            try:
                self.callbacks.on_validation(record)
            except StopTraining:
                self.stopped = True
            except BaseException:
                # Neither an interrupt between rounds nor a mistake in a callback may lose the finished round.
                self._checkpoint(self.save)
                raise
            if time.monotonic() - saved >= self.checkpoint_seconds:
                self._checkpoint(self.save)
                saved = time.monotonic()
        self._checkpoint(self.keep)
        self._restore_best()
        self.callbacks.on_stage_end(StageEnded(self.stage.name, self.state.best_update, self.state.update))

    # Length

    def _plan(self, rows: StageRows) -> None:
        """Sets batch size, budget, patience and schedule for these rows."""
        self.batch_size = min(self.settings.batch_size, len(rows) - len(rows) % self.world.size)
        # An incomplete last batch is dropped; the next epoch's permutation puts its rows elsewhere.
        self.budget: Budget = budget_of(self.stage.name, self.settings, len(rows) // self.batch_size)
        self.patience, self.schedule = patience_of(self.settings, self.budget), schedule_of(self.settings, self.budget)
        self._check_position()

    def _check_position(self) -> None:
        """Raises a `StateError` if the state that training resumes from is no state of this stage on these rows."""
        state, budget, where = self.state, self.budget, f"stage {self.stage.name}"
        if state.update > budget.updates:
            raise StateError(f"{where} is at update {state.update}, expected at most the {budget.updates} of the spec")
        if state.epoch != (epoch := state.update // budget.steps):
            raise StateError(
                f"{where} is at epoch {state.epoch}, expected {epoch} after {state.update} updates of {budget.steps} per epoch"
            )
        begun = state.decay_from
        if begun is not None and (self.schedule != "decay" or not begun <= state.update <= begun + budget.decay):
            raise StateError(f"{where} has decay_from {begun}, which does not match update {state.update} and schedule {self.schedule}")

    def _end(self) -> int:
        """The update at which the stage ends, as far as it is known now."""
        if self.state.decay_from is not None:
            return self.state.decay_from + self.budget.decay
        return self.state.update if self._patience_exhausted() and self.schedule != "decay" else self.budget.updates

    def _is_stopped(self) -> bool:
        """Whether a callback, which only the first process has, has stopped the stage."""
        return bool(self.world.total(torch.tensor(float(self.stopped), device=self.device)))

    def _patience_exhausted(self) -> bool:
        return self.patience is not None and self.state.update - self.state.best_update >= self.patience

    def _decay_early(self) -> None:
        """If patience has run out, starts the decay of the learning rate from the best weights."""
        begun = self.state.decay_from is not None or self.state.update >= self.budget.updates - self.budget.decay
        if self.schedule == "decay" and not begun and self._patience_exhausted():
            self.state.decay_from = self.state.update
            self._restore_best()

    def _restore_best(self) -> None:
        for name, tensor in self.state.best.items():
            self.tensors[name].copy_(tensor)

    # One round

    def _round(self, rows: StageRows, validator: Validator) -> EpochRecord:
        started, state = time.monotonic(), self.state
        fresh = isinstance(self.loss, CompiledLoss) and self.loss.seconds is None
        terms = self._optimise(rows, min(state.update + self.budget.round, self._end()))
        compiled = round(self.loss.seconds or 0.0, 4) if isinstance(self.loss, CompiledLoss) and fresh else None
        found = validator(tuple(terms))
        best = self._keep_best(found.score)
        record = EpochRecord(
            stage=self.stage.name, update=state.update,
            epoch=state.epoch if self.budget.epochs is not None else round(state.update / self.budget.steps, 3),
            loss=sum(terms.values()), terms=terms, validation_loss=found.loss, validation_terms=found.terms,
            hidden=found.hidden, hidden_terms=found.hidden_terms, learning_rate=self.optimizer.param_groups[0]["lr"],
            best=best, seconds=round(time.monotonic() - started, 4), compile_seconds=compiled,
        )  # fmt: skip
        _check_finite(record, self.budget)
        if self.log:
            self.log(record)
        self._decay_early()
        return record

    def _optimise(self, rows: StageRows, stop: int) -> dict[str, float]:
        """Runs the updates up to ``stop`` and returns the mean of each term."""
        for module in self.stage.modules:
            module.train()
        start = self.state.update
        batches = self._batches(rows, start, stop)
        # Created per round, so that gradients are summed in the same order whether or not training was resumed.
        loss = shared_loss(self.loss, self.stage.modules, self.world, complete=rows.batch.whole)
        names: list[str] = []
        sums = torch.zeros((), device=self.device, dtype=self.model.dtype)
        for update, part in enumerate(batches, start):
            self._set_learning_rate(update)
            terms = loss(part.batch, rows.features_of(part), self._kl_weight(update))
            names, losses = list(terms), torch.stack(list(terms.values()))
            self.optimizer.zero_grad()
            losses.sum().backward()
            if self.settings.gradient_clip is not None:
                nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.gradient_clip)
            self.optimizer.step()
            # Accumulated on the device; the host reads them once per round.
            sums = sums + losses.detach()
            if self.on_update is not None:
                self._report(self.on_update, update + 1)
        self.state.update, self.state.epoch = stop, stop // self.budget.steps
        return dict(zip(names, (self.world.total(sums) / ((stop - start) * self.world.size)).tolist(), strict=True))

    def _report(self, on_update: Callable[[str, int], None], update: int) -> None:
        try:
            on_update(self.stage.name, update)
        except StopTraining:
            self.stopped = True

    def _batches(self, rows: StageRows, start: int, stop: int) -> Iterator[FeatureBatch]:
        """Seeds the draws of a round and returns its batches; their order depends on seed and epoch, noise on seed and round."""
        steps, name = self.budget.steps, self.stage.name
        in_epochs = self.budget.epochs is not None
        stream, number = (name, start // steps) if in_epochs else (f"{name}/round", start // self.budget.round)
        reseed(derive_seed(self.seed, stream, number))
        segments = []
        while start < stop:
            epoch, first = divmod(start, steps)
            last = min(steps, first + stop - start)
            # With rounds of whole epochs, order and noise come from the same generator.
            order = generator() if in_epochs else torch.Generator().manual_seed(derive_seed(self.seed, f"{name}/order", epoch))
            segments.append(rows.batch.order(self.batch_size, order).split(self.batch_size)[first:last])
            start += last - first
        if not self.world.is_main:
            # From here on, processes have different rows and need different noise.
            reseed(derive_seed(self.seed, stream, number, self.world.rank))
        return chain.from_iterable(rows.batches([self.world.shard(part) for part in segment]) for segment in segments)

    def _kl_weight(self, update: int) -> Any:
        weight = min(1.0, (update // self.budget.steps + 1) / (self.settings.kl_annealing + 1))
        # Compiled code would treat a float as a constant.
        return torch.tensor(weight, device=self.device, dtype=self.model.dtype) if isinstance(self.loss, CompiledLoss) else weight

    def _set_learning_rate(self, update: int) -> None:
        warmup, total = self.settings.warmup_steps, self.budget.updates
        rate = self.settings.learning_rate * min(1.0, (update + 1) / (warmup + 1))
        if self.schedule == "cosine":
            done = max(0, update - warmup) / max(1, total - warmup)
            rate *= (1 + math.cos(math.pi * min(1.0, done))) / 2
        elif self.schedule == "decay":
            begin = total - self.budget.decay if self.state.decay_from is None else self.state.decay_from
            rate *= 1 - max(0, update - begin) / self.budget.decay
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _keep_best(self, score: float | None) -> bool:
        """Copies the stage's tensors if the score is the lowest so far; without validation rows, the last ones are the best."""
        if score is None:
            self.state.best_update = self.state.update
            return True
        if not score < self.state.best_score:
            return False
        self.state.best_score, self.state.best_update = score, self.state.update
        self.state.best = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        return True

    # The optimiser's state, as named tensors

    def _checkpoint(self, save: Callable[[TrainingState], None] | None) -> None:
        if save:
            self.state.optimizer = {
                f"{name}/{key}": tensor for name, p in self.parameters.items() for key, tensor in self._moments(p).items()
            }
            save(self.state)

    def _moments(self, parameter: nn.Parameter) -> Mapping[str, Tensor]:
        """The optimiser's state of a parameter; that of one without a gradient so far is the initial one, so that none is missing."""
        zeros = torch.zeros_like(parameter)
        return self.optimizer.state[parameter] or {"step": torch.zeros(()), "exp_avg": zeros, "exp_avg_sq": zeros}

    def _restore(self) -> None:
        for key, tensor in self.state.optimizer.items():
            name, part = key.rsplit("/", 1)
            self.optimizer.state[self.parameters[name]][part] = tensor.to(self.parameters[name].device)


def _check_finite(record: EpochRecord, budget: Budget) -> None:
    for kind, loss, terms in (("", record.loss, record.terms), ("validation ", record.validation_loss or 0.0, record.validation_terms)):
        if not math.isfinite(loss):
            wrong = [name for name, value in terms.items() if not math.isfinite(value)]
            raise NBridgeError(
                f"stage {record.stage}, {budget.unit} {budget.counted(record.update)}: the {kind}loss is {loss} "
                f"(terms: {', '.join(wrong)}). "
                "Lower training.learning_rate, set training.gradient_clip or training.warmup_steps, or check the rows for extreme values."
            )


def tensors_of(model: nn.Module, modules: tuple[nn.Module, ...]) -> dict[str, Tensor]:
    """The parameters and buffers of these submodules, by their name in the model."""
    inside = {id(tensor) for module in modules for tensor in module.state_dict(keep_vars=True).values()}
    return {name: tensor.data for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in inside}


@contextmanager
def only_trainable(model: nn.Module, modules: tuple[nn.Module, ...]) -> Iterator[None]:
    """Freezes everything but these submodules and puts the model in eval mode; parameters that were frozen before stay frozen."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    inside = {parameter for module in modules for parameter in module.parameters()}
    model.eval()
    for parameter, trainable in before.items():
        parameter.requires_grad_(trainable and parameter in inside)
    try:
        yield
    finally:
        for parameter, trainable in before.items():
            parameter.requires_grad_(trainable)
            parameter.grad = None
        model.eval()
