"""Models side by side, as one table: every figure over seeds, how it was taken, and what could be measured of none."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nbridge.evaluation.results import NOTES, Evaluation, Settings, finite, left_out, taken


@dataclass(frozen=True)
class Spread:
    """A figure over seeds.

    Arguments:
        values: One for each seed; NaN where a seed has none.
    """

    values: tuple[float, ...]

    @property
    def known(self) -> tuple[float, ...]:
        """The values that are finite."""
        return tuple(value for value in self.values if math.isfinite(value))

    @property
    def mean(self) -> float:
        """The mean over the seeds that have a finite value; NaN where none has."""
        return statistics.fmean(self.known) if self.known else math.nan

    @property
    def deviation(self) -> float | None:
        """The standard deviation over those seeds, with n - 1 in the denominator; None for fewer than two."""
        return statistics.stdev(self.known) if len(self.known) > 1 else None

    def __str__(self) -> str:
        if not self.known:
            return "-"
        digits = 2 if abs(self.mean) >= 10 else 3
        spread = "" if self.deviation is None else f" ± {self.deviation:.{digits}f}"
        some = "" if len(self.known) == len(self.values) else f" ({len(self.known)} of {len(self.values)})"
        return f"{self.mean:.{digits}f}{spread}{some}"


@dataclass(frozen=True)
class Contestant:
    """One model of a comparison.

    Arguments:
        name: What it is called.
        parameters: Its number of parameters.
        seconds: Time its training took, over seeds.
        figures: By measurement and figure, over seeds.
    """

    name: str
    parameters: int
    seconds: Spread
    figures: Mapping[tuple[str, str], Spread]


@dataclass(frozen=True)
class Comparison:
    """Models side by side.

    Arguments:
        contestants: The models.
        seeds: How many trainings of each.
        settings: How they were evaluated.
        rows: The number of rows that they were evaluated on.
        of_rows: The number of rows of the split.
        skipped: What could be measured of no model, with the reason.
    """

    contestants: tuple[Contestant, ...]
    seeds: int
    settings: Settings
    rows: int
    of_rows: int
    skipped: Mapping[str, str]

    def sections(self) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
        """By measurement, its figures with a cell for each model: every figure that some model has, parameters and seconds first."""
        yield (
            "training",
            [
                ("parameters", [f"{one.parameters:,}" for one in self.contestants]),
                ("seconds", [f"{one.seconds.mean:,.1f}" if one.seconds.known else "-" for one in self.contestants]),
            ],
        )
        # In the order of the model that has most of them, so that figures of one metric stand together.
        fullest = sorted(self.contestants, key=lambda one: -len(one.figures))
        keys = dict.fromkeys(key for one in fullest for key in one.figures)
        for measurement in dict.fromkeys(measurement for measurement, _ in keys):
            figures = [figure for title, figure in keys if title == measurement]
            yield measurement, [(figure, [self._cell(one, measurement, figure) for one in self.contestants]) for figure in figures]

    def notes(self) -> list[str]:
        """How the figures were taken and how to read them, a line each."""
        spread = "of one training each" if self.seeds == 1 else f"mean ± standard deviation over {self.seeds} seeds"
        titles = {measurement for one in self.contestants for measurement, _ in one.figures}
        notes = [note for metric, note in NOTES.items() if any(_is_of(title, metric) for title in titles)]
        some = [one for one in self.contestants if any(0 < len(figure.known) < self.seeds for figure in one.figures.values())]
        notes += [f"(n of {self.seeds}): over the n seeds that have a finite figure"] if some else []
        return [f"Figures: {spread}; {taken(self.settings, self.rows, self.of_rows)}", *notes, *left_out(self.skipped)]

    def markdown(self) -> str:
        """The table in Markdown."""
        heads = [_escaped(one.name) for one in self.contestants]
        lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
        for measurement, figures in self.sections():
            lines += [f"| {_escaped(measurement)}: {_escaped(figure)} | {' | '.join(cells)} |" for figure, cells in figures]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes())]) + "\n"

    def as_dict(self) -> dict[str, object]:
        """For JSON: every figure of every seed, null where it has none."""
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
                for one in self.contestants
            ],
        }

    @staticmethod
    def _cell(contestant: Contestant, measurement: str, figure: str) -> str:
        spread = contestant.figures.get((measurement, figure))
        return "-" if spread is None else str(spread)


def gathered(name: str, evaluations: Sequence[Evaluation], seconds: Sequence[float]) -> Contestant:
    """A model over its seeds; where a seed lacks a figure it counts as NaN.

    Arguments:
        name: What it is called.
        evaluations: One for each seed.
        seconds: Time that the training of each seed took.
    """
    measured = [
        {(measurement.title, figure): value for measurement in one.measurements for figure, value in measurement.figures.items()}
        for one in evaluations
    ]
    keys = dict.fromkeys(key for one in measured for key in one)
    figures = {key: Spread(tuple(one.get(key, math.nan) for one in measured)) for key in keys}
    return Contestant(name, evaluations[0].parameters, Spread(tuple(seconds)), figures)


def measured_of_none(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """What was left out even of the model that served most, and was measured of no other, with the reason."""
    fullest = max(evaluations, key=lambda one: len(one.measurements))
    measured = {name for one in evaluations for measurement in one.measurements for name in (measurement.metric, measurement.title)}
    return {what: why for what, why in fullest.skipped.items() if what not in measured}


def _is_of(title: str, metric: str) -> bool:
    return title.startswith("log p(" if metric == "likelihood" else f"{metric} ")


def _escaped(text: str) -> str:
    """A text as a cell of Markdown."""
    return text.replace("\\", "\\\\").replace("|", "\\|")
