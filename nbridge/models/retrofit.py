r"""Base class of JMVAE and TELBO: a joint VAE with a separate inference network for every proper subset of modalities.

There are :math:`2^n - 1` posteriors, including the joint one, and :math:`2^{n-1}` encoders of each modality, because networks share none.
Each row is served by the network of exactly its observed modalities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns
from nbridge.models.base import Decoders, Encoders, MultimodalVAE, Weights
from nbridge.models.joint import JointVAE
from nbridge.models.parts import Parts
from nbridge.models.subsets import Subset, proper_subsets
from nbridge.nn.distributions import diagonal_normal, diagonal_where
from nbridge.nn.fusion import Fusion


class InferenceNetwork(nn.Module):
    """A posterior q(z | x_S) given one subset of modalities, with its own encoders and fusion."""

    def __init__(self, encoders: Encoders, fusion: Fusion) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion

    def forward(self, inputs: Mapping[str, Tensor]) -> Independent:
        r"""The posterior, batch shape (B,) over D, from values in standard form, shape (B, \*shape); other modalities are ignored."""
        return self.fusion({name: encoder(inputs[name]) for name, encoder in self.encoders.items()})


Networks = Mapping[Subset, InferenceNetwork]


class Retrofit(JointVAE):
    """A joint VAE with an inference network for each proper subset.

    Arguments:
        encoders: The joint posterior's encoder for each modality.
        decoders: A decoder for each modality.
        fusion: Maps the features of all modalities to the joint posterior.
        networks: An inference network for each nonempty proper subset of the modalities, with names in order.
        weights: The weight of each modality's log-likelihood in training; 1 by default.

    Raises:
        ValueError: if the networks do not match the subsets.
    """

    def __init__(self, encoders: Encoders, decoders: Decoders, fusion: Fusion, networks: Networks, weights: Weights = None) -> None:
        super().__init__(encoders, decoders, fusion, weights)
        self.subsets = proper_subsets(self.names)
        if set(networks) != set(self.subsets):
            raise ValueError(f"networks of {sorted(networks)}, expected one for each of {list(self.subsets)}")
        self.networks = nn.ModuleDict({_key(subset): networks[subset] for subset in self.subsets})

    @classmethod
    def from_parts(cls, parts: Parts, **options: Any) -> Self:
        joint = cls.joint_parts(parts)
        networks = {
            subset: InferenceNetwork({name: parts.encoder(name) for name in subset}, parts.fusion(subset))
            for subset in proper_subsets(parts.names)
        }
        return cls(*joint, networks, parts.weights, **options)

    def supports_pattern(self, pattern: str, seen: Patterns) -> bool:
        """See `MultimodalVAE.supports_pattern`: the network of a subset learns from all rows that have it."""
        return MultimodalVAE.supports_pattern(self, pattern, seen)

    def subset_posterior(self, subset: Subset, inputs: Mapping[str, Tensor]) -> Independent:
        """q(z | x_S) given one proper subset, from inputs in standard form."""
        return self.networks[_key(subset)](inputs)

    def infer(self, batch: Batch) -> Independent:
        present, inputs = self.presence(batch), self.inputs(batch)
        joint = self.fusion(self.encode_inputs(inputs))
        if bool(present.all()):
            return joint
        loc, scale = joint.mean.clone(), joint.stddev.clone()
        for subset in self.subsets:
            rows = self._matches(subset, present)
            if bool(rows.any()):
                q = self.subset_posterior(subset, {name: inputs[name][rows] for name in subset})
                loc[rows], scale[rows] = q.mean, q.stddev
        return diagonal_normal(loc, scale)

    def masked_posterior(self, inputs: Mapping[str, Tensor], present: Tensor, noise: Tensor) -> Independent:  # noqa: ARG002 (of flows)
        q = self.fusion(self.encode_inputs(inputs))
        for subset in self.subsets:
            q = diagonal_where(self._matches(subset, present), self.subset_posterior(subset, inputs), q)
        return q

    def _matches(self, subset: Subset, present: Tensor) -> Tensor:
        """The rows with exactly these modalities, boolean, shape (B,), given presence of shape (M, B)."""
        members = torch.tensor([name in subset for name in self.names], device=present.device)
        return (present == members[:, None]).all(0)


def _key(subset: Subset) -> str:
    return "+".join(subset)
