"""``nbridge report``, and the report that ends a training."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from nbridge.cli.options import Seed
from nbridge.common.messages import clip
from nbridge.common.warnings import Finding

if TYPE_CHECKING:
    from rich.console import Console

    from nbridge.evaluation.verdict import Verdict
    from nbridge.runs.run import Run

WithoutReport = Annotated[bool, typer.Option("--no-report", help="Write no report.html at the end.")]


def report(
    directory: Annotated[str, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)],
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="Rows not seen in training that figures take.")] = 200,
    seed: Seed = 0,
) -> None:
    """Write a run as one page, report.html in its folder. Curves, images, values, classes and figures; it needs no network to be read.

    Of a run that is not over yet it shows what there is.
    """
    from nbridge.report.page import write_report

    typer.echo(f"{write_report(directory, rows=rows, seed=seed)}: written")


def verdict_on(run: Run, console: Console) -> Verdict | None:
    """The verdict on a training that just ended, kept in its folder; whatever happens to it, the training must not fail: None then."""
    from nbridge.common.atomic_files import write_json, writing
    from nbridge.training.run_folder import VERDICT

    try:
        verdict = run.verdict
        if run.folder is not None:
            with writing(target := run.folder / VERDICT):
                write_json(target, verdict.as_dict())
    except Exception as error:
        console.print(f"warning: there is no verdict on this model ({clip(error, 200) or type(error).__name__})", soft_wrap=True)
        return None
    return verdict


def report_on(run: Run, findings: tuple[Finding, ...] | None, console: Console) -> bool:
    """Writes the report of a training that just ended, which whatever happens to it must not fail: says whether it is there."""
    from nbridge.report.page import write_report

    try:
        write_report(run, findings=findings)
    except Exception as error:
        again = f"to try again: nbridge report {shlex.quote(str(run.folder))}"
        console.print(f"warning: the report was not written ({clip(error, 200) or type(error).__name__}); {again}", soft_wrap=True)
        return False
    return True
