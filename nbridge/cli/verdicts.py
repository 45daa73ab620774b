"""Prints a verdict to the terminal: a table, the worst and best columns, and advice."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nbridge.evaluation.verdict import FIGURES, BaselineComparison, Outcome, Verdict, digits

STYLES: dict[Outcome, str] = {"worse": "bold red", "better": "green"}
"""Text styles of outcomes."""


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Prints the comparison of each modality with its baseline, the worst and best columns, and advice."""
    tested = [one for one in verdict.modalities if one.outcome != "not tested"]
    if not tested:
        console.print(f"Verdict: {verdict.headline}")
        return
    console.print(f"Verdict: {verdict.headline}", style=STYLES["worse"] if verdict.of("worse") else None)
    table = Table()
    for heading in ("imputed", "rows", "figure", "model", "baseline", "ahead by", "verdict"):
        table.add_column(heading, justify="right" if heading in ("rows", "model", "ahead by") else "left")
    for one in verdict.modalities:
        table.add_row(*_cells(one), Text(one.description if one.reason else one.outcome, STYLES.get(one.outcome, "")))
    console.print(table)
    for line in (*verdict.column_lines(), *(f"advice: {line}" for line in verdict.advice)):
        console.print(line)
    console.print(verdict.note)


def _cells(one: BaselineComparison) -> tuple[str, ...]:
    if one.outcome == "not tested":
        return one.title, f"{one.rows:,}", *[""] * 4
    ahead = f"{one.lead:.2f} ± {one.standard_error:.2f}" if one.standard_error >= 0.005 else f"{one.lead:.2f} ± <0.01"
    return one.title, f"{one.rows:,}", FIGURES[one.figure], digits(one.model), f"{digits(one.baseline)} {one.predictor}", ahead
