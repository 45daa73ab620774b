"""Reuse of stage ``joint`` between runs that would train it bit-identically.

`bridged`, `telbo` and `joint` have the same first stage: the same modules, created first from the same seed, and the same loss over the
same rows in the same order. A run can therefore start from another run's tensors and metrics after that stage. Any difference rules this
out: other options, versions, device or number of threads, or a model that is not built in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from nbridge.common.atomic_files import write_text, writing
from nbridge.common.json_text import parse_json
from nbridge.errors import NBridgeError
from nbridge.models.base import MultimodalVAE
from nbridge.models.joint import JointVAE
from nbridge.spec.reader import write_spec
from nbridge.spec.registry import BUILT_IN
from nbridge.spec.spec import Spec
from nbridge.spec.training import StageSettings, StageSpec, TrainingSpec
from nbridge.training.build import automatic_weights, build_model
from nbridge.training.checkpoint import CONFIG, TENSORS, load_into, load_tensors
from nbridge.training.run_folder import METRICS, MODEL, check_target, create, machine, read_environment, read_resolved
from nbridge.training.run_lock import run_lock
from nbridge.training.state import save_state
from nbridge.training.trainer import TrainingState

STAGE = "joint"
PARTS = ("encoders.", "fusion.", "decoders.")
"""Prefixes of the names of tensors that this stage trains."""
_OTHERS = ("name", "model", "bridges", "prior", "training")
"""Keys of a spec that this stage does not use, or that `_key` treats separately."""


def begin_after_joint(folder: Path, spec: Spec, others: Iterable[Path], device: str) -> Path | None:
    """Creates a run folder in the state after stage ``joint``, copied from another run, for `nbridge.resume` to continue.

    The other run folders may be missing, unfinished, damaged or unrelated.

    Returns:
        The first candidate with the stage that this run would train on this machine; None, and nothing is created, if there is none.

    Raises:
        RunError: if the folder cannot be written, or another process writes it or has meanwhile created it.
    """
    wanted = _key(spec)
    if wanted is None:
        return None
    model = build_model(spec)
    for other in others:
        if _copy_stage(other, wanted, model, device):
            with run_lock(folder):
                # It may have been created meanwhile.
                check_target(folder, overwrite=False)
                create(folder, spec, write_spec(spec), read_environment(other))
                with writing(folder / METRICS):
                    write_text(folder / METRICS, "".join(_lines(other)))
                save_state(folder, model, TrainingState(stage=1))
            return other
    return None


def _copy_stage(other: Path, wanted: Mapping[str, Any], model: MultimodalVAE, device: str) -> bool:
    """Copies the tensors of another run's stage ``joint`` into a model if that stage is the one wanted; returns whether it is."""
    path = other / MODEL / TENSORS
    try:
        there, here = read_environment(other), machine(device)
        alike = all(there.get(key) == value for key, value in here.items()) and (other / MODEL / CONFIG).is_file()
        if not (alike and _lines(other) and _key(read_resolved(other)) == wanted):
            return False
        trained = {name: tensor for name, tensor in load_tensors(path)[0].items() if name.startswith(PARTS)}
        load_into(model, {**model.state_dict(), **trained}, path)
    except NBridgeError:
        return False
    return True


def _key(spec: Spec) -> dict[str, Any] | None:
    """Everything that determines the tensors of stage ``joint``; None for models with a different stage of this name."""
    if spec.model.type not in BUILT_IN["models"]:
        return None
    with torch.device("meta"):
        model = build_model(spec)
    if not isinstance(model, JointVAE) or (first := model.stages()[0]) != model.joint_stage(serves=first.serves):
        return None
    settings, stage = spec.training, spec.training.stage(STAGE)
    # These settings do not affect the tensors of this stage.
    others = {"stages", "cache_features", "calibrate", "checkpoint_seconds"}
    shared = set(TrainingSpec.model_fields) - set(StageSettings.model_fields) - others
    return {
        **{key: value for key, value in spec.as_dict().items() if key not in _OTHERS},
        "coupling": (model.coupling, model.leave_one_out, model.contrast),
        "weights": automatic_weights(spec),
        "training": {key: getattr(settings, key) for key in sorted(shared)},
        STAGE: {key: getattr(stage, key) for key in StageSpec.model_fields},
        # With a budget in updates it determines which weights are the best.
        "serves": first.serves if stage.epochs is None else None,
    }


def _lines(folder: Path) -> list[str]:
    """The lines of metrics of stage ``joint``; empty if the file is missing or damaged."""
    try:
        lines = (folder / METRICS).read_text(encoding="utf-8").splitlines(keepends=True)
        return [line for line in lines if parse_json(line)["stage"] == STAGE]
    except (OSError, ValueError, KeyError, TypeError):
        return []
