"""nbridge's side: models built from the same parts; systems with a stage `joint` share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import nbridge
from benchmarks.designs import BRIDGES, JOINT, plain
from benchmarks.polymnist.task import SHAPE, VIEWS, Subset, Task, keep_pictures, serve
from nbridge.inference.impute import serving
from nbridge.spec.registry import STAGES
from nbridge.training.state import TrainingState

COUPLED = {**JOINT, "coupling": 3}
OPTIONS: Mapping[str, dict[str, Any]] = {
    "bridged": {"model": COUPLED, "bridges": {**BRIDGES, "encoders": "own"}},
    "flow": {"model": COUPLED, "bridges": {"type": "flow", "encoders": "own"}},
    "shared": {"model": COUPLED, "bridges": dict(BRIDGES)},
    "equation7": plain(),
    "own": plain(encoders="own"),
    "telbo": {"model": "telbo"},
    "jmvae": {"model": "jmvae"},
    "mvae": {"model": "mvae"},
}
AFTER_JOINT = {**dict.fromkeys(("bridged", "flow", "shared", "equation7", "own"), "bridges"), "telbo": "subsets"}
"""Systems that begin with stage `joint`, and their later stages."""


def spec(system: str, task: Task) -> nbridge.Spec:
    view = {
        "shape": SHAPE,
        "features": task.features,
        "encoder": {"type": "mlp", "hidden": [task.encoder_hidden]},
        "decoder": {"type": "conv", "channels": task.channels},
        "likelihood": {"type": "laplace", "scale": task.scale},
    }
    names = ("joint", AFTER_JOINT[system]) if system in AFTER_JOINT else STAGES[system]
    stages = {name: {"epochs": task.epochs} for name in names}
    return nbridge.Spec.model_validate({
        "latent_dim": task.latent_dim,
        "modalities": dict.fromkeys(VIEWS, view),
        "fusion": {"hidden": [task.hidden]},
        "training": {
            "batch_size": task.batch_size, "learning_rate": task.learning_rate, "seed": task.seed,
            "stages": stages,
        },
        **OPTIONS[system],
    })  # fmt: skip


def run(task: Task) -> None:
    train, validation = (nbridge.Batch(*task.read(part)) for part in ("train", "validation"))
    test = nbridge.Batch.complete(task.read("test")[0])
    joint: dict[str, Tensor] = {}
    for system in task.systems:
        described = spec(system, task)
        model = nbridge.build_model(described, seed=task.seed)
        if joint and system in AFTER_JOINT:
            model.load_state_dict(joint, strict=False)
            nbridge.fit(model, train, validation, described.training, state=TrainingState(stage=1))
        else:
            nbridge.fit(model, train, validation, described.training)
        if system in AFTER_JOINT:
            joint = {name: x.clone() for name, x in model.state_dict().items() if name.startswith(("encoders", "fusion", "decoders"))}
        with serving(model, task.seed):
            keep_pictures(Path(task.pictures) / f"{system}.npz", lambda given, views, model=model: generate(model, test, given, views))


def generate(model: nbridge.MultimodalVAE, test: nbridge.Batch, given: Subset, views: Sequence[str]) -> dict[str, Tensor]:
    parts = []
    for start in range(0, len(test), 250):
        z = model.posterior(test.slice(start, start + 250).only(*given)).sample()[0]
        parts.append({name: model.likelihoods[name].expectation(model.decoder(name)(z)).cpu() for name in views})
    return {name: torch.cat([part[name] for part in parts]) for name in views}


if __name__ == "__main__":
    serve(run)
