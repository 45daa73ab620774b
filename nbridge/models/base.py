r"""What every model is: encoders, decoders and a posterior for any subset of modalities, plus a list of training stages.

Imputation, generation and evaluation are written once over `MultimodalVAE.posterior`, ``decoders`` and `MultimodalVAE.log_joint`.

Axes: K samples, M modalities, B rows, D latent dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from nbridge.data.batch import Batch
from nbridge.data.omics.layout import OmicsLayout
from nbridge.data.patterns import Patterns
from nbridge.data.tables.layout import TableLayout
from nbridge.errors import DataError, NBridgeError
from nbridge.models.conformal import Conformal
from nbridge.models.mixture_prior import DiagonalMixture, Mixture
from nbridge.models.parts import Parts
from nbridge.models.reductions import masked_mean
from nbridge.models.support import check_support
from nbridge.nn.decoders import Decoder
from nbridge.nn.distributions import diagonal_kl, diagonal_normal
from nbridge.nn.encoders import Encoder
from nbridge.nn.likelihoods import Likelihood

Features = Mapping[str, Tensor]


@dataclass(frozen=True)
class Stage:
    """One stage of training.

    Arguments:
        name: Its name in the spec, in the progress bar and in the metrics.
        modules: The submodules it trains; everything else is frozen and in eval mode.
        loss: Named terms, whose sum is minimised, of a batch, its features (see below) and the weight of KL terms against the prior.
        rows: Which rows can teach this stage something, boolean, shape (B,), by presence.
        features: What frozen modules give for a batch, tensors with a row each; computed once over the data, or on the fly.
        values: The modalities whose values the loss reads, besides features and presence; all of them when left out.
        begin: Called once before the first update with the rows that the stage learns from, part by part, and their features.
        serves: Whether the model's posterior serves any subset of modalities from this stage on. Then, with a budget in updates, the best
            weights are those that predict hidden modalities best; elsewhere those with the lowest validation loss.
    """

    name: str
    modules: tuple[nn.Module, ...]
    loss: Callable[[Batch, Features, float], dict[str, Tensor]]
    rows: Callable[[Batch], Tensor]
    features: Callable[[Batch], dict[str, Tensor]] | None = None
    values: tuple[str, ...] | None = None
    begin: Callable[[Iterable[tuple[Batch, Features]]], None] | None = None
    serves: bool = True


class MultimodalVAE(nn.Module, ABC):
    r"""Base of all models.

    Arguments:
        encoders: An encoder for each modality; their names are the modalities.
        decoders: A decoder for each of them.
        latent_dim: Dimension D of z.
        weights: The weight :math:`w_i` of each modality's log-likelihood in training; 1 where left out.

    Attributes:
        patterns: Which modalities its training rows had together; None before training, or where it is not known.
        table: Which columns of a table are which modality, where it learned from a table or a data frame; None elsewhere.
        omics: Where modalities lie in MuData or AnnData, where it learned from such data; None elsewhere.
        mixture: What training fits to the codes of its rows, for generation from nothing; None, the default, where N(0, I) serves.
        exponents: The exponent of each expert in a product of posteriors, by number of modalities given, shape (M + 1, M); None where no
            such product serves.
        codes: The mixture that may stand for the prior in that product (`nbridge.inference.product_prior`); None where it never does.
        conformal: What intervals are scaled by, where they are split-conformal ones; None, the default, where draws alone give them.

    Raises:
        ValueError: when the names of encoders, decoders or weights disagree.
    """

    patterns: Patterns | None = None
    table: TableLayout | None = None
    omics: OmicsLayout | None = None
    exponents: Tensor | None

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        decoders: Mapping[str, Decoder],
        latent_dim: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if set(encoders) != set(decoders):
            raise ValueError(f"encoders are of {sorted(encoders)}, decoders are of {sorted(decoders)}: name the same modalities")
        if unknown := set(weights or {}) - set(encoders):
            raise ValueError(f"weights of {sorted(unknown)}, which no encoder has; modalities: {', '.join(encoders)}")
        self.encoders = nn.ModuleDict(encoders)
        self.decoders = nn.ModuleDict({name: decoders[name] for name in encoders})
        self.latent_dim = latent_dim
        for likelihood in self.likelihoods.values():
            if likelihood.spread is not None:
                likelihood.spread = likelihood.spread.new_ones(len(self.names))
        self.mixture: Mixture | None = None
        self.register_buffer("exponents", None)
        self.codes: DiagonalMixture | None = None
        self.conformal: Conformal | None = None
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in encoders}

    @classmethod
    @abstractmethod
    def from_parts(cls, parts: Parts, **options: Any) -> Self:
        """The model that a spec describes.

        Arguments:
            parts: Makes the parts.
            options: The model's own options in the spec.
        """

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities, in order."""
        return tuple(self.encoders)

    @property
    def likelihoods(self) -> dict[str, Likelihood]:
        """The likelihood of each modality."""
        return {name: self.decoder(name).likelihood for name in self.names}

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
        return next(self.parameters()).dtype

    @property
    def noise_width(self) -> int:
        """Numbers that a stochastic model draws to make one part of a posterior; 0, the default, where there is one part."""
        return 0

    def decoder(self, name: str) -> Decoder:
        """The decoder of a modality."""
        decoder = self.decoders[name]
        assert isinstance(decoder, Decoder)
        return decoder

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The stages of training, in order."""

    @abstractmethod
    def infer(self, batch: Batch) -> Independent:
        """q(z | what is present), batch shape (B,) over D, of a prepared batch.

        Rows with nothing present may give anything finite.
        """

    def posterior(self, batch: Batch, samples: int = 1) -> Independent:
        """q(z | what is present), batch shape (K, B) over D; the prior for rows with nothing present.

        Arguments:
            batch: Rows with any pattern of presence.
            samples: The number K. A deterministic model repeats one distribution; a stochastic one gives each sample its own.
        """
        batch = self.prepare(batch)
        q = self.infer(batch)
        some = self.presence(batch).any(0)[:, None]
        loc, scale = torch.where(some, q.mean, 0.0), torch.where(some, q.stddev, 1.0)
        return diagonal_normal(loc, scale).expand((samples, len(batch)))

    def proposal(self, batch: Batch, samples: int = 1) -> Independent:
        """What importance sampling draws z from, batch shape (K, B) over D; the `posterior`, unless a model has one of wider tails."""
        return self.posterior(batch, samples)

    def moments(self, batch: Batch, samples: int = 1) -> Independent:
        """A Gaussian with the mean and the variance of q(z | what is present), batch shape (B,) over D.

        Arguments:
            batch: Rows with any pattern of presence.
            samples: Parts of a stochastic model's posterior to take the mean over.
        """
        q = self.posterior(batch, samples)
        return diagonal_normal(q.mean.mean(0), (q.variance.mean(0) + q.mean.var(0, correction=0)).sqrt())

    def fixed_posterior(self, batch: Batch, noise: Tensor) -> Independent:
        """The `posterior` without chance, batch shape (K, B) over D: a stochastic model makes its K parts of the noise given.

        Arguments:
            batch: Rows with any pattern of presence.
            noise: Standard normal numbers, shape (K, `noise_width`), which all rows share.
        """
        return self.posterior(batch, len(noise))

    def masked_posterior(self, inputs: Mapping[str, Tensor], present: Tensor, noise: Tensor) -> Independent:  # noqa: ARG002
        r"""The same by masks alone, batch shape (B,) or (K, B) over D: no step depends on a value, so that a graph can be made of it.

        A model of your own needs it to be exported, and for nothing else. Rows with nothing present may give anything finite.

        Arguments:
            inputs: What encoders see, as `inputs` gives it, shape (B, \*shape).
            present: Presence in the order of the modalities, shape (M, B).
            noise: Standard normal numbers, shape (K, `noise_width`).

        Raises:
            NBridgeError: when the model has none.
        """
        raise NBridgeError(f"{type(self).__name__} has no masked_posterior, which export needs")

    def experts(self, batch: Batch) -> tuple[Tensor, Tensor] | None:  # noqa: ARG002 (for models that multiply posteriors)
        r"""Mean and log-variance of every :math:`q_i(z \mid x_i)`, shape (M, B, D) each, whose product with `exponents` serves; else None.

        Where a modality is missing, they are finite and meaningless.

        Arguments:
            batch: A prepared batch.
        """
        return None

    def learned(self, pattern: str) -> bool:
        """Whether training taught the model to serve rows with exactly the modalities of a pattern; True where it is not known.

        By default it did where some training row had all of them, and perhaps more: a model learns from parts of what a row has. Models
        that learn more, or less, from a row say so. Nothing observed is served from the prior, and counts as learned only where training
        had such rows.

        Arguments:
            pattern: A 1 or a 0 for each modality, in order (`nbridge.data.patterns`).
        """
        if self.patterns is None or pattern in self.patterns.rows:
            return True
        return "1" in pattern and self.patterns.with_these(pattern) > 0

    def prior(self, *shape: int) -> Independent:
        """p(z) = N(0, I) over D with the batch shape asked for: the prior of every density, also of a model with a `mixture`."""
        zeros = torch.zeros(*shape, self.latent_dim, device=self.device, dtype=self.dtype)
        return diagonal_normal(zeros, torch.ones_like(zeros))

    def presence(self, batch: Batch) -> Tensor:
        """Presence in the order of the modalities, shape (M, B)."""
        return torch.stack([batch.present[name] for name in self.names])

    def given(self, name: str, batch: Batch) -> Tensor:
        """How many modalities besides one each row has, integers, shape (B,): what served distributions are calibrated by."""
        number = torch.zeros(len(batch), dtype=torch.long, device=batch.device)
        for other, present in batch.present.items():
            if other != name:
                number += present
        return number

    def prepare(self, batch: Batch) -> Batch:
        """The batch with every modality named, in canonical form, absent rows and cells blanked so that what they hold cannot matter.

        Raises:
            DataError: when the batch names a modality that the model does not have.
        """
        self._check_names(batch)
        values, present = {}, {}
        for name, likelihood in self.likelihoods.items():
            blank = likelihood.blank(len(batch)).to(batch.device)
            present[name] = batch.present.get(name, torch.zeros(len(batch), dtype=torch.bool, device=batch.device))
            values[name] = self._blanked(batch, name, likelihood, blank)
        return Batch(values, present, batch.cells)

    def check(self, batch: Batch, first: int | None = None) -> None:
        """Checks that rows fit the model.

        Arguments:
            batch: The rows.
            first: The number of the first row, for messages, where the batch is a part of more rows.

        Raises:
            DataError: naming a modality that the model does not have, or the first row and value outside its likelihood's support.
        """
        self._check_names(batch)
        check_support(self.likelihoods, batch, first or 0, counted=first is None)

    def _check_names(self, batch: Batch) -> None:
        if unknown := [name for name in batch.names if name not in self.names]:
            raise DataError(f"no modality {unknown[0]!r} in this model; it has {', '.join(self.names)}")

    def _blanked(self, batch: Batch, name: str, likelihood: Likelihood, blank: Tensor) -> Tensor:
        if name not in batch.values:
            return blank
        x = likelihood.canonical(batch.values[name])
        observed = batch.present[name].reshape(-1, *(1 for _ in x.shape[1:]))
        if name in batch.cells:
            observed = observed & batch.cells[name]
        return torch.where(observed, x, blank.to(x.dtype))

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        r"""What encoders see of a prepared batch: standard form, shape (B, \*shape); zeros for an absent row, a hole for an absent cell."""
        return {name: self._standard_form(likelihood, name, batch) for name, likelihood in self.likelihoods.items()}

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Features of every modality, shape (B, F_i), of a prepared batch; of an absent one anything finite, which is not to be used."""
        inputs = self.inputs(batch)
        if torch.is_grad_enabled() or batch.whole:
            # All rows, so that shapes stay and no process that trains waits for one that skips an encoder.
            return self.encode_inputs(inputs)
        return {name: _encode_some(encoder, inputs[name], batch.present[name]) for name, encoder in self.encoders.items()}

    def encode_inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features of every modality, shape (B, F_i), of `inputs` that are there already."""
        return {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}

    def _standard_form(self, likelihood: Likelihood, name: str, batch: Batch) -> Tensor:
        x = likelihood.standardize(batch.values[name])
        if batch.whole:
            return x
        if name in batch.cells:
            x = torch.where(batch.cells[name], x, likelihood.hole)
        return torch.where(batch.present[name].reshape(-1, *(1 for _ in x.shape[1:])), x, 0.0)

    def log_prob(self, name: str, z: Tensor, batch: Batch) -> Tensor:
        r""":math:`\log p(x_i \mid z)`, shape (\*, B), zero where i is absent, of z of shape (\*, B, D) and a prepared batch."""
        log_prob = self.decoder(name).log_prob(z, batch.values[name], None if batch.whole else batch.cells.get(name))
        return log_prob if batch.whole else torch.where(batch.present[name], log_prob, 0.0)

    def negative_elbo(
        self, q: Independent, batch: Batch, kl_weight: float, *, names: Iterable[str] | None = None, rows: Tensor | None = None
    ) -> dict[str, Tensor]:
        r"""The terms of :math:`-\mathrm{ELBO}_S`, estimated by one draw of z: one for each modality of S, and ``kl``.

        .. math:: -\mathrm{ELBO}_S = -\mathbb{E}_q \Big[ \sum_{i \in S} w_i \log p(x_i \mid z) \Big] + \beta \, \mathrm{KL}(q \,\|\, p(z))

        Arguments:
            q: The posterior, batch shape (B,) over D.
            batch: A prepared batch.
            kl_weight: The weight :math:`\beta`.
            names: The modalities S; all when left out.
            rows: The rows to take the mean over, boolean, shape (B,); all when left out.
        """
        z = q.rsample()
        terms = {name: -self.weights[name] * self.log_prob(name, z, batch) for name in (self.names if names is None else names)}
        terms["kl"] = kl_weight * self.kl_to_prior(q)
        return {name: term.mean() if rows is None else masked_mean(term, rows) for name, term in terms.items()}

    def kl_to_prior(self, q: Independent) -> Tensor:
        """KL(q || p(z)), of q's batch shape."""
        return diagonal_kl(q)

    def log_joint(self, batch: Batch, z: Tensor) -> Tensor:
        r""":math:`\log p(z) + \sum_{i \in S} \log p(x_i \mid z)` over the modalities present, shape (K, B), for z of shape (K, B, D)."""
        batch = self.prepare(batch)
        likelihoods = torch.stack([self.log_prob(name, z, batch) for name in self.names]).sum(0)
        return self.prior(*z.shape[:-1]).log_prob(z) + likelihoods

    @torch.no_grad()
    def fit_statistics(self, batch: Batch) -> None:
        """Lets every likelihood take its statistics from the rows in which its modality is present."""
        batch = self.prepare(batch)
        for name, likelihood in self.likelihoods.items():
            rows = batch.present[name]
            x = batch.values[name][rows]
            cells = batch.cells[name][rows] if name in batch.cells else torch.ones_like(x, dtype=torch.bool)
            if len(x):
                likelihood.fit(x, cells)


def _encode_some(encoder: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
    """Features of the rows that have something to encode, zeros for the others."""
    some = rows.nonzero()[:, 0]
    if len(some) == len(rows):
        return encoder(x)
    encoded = encoder(x[some] if len(some) else x[:1])
    features = encoded.new_zeros(len(rows), *encoded.shape[1:])
    return features.index_copy(0, some, encoded[: len(some)])
