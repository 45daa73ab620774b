r"""Whether what a model generates keeps the meaning of what was given, as classifiers see it.

**Coherence** is the share of draws of a target that a classifier assigns to the true label of their row,

.. math:: \frac{1}{KB} \sum_{k, b} \big[ c_j(x_j^{kb}) = y_b \big], \qquad x_j^{kb} = \mathbb{E}[x_j \mid z_{kb}], \quad
    z_{kb} \sim q(z \mid x_S^b)

**Joint agreement** is the share of draws in which several absent modalities, decoded from the *same* z, are given one label by their
classifiers, whether or not it is the true one. Its control decodes each modality from a draw of its own.

For attributes each of them counts by itself. Neither score can be read without the classifiers' own accuracy, and coherence rewards mean
images: it belongs beside the predictive log-likelihood and the diversity.

References:
    Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models (Shi et al., 2019)

Axes: K samples, B rows, D latent dimensions, L labels of a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nbridge.common.messages import listing
from nbridge.data.batch import Batch
from nbridge.errors import DataError, require_positive
from nbridge.evaluation.classifiers import Classifier, Judge, check_label, judge_of, label_numbers, labels_of, share
from nbridge.evaluation.rows import check_names, rows_with, together
from nbridge.inference.impute import chunks, decode, serving
from nbridge.models.base import MultimodalVAE


@dataclass(frozen=True)
class Coherence:
    """How often a target that was generated has the label of its row.

    Arguments:
        given: The modalities observed.
        target: The modality generated.
        label: The modality that the classifier tells.
        rows: The number of rows.
        samples: The number of draws for each row.
        coherence: The share of draws with the true label; of attributes, the mean share that agrees.
        accuracy: The same of the real values of these rows; None where no row has the target.
    """

    given: tuple[str, ...]
    target: str
    label: str
    rows: int
    samples: int
    coherence: float
    accuracy: float | None


@dataclass(frozen=True)
class Agreement:
    """How often all absent modalities, generated together, have one label.

    Arguments:
        given: The modalities observed.
        absent: The modalities generated.
        label: The modality that the classifiers tell.
        rows: The number of rows.
        samples: The number of draws for each row.
        agreement: The share of draws in which all have the same label; of attributes, the mean share that is the same in all.
        control: The same with each modality decoded from a draw of its own.
        coherence: The share of draws in which all have the true label.
        accuracies: Each classifier's accuracy on rows held out, by modality.
    """

    given: tuple[str, ...]
    absent: tuple[str, ...]
    label: str
    rows: int
    samples: int
    agreement: float
    control: float
    coherence: float
    accuracies: dict[str, float]


def coherence(
    model: MultimodalVAE,
    batch: Batch,
    given: Iterable[str],
    target: str,
    label: str,
    classifier: Classifier,
    *,
    samples: int = 10,
    noise: bool = False,
    seed: int = 0,
) -> Coherence:
    """The coherence of one modality generated from others, over the rows that have these and the label.

    Arguments:
        model: A trained model.
        batch: Rows that neither the model nor the classifier has seen.
        given: The modalities to observe, the label among them or not; none for the model's own prior, N(0, I).
        target: The modality to generate.
        label: The modality that the classifier tells.
        classifier: The classifier of the target.
        samples: The number K of draws of z for each row.
        noise: Whether draws include the spread of the likelihood; without it they are the expectations that are shown as images.
        seed: Seed of the draws.

    Raises:
        DataError: when the model lacks a modality, the label is no label or is the target, ``samples`` is below 1, values lie outside
            their likelihood's support, or no row has what it takes.
    """
    given = tuple(given)
    check_names(model, (target,))
    check_label(model, label)
    require_positive(samples=samples)
    if target == label:
        raise DataError(f"target {target!r} is the label, which needs no classifier; nbridge.evaluation.crossmodal.predict scores it")
    model.check(batch)
    batch = together(model, batch, (*given, label))
    with serving(model, seed):
        parts = [
            _coherent(model, part.to(model.device), given, target, label, classifier, samples, noise)
            for part in chunks(batch, samples * math.prod(model.likelihoods[target].shape))
        ]
    real = classifier.accuracy(batch, target, label) if rows_with(batch, (target,)).any() else None
    return Coherence(given, target, label, len(batch), samples, share(parts), real)


def joint_agreement(
    model: MultimodalVAE,
    batch: Batch,
    given: Iterable[str],
    judges: Mapping[str, Judge],
    label: str,
    *,
    samples: int = 10,
    noise: bool = False,
    seed: int = 0,
) -> Agreement:
    """The agreement of all modalities that are not given, over the rows that have the given ones and the label.

    Where the label itself is not given, the most probable value that is decoded for it counts as one more verdict.

    Arguments:
        model: A trained model.
        batch: Rows that neither the model nor the classifiers have seen.
        given: The modalities to observe; none for the model's own prior, N(0, I).
        judges: A judge for each of the other modalities but the label.
        label: The modality that they tell.
        samples: The number K of draws of z for each row.
        noise: Whether draws include the spread of the likelihood; the label's own never do.
        seed: Seed of the draws.

    Raises:
        DataError: when the model lacks a modality, the label is no label, fewer than two modalities are left to generate, one of them has
            no judge, ``samples`` is below 1, values lie outside their likelihood's support, or no row has what it takes.
    """
    given = tuple(given)
    check_label(model, label)
    require_positive(samples=samples)
    model.check(batch)
    batch = together(model, batch, (*given, label))
    absent = tuple(name for name in model.names if name not in given)
    if len(absent) < 2:
        raise DataError(
            f"agreement is between 2 absent modalities or more, got {len(absent)}: {listing(given)} given of {listing(model.names)}"
        )
    found = {name: judge_of(judges, name) for name in absent if name != label}
    panel = {name: found[name].classifier if name in found else None for name in absent}
    elements = samples * sum(math.prod(model.likelihoods[name].shape) for name in absent)
    with serving(model, seed):
        parts = [_agreeing(model, part.to(model.device), given, label, panel, samples, noise) for part in chunks(batch, elements)]
    agreement, control, true = (share(part[score] for part in parts) for score in range(3))
    accuracies = {name: judge.accuracy for name, judge in found.items()}
    return Agreement(given, absent, label, len(batch), samples, agreement, control, true, accuracies)


def verdicts(classifier: Classifier, x: Tensor) -> Tensor:
    r"""A classifier's verdicts on draws, shape (K, B, L), of canonical values of shape (K, B, \*shape)."""
    return classifier.verdict(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _coherent(
    model: MultimodalVAE, batch: Batch, given: tuple[str, ...], target: str, label: str, classifier: Classifier, samples: int, noise: bool
) -> tuple[Tensor, Tensor]:
    """Which verdicts are the true label, shape (K, B, L), and which count, shape (B, L)."""
    truth, observed = labels_of(model.likelihoods[label], batch, label)
    rows = batch.only(*given)
    z = model.posterior(rows, samples).sample()
    return verdicts(classifier, decode(model, target, z, model.given(target, rows), noise=noise)) == truth, observed


def _agreeing(
    model: MultimodalVAE,
    batch: Batch,
    given: tuple[str, ...],
    label: str,
    panel: Mapping[str, Classifier | None],
    samples: int,
    noise: bool,
) -> tuple[tuple[Tensor, Tensor], ...]:
    """Which verdicts are the same under one draw, under draws of their own, and the true label under one draw, with what counts."""
    truth, observed = labels_of(model.likelihoods[label], batch, label)
    rows = batch.only(*given)

    def draw() -> Tensor:
        return model.posterior(rows, samples).sample()

    def verdict(name: str, z: Tensor) -> Tensor:
        classifier, number = panel[name], model.given(name, rows)
        if classifier is None:
            return label_numbers(model.likelihoods[name], decode(model, name, z, number))
        return verdicts(classifier, decode(model, name, z, number, noise=noise))

    z = draw()
    shared = torch.stack([verdict(name, z) for name in panel])
    # A posterior of its own for each: a stochastic bridge has drawn already when it gives a posterior.
    own = torch.stack([verdict(name, draw()) for name in panel])
    everything = torch.ones_like(observed)
    return (_same(shared), everything), (_same(own), everything), ((shared == truth).all(0), observed)


def _same(verdicts: Tensor) -> Tensor:
    """Where all modalities say the same, shape (K, B, L), of verdicts of shape (M, K, B, L)."""
    return (verdicts == verdicts[0]).all(0)
