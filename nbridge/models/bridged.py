r"""The bridged VAE: a joint model, and a bridge for each ordered pair of modalities.

Stage ``joint`` trains encoders, fusion and decoders on all rows by the ELBO of their observed modalities (eq. 7; `nbridge.models.joint`).

Stage ``bridges`` freezes them and trains the bridges. Given a single modality i, the posterior is
:math:`q(z \mid x_i) = \mathrm{Fuse}(h_i, \{B_{ij}(h_i)\}_{j \neq i})`, and the loss is a weighted sum, over all i, of

=========== =====================================================================================================
``elbo``    :math:`-\mathbb{E}_{q(z \mid x_i)}[w_i \log p(x_i \mid z)] + \mathrm{KL}(q(z \mid x_i) \,\|\, p(z))`, eq. 8 and 9
``distill`` :math:`\mathrm{KL}(q(z \mid x_O) \,\|\, q(z \mid x_i))`: the posterior given all observed modalities O is the teacher
``match``   :math:`\sum_{j \neq i} \| B_{ij}(h_i) - h_j \|^2`
``cross``   :math:`-\sum_{j \neq i} \mathbb{E}_{q(z \mid x_i)}[w_j \log p(x_j \mid z)]` over discrete j; on images it would reduce diversity
=========== =====================================================================================================

If bridges have their own encoders :math:`g_i`, initialised as copies of the joint encoders :math:`f_i` and trained in this stage,

.. math:: q(z \mid x_i) = \mathrm{Fuse}(f_i(x_i), \{B_{ij}(g_i(x_i))\}_{j \neq i})

Joint encoders may omit information that other modalities also provide: with one digit on five photographs, each encoder may leave the digit
to the others. Bridges that read only their features then find little shared information (`benchmarks/polymnist`).

With ``subsets``, the same loss also applies to larger sets of sources, with the posterior that serves them (``combine``): in each row a
random set S, or every S, of at least two modalities but not all observed ones. ``match`` applies to single sources only.

A term needs only the modalities in its formula, so incomplete rows train the bridges too: ``elbo`` uses all rows, ``match`` and ``cross``
rows with both modalities, ``distill`` rows with i and at least one other.

References:
    Bridged Variational Autoencoders for Joint Modeling of Images and Attributes (Yadav et al., WACV 2020)

Axes: M modalities (as sources), B rows, D latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from nbridge.common import randomness
from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns
from nbridge.models.base import Decoders, Encoders, Features, MultimodalVAE, Stage, Weights
from nbridge.models.joint import JointVAE, teacher
from nbridge.models.mixture_prior import DiagonalMixture
from nbridge.models.parts import Parts
from nbridge.models.reductions import masked_mean
from nbridge.models.subsets import proper_subsets, random_subset
from nbridge.nn.bridges import BridgeBank, mean_of_sources
from nbridge.nn.distributions import (
    diagonal_kl,
    diagonal_normal,
    diagonal_where,
    log_variance_normal,
    normal_or_prior,
    product_of_posteriors,
    product_with_mixture,
)
from nbridge.nn.fusion import Fusion
from nbridge.spec.objectives import DEFAULT_OBJECTIVE, DEFAULT_SUBSETS, PAPER_OBJECTIVE, Term, joint_options
from nbridge.spec.option_types import Combine, Coupling, Exponents, ProductPrior, Subsets

MAX_COMPONENTS = 200
"""Largest number of Gaussians in the mixture that replaces the prior in a product of posteriors."""
MAX_CHUNK_VALUES = 2**22
"""Largest number of values per chunk of rows, over all components."""


class BridgedVAE(JointVAE):
    """A joint VAE whose missing features are hallucinated by bridges.

    Arguments:
        encoders: An encoder for each modality.
        decoders: A decoder for each modality.
        fusion: Maps the features of all modalities to the posterior.
        bridges: Maps the features of each modality to those of every other.
        weights: The weight of each modality's log-likelihood in training; 1 by default.
        sources: The bridges' own encoders, of the same shapes as the joint encoders, whose weights they copy before training; without
            them, bridges read the features of the joint encoders.
        objective: The weights of the terms of stage ``bridges``.
        combine: How several sources are combined: ``mean`` of hallucinated features, or ``poe``, the product of their posteriors.
        subsets: The sets of sources that bridges are trained for: ``singletons``; ``random``, singletons and one larger random set per row;
            or ``all``.
        exponents: The exponents of the product of posteriors: ``fitted`` on validation rows (`nbridge.inference.exponents`) or ``ones``.
        prior: The prior in the product of posteriors: ``normal``, N(0, I); ``mixture``, Gaussians fitted to the codes of the training
            rows; or ``auto``, the better one on validation rows (`nbridge.inference.product_prior`).
        coupling: See `JointVAE`; auto is 0 with the paper's objective, whose stage ``joint`` is equation 7, and 1 otherwise.
        leave_one_out: See `JointVAE`; auto is 0 with the paper's objective and 0.3 otherwise.
        contrast: See `JointVAE`; auto is 0 with the paper's objective and 0.07 otherwise.

    Raises:
        ValueError: if the sources do not match the modalities, the objective has no term that can be computed, or there are too many sets
            of sources for ``subsets="all"``.
    """

    sets: Tensor

    def __init__(
        self, encoders: Encoders, decoders: Decoders, fusion: Fusion, bridges: BridgeBank, weights: Weights = None,
        sources: Encoders | None = None, *, objective: Mapping[Term, float] = DEFAULT_OBJECTIVE, combine: Combine = "poe",
        subsets: Subsets = DEFAULT_SUBSETS, exponents: Exponents = "fitted", prior: ProductPrior = "normal", coupling: Coupling = "auto",
        leave_one_out: Coupling = "auto", contrast: Coupling = "auto",
    ) -> None:  # fmt: skip
        joint = joint_options(coupling, leave_one_out, contrast, paper=dict(objective) == dict(PAPER_OBJECTIVE))
        super().__init__(encoders, decoders, fusion, weights, **joint)
        self.bridges = bridges
        if sources and set(sources) != set(self.names):
            raise ValueError(f"encoders of bridges for {sorted(sources)}, expected one for each of {', '.join(self.names)}")
        self.sources = nn.ModuleDict({name: sources[name] for name in self.names} if sources else {})
        self.objective = self._checked(objective)
        for option, value, known in (("combine", combine, get_args(Combine)), ("subsets", subsets, get_args(Subsets))):
            if value not in known:
                raise ValueError(f"{option} is {value!r}, expected one of {', '.join(known)}")
        self.combine, self.subsets = combine, subsets
        sets = [subset for subset in proper_subsets(self.names, "separate terms") if len(subset) > 1] if subsets == "all" else []
        members = torch.tensor([[name in subset for name in self.names] for subset in sets], dtype=torch.bool)
        self.register_buffer("sets", members.view(-1, len(self.names)), persistent=False)
        multiplies = combine == "poe" and len(self.names) > 1
        if exponents == "fitted" and multiplies:
            self.exponents = torch.ones(len(self.names) + 1, len(self.names))
        if prior != "normal" and multiplies:
            self.codes = DiagonalMixture(self.latent_dim, components=MAX_COMPONENTS)
            self.codes.always = prior == "mixture"

    @classmethod
    def from_parts(cls, parts: Parts, **options: Any) -> Self:
        joint, bridges = cls.joint_parts(parts), parts.bridges()
        if not isinstance(bridges, BridgeBank):
            raise TypeError(f"bridges are of type {type(bridges).__name__}, expected BridgeBank")
        own = parts.source_encoders == "own" and len(parts.names) > 1
        return cls(
            *joint, bridges, parts.weights, {name: parts.encoder(name) for name in parts.names} if own else None,
            objective=parts.objective, combine=parts.combine, subsets=parts.subsets, exponents=parts.exponents,
            prior=parts.prior, **options,
        )  # fmt: skip

    def _checked(self, objective: Mapping[Term, float]) -> dict[Term, float]:
        """The terms that have a weight and can be computed."""
        if unknown := [term for term in objective if term not in get_args(Term)]:
            raise ValueError(f"unknown term {unknown[0]!r} in objective, expected {', '.join(get_args(Term))}")
        terms: dict[Term, float] = {
            term: weight for term, weight in objective.items() if weight and (term != "cross" or self.cross_targets())
        }
        if not terms and len(self.names) > 1:
            raise ValueError(f"objective {dict(objective)} trains nothing: 'cross' needs a modality with a discrete likelihood")
        return terms

    # Serving

    def supports_pattern(self, pattern: str, seen: Patterns) -> bool:
        """Incomplete rows are served by bridges, each trained on rows with its pair of modalities; complete rows by the joint model."""
        return pattern in seen.rows or ("0" in pattern and "1" in pattern and seen.pairwise(pattern))

    def infer(self, batch: Batch) -> Independent:
        features, present = self.encode(batch), self.presence(batch)
        if bool(present.all()) or len(self.names) == 1:
            return self.fusion(features)
        inputs = self.inputs(batch) if self.sources else {}
        if self.combine == "mean":
            return self.fusion(mean_of_sources(features, self.bridges.hallucinate(self.read(features, inputs)), present))
        return self._product(features, inputs, present)

    @property
    def noise_width(self) -> int:
        return 1 if self._mixture is not None else 0

    @property
    def _mixture(self) -> DiagonalMixture | None:
        """The mixture that replaces the prior, once it is fitted."""
        return self.codes if self.codes is not None and self.codes.fitted else None

    def posterior(self, batch: Batch, samples: int = 1) -> Independent:
        """K components of q(z | x_S), batch shape (K, B) over D, to sample once each; the prior for rows with nothing observed.

        With N(0, I) in the product all components are the same Gaussian. With a mixture each is drawn by its weight.
        """
        if self._mixture is None:
            return super().posterior(batch, samples)
        return self._components(self.prepare(batch), randomness.randn(samples, len(batch), 1, device=self.device))

    def proposal(self, batch: Batch, samples: int = 1) -> Independent:
        """The posterior with N(0, I) in the product: components of a mixture are so narrow that a few samples would have all the weight."""
        return self.posterior(batch, samples) if self._mixture is None else MultimodalVAE.posterior(self, batch, samples)

    def fixed_posterior(self, batch: Batch, noise: Tensor) -> Independent:
        return super().fixed_posterior(batch, noise) if self._mixture is None else self._components(self.prepare(batch), noise[:, None])

    def moments(self, batch: Batch, samples: int = 1) -> Independent:
        if (mixture := self._mixture) is None:
            return super().moments(batch, samples)
        batch = self.prepare(batch)
        # Exact, so that a row's mean does not depend on which components are drawn.
        parts = [self._mixture_moments(part, mixture) for part in self._chunks(batch)]
        return diagonal_normal(torch.cat([q.mean for q in parts]), torch.cat([q.stddev for q in parts]))

    def masked_posterior(self, inputs: Mapping[str, Tensor], present: Tensor, noise: Tensor) -> Independent:
        features = self.encode_inputs(inputs)
        q = self.fusion(features)
        if len(self.names) == 1:
            return q
        if (mixture := self._mixture) is not None:
            unimodal, _ = self.unimodal(features, self.read(features, inputs))
            product = self._with_mixture(unimodal.mean, 2 * unimodal.stddev.log(), present, mixture)
            return diagonal_where(present.all(0), q, draw_component(*product, mixture, noise[:, None]))
        return diagonal_where(present.all(0), q, self._combined(*self.unimodal(features, self.read(features, inputs)), present, features))

    def read(self, features: Features, inputs: Mapping[str, Tensor]) -> Features:
        """The inputs of bridges, shape (B, F_i): features of their own encoders, or else of the joint encoders."""
        return {name: encoder(inputs[name]) for name, encoder in self.sources.items()} if self.sources else features

    def unimodal(
        self, features: Features, read: Features, counts: Mapping[str, Tensor] | None = None
    ) -> tuple[Independent, Mapping[tuple[str, str], Tensor]]:
        r"""All :math:`q(z \mid x_i)`, batch shape (M, B) over D, and the hallucinated features by pair.

        In training, the bridges' batch statistics are those of the rows ``counts``.
        """
        hallucinated = self.bridges.hallucinate(read, counts)
        if not hallucinated:
            return self.fusion({name: features[name][None] for name in self.names}), hallucinated
        # In the dtype of the bridges' outputs, so that only the observed features are copied.
        dtype = next(iter(hallucinated.values())).dtype
        filled = {
            target: torch.stack([features[target].to(dtype) if source == target else hallucinated[source, target] for source in self.names])
            for target in self.names
        }
        return self.fusion(filled), hallucinated

    def _product(self, features: Features, inputs: Mapping[str, Tensor], present: Tensor) -> Independent:
        """The joint posterior for complete rows, and the product of unimodal posteriors for the others.

        Each source is evaluated only on incomplete rows that have it. Training, which needs constant shapes, uses `unimodal` instead.
        """
        complete = present.all(0)
        loc, log_variance = self._unimodal_where(features, inputs, present & ~complete)
        mean, log_variance = product_of_posteriors(loc, log_variance, present, self._exponents_of(present))
        scale = (log_variance / 2).exp()
        if len(rows := complete.nonzero()[:, 0]):
            q = self.fusion({name: h.index_select(0, rows) for name, h in features.items()})
            mean, scale = mean.index_copy(0, rows, q.mean.to(mean.dtype)), scale.index_copy(0, rows, q.stddev.to(mean.dtype))
        return diagonal_normal(mean, scale)

    def _unimodal_where(self, features: Features, inputs: Mapping[str, Tensor], wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Means and log-variances, shape (M, B, D), of the unimodal posteriors where ``wanted``, boolean, shape (M, B); zeros elsewhere."""
        loc = next(iter(features.values())).new_zeros(*wanted.shape, self.latent_dim)
        log_variance = torch.zeros_like(loc)
        for number, name in enumerate(self.names):
            if len(rows := wanted[number].nonzero()[:, 0]):
                h = features[name].index_select(0, rows)
                read = self.sources[name](inputs[name].index_select(0, rows)) if self.sources else h
                q = self.fusion(self.bridges.hallucinate_from(name, read) | {name: h})
                loc[number] = loc[number].index_copy(0, rows, q.mean.to(loc.dtype))
                log_variance[number] = log_variance[number].index_copy(0, rows, 2 * q.stddev.log().to(loc.dtype))
        return loc, log_variance

    def _chunks(self, batch: Batch) -> Iterable[Batch]:
        """Splits rows into chunks whose components fit in memory."""
        rows = max(1, MAX_CHUNK_VALUES // (MAX_COMPONENTS * self.latent_dim))
        return (batch.slice(start, start + rows) for start in range(0, max(1, len(batch)), rows))

    def _components(self, batch: Batch, noise: Tensor) -> Independent:
        """Components of the posteriors of a prepared batch, chosen by noise of shape (K, B, 1) or (K, 1, 1)."""
        mixture, parts, start = self._mixture, [], 0
        assert mixture is not None
        for part in self._chunks(batch):
            own = noise if noise.shape[1] == 1 else noise[:, start : start + len(part)]
            q, product, incomplete = self._joint_and_product(part, mixture)
            parts.append(diagonal_where(incomplete, draw_component(*product, mixture, own), q))
            start += len(part)
        return diagonal_normal(torch.cat([q.mean for q in parts], 1), torch.cat([q.stddev for q in parts], 1))

    def _mixture_moments(self, batch: Batch, mixture: DiagonalMixture) -> Independent:
        q, (log_weights, precision, natural), incomplete = self._joint_and_product(batch, mixture)
        _, means, variances = mixture.parameters_of_components()
        total = 1 / variances + precision[:, None]
        each, weights = (means / variances + natural[:, None]) / total, log_weights.exp()[..., None]
        mean = (weights * each).sum(1)
        variance = (weights * (1 / total + (each - mean[:, None]).square())).sum(1)
        return diagonal_where(incomplete, diagonal_normal(mean, variance.sqrt()), q)

    def _joint_and_product(self, batch: Batch, mixture: DiagonalMixture) -> tuple[Independent, tuple[Tensor, Tensor, Tensor], Tensor]:
        """The joint posterior (N(0, I) for empty rows), the product with the mixture, and the rows that use the product."""
        features, present = self.encode(batch), self.presence(batch)
        some, complete = present.any(0), present.all(0)
        joint_or_prior = normal_or_prior(some, self.fusion(features))
        loc, log_variance = self._unimodal_where(features, self.inputs(batch) if self.sources else {}, present & ~complete)
        return joint_or_prior, self._with_mixture(loc, log_variance, present, mixture), some & ~complete

    def _with_mixture(self, loc: Tensor, log_variance: Tensor, present: Tensor, mixture: DiagonalMixture) -> tuple[Tensor, Tensor, Tensor]:
        """`product_with_mixture` in the dtype of the mixture."""
        of = mixture.parameters_of_components()
        return product_with_mixture(loc.to(of[1]), log_variance.to(of[1]), present, self._exponents_of(present), of)

    # Training

    def stages(self) -> tuple[Stage, ...]:
        if len(self.names) == 1:
            return (self.joint_stage(),)
        bridges = Stage(
            "bridges", (self.bridges, self.sources) if self.sources else (self.bridges,),
            self._bridges_loss, self._bridges_rows, self._bridges_features,
            values=None if self.sources else self._bridges_values(), begin=self._begin_as_joint if self.sources else None,
        )  # fmt: skip
        return self.joint_stage(serves=False), bridges

    def _begin_as_joint(self, parts: Iterable[tuple[Batch, Features]]) -> None:  # noqa: ARG002 (other stages look at their rows)
        self.sources.load_state_dict(self.encoders.state_dict())

    def _bridges_rows(self, batch: Batch) -> Tensor:
        """The rows for which at least one term can be computed."""
        number = self.presence(batch).sum(0)
        usable = {"elbo": number >= 1, "match": number >= 2, "distill": number >= 2, "cross": torch.zeros_like(number > 0)}
        for target in self.cross_targets():
            usable["cross"] = usable["cross"] | (batch.present[target] & (number >= 2))
        return torch.stack([usable[term] for term in self.objective]).any(0)

    def _bridges_values(self) -> tuple[str, ...]:
        """The modalities whose log-likelihood is a term."""
        return self.names if "elbo" in self.objective else tuple(self.cross_targets()) if "cross" in self.objective else ()

    def _bridges_features(self, batch: Batch) -> dict[str, Tensor]:
        return self.features_with_teacher(batch) if "distill" in self.objective else self.encode(batch)

    def _bridges_loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:
        present = self.presence(batch)
        h = {name: features[name] for name in self.names}
        read = self.read(h, self.inputs(batch) if self.sources else {})
        q, hallucinated = self.unimodal(h, read, None if batch.whole else batch.present)
        z = q.rsample() if self._bridges_values() else q.mean
        terms: dict[str, Tensor] = {}
        if weight := self.objective.get("elbo"):
            terms["elbo.nll"] = weight * self._own_nll(z, batch)
            terms["elbo.kl"] = weight * kl_weight * masked_mean(self.kl_to_prior(q), present)
        if weight := self.objective.get("distill"):
            # The teacher, (B,), broadcasts over the sources, (M, B). A row with one modality has no richer posterior to learn from.
            terms["distill"] = weight * masked_mean(diagonal_kl(teacher(features), q), present & (present.sum(0) >= 2))
        if weight := self.objective.get("match"):
            terms["match"] = weight * self._mismatch(features, hallucinated, batch)
        if weight := self.objective.get("cross"):
            terms["cross"] = weight * self._cross_nll(z, batch)
        for given in self._larger_sets(present):
            for term, loss in self._set_losses(q, hallucinated, given, batch, features, kl_weight).items():
                terms[term] = terms[term] + loss
        return terms

    def _larger_sets(self, present: Tensor) -> Iterable[Tensor]:
        """Sets of at least two but not all observed modalities of each row, boolean, shape (M, B); empty in rows without such a set."""
        if self.subsets == "singletons" or len(self.names) < 3:
            return []
        if self.subsets == "random":
            return [random_subset(present, 2) & (present.sum(0) >= 3)]
        return [part & (present | ~part).all(0) & (present & ~part).any(0) for part in self.sets[..., None]]

    def _set_losses(
        self, unimodal: Independent, hallucinated: Mapping[tuple[str, str], Tensor], given: Tensor, batch: Batch, features: Features,
        kl_weight: float,
    ) -> dict[str, Tensor]:  # fmt: skip
        """The terms for a set of sources per row, boolean, shape (M, B), with the posterior that serves it; empty sets are ignored."""
        q, rows, terms = self._combined(unimodal, hallucinated, given, features), given.any(0), {}
        z = q.rsample()
        if weight := self.objective.get("elbo"):
            own = [torch.where(given[i], -self.weights[name] * self.log_prob(name, z, batch), 0.0) for i, name in enumerate(self.names)]
            terms["elbo.nll"] = weight * masked_mean(torch.stack(own).sum(0), rows)
            terms["elbo.kl"] = weight * kl_weight * masked_mean(self.kl_to_prior(q), rows)
        if weight := self.objective.get("distill"):
            terms["distill"] = weight * masked_mean(diagonal_kl(teacher(features), q), rows)
        if weight := self.objective.get("cross"):
            wanted = {name: rows & batch.present[name] & ~given[self.names.index(name)] for name in self.cross_targets()}
            losses = [masked_mean(-self.weights[name] * self.log_prob(name, z, batch), rows) for name, rows in wanted.items()]
            terms["cross"] = weight * torch.stack(losses).sum()
        return terms

    def _combined(
        self, unimodal: Independent, hallucinated: Mapping[tuple[str, str], Tensor], given: Tensor, features: Features
    ) -> Independent:
        """The posterior given a set of sources per row, boolean, shape (M, B), from their unimodal posteriors."""
        if self.combine == "mean":
            return self.fusion(mean_of_sources({name: features[name] for name in self.names}, hallucinated, given))
        return log_variance_normal(*product_of_posteriors(unimodal.mean, 2 * unimodal.stddev.log(), given, self._exponents_of(given)))

    def _exponents_of(self, given: Tensor) -> Tensor | None:
        """The exponents for the number of modalities in ``given``, boolean, shape (M, B): shape (M, B, 1), or None for ones."""
        return None if self.exponents is None else self.exponents[given.sum(0)].T[..., None]

    def experts(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        if self.exponents is None:
            return None
        inputs = self.inputs(batch)
        q, _ = self.unimodal(features := self.encode_inputs(inputs), self.read(features, inputs))
        return q.mean, 2 * q.stddev.log()

    def _own_nll(self, z: Tensor, batch: Batch) -> Tensor:
        losses = [
            masked_mean(-self.weights[name] * self.log_prob(name, z[i], batch), batch.present[name]) for i, name in enumerate(self.names)
        ]
        return torch.stack(losses).sum()

    def _mismatch(self, features: Features, hallucinated: Mapping[tuple[str, str], Tensor], batch: Batch) -> Tensor:
        losses = [
            masked_mean((guess - features[target]).square().sum(-1), batch.present[source] & batch.present[target])
            for (source, target), guess in hallucinated.items()
        ]
        return torch.stack(losses).sum()

    def _cross_nll(self, z: Tensor, batch: Batch) -> Tensor:
        losses = [z.new_zeros(())]
        for target in self.cross_targets():
            sources = [i for i, name in enumerate(self.names) if name != target]
            both = torch.stack([batch.present[self.names[i]] & batch.present[target] for i in sources])
            losses.append(masked_mean(-self.weights[target] * self.log_prob(target, z[sources], batch), both))
        return torch.stack(losses).sum()

    def cross_targets(self) -> Sequence[str]:
        """The modalities that the ``cross`` objective predicts: those with discrete likelihoods."""
        return [name for name, likelihood in self.likelihoods.items() if likelihood.discrete]


def bisected(sums: Tensor, quantiles: Tensor) -> Tensor:
    """The number of ascending sums, shape (B, C), below each quantile, shape (K, B) or (K, 1), as shape (K, B)."""
    return torch.searchsorted(sums, quantiles.expand(-1, len(sums)).T.contiguous()).T


def draw_component(log_weights: Tensor, precision: Tensor, natural: Tensor, mixture: DiagonalMixture, noise: Tensor) -> Independent:
    """Draws K components of each row's posterior by their weights, batch shape (K, B) over D.

    Arguments:
        log_weights: Log-weights of the components (`product_with_mixture`), shape (B, C).
        precision: The precision that the modalities add to every component, shape (B, D).
        natural: The natural mean that they add, shape (B, D).
        mixture: The mixture that replaces the prior.
        noise: Standard normal noise that selects components, shape (K, B, 1), or (K, 1, 1) to share it between rows.
    """
    _, means, variances = mixture.parameters_of_components()
    quantile = ((1 + torch.erf(noise / math.sqrt(2))) / 2)[..., 0]
    below = log_weights.exp().cumsum(-1)
    # The number of cumulative sums below a quantile; rounding may leave the last of them below 1. Graphs have no bisection.
    counted = (below < quantile[..., None]).sum(-1) if torch.compiler.is_compiling() else bisected(below, quantile)
    chosen = counted.clamp(max=len(means) - 1)
    # Of components first, which are few.
    precisions = 1 / variances
    total = precisions[chosen] + precision
    return diagonal_normal(((means / variances)[chosen] + natural) / total, total.rsqrt())
