r"""Base class of all models: encoders, decoders, a posterior for any subset of modalities, and a list of training stages.

Imputation, generation and evaluation use only `MultimodalVAE.posterior`, ``decoders`` and `MultimodalVAE.log_joint`.

Axes: K samples, M modalities, B rows, D latent dimensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Independent

from nbridge.data.batch import Batch
from nbridge.data.column import loses_spread
from nbridge.data.patterns import Patterns
from nbridge.errors import DataError, NBridgeError
from nbridge.models.conformal import Conformal
from nbridge.models.mixture_prior import DiagonalMixture, Mixture
from nbridge.models.parts import Parts
from nbridge.models.reductions import masked_mean
from nbridge.models.support import check_support
from nbridge.nn.covariates import Covariates, packed
from nbridge.nn.decoders import Decoder, RowDecoder
from nbridge.nn.distributions import diagonal_kl, diagonal_normal, normal_or_prior
from nbridge.nn.encoders import Encoder
from nbridge.nn.likelihoods import Likelihood

Features = Mapping[str, Tensor]
Encoders = Mapping[str, Encoder]
Decoders = Mapping[str, Decoder]
Weights = Mapping[str, float] | None


@dataclass(frozen=True)
class Stage:
    """A stage of training.

    Arguments:
        name: Its name in the spec, the progress bar and the metrics.
        modules: The submodules to train; all others are frozen and in eval mode.
        loss: Maps a batch, its features and the weight of KL terms against the prior to named terms, whose sum is minimised.
        rows: Maps a batch to the rows that the stage can learn from, boolean, shape (B,), given their presence.
        features: Maps a batch to the outputs of frozen modules, one row per row of the batch; cached over the data or computed on the fly.
        values: The modalities whose values the loss reads, besides features and presence; all by default.
        begin: Called once before the first update with chunks of the rows that the stage learns from, and their features.
        serves: Whether the posterior can serve any subset of modalities after this stage. If so, with a budget in updates, the weights that
            best predict hidden modalities are kept; otherwise those with the lowest validation loss.
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
    r"""Base class of all models.

    Arguments:
        encoders: An encoder for each modality; the keys are the names of the modalities.
        decoders: A decoder for each modality.
        latent_dim: Dimension D of z.
        weights: The weight :math:`w_i` of each modality's log-likelihood in training; 1 by default.

    Attributes:
        mixture: The mixture for unconditional generation, fitted to the codes of the training rows; None, the default, for N(0, I).
        exponents: The exponent of each expert in a product of posteriors, by number of modalities given, shape (M + 1, M); None if the
            model has no such product.
        codes: The mixture that may replace the prior in that product (`nbridge.inference.product_prior`); None for always N(0, I).
        covariates: The columns that encoders and decoders are given beside the modalities; None, the default, if there are none.
        conformal: The scales of split-conformal intervals; None, the default, for intervals from samples alone.

    Raises:
        ValueError: if the names of encoders, decoders and weights differ.
    """

    exponents: Tensor | None

    def __init__(self, encoders: Encoders, decoders: Decoders, latent_dim: int, weights: Weights = None) -> None:
        super().__init__()
        if set(encoders) != set(decoders):
            raise ValueError(f"encoders of {sorted(encoders)} but decoders of {sorted(decoders)}; their modalities must be the same")
        if unknown := set(weights or {}) - set(encoders):
            raise ValueError(f"weights of unknown modalities {sorted(unknown)}; modalities: {', '.join(encoders)}")
        self.encoders = nn.ModuleDict(encoders)
        self.decoders = nn.ModuleDict({name: decoders[name] for name in encoders})
        self.latent_dim = latent_dim
        for likelihood in self.likelihoods.values():
            if likelihood.spread is not None:
                likelihood.spread = likelihood.spread.new_ones(len(self.names) + likelihood.partly, *likelihood.spread.shape[1:])
        self.mixture: Mixture | None = None
        self.register_buffer("exponents", None)
        self.codes: DiagonalMixture | None = None
        self.conformal: Conformal | None = None
        self.covariates: Covariates | None = None
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in encoders}

    @classmethod
    @abstractmethod
    def from_parts(cls, parts: Parts, **options: Any) -> Self:
        """Builds the model of a spec.

        Arguments:
            parts: The factory of encoders, decoders, fusions and bridges.
            options: The model's options in the spec.
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
        """The device of the parameters."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters."""
        return next(self.parameters()).dtype

    @property
    def noise_width(self) -> int:
        """The dimension of the noise behind one component of a stochastic posterior; 0, the default, for a deterministic one."""
        return 0

    def decoder(self, name: str) -> Decoder:
        """The decoder of a modality."""
        decoder = self.decoders[name]
        assert isinstance(decoder, Decoder)
        return decoder

    def decoder_of(self, name: str, rows: Batch) -> Decoder | RowDecoder:
        """The decoder of a modality for given rows, prepared or not, with their covariates and size factors; z then has as many rows.

        It is the `decoder` itself where rows do not differ. A row without this modality has the size factor 1, or that of its column.

        Raises:
            DataError: if the rows lack a covariate.
        """
        size, given = self.log_size(name, rows), self.covariates_of(rows)
        return self.decoder(name) if size is None and given is None else RowDecoder(self.decoder(name), size, given)

    def covariates_of(self, rows: Batch) -> Tensor | None:
        """The vector c of the covariates of each row, shape (B, W); None if the model has none.

        Raises:
            DataError: if the rows lack one.
        """
        return None if self.covariates is None or not self.covariates.width else self.covariates(rows.covariates)

    def alike(self, rows: Batch) -> Tensor | None:
        """The pairs of rows with like covariates, boolean, shape (B, B); None if the model has none."""
        return None if self.covariates is None else self.covariates.alike(rows.covariates)

    def log_size(self, name: str, rows: Batch) -> Tensor | None:
        """Log of the size factor of each row of a modality, shape (B, 1, ...); None if all rows have size 1."""
        likelihood = self.likelihoods[name]
        if likelihood.size_column and self.covariates is not None:
            return self.covariates.size(likelihood.size_column, rows.covariates).reshape(-1, *(1 for _ in likelihood.shape))
        if not likelihood.has_size or name not in rows.values:
            return None
        x = likelihood.canonical(rows.values[name])
        observed = rows.present[name].reshape(-1, *(1 for _ in x.shape[1:])).expand(x.shape)
        return likelihood.log_size(x, observed & rows.cells[name] if name in rows.cells else observed)

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The stages of training, in order."""

    @abstractmethod
    def infer(self, batch: Batch) -> Independent:
        """q(z | x_S) for a prepared batch, batch shape (B,) over D; any finite values for rows with nothing observed."""

    def posterior(self, batch: Batch, samples: int = 1) -> Independent:
        """q(z | x_S) given the observed modalities S, batch shape (K, B) over D; the prior for rows with nothing observed.

        Arguments:
            batch: Rows with any missingness patterns.
            samples: The number K. A deterministic model repeats one distribution; a stochastic one draws a component for each sample.
        """
        batch = self.prepare(batch)
        return normal_or_prior(self._observed(batch), self.infer(batch)).expand((samples, len(batch)))

    def proposal(self, batch: Batch, samples: int = 1) -> Independent:
        """The proposal of importance sampling, batch shape (K, B) over D; the `posterior`, unless a model has one with wider tails."""
        return self.posterior(batch, samples)

    def moments(self, batch: Batch, samples: int = 1) -> Independent:
        """A Gaussian with the mean and variance of q(z | x_S), batch shape (B,) over D.

        Arguments:
            batch: Rows with any missingness patterns.
            samples: Number of components of a stochastic posterior to average over.
        """
        q = self.posterior(batch, samples)
        return diagonal_normal(q.mean.mean(0), (q.variance.mean(0) + q.mean.var(0, correction=0)).sqrt())

    def fixed_posterior(self, batch: Batch, noise: Tensor) -> Independent:
        """The `posterior` as a deterministic function of noise, batch shape (K, B) over D.

        Arguments:
            batch: Rows with any missingness patterns.
            noise: Standard normal noise for the K components, shape (K, `noise_width`), shared by all rows.
        """
        return self.posterior(batch, len(noise))

    def masked_posterior(self, inputs: Mapping[str, Tensor], present: Tensor, noise: Tensor) -> Independent:  # noqa: ARG002
        r"""`fixed_posterior` without data-dependent control flow, so that it can be traced; batch shape (B,) or (K, B) over D.

        Your own model needs it only for export. Rows with nothing observed may have any finite values.

        Arguments:
            inputs: The inputs of encoders as returned by `inputs`, shape (B, \*shape).
            present: Presence in the order of the modalities, shape (M, B).
            noise: Standard normal noise, shape (K, `noise_width`).

        Raises:
            NBridgeError: if the model does not implement it.
        """
        raise NBridgeError(f"{type(self).__name__} has no masked_posterior, which export needs")

    def experts(self, batch: Batch) -> tuple[Tensor, Tensor] | None:  # noqa: ARG002 (for models that multiply posteriors)
        r"""Mean and log-variance, each of shape (M, B, D), of the :math:`q_i(z \mid x_i)` whose product with `exponents` is the posterior.

        None if the model has no such product. Values are finite but meaningless where a modality is missing.

        Arguments:
            batch: A prepared batch.
        """
        return None

    def supports_pattern(self, pattern: str, seen: Patterns) -> bool:
        """Whether the model was trained to serve rows with exactly the modalities of a pattern.

        By default, this is the case if some training row had at least these modalities; models that learn more or less from a row override
        it. The empty pattern, which is served from the prior, counts as learned only if there were such training rows.

        Arguments:
            pattern: A 1 or a 0 for each modality, in order (`nbridge.data.patterns`).
            seen: The missingness patterns of the training rows.
        """
        return pattern in seen.rows or ("1" in pattern and seen.with_these(pattern) > 0)

    def prior(self, *shape: int) -> Independent:
        """p(z) = N(0, I) over D with batch shape ``shape``: the prior of all densities, also in a model with a `mixture`."""
        zeros = torch.zeros(*shape, self.latent_dim, device=self.device, dtype=self.dtype)
        return diagonal_normal(zeros, torch.ones_like(zeros))

    def presence(self, batch: Batch) -> Tensor:
        """Presence in the order of the modalities, shape (M, B)."""
        return torch.stack([batch.present[name] for name in self.names])

    def _observed(self, batch: Batch) -> Tensor:
        """The rows with at least one modality, boolean, shape (B,)."""
        return self.presence(batch).any(0)

    def given(self, name: str, batch: Batch) -> Tensor:
        """The number of other modalities present in each row, integers, shape (B,), which selects calibration factors.

        If the modality is imputed from its own cells (`Likelihood.partly`), they count as one more where any of them is observed.
        """
        others = (present for other, present in batch.present.items() if other != name)
        number = sum(others, torch.zeros(len(batch), dtype=torch.long, device=batch.device))
        if not self.likelihoods[name].partly or name not in batch.present:
            return number
        own = batch.present[name]
        return number + (own & batch.cells[name].flatten(1).any(1) if name in batch.cells else own)

    def prepare(self, batch: Batch) -> Batch:
        """Converts a batch to canonical form with every modality, and replaces absent rows and cells by placeholders.

        Raises:
            DataError: if the batch has an unknown modality.
        """
        self._check_names(batch)
        absent = torch.zeros(len(batch), dtype=torch.bool, device=batch.device)
        values = {name: self._blanked(batch, name, likelihood) for name, likelihood in self.likelihoods.items()}
        return Batch(values, {name: batch.present.get(name, absent) for name in self.names}, batch.cells, batch.covariates)

    def check(self, batch: Batch, first: int | None = None) -> None:
        """Checks that rows match the model.

        Arguments:
            batch: The rows.
            first: The number of the first row for messages, if the batch is a part of more rows.

        Raises:
            DataError: naming an unknown modality, or the first row and value outside the support of its likelihood.
        """
        self._check_names(batch)
        check_support(self.likelihoods, batch, first or 0, counted=first is None)

    def _check_names(self, batch: Batch) -> None:
        if unknown := [name for name in batch.names if name not in self.names]:
            raise DataError(f"no modality {unknown[0]!r} in this model; it has {', '.join(self.names)}")

    def _blanked(self, batch: Batch, name: str, likelihood: Likelihood) -> Tensor:
        blank = likelihood.blank(len(batch)).to(batch.device)
        if name not in batch.values:
            return blank
        x = likelihood.canonical(batch.values[name])
        observed = batch.present[name].reshape(-1, *(1 for _ in x.shape[1:]))
        if name in batch.cells:
            observed = observed & batch.cells[name]
        return torch.where(observed, x, blank.to(x.dtype))

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        r"""Encoder inputs of a prepared batch in standard form, shape (B, \*shape): 0 for absent rows, the fill value for absent cells.

        For encoders that read the mask of observed cells (`Encoder.reads_mask`), it follows along the last axis. With covariates, values
        are flattened, and followed by c (`nbridge.nn.covariates.packed`).
        """
        given = self.covariates_of(batch)
        forms = {name: self._standard_form(likelihood, name, batch) for name, likelihood in self.likelihoods.items()}
        return forms if given is None else {name: packed(x, given) for name, x in forms.items()}

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Features of every modality of a prepared batch, shape (B, F_i); finite but meaningless where a modality is absent."""
        inputs = self.inputs(batch)
        if torch.is_grad_enabled() or batch.whole:
            # All rows, for constant shapes, and so that no training process waits for another that skips an encoder.
            return self.encode_inputs(inputs)
        return {name: _encode_some(encoder, inputs[name], batch.present[name]) for name, encoder in self.encoders.items()}

    def encode_inputs(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features of every modality, shape (B, F_i), from encoder inputs as returned by `inputs`."""
        return {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}

    def _standard_form(self, likelihood: Likelihood, name: str, batch: Batch) -> Tensor:
        x = self._standardised(likelihood, name, batch)
        if self.covariates is not None:
            x = self.covariates.centred(name, x, batch.covariates)
        masked = self._reads_mask(name)
        if batch.whole:
            return torch.cat([x, torch.ones_like(x)], -1) if masked else x
        present = batch.present[name].reshape(-1, *(1 for _ in x.shape[1:]))
        if name in batch.cells:
            x = torch.where(batch.cells[name], x, likelihood.fill_value)
        x = torch.where(present, x, 0.0)
        if not masked:
            return x
        observed = present & batch.cells[name] if name in batch.cells else present.expand(x.shape)
        return torch.cat([x, observed.to(x.dtype)], -1)

    def _standardised(self, likelihood: Likelihood, name: str, batch: Batch) -> Tensor:
        """Values of all rows in standard form, counts divided by the size factor of their row."""
        x, size = batch.values[name], self.log_size(name, batch)
        return likelihood.standardize(x if size is None else x * (-size).exp())

    def _reads_mask(self, name: str) -> bool:
        """Whether the encoder of a modality reads the mask of observed cells."""
        encoder = self.encoders[name]
        return isinstance(encoder, Encoder) and encoder.reads_mask

    def log_prob(self, name: str, z: Tensor, batch: Batch) -> Tensor:
        r""":math:`\log p(x_i \mid z)` for z of shape (\*, B, D) and a prepared batch, shape (\*, B); 0 where i is absent."""
        log_prob = self.decoder_of(name, batch).log_prob(z, batch.values[name], None if batch.whole else batch.cells.get(name))
        return log_prob if batch.whole else torch.where(batch.present[name], log_prob, 0.0)

    def negative_elbo(
        self, q: Independent, batch: Batch, kl_weight: float, *, names: Iterable[str] | None = None, rows: Tensor | None = None
    ) -> dict[str, Tensor]:
        r"""The terms of :math:`-\mathrm{ELBO}_S`, estimated with one sample of z: one for each modality of S, and ``kl``.

        .. math:: -\mathrm{ELBO}_S = -\mathbb{E}_q \Big[ \sum_{i \in S} w_i \log p(x_i \mid z) \Big] + \beta \, \mathrm{KL}(q \,\|\, p(z))

        Arguments:
            q: The posterior, batch shape (B,) over D.
            batch: A prepared batch.
            kl_weight: The weight :math:`\beta`.
            names: The modalities S; all by default.
            rows: The rows to average over, boolean, shape (B,); all by default.
        """
        z = q.rsample()
        terms = {name: -self.weights[name] * self.log_prob(name, z, batch) for name in (self.names if names is None else names)}
        terms["kl"] = kl_weight * self.kl_to_prior(q)
        return {name: term.mean() if rows is None else masked_mean(term, rows) for name, term in terms.items()}

    def kl_to_prior(self, q: Independent) -> Tensor:
        """KL(q || p(z)), of the batch shape of q."""
        return diagonal_kl(q)

    def log_joint(self, batch: Batch, z: Tensor) -> Tensor:
        r""":math:`\log p(z) + \sum_{i \in S} \log p(x_i \mid z)` over the observed modalities, shape (K, B), for z of shape (K, B, D)."""
        batch = self.prepare(batch)
        likelihoods = torch.stack([self.log_prob(name, z, batch) for name in self.names]).sum(0)
        return self.prior(*z.shape[:-1]).log_prob(z) + likelihoods

    def choose_widths(self, batch: Batch) -> None:
        """Makes float64 what float32 would round off a part of the spread of (`nbridge.nn.likelihoods.Likelihood.wide`).

        Arguments:
            batch: Training rows as they were read: those of such modalities are float64 (`nbridge.data.column.read_column`).
        """
        for name, likelihood in self.likelihoods.items():
            x = batch.values.get(name)
            if x is not None and x.dtype == torch.float64 and self.dtype != x.dtype and loses_spread(*_rounded(batch, name)):
                likelihood.widen()

    @torch.no_grad()
    def fit_statistics(self, batch: Batch) -> None:
        """Fits the statistics of every likelihood to the rows in which its modality is present."""
        batch = self.prepare(batch)
        if self.covariates is not None:
            self.covariates.fit(batch.covariates)
        for name, likelihood in self.likelihoods.items():
            rows = batch.present[name]
            x = batch.values[name][rows]
            if likelihood.size_column and (size := self.log_size(name, batch)) is not None:
                x = x * (-size[rows]).exp()
            cells = batch.cells[name][rows] if name in batch.cells else torch.ones_like(x, dtype=torch.bool)
            if len(x):
                likelihood.fit(x, cells)
        if self.covariates is not None:
            self._fit_centres(self.covariates, batch)

    def _fit_centres(self, covariates: Covariates, batch: Batch) -> None:
        for name, likelihood in self.likelihoods.items():
            rows = batch.index(batch.present[name])
            x = self._standardised(likelihood, name, rows)
            x = torch.where(rows.cells[name], x, likelihood.fill_value) if name in rows.cells else x
            covariates.fit_centres(name, x, rows.covariates)


def _rounded(batch: Batch, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values of a modality, the same in float32, and which of them are observed."""
    x, present = batch.values[name].cpu(), batch.present[name].cpu()
    observed = present.reshape(-1, *(1 for _ in x.shape[1:])).expand(x.shape)
    observed = observed & batch.cells[name].cpu() if name in batch.cells else observed
    return x.numpy(), x.float().numpy(), observed.numpy()


def _encode_some(encoder: nn.Module, x: Tensor, rows: Tensor) -> Tensor:
    """Encodes only the given rows; the features of the others are 0."""
    some = rows.nonzero()[:, 0]
    if len(some) == len(rows):
        return encoder(x)
    encoded = encoder(x[some] if len(some) else x[:1])
    features = encoded.new_zeros(len(rows), *encoded.shape[1:])
    return features.index_copy(0, some, encoded[: len(some)])
