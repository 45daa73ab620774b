r"""The joint VAE: one encoder of all modalities (equation 7; JMVAE-zero of Suzuki et al.), for rows with any of them.

A row with observed modalities S contributes its own evidence lower bound; equation 7 is the case S = M:

.. math:: \max \; \mathbb{E}_{q(z \mid x_S)} \Big[ \sum_{i \in S} w_i \log p(x_i \mid z) \Big] - \mathrm{KL}(q(z \mid x_S) \,\|\, p(z)),
    \qquad q(z \mid x_S) = \mathrm{Fuse}(\{h_i\}_{i \in S}, \{0\}_{j \notin S})

The features of absent modalities are replaced by zeros, so one encoder is amortised over all missingness patterns. The sum over rows is a
lower bound on the log-likelihood of all observed values: if values are missing at random, decoders learn the same distribution as from
complete rows. No row needs every modality.

The posteriors of incomplete rows should agree with those given more modalities. So in incomplete data, the posterior given a random subset
S of the observed modalities O is trained towards the one given O, which is the teacher (no gradient):

.. math:: \min \; \mathrm{KL}(q(z \mid x_O) \,\|\, q(z \mid x_S)), \qquad |S| \sim U\{1, \dots, |O| - 1\}, \qquad S \subset O

The divergence is forward: averaged over rows, it is minimal if :math:`q(z \mid x_S)` is the mean posterior of all rows that match
:math:`x_S`. Learned vectors instead of zeros, and bridges trained together with the rest, were no better (`benchmarks/missing.py`).

With a ``coupling`` c > 0, that divergence applies to random subsets of all rows, including complete ones, and trains both posteriors:

.. math:: \max \; \mathrm{ELBO}(x_O) - c \, \mathbb{E}_S \, \mathrm{KL}(q(z \mid x_O) \,\|\, q(z \mid x_S))

This is JMVAE's objective with a single encoder; c is its alpha times its number of subsets. It trades ELBO for a z that subsets can predict
and for features that suit bridges; if views share little, such as a digit on photographs, bridges then predict much better
(`benchmarks/polymnist`).

A weight l of ``leave_one_out`` adds the prediction of one modality m of each row from all its others:

.. math:: \max \; \mathrm{ELBO}(x_O) + l \, \mathbb{E}_m \, \mathbb{E}_{q(z \mid x_{O \setminus m})} \big[ w_m \log p(x_m \mid z) \big]

Otherwise an encoder may omit what other modalities always provide, and a decoder trained only on z of complete rows may fail on other z;
both matter when something is missing. With few rows it also keeps z from memorising them.

A weight g of ``contrast`` adds InfoNCE between the posterior means given two disjoint subsets S and T of each row, with the other rows of
the batch as negatives, cosine similarity s and temperature :math:`\tau = 0.1`:

.. math:: \min \; g \, L \, \mathbb{E}_{S, T} \Big[ -\log
    \frac{e^{s(\mu_S, \mu_T) / \tau}}{\sum_{n} e^{s(\mu_S, \mu_{T n}) / \tau}} \Big], \qquad S \cap T = \emptyset, \; S \cup T \subset O

The information that two subsets share, such as the digit on two photographs, may be 2 nats of 4,000, and hardly affects the ELBO. The
contrast makes each modality encode it, in the same directions of z. Its weight is relative to the nats L of a row under the free baseline,
and smaller if rows are so few that a model could memorise them (`nbridge.inference.weights.weigh_contrast`).

References:
    | Joint Multimodal Learning with Deep Generative Models (Suzuki, Nakayama & Matsuo, 2016), https://arxiv.org/abs/1611.01891
    | Bridged Variational Autoencoders for Joint Modeling of Images and Attributes (Yadav et al., WACV 2020), equation 7
    | Representation Learning with Contrastive Predictive Coding (van den Oord, Li & Vinyals, 2018), https://arxiv.org/abs/1807.03748
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import Independent
from torch.nn import functional as F

from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns
from nbridge.models.base import Decoders, Encoders, Features, MultimodalVAE, Stage, Weights
from nbridge.models.parts import Parts
from nbridge.models.reductions import masked_mean
from nbridge.models.subsets import random_subset
from nbridge.nn.decoders import Decoder, RowDecoder
from nbridge.nn.distributions import diagonal_kl, diagonal_normal
from nbridge.nn.encoders import Encoder
from nbridge.nn.fusion import Fusion
from nbridge.spec.option_types import NonNegativeFloat

TEMPERATURE = 0.1
"""Temperature of the contrast."""


class JointVAE(MultimodalVAE):
    """A VAE with one joint encoder of all modalities; the features of absent modalities are replaced by zeros.

    Arguments:
        encoders: An encoder for each modality.
        decoders: A decoder for each modality.
        fusion: Maps the features of all modalities to the posterior.
        weights: The weight of each modality's log-likelihood in training; 1 by default.
        coupling: The weight c of the divergence between the posteriors given all observed modalities and a random subset of them. If all
            three weights are 0, the default, batches of complete rows are trained by equation 7, and others also distil into subsets
            without a gradient to the teacher.
        leave_one_out: The weight l of the prediction of one modality of each row from its others; 0 by default.
        contrast: The weight g of the contrast between two subsets of a row, relative to the nats of a row; 0 by default.

    Attributes:
        contrast_nats: The factor of g, in nats: the nats of a row, less if training rows are few; 0 disables the contrast. Training sets it
            (`nbridge.inference.weights.weigh_contrast`).
    """

    contrast_nats: float = 0.0

    def __init__(
        self, encoders: Encoders, decoders: Decoders, fusion: Fusion, weights: Weights = None,
        *, coupling: NonNegativeFloat = 0.0, leave_one_out: NonNegativeFloat = 0.0, contrast: NonNegativeFloat = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(encoders, decoders, fusion.latent_dim, weights)
        self.fusion, self.coupling, self.leave_one_out, self.contrast = fusion, coupling, leave_one_out, contrast

    @property
    def contrast_weight(self) -> float:
        """The weight of the contrast in nats."""
        return self.contrast * self.contrast_nats

    @classmethod
    def from_parts(cls, parts: Parts, **options: Any) -> Self:
        return cls(*cls.joint_parts(parts), parts.weights, **options)

    @staticmethod
    def joint_parts(parts: Parts) -> tuple[dict[str, Encoder], dict[str, Decoder], Fusion]:
        """Encoders, decoders and the fusion of all modalities, created in this order so that all models share initial weights."""
        encoders = {name: parts.encoder(name) for name in parts.names}
        decoders = {name: parts.decoder(name) for name in parts.names}
        return encoders, decoders, parts.fusion(parts.names)

    def supports_pattern(self, pattern: str, seen: Patterns) -> bool:
        """See `MultimodalVAE.supports_pattern`, but complete rows train subsets only with a coupling or alongside incomplete rows."""
        if pattern in seen.rows:
            return True
        return (self.coupling > 0 or any("0" in other for other in seen.rows)) and super().supports_pattern(pattern, seen)

    def infer(self, batch: Batch) -> Independent:
        return self.observed_posterior(self.encode(batch), batch)

    def masked_posterior(self, inputs: Mapping[str, Tensor], present: Tensor, noise: Tensor) -> Independent:  # noqa: ARG002 (of flows)
        return self.fusion(self.filled(self.encode_inputs(inputs), dict(zip(self.names, present, strict=True))))

    def observed_posterior(self, features: Features, batch: Batch) -> Independent:
        r""":math:`q(z \mid x_S)`, batch shape (B,) over D, from the features of a prepared batch."""
        return self.fusion(features if batch.whole else self.filled(features, batch.present))

    def filled(self, features: Features, present: Mapping[str, Tensor]) -> Features:
        """Replaces the features of absent modalities, shape (B, F_i), by zeros, given presence of shape (B,)."""
        return {name: torch.where(present[name][:, None], h, 0.0) for name, h in features.items()}

    def features_with_teacher(self, batch: Batch) -> dict[str, Tensor]:
        """The features of a prepared batch, and its posterior given all observed modalities, for later stages to learn from (`teacher`)."""
        features = self.encode(batch)
        q = self.observed_posterior(features, batch)
        return {**features, "teacher.loc": q.mean, "teacher.scale": q.stddev}

    def stages(self) -> tuple[Stage, ...]:
        return (self.joint_stage(),)

    def joint_stage(self, *, serves: bool = True) -> Stage:
        """Stage ``joint``: trains encoders, fusion and decoders on every row with something observed.

        Arguments:
            serves: Whether this is the last stage needed to serve incomplete rows.
        """
        return Stage("joint", (self.encoders, self.fusion, self.decoders), self._joint_loss, self._observed, serves=serves)

    def _joint_loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:
        features = self.encode(batch)
        if (self.coupling or self.leave_one_out or self.contrast_weight) and len(self.names) > 1:
            return self._loss_with_subsets(features, batch, kl_weight)
        q = self.observed_posterior(features, batch)
        terms = self.negative_elbo(q, batch, kl_weight)
        if batch.whole:
            return terms
        fixed = diagonal_normal(q.mean.detach(), q.stddev.detach())
        subset = dict(zip(self.names, random_subset(self.presence(batch)), strict=True))
        return terms | {"distill": self._subset_divergence(fixed, self.fusion(self.filled(features, subset)), batch)}

    def _loss_with_subsets(self, features: Features, batch: Batch, kl_weight: float) -> dict[str, Tensor]:
        """The terms of the ELBO, the coupling to a random subset, the prediction of the left-out modality and the contrast."""
        present = self.presence(batch)
        parts = {"whole": present}
        if self.coupling or self.contrast_weight:
            parts["part"] = random_subset(present)
        if self.contrast_weight:
            parts["apart"] = random_subset(present & ~parts["part"])
        if self.leave_one_out:
            parts["others"] = present & ~self._left_out(present)
        q = self._posteriors_of(parts, features)
        whole = q["whole"]
        if self.leave_one_out:
            terms = self._terms_and_prediction(whole, q["others"], batch, kl_weight)
        else:
            terms = self.negative_elbo(whole, batch, kl_weight)
        if self.coupling:
            terms["coupling"] = self.coupling * self._subset_divergence(whole, q["part"], batch)
        if self.contrast_weight:
            both = parts["part"].any(0) & parts["apart"].any(0)
            terms["contrast"] = self.contrast_weight * contrast(q["part"].mean, q["apart"].mean, both, self.alike(batch))
        return terms

    def _posteriors_of(self, parts: Mapping[str, Tensor], features: Features) -> dict[str, Independent]:
        """The posteriors given named subsets of each row's modalities, each boolean, shape (M, B).

        All in one pass, so that batch statistics are those of the mixture of subsets, as in serving. Distillation without coupling uses
        separate passes, because with a shared pass labels were predicted worse on small tables.
        """
        given = torch.stack(list(parts.values()), 1)
        q = self.fusion({name: torch.where(mask[..., None], features[name], 0.0) for name, mask in zip(self.names, given, strict=True)})
        return {name: diagonal_normal(q.mean[number], q.stddev[number]) for number, name in enumerate(parts)}

    def _left_out(self, present: Tensor) -> Tensor:
        """The modality that is left out of each row, boolean, shape (M, B): the first rows leave out the first modality, and so on.

        Rows come in random order, so this is random too, but with constant shapes: each decoder sees a fixed share of the rows twice.
        """
        rows = torch.arange(present.shape[1], device=present.device)
        return torch.stack([(rows >= start) & (rows < stop) for start, stop in self._shares(len(rows))])

    def _shares(self, rows: int) -> list[tuple[int, int]]:
        """For each modality, the range of rows that leave it out."""
        n = len(self.names)
        return [(i * rows // n, (i + 1) * rows // n) for i in range(n)]

    def _terms_and_prediction(self, whole: Independent, others: Independent, batch: Batch, kl_weight: float) -> dict[str, Tensor]:
        """The terms of the negative ELBO and of the left-out prediction, with one pass of each decoder for both."""
        present, z, z_others = self.presence(batch), whole.rsample(), others.rsample()
        terms, losses = {}, []
        for number, (name, (start, stop)) in enumerate(zip(self.names, self._shares(len(batch)), strict=True)):
            x, cells = batch.values[name], None if batch.whole else batch.cells.get(name)
            decoder = self.decoder_of(name, batch)
            if isinstance(decoder, RowDecoder):
                decoder = decoder.index(torch.cat([torch.arange(len(batch)), torch.arange(start, stop)]).to(batch.device))
            log_prob = decoder.log_prob(
                torch.cat([z, z_others[start:stop]]),
                torch.cat([x, x[start:stop]]),
                None if cells is None else torch.cat([cells, cells[start:stop]]),
            )
            own, predicted = log_prob[: len(batch)], log_prob[len(batch) :]
            # A row with a single modality has nothing to predict it from.
            possible = (present[number] & (present.sum(0) >= 2))[start:stop]
            terms[name] = -self.weights[name] * torch.where(present[number], own, 0.0).mean()
            losses.append(-self.weights[name] * torch.where(possible, predicted, 0.0).sum() / len(batch))
        terms["kl"] = kl_weight * self.kl_to_prior(whole).mean()
        terms["leave_one_out"] = self.leave_one_out * torch.stack(losses).sum()
        return terms

    def _subset_divergence(self, whole: Independent, part: Independent, batch: Batch) -> Tensor:
        """The mean over rows of KL(whole || part); rows with fewer than two modalities contribute 0."""
        return torch.where(self.presence(batch).sum(0) >= 2, diagonal_kl(whole, part), 0.0).mean()


def contrast(one: Tensor, other: Tensor, rows: Tensor, alike: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE between two vectors of each row, with those of the other rows as negatives; a scalar.

    Vectors have the shape (B, D); ``rows``, boolean, shape (B,), are those that have both; ``alike`` is that of `contrast_by_row`.
    """
    return masked_mean(contrast_by_row(one, other, rows, alike), rows)


def contrast_by_row(one: Tensor, other: Tensor, rows: Tensor | None = None, alike: Tensor | None = None) -> Tensor:
    """The term of `contrast` for each row, shape (*, B).

    Arguments:
        one: The first vector of each row, shape (*, B, D).
        other: The second vector of each row, of a shape that broadcasts with ``one``.
        rows: The rows that have both, boolean, shape (B,); all by default.
        alike: The rows that are negatives of each row, boolean, shape (B, B), itself among them; all by default. With covariates these are
            rows with like ones, because a vector that held the covariate would tell other rows apart.
    """
    pairs = F.normalize(one.float(), dim=-1) @ F.normalize(other.float(), dim=-1).mT / TEMPERATURE
    if rows is not None:
        # A mask keeps shapes constant; -1e9, because -inf has a NaN gradient in rows without negatives.
        pairs = torch.where(rows[:, None] & rows, pairs, -1e9)
    if alike is not None:
        pairs = torch.where(alike, pairs, -1e9)
    return (pairs.logsumexp(-2) + pairs.logsumexp(-1) - 2 * pairs.diagonal(dim1=-2, dim2=-1)) / 2


def teacher(features: Features) -> Independent:
    """The posterior stored by `JointVAE.features_with_teacher`, batch shape (B,) over D."""
    return diagonal_normal(features["teacher.loc"], features["teacher.scale"])
