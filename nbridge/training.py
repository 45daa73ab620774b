"""One trainer for all models: it walks the stages that a model declares.

For each stage it freezes everything else and puts it in eval mode, computes frozen features once, optimises, validates, and ends with the
best weights *of that stage*. The order of rows and the noise of an epoch depend on the seed, the stage and the epoch alone, so training
that was cut off goes on bit-identically from the last state that was handed to ``save``.

Of several processes each takes its own part of every batch, in an order that all of them draw alike; what is logged, validated and kept is
the same in each (`nbridge.acceleration.distributed`).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nbridge.acceleration.compiling import CompiledLoss
from nbridge.acceleration.distributed import ALONE, World
from nbridge.acceleration.features import cached
from nbridge.acceleration.gradients import shared_loss
from nbridge.acceleration.measuring import choose_precision
from nbridge.acceleration.normalisation import synchronised
from nbridge.acceleration.precision import Products, matmul_precision
from nbridge.batch import Batch
from nbridge.calibrating import calibrate, conform, halves, uncalibrate
from nbridge.errors import DataError, NBridgeError
from nbridge.findings import Finding
from nbridge.inference.exponents import fit_exponents, reset_exponents
from nbridge.models.base import Features, MultimodalVAE, Stage
from nbridge.patterns import Patterns
from nbridge.progress import EpochRecord, Reporter
from nbridge.rows import Rows
from nbridge.training_spec import StageSpec, TrainingSpec

CHUNK = 2048
"""Rows at a time where no gradient is taken."""


@dataclass
class TrainingState:
    """Where training stands: all that is needed to go on bit-identically, besides the model's own tensors.

    Arguments:
        stage: Index of the current stage.
        epoch: Its epochs done.
        best_loss: Lowest validation loss of this stage.
        best_epoch: The epoch that reached it.
        best: The tensors of the stage's modules at that epoch.
        optimizer: Adam's moments and steps of the current stage.
    """

    stage: int = 0
    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)


def fit(
    model: MultimodalVAE,
    train: Rows,
    validation: Rows | None,
    settings: TrainingSpec,
    *,
    reporter: Reporter | None = None,
    state: TrainingState | None = None,
    save: Callable[[TrainingState], None] | None = None,
    log: Callable[[EpochRecord], None] | None = None,
    world: World = ALONE,
    products: Products | None = None,
) -> TrainingState:
    """Trains every stage of a model, in place, and leaves the model in eval mode with each stage's best weights.

    A model with a `nbridge.mixture.Mixture` has it fitted at the end, whatever state training went on from.

    Arguments:
        model: The model. Unless it goes on from a state, its likelihoods take their statistics from the training rows; where these lie
            on disk, from a random sample of 65,536 of them.
        train: Training rows, with any pattern of presence. Rows on disk are read and prepared a window at a time, and taken to be checked
            (`nbridge.data.stored.StoredRows.check`).
        validation: Rows that pick the best epoch and calibrate what is served (`nbridge.calibrating`), or None to keep the last epoch
            and the spreads that training found.
        settings: The ``training`` part of a spec.
        reporter: Hears of stages and epochs.
        state: Where to go on, for a model that holds the tensors of that moment.
        save: Takes the state, at least every ``settings.checkpoint_seconds`` and at the end of each stage.
        log: Takes the record of each epoch.
        world: The processes that share each batch; all of them hold the same model, rows and settings.
        products: The precision of matrix products, where it was chosen before; ``settings.precision`` decides when left out.

    Raises:
        DataError: when rows do not fit the model, or too few can teach a stage anything.
        NBridgeError: when the loss is no longer finite, or a batch cannot be shared out evenly.
    """
    train, validation = _prepared(model, train), None if validation is None else _prepared(model, validation)
    validation, held = _held_for_intervals(model, validation, settings)
    check_stages(model, train, settings, world)
    model.patterns = Patterns.of(model.names, train.present)
    uncalibrate(model)
    reset_exponents(model)
    if state is None:
        state = TrainingState()
        model.fit_statistics(train.representative())
    stages = model.stages()
    devices = [model.device] if model.device.type == "cuda" else []
    products = products or choose_precision(settings.precision, model, settings.batch_size, world=world).chosen
    with torch.random.fork_rng(devices), matmul_precision(products, model), synchronised(model, world):
        while state.stage < len(stages):
            stage = stages[state.stage]
            with only_trainable(model, stage.modules):
                run = _StageRun(model, stage, settings, state, reporter or Reporter(), save, log, world)
                run(train, validation)
            state = TrainingState(stage=state.stage + 1)
            if save:
                save(state)
        model.eval()
    _fit_serving(model, validation, held, settings)
    _fit_mixture(model, train, settings.seed, reporter or Reporter())
    return state


def _held_for_intervals(model: MultimodalVAE, validation: Rows | None, settings: TrainingSpec) -> tuple[Rows | None, Rows | None]:
    """The validation rows, and those among them that conformal intervals need untouched by all else: half of them, where asked for."""
    if not settings.conformal:
        return validation, None
    if validation is None:
        raise DataError("training.conformal: needs validation rows, and there are none; raise data.validation")
    if model.conformal is None:
        raise DataError("training.conformal: this model was built without; build it from a spec with training: {conformal: true}")
    return halves(validation, _seed(settings.seed, "halves", 0))


def _fit_serving(model: MultimodalVAE, validation: Rows | None, held: Rows | None, settings: TrainingSpec) -> None:
    """Fits what serving alone uses, in the precision of serving: exponents, then spreads and conformal intervals."""
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        if validation is not None:
            torch.manual_seed(_seed(settings.seed, "exponents", 0))
            fit_exponents(model, validation)
        torch.manual_seed(_seed(settings.seed, "calibrate", 0))
        if settings.calibrate and validation is not None:
            calibrate(model, validation)
        if held is not None:
            conform(model, held)


def _fit_mixture(model: MultimodalVAE, train: Rows, seed: int, reporter: Reporter) -> None:
    """Fits what rows are generated from, where the model has a mixture for that: last, because it rests on what all stages made."""
    if model.mixture is None:
        return
    found, asked = model.mixture.learn(model.posterior, train, _seed(seed, "mixture", 0)), model.mixture.components
    if found < asked:
        text = f"{len(train):,} training rows are too few for a mixture of {asked} components (prior); it has {found}"
        reporter.warn(Finding("prior", "", text, {"rows": len(train), "components": found, "asked": asked}))


def _prepared(model: MultimodalVAE, rows: Rows) -> Rows:
    if isinstance(rows, Batch):
        model.check(rows)
    return rows.through(lambda batch: model.prepare(batch).to(model.device))


def check_stages(model: MultimodalVAE, train: Rows, settings: TrainingSpec, world: World = ALONE) -> None:
    """Checks that each modality is in some of the prepared rows, and that each stage can learn from two of them, and one for each process.

    Raises:
        DataError: naming the modality that no row has, or the stage that cannot learn.
        NBridgeError: naming the stage whose batches the processes cannot share out evenly.
    """
    if never := [name for name, mask in train.present.items() if not mask.any()]:
        raise DataError(f"modality {never[0]!r}: present in none of the {len(train)} training rows, so nothing can be learned about it")
    least = max(2, world.size)
    for stage in model.stages():
        if (size := settings.stage(stage.name).batch_size) % world.size:
            lower = size - size % world.size
            choice = f"{lower} or {lower + world.size}" if lower else f"{world.size}"
            raise NBridgeError(
                f"stage {stage.name}: {world.size} processes cannot share batches of {size} rows evenly; set batch_size to {choice}"
            )
        if (number := int(stage.rows(train.presence()).sum())) < least:
            raise DataError(
                f"stage {stage.name}: {number} training rows have the modalities that it needs, and it takes at least {least}. "
                "Add rows in which they are present together."
            )


@dataclass(frozen=True)
class _Part:
    """A few rows, in memory, with their frozen features."""

    batch: Batch
    features: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.batch)


@dataclass(frozen=True)
class _Rows:
    """The rows that one stage learns from, with their frozen features."""

    batch: Rows
    features: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.batch)

    def batches(self, parts: Sequence[Tensor]) -> Iterator[_Part]:
        for part, batch in zip(parts, self.batch.batches(parts), strict=True):
            # Features too large for the device come from where they lie.
            features = {name: x.index_select(0, part.to(x.device)).to(batch.device) for name, x in self.features.items()}
            yield _Part(batch, features)

    @property
    def chunks(self) -> int:
        return math.ceil(len(self) / CHUNK)

    def chunk(self, number: int) -> _Part:
        start, stop = number * CHUNK, (number + 1) * CHUNK
        batch = self.batch.slice(start, stop)
        return _Part(batch, {name: x[start:stop].to(batch.device) for name, x in self.features.items()})


class _StageRun:
    """One stage from its first (or its next) epoch to its best weights."""

    def __init__(
        self,
        model: MultimodalVAE,
        stage: Stage,
        settings: TrainingSpec,
        state: TrainingState,
        reporter: Reporter,
        save: Callable[[TrainingState], None] | None,
        log: Callable[[EpochRecord], None] | None,
        world: World,
    ) -> None:
        self.stage, self.state, self.reporter, self.save, self.log, self.world = stage, state, reporter, save, log, world
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
        rows = self._rows(train)
        held_out = None if validation is None else self._rows(validation)
        self.reporter.begin_stage(self.stage.name, len(rows), len(train), len(held_out or ()), self.settings.epochs, self.state.epoch)
        if self.stage.begin and self.state.epoch == 0:
            parts = (rows.chunk(number) for number in range(rows.chunks))
            self.stage.begin((part.batch, self._features(part)) for part in parts)
        saved = time.monotonic()
        while self.state.epoch < self.settings.epochs and not self._out_of_patience():
            record = self._epoch(rows, held_out)
            try:
                self.reporter.end_epoch(record)
            except KeyboardInterrupt:
                # Between two epochs, so that nothing of this one is lost, however long it took.
                self._checkpoint()
                raise
            if time.monotonic() - saved >= self.checkpoint_seconds:
                self._checkpoint()
                saved = time.monotonic()
        for name, tensor in self.state.best.items():
            self.tensors[name].copy_(tensor)
        self.reporter.end_stage(self.stage.name, self.state.best_epoch, self.state.epoch)

    # Rows

    @torch.no_grad()
    def _rows(self, batch: Rows) -> _Rows:
        batch = batch.subset(self.stage.rows(batch.presence()))
        # Looked at once, here: what is picked from these rows takes over the answer.
        _ = batch.whole
        if self.stage.features is None or not self.cache or not len(batch):
            return _Rows(batch, {})
        given = _Rows(batch, {})
        features = cached((self.stage.features(given.chunk(number).batch) for number in range(given.chunks)), len(batch))
        unread = [] if self.stage.values is None else [name for name in batch.names if name not in self.stage.values]
        return _Rows(batch.without_values(*unread), features)

    def _features(self, rows: _Part) -> Features:
        if self.stage.features is None or rows.features:
            return rows.features
        with torch.no_grad():
            return self.stage.features(rows.batch)

    # One epoch

    def _epoch(self, rows: _Rows, held_out: _Rows | None) -> EpochRecord:
        started = time.monotonic()
        torch.manual_seed(_seed(self.seed, self.stage.name, self.state.epoch))
        fresh = isinstance(self.loss, CompiledLoss) and self.loss.seconds is None
        terms = self._optimise(rows)
        compiled = round(self.loss.seconds or 0.0, 4) if isinstance(self.loss, CompiledLoss) and fresh else None
        validation = self._validate(held_out, tuple(terms)) if held_out else {}
        self.state.epoch += 1
        best = self._keep_best(sum(validation.values()) if validation else None)
        record = EpochRecord(
            stage=self.stage.name,
            epoch=self.state.epoch,
            loss=sum(terms.values()),
            terms=terms,
            validation_loss=sum(validation.values()) if validation else None,
            validation_terms=validation,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            best=best,
            seconds=round(time.monotonic() - started, 4),
            compile_seconds=compiled,
        )
        _check_finite(record)
        if self.log:
            self.log(record)
        return record

    def _optimise(self, rows: _Rows) -> dict[str, float]:
        for module in self.stage.modules:
            module.train()
        size = min(self.settings.batch_size, len(rows) - len(rows) % self.world.size)
        # A last batch of another size is left out: the permutation brings its rows elsewhere in the next epoch.
        steps = len(rows) // size
        order = rows.batch.order(size).split(size)[:steps]
        if not self.world.is_main:
            # From here on each process draws for other rows.
            torch.manual_seed(_seed(self.seed, self.stage.name, self.state.epoch, self.world.rank))
        # Made anew, so that an epoch adds up gradients in the same order whether training was stopped before it or not.
        loss = shared_loss(self.loss, self.stage.modules, self.world, complete=rows.batch.whole)
        kl_weight: Any = min(1.0, (self.state.epoch + 1) / (self.settings.kl_annealing + 1))
        if isinstance(self.loss, CompiledLoss):
            # Compiled code would hold a number fixed.
            kl_weight = torch.tensor(kl_weight, device=self.device)
        names: list[str] = []
        sums = torch.zeros((), device=self.device)
        for step, part in enumerate(rows.batches([self.world.share(part) for part in order])):
            self._set_learning_rate(self.state.epoch * steps + step, self.settings.epochs * steps)
            terms = loss(part.batch, self._features(part), kl_weight)
            names, losses = list(terms), torch.stack(list(terms.values()))
            self.optimizer.zero_grad()
            losses.sum().backward()
            if self.settings.gradient_clip is not None:
                nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.gradient_clip)
            self.optimizer.step()
            # On the device: the host asks for them once an epoch.
            sums = sums + losses.detach()
        return dict(zip(names, (self.world.total(sums) / (steps * self.world.size)).tolist(), strict=True))

    @torch.no_grad()
    def _validate(self, rows: _Rows, names: tuple[str, ...]) -> dict[str, float]:
        """The mean of every term: the same bits whatever the number of processes, for each chunk has its own noise and its own place."""
        for module in self.stage.modules:
            module.eval()
        losses = torch.zeros(rows.chunks, len(names), dtype=torch.float64, device=self.device)
        for number in range(self.world.rank, rows.chunks, self.world.size):
            # The same noise in every epoch: epochs differ by their weights alone.
            torch.manual_seed(_seed(self.seed, self.stage.name, -1, number))
            part = rows.chunk(number)
            terms = self.stage.loss(part.batch, self._features(part), 1.0)
            # Of rows in which nothing is absent a loss may have fewer terms than of others.
            losses[number] = torch.stack([terms.get(name, losses.new_zeros(())) for name in names]) * len(part)
        return dict(zip(names, (self.world.total(losses).sum(0) / len(rows)).tolist(), strict=True))

    def _set_learning_rate(self, step: int, total: int) -> None:
        rate = self.settings.learning_rate * min(1.0, (step + 1) / (self.settings.warmup_steps + 1))
        if self.settings.schedule == "cosine":
            done = max(0, step - self.settings.warmup_steps) / max(1, total - self.settings.warmup_steps)
            rate *= (1 + math.cos(math.pi * min(1.0, done))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _keep_best(self, loss: float | None) -> bool:
        """Keeps a copy of the stage's tensors at the lowest validation loss; without validation rows the last epoch is the best."""
        if loss is None:
            self.state.best_epoch = self.state.epoch
            return True
        if not loss < self.state.best_loss:
            return False
        self.state.best_loss, self.state.best_epoch = loss, self.state.epoch
        self.state.best = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        return True

    def _out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.state.epoch - self.state.best_epoch >= self.settings.patience

    # The optimiser's state, as named tensors

    def _checkpoint(self) -> None:
        if self.save:
            self._store()
            self.save(self.state)

    def _store(self) -> None:
        self.state.optimizer = {
            f"{name}/{key}": tensor for name, p in self.parameters.items() for key, tensor in self.optimizer.state[p].items()
        }

    def _restore(self) -> None:
        for key, tensor in self.state.optimizer.items():
            name, part = key.rsplit("/", 1)
            self.optimizer.state[self.parameters[name]][part] = tensor.to(self.parameters[name].device)


def _check_finite(record: EpochRecord) -> None:
    for kind, loss, terms in (("", record.loss, record.terms), ("validation ", record.validation_loss or 0.0, record.validation_terms)):
        if not math.isfinite(loss):
            wrong = [name for name, value in terms.items() if not math.isfinite(value)]
            raise NBridgeError(
                f"stage {record.stage}, epoch {record.epoch}: the {kind}loss is {loss} (terms: {', '.join(wrong)}). "
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


def _seed(seed: int, stage: str, epoch: int, *part: int) -> int:
    digest = hashlib.sha256("/".join(map(str, (seed, stage, epoch, *part))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
