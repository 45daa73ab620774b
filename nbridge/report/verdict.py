"""The verdict section, first on the page: each modality compared with a baseline, red where the model is worse, with advice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree.ElementTree import Element

from nbridge.common.messages import clip
from nbridge.evaluation.verdict import FIGURES, WORDS, BaselineComparison, Verdict, digits
from nbridge.report.run_data import RunData
from nbridge.report.tree import Content, element, paragraph, table

FIGURE_HEADINGS = ("rows", "model", "baseline's", "ahead by")
COLUMNS = 8
"""Number of worst and of best columns shown."""
CLASSES = {"worse": "worse", "better": "better"}
"""CSS classes by outcome."""


def section(data: RunData) -> Iterator[Element]:
    """The headline, one line per modality, advice, and the worst and best columns."""
    verdict = data.verdict
    headline = verdict.headline[:1].upper() + verdict.headline[1:] + "."
    yield element("p", headline, class_="headline worse" if verdict.of("worse") else "headline")
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
    """The worst and the best columns of modalities with several columns."""
    for outcome, named in zip(("worse", "better"), verdict.extremes(COLUMNS), strict=True):
        if named:
            total = sum(one.outcome == outcome for one in verdict.columns)
            which = f"the {len(named)} furthest {'behind' if outcome == 'worse' else 'ahead'} of " if total > len(named) else ""
            caption = f"Columns {WORDS[outcome]}: {which}{total:,} of {len(verdict.columns):,}"
            rows = ((clip(one.column, 60), one.title, FIGURES[one.figure], one.predictor, *_figures(one)) for one in named)
            yield table(caption, ("column", "modality", "figure", "baseline", *FIGURE_HEADINGS), rows, words=4)


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
