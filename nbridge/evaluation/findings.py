r"""Warnings about a trained model that tables of scores do not show: one line each, with the numbers behind it.

**At chance.** Stage ``joint`` can encode a small modality in directions of z that the other modalities do not predict; imputations are then
draws from its marginal distribution, whatever is observed (see `condition_test`). **Inactive units** of z carry no information (see
`inactive_units`). **Edges**: a likelihood's parameters have hit their bounds (`nbridge.Likelihood.bound_warnings`). There are also
warnings about patterns of presence and pairs of modalities that never occur in training (`nbridge.data.patterns`).

Axes: K samples, B rows, P pairs of rows, D latent dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from nbridge.common.warnings import Finding
from nbridge.data.batch import Batch
from nbridge.data.patterns import Patterns, count, never_together
from nbridge.data.rows import Rows
from nbridge.evaluation.calibration import WIDTH, draw_width, observed_cells
from nbridge.evaluation.rows import check_names
from nbridge.inference.impute import ELEMENTS, serving
from nbridge.inference.served import unseen_patterns
from nbridge.models.base import MultimodalVAE
from nbridge.nn.decoders import Decoder

DRAWS, ROWS = 16, 512
"""Draws of z per row, and maximum number of rows, used by the tests: a small part of the cost of an evaluation."""
MIN_ROWS = 30
"""Minimum number of rows for a test."""
ERRORS = 2.0
"""A gain counts when it exceeds zero by this many standard errors."""
ACTIVE = 0.01
"""A unit of z is active when the variance of its posterior mean is at least this (Burda et al., 2016)."""
MIN_INACTIVE_SHARE = 0.5
"""Share of inactive units from which on there is a warning."""


@dataclass(frozen=True)
class ConditionTest:
    """Whether a modality is predicted better from its own row than from another row.

    Arguments:
        pairs: The number P of pairs of rows.
        gain: Mean gain in predictive log-likelihood per row, in nats.
        standard_error: Standard error of that mean, over pairs.
        wins: The share of pairs with a positive gain among those with a nonzero one; one half by chance.
        differing: The number of pairs with a nonzero gain.
    """

    target: str
    pairs: int
    gain: float
    standard_error: float
    wins: float
    differing: int

    @property
    def at_chance(self) -> bool:
        """Whether neither the mean gain nor the share of wins exceeds chance by two standard errors."""
        if not self.differing:
            return True
        return self.gain <= ERRORS * self.standard_error and self.wins <= 0.5 + ERRORS * 0.5 / math.sqrt(self.differing)


def condition_test(
    model: MultimodalVAE, batch: Batch, target: str, *, samples: int = DRAWS, rows: int = ROWS, seed: int = 0
) -> ConditionTest | None:
    r"""Permutation test of whether a modality's predictions depend on the other modalities at all.

    Rows are drawn at random and paired, and the two rows of a pair swap their conditions. With :math:`x_j` the target, S the other
    modalities that a row has, and :math:`\ell(b, c) = \log \frac{1}{K} \sum_k p(x_j^b \mid z_k)`, :math:`z_k \sim q(z \mid x_S^c)`, the
    gain of the pair (b, c) is

    .. math:: \Delta_{bc} = \tfrac{1}{2} \big( \ell(b, b) + \ell(c, c) - \ell(b, c) - \ell(c, b) \big)

    If the target is independent of the others, or the model ignores them, :math:`\Delta` is exactly symmetric about zero, for any
    likelihood and any model, however poor: the effects of rows that are hard to predict and of conditions that give sharp predictions
    cancel. The mean of :math:`\Delta` estimates the information about the target, in nats, that the model uses from the others. A few
    extreme rows can mask the mean, so there are two criteria: the mean against its standard error, and the share of pairs with a positive
    gain against one half.

    Only rows with the target and another modality are used, at most ``rows`` of them; none may be used in training.

    Returns:
        The test; None when fewer than 30 rows can be used, or the target is the same in both rows of every pair.

    Raises:
        DataError: when the model lacks the target.

    References:
        Permutation, Parametric and Bootstrap Tests of Hypotheses (Good, 2005)
    """
    check_names(model, (target,))
    if target not in batch.names or len(model.names) < 2:
        return None
    others = torch.stack([batch.present[name] for name in batch.names if name != target] or [torch.zeros_like(batch.present[target])])
    serving_rows = (batch.present[target] & others.any(0)).nonzero()[:, 0]
    picked = serving_rows[torch.randperm(len(serving_rows), generator=Generator().manual_seed(seed)).to(serving_rows.device)]
    picked = picked[: min(rows, len(picked)) // 2 * 2]
    if len(picked) < MIN_ROWS:
        return None
    size = max(2, ELEMENTS // (samples * draw_width(model, target)) // 2 * 2)
    with serving(model, seed):
        parts = [_gains(model, batch.index(part), target, samples) for part in picked.split(size)]
    gains, unlike = (torch.cat(part) for part in zip(*parts, strict=True))
    if not unlike.any():
        return None
    differing = gains[gains != 0]
    wins = (differing > 0).double().mean().item() if len(differing) else 0.5
    error = gains.std().item() / math.sqrt(len(gains))
    return ConditionTest(target, len(gains), gains.mean().item(), error, wins, len(differing))


def inactive_units(model: MultimodalVAE, batch: Batch, *, seed: int = 0) -> list[int]:
    r"""The units d of z that carry no information about rows: :math:`\mathrm{Var}_x \big( \mathbb{E}_{q(z \mid x)} [z_d] \big) < 0.01`.

    References:
        Importance Weighted Autoencoders (Burda, Grosse & Salakhutdinov, 2016), https://arxiv.org/abs/1509.00519
    """
    with serving(model, seed):
        means = [model.moments(batch.slice(start, start + ROWS).to(model.device)).mean for start in range(0, len(batch), ROWS)]
    return (torch.cat(means).double().var(0) < ACTIVE).nonzero()[:, 0].tolist()


def model_findings(model: MultimodalVAE, batch: Batch, *, seed: int = 0) -> tuple[Finding, ...]:
    """Findings about a model: modalities at chance, inactive units of z, and likelihoods at an edge.

    Rows must not be used in training; each test draws 512 of them. Tests with fewer than 30 rows are listed in a separate finding
    (`untested`).
    """
    found = (*_at_chance(model, batch, seed), *_inactive(model, batch, seed), *_edges(model, batch, seed))
    return (*found, *untested(model, batch))


def untested(model: MultimodalVAE, batch: Batch) -> tuple[Finding, ...]:
    """One finding that lists the tests of `model_findings` with too few rows; otherwise, no warning could be read as a pass."""
    having = {name: int(batch.present[name].sum()) if name in batch.names else 0 for name in model.names}
    several = {}
    if len(model.names) > 1:
        others = {name: [mask for other, mask in batch.present.items() if other != name] for name in batch.names}
        several = dict.fromkeys(model.names, 0)
        several |= {name: int((batch.present[name] & torch.stack(masks).any(0)).sum()) for name, masks in others.items() if masks}
    tests = {
        "whether it is at chance given the others": several,
        "inactive latent units": {"": len(batch)},
        "values at the edge of a likelihood": having,
    }
    few = {test: {name: rows for name, rows in counts.items() if rows < MIN_ROWS} for test, counts in tests.items()}
    lines = [f"{test} ({_counted(counts)})" for test, counts in few.items() if counts]
    if not lines:
        return ()
    text = f"not tested, fewer than {MIN_ROWS} rows: {'; '.join(lines)}"
    return (Finding("untested", "", text, {test: counts for test, counts in few.items() if counts}),)


def _counted(counts: Mapping[str, int]) -> str:
    """Names grouped by their number of rows, as text."""
    by_rows: dict[int, list[str]] = {}
    for name, rows in counts.items():
        by_rows.setdefault(rows, []).append(name)
    parts = []
    for rows, names in by_rows.items():
        named = ", ".join(filter(None, names))
        parts.append(f"{named}{': ' if named else ''}{rows} row{'s' if rows != 1 else ''}")
    return "; ".join(parts)


def evaluation_findings(model: MultimodalVAE, batch: Batch, train: Rows, *, seed: int = 0) -> tuple[Finding, ...]:
    """All findings: those of the model, and the patterns of presence and pairs of modalities that never occur in training."""
    patterns = unseen_patterns(model, Patterns.of(model.names, train.present), count(model.names, batch.present))
    return (*never_together(model.names, train.present), *patterns, *model_findings(model, batch, seed=seed))


def _gains(model: MultimodalVAE, batch: Batch, target: str, samples: int) -> tuple[Tensor, Tensor]:
    """The gain of each pair, float64, and whether its targets differ; the second half of the rows are the partners of the first half."""
    batch, half = model.prepare(batch.to(model.device)), len(batch) // 2
    z, number = model.posterior(batch.hide(target), samples).sample(), model.given(target, batch)
    decoder, likelihood = model.decoder_of(target, batch), model.likelihoods[target]
    raw = decoder.network(z)

    def predictive(raw: Tensor, x: Tensor, cells: Tensor | None) -> Tensor:
        return torch.logsumexp(likelihood.served_log_prob(raw, x, cells, number).double(), 0)

    # Swapping targets instead of conditions gives the same four terms without decoding twice, unless a target has a size of its own.
    x, cells = batch.values[target], batch.cells.get(target)
    swapped = x.roll(half, 0)
    other = raw if isinstance(decoder, Decoder) else decoder.index(torch.arange(len(x), device=x.device).roll(half)).network(z)
    gain = predictive(raw, x, cells) - predictive(other, swapped, None if cells is None else cells.roll(half, 0))
    unlike = (x != swapped).reshape(len(x), -1).any(1)
    return (gain[:half] + gain[half:]).cpu() / 2, unlike[:half].cpu()


def _at_chance(model: MultimodalVAE, batch: Batch, seed: int) -> Iterator[Finding]:
    for target in model.names:
        done = condition_test(model, batch, target, seed=seed)
        if done is None or not done.at_chance:
            continue
        gain = f"{_short(done.gain)} ± {_short(done.standard_error)} nats"
        text = (
            f"modality {target!r}: imputation from the others is at chance, {gain} better than from the others of another row "
            f"({done.pairs} pairs of rows); raise its weight in the spec, unless they carry no information about it"
        )
        figures = {"gain": done.gain, "standard error": done.standard_error, "pairs": done.pairs, "share of pairs with a gain": done.wins}
        yield Finding("chance", target, text, figures)


def _inactive(model: MultimodalVAE, batch: Batch, seed: int) -> Iterator[Finding]:
    few = _few(batch, seed)
    if len(few) < MIN_ROWS:
        return
    units = inactive_units(model, few, seed=seed)
    if len(units) < MIN_INACTIVE_SHARE * model.latent_dim:
        return
    active = model.latent_dim - len(units)
    collapsed = "the posterior has collapsed to the prior: set training.kl_annealing, or train longer"
    advice = f"latent_dim: {active} would be enough" if active else collapsed
    text = (
        f"{len(units)} of {model.latent_dim} latent units are inactive (their posterior mean varies by less than {ACTIVE:g} over "
        f"{len(few):,} rows); {advice}"
    )
    yield Finding("inactive", "", text, {"inactive": units, "of": model.latent_dim, "rows": len(few)})


def _edges(model: MultimodalVAE, batch: Batch, seed: int) -> Iterator[Finding]:
    for name, likelihood in model.likelihoods.items():
        if name not in batch.names:
            continue
        most = max(MIN_ROWS, min(ROWS, ELEMENTS // max(WIDTH, math.prod(likelihood.raw_shape))))
        rows = _few(batch.index(batch.present[name]), seed, most)
        if len(rows) < MIN_ROWS:
            continue
        with serving(model, seed):
            prepared = model.prepare(rows.to(model.device))
            raw = model.decoder_of(name, prepared).network(model.moments(prepared).mean)
            found = list(likelihood.bound_warnings(raw, prepared.values[name], observed_cells(prepared, name)))
        for edge in found:
            yield Finding("edge", name, f"modality {name!r}: {edge.text}", dict(edge.details))


def _short(number: float) -> str:
    """Two significant digits, or all integer digits of a larger number."""
    return f"{number:.0f}" if abs(number) >= 10 else f"{number:.2g}"


def _few(batch: Batch, seed: int, most: int = ROWS) -> Batch:
    """At most ``most`` rows, drawn at random."""
    return batch if len(batch) <= most else batch.index(torch.randperm(len(batch), generator=Generator().manual_seed(seed))[:most])
