# pyright: reportMissingImports=false
"""multivae's side: JNF and MMVAE+ trained by its own trainers, on nbridge's encoders and decoders.

It is run with the python of an environment that holds multivae (and einops, for the parts). Choices in its favour: pixels are
standardised as in nbridge, weights are those of the best training loss of each stage, MMVAE+ draws one sample
and has its own Laplace distributions, as in its paper's experiment. JNF takes complete rows alone, MMVAE+ all of them with their masks.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["TQDM_DISABLE"] = "1"
if __name__ == "__main__":
    # This benchmark runs on CPUs; `long_rival`, which imports from here, does not.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.peers.torchvision_shim import import_torchvision  # noqa: E402
from benchmarks.polymnist.task import VIEWS, Subset, Task, keep_pictures, serve  # noqa: E402
from nbridge.nn.networks import MLP  # noqa: E402

import_torchvision()

from multivae.data.datasets import IncompleteDataset, MultimodalBaseDataset  # noqa: E402
from multivae.data.datasets.base import DatasetOutput  # noqa: E402
from multivae.models import JNF, JNFConfig, MMVAEPlus, MMVAEPlusConfig  # noqa: E402
from multivae.models.nn.base_architectures import BaseJointEncoder, BaseMultilatentEncoder  # noqa: E402
from multivae.trainers import BaseTrainer, BaseTrainerConfig, MultistageTrainer, MultistageTrainerConfig  # noqa: E402
from pythae.models.base.base_utils import ModelOutput  # noqa: E402
from pythae.models.nn.base_architectures import BaseDecoder, BaseEncoder  # noqa: E402

for name in list(logging.root.manager.loggerDict):
    if name.startswith(("multivae", "pythae")):
        logging.getLogger(name).setLevel(logging.WARNING)


JNF_ROWS = 100
"""Number of test rows for JNF, whose sampler takes a thousand steps for each set of views."""


class Inference(nn.Module):
    """The mean and log-variance of q(z | features)."""

    def build(self, task: Task, views: int) -> None:
        self.latent_dim = task.latent_dim
        self.head = MLP(views * task.features, 2 * task.latent_dim, hidden=(task.hidden,))

    def infer(self, h: Tensor) -> Any:
        mean, log_variance = self.head(h).chunk(2, -1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Encoder(BaseEncoder, Inference):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.build(task, 1)
        self.body = task.encoder()

    def forward(self, x: Tensor) -> Any:
        return self.infer(self.body(x))


class JointEncoder(BaseJointEncoder, Inference):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.build(task, len(VIEWS))
        self.bodies = nn.ModuleDict({name: task.encoder() for name in VIEWS})

    def forward(self, x: dict[str, Tensor]) -> Any:
        return self.infer(torch.cat([self.bodies[name](x[name]) for name in VIEWS], -1))


class SplitEncoder(BaseMultilatentEncoder):
    """Half of z is shared, half is private to the view."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.latent_dim = self.style_dim = task.latent_dim // 2
        self.body, self.head = task.encoder(), MLP(task.features, 2 * task.latent_dim, hidden=(task.hidden,))

    def forward(self, x: Tensor) -> Any:
        mean, log_variance, own_mean, own_log_variance = self.head(self.body(x)).chunk(4, -1)
        return ModelOutput(embedding=mean, log_covariance=log_variance, style_embedding=own_mean, style_log_covariance=own_log_variance)


class Decoder(BaseDecoder):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.latent_dim, self.shape, self.body = task.latent_dim, task.shape, task.decoder()

    def forward(self, z: Tensor) -> Any:
        return ModelOutput(reconstruction=self.body(z.reshape(-1, z.shape[-1])).reshape(*z.shape[:-1], *self.shape))


class Remembered(nn.Module):
    """An encoder in eval mode that caches its outputs, because JNF's sampler calls it a thousand times per subset."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.answers: dict[tuple[int, int], tuple[Tensor, Any]] = {}

    def forward(self, x: Tensor) -> Any:
        key = (x.data_ptr(), len(x))
        if key not in self.answers:
            with torch.no_grad():
                self.answers[key] = (x, self.encoder(x))
        return self.answers[key][1]


Part = Callable[[Task], nn.Module]


def build(system: str, task: Task, encoder: Part = SplitEncoder, decoder: Part = Decoder) -> Any:
    """A model with the seed's first weights; another encoder is for MMVAE+ alone."""
    torch.manual_seed(task.seed)
    np.random.seed(task.seed)  # noqa: NPY002 (multivae draws from it)
    common: dict[str, Any] = {
        "n_modalities": len(VIEWS),
        "input_dims": dict.fromkeys(VIEWS, task.shape),
        "decoders_dist": dict.fromkeys(VIEWS, "laplace"),
        "decoder_dist_params": {name: {"scale": task.scale} for name in VIEWS},
    }
    decoders = {name: decoder(task) for name in VIEWS}
    if system == "jnf":
        config = JNFConfig(latent_dim=task.latent_dim, warmup=task.epochs, **common)
        return JNF(config, {name: Encoder(task) for name in VIEWS}, decoders, joint_encoder=JointEncoder(task))
    half = task.latent_dim // 2
    config = MMVAEPlusConfig(latent_dim=half, modalities_specific_dim=half, K=1, loss="iwae_looser", beta=task.beta, **common)
    return MMVAEPlus(config, {name: encoder(task) for name in VIEWS}, decoders)


def train(system: str, task: Task, values: dict[str, Tensor], present: dict[str, Tensor]) -> Any:
    """The trained model with its last weights."""
    complete = torch.stack(list(present.values())).all(0)
    if system == "jnf":
        dataset = MultimodalBaseDataset(data={name: x[complete] for name, x in values.items()})
    else:
        dataset = MultimodalBaseDataset(data=values) if complete.all() else IncompleteDataset(data=values, masks=present)
    two = system == "jnf"
    with tempfile.TemporaryDirectory() as folder:
        config = (MultistageTrainerConfig if two else BaseTrainerConfig)(
            output_dir=folder, per_device_train_batch_size=task.batch_size, num_epochs=(2 if two else 1) * task.epochs,
            learning_rate=task.learning_rate, optimizer_cls="Adam", seed=task.seed, no_cuda=True,
        )  # fmt: skip
        model = build(system, task)
        model.device = "cpu"
        trainer = (MultistageTrainer if two else BaseTrainer)(model=model, train_dataset=dataset, training_config=config)
        trainer.train()
    return trainer.model.network.eval()


def run(task: Task) -> None:
    values, present = task.read("train")
    moments = {name: (x[present[name]].mean(0), x[present[name]].std(0).clamp(min=1e-3)) for name, x in values.items()}

    def standard(x: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.where(present[name].view(-1, 1, 1, 1), (x[name] - mean) / std, 0.0) for name, (mean, std) in moments.items()}

    rows = standard(*task.read("test"))
    for system in task.systems:
        model = train(system, task, standard(values, present), present)
        test = rows
        if system == "jnf":
            test = {name: x[:JNF_ROWS] for name, x in rows.items()}
            model.encoders = nn.ModuleDict({name: Remembered(encoder) for name, encoder in model.encoders.items()})

        def generate(given: Subset, views: Sequence[str], model: Any = model, test: Any = test) -> dict[str, Tensor]:
            drawn = model.encode(DatasetOutput(data=test), cond_mod=list(given))
            decoded = {name: decode(model, drawn, name) for name in views}
            return {name: x * moments[name][1] + moments[name][0] for name, x in decoded.items()}

        keep_pictures(Path(task.pictures) / f"{system}.npz", generate)


@torch.no_grad()
def decode(model: Any, drawn: Any, name: str) -> Tensor:
    z = drawn.z if drawn.one_latent_space else torch.cat([drawn.z, drawn.modalities_z[name]], -1)
    return model.decoders[name](z).reconstruction


if __name__ == "__main__":
    serve(run)
