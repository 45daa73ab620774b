"""Checkpoints of training, with the model, the stage's best tensors and the optimiser's state in one file, and the metrics log.

Loading is as strict as for models: anything but a state of this model is an error, and nothing is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from nbridge.common.atomic_files import write_text, writing
from nbridge.errors import RunError
from nbridge.models.base import MultimodalVAE
from nbridge.training.checkpoint import load_into, load_tensors, save_tensors
from nbridge.training.progress import EpochRecord
from nbridge.training.run_folder import CHECKPOINT, METRICS
from nbridge.training.trainer import TrainingState

_NUMBERS = ("stage", "epoch", "update", "best_score", "best_update", "decay_from")
"""The fields of a state that are not tensors."""


def save_state(folder: Path, model: MultimodalVAE, state: TrainingState) -> None:
    """Writes the checkpoint of a run, atomically.

    Raises:
        RunError: if it cannot be written; the previous checkpoint is kept.
    """
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
    numbers = {name: None if (number := getattr(state, name)) == math.inf else number for name in _NUMBERS}
    save_tensors(folder / CHECKPOINT, tensors, {**numbers, "lines": len(_lines(folder / METRICS))})


def restore_state(folder: Path, model: MultimodalVAE, *, metrics: bool = True) -> TrainingState | None:
    """Restores the model and the metrics from the last checkpoint; returns None, to start afresh, if there is none.

    With several processes, only one restores the metrics.

    Raises:
        RunError: if the checkpoint is damaged or of another model, or the metrics cannot be written.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        if metrics:
            _write_lines(folder / METRICS, [])
        return None
    tensors, numbers = load_tensors(path)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        if part not in parts:
            raise RunError(f"{path}: unexpected tensor {name}; this is not a checkpoint of a run")
        parts[part][rest] = tensor
    if missing := sorted({*_NUMBERS, "lines"} - numbers.keys()):
        raise RunError(f"{path}: {missing[0]} is missing; written by another version of nbridge, so train a new run in another folder")
    load_into(model, parts["model"], path)
    if metrics:
        _write_lines(folder / METRICS, _lines(folder / METRICS)[: numbers["lines"]])
    known = {name: numbers[name] for name in _NUMBERS if name != "best_score" or numbers[name] is not None}
    return TrainingState(**known, best=parts["best"], optimizer=parts["optimizer"])


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
            record = EpochRecord(**json.loads(line))
        except (ValueError, TypeError):
            continue
        yield record


def _write_lines(path: Path, lines: list[str]) -> None:
    with writing(path):
        write_text(path, "".join(lines))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
