"""Training from a spec into a run folder, from which it can be resumed (`nbridge.training.run_folder`)."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nbridge.acceleration.devices import pick_device
from nbridge.acceleration.distributed import World, join_processes
from nbridge.acceleration.precision import Products
from nbridge.acceleration.precision_choice import choose_precision
from nbridge.common.autograd import gradients
from nbridge.common.process_state import torch_threads
from nbridge.common.warnings import Finding, issue
from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns
from nbridge.data.remote import refresh
from nbridge.data.source import DataSource
from nbridge.data.split import Splits
from nbridge.data.tables.frames import FrameLike
from nbridge.errors import DataError, NBridgeError, RunError
from nbridge.evaluation.crossmodal import Prediction, predict_each
from nbridge.evaluation.verdict import Verdict, read_verdict
from nbridge.inference.weights import fit_weights, with_weights
from nbridge.model import Model, load
from nbridge.models.base import MultimodalVAE
from nbridge.runs.continuing import longer_spec, reopen, spec_of_run
from nbridge.spec.reader import read_spec, spec_from_dict, write_spec
from nbridge.spec.registry import FROM_PYTHON, allowing, reading
from nbridge.spec.spec import Spec
from nbridge.training.build import automatic_weights, build_data, build_model, check_size, rows_given, settle, settle_covariates
from nbridge.training.callbacks import Callback, Callbacks
from nbridge.training.checkpoint import CONFIG, save_model
from nbridge.training.run_folder import (
    CHECKPOINT,
    MODEL,
    RESOLVED,
    VERDICT,
    check_target,
    create,
    fingerprint,
    model_card,
    new_environment,
    read_environment,
    read_resolved,
)  # fmt: skip
from nbridge.training.run_lock import run_lock
from nbridge.training.stage import StateError
from nbridge.training.state import append_record, read_records, restore_state, save_stage_end, save_state
from nbridge.training.texts import settle_arrays
from nbridge.training.trainer import TrainingState, check_stages, fit

SUMMARY_ROWS, SUMMARY_SAMPLES = 1000, 50
"""Rows and draws of the scores after training: enough for a first impression, within seconds even for images."""

Data = Mapping[str, ArrayLike | Tensor] | Batch | FrameLike


@dataclass(frozen=True)
class Run:
    """A trained model with its spec and data.

    Arguments:
        model: The model; its network is in eval mode, with the best weights of each stage.
        spec: Its spec.
        splits: Its training, validation and test rows.
        folder: The run folder, or None if nothing was written.
        warnings: The warnings issued while rows were read and split.
    """

    model: Model
    spec: Spec
    splits: Splits
    folder: Path | None
    warnings: tuple[Finding, ...] = ()

    @cached_property
    def verdict(self) -> Verdict:
        """Each modality, imputed from the others, against a free baseline: read from the run folder, or else measured in seconds."""
        if self.folder is not None and (kept := read_verdict(self.folder / VERDICT)) is not None:
            return kept
        from nbridge.evaluation.versus_baseline import compare_with_baselines

        records = () if self.folder is None else tuple(read_records(self.folder))
        return compare_with_baselines(self.model.network, self.spec, self.splits, records=records)

    @cached_property
    def held_out(self) -> Batch | None:
        """Some of the test rows, or validation rows if there are none, on which a trained model is summarised; None without either."""
        rows = self.splits.test if self.splits.test is not None else self.splits.validation
        return None if rows is None else rows.sample(SUMMARY_ROWS)

    @cached_property
    def predictions(self) -> list[Prediction]:
        """Each modality imputed from all others, scored on held-out rows; none without such rows, or with one modality."""
        rows = self.held_out
        return [] if rows is None or len(self.model.names) == 1 else predict_each(self.model.network, rows, samples=SUMMARY_SAMPLES)


@gradients()
def train(
    spec: Spec | Mapping[str, object] | str | os.PathLike[str],
    data: Data | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
    device: str = "auto",
    callbacks: Iterable[Callback] = (),
) -> Run:
    """Trains a model from a spec, in all stages that the model declares.

    Under torchrun, all processes make the same call and train one model together; the first one writes files.

    Arguments:
        spec: A spec, a mapping with its contents, or the path of a YAML file.
        data: Rows to use instead of the spec's source: arrays by modality (NaN or ``NAME__present`` for missing rows), with those named by
            `data.group` and `data.split`; a batch; a data frame (pandas, polars, pyarrow, a ``datasets.Dataset``); or a MuData or AnnData
            object.
        out: The run folder to create; by default nothing is written.
        overwrite: Whether to replace an existing run folder.
        overrides: Changes to a spec given by its path, ``a.b=c`` each.
        device: ``auto``, ``cpu`` or ``cuda``.
        callbacks: Called during training, in order (`nbridge.Callback`), in the first process.

    Raises:
        SpecError: if the spec is invalid.
        DataError: if rows do not match it.
        RunError: if the folder exists or cannot be written.

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
    collector = _WarningCollector(callbacks)
    with join_processes() as world, ExitStack() as stack:
        refresh()
        spec, text = _read(spec, overrides, written=out is not None)
        folder = None if out is None else Path(out)
        if folder is not None and world.is_main:
            check_target(folder, overwrite)
            stack.enter_context(run_lock(folder))
            # It may have been created meanwhile.
            check_target(folder, overwrite)
        frame = rows_given(spec, data)
        spec, data = (settle(spec, frame), frame) if data is None or frame is not None else (settle_arrays(spec, data), data)
        spec = settle_covariates(spec, data)
        model, splits = _prepare(spec, data, device, world, collector)
        # Before the folder is touched: invalid rows must not cost an existing run.
        check_stages(model, splits.train.through(model.prepare), spec.training, world)
        _check_same_everywhere(spec, splits, world)
        precision = choose_precision(spec.training.precision, model, spec.training.batch_size, world=world)
        if folder is not None:
            if world.is_main:
                create(folder, spec, text, new_environment(splits, device, precision, world.size))
            _advise(world, folder)
        return _train(model, spec, splits, folder, collector, None, world, precision.chosen)


@gradients()
def resume(
    directory: str | os.PathLike[str],
    data: Data | None = None,
    *,
    device: str | None = None,
    overrides: Sequence[str] = (),
    callbacks: Iterable[Callback] = (),
    allow: Iterable[str] = (),
) -> Run:
    """Resumes an interrupted run, bit-identically on the same machine; a finished run is loaded with its rows, or trained longer.

    Arguments:
        directory: The run folder.
        data: The same rows as before, if they came from Python.
        device: Another device than before; results are then close, not identical.
        overrides: A greater length of training, such as ``training.updates=5000``, for this run, finished or not. Stages after the first
            one that gets longer are trained again. With a length in epochs and the schedule ``constant``, the result is that of a run of
            this length from the start, bit for bit.
        callbacks: Called during training, in order (`nbridge.Callback`), in the first process.
        allow: Packages whose classes the spec of the run may import, as in `nbridge.load`.

    Raises:
        SpecError: if the spec of the run is damaged, or names a class that is not installed or not allowed.
        RunError: if there is no run, its checkpoint is damaged, the rows have changed, or the spec in its folder was edited before training
            has finished; or if an override is not about the length of training, or makes nothing longer.
    """
    folder = Path(directory)
    collector = _WarningCollector(callbacks, finished=(folder / MODEL / CONFIG).is_file())
    with join_processes() as world, allowing(allow), ExitStack() as stack:
        if not (folder / RESOLVED).is_file():
            raise RunError(f"{folder}: no run folder here ({RESOLVED} is missing); start one with: nbridge train SPEC --out {folder}")
        environment = read_environment(folder)
        finished = (folder / MODEL / CONFIG).is_file()
        before, edited = spec_of_run(folder, read_resolved(folder), environment, finished=finished)
        for finding in edited:
            collector.warn(finding)
        spec = longer_spec(folder, before, write_spec(before), overrides) if overrides else before
        # With another number of processes nothing is bit-identical anyway, and the threads of one process are too many for each of several.
        threads = environment["threads"] if environment.get("processes", 1) == world.size else torch.get_num_threads()
        # Sums over another number of threads are not bit-identical.
        with torch_threads(threads):
            with reading(folder / RESOLVED):
                model, splits = _prepare(spec, data, device or environment["device"], world, collector)
            if environment["fingerprint"] != fingerprint(splits):
                raise RunError(f"{folder}: the rows have changed since this run began; train a new run in another folder")
            if finished and not overrides:
                return _ended(Run(load(folder), spec, splits, folder, tuple(collector.findings)), collector, world)
            _advise(world, folder)
            if world.is_main:
                stack.enter_context(run_lock(folder))
            if overrides:
                with world.main_first():
                    if world.is_main:
                        reopen(folder, model, before, spec, environment, collector.warn)
            if (folder / MODEL / CONFIG).is_file():
                # Finished by the process that held the folder.
                return _ended(Run(load(folder), spec, splits, folder, tuple(collector.findings)), collector, world)
            # The stored precision, because measuring again could choose another one.
            products = environment["precision"]["chosen"]
            state = _restore(folder, model, world, collector)
            try:
                return _train(model, spec, splits, folder, collector, state, world, products)
            except StateError as error:
                raise RunError(f"{folder / CHECKPOINT}: {error}") from error


def open_run(directory: str | os.PathLike[str], data: Data | None = None, *, device: str = "auto", allow: Iterable[str] = ()) -> Run:
    """Loads a finished run: its model and its rows. Rows that came from Python must be passed again as ``data``.

    The spec of the run may import the packages in ``allow``, as in `nbridge.load`.

    Raises:
        SpecError: if the spec of the run is damaged, or names a class that is not installed or not allowed.
        RunError: if there is no run, it is not finished, its rows came from Python and are not given, or the rows have changed.
    """
    folder = Path(directory)
    if not (folder / RESOLVED).is_file():
        inside = f"; this is a model folder, give the run folder {folder.parent}" if (folder / CONFIG).is_file() else ""
        raise RunError(f"{folder}: no run folder here ({RESOLVED} is missing){inside}")
    if not (folder / MODEL / CONFIG).is_file():
        raise RunError(f"{folder}: training has not finished; continue with: nbridge resume {folder}")
    with allowing(allow):
        if data is None and read_resolved(folder).data.source.type in FROM_PYTHON:
            raise RunError(
                f"{folder}: the rows of this run came from Python; pass them again, nbridge.runs.run.open_run({str(folder)!r}, data)"
            )
        run = resume(folder, data, device=device)
    run.model.to(pick_device(device))
    return run


class _WarningCollector:
    """Collects warnings; callbacks are called with them, and where none takes any they are issued as `NBridgeWarning`.

    Doubts about the rows of a ``finished`` run were said when it was trained; they are collected alone.
    """

    def __init__(self, callbacks: Iterable[Callback], *, finished: bool = False) -> None:
        self.callbacks, self.finished, self.findings = Callbacks(*callbacks), finished, list[Finding]()

    def warn(self, finding: Finding) -> None:
        """Takes in one warning."""
        self.findings.append(finding)
        if self.finished and finding.kind in ("doubt", "unlearned"):
            return
        self.callbacks.on_warning(finding)
        if not self.callbacks.overrides("on_warning"):
            issue(finding)


def _read(spec: Spec | Mapping[str, object] | str | os.PathLike[str], overrides: Sequence[str], *, written: bool) -> tuple[Spec, str]:
    """The spec, and its text as written; a spec from Python is written as text, which takes a while, only on demand."""
    if isinstance(spec, str | os.PathLike):
        return read_spec(spec, overrides), Path(spec).read_text(encoding="utf-8")
    if overrides:
        raise NBridgeError("overrides apply only to a spec given by its path; change the mapping or the Spec instead")
    spec = spec if isinstance(spec, Spec) else spec_from_dict(spec)
    return spec, write_spec(spec) if written else ""


def _prepare(spec: Spec, data: Data | None, device: str, world: World, collector: _WarningCollector) -> tuple[MultimodalVAE, Splits]:
    check_size(model := build_model(spec))
    with world.main_first():
        frame = data if isinstance(data, DataSource) else rows_given(spec, data)
        splits = build_data(spec, model, data if frame is None else frame, warn=collector.warn if world.is_main else None)
    return model.to(world.device(device)), splits


def _weigh(model: MultimodalVAE, spec: Spec, splits: Splits) -> None:
    """Sets the automatic weights of a model from its training rows."""
    if wanted := [name for name in automatic_weights(spec) if name in model.weights]:
        weights = fit_weights(model, splits.train)
        model.weights.update({name: weights[name] for name in wanted})


def _check_same_everywhere(spec: Spec, splits: Splits, world: World) -> None:
    """Checks that all processes have the same spec and rows; otherwise they would silently corrupt the model."""
    if not world.is_single and not world.is_same_everywhere(write_spec(spec) + fingerprint(splits)):
        raise DataError("the processes of this training have different specs or rows; give all of them the same files")


def _advise(world: World, folder: Path) -> None:
    world.advice = f"continue from the last checkpoint with: nbridge resume {shlex.quote(str(folder))}"


def _restore(folder: Path, model: MultimodalVAE, world: World, collector: _WarningCollector) -> TrainingState | None:
    state = restore_state(folder, model, metrics=world.is_main, warn=collector.warn)
    if not world.is_same_everywhere("none" if state is None else f"{state.stage} {state.update}"):
        raise RunError(f"{folder}: the processes read different checkpoints; resume needs a folder shared by all machines")
    return state


def _train(
    model: MultimodalVAE, spec: Spec, splits: Splits, folder: Path | None, collector: _WarningCollector, state: TrainingState | None,
    world: World, products: Products,
) -> Run:  # fmt: skip
    _weigh(model, spec, splits)
    own = folder if world.is_main else None
    fit(
        model, splits.train, splits.validation, spec.training, state=state, world=world, products=products,
        callbacks=[collector.callbacks] if world.is_main else (),
        save=None if own is None else partial(save_state, own, model),
        log=None if own is None else partial(append_record, own),
        keep=None if own is None else partial(save_stage_end, own, model),
    )  # fmt: skip
    model.cpu()
    never: dict[str, list[str]] = {}
    for finding in (finding for finding in collector.findings if finding.kind == "unlearned"):
        never.setdefault(finding.where, []).extend(finding.details["elements"])
    patterns = replace(Patterns.of(model.names, splits.train.present), never=never)
    if own is not None:
        save_model(own / MODEL, model, with_weights(spec, model.weights), patterns, model_card(spec))
    world.barrier()
    return _ended(Run(Model(model, spec, patterns), spec, splits, folder, tuple(collector.findings)), collector, world)


def _ended(run: Run, collector: _WarningCollector, world: World) -> Run:
    if world.is_main:
        collector.callbacks.on_end(run)
    return run
