"""Evaluation settings and results, and their strict JSON form.

JSON has no NaN or infinities: they are written as null, and null is read as NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic_core import to_jsonable_python

from nbridge.common.json_text import parse_json
from nbridge.common.messages import did_you_mean, listing
from nbridge.common.warnings import Finding
from nbridge.errors import DataError
from nbridge.evaluation.calibration import MIN_DRAWS
from nbridge.evaluation.verdict import Verdict
from nbridge.version import __version__

Metric = Literal[
    "likelihood", "conditional", "labels", "predictive", "coherence", "diversity", "agreement", "attributes", "imputation", "calibration",
    "cells",
]  # fmt: skip
METRICS: tuple[str, ...] = get_args(Metric)
CELLS, REST = "cells", "the rest of the row"
"""The metric of single cells, and what they are given, in words."""
Split = Literal["test", "validation", "train"]
SPLITS: tuple[str, ...] = get_args(Split)
Names = tuple[str, ...]
NOTES: Mapping[str, str] = {
    "likelihood": "likelihood: log p(target) in nats, by importance sampling from q(z|.); a lower bound that rises with K. Standard error: "
    "of the Monte-Carlo estimate; error over rows: how much the mean would change with other rows of the same distribution.",
    "conditional": "conditional: log p(target|given) in nats, with the standard error of the Monte-Carlo estimate. A difference of two "
    "lower bounds, so neither a lower nor an upper bound: trust it only once it no longer changes with K.",
    "predictive": "predictive: log of the mean likelihood over draws of z given the observed, in nats; accuracy and RMSE are of the point "
    "estimate.",
    "coherence": "coherence: share of draws to which a classifier assigns the true label. It rewards mean images: read it together with "
    "predictive and diversity.",
    "diversity": "diversity: within-class variance of generated values divided by that of real ones; Fréchet distance between generated "
    "and real rows; its floor is the distance between real rows and other real rows.",
    "agreement": "agreement: share of draws in which all generated modalities have the same label; coherence: the true one.",
    "imputation": "imputation: RMSE and CRPS in the units of the data; coverage of central intervals equals their level when calibrated.",
    "cells": "cells: a fifth of the observed columns of each row is hidden at random and imputed from the rest of the row. RMSE and CRPS "
    "in standard deviations of a column (counts as log(1 + x)); accuracy beside the share of the most frequent class; log score: mean "
    "log-probability of the true class, in nats. Figures of a modality are means over columns.",
}
"""Notes to show together with a metric's figures."""
MAX_LISTED = 4
"""Number of items shown of a longer list."""
ERRORS = ("standard error", "error over rows", "effective sample size")
"""Figures that qualify another figure."""


class OptionError(DataError):
    """An invalid option of an evaluation or a comparison; the message begins with its name, shown as ``--NAME`` on the command line."""


@dataclass(frozen=True)
class Settings:
    """Evaluation settings.

    Arguments:
        metrics: The metrics; all that the model supports when omitted.
        given: Conditioning sets, an empty one for the prior; when omitted, every single modality and every set with one modality left out.
        densities: The sets of modalities whose density ``likelihood`` estimates; when omitted, the sets in ``given``, or if that is omitted
            too, every single modality and all together.
        split: The rows.
        rows: Maximum number of rows: the first ones, or a random sample of rows stored on disk; None for all.
        density_rows: Maximum number of these for the metrics that draw K samples, again the first ones; None for all.
        samples: The number K of importance samples of z, for ``likelihood``, ``conditional`` and ``labels``.
        draws: Draws of z for ``predictive``, ``attributes``, ``imputation``, ``calibration`` and ``cells``.
        generated: Draws per row for ``coherence``, ``diversity`` and ``agreement``.
        label: The modality that classifiers predict; when omitted, the first categorical one, else the first of attributes.
        seed: Seed of all draws and of the classifiers.
    """

    metrics: tuple[Metric, ...] | None = None
    given: tuple[Names, ...] | None = None
    densities: tuple[Names, ...] | None = None
    split: Split = "test"
    rows: int | None = 1000
    density_rows: int | None = None
    samples: int = 5000
    draws: int = 200
    generated: int = 10
    label: str | None = None
    seed: int = 0

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Settings:
        """Inverse of `as_dict`."""
        lists = {name: value for name, value in content.items() if isinstance(value, list)}
        tuples = {name: tuple(tuple(item) if isinstance(item, list) else item for item in value) for name, value in lists.items()}
        return cls(**{**content, **tuples})

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible dict."""
        return to_jsonable_python(asdict(self))

    def check(self, modalities: Iterable[str]) -> None:
        """Validates the settings against the names of the modalities.

        Raises:
            OptionError: naming the first invalid option.
        """
        self._check_words()
        self._check_modalities(tuple(modalities))
        for name, least in (("rows", 1), ("density_rows", 1), ("samples", 1), ("draws", 1), ("generated", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"{name} {value}: expected {least} or more")
        if self.draws < MIN_DRAWS and (short := [name for name in ("imputation", CELLS) if name in (self.metrics or ())]):
            raise OptionError(f"draws {self.draws}: metric {short[0]} needs {MIN_DRAWS} or more")

    def _check_words(self) -> None:
        if self.metrics == ():
            raise OptionError(f"metrics: expected one or more. Known: {listing(METRICS)}")
        for kind, option, words, known in (("metric", "metrics", self.metrics, METRICS), ("split", "split", (self.split,), SPLITS)):
            if unknown := [word for word in words or () if word not in known]:
                raise OptionError(f"{option} {unknown[0]}: no such {kind}.{did_you_mean(unknown[0], known)} Known: {listing(known)}")

    def _check_modalities(self, modalities: Names) -> None:
        named = [("given", names) for names in self.given or ()] + [("densities", names) for names in self.densities or ()]
        for option, names in [*named, *([("label", (self.label,))] if self.label is not None else [])]:
            if unknown := [name for name in names if name not in modalities]:
                guess = did_you_mean(unknown[0], modalities)
                raise OptionError(f"{option} {','.join(names)}: no modality {unknown[0]!r}.{guess} Modalities: {listing(modalities)}")
        if () in (self.densities or ()):
            raise OptionError("densities: an empty set of modalities has no density")


@dataclass(frozen=True)
class Measurement:
    """One metric of one target given one conditioning set.

    Arguments:
        metric: The metric.
        target: The scored modalities.
        given: The modalities that z is inferred from.
        rows: The number of rows.
        figures: The scores by name, the main one first.
        series: Scores by K, by attribute, by level or by column.
        kinds: The kind of each column, by name, of scores by column.
    """

    metric: str
    target: Names
    given: Names
    rows: int
    figures: Mapping[str, float]
    series: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Measurement:
        """Inverse of `as_dict`."""
        names = {part: tuple(content[part]) for part in ("target", "given")}
        series = {name: _read(values) for name, values in content["series"].items()}
        return cls(**{**content, **names, "figures": _read(content["figures"]), "series": series})

    @property
    def title(self) -> str:
        """A one-line description."""
        return title(self.metric, self.target, self.given)

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible dict."""
        numbers = {"figures": _written(self.figures), "series": {name: _written(values) for name, values in self.series.items()}}
        kinds = {"kinds": dict(self.kinds)} if self.kinds else {}
        return {"metric": self.metric, "target": list(self.target), "given": list(self.given), "rows": self.rows, **numbers, **kinds}

    def pair(self, modalities: Names) -> tuple[str, str]:
        """Short names of the scored modalities and of what z is inferred from.

        Arguments:
            modalities: The model's modalities.
        """
        given = REST if self.metric == CELLS else abbreviated(self.given, modalities)
        return abbreviated(self.target, modalities), given

    def by_column(self) -> list[tuple[tuple[str, ...], list[tuple[str, str, tuple[float, ...]]]]]:
        """Scores by column as tables, one for numbers and one for classes: headings, and name, kind and scores of each column."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for heading, values in self.series.items():
            groups.setdefault(tuple(values), []).append(heading)
        return [
            (tuple(headings), [(name, self.kinds.get(name, ""), tuple(self.series[what][name] for what in headings)) for name in names])
            for names, headings in groups.items()
        ]


@dataclass(frozen=True)
class Evaluation:
    """All measurements of a model.

    Arguments:
        settings: The settings.
        modalities: The model's modalities.
        label: The modality that classifiers predicted; None when there is none.
        parameters: The model's number of parameters.
        rows: The number of rows used; each measurement uses those with the modalities that it needs.
        of_rows: The number of rows in the split.
        fingerprints: A hash of each modality's values in these rows, to recognise the same rows.
        measurements: In the order of the metrics.
        skipped: Metrics, and titles of single measurements, that were left out, each with the reason.
        version: The version of nbridge that evaluated.
        warnings: Findings about the model and its data.
        verdict: The comparison with baselines on the same rows; None when it was not requested.
    """

    settings: Settings
    modalities: Names
    label: str | None
    parameters: int
    rows: int
    of_rows: int
    fingerprints: Mapping[str, str]
    measurements: tuple[Measurement, ...]
    skipped: Mapping[str, str]
    version: str = __version__
    warnings: tuple[Finding, ...] = ()
    verdict: Verdict | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible dict."""
        nested = {
            "settings": self.settings.as_dict(),
            "modalities": list(self.modalities),
            "measurements": [measurement.as_dict() for measurement in self.measurements],
            "warnings": [finding.as_dict() for finding in self.warnings],
            "verdict": None if self.verdict is None else self.verdict.as_dict(),
        }
        return {"version": self.version, **vars(self), **nested}


def read_evaluation(path: Path) -> Evaluation | None:
    """Reads an evaluation from a JSON file; None when there is none or it has another format."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        measurements = tuple(Measurement.from_dict(entry) for entry in content["measurements"])
        settings, modalities = Settings.from_dict(content["settings"]), tuple(content["modalities"])
        parts = {"settings": settings, "modalities": modalities, "measurements": measurements}
        # Files of older versions have no warnings.
        warnings = tuple(Finding.from_dict(entry) for entry in content.get("warnings", ()))
        verdict = None if content.get("verdict") is None else Verdict.from_dict(content["verdict"])
        return Evaluation(**{**content, **parts, "warnings": warnings, "verdict": verdict})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def title(metric: str, target: Names, given: Names) -> str:
    """A one-line description of a metric of a target given a conditioning set."""
    of, by = ",".join(target), ",".join(given) or "nothing"
    if metric == CELLS:
        return f"{metric} of {of} given {REST}"
    return f"log p({of}) by q(z|{by})" if metric == "likelihood" else f"{metric} of {of} given {by}"


def describe_settings(settings: Settings, rows: int, of_rows: int) -> str:
    """A one-line description of the rows and the numbers of draws."""
    which = f"all {rows:,}" if rows == of_rows else f"the first {rows:,} of {of_rows:,}"
    few = settings.density_rows
    densities = f" ({few:,} of them for log-likelihoods)" if few is not None and few < rows else ""
    draws = f"K = {settings.samples:,} importance samples, {settings.draws:,} draws, {settings.generated:,} generated"
    return f"{which} {settings.split} rows{densities}; {draws}; seed {settings.seed}"


def describe_skipped(skipped: Mapping[str, str]) -> list[str]:
    """What was left out, one line per reason."""
    lines = []
    for why in dict.fromkeys(skipped.values()):
        what = [name for name, reason in skipped.items() if reason == why]
        more = [f"{len(what) - MAX_LISTED} more"] if len(what) > MAX_LISTED else []
        lines.append(f"left out: {', '.join(what[:MAX_LISTED] + more)}; {why}")
    return lines


def abbreviated(names: Names, modalities: Names) -> str:
    """A short name for a set of modalities."""
    others = [name for name in modalities if name not in names]
    if not others and len(names) > 1:
        return "all"
    if len(others) == 1 and len(names) > 2:
        return f"all but {others[0]}"
    return ",".join(names) or "nothing"


def finite(number: float) -> float | None:
    """The number, or None for NaN and the infinities."""
    return number if math.isfinite(number) else None


def _written(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: finite(number) for name, number in figures.items()}


def _read(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if number is None else number for name, number in figures.items()}
