"""The folder of a run: made whole or not at all, and what it says of the run.

======================= ===============================================================================================
``spec.yaml``           the spec as written
``spec.resolved.yaml``  the same with every default filled in; what `nbridge.resume` reads
``env.json``            versions, threads, processes and device, the precision chosen, and a fingerprint of the rows
``metrics.jsonl``       a line for each epoch
``checkpoints/``        ``last.safetensors``: where training stands
``model/``              the trained model, with the patterns of presence that it learned from, written when training is over
``classifiers/``        the classifiers that `nbridge evaluate` trained, for the next time
``evaluation.json``     what `nbridge evaluate` measured last on the test rows; ``evaluation-train.json`` on training rows, and so on
``verdict.json``         each modality, imputed from the others, beside a free baseline, as `nbridge train` measured it at its end
``tensorboard/``        the metrics as TensorBoard reads them, written by `--log tensorboard`
``report.html``         the run as a page, as `nbridge train` and `nbridge report` write it
======================= ===============================================================================================
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from nbridge.acceleration.devices import pick_device
from nbridge.acceleration.measuring import Chosen
from nbridge.acceleration.precision import Products
from nbridge.common.atomic_files import write_json, write_text, writing
from nbridge.common.hashing import hash_tensor
from nbridge.data.batch import Batch
from nbridge.data.split import Splits
from nbridge.data.streaming.stored_rows import StoredRows
from nbridge.errors import RunError
from nbridge.spec.reader import write_spec
from nbridge.spec.spec import Spec
from nbridge.version import __version__

SPEC, RESOLVED, ENVIRONMENT, METRICS, MODEL = "spec.yaml", "spec.resolved.yaml", "env.json", "metrics.jsonl", "model"
CLASSIFIERS, REPORT, TENSORBOARD, VERDICT = "classifiers", "report.html", "tensorboard", "verdict.json"
CHECKPOINT = Path("checkpoints", "last.safetensors")


def evaluation_path(folder: Path, split: str) -> Path:
    """The file that holds the evaluation of a split."""
    return folder / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")


def check_vacant(folder: Path, overwrite: bool) -> None:
    """Raises a RunError when a folder may not be used for a new run; only run folders are ever replaced."""
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


def create(folder: Path, spec: Spec, text: str, splits: Splits, device: str, precision: Chosen, processes: int = 1) -> None:
    """Fills a folder beside the run folder and renames it, so that a run folder always holds all that `resume` needs."""
    _create(folder, spec, text, {**_environment(splits, device, processes), "precision": precision.as_dict()})


def create_like(folder: Path, spec: Spec, text: str, other: Path) -> None:
    """The same for a run on the rows, and by the versions, of another run."""
    _create(folder, spec, text, read_environment(other))


def _create(folder: Path, spec: Spec, text: str, environment: Mapping[str, Any]) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise RunError(f"{folder}: cannot be made ({error.strerror or error})") from error
    try:
        with writing(folder):
            fresh.chmod(0o755)
            (fresh / CHECKPOINT).parent.mkdir()
            write_text(fresh / SPEC, text)
            write_text(fresh / RESOLVED, write_spec(spec))
            write_json(fresh / ENVIRONMENT, environment)
            if folder.exists():
                old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
                folder.replace(old)
                fresh.replace(folder)
                shutil.rmtree(old)
            else:
                fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def machine(device: str) -> dict[str, Any]:
    """What decides, beside spec and rows, the last bits of a training: versions, device and threads."""
    return {
        "nbridge": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(pick_device(device)),
        "threads": torch.get_num_threads(),
    }


def _environment(splits: Splits, device: str, processes: int) -> dict[str, Any]:
    return {
        **machine(device),
        "processes": processes,
        "rows": {
            "train": len(splits.train),
            "validation": len(splits.validation) if splits.validation is not None else 0,
            "test": len(splits.test) if splits.test is not None else 0,
        },
        "fingerprint": fingerprint(splits),
    }


def read_environment(folder: Path) -> dict[str, Any]:
    """What `create` wrote of the machine and the rows.

    Raises:
        RunError: when it is missing or damaged.
    """
    expected = {"threads": int, "device": str, "fingerprint": str, "precision": dict}
    try:
        environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        whole = all(isinstance(environment[key], kind) for key, kind in expected.items()) and environment["threads"] > 0
        if whole and environment["precision"]["chosen"] in get_args(Products):
            return environment
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise RunError(f"{folder / ENVIRONMENT}: missing or damaged, so this run cannot go on; train a new one")


def fingerprint(splits: Splits) -> str:
    """A hash of all values and their presence in the training and the validation rows, by which other rows are told from the same ones.

    Rows on disk bring a hash of their own, which was made when they were opened and covers the whole of their files.
    """
    digest = hashlib.sha256()
    for rows in (splits.train, splits.validation):
        if isinstance(rows, StoredRows):
            digest.update(rows.digest().encode())
        batch = rows if isinstance(rows, Batch) else None
        for part in (batch.values, batch.present, batch.cells) if batch is not None else ():
            for name in sorted(part):
                hash_tensor(digest, part[name], name)
        digest.update(b"validation")
    return digest.hexdigest()


def model_card(spec: Spec) -> str:
    """A few words in Markdown on what a model folder holds."""
    modalities = "\n".join(
        f"| {name} | {list(modality.shape)} | {modality.encoder.type} | {modality.likelihood.type} |"
        for name, modality in spec.modalities.items()
    )
    return (
        f"# {spec.name or spec.model.type}\n\n"
        f"A {spec.model.type} model of {len(spec.modalities)} modalities, made by nbridge {__version__}. "
        f"Load it with `nbridge.load` on this folder.\n\n| modality | shape | encoder | likelihood |\n|---|---|---|---|\n{modalities}\n"
    )
