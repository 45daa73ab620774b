"""Run folders: layout, atomic creation and environment.

======================= ===============================================================================================
``spec.yaml``           the spec as written
``spec.resolved.yaml``  the spec with all defaults filled in; read by `nbridge.resume`
``env.json``            versions, threads, processes, device, the chosen precision, a fingerprint of the rows, and both specs as written
``metrics.jsonl``       a line per round: an epoch, or 2 % of a budget in updates
``checkpoints/``        ``last.safetensors``: the last checkpoint; ``end-STAGE.safetensors``: the end of a stage, to train it longer
``model/``              the trained model and the missingness patterns of its training rows, written after training
``classifiers/``        classifiers trained by `nbridge evaluate`, cached
``evaluation.json``     the last results of `nbridge evaluate` on test rows; ``evaluation-train.json`` on training rows, and so on
``verdict.json``        each modality, imputed from the others, against a free baseline, written by `nbridge train`
``tensorboard/``        metrics for TensorBoard, written with `--log tensorboard`
``report.html``         the report, written by `nbridge train` and `nbridge report`
======================= ===============================================================================================
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from nbridge.acceleration.devices import pick_device
from nbridge.acceleration.precision import Products
from nbridge.acceleration.precision_choice import PrecisionChoice
from nbridge.common.atomic_files import check_replaceable, replace_folder, scratch_beside, write_json, write_text, writing
from nbridge.common.hashing import hash_tensor
from nbridge.common.json_text import parse_json
from nbridge.data.batch import Batch
from nbridge.data.remote import as_url, is_url
from nbridge.data.split import Splits
from nbridge.data.streaming.stored_rows import StoredRows
from nbridge.errors import RunError, SpecError
from nbridge.spec import registry
from nbridge.spec.reader import read_spec, write_spec
from nbridge.spec.spec import Spec
from nbridge.version import __version__

SPEC, RESOLVED, ENVIRONMENT, METRICS, MODEL = "spec.yaml", "spec.resolved.yaml", "env.json", "metrics.jsonl", "model"
CLASSIFIERS, REPORT, TENSORBOARD, VERDICT = "classifiers", "report.html", "tensorboard", "verdict.json"
CHECKPOINT = Path("checkpoints", "last.safetensors")


def stage_end(stage: str) -> Path:
    """The checkpoint of the end of a stage, in a run folder."""
    return CHECKPOINT.parent / f"end-{stage}.safetensors"


def evaluation_path(folder: Path, split: str) -> Path:
    """The path of the evaluation results of a split."""
    return folder / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")


def read_resolved(folder: Path) -> Spec:
    """The spec that a run was trained from. The folder may come from elsewhere, so its classes are restricted as those of models are.

    Raises:
        SpecError: one line, if it is damaged, or names a class that is not installed or not allowed.
    """
    with registry.reading(path := folder / RESOLVED):
        try:
            return read_spec(path)
        except SpecError as error:
            more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
            raise SpecError([f"{error.problems[0]}{more}"]) from error


def check_target(folder: Path, overwrite: bool) -> None:
    """Raises a `RunError` if a folder must not be used for a new run; only run folders can be overwritten."""
    if is_url(folder):
        raise RunError(f"{as_url(folder)}: a URL, expected a local folder, since a run writes many files one by one; copy it afterwards")
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise RunError(f"{folder}: exists and is not a folder; choose another with --out")
    with writing(folder):
        check_replaceable(folder)
    if not any(folder.iterdir()):
        return
    if not (folder / RESOLVED).is_file():
        raise RunError(f"{folder}: exists and is not a run folder of nbridge; choose another with --out")
    if not overwrite:
        raise RunError(
            f"{folder}: already contains a run. Use --overwrite to replace it, --out for another folder, or: nbridge resume {folder}"
        )


def create(
    folder: Path, spec: Spec, text: str, environment: Mapping[str, Any], fill: Callable[[Path], object] = lambda _: None
) -> None:  # fmt: skip
    """Creates a run folder atomically, so that it always contains everything that `resume` needs.

    The text is the spec as written, and the environment the contents of ``env.json`` (`new_environment`, or `read_environment` of a run
    with the same rows); ``fill`` adds other files before the folder appears.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch_beside(folder) as scratch:
            fresh = scratch / "run"
            (fresh / CHECKPOINT).parent.mkdir(parents=True)
            texts = {SPEC: text, RESOLVED: write_spec(spec)}
            for name, content in texts.items():
                write_text(fresh / name, content)
            write_json(fresh / ENVIRONMENT, {**environment, "specs": texts})
            fill(fresh)
            replace_folder(folder, fresh)


def machine(device: str) -> dict[str, Any]:
    """Versions, device and threads: with the spec and the rows, they determine a training run bit for bit."""
    return {
        "nbridge": __version__, "torch": torch.__version__, "python": platform.python_version(), "platform": platform.platform(),
        "device": str(pick_device(device)), "threads": torch.get_num_threads(),
    }  # fmt: skip


def new_environment(splits: Splits, device: str, precision: PrecisionChoice, processes: int) -> dict[str, Any]:
    """The contents of ``env.json`` of a new run."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return {
        **machine(device), "processes": processes, "rows": {name: 0 if rows is None else len(rows) for name, rows in parts.items()},
        "fingerprint": fingerprint(splits), "precision": precision.as_dict(),
    }  # fmt: skip


def read_environment(folder: Path) -> dict[str, Any]:
    """Reads ``env.json`` of a run folder.

    Raises:
        RunError: if it is missing or damaged.
    """
    expected = {"threads": int, "device": str, "fingerprint": str, "precision": dict}
    try:
        environment = parse_json((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        whole = all(isinstance(environment[key], kind) for key, kind in expected.items()) and environment["threads"] > 0
        if whole and environment["precision"]["chosen"] in get_args(Products):
            return environment
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise RunError(f"{folder / ENVIRONMENT}: missing or damaged, so this run cannot be resumed; train a new one")


def fingerprint(splits: Splits) -> str:
    """A hash of the values and presence of the training and validation rows.

    Rows on disk contribute the hash of their whole files, computed when they were opened.
    """
    digest = hashlib.sha256()
    for rows in (splits.train, splits.validation):
        if isinstance(rows, StoredRows):
            digest.update(rows.digest().encode())
        batch = rows if isinstance(rows, Batch) else None
        for part in (batch.values, batch.present, batch.cells, batch.covariates) if batch is not None else ():
            for name in sorted(part):
                hash_tensor(digest, part[name], name)
        digest.update(b"validation")
    return digest.hexdigest()


def model_card(spec: Spec) -> str:
    """The model card of a model folder, in Markdown."""
    modalities = "\n".join(
        f"| {name} | {list(modality.shape)} | {modality.encoder.type} | {modality.likelihood.type} |"
        for name, modality in spec.modalities.items()
    )
    return (
        f"# {spec.name or spec.model.type}\n\n"
        f"A {spec.model.type} model of {len(spec.modalities)} modalities, made by nbridge {__version__}. "
        f"Load it with `nbridge.load` on this folder.\n\n| modality | shape | encoder | likelihood |\n|---|---|---|---|\n{modalities}\n"
    )
