r"""The bridged VAE with a stochastic bridge: a joint model, a posterior given each modality alone, and a flow that refines their product.

Stage ``joint`` is that of every bridged model. Stage ``bridges`` freezes it and trains two parts on all rows with at least two modalities,
with the posterior :math:`q(z \mid x_O)` given all observed modalities as the teacher:

- **Guides**, a Gaussian :math:`q_i(z \mid x_i)` for each modality i, which minimise
  :math:`\mathrm{KL}(q(z \mid x_O) \,\|\, q_i(z \mid x_i)) / D`. They read the frozen joint features, or have their own encoders
  (`bridges.encoders`), which are initialised as copies of the joint ones.
- **A flow** (`nbridge.nn.flow_bridge.FlowBridge`) from the product of the guides of a random subset S of the observed modalities,

.. math:: q_S \propto p(z)^{1 - |S|} \prod_{i \in S} q_i(z \mid x_i), \qquad |S| \sim U\{1, \dots, |O| - 1\}, \qquad S \subset O

  to z of the complete row. The flow sends no gradient to the guides.

Given little information, such as a label or one view, a single Gaussian must cover all matching rows, and most of its mass resembles none
of them. Each sample of the flow resembles one such row: samples are more diverse, have a higher likelihood, and all missing modalities are
decoded from the same one.

The posterior is a mixture, :math:`q(z \mid x_S) = \mathbb{E}_u \, \mathcal{N}(z \mid u, \hat\sigma^2/4)`, represented by one component per
sample. Each sample :math:`z_k` is drawn from a known Gaussian :math:`q_k`, so :math:`p(x_S, z_k) / q_k(z_k)` is an unbiased importance
weight without the density of the flow. Complete rows have the joint posterior, empty rows the prior.

Axes: K samples, M modalities, B rows, D latent dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from nbridge.common import randomness
from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns
from nbridge.models.base import Decoders, Encoders, Features, MultimodalVAE, Stage, Weights
from nbridge.models.joint import JointVAE, teacher
from nbridge.models.parts import Parts
from nbridge.models.reductions import masked_mean
from nbridge.models.retrofit import InferenceNetwork
from nbridge.models.subsets import random_subset
from nbridge.nn.distributions import diagonal_kl, diagonal_normal, diagonal_where, log_variance_normal, product_of_posteriors
from nbridge.nn.flow_bridge import FlowBridge
from nbridge.nn.fusion import Fusion
from nbridge.spec.objectives import joint_options
from nbridge.spec.option_types import Coupling

CHUNK_SAMPLES = 4096
"""Number of samples that pass through the flow together, so that they fit in the CPU cache."""
SUBSETS_PER_STEP = 4
"""Random subsets of each row per training step of the flow, which is cheap compared with the encoders and benefits from many."""


class FlowBridgedVAE(JointVAE):
    """A joint VAE that samples z by a flow where modalities are missing.

    Arguments:
        encoders: An encoder for each modality.
        decoders: A decoder for each modality.
        fusion: Maps the features of all modalities to the posterior.
        bridges: The flow.
        guides: The unimodal posteriors: for each modality, an inference network on its values, or a fusion of its joint features alone.
        weights: The weight of each modality's log-likelihood in training; 1 by default.
        coupling: See `JointVAE`; auto is 1.
        leave_one_out: See `JointVAE`; auto is 0.3.
        contrast: See `JointVAE`; auto is 0.07.

    Raises:
        ValueError: if the guides do not match the modalities.
    """

    def __init__(
        self, encoders: Encoders, decoders: Decoders, fusion: Fusion, bridges: FlowBridge,
        guides: Mapping[str, InferenceNetwork] | Mapping[str, Fusion], weights: Weights = None,
        *, coupling: Coupling = "auto", leave_one_out: Coupling = "auto", contrast: Coupling = "auto",
    ) -> None:  # fmt: skip
        super().__init__(encoders, decoders, fusion, weights, **joint_options(coupling, leave_one_out, contrast))
        self.bridges = bridges
        if set(guides) != set(self.names):
            raise ValueError(f"guides of {sorted(guides)}, expected one for each of {', '.join(self.names)}")
        self.guides = nn.ModuleDict({name: guides[name] for name in self.names})
        self.own_encoders = all(isinstance(guide, InferenceNetwork) for guide in guides.values())

    @classmethod
    def from_parts(cls, parts: Parts, **options: Any) -> Self:
        joint, bridges = cls.joint_parts(parts), parts.bridges(parts.latent_dim)
        if not isinstance(bridges, FlowBridge):
            raise TypeError(f"bridges are of type {type(bridges).__name__}, expected FlowBridge")
        heads = {name: parts.fusion((name,)) for name in parts.names}
        if parts.source_encoders == "own" and len(parts.names) > 1:
            networks = {name: InferenceNetwork({name: parts.encoder(name)}, head) for name, head in heads.items()}
            return cls(*joint, bridges, networks, parts.weights, **options)
        return cls(*joint, bridges, heads, parts.weights, **options)

    # Serving

    @property
    def noise_width(self) -> int:
        return self.latent_dim

    def supports_pattern(self, pattern: str, seen: Patterns) -> bool:
        """See `MultimodalVAE.supports_pattern`: the flow learns from random subsets of all rows."""
        return MultimodalVAE.supports_pattern(self, pattern, seen)

    def infer(self, batch: Batch) -> Independent:
        """One component of the mixture, drawn anew at every call."""
        q = self._parts(batch, self._noise(1, batch))
        return diagonal_normal(q.mean[0], q.stddev[0])

    def posterior(self, batch: Batch, samples: int = 1) -> Independent:
        """K components of q(z | x_S), batch shape (K, B) over D, each around its own sample; the prior for rows with nothing observed."""
        return self._parts(self.prepare(batch), self._noise(samples, batch))

    def fixed_posterior(self, batch: Batch, noise: Tensor) -> Independent:
        return self._parts(self.prepare(batch), noise[:, None])

    def masked_posterior(self, inputs: Mapping[str, Tensor], present: Tensor, noise: Tensor) -> Independent:
        features = self.encode_inputs(inputs)
        drawn = self.bridges.draw(features, present, self._product(*self._unimodal(self._read(features, inputs)), present), noise[:, None])
        return diagonal_where(present.all(0), self.fusion(features), drawn)

    def _noise(self, samples: int, batch: Batch) -> Tensor:
        return randomness.randn(samples, len(batch), self.latent_dim, device=self.device, dtype=self.bridges.loc.dtype)

    def _parts(self, batch: Batch, noise: Tensor) -> Independent:
        """Components of the posteriors of a prepared batch from noise of shape (K, B, D) or (K, 1, D)."""
        features, present, samples = self.encode(batch), self.presence(batch), len(noise)
        joint, complete = self.fusion(features), present.all(0)[:, None]
        # The dtype of the joint posterior, in any precision of the networks.
        loc = torch.where(complete, joint.mean, 0.0).expand(samples, -1, -1).clone()
        scale = torch.where(complete, joint.stddev, 1.0).expand(samples, -1, -1).clone()
        inputs, incomplete = self.inputs(batch), (present.any(0) & ~present.all(0)).nonzero()[:, 0]
        for rows in incomplete.split(max(1, CHUNK_SAMPLES // samples)) if len(incomplete) else ():
            given, some = present[:, rows], {name: h.index_select(0, rows) for name, h in features.items()}
            read = self._read(some, {name: x.index_select(0, rows) for name, x in inputs.items()})
            own_noise = noise if noise.shape[1] == 1 else noise.index_select(1, rows)
            drawn = self.bridges.draw(some, given, self._product(*self._unimodal(read, given), given), own_noise)
            loc[:, rows], scale[:, rows] = drawn.mean.to(loc.dtype), drawn.stddev.to(scale.dtype)
        return diagonal_normal(loc, scale)

    def _read(self, features: Features, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inputs of the guides."""
        return inputs if self.own_encoders else features

    def _unimodal(self, read: Mapping[str, Tensor], rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Means and log-variances of the guides, shape (M, B, D).

        Where ``rows``, boolean, shape (M, B), is false they are those of N(0, I); all are computed by default.
        """
        if rows is None:
            each = [guide(read) for guide in self.guides.values()]
            return torch.stack([q.mean for q in each]), 2 * torch.stack([q.stddev for q in each]).log()
        loc = self.bridges.loc.new_zeros(*rows.shape, self.latent_dim)
        log_variance = torch.zeros_like(loc)
        for number, (name, guide) in enumerate(self.guides.items()):
            if len(some := rows[number].nonzero()[:, 0]):
                q = guide({name: read[name].index_select(0, some)})
                loc[number, some], log_variance[number, some] = q.mean.to(loc.dtype), 2 * q.stddev.log().to(loc.dtype)
        return loc, log_variance

    @staticmethod
    def _product(loc: Tensor, log_variance: Tensor, given: Tensor) -> Independent:
        """The product of the guides of the given modalities, batch shape (B,) over D; the prior where nothing is given."""
        return log_variance_normal(*product_of_posteriors(loc, log_variance, given))

    # Training

    def stages(self) -> tuple[Stage, ...]:
        if len(self.names) == 1:
            return (self.joint_stage(),)
        bridges = Stage(
            "bridges", (self.bridges, self.guides), self._flow_loss, lambda batch: self.presence(batch).sum(0) >= 2,
            self.features_with_teacher, values=None if self.own_encoders else (), begin=self._begin,
        )  # fmt: skip
        return self.joint_stage(serves=False), bridges

    def _begin(self, parts: Iterable[tuple[Batch, Features]]) -> None:
        self.bridges.standardise((features, self.presence(batch), teacher(features)) for batch, features in parts)
        for name, guide in self.guides.items():
            if isinstance(guide, InferenceNetwork):
                guide.encoders[name].load_state_dict(self.encoders[name].state_dict())

    def _flow_loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:  # noqa: ARG002
        present, posterior = self.presence(batch), teacher(features)
        several = present.sum(0) >= 2
        loc, log_variance = self._unimodal(self._read(features, self.inputs(batch) if self.own_encoders else {}))
        divergence = diagonal_kl(posterior, log_variance_normal(loc, log_variance))
        if self.bridges.training:
            self.bridges.update_average()
        errors = []
        for _ in range(SUBSETS_PER_STEP):
            given = random_subset(present)
            # Detached, because the guides learn from the divergence alone.
            product = self._product(loc.detach(), log_variance.detach(), given)
            errors.append(self.bridges.loss(features, given, product, posterior))
        # Both terms are per latent dimension.
        return {
            "distill": masked_mean(divergence, present & several) / self.latent_dim,
            "flow": masked_mean(torch.stack(errors).mean(0), several),
        }
