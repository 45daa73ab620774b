"""A trained network with its data binding and the missingness patterns of its training rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from nbridge.common.warnings import Finding
from nbridge.data.covariates import read_covariates
from nbridge.data.patterns import Patterns, unlearned, unseen
from nbridge.data.source import Binding, DataSource
from nbridge.errors import DataError
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

    def fixed(self, covariates: Mapping[str, Any] | None) -> dict[str, Tensor]:
        """Fixed values of covariates, as class indices or numbers.

        Raises:
            DataError: if the model has no such covariate or class.
        """
        if not covariates:
            return {}
        if self.network.covariates is None:
            raise DataError(f"no covariate {next(iter(covariates))!r}: this model has no covariates, which its spec would name")
        return self.network.covariates.fixed(covariates)

    def covariates_in(self, source: DataSource, fixed: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The covariates of all rows of a source, each of shape (N,); empty if the model has none.

        Arguments:
            source: The rows.
            fixed: Values for rows and files that have none.

        Raises:
            DataError: for the first row without a value, or with an unknown one.
        """
        if self.network.covariates is None:
            return {}
        return read_covariates(self.network.covariates, partial(source.row_labels, shapes=self.binding.shapes), fixed)

    def unseen(self, counts: Mapping[str, int]) -> tuple[Finding, ...]:
        """Warns of missingness patterns that training neither contained nor covers, and of elements without a value in training."""
        return (*unseen_patterns(self.network, self.patterns, counts), *unlearned(self.patterns))


def unseen_patterns(network: MultimodalVAE, patterns: Patterns | None, counts: Mapping[str, int]) -> tuple[Finding, ...]:
    """Warns of missingness patterns that training neither contained nor covers; empty if the training patterns are unknown."""
    return () if patterns is None else unseen(patterns, counts, partial(network.supports_pattern, seen=patterns))
