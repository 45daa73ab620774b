"""A model whose latent draws are written down, and a classifier that reads them: what scores of generated values should be is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent
from torch.nn import functional as F

from nbridge.data.batch import Batch
from nbridge.evaluation.classifiers import Classifier
from nbridge.models.base import MultimodalVAE
from nbridge.nn.decoders import Decoder
from nbridge.nn.distributions import diagonal_normal
from nbridge.nn.encoders import Encoder
from nbridge.nn.likelihoods import Bernoulli, Categorical, Likelihood, Normal

CLASSES = 4


class Unchanged(Encoder):
    """Features that are the modality itself."""

    def __init__(self) -> None:
        super().__init__()
        self.features = CLASSES

    def forward(self, x: Tensor) -> Tensor:
        return x


class Scaled(nn.Module):
    """A network that multiplies by one number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, z: Tensor) -> Tensor:
        return self.factor * z


class Toy(MultimodalVAE):
    """Modalities ``a`` and ``b`` that equal z, and a ``label`` that is its largest element, or which of its elements are positive.

    Arguments:
        draw: Gives a mean of z, shape (K, B, 4), of a prepared batch and K.
        scale: The standard deviation of z around it.
        label: The label's likelihood.
    """

    def __init__(self, draw: Callable[[Batch, int], Tensor], scale: float = 1e-3, label: Likelihood | None = None) -> None:
        made = {name: Decoder(Scaled(1.0), Normal((CLASSES,), scale=0.5, standardize=False)) for name in ("a", "b")}
        made["label"] = Decoder(Scaled(100.0), label or Categorical((CLASSES,)))
        super().__init__({name: Unchanged() for name in made}, made, CLASSES)
        self.draw, self.scale = draw, scale

    @classmethod
    def from_parts(cls, parts: Any, **options: Any) -> Any:
        raise NotImplementedError

    def stages(self) -> tuple[Any, ...]:
        return ()

    def infer(self, batch: Batch) -> Independent:
        raise NotImplementedError

    def posterior(self, batch: Batch, samples: int = 1) -> Independent:
        loc = self.draw(self.prepare(batch), samples)
        return diagonal_normal(loc, torch.full_like(loc, self.scale))


def of_the_label(batch: Batch, samples: int) -> Tensor:
    """z tells the label of the row."""
    assert batch.present["label"].all()
    return F.one_hot(batch.values["label"], CLASSES).float().expand(samples, -1, -1)


def of_nothing(batch: Batch, samples: int) -> Tensor:
    """z tells a class that has nothing to do with the row."""
    return F.one_hot(torch.randint(CLASSES, (samples, len(batch))), CLASSES).float()


def reader(label: Likelihood | None = None) -> Classifier:
    """A classifier that is right about every value that z gives."""
    classifier = Classifier(Unchanged(), Normal((CLASSES,), scale=0.5, standardize=False), label or Categorical((CLASSES,)))
    weight, bias = classifier.head.parameters()
    nn.init.eye_(weight)
    nn.init.zeros_(bias)
    return classifier.eval()


def labelled_rows(number: int, noise: float = 0.0, seed: int = 0) -> Batch:
    """Rows of all modalities, as many of each class, whose values are those of their class with noise."""
    label = torch.arange(number) % CLASSES
    generator = torch.Generator().manual_seed(seed)
    values = {name: F.one_hot(label, CLASSES) + noise * torch.randn(number, CLASSES, generator=generator) for name in ("a", "b")}
    return Batch.complete({**values, "label": label})


def attributes() -> Bernoulli:
    """A label of attributes."""
    return Bernoulli((CLASSES,), attributes=True)
