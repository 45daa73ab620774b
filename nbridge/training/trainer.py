"""One trainer for all models: it walks the stages that a model declares.

For each stage it freezes everything else and puts it in eval mode, computes frozen features once, optimises, validates, and ends with the
best weights *of that stage* (`nbridge.training.stage`). The order of rows depends on the seed, the stage and the epoch alone, the noise on
the seed, the stage and the round, which ends with a validation; so training that was cut off goes on bit-identically from the last state
that was handed to ``save``.

Of several processes each takes its own part of every batch, in an order that all of them draw alike; what is logged, validated and kept is
the same in each (`nbridge.acceleration.distributed`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager

from nbridge.acceleration.distributed import ALONE, World
from nbridge.acceleration.measuring import choose_precision
from nbridge.acceleration.normalisation import synchronised
from nbridge.acceleration.precision import Products, matmul_precision
from nbridge.common.autograd import gradients
from nbridge.common.randomness import compiled_draws, draws_itself, own_draws, reseed
from nbridge.common.warnings import Finding
from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns
from nbridge.data.rows import Rows
from nbridge.errors import DataError, NBridgeError
from nbridge.inference.calibration import calibrate, conform, halves, uncalibrate
from nbridge.inference.exponents import fit_exponents, reset_exponents
from nbridge.inference.product_prior import choose_prior, reset_prior
from nbridge.inference.weights import weigh_contrast
from nbridge.models.base import MultimodalVAE
from nbridge.spec.training import TrainingSpec
from nbridge.training.progress import EpochRecord, Reporter
from nbridge.training.seeds import seed_of as _seed
from nbridge.training.stage import Listeners, StageRun, TrainingState, only_trainable
from nbridge.training.validation import baseline_of

__all__ = ["TrainingState", "check_stages", "fit", "only_trainable"]


@gradients()
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

    A model with a `nbridge.models.mixture_prior.Mixture` has it fitted at the end, whatever state training went on from.

    Arguments:
        model: The model. Unless it goes on from a state, its likelihoods take their statistics from the training rows; where these lie
            on disk, from a random sample of 65,536 of them.
        train: Training rows, with any pattern of presence. Rows on disk are read and prepared a window at a time, and taken to be checked
            (`nbridge.data.streaming.stored_rows.StoredRows.check`).
        validation: Rows that pick the best weights and calibrate what is served (`nbridge.inference.calibration`), or None to keep the
            last weights and the spreads that training found.
        settings: The ``training`` part of a spec.
        reporter: Progress of stages and rounds.
        state: Where to go on, for a model that holds the tensors of that moment.
        save: Takes the state, at least every ``settings.checkpoint_seconds`` and at the end of each stage.
        log: Takes the record of each round: an epoch, or 2 % of a budget in updates.
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
    reset_prior(model)
    weigh_contrast(model, train)
    if state is None:
        state = TrainingState()
        model.fit_statistics(train.representative())
    stages, listeners = model.stages(), Listeners(reporter or Reporter(), save, log)
    free = functools.cache(lambda: baseline_of(model, train))
    products = products or choose_precision(settings.precision, model, settings.batch_size, world=world).chosen
    with _draws(model, settings), matmul_precision(products, model), synchronised(model, world):
        while state.stage < len(stages):
            stage = stages[state.stage]
            with only_trainable(model, stage.modules):
                StageRun(model, stage, settings, state, listeners, free, world)(train, validation)
            state = TrainingState(stage=state.stage + 1)
            if save:
                save(state)
        model.eval()
    _fit_serving(model, train, validation, held, settings)
    _fit_mixture(model, train, settings.seed, reporter or Reporter())
    return state


def _draws(model: MultimodalVAE, settings: TrainingSpec) -> AbstractContextManager[None]:
    """Generators of this training's own; redirecting torch to them costs a tenth of a step, so only modules that need it pay for it."""
    if settings.compile:
        return compiled_draws(settings.seed, [model.device] if model.device.type == "cuda" else [])
    return own_draws(settings.seed, redirect=draws_itself(model))


def _held_for_intervals(model: MultimodalVAE, validation: Rows | None, settings: TrainingSpec) -> tuple[Rows | None, Rows | None]:
    """The validation rows, and those among them that conformal intervals need untouched by all else: half of them, where asked for."""
    if not settings.conformal:
        return validation, None
    if validation is None:
        raise DataError("training.conformal: needs validation rows, and there are none; raise data.validation")
    if model.conformal is None:
        raise DataError("training.conformal: this model was built without; build it from a spec with training: {conformal: true}")
    return halves(validation, _seed(settings.seed, "halves", 0))


def _fit_serving(model: MultimodalVAE, train: Rows, validation: Rows | None, held: Rows | None, settings: TrainingSpec) -> None:
    """Fits what serving alone uses, in the precision of serving: exponents, the prior of products, then spreads and intervals."""
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
