"""What trackers show of a trained model: figures, the verdict, and pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nbridge.evaluation.verdict import Verdict
from nbridge.report.images import strips
from nbridge.report.run_data import run_data_of
from nbridge.visual.modality_kinds import is_image

if TYPE_CHECKING:
    from nbridge.runs.run import Run

ROWS = 16
"""Number of rows in a picture."""


@dataclass(frozen=True)
class Results:
    """What is written at the end of a run.

    Arguments:
        figures: Scores of imputed modalities on held-out rows, by ``MODALITY/FIGURE``.
        verdict: The comparison with baselines, as Markdown.
        headline: The same in one line.
        pictures: PNG files by name.
        parameters: The main choices of the spec, by name.
    """

    figures: Mapping[str, float]
    verdict: str = ""
    headline: str = ""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


def results_of(run: Run) -> Results:
    """The results of a run, on its test rows, or its validation rows if it has none."""
    verdict = run.verdict
    figures = {f"{one.target}/{name}": value for one in run.predictions for name, value in one.figures.items()}
    pictures = dict(_images(run))
    if any(one.outcome != "not tested" for one in verdict.modalities):
        pictures["verdict"] = _chart(verdict)
    spec = run.spec
    parameters = {"model": spec.model.type, "latent_dim": str(spec.latent_dim), "modalities": ", ".join(spec.modalities)}
    return Results(figures, _markdown(verdict), verdict.headline, pictures, parameters)


def _markdown(verdict: Verdict) -> str:
    lines = [f"**{verdict.headline}**", ""]
    tested = [one for one in verdict.modalities if one.outcome != "not tested"]
    if tested:
        lines += ["| modality | figure | model | baseline | outcome | rows |", "|---|---|---|---|---|---|"]
        lines += [f"| {one.title} | {one.figure} | {one.model:.4g} | {one.baseline:.4g} | {one.outcome} | {one.rows} |" for one in tested]
        lines += ["", verdict.note]
    return "\n".join([*lines, *(f"- {line}" for line in (*verdict.column_lines(), *verdict.advice))]) + "\n"


def _images(run: Run) -> list[tuple[str, bytes]]:
    names = [name for name in run.model.names if is_image(run.model.network, name)]
    if not names or (run.splits.test is None and run.splits.validation is None):
        return []
    loaded = run_data_of(run, run.folder or Path(), ROWS, 0).model_and_rows
    return [(name, picture) for name in names if (picture := strips(loaded, name, ROWS)) is not None]


def _chart(verdict: Verdict) -> bytes:
    """The lead over the baseline of each modality, with two standard errors, in units of the figure."""
    from matplotlib.figure import Figure

    tested = [one for one in verdict.modalities if one.outcome != "not tested"][::-1]
    picture = Figure(figsize=(7, 1 + 0.35 * len(tested)), layout="constrained")
    axes = picture.subplots()
    axes.barh(
        [f"{one.title} ({one.figure})" for one in tested], [one.lead for one in tested], xerr=[2 * one.standard_error for one in tested],
        color=["#b3261e" if one.outcome == "worse" else "#00664d" if one.outcome == "better" else "#59636e" for one in tested],
    )  # fmt: skip
    axes.axvline(0, color="#1d2126", linewidth=1)
    axes.set_xlabel("lead over the baseline, with two standard errors")
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
