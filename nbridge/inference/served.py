"""A trained network with its data binding and the missingness patterns of its training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from nbridge.common.warnings import Finding
from nbridge.data.patterns import Patterns, unlearned, unseen
from nbridge.data.source import Binding
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Likelihood


class Served:
    """A trained model, as imputation uses it, with the missingness patterns of its training rows if known.

    The ``binding`` maps names in files and frames to modalities; by default arrays are matched by name.
    """

    def __init__(self, network: MultimodalVAE, binding: Binding | None = None, patterns: Patterns | None = None) -> None:
        if not isinstance(network, MultimodalVAE):
            raise TypeError(f"network is a {type(network).__name__}, expected a MultimodalVAE")
        self.network = network
        shapes = {name: likelihood.shape for name, likelihood in network.likelihoods.items()}
        self.binding = replace(binding or Binding(shapes=shapes), names=network.names)
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
        """Warns of missingness patterns that training neither contained nor covers, and of elements without a value in training."""
        return (*unseen_patterns(self.network, self.patterns, counts), *unlearned(self.patterns))


def unseen_patterns(network: MultimodalVAE, patterns: Patterns | None, counts: Mapping[str, int]) -> tuple[Finding, ...]:
    """Warns of missingness patterns that training neither contained nor covers; empty if the training patterns are unknown."""
    return () if patterns is None else unseen(patterns, counts, partial(network.supports_pattern, seen=patterns))
