"""The figures as Markdown: error and accuracy of each table by method, means of other scores, and the comparison with the best rival."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from benchmarks.readme import spread
from benchmarks.tables.data import TABLES
from benchmarks.tables.masks import MECHANISMS

TO_BEAT, PLAIN = ("knn", "missforest", "miceforest"), "mean"
METHODS = {
    "mean": "mean, mode", "knn": "KNN", "iterative": "IterativeImputer", "missforest": "missForest", "miceforest": "miceforest",
    "hyperimpute": "HyperImpute", "mofa": "MOFA+", "nbridge": "nbridge (init)", "imputer": "NBridgeImputer", "spec": "nbridge (spec)",
}  # fmt: skip
OURS = ("nbridge", "imputer", "spec")
MAIN = {"rmse": "RMSE", "accuracy": "accuracy"}
OTHERS = {"crps": "CRPS", "log": "log-density", "log class": "log-probability", "in 90 %": "in 90 %", "seconds": "seconds"}
TITLES = {
    "mcar": "cells at random", "mar": "cells by another column", "mnar": "cells by their own value", "modalities": "whole groups",
    "both": "whole groups, and cells at random",
}  # fmt: skip
BETTER = {"rmse": -1, "accuracy": 1}


def key_of(table: str, mechanism: str, method: str, seed: int) -> str:
    """The name of a run's figures.

    Example:
        >>> key_of("pbc", "mcar", "knn", 0)
        'pbc mcar knn 0'
    """
    return f"{table} {mechanism} {method} {seed}"


@dataclass(frozen=True)
class Figures:
    """All figures by the key of their run; those that failed have the reason instead."""

    runs: Mapping[str, Mapping[str, float | str]]
    seeds: int

    def of(self, table: str, mechanism: str, method: str, figure: str) -> list[float]:
        """A figure's values by seed, without seeds that have none."""
        keys = (key_of(table, mechanism, method, seed) for seed in range(self.seeds))
        return [value for key in keys if isinstance(value := self.runs.get(key, {}).get(figure), float | int)]

    def paired(self, table: str, mechanism: str, methods: Sequence[str], figure: str) -> list[tuple[float, ...]]:
        """A figure's values of two or more methods, for every seed that has all of them."""
        found = []
        for seed in range(self.seeds):
            values = [self.runs.get(key_of(table, mechanism, method, seed), {}).get(figure) for method in methods]
            if all(isinstance(value, float | int) for value in values):
                found.append(tuple(values))
        return found

    def methods(self, mechanism: str) -> list[str]:
        """Those with a figure of some table; names with changes (``nbridge latent_dim=8``) follow the plain ones."""
        names = {" ".join(key.split(" ")[2:-1]) for key, run in self.runs.items() if key.split(" ")[1] == mechanism and "seconds" in run}
        return sorted(names, key=lambda name: (list(METHODS).index(name.split(" ")[0]), name))


def section(figures: Figures) -> str:
    """All of it."""
    parts = []
    for mechanism in MECHANISMS:
        if methods := figures.methods(mechanism):
            parts += [f"**{TITLES[mechanism].capitalize()}**", _main(figures, mechanism, methods), _others(figures, mechanism, methods)]
            parts += ["\n".join(f"- {line}" for line in [*verdicts(figures, mechanism), *failures(figures, mechanism)])]
    return "\n\n".join(part for part in parts if part)


def verdicts(figures: Figures, mechanism: str) -> list[str]:
    """A line for each of our methods: on how many tables it is at least as good as the best rival, and where it is worse than the mean."""
    lines = []
    for ours in (method for method in figures.methods(mechanism) if method.split(" ")[0] in OURS):
        best = {figure: _tables(figures, mechanism, ours, figure, TO_BEAT) for figure in MAIN}
        counts = ", ".join(f"{MAIN[figure]} on {sum(found.values())} of {len(found)} tables" for figure, found in best.items())
        whole = [table for table in best["rmse"] if table in best["accuracy"]]
        both = sum(best["rmse"][table] and best["accuracy"][table] for table in whole)
        plain = {figure: _tables(figures, mechanism, ours, figure, (PLAIN,)) for figure in MAIN}
        worse = [f"{MAIN[figure]} of {table}" for figure, found in plain.items() for table, good in found.items() if not good]
        lines.append(
            f"{_title(ours)}, against the best of KNN, missForest and miceforest: {counts}, both on {both} of {len(whole)}; "
            f"worse than the mean or mode: {', '.join(worse) or 'never'}"
        )
    return lines


def at_least_as_good(ours: Iterable[float], theirs: Iterable[float], sign: int) -> bool:
    """Whether differences, paired by seed, are on average not worse than zero by more than their standard deviation.

    Example:
        >>> at_least_as_good([0.50, 0.56], [0.52, 0.52], -1), at_least_as_good([0.60, 0.61], [0.52, 0.52], -1)
        (True, False)
    """
    differences = [sign * (a - b) for a, b in zip(ours, theirs, strict=True)]
    return mean(differences) + (stdev(differences) if len(differences) > 1 else 0.0) >= 0


def failures(figures: Figures, mechanism: str) -> list[str]:
    """A line for each method and table with runs that failed, with the first reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for key, run in figures.runs.items():
        table, kind, *method, _ = key.split(" ")
        if kind == mechanism and "failed" in run:
            found.setdefault((table, " ".join(method)), []).append(str(run["failed"]))
    return [f"{_title(method)} on {table}, {len(said)} runs: {said[0]}" for (table, method), said in found.items()]


def _tables(figures: Figures, mechanism: str, ours: str, figure: str, rivals: Sequence[str]) -> dict[str, bool]:
    """Whether a method is at least as good as the rival that is best on average, of each table; rivals without figures are left out."""
    found = {}
    for table in TABLES:
        mine = len(figures.of(table, mechanism, ours, figure))
        measured = [rival for rival in rivals if mine and len(figures.paired(table, mechanism, (ours, rival), figure)) == mine]
        if measured:
            own, *others = zip(*figures.paired(table, mechanism, (ours, *measured), figure), strict=True)
            found[table] = at_least_as_good(own, max(others, key=lambda values: BETTER[figure] * mean(values)), BETTER[figure])
    return found


def _main(figures: Figures, mechanism: str, methods: Sequence[str]) -> str:
    lines = ["| | | " + " | ".join(map(_title, methods)) + " |", "|---" * (len(methods) + 2) + "|"]
    for table in TABLES:
        for figure, title in MAIN.items():
            values = [figures.of(table, mechanism, method, figure) for method in methods]
            if any(values):
                lines.append(f"| {table} | {title} | " + " | ".join(spread(v) if v else "–" for v in values) + " |")
    return "\n".join(lines)


def _others(figures: Figures, mechanism: str, methods: Sequence[str]) -> str:
    lines = ["| means of tables | tables | " + " | ".join(OTHERS.values()) + " |", "|---" * (len(OTHERS) + 2) + "|"]
    for method in methods:
        tables = [table for table in TABLES if figures.of(table, mechanism, method, "seconds")]
        cells = []
        for figure in OTHERS:
            values = [mean(found) for table in tables if (found := figures.of(table, mechanism, method, figure))]
            cells.append(f"{mean(values):{'.1f' if figure == 'seconds' else '.3f'}}" if values else "–")
        lines.append(f"| {_title(method)} | {len(tables)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _title(method: str) -> str:
    name, _, changes = method.partition(" ")
    return METHODS[name] + (f", {changes}" if changes else "")
