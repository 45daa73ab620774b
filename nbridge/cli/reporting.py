"""``nbridge report``, and the verdict and report written after training."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from nbridge.cli.options import Seed, progress_of
from nbridge.cli.parameters import argument, option
from nbridge.common.messages import clip
from nbridge.common.warnings import Finding

if TYPE_CHECKING:
    from rich.console import Console

    from nbridge.evaluation.verdict import Verdict
    from nbridge.runs.run import Run

WithoutReport = Annotated[bool, typer.Option("--no-report", help="Do not write report.html at the end.")]


def report(
    directories: Annotated[list[str], argument("RUN...", "A run folder; of several, one page shows them side by side.")],
    out: Annotated[
        str | None, option("FILE", "The page to write.", shown="report.html in the run; reports.html beside the first run")
    ] = None,
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="Number of held-out rows for the charts.")] = 200,
    seed: Seed = 0,
) -> None:
    """Write report.html into a run folder. A self-contained page: the verdict, imputed images and values, scores and training curves.

    For an unfinished run it shows what is available so far.
    """
    if len(directories) > 1:
        from nbridge.report.side_by_side import write_comparison

        typer.echo(f"{write_comparison(directories, rows=rows, seed=seed, out=out)}: written")
        return
    from nbridge.report.page import write_report

    with progress_of() as progress:
        progress("measuring and drawing the report", 0, 0)
        written = write_report(directories[0], rows=rows, seed=seed, out=out)
    typer.echo(f"{written}: written")


def verdict_or_warn(run: Run, console: Console) -> Verdict | None:
    """Computes and saves the verdict after training. Errors become a warning and None, so that training does not fail."""
    from nbridge.common.atomic_files import write_json, writing
    from nbridge.training.run_folder import VERDICT

    try:
        with progress_of() as progress:
            progress("comparing with baselines", 0, 0)
            verdict = run.verdict
        if run.folder is not None:
            with writing(target := run.folder / VERDICT):
                write_json(target, verdict.as_dict())
    except Exception as error:
        console.print(f"warning: the verdict could not be computed ({clip(error, 200) or type(error).__name__})", soft_wrap=True)
        return None
    return verdict


def write_report_or_warn(run: Run, findings: tuple[Finding, ...] | None, console: Console) -> bool:
    """Writes the report after training; returns whether it was written. Errors become a warning, so that training does not fail."""
    from nbridge.report.page import write_report

    try:
        with progress_of() as progress:
            progress("measuring and drawing the report", 0, 0)
            write_report(run, findings=findings)
    except Exception as error:
        again = f"try again with: nbridge report {shlex.quote(str(run.folder))}"
        console.print(f"warning: the report was not written ({clip(error, 200) or type(error).__name__}); {again}", soft_wrap=True)
        return False
    return True
