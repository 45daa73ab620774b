r"""The VAE of a single modality, a baseline for the benefit or cost of modelling several.

.. math:: \max \; \mathbb{E}_{q(z \mid x)} [ \log p(x \mid z) ] - \mathrm{KL}(q(z \mid x) \,\|\, p(z))

References:
    Auto-Encoding Variational Bayes (Kingma & Welling, 2014), https://arxiv.org/abs/1312.6114
"""

from __future__ import annotations

from typing import Any, Self

from nbridge.models.base import Decoders, Encoders, Weights
from nbridge.models.joint import JointVAE
from nbridge.models.parts import Parts
from nbridge.nn.fusion import Fusion


class VAE(JointVAE):
    """A VAE of one modality of the spec; the others are ignored.

    Arguments:
        encoders: The encoder of the modality.
        decoders: Its decoder.
        fusion: Maps its features to the posterior.
        weights: The weight of its log-likelihood in training.
        modality: The modality; by default the first of the spec.

    Raises:
        ValueError: if there are several modalities, or not the one requested.
    """

    def __init__(
        self, encoders: Encoders, decoders: Decoders, fusion: Fusion, weights: Weights = None, *, modality: str | None = None
    ) -> None:
        super().__init__(encoders, decoders, fusion, weights)
        if len(self.names) != 1 or modality not in (None, *self.names):
            raise ValueError(f"a vae has one modality{f', {modality!r}' if modality else ''}, got {', '.join(self.names)}")

    @classmethod
    def from_parts(cls, parts: Parts, *, modality: str | None = None, **options: Any) -> Self:
        name = parts.names[0] if modality is None else modality
        if name not in parts.names:
            raise ValueError(f"modality {name!r} is not in the spec; it has {', '.join(parts.names)}")
        made = {name: parts.encoder(name)}, {name: parts.decoder(name)}, parts.fusion((name,))
        return cls(*made, {name: parts.weights.get(name, 1.0)}, modality=modality, **options)
