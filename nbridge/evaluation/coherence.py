r"""Coherence of generated modalities, judged by classifiers.

**Coherence** is the share of draws of a target that a classifier assigns to the true label of the row,

.. math:: \frac{1}{KB} \sum_{k, b} \big[ c_j(x_j^{kb}) = y_b \big], \qquad x_j^{kb} = \mathbb{E}[x_j \mid z_{kb}], \quad
    z_{kb} \sim q(z \mid x_S^b)

**Joint agreement** is the share of draws in which classifiers assign the same label, true or not, to all absent modalities decoded from the
*same* z. The control decodes each modality from a separate draw.

Attributes are counted one by one. Read both scores together with the classifiers' own accuracy. Coherence rewards mean images, so also read
it together with the predictive log-likelihood and the diversity.

References:
    Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep Generative Models (Shi et al., 2019)

Axes: K samples, B rows, D latent dimensions, L labels per row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nbridge.common.messages import listing
from nbridge.data.batch import Batch
from nbridge.errors import DataError, require_positive
from nbridge.evaluation.classifiers import Classifier, ScoredClassifier, check_label, classifier_for, label_numbers, labels_of, share
from nbridge.evaluation.rows import check_names, rows_with, rows_with_all
from nbridge.inference.impute import chunks, decode, serving
from nbridge.models.base import MultimodalVAE


@dataclass(frozen=True)
class Coherence:
    """How often a generated target has the label of its row.

    Arguments:
        label: The modality that the classifier predicts.
        coherence: The share of draws with the true label; for attributes, the mean share that agrees.
        accuracy: The same share for the real values of these rows; None when no row has the target.
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
    """How often all absent modalities, generated together, have the same label.

    Arguments:
        absent: The modalities generated.
        label: The modality that the classifiers predict.
        agreement: The share of draws in which all have the same label; for attributes, the mean share that is the same in all.
        control: The same share with each modality decoded from a separate draw.
        coherence: The share of draws in which all have the true label.
        accuracies: Each classifier's held-out accuracy, by modality.
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
    model: MultimodalVAE, batch: Batch, given: Iterable[str], target: str, label: str, classifier: Classifier,
    *, samples: int = 10, noise: bool = False, seed: int = 0,
) -> Coherence:  # fmt: skip
    """Coherence of one modality generated from others, over the rows that have the given modalities and the label.

    Rows must not be used to train the model or the classifier. The modalities to observe may include the label; with none, z comes from the
    model's own prior, N(0, I). Draws are expectations, as images are shown, or with ``noise`` include the spread of the likelihood.

    Raises:
        DataError: when the model lacks a modality, the label is the target or is neither categorical nor of attributes, ``samples`` is
            below 1, a value is outside its likelihood's support, or no row has the given modalities and the label.
    """
    given = tuple(given)
    check_names(model, (target,))
    check_label(model, label)
    require_positive(samples=samples)
    if target == label:
        raise DataError(f"target {target!r} is the label, which needs no classifier; use nbridge.evaluation.crossmodal.predict")
    model.check(batch)
    batch = rows_with_all(model, batch, (*given, label))
    with serving(model, seed):
        parts = [
            _coherent(model, part.to(model.device), given, target, label, classifier, samples, noise)
            for part in chunks(batch, samples * model.likelihoods[target].numbers)
        ]
    real = classifier.accuracy(batch, target, label) if rows_with(batch, (target,)).any() else None
    return Coherence(given, target, label, len(batch), samples, share(parts), real)


def joint_agreement(
    model: MultimodalVAE, batch: Batch, given: Iterable[str], classifiers: Mapping[str, ScoredClassifier], label: str,
    *, samples: int = 10, noise: bool = False, seed: int = 0,
) -> Agreement:  # fmt: skip
    """Joint agreement of all modalities that are not given, over the rows that have the given ones and the label.

    When the label itself is not given, its most probable decoded value counts as one more prediction. Rows must not be used to train the
    model or the classifiers. With nothing given, z comes from the model's own prior, N(0, I). With ``noise``, draws include the spread of
    the likelihood; those of the label never do.

    Raises:
        DataError: when the model lacks a modality, the label is neither categorical nor of attributes, fewer than two modalities are left
            to generate, one of them has no classifier, ``samples`` is below 1, a value is outside its likelihood's support, or no row has
            the given modalities and the label.
    """
    given = tuple(given)
    check_label(model, label)
    require_positive(samples=samples)
    model.check(batch)
    batch = rows_with_all(model, batch, (*given, label))
    absent = tuple(name for name in model.names if name not in given)
    if len(absent) < 2:
        raise DataError(f"agreement needs 2 or more absent modalities, got {len(absent)}: {listing(given)} given of {listing(model.names)}")
    found = {name: classifier_for(classifiers, name) for name in absent if name != label}
    panel = {name: found[name].classifier if name in found else None for name in absent}
    elements = samples * sum(model.likelihoods[name].numbers for name in absent)
    with serving(model, seed):
        parts = [_agreeing(model, part.to(model.device), given, label, panel, samples, noise) for part in chunks(batch, elements)]
    agreement, control, true = (share(part[score] for part in parts) for score in range(3))
    accuracies = {name: scored.accuracy for name, scored in found.items()}
    return Agreement(given, absent, label, len(batch), samples, agreement, control, true, accuracies)


def predict_labels(classifier: Classifier, x: Tensor) -> Tensor:
    r"""The labels that a classifier assigns to draws, shape (K, B, L), from canonical values of shape (K, B, \*shape)."""
    return classifier.predict(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _coherent(
    model: MultimodalVAE, batch: Batch, given: tuple[str, ...], target: str, label: str, classifier: Classifier, samples: int, noise: bool
) -> tuple[Tensor, Tensor]:
    """Which verdicts equal the true label, shape (K, B, L), and which labels are observed, shape (B, L)."""
    truth, observed = labels_of(model.likelihoods[label], batch, label)
    rows = batch.only(*given)
    z = model.posterior(rows, samples).sample()
    x = decode(model, target, z, model.given(target, rows), decoder=model.decoder_of(target, rows), noise=noise)
    return predict_labels(classifier, x) == truth, observed


def _agreeing(
    model: MultimodalVAE, batch: Batch, given: tuple[str, ...], label: str, panel: Mapping[str, Classifier | None], samples: int,
    noise: bool,
) -> tuple[tuple[Tensor, Tensor], ...]:  # fmt: skip
    """Pairs of masks (right, counts): agreement under a shared draw, agreement under separate draws, coherence under the shared draw."""
    truth, observed = labels_of(model.likelihoods[label], batch, label)
    rows = batch.only(*given)

    def draw() -> Tensor:
        return model.posterior(rows, samples).sample()

    def predicted(name: str, z: Tensor) -> Tensor:
        classifier, number, decoder = panel[name], model.given(name, rows), model.decoder_of(name, rows)
        if classifier is None:
            return label_numbers(model.likelihoods[name], decode(model, name, z, number, decoder=decoder))
        return predict_labels(classifier, decode(model, name, z, number, decoder=decoder, noise=noise))

    z = draw()
    shared = torch.stack([predicted(name, z) for name in panel])
    # A new posterior each time: a stochastic bridge already samples when it computes the posterior.
    own = torch.stack([predicted(name, draw()) for name in panel])
    everything = torch.ones_like(observed)
    return (_same(shared), everything), (_same(own), everything), ((shared == truth).all(0), observed)


def _same(predict_labels: Tensor) -> Tensor:
    """Where all modalities have the same verdict, shape (K, B, L), from verdicts of shape (M, K, B, L)."""
    return (predict_labels == predict_labels[0]).all(0)
