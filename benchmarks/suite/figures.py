"""Aggregates answers into the scores of a run: by kind of modality, by modality, and by number of given modalities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from benchmarks.suite.judges import Panel
from benchmarks.suite.measure import Answer, Served, violations
from benchmarks.suite.tasks import Task
from nbridge.data.batch import Batch
from nbridge.evaluation.calibration import calibration_error, reliability

Judged = tuple[int, str, Mapping[str, float]]
"""The number given, the image ("" for all together), and its figures by name."""
Figures = dict[str, Any]
"""``kinds`` and ``targets``: figures by name, then by the number given as text; ``monotonicity``; ``agreement`` by the number given."""


def figures_of(task: Task, served: Iterable[Served], test: Batch, panel: Panel | None = None) -> Figures:
    """All figures of a system on a task.

    Arguments:
        task: The task.
        served: What it answered; images are judged one set at a time, so that an iterator need not keep them.
        test: The test rows, with the judges' label.
        panel: The judges, where there are images.
    """
    answers: list[Answer] = []
    judged: list[Judged] = []
    for one in served:
        answers += one.answers
        if panel is not None:
            judged += [(len(one.given), name, found) for name, found in panel.verdicts(one.drawn, one.rows, test).items()]
    broken, pairs = violations(answers)
    found: Figures = {"kinds": {}, "targets": {}, "monotonicity": {"broken": broken, "pairs": pairs}}
    for name in task.modalities:
        found["targets"][name] = by_number([a for a in answers if a.target == name], task, [j for j in judged if j[1] == name])
    for kind in dict.fromkeys(task.kind(name) for name in task.modalities):
        of_kind = [a for a in answers if task.kind(a.target) == kind]
        found["kinds"][kind] = by_number(of_kind, task, [j for j in judged if j[1] in task.modalities and task.kind(j[1]) == kind])
    if together := [one for one in judged if not one[1]]:
        found["agreement"] = of_number(together)
    return found


def by_number(answers: Sequence[Answer], task: Task, judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Scores by number given, as text."""
    numbers = sorted({len(answer.given) for answer in answers} | {number for number, _, _ in judged})
    return {
        str(number): _summary([a for a in answers if len(a.given) == number], task)
        | _means([found for n, _, found in judged if n == number])
        for number in numbers
    }


def of_number(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Means over sets by number given, as text."""
    return {str(n): _means([found for number, _, found in judged if number == n]) for n in sorted({number for number, _, _ in judged})}


def _summary(answers: Sequence[Answer], task: Task) -> dict[str, float]:
    """Means over questions with equal weight; calibration over all predictions."""
    found: dict[str, float] = {"questions": len(answers)}
    scored = [(a.log_likelihood, task.elements(a.target)) for a in answers if a.log_likelihood is not None]
    if scored:
        found["ll"] = mean(ll.mean().item() for ll, _ in scored)
        found["ll_each"] = mean(ll.mean().item() / elements for ll, elements in scored)
        # From a single question, because different questions share rows.
        found["se_each"] = mean((ll.std() / math.sqrt(len(ll)) / elements).item() for ll, elements in scored if len(ll) > 1)
    right = [a.right.double() for a in answers if a.right is not None]
    if right:
        found["accuracy"] = mean(one.mean().item() for one in right)
        confidence = torch.cat([a.confidence for a in answers if a.confidence is not None])
        found |= _calibration(confidence, torch.cat(right))
    if square := [a.square for a in answers if a.square is not None]:
        found["rmse"] = mean(math.sqrt(one.double().mean().item()) for one in square)
    if inside := [a.inside for a in answers if a.inside is not None]:
        found["inside"] = mean(one.mean().item() for one in inside)
    return found


def _calibration(confidence: Tensor, right: Tensor) -> dict[str, float]:
    """Expected calibration error, and its expectation for perfectly calibrated predictions."""
    generator = torch.Generator().manual_seed(0)
    confidence = confidence.double()
    chance = [
        calibration_error(reliability(confidence, torch.rand(len(confidence), generator=generator, dtype=torch.float64) < confidence))
        for _ in range(10)
    ]
    error = calibration_error(reliability(confidence, right))
    return {"ece": error, "ece_by_chance": mean(chance), "ece_above_chance": error - mean(chance)}


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in found for name in one)
    return {name: mean(one[name] for one in found if name in one) for name in names}
