"""Training curves: each stage's loss and its terms, on training and validation rows, and the loss of hidden modalities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from xml.etree.ElementTree import Element

from nbridge.report.about import duration
from nbridge.report.axes import Axis
from nbridge.report.charts import Line, Points, lines
from nbridge.report.run_data import RunData, SectionSkipped
from nbridge.report.tree import element, paragraph, table
from nbridge.training.records import EpochRecord

INITIAL_SHARE = 0.05
"""Share of a stage's records, the first ones, that do not set the axis limits, because losses fall steeply at first."""
FEWEST = 4
"""Minimum length of the horizontal axis, in updates."""
CHARTS = 24
"""Maximum number of charts per stage."""
SQUARES = frozenset({"match"})
"""Terms that are squared errors of features, without a unit; all others are in nats."""


def section(data: RunData) -> Iterator[Element]:
    """Final losses and curves of each stage."""
    stages = data.epochs
    if not stages:
        raise SectionSkipped("no metrics are recorded yet")
    headings = ("stage", "updates", "weights of update", "loss, training", "loss, validation", "time")
    yield table("Stages; losses at the update whose weights were kept", headings, [_line(stage, each) for stage, each in stages.items()])
    yield element("p", _key("first"), " training ", _key("second"), " validation; ", "the circle marks the update whose weights were kept.")
    for stage, epochs in stages.items():
        yield element("h3", f"Stage {stage}")
        terms = list(dict.fromkeys(term for record in epochs for term in (*record.terms, *record.validation_terms)))
        yield element("div", *_charts(stage, epochs, terms), class_="charts")
        if len(terms) >= CHARTS:
            yield paragraph(f"and {len(terms) - CHARTS + 1} more terms, in metrics.jsonl", quiet=True)
    yield paragraph(f"Terms include their weights. Points of the first {INITIAL_SHARE:.0%} of a stage may be off the chart.", quiet=True)


def _line(stage: str, epochs: Sequence[EpochRecord]) -> tuple[str, ...]:
    kept = _kept(epochs)
    validation = "–" if kept.validation_loss is None else f"{kept.validation_loss:,.2f}"
    return (
        stage, f"{epochs[-1].update:,}", f"{kept.update:,}", f"{kept.loss:,.2f}", validation, duration(sum(one.seconds for one in epochs)),
    )  # fmt: skip


def _kept(epochs: Sequence[EpochRecord]) -> EpochRecord:
    return next((record for record in reversed(epochs) if record.best), epochs[-1])


def _charts(stage: str, epochs: Sequence[EpochRecord], terms: Sequence[str]) -> Iterator[Element]:
    whole = "" if SQUARES & set(terms) else "nats"
    kept = _kept(epochs).update
    yield _chart(stage, "loss", whole, epochs, lambda one: one.loss, lambda one: one.validation_loss, kept)
    if epochs[-1].hidden is not None:
        title = "hidden modalities, nats over their marginals"
        yield _chart(stage, title, "nats", epochs, lambda _: None, lambda one: one.hidden, kept)
    for term in terms[: CHARTS - 1] if len(terms) > 1 else ():
        unit = "squared error" if term in SQUARES else "nats"
        training, validation = (partial(_term, part, term) for part in ("terms", "validation_terms"))
        yield _chart(stage, term, unit, epochs, training, validation, kept)


def _term(part: str, term: str, record: EpochRecord) -> float | None:
    return getattr(record, part).get(term)


Figure = Callable[[EpochRecord], float | None]


def _chart(stage: str, name: str, unit: str, epochs: Sequence[EpochRecord], training: Figure, validation: Figure, kept: int) -> Element:
    curves = [[(record.update, value) for record in epochs if (value := figure(record)) is not None] for figure in (training, validation)]
    inside = [value for curve in curves for _, value in curve[int(INITIAL_SHARE * len(epochs)) :]]
    y = Axis.fit(inside, unit or "loss")
    drawn = [_from_inside(curve, y) for curve in curves]
    x = Axis(0, max(FEWEST, epochs[-1].update), "updates")
    mark = next((point for point in drawn[1] or drawn[0] if point[0] == kept), None)
    named = zip(("training", "validation"), curves, strict=True)
    ends = "; ".join(f"{which} from {curve[0][1]:.3g} to {curve[-1][1]:.3g}" for which, curve in named if curve)
    title = f"{name} of stage {stage} over {epochs[-1].update:,} updates: {ends}"
    found = [Line(curve, style) for curve, style in zip(drawn, ("first", "second"), strict=True) if curve]
    return element("figure", element("figcaption", element("b", name)), lines(title, x, y, found, mark=mark))


def _from_inside(curve: Points, y: Axis) -> Points:
    """Drops leading points that are outside the axis."""
    first = next((place for place, (_, value) in enumerate(curve) if y.low <= value <= y.high), len(curve))
    return curve[first:]


def _key(style: str) -> Element:
    """A legend key: a short line."""
    line = element("path", d="M0 5H26", class_=f"line {style}")
    return element("svg", line, viewBox="0 0 26 10", class_="key", aria_hidden="true")
