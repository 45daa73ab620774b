"""The trainer of all models: runs the stages that a model declares.

For each stage it freezes everything else, computes frozen features once, optimises, validates, and keeps the best weights *of that stage*
(`nbridge.training.stage`). The order of rows depends only on the seed, the stage and the epoch, and noise only on the seed, the stage and
the round between validations, so training resumes bit-identically from the last state passed to ``save``.

With several processes, each takes its part of every batch, in an order that they share; logs, validation and kept weights are the same in
all (`nbridge.acceleration.distributed`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from nbridge.acceleration.distributed import ALONE, World
from nbridge.acceleration.normalisation import synchronised
from nbridge.acceleration.precision import Products, matmul_precision
from nbridge.acceleration.precision_choice import choose_precision
from nbridge.common.autograd import gradients
from nbridge.common.randomness import compiled_draws, draws_itself, own_draws, reseed
from nbridge.common.warnings import Finding
from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.errors import DataError, NBridgeError
from nbridge.inference.calibration import calibrate, conform, halves, uncalibrate
from nbridge.inference.exponents import fit_exponents, reset_exponents
from nbridge.inference.product_prior import choose_prior, reset_prior
from nbridge.inference.weights import weigh_contrast
from nbridge.models.base import MultimodalVAE
from nbridge.spec.training import TrainingSpec
from nbridge.training.callbacks import Callback, Callbacks
from nbridge.training.records import EpochRecord
from nbridge.training.seeds import derive_seed as _seed
from nbridge.training.stage import Hooks, StageRun, TrainingState, only_trainable
from nbridge.training.validation import fit_baseline

__all__ = ["TrainingState", "check_stages", "fit", "only_trainable"]


@gradients()
def fit(
    model: MultimodalVAE, train: Rows, validation: Rows | None, settings: TrainingSpec,
    *, callbacks: Iterable[Callback] = (), state: TrainingState | None = None, save: Callable[[TrainingState], None] | None = None,
    log: Callable[[EpochRecord], None] | None = None, keep: Callable[[TrainingState], None] | None = None,
    world: World = ALONE, products: Products | None = None,
) -> TrainingState:  # fmt: skip
    """Trains all stages of a model in place, and leaves it in eval mode with the best weights of each stage.

    Then it fits everything that only serving uses: exponents, product prior, calibration, intervals and the model's mixture, if any.

    Arguments:
        model: The model. Unless training resumes, its likelihoods are fitted to the training rows; for rows on disk, to a random sample of
            65,536 of them.
        train: Training rows, with any missingness patterns. Rows on disk are read a window at a time and must have been checked
            (`nbridge.data.streaming.stored_rows.StoredRows.check`).
        validation: Rows for selecting the best weights and for calibration (`nbridge.inference.calibration`); None to keep the last
            weights without calibration.
        settings: The ``training`` section of a spec.
        callbacks: Called during training, in order (`nbridge.Callback`).
        state: The state to resume from; the model must have the tensors of that state.
        save: Called with the state at the end of a round if ``settings.checkpoint_seconds`` have passed, and after each stage.
        log: Called with the record of each round: an epoch, or 2 % of a budget in updates.
        keep: Called with the state at the end of each stage, before its best weights are restored; from it, it can be trained longer.
        world: The processes that share each batch; all must have the same model, rows and settings.
        products: The precision of matrix products, if already chosen; by default ``settings.precision`` determines it.

    Raises:
        DataError: if rows do not match the model, or a stage has too few rows to learn from.
        NBridgeError: if the loss is not finite, or a batch cannot be split evenly.
    """
    if state is None:
        model.choose_widths(train.representative())
    train, validation = _prepared(model, train), None if validation is None else _prepared(model, validation)
    validation, held = _held_for_intervals(model, validation, settings)
    check_stages(model, train, settings, world)
    uncalibrate(model)
    reset_exponents(model)
    reset_prior(model)
    weigh_contrast(model, train)
    if state is None:
        state = TrainingState()
        model.fit_statistics(train.representative())
    called = Callbacks(*callbacks)
    stages, hooks = model.stages(), Hooks(called, save, log, keep)
    free = functools.cache(lambda: fit_baseline(model, train))
    products = products or choose_precision(settings.precision, model, settings.batch_size, world=world).chosen
    with _draws(model, settings), matmul_precision(products, model), synchronised(model, world):
        while state.stage < len(stages):
            stage = stages[state.stage]
            with only_trainable(model, stage.modules):
                StageRun(model, stage, settings, state, hooks, free, world)(train, validation)
            state = TrainingState(stage=state.stage + 1)
            if save:
                save(state)
        model.eval()
    _fit_serving(model, train, validation, held, settings)
    _fit_mixture(model, train, settings.seed, called)
    return state


def _draws(model: MultimodalVAE, settings: TrainingSpec) -> AbstractContextManager[None]:
    """Generators of this training's own; redirecting torch to them costs a tenth of a step, so only modules that need it pay for it."""
    if settings.compile:
        return compiled_draws(settings.seed, [model.device] if model.device.type == "cuda" else [])
    return own_draws(settings.seed, redirect=draws_itself(model))


def _held_for_intervals(model: MultimodalVAE, validation: Rows | None, settings: TrainingSpec) -> tuple[Rows | None, Rows | None]:
    """Splits the validation rows in half if conformal intervals are requested; the second half is used for nothing else."""
    if not settings.conformal:
        return validation, None
    if validation is None:
        raise DataError("training.conformal: no validation rows; raise data.validation")
    if model.conformal is None:
        raise DataError("training.conformal: this model was built without it; build it from a spec with training: {conformal: true}")
    return halves(validation, _seed(settings.seed, "halves", 0))


def _fit_serving(model: MultimodalVAE, train: Rows, validation: Rows | None, held: Rows | None, settings: TrainingSpec) -> None:
    """Fits everything that only serving uses, in the precision of serving: exponents, product prior, calibration and intervals."""
    with own_draws(settings.seed):
        if validation is not None:
            reseed(_seed(settings.seed, "exponents", 0))
            fit_exponents(model, validation)
        choose_prior(model, train, validation, _seed(settings.seed, "prior", 0))
        reseed(_seed(settings.seed, "calibrate", 0))
        if settings.calibrate and validation is not None:
            calibrate(model, validation)
        if held is not None:
            conform(model, held)


def _fit_mixture(model: MultimodalVAE, train: Rows, seed: int, callbacks: Callbacks) -> None:
    """Fits the mixture for generation, if the model has one; last, because it depends on the fully trained model."""
    if model.mixture is None:
        return
    found, asked = model.mixture.fit_rows(model.posterior, train, _seed(seed, "mixture", 0)), model.mixture.components
    if found < asked:
        text = f"prior: {len(train):,} training rows are too few for a mixture of {asked} components; {found} are used"
        callbacks.on_warning(Finding("prior", "", text, {"rows": len(train), "components": found, "asked": asked}))


def _prepared(model: MultimodalVAE, rows: Rows) -> Rows:
    if isinstance(rows, Batch):
        model.check(rows)
    return rows.through(lambda batch: model.prepare(batch).to(model.device))


def check_stages(model: MultimodalVAE, train: Rows, settings: TrainingSpec, world: World = ALONE) -> None:
    """Checks that each modality is in some prepared row, and that each stage has at least two rows and one per process.

    Raises:
        DataError: naming a modality without rows, or a stage with too few.
        NBridgeError: naming a stage whose batches cannot be split evenly across processes.
    """
    if never := [name for name, mask in train.present.items() if not mask.any()]:
        raise DataError(f"modality {never[0]!r}: present in none of the {len(train)} training rows, expected at least one")
    least = max(2, world.size)
    for stage in model.stages():
        if (size := settings.stage(stage.name).batch_size) % world.size:
            lower = size - size % world.size
            choice = f"{lower} or {lower + world.size}" if lower else f"{world.size}"
            raise NBridgeError(
                f"stage {stage.name}: batches of {size} rows cannot be split evenly across {world.size} processes; "
                f"set batch_size to {choice}"
            )
        if (number := int(stage.rows(train.presence()).sum())) < least:
            raise DataError(
                f"stage {stage.name}: {number} training rows have the modalities that it needs, expected at least {least}. "
                "Add rows in which they are present together."
            )
