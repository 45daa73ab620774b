"""Checkpoints of training, with the model, the stage's best tensors and the optimiser's state in one file, and the metrics log.

Loading is as strict as for models: anything but a state of this model is an error, and nothing is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nbridge.common.atomic_files import write_text, writing
from nbridge.common.json_text import parse_json
from nbridge.common.messages import clip
from nbridge.common.warnings import Finding, issue
from nbridge.errors import RunError
from nbridge.models.base import MultimodalVAE
from nbridge.training.checkpoint import check_finite, check_layout, layout, load_into, load_tensors, save_tensors
from nbridge.training.records import EpochRecord
from nbridge.training.run_folder import CHECKPOINT, METRICS, stage_end
from nbridge.training.stage import tensors_of
from nbridge.training.trainer import TrainingState

_NUMBERS = ("stage", "epoch", "update", "best_score", "best_update", "decay_from")
"""The fields of a state that are not tensors."""
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""The optimiser's tensors of each parameter."""


def save_state(folder: Path, model: MultimodalVAE, state: TrainingState, path: Path = CHECKPOINT) -> None:
    """Writes a checkpoint of a run, the last one by default, atomically.

    Raises:
        RunError: if it cannot be written; the previous checkpoint is kept.
    """
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
    numbers = {name: None if (number := getattr(state, name)) == math.inf else number for name in _NUMBERS}
    names = [stage.name for stage in model.stages()]
    named = {"stages": names, "name": _name(names, state.stage)}
    save_tensors(folder / path, tensors, {**numbers, **named, "lines": len(_lines(folder / METRICS))})


def restore_state(
    folder: Path, model: MultimodalVAE, *, metrics: bool = True, warn: Callable[[Finding], object] = issue
) -> TrainingState | None:  # fmt: skip
    """Restores the model and the metrics from the last checkpoint; returns None, to start afresh, if there is none.

    With several processes, only one restores the metrics. Metrics that are lost or damaged are a warning: training doesn't read them.

    Raises:
        RunError: if the checkpoint is damaged, incomplete or of another model or stage, or the metrics cannot be written.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        if metrics:
            _write_lines(folder / METRICS, [])
        return None
    state, lines = read_state(path, model)
    if metrics:
        cut_metrics(folder, lines, warn=warn)
    return state


def save_stage_end(folder: Path, model: MultimodalVAE, state: TrainingState) -> None:
    """Writes the checkpoint of the end of the current stage, with its last weights and the optimiser's state.

    Raises:
        RunError: if it cannot be written.
    """
    save_state(folder, model, state, stage_end(model.stages()[state.stage].name))


def cut_metrics(folder: Path, lines: int, target: Path | None = None, *, warn: Callable[[Finding], object] = issue) -> None:
    """Writes the first lines of the metrics of a run, to another run folder if there is a target; warns if some are lost or damaged."""
    kept = list(takewhile(_is_record, _lines(folder / METRICS)[:lines]))
    if len(kept) < lines:
        lost = f"{len(kept):,} of the {lines:,} lines before the checkpoint can be read; the report shows only these"
        warn(Finding("damaged", "", f"{folder / METRICS}: {lost}", {"kept": len(kept), "lines": lines}))
    # The next line must not be appended to a line that lost its end.
    _write_lines((target or folder) / METRICS, [f"{line.rstrip()}\n" for line in kept])


def _is_record(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def read_state(path: Path, model: MultimodalVAE) -> tuple[TrainingState, int]:
    """Restores a model from a checkpoint; returns its state and the number of lines of metrics.

    Raises:
        RunError: if it is damaged, incomplete or of another model or stage.
    """
    tensors, numbers = load_tensors(path)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        if part not in parts:
            raise RunError(f"{path}: unexpected tensor {name}; this is not a checkpoint of a run")
        parts[part][rest] = tensor
    if missing := sorted({*_NUMBERS, "lines", "stages", "name"} - numbers.keys()):
        raise RunError(f"{path}: {missing[0]} is missing; written by another version of nbridge, so train a new run in another folder")
    _check_numbers(path, model, numbers)
    known = {name: numbers[name] for name in _NUMBERS if name != "best_score" or numbers[name] is not None}
    state = TrainingState(**known, best=parts["best"], optimizer=parts["optimizer"])
    load_into(model, parts["model"], path)
    _check_tensors(path, model, state)
    return state, numbers["lines"]


def _name(stages: Sequence[str], number: int) -> str | None:
    """The name of the current stage; None if all are done."""
    return stages[number] if number < len(stages) else None


def _check_numbers(path: Path, model: MultimodalVAE, numbers: Mapping[str, Any]) -> None:
    """Raises a `RunError` for a number of a state that the others contradict, or that no training of this model has."""
    stages = [stage.name for stage in model.stages()]
    if numbers["stages"] != stages:
        raise RunError(f"{path}: stages {clip(numbers['stages'], 100)}, expected {stages}; this is a checkpoint of another model")
    for name in ("stage", "epoch", "update", "best_update", "lines", "decay_from"):
        number = numbers[name]
        if not (type(number) is int and number >= 0) and not (name == "decay_from" and number is None):
            raise RunError(f"{path}: {name} is {clip(number, 100)}, expected a number of 0 or more")
    _check_stage(path, stages, numbers)
    _check_best(path, numbers)
    for name in ("epoch", "decay_from"):
        if (numbers[name] or 0) > numbers["update"]:
            raise RunError(f"{path}: {name} is {numbers[name]}, expected at most the {numbers['update']} of update")


def _check_stage(path: Path, stages: Sequence[str], numbers: Mapping[str, Any]) -> None:
    stage, update = numbers["stage"], numbers["update"]
    if stage > len(stages):
        raise RunError(f"{path}: stage is {stage}, expected at most {len(stages)}")
    if numbers["name"] != (expected := _name(stages, stage)):
        raise RunError(f"{path}: stage {stage} is named {clip(numbers['name'])}, expected {expected or 'none, as all stages are done'}")
    if stage == len(stages) and update > 0:
        raise RunError(f"{path}: update is {update}, expected 0 after the last stage")


def _check_best(path: Path, numbers: Mapping[str, Any]) -> None:
    update, score = numbers["update"], numbers["best_score"]
    if score is not None and not (isinstance(score, float) and math.isfinite(score)):
        raise RunError(f"{path}: best_score is {clip(score, 100)}, expected a finite number or null")
    # Without validation rows there is no score, and the last weights are the best.
    best = {0, update} if score is None else range(1, update + 1)
    if numbers["best_update"] not in best:
        raise RunError(f"{path}: best_update is {numbers['best_update']}, which does not match update {update}")


def _check_tensors(path: Path, model: MultimodalVAE, state: TrainingState) -> None:
    """Raises a `RunError` for a tensor of the optimiser or the best weights that is missing, extra or not one of the current stage."""
    expected: dict[str, Tensor] = {}
    if state.update > 0:
        modules = model.stages()[state.stage].modules
        inside = {parameter for module in modules for parameter in module.parameters()}
        for name, parameter in model.named_parameters():
            if parameter in inside and parameter.requires_grad:
                expected |= {f"optimizer/{name}/{part}": torch.zeros(()) if part == "step" else parameter for part in _MOMENTS}
        if state.best_score != math.inf:
            expected |= {f"best/{name}": tensor for name, tensor in tensors_of(model, modules).items()}
    found = {f"best/{name}": tensor for name, tensor in state.best.items()}
    found |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
    check_layout(path, layout(found), layout(expected))
    own = model.state_dict()
    for name, tensor in found.items():
        # A square may overflow; its parameter is then not updated.
        initial = tensor if name.endswith("/exp_avg_sq") else own.get(name.removeprefix("best/"))
        check_finite(f"{path}: tensor {name}", tensor, initial)
        if name.endswith("/exp_avg_sq") and bool((tensor < 0).any()):
            raise RunError(f"{path}: tensor {name} has a negative value, expected squares")
    steps = {name: float(tensor) for name, tensor in state.optimizer.items() if name.endswith("/step")}
    if wrong := [name for name, step in steps.items() if step not in range(state.update + 1)]:
        raise RunError(f"{path}: optimizer/{wrong[0]} is {steps[wrong[0]]:g}, expected at most the {state.update} of update")
    if steps and max(steps.values()) != state.update:
        raise RunError(f"{path}: the optimiser made {max(steps.values()):g} updates in this stage, expected the {state.update} of update")


def append_record(folder: Path, record: EpochRecord) -> None:
    """Appends a line to the metrics of a run.

    Raises:
        RunError: if it cannot be written.
    """
    path = folder / METRICS
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record.as_dict()) + "\n")


def read_records(folder: Path) -> Iterator[EpochRecord]:
    """The metrics of a run, round by round; an incomplete line of a killed run is skipped."""
    path = folder / METRICS
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            record = EpochRecord(**parse_json(line))
        except (ValueError, TypeError):
            continue
        yield record


def _write_lines(path: Path, lines: list[str]) -> None:
    with writing(path):
        write_text(path, "".join(lines))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if path.is_file() else []
