"""A trained network together with its binding to data and the patterns of presence that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from nbridge.common.warnings import Finding
from nbridge.data.binding import Binding
from nbridge.data.patterns import Patterns, unseen
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Likelihood


class Served:
    """What imputation needs to know of a trained model.

    Arguments:
        network: The network.
        binding: How names in files and frames are bound to modalities; arrays are bound by name when left out.
        patterns: The patterns of presence in the training rows; None where they are not known.
    """

    def __init__(self, network: MultimodalVAE, binding: Binding | None = None, patterns: Patterns | None = None) -> None:
        if not isinstance(network, MultimodalVAE):
            raise TypeError(f"network is a {type(network).__name__}, expected a MultimodalVAE")
        self.network = network
        self.binding = binding or Binding()
        self.patterns = patterns

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities, in order."""
        return self.network.names

    @property
    def likelihoods(self) -> dict[str, Likelihood]:
        """The likelihood of each modality."""
        return self.network.likelihoods

    def unseen(self, counts: Mapping[str, int]) -> tuple[Finding, ...]:
        """A warning where rows have patterns of presence that training neither had nor taught.

        Arguments:
            counts: The number of rows of each pattern (`nbridge.data.patterns.count`).
        """
        return unseen_patterns(self.network, self.patterns, counts)


def unseen_patterns(network: MultimodalVAE, patterns: Patterns | None, counts: Mapping[str, int]) -> tuple[Finding, ...]:
    """A warning where rows have patterns of presence that training neither had nor taught; none where training is not known.

    Arguments:
        network: The network that serves the rows.
        patterns: The patterns of presence in the training rows.
        counts: The number of rows of each pattern to serve.
    """
    return () if patterns is None else unseen(patterns, counts, partial(network.learned, seen=patterns))
