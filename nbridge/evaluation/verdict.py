"""The verdict on a trained model: how its imputation of each modality compares with a baseline, as text, numbers and JSON.

`nbridge.evaluation.versus_baseline` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from nbridge.common.json_text import parse_json
from nbridge.version import __version__

Outcome = Literal["better", "as good", "worse", "not tested"]
Figure = Literal["rmse", "accuracy"]
MIN_ROWS = 20
"""Minimum number of rows for a comparison."""
CHOOSING = 50
"""Minimum number of validation rows for choosing the baseline on them; with fewer, it is chosen by cross-validation."""
ERRORS = 2.0
"""A predictor is better when it is ahead by more than this many standard errors."""
SHOWN = 3
"""Number of worst and of best columns shown in text."""
WORDS: Mapping[Outcome, str] = {
    "better": "better than the baseline",
    "as good": "as good as the baseline",
    "worse": "worse than the baseline",
    "not tested": "not tested",
}
"""Display text of outcomes."""
FIGURES: Mapping[Figure, str] = {"rmse": "RMSE/sd", "accuracy": "accuracy"}
"""Display text of figures."""
BY_COLUMN = "best by column"
"""The predictor of several columns whose baselines are of different kinds."""
_EXACT = 1e-9
"""Differences up to this are treated as rounding error."""


@dataclass(frozen=True)
class BaselineComparison:
    """Comparison of a model with a baseline on one modality, or on one of its columns.

    Arguments:
        target: The modality.
        column: The column; empty for the whole modality.
        figure: ``rmse``, in standard deviations of the training rows (of log(1 + x) for counts), or ``accuracy``; for a whole modality,
            the mean over its columns.
        rows: The number of rows that both were scored on.
        model: The model's figure; NaN when not tested.
        baseline: The baseline's figure.
        constant: The figure of a constant prediction, the training rows' column mean or most frequent class.
        standard_error: Standard error over rows of the difference between model and baseline.
        outcome: Whether the model is better than, as good as, or worse than the baseline.
        predictor: The kind of baseline, such as ``ridge``.
        train_rows: The number of training rows that the baseline was fitted on.
        columns: The number of columns scored, and the number before sampling.
        reason: Why it was not tested; empty when it was.
        cells: Whether single cells were hidden, and predicted from the rest of the row, instead of the whole modality.
    """

    target: str
    column: str
    figure: Figure
    rows: int
    model: float = math.nan
    baseline: float = math.nan
    constant: float = math.nan
    standard_error: float = math.nan
    outcome: Outcome = "not tested"
    predictor: str = ""
    train_rows: int = 0
    columns: tuple[int, int] = (1, 1)
    reason: str = ""
    cells: bool = False

    @property
    def title(self) -> str:
        """What was imputed, in words.

        Example:
            >>> BaselineComparison("clinical", "", "rmse", 60, cells=True).title
            'single cells of clinical'
        """
        return f"single cells of {self.target}" if self.cells else self.target

    @property
    def label(self) -> str:
        """The modality and the column, in words.

        Example:
            >>> BaselineComparison("clinical", "age", "rmse", 60, cells=True).label
            'single cells of clinical.age'
        """
        return f"{self.title}.{self.column}"

    @property
    def lead(self) -> float:
        """The model's lead over the baseline, in the unit of the figure; negative when the model is worse."""
        return self.baseline - self.model if self.figure == "rmse" else self.model - self.baseline

    @property
    def description(self) -> str:
        """The outcome in words, with the reason if it was not tested."""
        return f"{WORDS[self.outcome]} ({self.reason})" if self.reason else WORDS[self.outcome]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> BaselineComparison:
        """Inverse of `as_dict`."""
        numbers = {name: math.nan if content[name] is None else float(content[name]) for name in _NUMBERS}
        if content["outcome"] not in WORDS or content["figure"] not in FIGURES:
            raise ValueError("an outcome or a figure of another version")
        first, second = content["columns"]
        return cls(**{**content, **numbers, "columns": (int(first), int(second))})

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible dict; NaN becomes None."""
        numbers = {name: number if math.isfinite(number := getattr(self, name)) else None for name in _NUMBERS}
        return {**asdict(self), **numbers, "columns": list(self.columns)}


_NUMBERS = ("model", "baseline", "constant", "standard_error")


@dataclass(frozen=True)
class Verdict:
    """All comparisons of a model with baselines, and the resulting advice.

    Arguments:
        split: The scored rows: ``test``, or ``validation`` if there are no test rows; empty if there are neither.
        modalities: A comparison for each modality and figure.
        columns: A comparison for each column of modalities with several columns.
        advice: Advice for modalities on which the model is worse, one line each, beginning with the modality.
        reason: Why nothing was tested; empty when something was.
        version: The version of nbridge that made the comparison.
    """

    split: str
    modalities: tuple[BaselineComparison, ...] = ()
    columns: tuple[BaselineComparison, ...] = ()
    advice: tuple[str, ...] = ()
    reason: str = ""
    version: str = __version__

    def of(self, outcome: Outcome) -> tuple[BaselineComparison, ...]:
        """The modalities with this outcome."""
        return tuple(one for one in self.modalities if one.outcome == outcome)

    @property
    def headline(self) -> str:
        """The verdict in one line.

        Example:
            >>> sex = BaselineComparison("sex", "", "accuracy", 60, 0.4, 0.9, 0.5, 0.05, "worse", "logistic", 240)
            >>> Verdict("test", (sex,)).headline
            'worse than a baseline: sex'
        """
        if self.reason:
            return f"not tested: {self.reason}"
        groups: dict[str, list[str]] = {"worse than a baseline": [], "as good": [], "better": []}
        outcomes: dict[str, set[str]] = {}
        for one in self.modalities:
            outcomes.setdefault(one.title, set()).add(one.description)
        for one in self.modalities:
            words = one.description if one.reason else "worse than a baseline" if one.outcome == "worse" else one.outcome
            # The figure says which columns are meant where numbers and classes of a modality differ.
            of = f" ({FIGURES[one.figure]})" if len(outcomes[one.title]) > 1 else ""
            groups.setdefault(words, []).append(one.title + of)
        text = "; ".join(f"{words}: {', '.join(dict.fromkeys(names))}" for words, names in groups.items() if names)
        return text if text.startswith(("worse", "not tested")) else f"compared with a baseline, {text}"

    @property
    def note(self) -> str:
        """How it was measured, in a short paragraph; empty when nothing was tested."""
        if not (tested := [one for one in self.modalities if one.outcome != "not tested"]):
            return ""
        folds = "by cross-validation of the training rows"
        chosen = f"on validation rows, or {folds} if fewer than {CHOOSING} can be used" if self.split == "test" else folds
        fitted = _between([one.train_rows for one in tested])
        text = (
            f"{self._hiding(tested)} The baseline "
            f"(linear, 10 nearest neighbours or a constant, chosen {chosen}) was fitted on {fitted} training rows. "
            "Better or worse means by more than two standard errors. RMSE/sd: error in standard deviations of a column "
            "(counts as log(1 + x)); accuracy: share of correct classes or binary values. Both are means over columns."
        )
        early = " There are no test rows: validation rows also chose the best epoch, so the model may look better than it is."
        return text + (early if self.split == "validation" else "")

    def _hiding(self, tested: Sequence[BaselineComparison]) -> str:
        """What is hidden, in one or two sentences."""
        whole, cells = ([one.rows for one in tested if one.cells is kind] for kind in (False, True))
        sentences = []
        if whole:
            hidden = "Each modality is hidden in turn and imputed from the row's other modalities"
            sentences.append(f"{hidden}, on {_between(whole)} {self.split} rows.")
        if cells:
            hidden = "a fifth of the observed columns is hidden at random and imputed from the rest of the row"
            sentences.append(f"Single cells: {hidden}, on {_between(cells)} {self.split} rows, with a baseline for each column.")
        return " ".join(sentences)

    def extremes(self, most: int = SHOWN) -> tuple[tuple[BaselineComparison, ...], tuple[BaselineComparison, ...]]:
        """The columns on which the model is worse, and those on which it is better, by decreasing difference. At most ``most`` of each."""
        worse = sorted((one for one in self.columns if one.outcome == "worse"), key=lambda one: one.lead)
        better = sorted((one for one in self.columns if one.outcome == "better"), key=lambda one: -one.lead)
        return tuple(worse[:most]), tuple(better[:most])

    def column_lines(self) -> list[str]:
        """The worst and the best columns as text, one line each; empty when no modality has several columns."""
        counts = {outcome: sum(one.outcome == outcome for one in self.columns) for outcome in WORDS}
        lines = []
        for outcome, named in zip(("worse", "better"), self.extremes(), strict=True):
            if named:
                shown = ", ".join(f"{one.label} ({digits(one.model)} against {digits(one.baseline)})" for one in named)
                more = f", and {counts[outcome] - len(named)} more" if counts[outcome] > len(named) else ""
                lines.append(f"columns {WORDS[outcome]}: {shown}{more}")
        return lines

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Verdict:
        """What `as_dict` gave.

        Raises:
            ValueError: when the content is not a verdict; or KeyError or TypeError.
        """
        parts = {name: tuple(BaselineComparison.from_dict(entry) for entry in content[name]) for name in ("modalities", "columns")}
        return cls(**{**content, **parts, "advice": tuple(map(str, content["advice"]))})

    def as_dict(self) -> dict[str, Any]:
        """JSON-compatible dict."""
        parts = {name: [one.as_dict() for one in getattr(self, name)] for name in ("modalities", "columns")}
        return {"version": self.version, "split": self.split, **parts, "advice": list(self.advice), "reason": self.reason}


def read_verdict(path: Path) -> Verdict | None:
    """Reads a verdict from a JSON file; None when there is none or it has another format."""
    try:
        return Verdict.from_dict(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def outcome_of(ahead: float, standard_error: float) -> Outcome:
    """The outcome of a difference with its standard error.

    Example:
        >>> outcome_of(0.3, 0.1), outcome_of(0.15, 0.1), outcome_of(-0.3, 0.1), outcome_of(0.0, 0.0)
        ('better', 'as good', 'worse', 'as good')
    """
    least = max(ERRORS * standard_error, _EXACT)
    return "better" if ahead > least else "worse" if ahead < -least else "as good"


def digits(number: float) -> str:
    """Formats a figure, which is of the order of 1.

    Example:
        >>> digits(0.41234), digits(12.345), digits(math.nan)
        ('0.412', '12.3', '-')
    """
    return "-" if math.isnan(number) else f"{number:.3f}" if abs(number) < 10 else f"{number:.3g}"


def _between(numbers: Sequence[int]) -> str:
    """Text of one number, or of the range of several."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
