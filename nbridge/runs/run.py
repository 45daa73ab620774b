"""Training from a spec, in a folder that keeps what resuming needs after any interruption (`nbridge.training.run_folder`)."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nbridge.acceleration.devices import pick_device
from nbridge.acceleration.distributed import World, joined
from nbridge.acceleration.measuring import choose_precision
from nbridge.acceleration.precision import Products
from nbridge.common.autograd import gradients
from nbridge.common.process_state import torch_threads
from nbridge.data.batch import Batch
from nbridge.data.split import Splits
from nbridge.data.tables.frames import FrameLike
from nbridge.errors import DataError, NBridgeError, RunError
from nbridge.evaluation.verdict import Verdict, read_verdict
from nbridge.inference.weights import fit_weights, with_weights
from nbridge.models.base import MultimodalVAE
from nbridge.spec.reader import read_spec, spec_from_dict, write_spec
from nbridge.spec.registry import FROM_PYTHON
from nbridge.spec.spec import Spec
from nbridge.training.build import Given, automatic_weights, build_data, build_model, read_frame, settle
from nbridge.training.checkpoint import CONFIG, load_model, save_model
from nbridge.training.progress import Reporter
from nbridge.training.run_folder import MODEL, RESOLVED, VERDICT, check_vacant, create, fingerprint, model_card, read_environment
from nbridge.training.state import append_record, read_records, restore_state, save_state
from nbridge.training.trainer import TrainingState, check_stages, fit

Data = Mapping[str, ArrayLike | Tensor] | Batch | FrameLike


@dataclass(frozen=True)
class Run:
    """A trained model with what it was trained from.

    Arguments:
        model: The model, in eval mode, with each stage's best weights.
        spec: Its spec.
        splits: The rows it saw, and those it did not.
        folder: Where it lies, or None when nothing was written.
    """

    model: MultimodalVAE
    spec: Spec
    splits: Splits
    folder: Path | None

    @cached_property
    def verdict(self) -> Verdict:
        """Each modality, imputed from the others, beside a free baseline: as the run folder has it, or else measured, in seconds."""
        if self.folder is not None and (kept := read_verdict(self.folder / VERDICT)) is not None:
            return kept
        from nbridge.evaluation.versus_baseline import compare_with_baselines

        records = () if self.folder is None else tuple(read_records(self.folder))
        return compare_with_baselines(self.model, self.spec, self.splits, records=records)


@gradients()
def train(
    spec: Spec | Mapping[str, object] | str | os.PathLike[str],
    data: Data | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Run:
    """Trains a model from a spec: every stage that the model declares, in order.

    Under torchrun all processes call this alike and train one model together; the first of them writes.

    Arguments:
        spec: A spec, a mapping that spells one, or the path of one.
        data: Arrays by modality (NaN or ``NAME__present`` for absence), and those that `data.group` and `data.split` name; a batch, a
            data frame (pandas, polars, pyarrow, a ``datasets.Dataset``), or a MuData or AnnData object, instead of the spec's source.
        out: The run folder to make; nothing is written when it is left out.
        overwrite: Whether a run folder of that name may be replaced.
        overrides: Changes to a spec that is given by its path, ``a.b=c`` each.
        device: ``auto``, ``cpu`` or ``cuda``.
        reporter: Hears of stages and epochs, and of rows that are worth a warning.

    Raises:
        SpecError: when the spec does not hold.
        DataError: when rows do not fit it.
        RunError: when the folder exists or cannot be written.

    Example:
        >>> import numpy as np
        >>> spec = {
        ...     "modalities": {"x": {"shape": 3, "encoder": "mlp", "likelihood": "normal"},
        ...                    "y": {"shape": 2, "encoder": "mlp", "likelihood": "categorical"}},
        ...     "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}}
        >>> run = train(spec, {"x": np.random.default_rng(0).normal(size=(40, 3)), "y": np.arange(40) % 2})
        >>> run.model.names
        ('x', 'y')
    """
    with joined() as world:
        spec, text = _read(spec, overrides)
        folder = None if out is None else Path(out)
        if folder is not None and world.is_main:
            check_vacant(folder, overwrite)
        frame = read_frame(spec, data)
        spec, data = (settle(spec, frame), frame) if data is None or frame is not None else (spec, data)
        model, splits = _prepare(spec, data, device, world, reporter)
        # Before a folder is touched: what was there must not be lost to rows that cannot train.
        check_stages(model, splits.train.through(model.prepare), spec.training, world)
        _check_alike(write_spec(spec), splits, world)
        precision = choose_precision(spec.training.precision, model, spec.training.batch_size, world=world)
        if folder is not None:
            if world.is_main:
                create(folder, spec, text, splits, device, precision, world.size)
            _advise(world, folder)
        return _train(model, spec, splits, folder, reporter, None, world, precision.chosen)


@gradients()
def resume(
    directory: str | os.PathLike[str], data: Data | None = None, *, device: str | None = None, reporter: Reporter | None = None
) -> Run:
    """Goes on with a run that was stopped, bit-identically on the same machine; a finished run is read again, model and rows.

    Arguments:
        directory: The run folder.
        data: The same rows as before, if they came from Python.
        device: Another device than before; results are then close, not identical.
        reporter: Hears of stages and epochs.

    Raises:
        RunError: when there is no run, its checkpoint is damaged, or the training rows are others than before.
    """
    folder = Path(directory)
    with joined() as world:
        if not (folder / RESOLVED).is_file():
            raise RunError(f"{folder}: no run folder here ({RESOLVED} is missing); start one with: nbridge train SPEC --out {folder}")
        spec = read_spec(folder / RESOLVED)
        environment = read_environment(folder)
        # With other processes nothing is bit-identical anyway, and the threads that one process had are too many for each of several.
        threads = environment["threads"] if environment.get("processes", 1) == world.size else torch.get_num_threads()
        # Sums over another number of threads are not bit-identical.
        with torch_threads(threads):
            model, splits = _prepare(spec, data, device or environment["device"], world, reporter)
            if environment["fingerprint"] != fingerprint(splits):
                raise RunError(f"{folder}: the rows are not those that this run began with; train a new run in another folder")
            if (folder / MODEL / CONFIG).is_file():
                return Run(load_model(folder)[0], spec, splits, folder)
            _advise(world, folder)
            # As chosen when the run began: measured again, it could be another one.
            products = environment["precision"]["chosen"]
            return _train(model, spec, splits, folder, reporter, _restore(folder, model, world), world, products)


def open_run(directory: str | os.PathLike[str], data: Data | None = None, *, device: str = "auto") -> Run:
    """Reads a run whose training is over: its model and the rows it was split into.

    Arguments:
        directory: The run folder.
        data: The same rows as before, if they came from Python.
        device: Where the model goes.

    Raises:
        RunError: when there is no run, its training is not over, its rows came from Python and are not given, or the training rows are
            others than before.
    """
    folder = Path(directory)
    if not (folder / RESOLVED).is_file():
        inside = f"; a model folder holds no rows, name the run folder {folder.parent}" if (folder / CONFIG).is_file() else ""
        raise RunError(f"{folder}: no run folder here ({RESOLVED} is missing){inside}")
    if not (folder / MODEL / CONFIG).is_file():
        raise RunError(f"{folder}: training is not over; go on with: nbridge resume {folder}")
    if data is None and read_spec(folder / RESOLVED).data.source.type in FROM_PYTHON:
        raise RunError(
            f"{folder}: the rows of this run came from Python; pass them again, nbridge.runs.run.open_run({str(folder)!r}, data)"
        )
    run = resume(folder, data, device=device)
    return replace(run, model=run.model.to(pick_device(device)))


def _read(spec: Spec | Mapping[str, object] | str | os.PathLike[str], overrides: Sequence[str]) -> tuple[Spec, str]:
    """The spec, and its text as written."""
    if isinstance(spec, str | os.PathLike):
        return read_spec(spec, overrides), Path(spec).read_text(encoding="utf-8")
    if overrides:
        raise NBridgeError("overrides change a spec that is given by its path; change the mapping or the Spec itself")
    spec = spec if isinstance(spec, Spec) else spec_from_dict(spec)
    return spec, write_spec(spec)


def _prepare(spec: Spec, data: Data | None, device: str, world: World, reporter: Reporter | None) -> tuple[MultimodalVAE, Splits]:
    listener = reporter if reporter is not None and world.is_main else Reporter()
    model = build_model(spec)
    with world.main_first():
        frame = data if isinstance(data, Given) else read_frame(spec, data)
        splits = build_data(spec, model, data if frame is None else frame, warn=listener.warn)
    return model.to(world.device(device)), splits


def _weigh(model: MultimodalVAE, spec: Spec, splits: Splits) -> None:
    """Gives a model the weights that follow from its training rows."""
    if wanted := [name for name in automatic_weights(spec) if name in model.weights]:
        weights = fit_weights(model, splits.train)
        model.weights.update({name: weights[name] for name in wanted})


def _check_alike(spec: str, splits: Splits, world: World) -> None:
    """Processes that train on other rows or settings than the others would spoil the model without a word."""
    if not world.alone and not world.agrees(spec + fingerprint(splits)):
        raise DataError("the processes of this training read different specs or rows; give all of them the same files")


def _advise(world: World, folder: Path) -> None:
    world.advice = f"nothing before the last checkpoint is lost; go on with: nbridge resume {shlex.quote(str(folder))}"


def _restore(folder: Path, model: MultimodalVAE, world: World) -> TrainingState | None:
    state = restore_state(folder, model, metrics=world.is_main)
    if not world.agrees("none" if state is None else f"{state.stage} {state.update}"):
        raise RunError(f"{folder}: the processes read different checkpoints here; resume needs a folder that all machines share")
    return state


def _train(
    model: MultimodalVAE,
    spec: Spec,
    splits: Splits,
    folder: Path | None,
    reporter: Reporter | None,
    state: TrainingState | None,
    world: World,
    products: Products,
) -> Run:
    _weigh(model, spec, splits)
    own = folder if world.is_main else None
    fit(
        model,
        splits.train,
        splits.validation,
        spec.training,
        reporter=reporter if world.is_main else None,
        state=state,
        save=None if own is None else partial(save_state, own, model),
        log=None if own is None else partial(append_record, own),
        world=world,
        products=products,
    )
    model.cpu()
    if own is not None:
        save_model(own / MODEL, model, with_weights(spec, model.weights), model_card(spec))
    world.barrier()
    return Run(model, spec, splits, folder)
