r"""Importance weights, streamed over draws and rows in constant memory.

.. math:: w_k = \frac{f(z_k) \, p(z_k)}{q(z_k \mid x_P)}, \qquad z_k \sim q(z \mid x_P)

for any function f of z, such as :math:`p(x_T \mid z)`. Weights are kept as logarithms and summed in float64.

The work is cut at two levels. A *block* is one call of the posterior: some rows, with many draws of each. A *piece* is one call of the
decoders, small enough to stay in the CPU's cache: with many draws, those of a single row.

Axes: K draws, B rows, D latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.distributions import Independent, Normal

from nbridge.data.batch import Batch
from nbridge.inference.impute import serving
from nbridge.models.base import MultimodalVAE

ROWS, DRAWS = 1024, 2**15
"""Maximum numbers of rows and of draws in a block."""
ELEMENTS, ACCELERATED = 2**19, 2**25
"""Maximum number of decoder outputs for a piece: on a CPU, where they should stay in the cache, and on an accelerator."""
MIN_OUTPUTS = 256
"""Assumed minimum number of outputs per draw, to account for hidden layers."""

LogTerms = Callable[[Tensor, Batch], Tensor]
r"""Maps z of shape (K, B, D) and B prepared rows to :math:`\log f(z)` of shape (K, B, \*), for one f or several."""


@dataclass(frozen=True)
class Estimates:
    r"""Estimates from importance weights, float64, each of shape (B, \*).

    Arguments:
        log_mean: :math:`\log \frac{1}{K} \sum_k w_k`.
        error: Its Monte-Carlo error by the delta method, :math:`\sqrt{(K s_2 / s_1^2 - 1) / (K - 1)}` with :math:`s_i = \sum_k w_k^i`; NaN
            for a single draw.
        effective_sample_size: :math:`s_1^2 / s_2`, from 1 to K.
        curve: `log_mean` from the first 1, 10, 100, ... and K draws, by their number.
    """

    log_mean: Tensor
    error: Tensor
    effective_sample_size: Tensor
    curve: dict[int, Tensor]

    @classmethod
    def concatenated(cls, parts: Sequence[Estimates]) -> Estimates:
        """Concatenates estimates over rows."""
        return cls(
            torch.cat([part.log_mean for part in parts]),
            torch.cat([part.error for part in parts]),
            torch.cat([part.effective_sample_size for part in parts]),
            {number: torch.cat([part.curve[number] for part in parts]) for number in parts[0].curve},
        )


def importance_estimates(
    model: MultimodalVAE, batch: Batch, proposal: Iterable[str], terms: LogTerms,
    *, samples: int, seed: int, numbers: int, functions: int = 1,
) -> Estimates:  # fmt: skip
    """Estimates for every row of a batch.

    On a CPU, the draws of a row depend only on the seed and on its index in the batch, not on the sizes of blocks and pieces. Rows have all
    modalities that ``proposal`` and ``terms`` need. The number of decoder outputs per z, ``numbers``, determines the size of a piece, and
    the number of functions f, ``functions``, that of a block.
    """
    elements = ELEMENTS if model.device.type == "cpu" else ACCELERATED
    sizes = _Sizes.fit(samples, elements // max(numbers, MIN_OUTPUTS), DRAWS // functions)
    with serving(model, seed):
        # Separate from the generator that a stochastic posterior draws from.
        generator = Generator(model.device).manual_seed(int(torch.randint(2**62, ())))
        parts = (batch.slice(start, start + sizes.rows) for start in range(0, len(batch), sizes.rows))
        names = tuple(proposal)
        return Estimates.concatenated([_estimates(model, part.to(model.device), names, terms, sizes, generator) for part in parts])


def _estimates(
    model: MultimodalVAE, batch: Batch, proposal: tuple[str, ...], terms: LogTerms, sizes: _Sizes, generator: Generator
) -> Estimates:
    """Estimates for a few rows, block by block."""
    batch, sums = model.prepare(batch), _Sums(sizes.samples)
    observed = batch.only(*proposal)
    while sums.done < sizes.samples:
        q = model.proposal(observed, min(sizes.samples - sums.done, sizes.draws))
        sums.add(_block(model, batch, q, terms, sizes.piece, _noise(q, generator)))
    return sums.estimates()


@dataclass(frozen=True)
class _Sizes:
    """Sizes of the work: total draws K, draws and rows of a block, draws of a piece."""

    samples: int
    draws: int
    rows: int
    piece: int

    @classmethod
    def fit(cls, samples: int, piece: int, block: int) -> _Sizes:
        """Sizes for pieces and blocks of about at most these numbers of draws; `_noise` explains the multiples of 16."""
        draws = max(16, block // 16 * 16)
        return cls(samples, draws, max(1, min(ROWS, draws // samples)), max(1, piece))


class _Sums:
    r"""Running :math:`\log \sum_k w_k` and :math:`\log \sum_k w_k^2` for some rows."""

    def __init__(self, samples: int) -> None:
        self.samples, self.done = samples, 0
        self.first = self.second = torch.tensor(-math.inf, dtype=torch.float64)
        self.curve: dict[int, Tensor] = {}
        self._marks = sorted({*(10**power for power in range(len(str(samples)))), samples})

    def add(self, log_weights: Tensor) -> None:
        r"""Adds log-weights of the next draws, shape (K, B, \*), in order."""
        ends = [mark - self.done for mark in self._marks if 0 < mark - self.done < len(log_weights)]
        for part in log_weights.tensor_split(ends):
            self.first = torch.logaddexp(self.first, part.logsumexp(0))
            self.second = torch.logaddexp(self.second, (2 * part).logsumexp(0))
            self.done += len(part)
            if self.done in self._marks:
                self.curve[self.done] = (self.first - math.log(self.done)).cpu()

    def estimates(self) -> Estimates:
        """The estimates from all draws."""
        share = (self.second - 2 * self.first).exp().cpu()
        excess = (self.samples * share - 1).clamp(min=0)
        error = (excess / (self.samples - 1)).sqrt() if self.samples > 1 else torch.full_like(share, math.nan)
        return Estimates(self.curve[self.samples], error, 1 / share, self.curve)


def _noise(q: Independent, generator: Generator) -> Tensor:
    """Standard normal noise of q's shape, (K, B, D), generated row by row.

    On a CPU, torch generates normal numbers in groups of 16; requesting whole groups makes the stream independent of how it is cut.
    """
    draws, rows, dimension = *q.batch_shape, q.event_shape[0]
    length = draws * dimension
    noise = torch.randn(rows, -(-length // 16) * 16, generator=generator, dtype=q.mean.dtype, device=q.mean.device)
    return noise[:, :length].reshape(rows, draws, dimension).transpose(0, 1)


def _block(model: MultimodalVAE, batch: Batch, q: Independent, terms: LogTerms, size: int, noise: Tensor) -> Tensor:
    r"""Log-weights of a block, shape (K, B, \*), computed for as many rows at a time as a piece holds, at least one."""
    (loc, scale), prior, width = _distinct(q), _distinct(model.prior(1, 1)), max(1, size // len(noise))
    return torch.cat(
        [
            _log_weights(batch.slice(row, row + width), loc[:, some], scale[:, some], prior, noise[:, some], terms, size)
            for row in range(0, len(batch), width)
            for some in [slice(row, row + width)]
        ],
        1,
    )


def _distinct(q: Independent) -> tuple[Tensor, Tensor]:
    """Means and standard deviations, shape (K, B, D), or (1, B, D) when all draws share them, to avoid repeated work."""
    normal = q.base_dist
    assert isinstance(normal, Normal), "posteriors and priors are diagonal normal distributions"
    some = slice(1) if normal.loc.stride(0) == normal.scale.stride(0) == 0 else slice(None)
    return normal.loc[some], normal.scale[some]


def _log_weights(
    batch: Batch, loc: Tensor, scale: Tensor, prior: tuple[Tensor, Tensor], noise: Tensor, terms: LogTerms, size: int
) -> Tensor:
    r"""Log-weights of some rows, shape (K, B, \*), piece by piece.

    Both densities are computed from standardised distances. For q this is the noise itself, which avoids the rounding of recomputing it
    from z.
    """
    # Only products and sums: on a CPU, a broadcast division or torch.addcmul takes ten times as long.
    z = loc + scale * noise
    distance = (z - prior[0]) * prior[1].reciprocal()
    log_ratio = (noise.square().sum(-1).double() - distance.square().sum(-1)) / 2 + (scale / prior[1]).log().sum(-1)
    log_terms = torch.cat([terms(piece, batch).double() for piece in z.split(size)])
    return log_terms + log_ratio.reshape(*log_ratio.shape, *(1 for _ in log_terms.shape[2:]))
