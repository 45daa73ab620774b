"""Comparison table of models: every metric over seeds, notes on how it was measured, and what was skipped."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nbridge.evaluation.results import NOTES, Evaluation, Settings, describe_settings, describe_skipped, finite

HIGHER = ("log-likelihood", "accuracy", "log-probability", "coherence", "log score")
"""Figures of which the higher is better."""
LOWER = ("RMSE", "RMSE/sd", "CRPS", "CRPS/sd", "Brier", "ECE")
"""Figures of which the lower is better."""


@dataclass(frozen=True)
class SeedValues:
    """A metric over seeds; NaN where a seed has no value."""

    values: tuple[float, ...]

    @property
    def known(self) -> tuple[float, ...]:
        """The finite values."""
        return tuple(value for value in self.values if math.isfinite(value))

    @property
    def mean(self) -> float:
        """The mean of the finite values; NaN if there are none."""
        return statistics.fmean(self.known) if self.known else math.nan

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the finite values, with n - 1 in the denominator; None for fewer than two."""
        return statistics.stdev(self.known) if len(self.known) > 1 else None

    def __str__(self) -> str:
        if not self.known:
            return "-"
        digits = 2 if abs(self.mean) >= 10 else 3
        spread = "" if self.deviation is None else f" ± {self.deviation:.{digits}f}"
        some = "" if len(self.known) == len(self.values) else f" ({len(self.known)} of {len(self.values)})"
        return f"{self.mean:.{digits}f}{spread}{some}"


@dataclass(frozen=True)
class ModelResults:
    """A model in a comparison."""

    name: str
    parameters: int
    seconds: SeedValues
    figures: Mapping[tuple[str, str], SeedValues]


@dataclass(frozen=True)
class Comparison:
    """The results of several models over a number of seeds, and the measurements that no model has, with the reason."""

    results: tuple[ModelResults, ...]
    seeds: int
    settings: Settings
    rows: int
    of_rows: int
    skipped: Mapping[str, str]

    def sections(self) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
        """Yields each measurement with its metrics and a cell per model, parameters and seconds first."""
        yield (
            "training",
            [
                ("parameters", [f"{one.parameters:,}" for one in self.results]),
                ("seconds", [f"{one.seconds.mean:,.1f}" if one.seconds.known else "-" for one in self.results]),
            ],
        )
        # In the order of the model with the most metrics, so that related ones are adjacent.
        fullest = sorted(self.results, key=lambda one: -len(one.figures))
        keys = dict.fromkeys(key for one in fullest for key in one.figures)
        for measurement in dict.fromkeys(measurement for measurement, _ in keys):
            figures = [figure for title, figure in keys if title == measurement]
            yield measurement, [(figure, [self._cell(one, measurement, figure) for one in self.results]) for figure in figures]

    def summary(self) -> list[tuple[str, str, list[str]]]:
        """The main figures: a line for each measurement with its first figure, and a cell for each model, marked ``*`` for the best.

        The better of two figures is the higher, but the lower of errors and distances (`LOWER`).
        """
        lines = []
        fullest = max(self.results, key=lambda one: len(one.figures))
        for measurement in dict.fromkeys(measurement for measurement, _ in fullest.figures):
            figure = next((name for title, name in fullest.figures if title == measurement and _known(name)), None)
            if figure is not None:
                best = self.best(measurement, figure)
                cells = [self._cell(one, measurement, figure) + (" *" if one.name in best else "") for one in self.results]
                lines.append((measurement, figure, cells))
        return lines

    def best(self, measurement: str, figure: str) -> tuple[str, ...]:
        """The names of the models with the best mean of a figure; empty if fewer than two models have it."""
        means = {
            one.name: one.figures[measurement, figure].mean
            for one in self.results
            if (measurement, figure) in one.figures and one.figures[measurement, figure].known
        }
        if len(means) < 2:
            return ()
        top = (min if _lower(figure) else max)(means.values())
        return tuple(name for name, mean in means.items() if mean == top)

    def wins(self) -> dict[str, int]:
        """The number of lines of the summary in which each model is best, by name, most first."""
        counts = {one.name: 0 for one in self.results}
        for measurement, figure, _ in self.summary():
            for name in self.best(measurement, figure):
                counts[name] += 1
        return dict(sorted(counts.items(), key=lambda pair: -pair[1]))

    def pareto(self) -> tuple[str, ...]:
        """The models that no other model with at most as many parameters beats in wins, and no other with as many wins in parameters."""
        wins = self.wins()
        cost = {one.name: one.parameters for one in self.results}

        def beaten(name: str) -> bool:
            return any(
                wins[other] >= wins[name] and cost[other] <= cost[name] and (wins[other], cost[other]) != (wins[name], cost[name])
                for other in cost
            )

        return tuple(name for name in sorted(cost, key=cost.__getitem__) if not beaten(name))

    def notes(self) -> list[str]:
        """Notes on how the values were measured and how to read them, one line each."""
        spread = "one training run each" if self.seeds == 1 else f"mean ± standard deviation over {self.seeds} seeds"
        titles = {measurement for one in self.results for measurement, _ in one.figures}
        starts = {metric: "log p(" if metric == "likelihood" else f"{metric} " for metric in NOTES}
        notes = [note for metric, note in NOTES.items() if any(title.startswith(starts[metric]) for title in titles)]
        some = [one for one in self.results if any(0 < len(figure.known) < self.seeds for figure in one.figures.values())]
        notes += [f"(n of {self.seeds}): over the n seeds with a finite value"] if some else []
        return [f"Figures: {spread}; {describe_settings(self.settings, self.rows, self.of_rows)}", *notes, *describe_skipped(self.skipped)]

    def markdown(self) -> str:
        """The table in Markdown."""
        heads = [_escaped(one.name) for one in self.results]
        lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
        for measurement, figures in self.sections():
            lines += [f"| {_escaped(measurement)}: {_escaped(figure)} | {' | '.join(cells)} |" for figure, cells in figures]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes())]) + "\n"

    def as_dict(self) -> dict[str, object]:
        """The comparison as JSON values: every value of every seed, null if it has none."""
        return {
            "seeds": self.seeds,
            "settings": self.settings.as_dict(),
            "rows": self.rows,
            "of_rows": self.of_rows,
            "skipped": dict(self.skipped),
            "models": [
                {
                    "name": one.name,
                    "parameters": one.parameters,
                    "seconds": [finite(value) for value in one.seconds.values],
                    "figures": [
                        {"measurement": measurement, "figure": figure, "values": [finite(value) for value in spread.values]}
                        for (measurement, figure), spread in one.figures.items()
                    ],
                }
                for one in self.results
            ],
        }

    @staticmethod
    def _cell(model: ModelResults, measurement: str, figure: str) -> str:
        spread = model.figures.get((measurement, figure))
        return "-" if spread is None else str(spread)


def _known(figure: str) -> bool:
    """Whether it is known which of two values of a figure is better."""
    return figure in HIGHER or _lower(figure)


def _lower(figure: str) -> bool:
    return figure in LOWER


def aggregate(name: str, evaluations: Sequence[Evaluation], seconds: Sequence[float]) -> ModelResults:
    """Collects the results of a model over its seeds; a missing value is NaN. There is one evaluation and one training time per seed."""
    measured = [
        {(measurement.title, figure): value for measurement in one.measurements for figure, value in measurement.figures.items()}
        for one in evaluations
    ]
    keys = dict.fromkeys(key for one in measured for key in one)
    figures = {key: SeedValues(tuple(one.get(key, math.nan) for one in measured)) for key in keys}
    return ModelResults(name, evaluations[0].parameters, SeedValues(tuple(seconds)), figures)


def skipped_by_all(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """The measurements that no model has, with the reason given for the model that has the most."""
    fullest = max(evaluations, key=lambda one: len(one.measurements))
    measured = {name for one in evaluations for measurement in one.measurements for name in (measurement.metric, measurement.title)}
    return {what: why for what, why in fullest.skipped.items() if what not in measured}


def _escaped(text: str) -> str:
    """Escapes text for a Markdown table cell."""
    return text.replace("\\", "\\\\").replace("|", "\\|")
