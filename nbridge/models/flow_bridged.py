r"""The bridged VAE with a stochastic bridge: one joint model, and a flow that draws the features of whatever is absent.

Stage ``joint`` is that of every bridged model. Stage ``bridges`` freezes it and trains a flow on its features
(`nbridge.flow_bridge.FlowBridge`), on every row in which two modalities or more are present: of what a row has, O, a random part S is
given and the rest is to be drawn,

.. math:: |S| \sim U\{1, \dots, |O| - 1\}, \qquad S \subset O, \qquad A = O \setminus S

With encoders of their own (`bridges.encoders`), copies of the joint ones that go on learning in this stage, each modality also says alone
what z is: :math:`q_i(z \mid x_i)`, which minimises :math:`\mathrm{KL}(q(z \mid x_O) \,\|\, q_i(z \mid x_i)) / D`. The flow is told, besides
:math:`h_S`, mean and spread of the product of what S says,

.. math:: q_S \propto p(z)^{1 - |S|} \prod_{i \in S} q_i(z \mid x_i)

so that it need not find by itself, behind its noise, what little of :math:`h_S` tells of what is shared. It is the flow alone that draws.

The posterior is then a mixture with as many parts as draws, from which every absent modality is decoded together:

.. math:: q(z \mid x_S) = \mathbb{E}_{\hat{h}_A \sim p(h_A \mid h_S)} \big[ \mathrm{Fuse}(h_S, \hat{h}_A) \big]

If the flow has the data's conditional distribution, this is the mean of the joint posteriors :math:`q(z \mid x_M)` over the rows that
agree in :math:`x_S`, the very distribution that JMVAE fits a Gaussian to. Each draw :math:`z_k` comes from a Gaussian of its own,
:math:`q_k`, whatever the flow's density, so :math:`p(x_S, z_k) / q_k(z_k)` is an unbiased weight of importance for every k.

Axes: K samples, M modalities, B rows, D latent dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from nbridge.annotations import Coupling
from nbridge.batch import Batch
from nbridge.decoders import Decoder
from nbridge.distributions import diagonal_kl, diagonal_normal, product_of_posteriors
from nbridge.encoders import Encoder
from nbridge.flow_bridge import FlowBridge
from nbridge.fusion import Fusion
from nbridge.means import masked_mean
from nbridge.models.base import Features, MultimodalVAE, Stage
from nbridge.models.joint import JointVAE, teacher, with_teacher
from nbridge.models.parts import Parts
from nbridge.models.retrofit import InferenceNetwork
from nbridge.objectives import joint_options
from nbridge.subsets import random_part


class FlowBridgedVAE(JointVAE):
    """A joint VAE whose missing features are drawn by a flow.

    Arguments:
        encoders: An encoder for each modality.
        decoders: A decoder for each modality.
        fusion: Maps the features of all modalities to the posterior.
        bridges: Draws the features of absent modalities.
        weights: The weight of each modality's log-likelihood in training; 1 where left out.
        guides: An inference network for each modality, whose product of posteriors the flow is told; none when left out.
        coupling: As of `JointVAE`; auto is 1.
        leave_one_out: As of `JointVAE`; auto is 0.3.

    Raises:
        ValueError: when a modality lacks its guide.
    """

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        decoders: Mapping[str, Decoder],
        fusion: Fusion,
        bridges: FlowBridge,
        weights: Mapping[str, float] | None = None,
        guides: Mapping[str, InferenceNetwork] | None = None,
        *,
        coupling: Coupling = "auto",
        leave_one_out: Coupling = "auto",
    ) -> None:
        super().__init__(encoders, decoders, fusion, weights, **joint_options(coupling, leave_one_out))
        self.bridges = bridges
        if guides and set(guides) != set(self.names):
            raise ValueError(f"guides of {sorted(guides)}, expected one for each of {', '.join(self.names)}")
        self.guides = nn.ModuleDict({name: guides[name] for name in self.names} if guides else {})
        self.noise_width = len(bridges.loc)

    @classmethod
    def from_parts(cls, parts: Parts, **options: Any) -> Self:
        own = parts.source_encoders == "own" and len(parts.names) > 1
        joint, bridges = cls.joint_parts(parts), parts.bridges(2 * parts.latent_dim if own else 0)
        if not isinstance(bridges, FlowBridge):
            raise TypeError(f"bridges are a {type(bridges).__name__}, expected a FlowBridge")
        guides = {name: InferenceNetwork({name: parts.encoder(name)}, parts.fusion((name,))) for name in parts.names} if own else None
        return cls(*joint, bridges, parts.weights, guides, **options)

    # Serving

    def learned(self, pattern: str) -> bool:
        """As of any model: random parts of all rows teach the flow."""
        return MultimodalVAE.learned(self, pattern)

    def infer(self, batch: Batch) -> Independent:
        """One part of the mixture, drawn anew at every call."""
        q = self._draws(batch, 1)
        return diagonal_normal(q.mean[0], q.stddev[0])

    def posterior(self, batch: Batch, samples: int = 1) -> Independent:
        """K parts of q(z | what is present), batch shape (K, B) over D, each from features of its own; the prior where nothing is present.

        Arguments:
            batch: Rows with any pattern of presence.
            samples: The number K.
        """
        return self._parts(batch, samples)

    def fixed_posterior(self, batch: Batch, noise: Tensor) -> Independent:
        return self._parts(batch, len(noise), noise)

    def masked_posterior(self, inputs: Mapping[str, Tensor], present: Tensor, noise: Tensor) -> Independent:
        told = self._told(*self._unimodal(inputs), present) if self.guides else {}
        return self.fusion(self.bridges.draw_by_masks(self.encode_inputs(inputs), present, noise, **told))

    def _parts(self, batch: Batch, samples: int, noise: Tensor | None = None) -> Independent:
        batch = self.prepare(batch)
        some, q = self.presence(batch).any(0)[:, None], self._draws(batch, samples, noise)
        return diagonal_normal(torch.where(some, q.mean, 0.0), torch.where(some, q.stddev, 1.0))

    def _draws(self, batch: Batch, samples: int, noise: Tensor | None = None) -> Independent:
        present = self.presence(batch)
        told = self._told(*self._unimodal(self.inputs(batch), present & ~present.all(0)), present) if self.guides else {}
        return self.fusion(self.bridges.draw(self.encode(batch), present, samples, noise, **told))

    def _unimodal(self, inputs: Mapping[str, Tensor], rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Means and log-variances of what each modality says alone, shape (M, B, D).

        Arguments:
            inputs: What encoders see.
            rows: The rows of each modality to take, boolean, shape (M, B), the prior standing for others; all when left out.
        """
        if rows is None:
            each = [guide(inputs) for guide in self.guides.values()]
            return torch.stack([q.mean for q in each]), 2 * torch.stack([q.stddev for q in each]).log()
        loc = self.bridges.loc.new_zeros(*rows.shape, self.latent_dim)
        log_variance = torch.zeros_like(loc)
        for number, (name, guide) in enumerate(self.guides.items()):
            if len(some := rows[number].nonzero()[:, 0]):
                q = guide({name: inputs[name].index_select(0, some)})
                loc[number, some], log_variance[number, some] = q.mean.to(loc.dtype), 2 * q.stddev.log().to(loc.dtype)
        return loc, log_variance

    @staticmethod
    def _told(loc: Tensor, log_variance: Tensor, given: Tensor) -> dict[str, Tensor]:
        """Mean and spread, shape (B, 2 D), of the product of what the given modalities say alone; of the prior where nothing is given."""
        mean, log_variance = product_of_posteriors(loc, log_variance, given)
        return {"condition": torch.cat([mean, (log_variance / 2).exp()], -1)}

    # Training

    def stages(self) -> tuple[Stage, ...]:
        if len(self.names) == 1:
            return (self.joint_stage(),)
        bridges = Stage(
            "bridges",
            (self.bridges, self.guides) if self.guides else (self.bridges,),
            self._flow_loss,
            self._several,
            self._flow_features,
            values=None if self.guides else (),
            begin=self._begin,
        )
        return self.joint_stage(serves=False), bridges

    def _several(self, batch: Batch) -> Tensor:
        """The rows in which two modalities or more are present."""
        return self.presence(batch).sum(0) >= 2

    def _begin(self, parts: Iterable[tuple[Batch, Features]]) -> None:
        self.bridges.standardise((features, batch.present) for batch, features in parts)
        for name, guide in self.guides.items():
            assert isinstance(guide, InferenceNetwork)
            guide.encoders[name].load_state_dict(self.encoders[name].state_dict())

    def _flow_features(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encode(batch)
        return with_teacher(features, self.observed_posterior(features, batch)) if self.guides else features

    def _flow_loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:  # noqa: ARG002
        present = self.presence(batch)
        given, several = random_part(present), present.sum(0) >= 2
        terms, told = {}, {}
        if self.guides:
            loc, log_variance = self._unimodal(self.inputs(batch))
            divergence = diagonal_kl(teacher(features), diagonal_normal(loc, (log_variance / 2).exp()))
            # Of one dimension, as the flow's error is of one feature.
            terms["distill"] = masked_mean(divergence, present & several) / self.latent_dim
            # What the flow makes of it is not for the guides to learn.
            told = self._told(loc.detach(), log_variance.detach(), given)
        terms["flow"] = masked_mean(self.bridges.loss(features, given, present & ~given, **told), several)
        return terms
