"""Tables of the suite: rows are systems, a cell has a figure for each number of modalities given, means and spreads over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from benchmarks.suite.systems import BUILT_IN, RIVALS, System
from benchmarks.suite.tasks import Task

Run = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A figure of a kind of modality.

    Arguments:
        title: Its heading.
        kind: The kind; "" for figures of the run as a whole.
        figure: Its name in results.
        digits: Digits behind the point.
        sign: 1 where more is better, -1 where less is, 0 where a target is neither.
    """

    title: str
    kind: str
    figure: str
    digits: int = 3
    sign: int = 0


COLUMNS = (
    Column("class: LL", "classes", "ll", 2, 1),
    Column("class: accuracy", "classes", "accuracy", 3, 1),
    Column("class: ECE", "classes", "ece"),
    Column("attributes: LL each", "attributes", "ll_each", 3, 1),
    Column("attributes: accuracy", "attributes", "accuracy", 3, 1),
    Column("attributes: ECE", "attributes", "ece"),
    Column("numbers: LL each", "reals", "ll_each", 3, 1),
    Column("numbers: RMSE / sd", "reals", "rmse", 3, -1),
    Column("in 90 %", "reals", "inside"),
    Column("image: LL", "images", "ll", 1, 1),
    Column("coherence", "images", "coherence", 3, 1),
    Column("variety", "images", "variety"),
    Column("all agree", "", "agreement"),
)


def tables(results: Mapping[str, Run], tasks: Sequence[Task], systems: Sequence[System] | None, budget: int) -> str:
    """A table and a summary for each task that has runs.

    Arguments:
        results: All runs by key.
        tasks: The tasks.
        systems: The systems; all that have runs when left out.
        budget: The budget of the runs.
    """
    parts = []
    for task in tasks:
        runs = _runs(results, task, budget)
        if systems is not None:
            keys = ["baseline", *(system.key for system in systems)]
            runs = {key: runs[key] for key in keys if key in runs}
        if set(runs) - {"baseline"}:
            parts.append("\n".join([f"**{task.title}**", "", *_table(task, runs), "", *_summary(task, runs)]))
    return "\n\n".join(parts)


def _runs(results: Mapping[str, Run], task: Task, budget: int) -> dict[str, list[Run]]:
    """The runs of each system, by seed, those of the table's own systems first."""
    found: dict[str, dict[int, Run]] = {}
    for key, run in results.items():
        name, system, seed, updates = key.split(" | ")
        if name == task.name and int(updates) in (budget, 0):
            found.setdefault(system, {})[int(seed)] = run
    order = ["baseline", *BUILT_IN, *RIVALS, *found]
    return {system: [found[system][seed] for seed in sorted(found[system])] for system in dict.fromkeys(order) if system in found}


def figures(run: Run, column: Column) -> dict[str, float]:
    """A column's figure by the number given, as text."""
    by_number = run.get(column.figure, {}) if not column.kind else run["kinds"].get(column.kind, {})
    return {number: found[column.figure] for number, found in by_number.items() if column.figure in found}


def _table(task: Task, runs: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    columns = [column for column in COLUMNS if any(figures(run, column) for found in runs.values() for run in found)]
    numbers = "/".join(str(number) for number in range(1, len(task.modalities)))
    yield f"| given {numbers} | " + " | ".join(column.title for column in columns) + " | violations | CPU seconds |"
    yield "|---" * (len(columns) + 3) + "|"
    for system, found in runs.items():
        cells = [_cell([figures(run, column) for run in found], column.digits) for column in columns]
        yield f"| {_name(system)} ({len(found)}) | " + " | ".join([*cells, _violations(found), _seconds(found)]) + " |"
    if ceilings := _ceilings(runs):
        yield ""
        yield ceilings


def _name(key: str) -> str:
    return "free baseline" if key == "baseline" else key.partition(":")[0] if len(key) > 60 else key


def _cell(found: Sequence[Mapping[str, float]], digits: int) -> str:
    numbers = sorted({number for one in found for number in one}, key=int)
    return " / ".join(_spread([one[number] for one in found if number in one], digits) for number in numbers)


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def _violations(found: Sequence[Run]) -> str:
    return f"{mean(run['monotonicity']['broken'] for run in found):.3g} of {found[0]['monotonicity']['pairs']}"


def _seconds(found: Sequence[Run]) -> str:
    return f"{mean(run['train_seconds'] for run in found):.0f}"


def _ceilings(runs: Mapping[str, Sequence[Run]]) -> str:
    """What coherence and agreement can reach: real rows, and reconstructions of the default."""
    found = [run["ceilings"] for key in ("default", *runs) for run in runs.get(key, ()) if "ceilings" in run]
    if not found:
        return ""
    real, again = found[0]["real"], found[0]["reconstructions"]
    rebuilt = [one["coherence"] for name, one in again.items() if name]
    agree = f", all agree {again['']['agreement']:.3f}" if "" in again else ""
    return (
        f"Judges: {real['judges']:.3f} of real images (least {real['least']:.3f}), all agree {real['agreement']:.3f}; of reconstructions "
        f"{mean(rebuilt):.3f}{agree}."
    )


# Ranks


def _summary(task: Task, runs: Mapping[str, Sequence[Run]]) -> Iterator[str]:
    if "default" not in runs:
        return
    parts = []
    for column in (column for column in COLUMNS if column.sign and any(figures(run, column) for run in runs["default"])):
        parts.append(f"{column.title} {' '.join(_rank(runs, column, number) for number in _numbers(runs['default'], column))}")
    broken = _violations(runs["default"])
    yield f"Default, rank by number given (= within one spread of the first, ! below the baseline): {'; '.join(parts)}; violations {broken}."


def _numbers(found: Sequence[Run], column: Column) -> list[str]:
    return sorted({number for run in found for number in figures(run, column)}, key=int)


def _rank(runs: Mapping[str, Sequence[Run]], column: Column, number: str) -> str:
    """The default's rank among systems, and how it stands to the first and to the baseline."""
    values = {key: [v for run in found if (v := figures(run, column).get(number)) is not None] for key, found in runs.items()}
    means = {key: column.sign * mean(found) for key, found in values.items() if found}
    spread = stdev(values["default"]) if len(values["default"]) > 1 else 0.0
    own, rivals = means["default"], [m for key, m in means.items() if key not in ("default", "baseline")]
    rank = 1 + sum(m > own for m in rivals)
    first = max(rivals, default=-math.inf)
    mark = "=" if rank > 1 and first - own <= spread else ""
    below = "!" if "baseline" in means and own + spread < means["baseline"] else ""
    return f"{rank}{mark}{below}"
