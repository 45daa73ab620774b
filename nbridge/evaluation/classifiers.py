r"""Classifiers that score generated values: one per modality, which predicts the label from a value.

.. math:: p(y \mid x_i) = \mathrm{Likelihood}_y(W \, \sigma(\mathrm{Enc}_i(x_i)) + b)

The encoder has the architecture of the model's encoder for this modality, with weights of its own. The label is itself a modality, either
categorical or of attributes (Bernoulli), which are predicted element by element. A classifier is trained on training rows only. Its scores
mean nothing without its own accuracy on held-out rows, so a `ScoredClassifier` holds both.

Labels are represented as integers, shape (B, L): a class index with L = 1, or the 0/1 values of L attributes.
"""

from __future__ import annotations

import copy
import hashlib
import json
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
from nbridge.nn.text_likelihood import Text
from nbridge.spec.option_types import Activation
from nbridge.spec.spec import Spec
from nbridge.training.build import SpecParts
from nbridge.version import __version__

VERSION = 1
"""Version of the classifiers and their training; cached classifiers of another version are not used."""


class Classifier(nn.Module):
    """An encoder, a nonlinearity and a linear head that predict a label from one modality.

    Arguments:
        encoder: Maps the standardised modality to features; it becomes a part of the classifier.
        likelihood: The modality's likelihood, with the statistics for standardising; copied, and not trained.
        label_likelihood: The label's likelihood; copied.

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
        """The device of the parameters."""
        return next(self.head.parameters()).device

    @property
    def trained(self) -> nn.Module:
        """The trained modules: the encoder and the head, without the likelihoods."""
        return nn.ModuleDict({"encoder": self.encoder, "head": self.head.network})

    def features(self, x: Tensor, cells: Tensor | None = None) -> Tensor:
        r"""The penultimate layer, shape (B, F). The observed mask of ``x``, ``cells``, is all true by default."""
        standard = self.likelihood.standardize(self.likelihood.typical(x, cells))
        if cells is not None:
            standard = torch.where(cells, standard, self.likelihood.fill_value)
        if self.encoder.reads_mask:
            observed = torch.ones_like(standard) if cells is None else cells.to(standard.dtype)
            standard = torch.cat([standard, observed], -1)
        return self.activation(self.encoder(standard))

    def forward(self, x: Tensor, cells: Tensor | None = None) -> Tensor:
        r"""Logits of the classes, shape (B, C), or of the attributes, shape (B, \*label shape), from canonical values."""
        return self.head.network(self.features(x, cells))

    @torch.no_grad()
    def predict(self, x: Tensor, cells: Tensor | None = None) -> Tensor:
        """The most probable label, integers of shape (B, L), from canonical values."""
        label = self.head.likelihood
        return label_numbers(label, label.point(label.expectation(label(self(x, cells)))))

    def accuracy(self, batch: Batch, name: str, label: str) -> float:
        """Share of rows whose label is predicted correctly; for attributes, the share of observed attributes.

        Other rows than those with both modalities are ignored.

        Raises:
            DataError: when no row has both modalities.
        """
        batch = batch.index(rows_with(batch, (name, label)))
        if not len(batch):
            raise DataError(f"accuracy of a classifier: no row has both {name} and {label}")
        elements = self.likelihood.numbers
        parts = [self._correct(part.to(self.device), name, label) for part in chunks(batch, elements)]
        return share(parts)

    def _correct(self, batch: Batch, name: str, label: str) -> tuple[Tensor, Tensor]:
        """Which labels are predicted correctly, and which are observed, each of shape (B, L)."""
        truth, observed = labels_of(self.head.likelihood, batch, label)
        return self.predict(canonical(self.likelihood, batch, name), batch.cells.get(name)) == truth, observed


@dataclass(frozen=True)
class ScoredClassifier:
    """A classifier and its held-out accuracy."""

    classifier: Classifier
    accuracy: float
    rows: int
    train_rows: int


@gradients()
def train_classifier(
    encoder: Encoder, likelihood: Likelihood, label_likelihood: Likelihood, train: Batch, name: str, label: str,
    *, epochs: int = 10, batch_size: int = 128, learning_rate: float = 1e-3, seed: int = 0,
) -> Classifier:  # fmt: skip
    r"""Trains a classifier by maximising :math:`\log p(y \mid x_i)` with Adam; the same seed and the same encoder give the same classifier.

    The encoder is freshly initialised and trained in place on its device, on the rows that have both modalities. The seed determines the
    head's weights and the order of rows.

    Returns:
        The classifier in eval mode, its parameters frozen.

    Raises:
        DataError: when the label is neither categorical nor of attributes, or fewer than 2 rows have both modalities.
    """
    _check_kind(label, label_likelihood)
    rows = train.index(rows_with(train, (name, label)))
    if len(rows) < 2:
        raise DataError(f"a classifier of {label} given {name} needs 2 or more training rows with both, got {len(rows)}")
    device = next(encoder.parameters()).device
    with own_draws(seed):
        classifier = Classifier(encoder, likelihood, label_likelihood).to(device).train()
        optimizer = torch.optim.Adam([p for p in classifier.parameters() if p.requires_grad], lr=learning_rate)
        for _ in range(epochs):
            _epoch(classifier, optimizer, rows, name, label, min(batch_size, len(rows)))
    return classifier.eval().requires_grad_(False)


@gradients()
def train_classifiers(
    spec: Spec, model: MultimodalVAE, train: Batch, test: Batch, label: str, *, rows: int = 20_000, epochs: int = 10, batch_size: int = 128,
    learning_rate: float = 1e-3, seed: int = 0, cache: ClassifierCache | None = None,
) -> dict[str, ScoredClassifier]:  # fmt: skip
    """Trains a classifier for every modality except the label, and scores each on held-out rows.

    A modality gets a classifier only if it is present together with the label in at least two training rows and one held-out row. Held-out
    rows are those that neither the model nor the classifiers are trained on. A classifier is trained on at most ``rows`` rows, drawn at
    random, or taken from ``cache`` when retraining would give the same result; new ones are added to it.

    Raises:
        DataError: when the model lacks the label, the label is neither categorical nor of attributes, or a value is outside its
            likelihood's support.
    """
    check_label(model, label)
    for batch in (train, test):
        model.check(batch)
    scored = {}
    cache = ClassifierCache() if cache is None else cache
    for name in model.names:
        if name == label or rows_with(train, (name, label)).sum() < 2 or not rows_with(test, (name, label)).any():
            continue
        sample, held_out = _subsample(train, name, label, rows, seed), _subsample(test, name, label, len(test), seed)
        with own_draws(seed):
            encoder = SpecParts(spec).plain_encoder(name).to(model.device)
            classifier = Classifier(encoder, model.likelihoods[name], model.likelihoods[label]).to(model.device)
        options = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
        key = _key(spec, classifier, sample, name, label, options)
        if cache.restore(name, key, classifier.trained):
            classifier.eval().requires_grad_(False)
        else:
            classifier = train_classifier(encoder, model.likelihoods[name], model.likelihoods[label], sample, name, label, **options)
            cache.store(name, key, classifier.trained)
        scored[name] = ScoredClassifier(classifier, classifier.accuracy(held_out, name, label), len(held_out), len(sample))
    return scored


def classifier_for(classifiers: Mapping[str, ScoredClassifier], name: str) -> ScoredClassifier:
    """The classifier of a modality.

    Raises:
        DataError: when there is none.
    """
    if name not in classifiers:
        raise DataError(
            f"no classifier for modality {name!r}, only for {listing(classifiers)}: "
            "it needs training and held-out rows with both the modality and the label"
        )
    return classifiers[name]


def check_label(model: MultimodalVAE, label: str) -> None:
    """Checks that a modality can serve as the label.

    Raises:
        DataError: when the model lacks it, or it is neither categorical nor of attributes.
    """
    check_names(model, (label,))
    _check_kind(label, model.likelihoods[label])


def canonical(likelihood: Likelihood, batch: Batch, name: str) -> Tensor:
    """Canonical values of rows in which a modality is present; unobserved cells are 0."""
    x = likelihood.canonical(batch.values[name])
    return torch.where(batch.cells[name], x, 0) if name in batch.cells else x


def label_numbers(likelihood: Likelihood, y: Tensor) -> Tensor:
    r"""Canonical values of a label as integers of shape (\*, L): a class index with L = 1, or the 0/1 values of L attributes."""
    axes = likelihood.blank(0).ndim - 1
    return y.round().long().reshape(*y.shape[: y.ndim - axes], -1)


def labels_of(likelihood: Likelihood, batch: Batch, label: str) -> tuple[Tensor, Tensor]:
    """The labels of rows as integers, and their observed mask, each of shape (B, L)."""
    truth = label_numbers(likelihood, canonical(likelihood, batch, label))
    return truth, batch.cells[label].reshape(truth.shape) if label in batch.cells else torch.ones_like(truth, dtype=torch.bool)


def share(parts: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The share of counted elements that are right; each part is a pair of masks (right, counts) that broadcast together."""
    sums = torch.tensor([(int((right & counts).sum()), counts.expand_as(right).sum()) for right, counts in parts], dtype=torch.float64)
    right, counted = sums.sum(0)
    return float(right / counted)


def _key(spec: Spec, classifier: Classifier, sample: Batch, name: str, label: str, options: Mapping[str, float]) -> str:
    """Hash of everything that determines a classifier: rows, architecture, likelihood statistics, training options and device."""
    parts = {
        one: spec.modalities[one].model_dump(mode="json", include={"shape", "features", "encoder", "likelihood"}) for one in (name, label)
    }
    del parts[label]["encoder"], parts[label]["features"]
    rows = [fingerprint(sample, one) for one in (name, label)]
    digest = hashlib.sha256(json.dumps([VERSION, __version__, name, label, parts, rows, options, str(classifier.device)]).encode())
    for buffer, tensor in classifier.likelihood.named_buffers():
        hash_tensor(digest, tensor, buffer)
    # The label's likelihood is hashed with its parameters, because the loss is its density.
    for tensor_name, tensor in classifier.head.likelihood.state_dict().items():
        hash_tensor(digest, tensor, tensor_name)
    return digest.hexdigest()


def _check_kind(label: str, likelihood: Likelihood) -> None:
    if not likelihood.discrete or isinstance(likelihood, Text):
        raise DataError(
            f"label {label!r}: {type(likelihood).__name__} values are neither classes nor attributes; "
            "use a modality with likelihood categorical, or bernoulli with attributes: true"
        )


def _epoch(classifier: Classifier, optimizer: torch.optim.Optimizer, rows: Batch, name: str, label: str, size: int) -> None:
    # The incomplete last batch is dropped; the next epoch's permutation puts its rows elsewhere.
    order = randperm(len(rows)).to(rows.device)
    for step in range(len(rows) // size):
        part = rows.index(order[step * size : (step + 1) * size]).to(classifier.device)
        features = classifier.features(canonical(classifier.likelihood, part, name), part.cells.get(name))
        y = canonical(classifier.head.likelihood, part, label)
        loss = -classifier.head.log_prob(features, y, part.cells.get(label)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _subsample(batch: Batch, name: str, label: str, most: int, seed: int) -> Batch:
    """At most ``most`` rows in which both modalities are present, with only these two modalities."""
    rows = rows_with(batch, (name, label)).nonzero()[:, 0]
    if len(rows) > most:
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:most].to(rows.device)]
    return batch.select(name, label).index(rows)
