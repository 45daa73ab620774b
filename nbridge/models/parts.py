"""What a model is made from: fresh parts on demand, as many as its paper asks for, and no spec in sight."""

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
    """Makes parts with fresh weights; every call makes new ones.

    Attributes:
        names: The modalities, in order.
        latent_dim: Dimension D of z.
        weights: The weight of each modality's log-likelihood.
        objective: The terms of stage ``bridges`` and their weights.
        combine: How several sources meet.
        subsets: Which sets of sources the bridges are trained for.
        exponents: Whether a product of posteriors has fitted exponents.
        prior: The prior in a product of posteriors.
        source_encoders: Whether bridges go by the joint encoders alone, or have encoders of their own.
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
        """A fusion of a set of modalities; of a single one it is the head of a unimodal posterior."""

    @abstractmethod
    def bridges(self, latent_dim: int | None = None) -> Bridges:
        """What stands for absent modalities.

        Arguments:
            latent_dim: Dimension D of z, for a flow, which draws z; left out for bridges of features.
        """
