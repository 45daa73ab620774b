# pyright: reportMissingImports=false
"""multivae's side: JMVAE, TELBO and MVAE trained by its own trainers, in its own environment, as its documentation shows.

It is run by ``python -m benchmarks.peers`` with the python of an environment that holds multivae. Networks, loss weights and optimiser are
given in full, so that nothing rests on defaults. Three choices are in its favour: only the loop over batches is timed, not the copy of the
best model and the log lines that its trainer makes between epochs; weights are the last ones (TELBO keeps those of its first stage
otherwise); decoders end in raw numbers, as its likelihoods expect (its own networks end in a sigmoid).
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from job import Job, first_step, multiply_adds, now, peak, quiet, rate, serve

quiet()
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torchvision_shim import import_torchvision  # noqa: E402

import_torchvision()

from multivae.data.datasets import MultimodalBaseDataset  # noqa: E402
from multivae.data.datasets.base import DatasetOutput  # noqa: E402
from multivae.models import JMVAE, MVAE, TELBO, JMVAEConfig, MVAEConfig, TELBOConfig  # noqa: E402
from multivae.models.nn.base_architectures import BaseJointEncoder  # noqa: E402
from multivae.trainers import BaseTrainer, BaseTrainerConfig, MultistageTrainer, MultistageTrainerConfig  # noqa: E402
from multivae.trainers.base.callbacks import TrainingCallback  # noqa: E402
from pythae.models.base.base_utils import ModelOutput  # noqa: E402
from pythae.models.nn.base_architectures import BaseDecoder, BaseEncoder  # noqa: E402

for name in list(logging.root.manager.loggerDict):
    if name.startswith(("multivae", "pythae")):
        logging.getLogger(name).setLevel(logging.WARNING)

BARE = "jmvae, bare loop"
FIRST, SECOND = "telbo, first stage", "telbo, second stage"


def layers(widths: list[int]) -> nn.Sequential:
    return nn.Sequential(*(layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())))


class Inference(nn.Module):
    """The mean and log-variance of q(z | x)."""

    def build(self, size: int, job: Job) -> None:
        self.latent_dim = job.latent_dim
        self.body = layers([size, *job.hidden])
        self.mean, self.log_variance = nn.Linear(job.hidden[-1], job.latent_dim), nn.Linear(job.hidden[-1], job.latent_dim)

    def infer(self, x: Tensor) -> Any:
        h = self.body(x)
        return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))


class Encoder(BaseEncoder, Inference):
    def __init__(self, size: int, job: Job) -> None:
        super().__init__()
        self.build(size, job)

    def forward(self, x: Tensor) -> Any:
        return self.infer(x)


class JointEncoder(BaseJointEncoder, Inference):
    """Reads all modalities, concatenated."""

    def __init__(self, sizes: dict[str, int], job: Job) -> None:
        super().__init__()
        self.names = list(sizes)
        self.build(sum(sizes.values()), job)

    def forward(self, x: dict[str, Tensor]) -> Any:
        return self.infer(torch.cat([x[name] for name in self.names], dim=1))


class Decoder(BaseDecoder):
    def __init__(self, size: int, job: Job) -> None:
        super().__init__()
        self.body = nn.Sequential(layers([job.latent_dim, *reversed(job.hidden)]), nn.Linear(job.hidden[0], size))

    def forward(self, z: Tensor) -> Any:
        return ModelOutput(reconstruction=self.body(z))


def build(kind: str, job: Job) -> Any:
    torch.manual_seed(0)
    assert job.modalities
    sizes = {name: size for name, (size, _) in job.modalities.items()}
    weights = dict.fromkeys(sizes, 1.0)
    networks = {name: Encoder(size, job) for name, size in sizes.items()}, {name: Decoder(size, job) for name, size in sizes.items()}
    common: dict[str, Any] = {
        "n_modalities": len(sizes),
        "latent_dim": job.latent_dim,
        "input_dims": {name: (size,) for name, size in sizes.items()},
        "decoders_dist": {name: likelihood for name, (_, likelihood) in job.modalities.items()},
        "uses_likelihood_rescaling": True,
        "rescale_factors": weights,
    }
    if kind == "mvae":
        model = MVAE(MVAEConfig(warmup=0, use_subsampling=True, k=0, **common), *networks)
    elif kind == "telbo":
        config = TELBOConfig(warmup=job.epochs, lambda_factors=weights, gamma_factors=weights, **common)
        model = TELBO(config, *networks, joint_encoder=JointEncoder(sizes, job))
    else:
        model = JMVAE(JMVAEConfig(alpha=0.1, warmup=0, **common), *networks, joint_encoder=JointEncoder(sizes, job))
    for name, (_, likelihood) in job.modalities.items():
        if likelihood == "bernoulli":  # multivae's own rejects grey levels
            model.recon_log_probs[name] = lambda raw, x: -F.binary_cross_entropy_with_logits(raw, x, reduction="none")
    model.device = "cpu"
    return model


def rows(job: Job, part: str) -> dict[str, Tensor]:
    """Values in [0, 1], and classes one-hot."""
    assert job.modalities
    with np.load(job.rows) as arrays:
        values = {name: torch.from_numpy(arrays[f"{name}_{part}"]) for name in job.modalities}
    return {name: F.one_hot(x, job.modalities[name][0]).float() if x.ndim == 1 else x for name, x in values.items()}


class Clock(TrainingCallback):
    """The seconds of each epoch's loop over batches."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.started = 0.0

    def on_train_step_begin(self, training_config: Any, **_: Any) -> None:  # noqa: ARG002 (it is called once an epoch)
        self.started = now()
        self.seconds.append(0.0)

    def on_train_step_end(self, training_config: Any, **_: Any) -> None:  # noqa: ARG002 (and this once a batch)
        self.seconds[-1] = now() - self.started


def train(kind: str, job: Job) -> tuple[Any, list[float]]:
    """The trained model with its last weights, and the seconds of each epoch."""
    clock = Clock()
    of_stages = kind == "telbo"
    with tempfile.TemporaryDirectory() as folder:
        config = (MultistageTrainerConfig if of_stages else BaseTrainerConfig)(
            output_dir=folder,
            per_device_train_batch_size=job.batch_size,
            num_epochs=job.epochs * (2 if of_stages else 1),
            learning_rate=job.learning_rate,
            optimizer_cls="Adam",
            seed=0,
            no_cuda=True,
        )
        dataset = MultimodalBaseDataset(data=rows(job, "train"))
        trainer = (MultistageTrainer if of_stages else BaseTrainer)(
            model=build(kind, job), train_dataset=dataset, eval_dataset=None, training_config=config, callbacks=[clock]
        )
        trainer.train()
    return trainer.model.network.eval(), clock.seconds


def steps(job: Job) -> int:
    return len(next(iter(rows(job, "train").values()))) // job.batch_size


def bare(job: Job) -> float:
    """Steps a second of JMVAE without its trainer: forward, backward and Adam on batches in memory."""
    model, values, number = build("jmvae", job).train(), rows(job, "train"), steps(job)
    optimizer = torch.optim.Adam(model.parameters(), lr=job.learning_rate)
    seconds = []
    for epoch in range(1, job.epochs + 1):
        order = torch.randperm(number * job.batch_size)
        started = now()
        for part in order.split(job.batch_size):
            loss = model(DatasetOutput(data={name: x[part] for name, x in values.items()}), epoch=epoch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(now() - started)
    return rate(number, seconds)


def cost(kind: str, job: Job, epoch: int = 1) -> int:
    """Multiply-adds of a step; for TELBO's second stage, with the frozen parts frozen."""
    model = build(kind, job).train()
    part = DatasetOutput(data={name: x[: job.batch_size] for name, x in rows(job, "train").items()})

    def step() -> None:
        model(part, epoch=epoch).loss.backward()

    if epoch > 1:
        step()
    return multiply_adds(step)


def speed(job: Job) -> dict[str, dict[str, float]]:
    report: dict[str, dict[str, float]] = {}
    for kind in job.models:
        parameters = sum(parameter.numel() for parameter in build(kind, job).parameters())
        _, seconds = train(kind, job)
        stages = {kind: (seconds, 1)}
        if kind == "telbo":
            stages = {FIRST: (seconds[: job.epochs], 1), SECOND: (seconds[job.epochs :], job.epochs + 1)}
        for stage, (epochs, epoch) in stages.items():
            found = {"parameters": parameters, "multiply_adds": cost(kind, job, epoch)}
            report[stage] = {"steps_per_second": rate(steps(job), epochs), **found}
            if kind == "jmvae":
                report[BARE] = {"steps_per_second": bare(job), **found}
    return report


def likelihood(job: Job) -> dict[str, Any]:
    """The seconds of training, and log p of all modalities of the test rows after the last epoch, by its own estimator."""
    model, seconds = train(job.models[0], job)
    test = DatasetOutput(data=rows(job, "test"))
    with torch.no_grad():
        found = -float(model.compute_joint_nll(test, K=job.samples, batch_size_K=job.samples)) / len(next(iter(test.data.values())))
    return {"seconds": sum(seconds), "log_likelihood": found}


def start(job: Job) -> dict[str, float]:
    """From the start of the process to the end of the first step, and the memory that training took at most."""
    moments = first_step()
    train(job.models[0], job)
    return {"first_step": moments[0] - job.started, "peak_mebibytes": peak()}


TASKS: dict[str, Callable[[Job], Any]] = {"import": lambda _: {}, "speed": speed, "likelihood": likelihood, "start": start}

if __name__ == "__main__":
    serve(TASKS)
