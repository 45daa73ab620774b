"""What an evaluation is asked for, what it measured, and both as strict JSON.

JSON has no word for NaN and the infinities: they are written as null, and null is read as NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from nbridge.common.messages import did_you_mean, listing
from nbridge.common.warnings import Finding
from nbridge.errors import DataError
from nbridge.evaluation.calibration import FEWEST_DRAWS
from nbridge.evaluation.verdict import Verdict
from nbridge.version import __version__

Metric = Literal[
    "likelihood", "conditional", "labels", "predictive", "coherence", "diversity", "agreement", "attributes", "imputation", "calibration"
]
METRICS: tuple[str, ...] = get_args(Metric)
Split = Literal["test", "validation", "train"]
SPLITS: tuple[str, ...] = get_args(Split)
Names = tuple[str, ...]
NOTES: Mapping[str, str] = {
    "likelihood": "likelihood: log p(target) in nats, by draws of z from q(z|.); a lower bound that rises with K. Standard error: of the "
    "Monte-Carlo estimate; error over rows: how much other rows of the same kind would change the mean.",
    "conditional": "conditional: log p(target|given) in nats, with the standard error of the Monte-Carlo estimate. A difference of two "
    "lower bounds, so itself neither a lower nor an upper bound: trust it only where it has settled with K.",
    "predictive": "predictive: log of the mean likelihood over draws of z given, in nats; accuracy and RMSE are of the point estimate.",
    "coherence": "coherence: share of draws with the true label, as a classifier sees them. It rewards mean images: read it beside "
    "predictive and diversity.",
    "diversity": "diversity: variance within a class, generated over real; Fréchet distance from real rows, beside that of real rows from "
    "other real rows, its floor.",
    "agreement": "agreement: share of draws in which all that is generated shows one label; coherence: the true one.",
    "imputation": "imputation: RMSE and CRPS in the units of the data; coverage of central intervals, equal to their level where "
    "calibrated.",
}
"""What must be known wherever figures of a metric are shown."""
TOLD = 4
"""What is named of a longer list."""
ERRORS = ("standard error", "error over rows", "effective sample size")
"""Figures that say how far to trust another one."""


class OptionError(DataError):
    """An option of an evaluation or a comparison that cannot serve; the text begins with its name, as ``--NAME`` on the command line."""


@dataclass(frozen=True)
class Settings:
    """What to evaluate, and how closely.

    Arguments:
        metrics: The metrics; all that the model supports when left out.
        given: Conditioning sets, an empty one for the prior; every single modality and every set that leaves out one when left out.
        densities: The sets of modalities whose density ``likelihood`` estimates; the conditioning sets that were asked for when left out,
            else every single modality and all together.
        split: The rows.
        rows: How many of them, the first ones, or of rows on disk a random sample; None for all.
        density_rows: How many of those serve the metrics that take K samples, again the first ones; None for all.
        samples: Importance samples of z, the number K of ``likelihood``, ``conditional`` and ``labels``.
        draws: Draws of z of ``predictive``, ``attributes``, ``imputation`` and ``calibration``.
        generated: Draws for each row of ``coherence``, ``diversity`` and ``agreement``.
        label: The modality that classifiers tell; the first with classes, else the first of attributes, when left out.
        seed: Seed of all draws, and of the classifiers.
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
        """What `as_dict` gave."""
        lists = {name: content[name] for name in ("metrics", "given", "densities") if content[name] is not None}
        tuples = {name: tuple(tuple(item) if isinstance(item, list) else item for item in value) for name, value in lists.items()}
        return cls(**{**content, **tuples})

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            name: [list(item) if isinstance(item, tuple) else item for item in value] if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    def check(self, modalities: Iterable[str]) -> None:
        """Checks what can be checked before any work.

        Arguments:
            modalities: The modalities that there are.

        Raises:
            OptionError: naming the first option that cannot serve.
        """
        self._check_words()
        self._check_modalities(tuple(modalities))
        for name, least in (("rows", 1), ("density_rows", 1), ("samples", 1), ("draws", 1), ("generated", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"{name} {value}: expected {least} or more")
        if self.draws < FEWEST_DRAWS and "imputation" in (self.metrics or ()):
            raise OptionError(f"draws {self.draws}: metric imputation takes {FEWEST_DRAWS} or more")

    def _check_words(self) -> None:
        if self.metrics == ():
            raise OptionError(f"metrics: none is named. Known: {listing(METRICS)}")
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
            raise OptionError("densities: a set that names no modality has no density")


@dataclass(frozen=True)
class Measurement:
    """One metric of one target from one conditioning set.

    Arguments:
        metric: The metric.
        target: The modalities that are scored.
        given: The modalities that z was inferred from.
        rows: The number of rows.
        figures: What was measured, the headline first.
        series: Figures by K, by attribute or by level.
    """

    metric: str
    target: Names
    given: Names
    rows: int
    figures: Mapping[str, float]
    series: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Measurement:
        """What `as_dict` gave."""
        names = {part: tuple(content[part]) for part in ("target", "given")}
        series = {name: _read(values) for name, values in content["series"].items()}
        return cls(**{**content, **names, "figures": _read(content["figures"]), "series": series})

    @property
    def title(self) -> str:
        """What was measured, in a line."""
        return title(self.metric, self.target, self.given)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        numbers = {"figures": _written(self.figures), "series": {name: _written(values) for name, values in self.series.items()}}
        return {"metric": self.metric, "target": list(self.target), "given": list(self.given), "rows": self.rows, **numbers}


@dataclass(frozen=True)
class Evaluation:
    """All measurements of a model.

    Arguments:
        settings: How they were taken.
        modalities: Those of the model.
        label: The modality that classifiers told; None where there is none.
        parameters: The number of its parameters.
        rows: The number of rows looked at; each measurement is over those that have what it takes.
        of_rows: The number of rows of the split.
        fingerprints: A hash of each modality's values in these rows, by which other rows are told from the same ones.
        measurements: In the order of the metrics.
        skipped: What was left out, metrics or single measurements by their title, each with the reason.
        version: The version of nbridge that measured.
        warnings: What a user should know, a line each with the figures behind it.
        verdict: The model beside free baselines on the same rows; None where it was not asked for.
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
        """For JSON."""
        return {
            "version": self.version,
            "settings": self.settings.as_dict(),
            "modalities": list(self.modalities),
            "label": self.label,
            "parameters": self.parameters,
            "rows": self.rows,
            "of_rows": self.of_rows,
            "fingerprints": dict(self.fingerprints),
            "measurements": [measurement.as_dict() for measurement in self.measurements],
            "skipped": dict(self.skipped),
            "warnings": [finding.as_dict() for finding in self.warnings],
            "verdict": None if self.verdict is None else self.verdict.as_dict(),
        }


def read_evaluation(path: Path) -> Evaluation | None:
    """An evaluation that was written as JSON; None where there is none, or none of this form."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        measurements = tuple(Measurement.from_dict(entry) for entry in content["measurements"])
        settings, modalities = Settings.from_dict(content["settings"]), tuple(content["modalities"])
        parts = {"settings": settings, "modalities": modalities, "measurements": measurements}
        # An older file has none.
        warnings = tuple(Finding.from_dict(entry) for entry in content.get("warnings", ()))
        verdict = None if content.get("verdict") is None else Verdict.from_dict(content["verdict"])
        return Evaluation(**{**content, **parts, "warnings": warnings, "verdict": verdict})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def title(metric: str, target: Names, given: Names) -> str:
    """What a metric measures of a target from a conditioning set, in a line."""
    of, by = ",".join(target), ",".join(given) or "nothing"
    return f"log p({of}) by q(z|{by})" if metric == "likelihood" else f"{metric} of {of} given {by}"


def taken(settings: Settings, rows: int, of_rows: int) -> str:
    """Which rows and how many draws figures come from, in a line."""
    which = f"all {rows:,}" if rows == of_rows else f"the first {rows:,} of {of_rows:,}"
    few = settings.density_rows
    densities = f" ({few:,} of them for log-likelihoods)" if few is not None and few < rows else ""
    draws = f"K = {settings.samples:,} importance samples, {settings.draws:,} draws, {settings.generated:,} generated"
    return f"{which} {settings.split} rows{densities}; {draws}; seed {settings.seed}"


def left_out(skipped: Mapping[str, str]) -> list[str]:
    """What was left out, a line for each reason."""
    lines = []
    for why in dict.fromkeys(skipped.values()):
        what = [name for name, reason in skipped.items() if reason == why]
        more = [f"{len(what) - TOLD} more"] if len(what) > TOLD else []
        lines.append(f"left out: {', '.join(what[:TOLD] + more)}; {why}")
    return lines


def abbreviated(names: Names, modalities: Names) -> str:
    """A set of modalities in few letters."""
    others = [name for name in modalities if name not in names]
    if not others and len(names) > 1:
        return "all"
    if len(others) == 1 and len(names) > 2:
        return f"all but {others[0]}"
    return ",".join(names) or "nothing"


def finite(number: float) -> float | None:
    """A number as JSON holds it: None for NaN and the infinities."""
    return number if math.isfinite(number) else None


def _written(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: finite(number) for name, number in figures.items()}


def _read(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if number is None else number for name, number in figures.items()}
