"""Report sections of measurements: warnings, and the scores of ``nbridge evaluate``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from xml.etree.ElementTree import Element

from nbridge.common.messages import number
from nbridge.data.patterns import Patterns, count, never_together
from nbridge.evaluation.findings import model_findings
from nbridge.evaluation.results import CELLS, NOTES, Evaluation, Measurement, describe_settings, describe_skipped
from nbridge.inference.served import unseen_patterns
from nbridge.report.run_data import RunData, SectionSkipped
from nbridge.report.tree import element, paragraph, table

ROWS = 1000
"""Number of rows used for warnings, as after training."""
LINES = 150
"""Maximum number of measurements shown per metric."""
LEVELS = 4
"""Maximum length of a series shown in a table."""


def warnings(data: RunData) -> Iterator[Element]:
    """The list of warnings."""
    loaded = data.model_and_rows
    rows, names = loaded.many.slice(0, ROWS), loaded.model.names
    of_rows = (
        *never_together(names, loaded.train.present),
        *unseen_patterns(loaded.model, Patterns.of(names, loaded.train.present), count(names, rows.present)),
    )
    found = (*of_rows, *(model_findings(loaded.model, rows, seed=loaded.seed) if loaded.findings is None else loaded.findings))
    if not found:
        yield paragraph(
            "None. All tests passed: no modality is at chance given the others, no likelihood is at its bounds, and most of z is in use."
        )
        return
    yield element("ul", *(element("li", one.text) for one in found), class_="warnings")


def evaluation(data: RunData) -> Iterator[Element]:
    """The scores of each evaluated split, one table per metric."""
    if not data.evaluations:
        raise SectionSkipped(f"not evaluated yet; run nbridge evaluate {data.folder.name}")
    for done in data.evaluations:
        yield paragraph(f"Measured on {describe_settings(done.settings, done.rows, done.of_rows)}.", quiet=True)
        for metric, group in groupby(done.measurements, key=lambda one: one.metric):
            yield from _metric(done, metric, list(group))
        for line in describe_skipped(done.skipped):
            yield paragraph(line, quiet=True)


def _metric(done: Evaluation, metric: str, measurements: Sequence[Measurement]) -> Iterator[Element]:
    figures = list(dict.fromkeys(name for one in measurements for name in one.figures))
    series = list(dict.fromkeys((name, key) for one in measurements for name, keys in _short(one) for key in keys))
    yield element("h3", metric if done.settings.split == "test" else f"{metric}, {done.settings.split} rows")
    headings = ("target", "q(z|.)" if metric == "likelihood" else "given", "rows", *figures, *(f"{name} {key}" for name, key in series))
    rows = [
        (
            *one.pair(done.modalities),
            f"{one.rows:,}",
            *(number(one.figures[name]) if name in one.figures else "" for name in figures),
            *(number(one.series[name][key]) if key in one.series.get(name, {}) else "" for name, key in series),
        )
        for one in measurements[:LINES]
    ]
    more = f", the first {LINES} of {len(measurements):,}" if len(measurements) > LINES else ""
    yield table(f"{len(measurements[:LINES])} measurements{more}", headings, rows, words=2)
    if metric == CELLS:
        for one in measurements:
            yield from _columns(one)
    if metric in NOTES:
        yield paragraph(NOTES[metric].partition(": ")[2], quiet=True)


def _columns(one: Measurement) -> Iterator[Element]:
    """Tables of scores by column, with the kind of each: of numbers, then of classes."""
    for headings, lines in one.by_column():
        more = f", the first {LINES} of {len(lines):,}" if len(lines) > LINES else ""
        rows = ((name, kind, *map(number, scores)) for name, kind, scores in lines[:LINES])
        yield table(f"Columns of {', '.join(one.target)}{more}", ("column", "kind", *headings), rows, words=2)


def _short(measurement: Measurement) -> Iterator[tuple[str, Sequence[str]]]:
    """Series short enough for a table, without curves over K, which show only convergence."""
    for name, values in measurement.series.items():
        if name != "K" and len(values) <= LEVELS and not measurement.kinds:
            yield name, tuple(values)
