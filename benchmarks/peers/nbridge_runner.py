"""nbridge's side: `nbridge.train` with rows in memory, timed by the seconds of its epochs.

It is run by ``python -m benchmarks.peers``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from job import Job, first_step, multiply_adds, peak, quiet, rate, serve

quiet()

import numpy as np  # noqa: E402
import torch  # noqa: E402

import nbridge  # noqa: E402
from nbridge import fit, train  # noqa: E402
from nbridge.data.arrays import to_batch  # noqa: E402
from nbridge.evaluation.importance import log_likelihood  # noqa: E402
from nbridge.spec.registry import STAGES  # noqa: E402
from nbridge.training.progress import Callback  # noqa: E402
from nbridge.training.records import EpochRecord  # noqa: E402
from nbridge.training.trainer import only_trainable  # noqa: E402

# Equation 7, and bridges on frozen encoders, for the comparison with multivae.
JOINT = {"type": "bridged", "coupling": 0, "leave_one_out": 0}
BRIDGES = {"encoders": "shared", "subsets": "singletons", "exponents": "ones"}
VARIANTS: Mapping[str, tuple[dict[str, Any], dict[str, str]]] = {
    "joint": ({}, {"joint": "joint"}),
    "bridged": (BRIDGES, {"joint": "joint", "bridges": "bridges"}),
    "bridged (paper)": ({"objective": "paper"}, {"bridges": "bridges, paper's objective"}),
    "jmvae": ({}, {"joint": "jmvae"}),
    "telbo": ({}, {"subsets": "subsets"}),
    "mvae": ({}, {"joint": "mvae"}),
}
"""For each model, the options of its bridges, and the stages to measure with their names in the report."""


def spec(model: str, job: Job) -> nbridge.Spec:
    """Networks with multivae's layers and widths; fusions are linear, because the hidden layers are in the encoders."""
    assert job.modalities
    options, measured = VARIANTS[model]
    alike = {"batch_norm": False, "activation": "relu"}
    kind = model.partition(" ")[0]
    return nbridge.Spec.model_validate(
        {
            "model": JOINT if kind == "bridged" else kind,
            "latent_dim": job.latent_dim,
            "data": {"source": "memory", "validation": 0, "test": 0},
            "modalities": _modalities(job, alike),
            "fusion": {"hidden": [], **alike},
            "bridges": {**options, **alike},
            "training": {
                "batch_size": job.batch_size,
                "learning_rate": job.learning_rate,
                "precision": job.precision,
                "stages": {stage: {"epochs": job.epochs if stage in measured else 1} for stage in STAGES[kind]},
            },
        }
    )


def _modalities(job: Job, alike: dict[str, Any]) -> dict[str, Any]:
    assert job.modalities
    return {
        name: {
            "shape": size,
            "features": job.hidden[-1],
            "encoder": {"type": "mlp", "hidden": list(job.hidden[:-1]), **alike},
            "decoder": {"type": "mlp", "hidden": list(reversed(job.hidden)), **alike},
            "likelihood": likelihood,
        }
        for name, (size, likelihood) in job.modalities.items()
    }


def rows(job: Job, part: str) -> dict[str, np.ndarray]:
    with np.load(job.rows) as arrays:
        return {name: arrays[f"{name}_{part}"] for name in job.modalities or ()}


class Clock(Callback):
    """The seconds of each epoch, by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def on_validation(self, record: EpochRecord) -> None:
        self.seconds.setdefault(record.stage, []).append(record.seconds)


class Progress(Clock):
    """The log-likelihood of the test rows after each epoch of the first stage; its own time is not counted."""

    def __init__(self, model: nbridge.MultimodalVAE, test: nbridge.Batch, samples: int) -> None:
        super().__init__()
        self.model, self.test, self.samples = model, test, samples
        self.found: list[float] = []

    def on_validation(self, record: EpochRecord) -> None:
        super().on_validation(record)
        names = self.model.names
        self.found.append(log_likelihood(self.model.eval(), self.test, names, names, samples=self.samples).log_likelihood)


def cost(model: nbridge.MultimodalVAE, stage: nbridge.Stage, batch: nbridge.Batch) -> int:
    """Multiply-adds of a step, with precomputed frozen features."""
    features = {} if stage.features is None else {name: x.detach() for name, x in stage.features(batch).items()}
    with only_trainable(model, stage.modules):
        return multiply_adds(lambda: torch.stack(list(stage.loss(batch, features, 1.0).values())).sum().backward())


def speed(job: Job) -> dict[str, dict[str, float]]:
    report: dict[str, dict[str, float]] = {}
    values = rows(job, "train")
    steps = len(next(iter(values.values()))) // job.batch_size
    for name in job.models:
        clock = Clock()
        run = train(spec(name, job), values, device="cpu", callbacks=[clock])
        parameters = sum(parameter.numel() for parameter in run.model.network.parameters())
        batch = run.model.network.prepare(run.splits.train.slice(0, job.batch_size))
        for stage in run.model.network.stages():
            if title := VARIANTS[name][1].get(stage.name):
                found = {"steps_per_second": rate(steps, clock.seconds[stage.name]), "parameters": parameters}
                report[title] = {**found, "multiply_adds": cost(run.model.network, stage, batch)}
    return report


def likelihood(job: Job) -> dict[str, Any]:
    """The seconds of training and log p of all modalities of the test rows, after each epoch of stage `joint`."""
    asked = spec(job.models[0], job)
    shapes = {name: modality.shape for name, modality in asked.modalities.items()}
    train_rows, test_rows = (to_batch(rows(job, part), shapes) for part in ("train", "test"))
    torch.manual_seed(asked.training.seed)
    model = nbridge.build_model(asked)
    progress = Progress(model, test_rows, job.samples)
    fit(model, train_rows, None, asked.training, callbacks=[progress])
    return {"seconds": np.cumsum(progress.seconds["joint"]).tolist(), "log_likelihood": progress.found}


def start(job: Job) -> dict[str, float]:
    """From the start of the process to the end of the first step, and the memory that training took at most."""
    moments = first_step()
    train(spec(job.models[0], job), rows(job, "train"), device="cpu")
    return {"first_step": moments[0] - job.started, "peak_mebibytes": peak()}


TASKS: dict[str, Callable[[Job], Any]] = {"import": lambda _: {}, "speed": speed, "likelihood": likelihood, "start": start}

if __name__ == "__main__":
    serve(TASKS)
