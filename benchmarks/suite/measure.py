r"""Evaluation of a trained model: predicts every hidden modality from others, by number of given modalities.

A question is a pair (S, j): modality j predicted from those of S. All answers to the questions of one S come from the same draws
:math:`z_k \sim q(z \mid x_S)`, and each gives, row by row, :math:`\log \frac{1}{K} \sum_k p(x_j \mid z_k)`, with the calibrated p
that imputations are drawn from.

**Monotonicity**: of all questions (S, j) and (S', j) with S a proper subset of S', the number in which the mean over rows of the
difference in log-likelihood, S' minus S, is below zero by more than two standard errors, paired over the rows that have all of S' and j.

Axes: K draws, B rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical

from benchmarks.suite.tasks import Task
from nbridge.data.batch import Batch
from nbridge.evaluation.calibration import coverage
from nbridge.evaluation.rows import rows_with
from nbridge.inference.impute import chunks, serving
from nbridge.models.base import MultimodalVAE

DRAWS, IMAGE_DRAWS = 64, 32
"""Draws K of z, without and with large images among the predicted modalities."""
LARGE = 128
"""An image with at least this many values is large."""
MOST = 40
"""Maximum number of questions per size; if there are more, they are sampled."""
LEVEL = 0.9

Names = tuple[str, ...]
Question = tuple[Names, str]


@dataclass(frozen=True)
class Answer:
    """One modality predicted from others, over the test rows that have all of them.

    Arguments:
        given: The modalities observed, S.
        target: The modality predicted, j.
        rows: Indices of the test rows, shape (B,).
        log_likelihood: Predictive log-likelihood of each, nats, float64, shape (B,); None where it has none.
        right: Whether each prediction of a class, or of an observed attribute, came true, shape (N,).
        confidence: The probability of each of these predictions, shape (N,).
        square: Square errors of observed numbers, in units of the training rows' variance, shape (N,).
        inside: How much of each observed number its 90 % interval covers, shape (N,).
    """

    given: Names
    target: str
    rows: Tensor
    log_likelihood: Tensor | None = None
    right: Tensor | None = None
    confidence: Tensor | None = None
    square: Tensor | None = None
    inside: Tensor | None = None


@dataclass(frozen=True)
class Served:
    """All answers for one set S.

    Arguments:
        given: The modalities observed.
        rows: Indices of the test rows that have them, shape (B,).
        answers: To the questions of this set.
        drawn: Of each hidden image and of the label the expectation under one shared draw of z, in canonical form, by name.
    """

    given: Names
    rows: Tensor
    answers: tuple[Answer, ...]
    drawn: Mapping[str, Tensor] = field(default_factory=dict)


def questions(names: Sequence[str], seed: int = 0) -> list[Question]:
    """The questions asked of n modalities: all of a size, or where these are more than `MOST` a sample in which sets are nested.

    The sample follows chains: a target and the others in random order, of which the first one, two, ... are given.

    Example:
        >>> questions(["a", "b"])
        [(('a',), 'b'), (('b',), 'a')]
    """
    n, found = len(names), []
    generator = torch.Generator().manual_seed(seed)
    chains = []
    for number in range(MOST):
        others = [name for name in names if name != names[number % n]]
        chains.append((names[number % n], [others[i] for i in torch.randperm(n - 1, generator=generator)]))
    for size in range(1, n):
        if math.comb(n, size) * (n - size) <= MOST:
            found += [(given, target) for given in combinations(names, size) for target in names if target not in given]
        else:
            found += [(tuple(name for name in names if name in order[:size]), target) for target, order in chains]
    return list(dict.fromkeys(found))


def by_set(asked: Iterable[Question]) -> dict[Names, list[str]]:
    """The targets of each set."""
    sets: dict[Names, list[str]] = {}
    for given, target in asked:
        sets.setdefault(given, []).append(target)
    return sets


def serve(model: MultimodalVAE, task: Task, test: Batch, units: Mapping[str, Tensor], seed: int = 0) -> Iterator[Served]:
    """Asks a model every question of a task.

    Arguments:
        model: A trained model.
        task: The task.
        test: Test rows of the model's modalities.
        units: The standard deviation of each column of reals over training rows.
        seed: Seed of the draws.
    """
    batch = model.prepare(test)
    with serving(model, seed):
        for number, (given, targets) in enumerate(by_set(questions(model.names)).items()):
            rows = rows_with(batch, given).nonzero()[:, 0]
            if not len(rows):
                continue
            torch.manual_seed(seed * 10_007 + number)
            parts = [_asked(model, task, part, given, targets, units) for part in _parts(batch.index(rows), model, task)]
            yield _joined(given, targets, rows, parts, batch)


def reconstructions(model: MultimodalVAE, task: Task, test: Batch, seed: int = 0) -> Served:
    """Images and label decoded from one draw of q(z | everything), for the complete rows."""
    batch = model.prepare(test)
    rows = rows_with(batch, model.names).nonzero()[:, 0]
    with serving(model, seed):
        z = model.posterior(batch.index(rows)).sample()
        drawn = {name: _expectation(model, name, z)[0] for name in _looked_at(task, model.names)}
    return Served(model.names, rows, (), drawn)


def _parts(batch: Batch, model: MultimodalVAE, task: Task) -> Iterator[Batch]:
    widest = max(512, *(math.prod(likelihood.raw_shape) for likelihood in model.likelihoods.values()))
    return chunks(batch, _draws(task) * widest)


def _draws(task: Task) -> int:
    return IMAGE_DRAWS if any(task.kind(name) == "images" and task.elements(name) >= LARGE for name in task.modalities) else DRAWS


def _looked_at(task: Task, names: Iterable[str]) -> list[str]:
    """The images and the label among some names, which coherence uses."""
    return [name for name in names if task.label and (name in task.images or name == task.label)]


def _expectation(model: MultimodalVAE, name: str, z: Tensor) -> Tensor:
    return model.likelihoods[name].expectation(model.decoder(name)(z))


_Part = tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]
"""For some rows, the scores of each target per row or cell, and the generated images and labels."""


def _asked(model: MultimodalVAE, task: Task, rows: Batch, given: Names, targets: Sequence[str], units: Mapping[str, Tensor]) -> _Part:
    z = model.posterior(rows.only(*given), _draws(task)).sample()
    figures, drawn = {}, {}
    for target in targets:
        some = rows.present[target].nonzero()[:, 0]
        # Images are generated for rows without the target too, because these can have the label.
        raw = model.decoder(target).network(z)
        if len(some):
            figures[target] = _figures(model, task, rows.index(some), target, raw[:, some], units, len(given))
        if target in _looked_at(task, targets):
            drawn[target] = model.likelihoods[target].expectation(model.likelihoods[target](raw[0]))
    for name in _looked_at(task, model.names):
        if name not in given and name not in drawn:
            drawn[name] = _expectation(model, name, z[:1])[0]
    return figures, drawn


def _figures(
    model: MultimodalVAE, task: Task, rows: Batch, target: str, raw: Tensor, units: Mapping[str, Tensor], number: int
) -> dict[str, Tensor]:
    """Scores of the calibrated predictions, with the spreads for this number of given modalities."""
    likelihood, kind, x = model.likelihoods[target], task.kind(target), rows.values[target]
    given = torch.full((len(x),), number)
    log_prob = likelihood.served_log_prob(raw, x, rows.cells.get(target), given).double()
    found = {"log_likelihood": torch.logsumexp(log_prob, 0) - math.log(len(raw))}
    distribution = likelihood.served(raw, given)
    cells = rows.cells.get(target, torch.ones_like(x, dtype=torch.bool))
    if kind == "classes":
        assert isinstance(distribution, Categorical)
        found["confidence"], guess = distribution.probs.mean(0).max(-1)
        found["right"] = guess == x
    elif kind == "attributes":
        p = likelihood.expectation(distribution).mean(0)[cells]
        found |= {"confidence": torch.maximum(p, 1 - p), "right": (p > 0.5) == (x[cells] > 0.5)}
    elif kind == "reals":
        error = (likelihood.expectation(distribution).mean(0) - x) / units[target]
        found |= {"square": error.square()[cells], "inside": coverage(distribution.sample()[:, cells], x[cells], LEVEL)}
    return found


def _joined(given: Names, targets: Sequence[str], rows: Tensor, parts: Sequence[_Part], batch: Batch) -> Served:
    answers = []
    for target in targets:
        if found := [figures[target] for figures, _ in parts if target in figures]:
            merged = {name: torch.cat([one[name] for one in found]) for name in found[0]}
            answers.append(Answer(given, target, rows[batch.present[target][rows]], **merged))
    drawn = {name: torch.cat([part[name] for _, part in parts]) for name in parts[0][1]}
    return Served(given, rows, tuple(answers), drawn)


def violations(answers: Iterable[Answer]) -> tuple[int, int]:
    """How many pairs of questions break monotonicity, and how many there are.

    Example:
        >>> rows = torch.arange(4)
        >>> less = Answer(("a",), "c", rows, torch.tensor([-1.0, -1.1, -0.9, -1.0]))
        >>> more = Answer(("a", "b"), "c", rows, torch.tensor([-2.0, -2.2, -1.9, -2.1]))
        >>> violations([less, more])
        (1, 1)
    """
    answers = [answer for answer in answers if answer.log_likelihood is not None]
    broken = pairs = 0
    for less in answers:
        for more in answers:
            if less.target == more.target and set(less.given) < set(more.given):
                difference = _paired(less, more)
                if len(difference) < 2:
                    continue
                pairs += 1
                broken += bool(difference.mean() < -2 * difference.std() / math.sqrt(len(difference)))
    return broken, pairs


def _paired(less: Answer, more: Answer) -> Tensor:
    """The differences in log-likelihood over the rows of both answers."""
    assert less.log_likelihood is not None
    assert more.log_likelihood is not None
    shared = torch.isin(more.rows, less.rows)
    place = torch.searchsorted(less.rows.contiguous(), more.rows[shared])
    return more.log_likelihood[shared] - less.log_likelihood[place]


def units_of(task: Task, train: Batch) -> dict[str, Tensor]:
    """The standard deviation of each column of reals over training rows, 1 for columns that never vary."""
    found = {}
    for name in (name for name in task.modalities if task.kind(name) == "reals"):
        rows = train.present[name]
        x = train.values[name][rows].double()
        cells = train.cells[name][rows] if name in train.cells else torch.ones_like(x, dtype=torch.bool)
        count = cells.sum(0).clamp(min=1)
        mean = torch.where(cells, x, 0.0).sum(0) / count
        deviation = (torch.where(cells, x - mean, 0.0).square().sum(0) / count).sqrt()
        found[name] = torch.where(deviation > 1e-6, deviation, 1.0).float()
    return found


def settings() -> dict[str, Any]:
    """Settings that results depend on besides the task."""
    return {"draws": DRAWS, "image_draws": IMAGE_DRAWS, "most": MOST, "level": LEVEL}
