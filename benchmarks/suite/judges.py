"""Judges of images: a classifier for each image of a task, trained on real rows, which predicts the label of generated images.

A judge is kept in the user's cache, because it depends on the task's rows alone. Its accuracy on real test rows, the agreement of all
judges on real rows, and both on reconstructions are the ceilings that every figure of coherence is read against.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.suite.source import together
from benchmarks.suite.tasks import Task, split_of
from nbridge.common.atomic_files import write_atomically
from nbridge.common.hashing import hash_tensor
from nbridge.data.batch import Batch
from nbridge.data.benchmarks.download import cache_folder
from nbridge.evaluation.diversity import class_variances

VERSION = 1
STEPS, BATCH, LEARNING_RATE = 4_000, 128, 2e-3


class Network(nn.Module):
    """Convolutions, halved where sides are 7 or more, and two linear layers."""

    def __init__(self, shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, sides = shape[0], shape[1:]
        for width in (32, 64, 64):
            stride = 2 if min(sides) >= 7 else 1
            layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
            channels, sides = width, tuple(-(-side // stride) for side in sides)
        wide = channels * sides[0] * sides[1]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(wide, 128), nn.ReLU(), nn.Linear(128, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@dataclass(frozen=True)
class Panel:
    """The judges of a task.

    Arguments:
        task: The task.
        networks: A network for each image.
    """

    task: Task
    networks: Mapping[str, nn.Module]

    @torch.no_grad()
    def tell(self, name: str, x: Tensor) -> Tensor:
        """Labels as integers, shape (B, L): for an image the judge's prediction, for the label itself its most probable value."""
        if name in self.networks:
            raw = torch.cat([self.networks[name](part) for part in x.split(500)])
            return _label_numbers(raw.argmax(-1) if self.classes else raw > 0)
        return _label_numbers(x.argmax(-1) if self.classes and x.ndim == 2 else x.round())

    @property
    def classes(self) -> bool:
        """Whether the label is a class; else it is attributes."""
        label = self.task.label
        return label not in self.task.modalities or self.task.kind(str(label)) == "classes"

    def verdicts(self, drawn: Mapping[str, Tensor], rows: Tensor, test: Batch) -> dict[str, dict[str, float]]:
        """Figures of what was drawn for some test rows, by name: coherence and variety of images, and under "" what all show together.

        Arguments:
            drawn: Images and label decoded from one draw of z, in canonical form.
            rows: Indices of the test rows.
            test: The test rows.
        """
        assert self.task.label is not None
        truth = _label_numbers(test.values[self.task.label][rows])
        said = {name: self.tell(name, x) for name, x in drawn.items()}
        found: dict[str, dict[str, float]] = {}
        for name in (name for name in drawn if name in self.networks):
            found[name] = {"coherence": (said[name] == truth).double().mean().item()}
            if self.classes and test.present[name][rows].all():
                found[name]["variety"] = variety(drawn[name], test.values[name][rows], truth[:, 0])
        if len(said) > 1 and any(name in self.networks for name in said):
            stacked = torch.stack(list(said.values()))
            found[""] = {"agreement": (stacked == stacked[0]).all(0).double().mean().item()}
        return found

    def real(self, test: Batch) -> dict[str, float]:
        """Accuracy of the judges on real test rows (mean and minimum), and how often all of them agree."""
        assert self.task.label is not None
        complete = torch.stack([test.present[name] for name in self.networks]).all(0).nonzero()[:, 0]
        truth = _label_numbers(test.values[self.task.label][complete])
        said = torch.stack([self.tell(name, test.values[name][complete].float()) for name in self.networks])
        right = [(one == truth).double().mean().item() for one in said]
        found = {"judges": mean(right), "least": min(right)}
        return found if len(said) < 2 else {**found, "agreement": (said == said[0]).all(0).double().mean().item()}


def variety(generated: Tensor, real: Tensor, classes: Tensor) -> float:
    """The variance of pixels within classes as a share of that of real images, over classes of two rows or more."""
    a, b = (class_variances(x.flatten(1), classes) for x in (generated, real))
    counts = a.isfinite() & (b > 0)
    return (a[counts] / b[counts]).mean().item()


def panel_of(task: Task, seed: int, steps: int | None = None) -> Panel | None:
    """The judges of a task's images, from the cache or trained (for `STEPS` by default); None if the task has none."""
    if not task.images:
        return None
    return Panel(task, {name: _judge(task, name, seed, steps or STEPS) for name in task.images})


def _judge(task: Task, name: str, seed: int, steps: int) -> Network:
    assert task.label is not None
    if task.judge_rows is not None:
        x, y = task.judge_rows(name)
    else:
        splits = split_of(task, seed)
        rows = together([part for part in (splits.train, splits.validation) if isinstance(part, Batch)])
        x, y = rows.values[name], rows.values[task.label]
    outputs = y.shape[1] if y.ndim == 2 else int(y.max()) + 1
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = Network(tuple(x.shape[1:]), outputs)
        path = cache_folder() / "suite" / f"{_key(network, x, y, steps)}.safetensors"
        if path.is_file():
            network.load_state_dict(load_file(path))
        else:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            _train(network.to(device), x.float().to(device), y.to(device), steps)
            network.cpu()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda temporary: save_file(network.state_dict(), temporary))
    return network.eval().requires_grad_(False)


def _train(network: Network, x: Tensor, y: Tensor, steps: int) -> None:
    """Trains with Adam and a learning rate falling to zero; images of 12 or more pixels a side are randomly shifted by a pixel."""
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        index = torch.randint(len(x), (min(BATCH, len(x)),))
        raw = network(_shifted(x[index]))
        loss = F.cross_entropy(raw, y[index]) if y.ndim == 1 else F.binary_cross_entropy_with_logits(raw, y[index].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _shifted(x: Tensor) -> Tensor:
    if min(x.shape[2:]) < 12:
        return x
    down, right = (int(step) - 1 for step in torch.randint(3, (2,)))
    return F.pad(x, (1, 1, 1, 1), mode="replicate")[:, :, 1 + down : 1 + down + x.shape[2], 1 + right : 1 + right + x.shape[3]]


def _key(network: Network, x: Tensor, y: Tensor, steps: int) -> str:
    digest = hashlib.sha256(f"{VERSION} {steps} {BATCH} {LEARNING_RATE} {network}".encode())
    for tensor in (x, y):
        hash_tensor(digest, tensor)
    return digest.hexdigest()[:32]


def _label_numbers(y: Tensor) -> Tensor:
    return y.long().reshape(len(y), -1)
