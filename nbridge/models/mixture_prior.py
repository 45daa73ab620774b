r"""A prior fitted after training: a mixture of Gaussians on the aggregate posterior, for unconditional generation.

.. math:: \hat{p}(z) = \sum_c \pi_c \, \mathcal{N}(z \mid \mu_c, \Sigma_c) \approx q(z) = \frac{1}{N} \sum_n q(z \mid x_n)

A VAE is trained with :math:`p(z) = \mathcal{N}(0, I)`, but its codes, distributed as q(z), do not fill it, and samples decoded from the
gaps resemble no row. The mixture covers only the codes. It is used for *generated* rows alone: the ELBO, importance sampling and rows with
nothing observed use the model's own p(z), because they concern p(x) under that prior.

With few rows, several samples of each row's posterior fit far better than one. Full covariances help if there are many samples for each of
their parameters and hurt otherwise, so with fewer samples covariances are diagonal.

References:
    From Variational to Deterministic Autoencoders (Ghosh, Sajjadi, Vergari, Black, Schölkopf, ICLR 2020)

Axes: C components, K samples, N rows or samples, D latent dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, MultivariateNormal

from nbridge.common import randomness
from nbridge.common.process_state import ignored_warnings, one_thread
from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.nn.distributions import diagonal_normal
from nbridge.spec.option_types import Components

ROWS = 20_000
"""Largest number of rows that a mixture is fitted to; with fewer rows, about the number of samples."""
DRAWS = 16
"""Largest number of samples per row."""
CHUNK = 2048
"""Number of rows whose posteriors are computed at a time."""
ROWS_PER_COMPONENT = 5
"""Smallest number of rows per component; with fewer rows there are fewer components."""
SAMPLES_FOR_FULL = 32
"""Samples per component and latent dimension needed for full covariances. On held-out codes of digits (8, 16 and 64 dimensions, 1 to 50
components) full and diagonal covariances are equal at about this number; at less than half of it, full ones are worse than N(0, I)."""


class Mixture(nn.Module):
    """A mixture of Gaussians, fitted to the codes of the training rows after training, to sample new rows from.

    N(0, I) until fitted. It has buffers only, no parameters.

    Arguments:
        latent_dim: Dimension D of z.
        components: The number C of Gaussians; fewer are used if training rows are few.

    Example:
        >>> mixture = Mixture(2, components=3)
        >>> z = torch.cat([torch.randn(500, 2) - 4, torch.randn(500, 2) + 4])
        >>> mixture.fit(z)
        >>> mixture.distribution().sample((5,)).shape
        torch.Size([5, 2])
    """

    weights: Tensor
    means: Tensor
    scales: Tensor
    rows_per_component: int = ROWS_PER_COMPONENT

    def __init__(self, latent_dim: int, *, components: Components = 10) -> None:
        super().__init__()
        self.latent_dim, self.components = latent_dim, components
        # Full covariances that could never be fitted are not stored.
        unit = torch.eye(latent_dim) if self._can_be_full(ROWS, components) else torch.ones(latent_dim)
        self.register_buffer("weights", (torch.arange(components) == 0).to(unit))
        self.register_buffer("means", torch.zeros(components, latent_dim))
        self.register_buffer("scales", unit.repeat(components, *(1 for _ in unit.shape)))

    def distribution(self) -> Distribution:
        """The mixture, a distribution over D."""
        some = self.weights > 0
        means, scales = self.means[some], self.scales[some]
        each = diagonal_normal(means, scales) if scales.ndim == 2 else MultivariateNormal(means, scale_tril=scales, validate_args=False)
        return MixtureSameFamily(Categorical(self.weights[some], validate_args=False), each, validate_args=False)

    def sample(self, *shape: int) -> Tensor:
        r"""Samples of z, shape (\*shape, D)."""
        return self.distribution().sample(Size(shape))

    def fit_rows(self, posterior: Callable[[Batch, int], Independent], rows: Rows, seed: int = 0) -> int:
        """Fits the mixture to samples of the posteriors of rows, without rows with nothing observed, whose posterior is the prior.

        ``posterior`` returns :math:`q(z | x_S)` for a batch, batch shape (K, B) over D, like `nbridge.MultimodalVAE.posterior`. At most
        `ROWS` training rows, in memory or on disk, are chosen at random.

        Returns:
            The number of components: C unless there are too few rows.
        """
        chosen = _choose_rows(rows, seed)
        z = _draws(posterior, chosen, max(1, min(DRAWS, ROWS // len(chosen))), seed)
        number = min(self.components, max(1, len(chosen) // self.rows_per_component))
        self.fit(z, number, seed)
        return number

    @torch.no_grad()
    def fit(self, z: Tensor, components: int | None = None, seed: int = 0) -> None:
        """Fits the mixture to codes by expectation maximisation in float64; bit-identical for the same codes and seed.

        Codes have the shape (N, D); at most C components are used, all by default.
        """
        number = self.components if components is None else components
        full = self.scales.ndim == 3 and self._can_be_full(len(z), number)
        weights, means, covariances = _expectation_maximisation(z, number, full, seed)
        scales = torch.linalg.cholesky(covariances) if full else covariances.sqrt()
        self.weights.zero_()[:number] = weights.to(self.weights)
        self.means.zero_()[:number] = means.to(self.means)
        self.scales[:number] = (scales if full or self.scales.ndim == 2 else scales.diag_embed()).to(self.scales)

    def _can_be_full(self, draws: int, components: int) -> bool:
        """Whether there are enough samples for full covariances."""
        return draws >= SAMPLES_FOR_FULL * components * self.latent_dim


class DiagonalMixture(Mixture):
    """A mixture with diagonal covariances that replaces the prior in a product of posteriors once fitted.

    Attributes:
        always: Whether to use it whenever it is fitted, or only if that is found to be better.
        fitted: Whether it is fitted, with at least two components; an attribute, so that tracing does not depend on tensor values.
    """

    rows_per_component = 20
    always: bool = False
    fitted: bool = False

    def parameters_of_components(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, shape (C,), means and variances, each of shape (C, D)."""
        return self.weights, self.means, self.scales.square()

    @torch.no_grad()
    def fit(self, z: Tensor, components: int | None = None, seed: int = 0) -> None:
        super().fit(z, components, seed)
        self.fitted = self._has_several()

    @torch.no_grad()
    def reset(self) -> None:
        """Resets the mixture to N(0, I)."""
        self.weights.copy_(torch.arange(self.components) == 0)
        self.means.zero_()
        self.scales.fill_(1.0)
        self.fitted = False

    def _can_be_full(self, draws: int, components: int) -> bool:  # noqa: ARG002
        return False

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.fitted = self._has_several()

    def _has_several(self) -> bool:
        return int((self.weights > 0).sum()) > 1


def _choose_rows(rows: Rows, seed: int) -> Rows:
    """At most `ROWS` random rows with something observed, in their original order."""
    some = torch.stack(list(rows.present.values())).any(0).nonzero()[:, 0]
    order = torch.randperm(len(some), generator=torch.Generator().manual_seed(seed))[:ROWS]
    return rows.subset(some[order.to(some.device)].sort().values)


@torch.no_grad()
def _draws(posterior: Callable[[Batch, int], Independent], rows: Rows, number: int, seed: int) -> Tensor:
    """``number`` samples of the posterior of each row, shape (N, D), on the CPU."""
    with randomness.own_draws(seed):
        parts = (rows.slice(start, start + CHUNK) for start in range(0, len(rows), CHUNK))
        return torch.cat([posterior(part, number).sample().flatten(0, 1).cpu() for part in parts])


def _expectation_maximisation(z: Tensor, components: int, full: bool, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, shape (C,), means, shape (C, D), and covariances, shape (C, D, D), or (C, D) if diagonal, in float64."""
    # Imported here, because scikit-learn takes a second and few models have a mixture.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    kind = "full" if full else "diag"
    model = GaussianMixture(components, covariance_type=kind, tol=1e-2, random_state=seed % 2**32)
    # One thread, because the number of threads changes rounding; stopping short of full convergence is harmless.
    with one_thread(), ignored_warnings(ConvergenceWarning):
        model.fit(z.double().numpy())
    return torch.from_numpy(model.weights_), torch.from_numpy(model.means_), torch.from_numpy(model.covariances_)
