"""The verdict section, first on the page: each modality compared with a baseline, red where the model is worse, with advice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from nbridge.common.messages import clip
from nbridge.evaluation.verdict import FIGURES, WORDS, BaselineComparison, Verdict, digits
from nbridge.report.card import card
from nbridge.report.run_data import RunData
from nbridge.report.tree import Content, element, paragraph, sortable, table

FIGURE_HEADINGS = ("rows", "model", "baseline's", "ahead by")
COLUMNS = 300
"""Maximum number of columns shown, those furthest behind first."""
CLASSES = {"worse": "worse", "better": "better"}
"""CSS classes by outcome."""


def section(data: RunData) -> Iterator[Element]:
    """The card, one line per modality, advice, and the columns."""
    verdict = data.verdict
    yield card(data, verdict)
    if not verdict.modalities:
        return
    headings = ("modality", "verdict", "figure", "baseline", *FIGURE_HEADINGS, "fitted on")
    cells = all(one.cells for one in verdict.modalities)
    caption = "Single cells imputed from the rest of the row" if cells else "Each modality imputed from all others"
    yield table(caption, headings, map(_row, verdict.modalities), words=4)
    if verdict.advice:
        yield element("ul", *(element("li", line) for line in verdict.advice), class_="warnings")
    yield from _columns(verdict)
    if verdict.note:
        yield paragraph(verdict.note, quiet=True)


def _columns(verdict: Verdict) -> Iterator[Element]:
    """A sortable table of the columns of modalities with several columns."""
    tested = sorted((one for one in verdict.columns if one.outcome != "not tested"), key=lambda one: one.lead)
    if not tested:
        return
    counts = ", ".join(f"{number:,} {words}" for what, words in WORDS.items() if (number := sum(one.outcome == what for one in tested)))
    more = f"; the {COLUMNS} furthest behind are shown" if len(tested) > COLUMNS else ""
    headings = ("column", "modality", "verdict", "figure", "baseline", *FIGURE_HEADINGS)
    rows = [(clip(one.column, 60), one.title, one.outcome, FIGURES[one.figure], one.predictor, *_figures(one)) for one in tested[:COLUMNS]]
    keys = [
        (one.column, one.title, one.outcome, FIGURES[one.figure], one.predictor, one.rows, one.model, one.baseline, one.lead)
        for one in tested[:COLUMNS]
    ]
    yield sortable(f"{len(tested):,} columns, furthest behind first: {counts}{more}", headings, rows, keys, words=5)


def _row(one: BaselineComparison) -> Sequence[Content]:
    words = element("span", one.description, class_=CLASSES.get(one.outcome))
    if one.outcome == "not tested":
        return one.title, words, "", "", f"{one.rows:,}", "", "", "", ""
    scored, possible = one.columns
    of_columns = f", {scored:,} of {possible:,} columns" if scored < possible else f", {scored:,} columns" if scored > 1 else ""
    return one.title, words, FIGURES[one.figure] + of_columns, one.predictor, *_figures(one), f"{one.train_rows:,}"


def _figures(one: BaselineComparison) -> tuple[Content, ...]:
    ours = element("span", digits(one.model), class_=CLASSES.get(one.outcome))
    return f"{one.rows:,}", ours, digits(one.baseline), f"{digits(one.lead)} ± {digits(one.standard_error)}"
