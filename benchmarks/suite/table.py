"""Tables of the suite: rows are systems, a cell has a figure for each number of modalities given, means and spreads over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any

from benchmarks.readme import spread
from benchmarks.suite.systems import BUILT_IN, RIVALS, System
from benchmarks.suite.tasks import Task

Run = Mapping[str, Any]
Runs = Mapping[str, Mapping[int, Run]]
"""Runs by system and seed."""
BASELINE = "baseline"


@dataclass(frozen=True)
class Column:
    """A figure of a kind of modality.

    Arguments:
        title: Its heading.
        of: The kind, or the modality; "" for figures of the run as a whole.
        figure: Its name in results.
        digits: Digits behind the point.
        sign: 1 where more is better, -1 where less is, 0 where a target is neither.
        relative: Whether the baseline's figure of the same seed is subtracted, where there is one.
        group: Where results have it: ``kinds`` or ``targets``.
    """

    title: str
    of: str
    figure: str
    digits: int = 3
    sign: int = 0
    relative: bool = False
    group: str = "kinds"

    def of_run(self, run: Run) -> dict[str, float]:
        """The figure by the number given, as text."""
        by_number = run[self.group].get(self.of, {}) if self.of else run.get(self.figure, {})
        return {number: found[self.figure] for number, found in by_number.items() if self.figure in found}

    def of_runs(self, system: str, runs: Runs) -> dict[str, list[float]]:
        """The figure of each seed by the number given, relative to the baseline where it is so."""
        found: dict[str, list[float]] = {}
        for seed, run in runs.get(system, {}).items():
            base = self.of_run(runs.get(BASELINE, {}).get(seed, {self.group: {}})) if self.relative and system != BASELINE else {}
            for number, value in self.of_run(run).items():
                found.setdefault(number, []).append(value - base.get(number, 0.0))
        return dict(sorted(found.items(), key=lambda item: int(item[0])))


FIGURES: Mapping[str, tuple[Column, ...]] = {
    "classes": (
        Column("LL", "classes", "ll", 2, 1, relative=True),
        Column("accuracy", "classes", "accuracy", 3, 1),
        Column("ECE above chance", "classes", "ece_above_chance"),
    ),
    "attributes": (
        Column("LL each", "attributes", "ll_each", 3, 1, relative=True),
        Column("accuracy", "attributes", "accuracy", 3, 1),
        Column("ECE above chance", "attributes", "ece_above_chance"),
    ),
    "reals": (
        Column("LL each", "reals", "ll_each", 3, 1, relative=True),
        Column("RMSE / sd", "reals", "rmse", 3, -1),
        Column("in 90 %", "reals", "inside"),
    ),
    "images": (
        Column("LL", "images", "ll", 1, 1, relative=True),
        Column("coherence", "images", "coherence", 3, 1),
        Column("variety", "images", "variety"),
    ),
}
"""The figures of each kind of modality."""
NAMES = {"classes": "class", "attributes": "attributes", "reals": "numbers", "images": "image"}


def tables(
    results: Mapping[str, Run], tasks: Sequence[Task], systems: Sequence[System] | None, budget: int, *, targets: bool = False
) -> str:
    """A table and a summary for each task that has runs.

    Arguments:
        results: All runs by key.
        tasks: The tasks.
        systems: The systems; all that have runs when left out.
        budget: The budget of the runs.
        targets: Whether each modality has columns of its own, in the place of each kind.
    """
    parts = []
    for task in tasks:
        runs = _runs(results, task, budget)
        if systems is not None:
            keys = [BASELINE, *(system.key for system in systems)]
            runs = {key: runs[key] for key in keys if key in runs}
        if set(runs) - {BASELINE}:
            columns = [column for column in _columns(task, targets) if any(column.of_runs(system, runs) for system in runs)]
            parts.append("\n".join([f"**{task.title}**", "", *_table(task, runs, columns), "", *_summary(runs, columns)]))
    return "\n\n".join(parts)


def _columns(task: Task, targets: bool) -> list[Column]:
    agreement = Column("all agree", "", "agreement")
    if targets:
        named = [(name, column) for name in task.modalities for column in FIGURES[task.kind(name)] if column.sign]
        return [replace(column, title=f"{name}: {column.title}", of=name, group="targets") for name, column in named]
    kinds = dict.fromkeys(task.kind(name) for name in task.modalities)
    columns = [replace(column, title=f"{NAMES[kind]}: {column.title}") for kind in FIGURES if kind in kinds for column in FIGURES[kind]]
    return [*columns, agreement]


def _runs(results: Mapping[str, Run], task: Task, budget: int) -> dict[str, dict[int, Run]]:
    """The runs of each system by seed, those of the table's own systems first."""
    found: dict[str, dict[int, Run]] = {}
    for key, run in results.items():
        name, system, seed, updates = key.split(" | ")
        if name == task.name and int(updates) in (budget, 0):
            found.setdefault(system, {})[int(seed)] = run
    order = [BASELINE, *BUILT_IN, *RIVALS, *found]
    return {system: dict(sorted(found[system].items())) for system in dict.fromkeys(order) if system in found}


def _table(task: Task, runs: Runs, columns: Sequence[Column]) -> Iterator[str]:
    numbers = "/".join(str(number) for number in range(1, len(task.modalities)))
    yield f"| given {numbers} (seeds) | " + " | ".join(column.title for column in columns) + " | violations | CPU seconds |"
    yield "|---" * (len(columns) + 3) + "|"
    for system, by_seed in runs.items():
        found = list(by_seed.values())
        cells = [_cell(column, system, runs) for column in columns]
        yield f"| {_name(system)} ({len(found)}) | " + " | ".join([*cells, _violations(found), _seconds(found)]) + " |"
    if ceilings := _ceilings(runs):
        yield ""
        yield ceilings


def _name(key: str) -> str:
    return "free baseline" if key == BASELINE else key.partition(":")[0] if len(key) > 60 else key


def _cell(column: Column, system: str, runs: Runs) -> str:
    """The figures by the number given; with a sign where they are relative to the baseline's."""
    sign = "+" if column.relative and system != BASELINE and column.of_runs(BASELINE, runs) else ""
    return " / ".join(spread(values, f"{sign}.{column.digits}f") for values in column.of_runs(system, runs).values())


def _violations(found: Sequence[Run]) -> str:
    if not found[0]["monotonicity"]["pairs"]:
        return ""
    return f"{mean(run['monotonicity']['broken'] for run in found):.3g} of {found[0]['monotonicity']['pairs']}"


def _seconds(found: Sequence[Run]) -> str:
    return f"{mean(run['train_seconds'] for run in found):.0f}"


def _ceilings(runs: Runs) -> str:
    """What coherence and agreement can reach: real rows, and reconstructions of the first system that has them."""
    found = [run["ceilings"] for key in ("default", *runs) for run in runs.get(key, {}).values() if "ceilings" in run]
    if not found:
        return ""
    real, again = found[0]["real"], found[0]["reconstructions"]
    rebuilt = [one["coherence"] for name, one in again.items() if name]
    agree = [f", all agree {one['agreement']:.3f}" if "agreement" in one else "" for one in (real, again.get("", {}))]
    judged = f"Judges: {real['judges']:.3f} of real images (least {real['least']:.3f}){agree[0]}"
    return f"{judged}; of reconstructions {mean(rebuilt):.3f}{agree[1]}."


# Ranks


def _summary(runs: Runs, columns: Sequence[Column]) -> Iterator[str]:
    if "default" not in runs:
        return
    ranks = [
        f"{column.title} {' '.join(_rank(runs, column, number) for number in column.of_runs('default', runs))}"
        for column in columns
        if column.sign and column.of_runs("default", runs)
    ]
    broken = _violations(list(runs["default"].values()))
    legend = "= within one spread of the first, ! more than one spread below the baseline"
    yield f"Default, rank by number given ({legend}): {'; '.join(ranks)}; violations {broken}."


def _rank(runs: Runs, column: Column, number: str) -> str:
    """The default's rank among systems, and how it stands to the first and to the baseline."""
    plain = replace(column, relative=False)
    values = {system: found for system in runs if (found := plain.of_runs(system, runs).get(number))}
    means = {system: column.sign * mean(found) for system, found in values.items()}
    own, rivals = means["default"], {system: m for system, m in means.items() if system not in ("default", BASELINE)}
    rank = 1 + sum(m > own for m in rivals.values())
    first = max(rivals, key=lambda system: rivals[system]) if rivals else "default"
    near = rank > 1 and means[first] - own <= _pooled(values["default"], values[first])
    base = means.get(BASELINE, -math.inf)
    below = base - own > _pooled(values["default"], values.get(BASELINE, ()))
    return f"{rank}{'=' if near else ''}{'!' if below else ''}"


def _pooled(a: Sequence[float], b: Sequence[float]) -> float:
    """The spread of two systems over seeds, the root of the mean of their variances; 0 where neither has two seeds."""
    spreads = [stdev(values) if len(values) > 1 else 0.0 for values in (a, b)]
    return math.sqrt(sum(spread**2 for spread in spreads) / 2)
