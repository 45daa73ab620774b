r"""Importance weights, streamed over draws and rows, so that memory grows with neither.

.. math:: w_k = \frac{f(z_k) \, p(z_k)}{q(z_k \mid x_P)}, \qquad z_k \sim q(z \mid x_P)

for any function f of z, such as :math:`p(x_T \mid z)`. Weights are kept as logarithms and added up in float64.

Two sizes bound the work. A *block* is what one call of the posterior serves: some rows, and many draws of each. A *piece* is what one call
of the decoders serves: draws of one row where there are many, small enough to stay in the processor's cache.

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
"""Rows and draws of a block, at most."""
ELEMENTS, ACCELERATED = 2**19, 2**25
"""Raw numbers that decoders give for a piece, at most: on a processor, where they stay in its cache, and on an accelerator."""
LEAST = 256
"""What a draw counts for at least: hidden layers are there even where little is decoded."""

LogTerms = Callable[[Tensor, Batch], Tensor]
r"""From z of shape (K, B, D) and B prepared rows to :math:`\log f(z)` of shape (K, B, \*), for one f or several."""


@dataclass(frozen=True)
class Estimates:
    r"""What weights come to, float64, each of shape (B, \*).

    Arguments:
        log_mean: :math:`\log \frac{1}{K} \sum_k w_k`.
        error: Its Monte-Carlo error by the delta method, :math:`\sqrt{(K s_2 / s_1^2 - 1) / (K - 1)}` with :math:`s_i = \sum_k w_k^i`; NaN
            for a single draw.
        effective_sample_size: :math:`s_1^2 / s_2`, from 1 to K.
        curve: `log_mean` of the first 1, 10, 100, ... and K draws, by their number.
    """

    log_mean: Tensor
    error: Tensor
    effective_sample_size: Tensor
    curve: dict[int, Tensor]

    @classmethod
    def joined(cls, parts: Sequence[Estimates]) -> Estimates:
        """Those of all rows."""
        return cls(
            torch.cat([part.log_mean for part in parts]),
            torch.cat([part.error for part in parts]),
            torch.cat([part.effective_sample_size for part in parts]),
            {number: torch.cat([part.curve[number] for part in parts]) for number in parts[0].curve},
        )


def weigh(
    model: MultimodalVAE,
    batch: Batch,
    proposal: Iterable[str],
    terms: LogTerms,
    *,
    samples: int,
    seed: int,
    numbers: int,
    functions: int = 1,
) -> Estimates:
    """The estimates of every row of a batch.

    On a processor the draws of a row depend on the seed and on its place in the batch, not on the sizes of blocks and pieces.

    Arguments:
        model: A trained model.
        batch: Rows that have all that is needed.
        proposal: The modalities that the proposal observes.
        terms: The functions f.
        samples: The number K of draws for each row.
        seed: Seed of the draws.
        numbers: How many numbers are made of one z, to choose the size of a piece by.
        functions: How many functions f there are, to choose the size of a block by.
    """
    elements = ELEMENTS if model.device.type == "cpu" else ACCELERATED
    sizes = _Sizes.fit(samples, elements // max(numbers, LEAST), DRAWS // functions)
    with serving(model, seed):
        # A stream apart from the one that a stochastic posterior draws from.
        generator = Generator(model.device).manual_seed(int(torch.randint(2**62, ())))
        parts = (batch.slice(start, start + sizes.rows) for start in range(0, len(batch), sizes.rows))
        return Estimates.joined([_estimates(model, part.to(model.device), tuple(proposal), terms, sizes, generator) for part in parts])


def _estimates(
    model: MultimodalVAE, batch: Batch, proposal: tuple[str, ...], terms: LogTerms, sizes: _Sizes, generator: Generator
) -> Estimates:
    """Those of a few rows, block by block."""
    batch, sums = model.prepare(batch), _Sums(sizes.samples)
    observed = batch.only(*proposal)
    while sums.done < sizes.samples:
        q = model.proposal(observed, min(sizes.samples - sums.done, sizes.draws))
        sums.add(_block(model, batch, q, terms, sizes.piece, _noise(q, generator)))
    return sums.estimates()


@dataclass(frozen=True)
class _Sizes:
    """How the work is cut: K draws in all, draws and rows of a block, draws of a piece."""

    samples: int
    draws: int
    rows: int
    piece: int

    @classmethod
    def fit(cls, samples: int, piece: int, block: int) -> _Sizes:
        """Those for pieces and blocks of at most so many draws, as far as can be; see `_noise` for the sixteens."""
        draws = max(16, block // 16 * 16)
        return cls(samples, draws, max(1, min(ROWS, draws // samples)), max(1, piece))


class _Sums:
    r"""Running :math:`\log \sum_k w_k` and :math:`\log \sum_k w_k^2` of some rows."""

    def __init__(self, samples: int) -> None:
        self.samples, self.done = samples, 0
        self.first = self.second = torch.tensor(-math.inf, dtype=torch.float64)
        self.curve: dict[int, Tensor] = {}
        self._marks = sorted({*(10**power for power in range(len(str(samples)))), samples})

    def add(self, log_weights: Tensor) -> None:
        r"""Takes further draws, shape (K, B, \*), in order."""
        ends = [mark - self.done for mark in self._marks if 0 < mark - self.done < len(log_weights)]
        for part in log_weights.tensor_split(ends):
            self.first = torch.logaddexp(self.first, part.logsumexp(0))
            self.second = torch.logaddexp(self.second, (2 * part).logsumexp(0))
            self.done += len(part)
            if self.done in self._marks:
                self.curve[self.done] = (self.first - math.log(self.done)).cpu()

    def estimates(self) -> Estimates:
        """What the draws come to."""
        share = (self.second - 2 * self.first).exp().cpu()
        excess = (self.samples * share - 1).clamp(min=0)
        error = (excess / (self.samples - 1)).sqrt() if self.samples > 1 else torch.full_like(share, math.nan)
        return Estimates(self.curve[self.samples], error, 1 / share, self.curve)


def _noise(q: Independent, generator: Generator) -> Tensor:
    """Standard normal noise of q's shape, (K, B, D), a row's draws one after another.

    Torch's stream on a processor comes in sixteens; whole ones make it the same however it is cut.
    """
    draws, rows, dimension = *q.batch_shape, q.event_shape[0]
    length = draws * dimension
    noise = torch.randn(rows, -(-length // 16) * 16, generator=generator, dtype=q.mean.dtype, device=q.mean.device)
    return noise[:, :length].reshape(rows, draws, dimension).transpose(0, 1)


def _block(model: MultimodalVAE, batch: Batch, q: Independent, terms: LogTerms, size: int, noise: Tensor) -> Tensor:
    r"""Log-weights of a block, shape (K, B, \*), a row at a time where a piece holds no more."""
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
    """Means and standard deviations, shape (K, B, D), or (1, B, D) where all draws share them, so that nothing is computed twice."""
    normal = q.base_dist
    assert isinstance(normal, Normal), "posteriors and priors are diagonal normal distributions"
    some = slice(1) if normal.loc.stride(0) == normal.scale.stride(0) == 0 else slice(None)
    return normal.loc[some], normal.scale[some]


def _log_weights(
    batch: Batch, loc: Tensor, scale: Tensor, prior: tuple[Tensor, Tensor], noise: Tensor, terms: LogTerms, size: int
) -> Tensor:
    r"""Log-weights of some rows, shape (K, B, \*), piece by piece.

    Both densities come from standardised distances, of which q's is the noise itself: nothing is lost by going to z and back.
    """
    # Products and sums alone: on a processor a quotient that broadcasts, or torch.addcmul, takes ten times as long.
    z = loc + scale * noise
    distance = (z - prior[0]) * prior[1].reciprocal()
    log_ratio = (noise.square().sum(-1).double() - distance.square().sum(-1)) / 2 + (scale / prior[1]).log().sum(-1)
    log_terms = torch.cat([terms(piece, batch).double() for piece in z.split(size)])
    return log_terms + log_ratio.reshape(*log_ratio.shape, *(1 for _ in log_terms.shape[2:]))
