"""Interface of the factory of encoders, decoders, fusions and bridges that models are built from; independent of specs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from nbridge.nn.bridges import Bridges
from nbridge.nn.decoders import Decoder
from nbridge.nn.encoders import Encoder
from nbridge.nn.fusion import Fusion
from nbridge.spec.objectives import Term
from nbridge.spec.option_types import Combine, Exponents, ProductPrior, SourceEncoders, Subsets


class Parts(ABC):
    """Factory of the parts of a model; every call returns a new part with fresh weights.

    Attributes:
        names: The modalities, in order.
        latent_dim: Dimension D of z.
        weights: The weight of each modality's log-likelihood.
        objective: The terms of stage ``bridges`` and their weights.
        combine: How several sources are combined.
        subsets: The sets of sources that bridges are trained for.
        exponents: Whether a product of posteriors has fitted exponents.
        prior: The prior in a product of posteriors.
        source_encoders: Whether bridges read the joint encoders or have their own.
    """

    names: tuple[str, ...]
    latent_dim: int
    weights: Mapping[str, float]
    objective: Mapping[Term, float]
    combine: Combine
    subsets: Subsets
    exponents: Exponents
    prior: ProductPrior
    source_encoders: SourceEncoders

    @abstractmethod
    def encoder(self, name: str) -> Encoder:
        """An encoder of one modality."""

    @abstractmethod
    def decoder(self, name: str) -> Decoder:
        """A decoder of one modality, with its likelihood."""

    @abstractmethod
    def fusion(self, names: Iterable[str]) -> Fusion:
        """A fusion of a set of modalities; with a single one, the head of a unimodal posterior."""

    @abstractmethod
    def bridges(self, latent_dim: int | None = None) -> Bridges:
        """The bridges between all modalities.

        Arguments:
            latent_dim: Dimension D of z for a flow, which samples z; None for bridges of features.
        """
