r"""Classifiers that judge what a model generates: one for each modality, which tells the label of a value.

.. math:: p(y \mid x_i) = \mathrm{Likelihood}_y(W \, \sigma(\mathrm{Enc}_i(x_i)) + b)

The encoder is of the kind that the model has for this modality, with weights of its own. The label is a modality as well: with a
categorical likelihood it has classes, with attributes (Bernoulli) each element is judged by itself. A classifier sees training rows only,
and a score that it gives means nothing without its own accuracy on rows held out, so that a `Judge` holds both.

What a label says is held as whole numbers, shape (B, L): a class index, L = 1, or whether each of L attributes holds.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nbridge.common.autograd import gradients
from nbridge.common.hashing import hash_tensor
from nbridge.common.messages import listing
from nbridge.common.randomness import own_draws, randperm
from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.evaluation.classifier_cache import ClassifierCache
from nbridge.evaluation.rows import check_names, fingerprint, rows_with
from nbridge.inference.impute import chunks
from nbridge.models.base import MultimodalVAE
from nbridge.nn.decoders import Decoder, MLPDecoder
from nbridge.nn.encoders import Encoder
from nbridge.nn.likelihoods import Likelihood
from nbridge.nn.networks import activation_module
from nbridge.spec.option_types import Activation
from nbridge.spec.spec import Spec
from nbridge.training.build import SpecParts
from nbridge.version import __version__

VERSION = 1
"""Of what a classifier is and how it learns: one that was kept serves as long as this stays the same."""


class Classifier(nn.Module):
    """An encoder, a nonlinearity and a linear head that reads a label from one modality.

    Arguments:
        encoder: Maps the modality, in standard form, to features; it becomes a part of the classifier.
        likelihood: The modality's likelihood, with the statistics that its standard form needs; copied, and not trained.
        label_likelihood: The label's likelihood; copied.
        activation: The nonlinearity.

    Example:
        >>> from nbridge.nn.encoders import MLPEncoder
        >>> from nbridge.nn.likelihoods import Categorical, Normal
        >>> classifier = Classifier(MLPEncoder((4,), 16), Normal((4,)), Categorical((3,)))
        >>> classifier(torch.randn(5, 4)).shape, classifier.features(torch.randn(5, 4)).shape
        (torch.Size([5, 3]), torch.Size([5, 16]))
    """

    def __init__(
        self, encoder: Encoder, likelihood: Likelihood, label_likelihood: Likelihood, *, activation: Activation = "leaky_relu"
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.activation = activation_module(activation)
        self.likelihood = copy.deepcopy(likelihood).requires_grad_(False)
        label = copy.deepcopy(label_likelihood).requires_grad_(False)
        self.head = Decoder(MLPDecoder(encoder.features, label.raw_shape, hidden=()), label)

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.head.parameters()).device

    @property
    def learnt(self) -> nn.Module:
        """What training changes: the encoder and the head, without the likelihoods."""
        return nn.ModuleDict({"encoder": self.encoder, "head": self.head.network})

    def features(self, x: Tensor, cells: Tensor | None = None) -> Tensor:
        r"""The penultimate layer, shape (B, F).

        Arguments:
            x: Canonical values, shape (B, \*shape).
            cells: Which of their cells are observed, boolean, of the shape of ``x``; all when left out.
        """
        standard = self.likelihood.standardize(x)
        if cells is not None:
            standard = torch.where(cells, standard, self.likelihood.hole)
        return self.activation(self.encoder(standard))

    def forward(self, x: Tensor, cells: Tensor | None = None) -> Tensor:
        r"""Logits of the classes, shape (B, C), or of the attributes, shape (B, \*shape of the label), of canonical values."""
        return self.head.network(self.features(x, cells))

    @torch.no_grad()
    def verdict(self, x: Tensor, cells: Tensor | None = None) -> Tensor:
        """The most probable label, whole numbers of shape (B, L), of canonical values."""
        label = self.head.likelihood
        return label_numbers(label, label.point(label.expectation(label(self(x, cells)))))

    def accuracy(self, batch: Batch, name: str, label: str) -> float:
        """Share of the rows whose label is told rightly; for attributes the share of the observed attributes.

        Arguments:
            batch: Rows, of which those with both modalities count.
            name: The modality that the classifier reads.
            label: The modality that it tells.

        Raises:
            DataError: when no row has both modalities.
        """
        batch = batch.index(rows_with(batch, (name, label)))
        if not len(batch):
            raise DataError(f"accuracy of a classifier: no row has {name} and {label} together")
        elements = math.prod(self.likelihood.shape)
        parts = [self._right(part.to(self.device), name, label) for part in chunks(batch, elements)]
        return share(parts)

    def _right(self, batch: Batch, name: str, label: str) -> tuple[Tensor, Tensor]:
        """Which labels are told rightly, and which count, each of shape (B, L)."""
        truth, observed = labels_of(self.head.likelihood, batch, label)
        return self.verdict(canonical(self.likelihood, batch, name), batch.cells.get(name)) == truth, observed


@dataclass(frozen=True)
class Judge:
    """A classifier and how far it can be trusted.

    Arguments:
        classifier: The classifier of one modality.
        accuracy: Its accuracy on rows held out, between 0 and 1.
        rows: The number of those rows.
        train_rows: The number of rows that it was trained on.
    """

    classifier: Classifier
    accuracy: float
    rows: int
    train_rows: int


@gradients()
def train_classifier(
    encoder: Encoder,
    likelihood: Likelihood,
    label_likelihood: Likelihood,
    train: Batch,
    name: str,
    label: str,
    *,
    epochs: int = 10,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> Classifier:
    r"""Trains a classifier by maximising :math:`\log p(y \mid x_i)` with Adam; the same seed and the same encoder give the same classifier.

    Arguments:
        encoder: An encoder with fresh weights, which are trained in place, on the device on which it lies.
        likelihood: The likelihood of the modality.
        label_likelihood: The likelihood of the label.
        train: Training rows, of which those with both modalities count.
        name: The modality that the classifier reads.
        label: The modality that it tells.
        epochs: Passes over the rows.
        batch_size: Rows of a step.
        learning_rate: Adam's learning rate.
        seed: Seed of the head's weights and of the order of rows.

    Returns:
        The classifier in eval mode, its parameters frozen.

    Raises:
        DataError: when the label has neither classes nor attributes, or fewer than 2 rows have both modalities.
    """
    _check_kind(label, label_likelihood)
    rows = train.index(rows_with(train, (name, label)))
    if len(rows) < 2:
        raise DataError(f"a classifier of {label} given {name} takes 2 training rows with both or more, got {len(rows)}")
    device = next(encoder.parameters()).device
    with own_draws(seed):
        classifier = Classifier(encoder, likelihood, label_likelihood).to(device).train()
        optimizer = torch.optim.Adam([p for p in classifier.parameters() if p.requires_grad], lr=learning_rate)
        for _ in range(epochs):
            _epoch(classifier, optimizer, rows, name, label, min(batch_size, len(rows)))
    return classifier.eval().requires_grad_(False)


@gradients()
def train_classifiers(
    spec: Spec,
    model: MultimodalVAE,
    train: Batch,
    test: Batch,
    label: str,
    *,
    rows: int = 20_000,
    epochs: int = 10,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    cache: ClassifierCache | None = None,
) -> dict[str, Judge]:
    """A judge for every modality but the label, trained on training rows and scored on rows held out.

    A modality that never stands beside the label, in two training rows and in one held out, gets no judge.

    Arguments:
        spec: The spec, for encoders with fresh weights.
        model: The trained model, for the likelihoods and what they took from the training rows.
        train: The rows that the model was trained on.
        test: Rows that neither has seen.
        label: The modality that the judges tell.
        rows: Training rows of a classifier, at most, picked at random.
        epochs: Passes over them.
        batch_size: Rows of a step.
        learning_rate: Adam's learning rate.
        seed: Seed of weights, of the order of rows and of the rows picked.
        cache: Classifiers of earlier calls, used again where they would come out the same; filled.

    Raises:
        DataError: when the model lacks the label, the label has neither classes nor attributes, or values lie outside their likelihood's
            support.
    """
    check_label(model, label)
    for batch in (train, test):
        model.check(batch)
    judges = {}
    cache = ClassifierCache() if cache is None else cache
    for name in model.names:
        if name == label or rows_with(train, (name, label)).sum() < 2 or not rows_with(test, (name, label)).any():
            continue
        learnt, held_out = _picked(train, name, label, rows, seed), _picked(test, name, label, len(test), seed)
        with own_draws(seed):
            encoder = SpecParts(spec).encoder(name).to(model.device)
            classifier = Classifier(encoder, model.likelihoods[name], model.likelihoods[label]).to(model.device)
        options = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
        key = _key(spec, classifier, learnt, name, label, options)
        if cache.restore(name, key, classifier.learnt):
            classifier.eval().requires_grad_(False)
        else:
            classifier = train_classifier(encoder, model.likelihoods[name], model.likelihoods[label], learnt, name, label, **options)
            cache.keep(name, key, classifier.learnt)
        judges[name] = Judge(classifier, classifier.accuracy(held_out, name, label), len(held_out), len(learnt))
    return judges


def judge_of(judges: Mapping[str, Judge], name: str) -> Judge:
    """The judge of a modality.

    Raises:
        DataError: when there is none.
    """
    if name not in judges:
        raise DataError(
            f"no classifier judges modality {name!r}, only {listing(judges)}: "
            "it takes rows in which the modality and the label are present together, both in training and held out"
        )
    return judges[name]


def check_label(model: MultimodalVAE, label: str) -> None:
    """Checks that a modality can serve as the label.

    Raises:
        DataError: when the model lacks it, or it has neither classes nor attributes.
    """
    check_names(model, (label,))
    _check_kind(label, model.likelihoods[label])


def canonical(likelihood: Likelihood, batch: Batch, name: str) -> Tensor:
    """Canonical values of rows in which a modality is present; cells that are not observed hold 0."""
    x = likelihood.canonical(batch.values[name])
    return torch.where(batch.cells[name], x, 0) if name in batch.cells else x


def label_numbers(likelihood: Likelihood, y: Tensor) -> Tensor:
    r"""What canonical values of a label say, whole numbers of shape (\*, L): a class index, L = 1, or whether each attribute holds."""
    axes = likelihood.blank(0).ndim - 1
    return y.round().long().reshape(*y.shape[: y.ndim - axes], -1)


def labels_of(likelihood: Likelihood, batch: Batch, label: str) -> tuple[Tensor, Tensor]:
    """What the labels of rows say, and which of it is observed, each of shape (B, L)."""
    truth = label_numbers(likelihood, canonical(likelihood, batch, label))
    return truth, batch.cells[label].reshape(truth.shape) if label in batch.cells else torch.ones_like(truth, dtype=torch.bool)


def share(parts: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The share of what counts that is right: each part says what is right and what counts, two masks that broadcast together."""
    sums = torch.tensor([(int((right & counts).sum()), counts.expand_as(right).sum()) for right, counts in parts], dtype=torch.float64)
    right, counted = sums.sum(0)
    return float(right / counted)


def _key(spec: Spec, classifier: Classifier, learnt: Batch, name: str, label: str, options: Mapping[str, float]) -> str:
    """A hash of all that makes a classifier: its rows, its parts, what likelihoods took from the rows, how and where it is trained."""
    parts = {
        one: spec.modalities[one].model_dump(mode="json", include={"shape", "features", "encoder", "likelihood"}) for one in (name, label)
    }
    del parts[label]["encoder"], parts[label]["features"]
    rows = [fingerprint(learnt, one) for one in (name, label)]
    digest = hashlib.sha256(json.dumps([VERSION, __version__, name, label, parts, rows, options, str(classifier.device)]).encode())
    for buffer, tensor in classifier.likelihood.named_buffers():
        hash_tensor(digest, tensor, buffer)
    # Of the label's likelihood all of it, for the loss is its density.
    for tensor_name, tensor in classifier.head.likelihood.state_dict().items():
        hash_tensor(digest, tensor, tensor_name)
    return digest.hexdigest()


def _check_kind(label: str, likelihood: Likelihood) -> None:
    if not likelihood.discrete:
        raise DataError(
            f"label {label!r}: {type(likelihood).__name__} values are neither classes nor attributes; "
            "take a modality with likelihood categorical, or bernoulli with attributes: true"
        )


def _epoch(classifier: Classifier, optimizer: torch.optim.Optimizer, rows: Batch, name: str, label: str, size: int) -> None:
    # A last batch of another size is left out: the permutation brings its rows elsewhere in the next epoch.
    order = randperm(len(rows)).to(rows.device)
    for step in range(len(rows) // size):
        part = rows.index(order[step * size : (step + 1) * size]).to(classifier.device)
        features = classifier.features(canonical(classifier.likelihood, part, name), part.cells.get(name))
        y = canonical(classifier.head.likelihood, part, label)
        loss = -classifier.head.log_prob(features, y, part.cells.get(label)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _picked(batch: Batch, name: str, label: str, most: int, seed: int) -> Batch:
    """The rows in which both modalities are present, so many of them at most, with these two alone."""
    rows = rows_with(batch, (name, label)).nonzero()[:, 0]
    if len(rows) > most:
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:most].to(rows.device)]
    return batch.select(name, label).index(rows)
