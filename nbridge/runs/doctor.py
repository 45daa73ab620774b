"""Says what is installed and available, and whether a run folder is whole, locked and resumable."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from nbridge.acceleration.precision import has_bf16_products
from nbridge.common.atomic_files import leftovers, real_folder
from nbridge.common.json_text import parse_json
from nbridge.common.memory import free_bytes
from nbridge.data.folders import data_folder
from nbridge.errors import NBridgeError, RunError
from nbridge.spec.registry import STAGES, reading
from nbridge.training.build import build_model
from nbridge.training.checkpoint import CONFIG, TENSORS, UNREADABLE, load_model, load_tensors, read_config
from nbridge.training.run_folder import (
    CHECKPOINT,
    ENVIRONMENT,
    METRICS,
    MODEL,
    RESOLVED,
    VERDICT,
    read_environment,
    read_resolved,
    stage_end,
)
from nbridge.training.run_lock import holder, lock_path
from nbridge.training.state import read_state
from nbridge.version import __version__

USER_EXTRAS = ("explore", "hub", "omics", "onnx", "tracking")
"""The extras that users install; others are for tests and checks of the code."""


@dataclass(frozen=True)
class System:
    """The machine and the installation.

    Arguments:
        versions: The versions of nbridge, Python, torch and the platform.
        devices: The devices that torch can use.
        threads: The threads of torch, and ``OMP_NUM_THREADS`` if it is set.
        precision: The precisions that matrix products can have on the first device.
        extras: For each extra, the packages that are missing.
        free_memory: Free memory in bytes; None if the system does not report it.
        free_disk: Free space of the current folder in bytes.
        data: The folder in $NBRIDGE_DATA, if it is set.
    """

    versions: Mapping[str, str]
    devices: tuple[str, ...]
    threads: str
    precision: tuple[str, ...]
    extras: Mapping[str, tuple[str, ...]]
    free_memory: float | None
    free_disk: float
    data: str | None


@dataclass(frozen=True)
class RunState:
    """A run folder.

    Arguments:
        folder: The folder.
        state: ``finished``, ``resumable``, ``being written`` or ``damaged``.
        damaged: What is wrong with each damaged file.
        holder: The process that writes it; empty if none does.
        leftovers: Temporary files of processes that were killed.
        advice: What to do.
    """

    folder: str
    state: str
    damaged: Mapping[str, str]
    holder: str
    leftovers: tuple[str, ...]
    advice: str

    def as_dict(self) -> dict[str, object]:
        """The state as plain data."""
        return asdict(self)


def diagnose_system() -> System:
    """The versions, devices, threads, extras, precisions, free memory and free disk of this process."""
    cuda = [f"cuda:{number} ({torch.cuda.get_device_name(number)})" for number in range(torch.cuda.device_count())]
    device = torch.device("cuda" if cuda else "cpu")
    omp = os.environ.get("OMP_NUM_THREADS")
    memory, folder = free_bytes(), data_folder()
    return System(
        {"nbridge": __version__, "python": platform.python_version(), "torch": torch.__version__, "platform": platform.platform()},
        (*cuda, f"cpu ({os.cpu_count()} cores)"),
        f"{torch.get_num_threads()} of torch" + (f", OMP_NUM_THREADS={omp}" if omp else ""),
        ("float32", *(["bf16"] if has_bf16_products(device) else [])),
        {extra: _missing(extra) for extra in USER_EXTRAS},
        None if memory == float("inf") else memory,
        shutil.disk_usage(".").free,
        None if folder is None else f"{folder}{'' if folder.is_dir() else ' (no such folder)'}",
    )


def diagnose_run(folder: Path) -> RunState:
    """Reads every file of a run folder, without changing any.

    Raises:
        RunError: if there is no run folder.
    """
    if not (folder / RESOLVED).is_file():
        inside = f"; this is a model folder, give the run folder {folder.parent}" if (folder / CONFIG).is_file() else ""
        raise RunError(f"{folder}: no run folder here ({RESOLVED} is missing){inside}")
    finished = (folder / MODEL / CONFIG).is_file()
    checks: dict[Path, Callable[[], object]] = {
        Path(RESOLVED): lambda: read_resolved(folder),
        Path(ENVIRONMENT): lambda: read_environment(folder),
        Path(METRICS): lambda: _parse_lines(folder / METRICS),
        CHECKPOINT: lambda: _check_state(folder, CHECKPOINT),
        **{path: partial(_check_state, folder, path) for path in map(stage_end, _stages(folder))},
        Path(MODEL, CONFIG): lambda: read_config(folder / MODEL),
        Path(MODEL, TENSORS): lambda: _check_model(folder / MODEL),
        Path(VERDICT): lambda: parse_json((folder / VERDICT).read_text(encoding="utf-8")),
    }
    required = {Path(RESOLVED), Path(ENVIRONMENT), *([Path(MODEL, TENSORS)] if finished else [])}
    damaged = {str(file): reason for file, check in checks.items() if (reason := _damage(folder / file, check, required=file in required))}
    held, whole = _holder(folder), real_folder(folder)
    inside = (folder, *(path for path in (folder / "checkpoints", folder / "model") if path.is_dir()))
    left = tuple(str(path) for place in inside for path in leftovers(place)) + tuple(map(str, leftovers(whole.parent, whole.name)))
    state = "being written" if held else "damaged" if damaged else "finished" if finished else "resumable"
    return RunState(str(folder), state, damaged, held, left, _advice(folder, state, damaged, finished=finished))


def _advice(folder: Path, state: str, damaged: Mapping[str, str], *, finished: bool) -> str:
    named = shlex.quote(str(folder))
    again = f"nbridge train {shlex.quote(str(folder / RESOLVED))} --out ANOTHER"
    resume = f"nbridge resume {named}"
    model = bool({str(Path(MODEL, CONFIG)), str(Path(MODEL, TENSORS))} & damaged.keys())
    checkpoint, environment = str(CHECKPOINT) in damaged, ENVIRONMENT in damaged
    cases = [
        (state == "being written", f"wait until the process ends, or stop it; then: {resume}"),
        # Files that may not be read are whole, for all that is known.
        (any(UNREADABLE in reason for reason in damaged.values()), f"make its files readable: chmod -R u+rwX {named}"),
        (state == "finished", f"use it: nbridge impute {named} ROWS --out COMPLETED"),
        (RESOLVED in damaged, "the spec is lost; train again from the spec that you wrote"),
        (finished and not model, f"the model is whole and can be used; other files need a new training: {again}"),
        (environment or checkpoint, f"this run cannot be resumed; train again: {again}"),
        (model, f"remove {folder / MODEL}, and continue from the checkpoint: {resume}"),
    ]
    return next((advice for applies, advice in cases if applies), f"continue with: {resume}")


def _damage(path: Path, check: Callable[[], object], *, required: bool) -> str:
    """What is wrong with a file; empty if nothing is."""
    if not path.exists():
        return "missing" if required else ""
    try:
        check()
    except PermissionError:
        return UNREADABLE
    except (NBridgeError, OSError, ValueError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0].removeprefix(f"{path}: ")
    return ""


def _check_model(folder: Path) -> None:
    """Checks tensors, and that they are those of the model in ``config.json`` unless that is damaged."""
    try:
        read_config(folder)
    except NBridgeError:
        load_tensors(folder / TENSORS)
    else:
        load_model(folder)


def _check_state(folder: Path, path: Path) -> None:
    """Checks a checkpoint, and that it is one of the model in the spec unless that is damaged."""
    try:
        with reading(folder / RESOLVED):
            model = build_model(read_resolved(folder))
    except NBridgeError:
        load_tensors(folder / path)
    else:
        read_state(folder / path, model)


def _stages(folder: Path) -> tuple[str, ...]:
    """The stages of a run; none if its spec is damaged."""
    try:
        return STAGES.get(read_resolved(folder).model.type, ())
    except NBridgeError:
        return ()


def _parse_lines(path: Path) -> None:
    # A killed run may leave its last line unfinished; resume cuts it.
    for line in path.read_text(encoding="utf-8").splitlines()[:-1]:
        parse_json(line)


def _holder(folder: Path) -> str:
    """The process that holds a run folder; empty if none does."""
    path = lock_path(folder)
    if not path.exists():
        return ""
    try:
        with FileLock(path, timeout=0):
            return ""
    except Timeout:
        return holder(folder).removesuffix(",") or "another process"


def _missing(extra: str) -> tuple[str, ...]:
    """The packages of an extra that are not installed."""
    every = importlib.metadata.requires("nbridge") or ()
    names = [re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in every if re.search(rf"extra == ['\"]{extra}['\"]", one)]
    return tuple(name for name in names if not _is_installed(name))


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
