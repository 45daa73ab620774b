"""A run: training in a folder that keeps the spec, the metrics, checkpoints and the model, and goes on after anything that stops it.

======================= ===============================================================================================
``spec.yaml``           the spec as written
``spec.resolved.yaml``  the same with every default filled in; what `resume` reads
``env.json``            versions, threads and device, and a fingerprint of the training rows
``metrics.jsonl``       a line for each epoch
``checkpoints/``        ``last.safetensors``: where training stands
``model/``              the trained model, written when training is over
======================= ===============================================================================================
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nbridge.acceleration import pick_device
from nbridge.batch import Batch
from nbridge.build import build_data, build_model
from nbridge.checkpoint import CONFIG, load_into, load_model, load_tensors, save_model, save_tensors
from nbridge.data.dataset import Splits
from nbridge.errors import RunError
from nbridge.files import write_json, write_text
from nbridge.models.base import MultimodalVAE
from nbridge.progress import EpochRecord, Reporter
from nbridge.read import read_spec, write_spec
from nbridge.spec import Spec
from nbridge.training import TrainingState, fit
from nbridge.version import __version__

Data = Mapping[str, ArrayLike | Tensor] | Batch
SPEC, RESOLVED, ENVIRONMENT, METRICS = "spec.yaml", "spec.resolved.yaml", "env.json", "metrics.jsonl"
CHECKPOINT = Path("checkpoints", "last.safetensors")


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


def train(
    spec: Spec | str | os.PathLike[str],
    data: Data | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
    device: str = "auto",
    reporter: Reporter | None = None,
) -> Run:
    """Trains a model from a spec: joint stage, then bridges.

    Arguments:
        spec: A spec, or the path of one.
        data: Arrays by modality (NaN or ``NAME__present`` for absence) or a batch, instead of the source that the spec names.
        out: The run folder to make; nothing is written when it is left out.
        overwrite: Whether a run folder of that name may be replaced.
        overrides: Changes to a spec that is given by its path, ``a.b=c`` each.
        device: ``auto``, ``cpu`` or ``cuda``.
        reporter: Hears of stages and epochs.

    Raises:
        SpecError: when the spec does not hold.
        DataError: when rows do not fit it.
        RunError: when the folder exists or cannot be written.

    Example:
        >>> import numpy as np
        >>> spec = Spec.model_validate({
        ...     "modalities": {"x": {"shape": 3, "encoder": "mlp", "likelihood": "normal"},
        ...                    "y": {"shape": 2, "encoder": "mlp", "likelihood": "categorical"}},
        ...     "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}})
        >>> run = train(spec, {"x": np.random.default_rng(0).normal(size=(40, 3)), "y": np.arange(40) % 2})
        >>> run.model.names
        ('x', 'y')
    """
    text = None
    if not isinstance(spec, Spec):
        path, spec = Path(spec), read_spec(spec, overrides)
        text = path.read_text(encoding="utf-8")
    folder = None if out is None else Path(out)
    if folder is not None:
        _check_vacant(folder, overwrite)
    model, splits = _prepare(spec, data, device)
    if folder is not None:
        _create(folder, spec, text or write_spec(spec), splits, device)
    return _train(model, spec, splits, folder, reporter, None)


def resume(
    directory: str | os.PathLike[str], data: Data | None = None, *, device: str | None = None, reporter: Reporter | None = None
) -> Run:
    """Goes on with a run that was stopped, bit-identically on the same machine; a finished run is only read.

    Arguments:
        directory: The run folder.
        data: The same rows as before, if they came from Python.
        device: Another device than before; results are then close, not identical.
        reporter: Hears of stages and epochs.

    Raises:
        RunError: when there is no run, its checkpoint is damaged, or the training rows are others than before.
    """
    folder = Path(directory)
    if not (folder / RESOLVED).is_file():
        raise RunError(f"{folder}: no run folder here ({RESOLVED} is missing); start one with: nbridge train SPEC --out {folder}")
    spec = read_spec(folder / RESOLVED)
    environment = _read_environment(folder)
    with _threads(environment.get("threads")):
        model, splits = _prepare(spec, data, device or environment.get("device", "auto"))
        if environment.get("fingerprint") != fingerprint(splits.train):
            raise RunError(f"{folder}: the training rows are not those that this run began with; train a new run in another folder")
        if (folder / "model" / CONFIG).is_file():
            return Run(load_model(folder)[0], spec, splits, folder)
        return _train(model, spec, splits, folder, reporter, _restore(folder, model))


def fingerprint(batch: Batch) -> str:
    """A hash of all values and their presence, by which other rows are told from the same ones."""
    digest = hashlib.sha256()
    for part in (batch.values, batch.present, batch.cells):
        for name in sorted(part):
            digest.update(f"{name} {tuple(part[name].shape)} {part[name].dtype}".encode())
            digest.update(part[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _prepare(spec: Spec, data: Data | None, device: str) -> tuple[MultimodalVAE, Splits]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.training.seed)
        model = build_model(spec)
    return model.to(pick_device(device)), build_data(spec, model, data)


def _train(
    model: MultimodalVAE,
    spec: Spec,
    splits: Splits,
    folder: Path | None,
    reporter: Reporter | None,
    state: TrainingState | None,
) -> Run:
    save = None if folder is None else partial(_save_state, folder, model)
    log = None if folder is None else partial(_append, folder / METRICS)
    fit(model, splits.train, splits.validation, spec.training, reporter=reporter, state=state, save=save, log=log)
    model.cpu()
    if folder is not None:
        save_model(folder / "model", model, spec, _card(spec))
    return Run(model, spec, splits, folder)


# The folder


def _check_vacant(folder: Path, overwrite: bool) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise RunError(f"{folder}: exists and is not a folder; choose another with --out")
    ours = (folder / RESOLVED).is_file()
    if not any(folder.iterdir()):
        return
    if not ours:
        raise RunError(f"{folder}: exists and is not a run folder of nbridge; choose another with --out")
    if not overwrite:
        raise RunError(
            f"{folder}: a run is there already. Use --overwrite to replace it, --out for another folder, or: nbridge resume {folder}"
        )


def _create(folder: Path, spec: Spec, text: str, splits: Splits, device: str) -> None:
    """Fills a folder beside the run folder and renames it, so that a run folder always holds all that `resume` needs."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror or error})") from error
    try:
        fresh.chmod(0o755)
        (fresh / CHECKPOINT).parent.mkdir()
        write_text(fresh / SPEC, text)
        write_text(fresh / RESOLVED, write_spec(spec))
        write_json(fresh / ENVIRONMENT, _environment(splits, device))
        if folder.exists():
            old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
            folder.replace(old)
            fresh.replace(folder)
            shutil.rmtree(old)
        else:
            fresh.replace(folder)
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _environment(splits: Splits, device: str) -> dict[str, Any]:
    return {
        "nbridge": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(pick_device(device)),
        "threads": torch.get_num_threads(),
        "rows": {
            "train": len(splits.train),
            "validation": len(splits.validation) if splits.validation is not None else 0,
            "test": len(splits.test) if splits.test is not None else 0,
        },
        "fingerprint": fingerprint(splits.train),
    }


def _read_environment(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / ENVIRONMENT}: missing or damaged, so this run cannot go on; train a new one") from error


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """The number of threads that the run began with: sums over another number are not bit-identical."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Training state


def _save_state(folder: Path, model: MultimodalVAE, state: TrainingState) -> None:
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
    numbers = {
        "stage": state.stage,
        "epoch": state.epoch,
        "best_loss": state.best_loss if math.isfinite(state.best_loss) else None,
        "best_epoch": state.best_epoch,
        "lines": len(_lines(folder / METRICS)),
    }
    save_tensors(folder / CHECKPOINT, tensors, numbers)


def _restore(folder: Path, model: MultimodalVAE) -> TrainingState | None:
    """Puts the model and the metrics back to the last checkpoint; None, to begin at the start, when there is none."""
    path = folder / CHECKPOINT
    if not path.is_file():
        write_text(folder / METRICS, "")
        return None
    tensors, numbers = load_tensors(path)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = tensor
    load_into(model, parts["model"], path)
    write_text(folder / METRICS, "".join(_lines(folder / METRICS)[: numbers["lines"]]))
    best_loss = math.inf if numbers["best_loss"] is None else numbers["best_loss"]
    return TrainingState(numbers["stage"], numbers["epoch"], best_loss, numbers["best_epoch"], parts["best"], parts["optimizer"])


def _append(path: Path, record: EpochRecord) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record.as_dict()) + "\n")
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []


def _card(spec: Spec) -> str:
    modalities = "\n".join(
        f"| {name} | {list(modality.shape)} | {modality.encoder.type} | {modality.likelihood.type} |"
        for name, modality in spec.modalities.items()
    )
    return (
        f"# {spec.name or 'A bridged VAE'}\n\n"
        f"A {spec.model.type} model of {len(spec.modalities)} modalities, made by nbridge {__version__}. "
        f"Load it with `nbridge.load` on this folder.\n\n| modality | shape | encoder | likelihood |\n|---|---|---|---|\n{modalities}\n"
    )
