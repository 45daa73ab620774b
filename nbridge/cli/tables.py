"""Terminal tables of evaluations and comparisons, for 80 columns or more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from textwrap import fill

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from nbridge.common.messages import number
from nbridge.common.warnings import Finding
from nbridge.evaluation.results import CELLS, ERRORS, NOTES, Evaluation, Measurement, Names, describe_settings, describe_skipped
from nbridge.runs.comparison_table import Comparison

MIN_FIRST_COLUMN = 30
"""Minimum width of the first column of a comparison, in characters."""
MAX_COLUMNS = 8
"""A series with more entries than this is printed vertically."""
MAX_LINES = 60
"""Maximum number of columns of a mixed modality listed."""
SUMMARY_LINES = 20
"""Maximum number of measurements in the summary of a comparison."""
MAX_HEADING, NARROW = 12, 8
"""Maximum width of a heading, and of one in a table of many, in characters."""


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Prints a table for each metric with a note on how to read it, and what was left out."""
    judged = any(one.metric in ("coherence", "diversity", "agreement") for one in evaluation.measurements)
    label = f"; classifiers predict {evaluation.label}" if judged else ""
    console.print(describe_settings(evaluation.settings, evaluation.rows, evaluation.of_rows) + label)
    for metric, group in groupby(evaluation.measurements, key=lambda one: one.metric):
        measurements = list(group)
        console.print()
        console.print(_figures(metric, measurements, evaluation.modalities))
        by_column = (table for one in measurements for table in _columns(one))
        for table in by_column if metric == CELLS else _series(metric, measurements, evaluation.modalities):
            console.print(table)
        if metric in NOTES:
            console.print(NOTES[metric])
    for line in ["", *describe_skipped(evaluation.skipped)] if evaluation.skipped else []:
        console.print(line)


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Prints the scores with one column per model, split into several tables if they do not fit."""
    rows, models = list(_rows(comparison)), len(comparison.results)

    def widest() -> int:
        lines = [line for _, _, cells in rows for cell in cells for line in cell.split("\n")]
        return max(len(text) for text in [one.name for one in comparison.results] + lines)

    if MIN_FIRST_COLUMN + models * (widest() + 3) > console.width:
        rows = [(metric, heading, [cell.replace(" ± ", "\n± ") for cell in cells]) for metric, heading, cells in rows]
    fitting = max(1, (console.width - MIN_FIRST_COLUMN) // (widest() + 3))
    for start in range(0, models, fitting):
        here = slice(start, start + fitting)
        table = Table("")
        for model in comparison.results[here]:
            table.add_column(model.name, justify="right", no_wrap=True)
        for _, metric in groupby(rows, key=lambda row: row[0]):
            table.add_section()
            for _, heading, cells in metric:
                table.add_row(heading, *cells[here])
        console.print(table)
    for note in comparison.notes():
        console.print(note)


def print_comparison_summary(comparison: Comparison, console: Console) -> None:
    """Prints the main figure of each measurement, up to `SUMMARY_LINES`, the best models, and those worth their parameters."""
    lines, names = comparison.summary(), [one.name for one in comparison.results]
    wins = comparison.wins()
    compared = sum(bool(comparison.best(measurement, figure)) for measurement, figure, _ in lines)
    for measurement, figure, cells in lines[:SUMMARY_LINES]:
        each = ", ".join(f"{name} {cell}" for name, cell in zip(names, cells, strict=True))
        console.print(f"{measurement}: {figure}: {each}", markup=False)
    if more := len(lines) - SUMMARY_LINES if len(lines) > SUMMARY_LINES else 0:
        console.print(f"and {more:,} more measurements, in the file or with --full")
    if lines:
        console.print("(* is the best)")
    best = ", ".join(f"{name} {number}" for name, number in wins.items())
    console.print(f"best of {compared:,} measurements of two or more models: {best}", markup=False)
    cost = {one.name: one.parameters for one in comparison.results}
    frontier = ", ".join(f"{name} ({cost[name]:,} parameters, best in {wins[name]})" for name in comparison.pareto())
    console.print(f"no model is both smaller and more often best than: {frontier}", markup=False)


def print_findings(findings: Iterable[Finding]) -> None:
    """Prints findings to standard error, one line each."""
    for finding in findings:
        typer.echo(finding.line, err=True)


def print_patterns(present: Mapping[str, np.ndarray], console: Console, most: int) -> None:
    """Prints the patterns of presence, most frequent first. Patterns after the first ``most`` are only counted."""
    masks = np.stack(list(present.values()), axis=1)
    patterns, counts = np.unique(masks, axis=0, return_counts=True)
    order = sorted(range(len(counts)), key=lambda place: (-counts[place], -patterns[place].sum(), tuple(~patterns[place])))
    # Not the table's title, which would wrap to the width of the table.
    console.print(f"present together, {len(masks):,} row{'s' if len(masks) != 1 else ''}", soft_wrap=True)
    table = Table("rows")
    table.columns[0].justify = "right"
    for name in present:
        table.add_column(name, justify="center")
    for place in order[:most]:
        table.add_row(f"{counts[place]:,}", *("x" if there else "-" for there in patterns[place]))
    table.add_section()
    table.add_row(f"{len(masks):,}", *(f"{share:.0%}" for share in masks.mean(0)))
    console.print(table)
    if rest := order[most:]:
        console.print(f"and {len(rest):,} more patterns with {counts[rest].sum():,} rows")


def _rows(comparison: Comparison) -> Iterator[tuple[str, str, list[str]]]:
    """Yields metric, heading and cells of each row; a measurement with several scores gets a heading row of its own."""
    for title, everything in comparison.sections():
        metric = title.split()[0]
        figures = [(name, cells) for name, cells in everything if name not in ERRORS]
        if len(figures) == 1:
            yield metric, title, figures[0][1]
        else:
            yield metric, title, [""] * len(comparison.results)
            yield from ((metric, f"  {name}", cells) for name, cells in figures)


def _figures(metric: str, measurements: Sequence[Measurement], modalities: Names) -> Table:
    """A table with one row per measurement; with a column for the number of rows if it varies."""
    counts = {one.rows for one in measurements}
    same = f", {measurements[0].rows:,} rows" if len(counts) == 1 else ""
    # Single cells are all given the same, which their note says.
    widest = NARROW if metric == CELLS else MAX_HEADING
    table = Table("target", *([] if metric == CELLS else [_source(metric)]), title=f"{metric}{same}", title_justify="left")
    names = list(dict.fromkeys(name for one in measurements for name in one.figures))
    for heading in [*(["rows"] if not same else []), *names]:
        table.add_column(fill(heading, widest), justify="right", no_wrap=True)
    for one in measurements:
        cells = [number(one.figures[name]) if name in one.figures else "" for name in names]
        target, given = _pair(one, modalities)
        table.add_row(target, *([] if metric == CELLS else [given]), *([f"{one.rows:,}"] if not same else []), *cells)
    return table


def _series(metric: str, measurements: Sequence[Measurement], modalities: Names) -> Iterator[Table]:
    """Tables of scores by K, by level or by attribute; long series are vertical."""
    for name in dict.fromkeys(name for one in measurements for name in one.series):
        having = [one for one in measurements if name in one.series]
        keys = list(dict.fromkeys(key for one in having for key in one.series[name]))
        title = f"{metric} by K" if name == "K" else f"{metric}: {name}"
        if len(keys) <= MAX_COLUMNS:
            table = Table("target", _source(metric), title=title, title_justify="left")
            for key in keys:
                table.add_column(f"{int(key):,}" if key.isdecimal() else key, justify="right", no_wrap=True)
            for one in having:
                table.add_row(*_pair(one, modalities), *(_cell(one, name, key) for key in keys))
        else:
            table = Table("", title=title, title_justify="left")
            for one in having:
                table.add_column(" given ".join(_pair(one, modalities)), justify="right")
            for key in keys:
                table.add_row(key, *(_cell(one, name, key) for one in having))
        yield table


def _columns(one: Measurement) -> Iterator[Table]:
    """Tables of scores by column, with the kind of each: of numbers, then of classes."""
    for headings, lines in one.by_column():
        more = f", the first {MAX_LINES} of {len(lines):,} columns" if len(lines) > MAX_LINES else ""
        table = Table("column", "kind", title=f"{CELLS} of {', '.join(one.target)} by column{more}", title_justify="left")
        for heading in headings:
            table.add_column(fill(heading, MAX_HEADING), justify="right", no_wrap=True)
        for name, kind, scores in lines[:MAX_LINES]:
            table.add_row(name, kind, *map(number, scores))
        yield table


def _cell(measurement: Measurement, series: str, key: str) -> str:
    values = measurement.series[series]
    return number(values[key]) if key in values else ""


def _source(metric: str) -> str:
    return "q(z|.)" if metric == "likelihood" else "given"


def _pair(measurement: Measurement, modalities: Names) -> tuple[str, str]:
    return measurement.pair(modalities)
