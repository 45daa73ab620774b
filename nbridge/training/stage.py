"""The loop of one stage: rounds of updates, validation, the best weights, the learning rate, and when to stop."""

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
from nbridge.training.progress import EpochRecord, Reporter
from nbridge.training.seeds import seed_of
from nbridge.training.stage_rows import Part, StageRows
from nbridge.training.validation import Validator


@dataclass
class TrainingState:
    """Where training stands: all that is needed to go on bit-identically, besides the model's own tensors.

    Arguments:
        stage: Index of the current stage.
        epoch: Its whole epochs done.
        update: Its updates done.
        best_score: Lowest validation score of this stage: its loss, or the negative figure of hidden modalities.
        best_update: The update that reached it.
        decay_from: The update from which on the learning rate falls, where patience ran out before the budget; None elsewhere.
        best: The tensors of the stage's modules at that update.
        optimizer: Adam's moments and steps of the current stage.
    """

    stage: int = 0
    epoch: int = 0
    update: int = 0
    best_score: float = math.inf
    best_update: int = 0
    decay_from: int | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Listeners:
    """Whom a stage informs.

    Arguments:
        reporter: Progress.
        save: Takes the state at a checkpoint.
        log: Takes the record of each round.
    """

    reporter: Reporter
    save: Callable[[TrainingState], None] | None = None
    log: Callable[[EpochRecord], None] | None = None


class StageRun:
    """One stage from its first (or its next) update to its best weights.

    Arguments:
        model: The model, with all that the stage does not train frozen (`only_trainable`).
        stage: The stage.
        settings: The settings of the training.
        state: Where the stage stands; it is kept up to date.
        listeners: Whom to inform.
        free: Gives the free baseline, when it is needed.
        world: The processes that share each batch.
    """

    def __init__(
        self,
        model: MultimodalVAE,
        stage: Stage,
        settings: TrainingSpec,
        state: TrainingState,
        listeners: Listeners,
        free: Callable[[], Mapping[str, Marginal]],
        world: World,
    ) -> None:
        self.model, self.stage, self.state, self.world, self.free = model, stage, state, world, free
        self.reporter, self.save, self.log = listeners.reporter, listeners.save, listeners.log
        self.seed, self.cache, self.checkpoint_seconds = settings.seed, settings.cache_features, settings.checkpoint_seconds
        self.settings: StageSpec = settings.stage(stage.name)
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay, fused=True
        )
        self.tensors, self.device = _tensors_of(model, stage.modules), model.device
        self.loss = CompiledLoss(stage.loss, f"stage {stage.name}", model.device) if settings.compile else stage.loss
        self._restore()

    def __call__(self, train: Rows, validation: Rows | None) -> None:
        """Trains the stage.

        Arguments:
            train: Prepared training rows.
            validation: Prepared validation rows, or None.
        """
        rows = StageRows.of(self.stage, train, cache=self.cache)
        self._plan(rows)
        options = {"cache": self.cache, "seed": self.seed, "world": self.world}
        validator = Validator.of(self.model, self.stage, validation, self.free, self.budget, self.batch_size, **options)
        self.reporter.begin_stage(self.stage.name, len(rows), len(train), len(validator), self.budget, self.state.update)
        if self.stage.begin and self.state.update == 0:
            parts = (rows.chunk(number) for number in range(rows.chunks))
            self.stage.begin((part.batch, rows.features_of(part)) for part in parts)
        saved = time.monotonic()
        while self.state.update < self._end():
            record = self._round(rows, validator)
            try:
                self.reporter.end_epoch(record)
            except KeyboardInterrupt:
                # Between two rounds, so that nothing of this one is lost, however long it took.
                self._checkpoint()
                raise
            if time.monotonic() - saved >= self.checkpoint_seconds:
                self._checkpoint()
                saved = time.monotonic()
        self._take_best()
        self.reporter.end_stage(self.stage.name, self.state.best_update, self.state.update)

    # Length

    def _plan(self, rows: StageRows) -> None:
        """Batch size, budget, patience and schedule for these rows."""
        self.batch_size = min(self.settings.batch_size, len(rows) - len(rows) % self.world.size)
        # A last batch of another size is left out: the permutation brings its rows elsewhere in the next epoch.
        self.budget: Budget = budget_of(self.stage.name, self.settings, len(rows) // self.batch_size)
        self.patience, self.schedule = patience_of(self.settings, self.budget), schedule_of(self.settings, self.budget)

    def _end(self) -> int:
        """The update at which the stage ends, as far as it is known."""
        if self.state.decay_from is not None:
            return self.state.decay_from + self.budget.decay
        return self.state.update if self._out_of_patience() and self.schedule != "decay" else self.budget.updates

    def _out_of_patience(self) -> bool:
        return self.patience is not None and self.state.update - self.state.best_update >= self.patience

    def _decay_early(self) -> None:
        """Where patience has run out, begins the decay of the learning rate, from the best weights."""
        begun = self.state.decay_from is not None or self.state.update >= self.budget.updates - self.budget.decay
        if self.schedule == "decay" and not begun and self._out_of_patience():
            self.state.decay_from = self.state.update
            self._take_best()

    def _take_best(self) -> None:
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
            stage=self.stage.name,
            epoch=state.epoch if self.budget.epochs is not None else round(state.update / self.budget.steps, 3),
            update=state.update,
            loss=sum(terms.values()),
            terms=terms,
            validation_loss=found.loss,
            validation_terms=found.terms,
            hidden=found.hidden,
            hidden_terms=found.hidden_terms,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            best=best,
            seconds=round(time.monotonic() - started, 4),
            compile_seconds=compiled,
        )
        _check_finite(record, self.budget)
        if self.log:
            self.log(record)
        self._decay_early()
        return record

    def _optimise(self, rows: StageRows, stop: int) -> dict[str, float]:
        """Updates up to ``stop``; the mean of each term."""
        for module in self.stage.modules:
            module.train()
        start = self.state.update
        batches = self._batches(rows, start, stop)
        # Made anew, so that a round adds up gradients in the same order whether training was stopped before it or not.
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
            # On the device: the host asks for them once a round.
            sums = sums + losses.detach()
        self.state.update, self.state.epoch = stop, stop // self.budget.steps
        return dict(zip(names, (self.world.total(sums) / ((stop - start) * self.world.size)).tolist(), strict=True))

    def _batches(self, rows: StageRows, start: int, stop: int) -> Iterator[Part]:
        """The batches of a round, once draws are seeded: order follows from seed and epoch, noise from seed and round."""
        steps, name = self.budget.steps, self.stage.name
        in_epochs = self.budget.epochs is not None
        stream, number = (name, start // steps) if in_epochs else (f"{name}/round", start // self.budget.round)
        reseed(seed_of(self.seed, stream, number))
        segments = []
        while start < stop:
            epoch, first = divmod(start, steps)
            last = min(steps, first + stop - start)
            # Of whole epochs the order comes from the stream that the noise comes from.
            order = generator() if in_epochs else torch.Generator().manual_seed(seed_of(self.seed, f"{name}/order", epoch))
            segments.append(rows.batch.order(self.batch_size, order).split(self.batch_size)[first:last])
            start += last - first
        if not self.world.is_main:
            # From here on each process draws for other rows.
            reseed(seed_of(self.seed, stream, number, self.world.rank))
        return chain.from_iterable(rows.batches([self.world.share(part) for part in segment]) for segment in segments)

    def _kl_weight(self, update: int) -> Any:
        weight = min(1.0, (update // self.budget.steps + 1) / (self.settings.kl_annealing + 1))
        # Compiled code would hold a number fixed.
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
        """Keeps a copy of the stage's tensors at the lowest score; without validation rows the last ones are the best."""
        if score is None:
            self.state.best_update = self.state.update
            return True
        if not score < self.state.best_score:
            return False
        self.state.best_score, self.state.best_update = score, self.state.update
        self.state.best = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        return True

    # The optimiser's state, as named tensors

    def _checkpoint(self) -> None:
        if self.save:
            self.state.optimizer = {
                f"{name}/{key}": tensor for name, p in self.parameters.items() for key, tensor in self.optimizer.state[p].items()
            }
            self.save(self.state)

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
                "Lower training.learning_rate, set training.gradient_clip or training.warmup_steps, or look for extreme values in the rows."
            )


def _tensors_of(model: nn.Module, modules: tuple[nn.Module, ...]) -> dict[str, Tensor]:
    """Parameters and buffers of these submodules, by their name in the model."""
    inside = {id(tensor) for module in modules for tensor in module.state_dict(keep_vars=True).values()}
    return {name: tensor.data for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in inside}


@contextmanager
def only_trainable(model: nn.Module, modules: tuple[nn.Module, ...]) -> Iterator[None]:
    """Freezes and puts in eval mode everything but these submodules; what the caller had frozen stays frozen, in them too."""
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
