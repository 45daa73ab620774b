"""Stage ``joint``, trained once for all runs that would train it alike, bit for bit.

`bridged`, `telbo` and `joint` begin with the same stage: the same parts, made first from the same seed, the same loss over the same rows in
the same order. A run may therefore begin where another one stood after it: with its tensors, its lines of metrics, and its own stages yet
to come. Whatever could make a difference forbids that: another option, another version, device or number of threads, a model that is not
built in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from nbridge.common.atomic_files import write_text, writing
from nbridge.errors import NBridgeError
from nbridge.models.base import MultimodalVAE
from nbridge.models.joint import JointVAE
from nbridge.spec.reader import read_spec, write_spec
from nbridge.spec.registry import BUILT_IN
from nbridge.spec.spec import Spec
from nbridge.spec.training import StageSettings, StageSpec, TrainingSpec
from nbridge.training.build import automatic_weights, build_model
from nbridge.training.checkpoint import CONFIG, TENSORS, load_into, load_tensors
from nbridge.training.run_folder import METRICS, MODEL, RESOLVED, create_like, machine, read_environment
from nbridge.training.state import save_state
from nbridge.training.trainer import TrainingState

STAGE = "joint"
PARTS = ("encoders.", "fusion.", "decoders.")
"""How the names of the tensors begin that this stage trains."""
_OTHERS = ("name", "model", "bridges", "prior", "training")
"""What of a spec this stage does not read, or not as it stands there."""


def begin_after_joint(folder: Path, spec: Spec, others: Iterable[Path], device: str) -> Path | None:
    """Makes a run folder that stands after stage ``joint``, taken from another run, with which `nbridge.resume` goes on.

    Arguments:
        folder: The folder to make.
        spec: The spec of the run.
        others: Run folders, which may be missing, unfinished or damaged, or of anything else.
        device: The device of the run.

    Returns:
        The first of these whose stage is what this run would train on this machine; None where there is none, and then nothing is made.

    Raises:
        RunError: when the folder cannot be written.
    """
    wanted = _key(spec)
    if wanted is None:
        return None
    model = build_model(spec)
    for other in others:
        if _take(other, wanted, model, device):
            create_like(folder, spec, write_spec(spec), other)
            with writing(folder / METRICS):
                write_text(folder / METRICS, "".join(_lines(other)))
            save_state(folder, model, TrainingState(stage=1))
            return other
    return None


def _take(other: Path, wanted: Mapping[str, Any], model: MultimodalVAE, device: str) -> bool:
    """Gives a fresh model the tensors of another run's stage ``joint``, where that is the stage wanted."""
    path = other / MODEL / TENSORS
    try:
        there, here = read_environment(other), machine(device)
        alike = all(there.get(key) == value for key, value in here.items()) and (other / MODEL / CONFIG).is_file()
        if not (alike and _lines(other) and _key(read_spec(other / RESOLVED)) == wanted):
            return False
        trained = {name: tensor for name, tensor in load_tensors(path)[0].items() if name.startswith(PARTS)}
        load_into(model, {**model.state_dict(), **trained}, path)
    except NBridgeError:
        return False
    return True


def _key(spec: Spec) -> dict[str, Any] | None:
    """All that decides the tensors of stage ``joint``; None for models whose stage of this name is another one."""
    if spec.model.type not in BUILT_IN["models"]:
        return None
    with torch.device("meta"):
        model = build_model(spec)
    if not isinstance(model, JointVAE) or (first := model.stages()[0]) != model.joint_stage(serves=first.serves):
        return None
    settings, stage = spec.training, spec.training.stage(STAGE)
    # What only says how often to save, or belongs to other stages or to what follows them, changes no tensor of this one.
    others = {"stages", "cache_features", "calibrate", "checkpoint_seconds"}
    shared = set(TrainingSpec.model_fields) - set(StageSettings.model_fields) - others
    return {
        **{key: value for key, value in spec.as_dict().items() if key not in _OTHERS},
        "coupling": (model.coupling, model.leave_one_out, model.contrast),
        "weights": automatic_weights(spec),
        "training": {key: getattr(settings, key) for key in sorted(shared)},
        STAGE: {key: getattr(stage, key) for key in StageSpec.model_fields},
        # Where it decides which weights are the best.
        "serves": first.serves if stage.epochs is None else None,
    }


def _lines(folder: Path) -> list[str]:
    """The lines of metrics of stage ``joint``; none where they are missing or damaged."""
    try:
        lines = (folder / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
        return [line for line in lines if json.loads(line)["stage"] == STAGE]
    except (OSError, ValueError, KeyError, TypeError):
        return []
