"""``nbridge train`` and ``nbridge resume``."""

from __future__ import annotations

import json
import shlex
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nbridge.cli.options import AsJson, Device, Overrides, Overwrite, console_of, default_folder, prefixed_errors, reporting
from nbridge.cli.parameters import argument, option
from nbridge.cli.reporting import WithoutReport, verdict_or_warn, write_report_or_warn
from nbridge.cli.torchrun import main_process
from nbridge.cli.tracking import Log, check_loggers, tracking
from nbridge.errors import SpecError

if TYPE_CHECKING:
    from rich.console import Console

    from nbridge.evaluation.crossmodal import Prediction
    from nbridge.runs.run import Run


def train(
    spec: Annotated[str | None, argument("SPEC", "A spec, a YAML file.")] = None,
    out: Annotated[str | None, option("DIR", "The run folder to create.", shown="runs/NAME-OF-THE-SPEC")] = None,
    set_: Overrides = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    continue_: Annotated[str | None, option("DIR", "Train this run longer, with --set training.updates=N or so.", "--continue")] = None,
    log: Log = None,
    no_report: WithoutReport = False,
    as_json: AsJson = False,
) -> None:
    """Train a model from a spec. Runs all training stages; after Ctrl-C, continue with `nbridge resume`."""
    if continue_ is not None:
        if spec or out or overwrite or not set_:
            raise typer.BadParameter("--continue DIR trains that run longer: it needs --set, and takes no SPEC, --out or --overwrite.")
        _go_on(continue_, None if device == "auto" else device, log, no_report, as_json, tuple(set_))
        return
    if spec is None:
        raise typer.BadParameter("Missing argument 'SPEC'.")
    with ExitStack() as stack:
        with main_process() as is_main:
            loggers = check_loggers(log)
            from nbridge.spec.reader import read_spec

            # Read before importing torch, so that errors in the spec show immediately.
            name = read_spec(spec, set_ or ()).name
            folder = out or default_folder(spec, name)
            from nbridge.runs import run

            console = console_of(stderr=as_json, quiet=not is_main)
            trackers = stack.enter_context(tracking(loggers, folder))
            with reporting(console, folder) as progress, prefixed_errors(spec, SpecError):
                callbacks = [progress, *trackers]
                done = run.train(spec, out=folder, overwrite=overwrite, overrides=set_ or (), device=device, callbacks=callbacks)
        if is_main:
            _summarise(done, console, as_json, with_report=not no_report)


def resume(
    directory: Annotated[str, argument("DIR", "A run folder.")],
    device: Annotated[str | None, option("NAME", "Use another device than before.")] = None,
    log: Log = None,
    no_report: WithoutReport = False,
    as_json: AsJson = False,
) -> None:
    """Resume an interrupted run. The result is exactly the same as without the interruption."""
    _go_on(directory, device, log, no_report, as_json)


def _go_on(
    directory: str, device: str | None, log: list[str] | None, no_report: bool, as_json: bool, overrides: tuple[str, ...] = ()
) -> None:  # fmt: skip
    """Resumes a run, or trains it longer."""
    with ExitStack() as stack:
        with main_process() as is_main:
            loggers = check_loggers(log)
            from nbridge.runs import run
            from nbridge.training.checkpoint import CONFIG
            from nbridge.training.run_folder import MODEL, REPORT

            over = not overrides and Path(directory, MODEL, CONFIG).is_file()
            console = console_of(stderr=as_json, quiet=not is_main)
            trackers = stack.enter_context(tracking(loggers, directory))
            with reporting(console, directory) as progress:
                done = run.resume(directory, device=device, overrides=overrides, callbacks=[progress, *trackers])
        if over:
            console.print(f"{directory}: training is already finished", soft_wrap=True)
        if is_main:
            # A process that is killed once the model is saved leaves a finished run without a report.
            reported = over and Path(directory, REPORT).is_file()
            _summarise(done, console, as_json, with_report=not (no_report or reported))


def _summarise(run: Run, console: Console, as_json: bool, *, with_report: bool) -> None:
    """Prints imputation scores on held-out rows, warnings, the verdict and the next commands, or all scores as JSON."""
    from nbridge.cli.verdicts import print_verdict
    from nbridge.evaluation.findings import model_findings
    from nbridge.training.run_folder import REPORT

    predictions = run.predictions
    findings = () if run.held_out is None else model_findings(run.model.network, run.held_out)
    for finding in findings:
        console.print(finding.line, soft_wrap=True)
    verdict = verdict_or_warn(run, console)
    reported = with_report and write_report_or_warn(run, findings, console)
    if as_json:
        content = {"predictions": [asdict(one) for one in predictions], "warnings": [one.as_dict() for one in findings]}
        content |= {"verdict": None if verdict is None else verdict.as_dict()}
        typer.echo(json.dumps({"folder": str(run.folder), **content}, indent=2))
        return
    if predictions:
        _print_table(predictions, console)
    if verdict is not None:
        console.print()
        print_verdict(verdict, console)
    folder = shlex.quote(str(run.folder))
    console.print(f"\nmodel: {Path(str(run.folder), 'model')}", soft_wrap=True)
    if reported:
        console.print(f"report: {Path(str(run.folder), REPORT)}", soft_wrap=True)
    own = run.model.binding.own
    joined, ending = own.into_folder, own.ending
    files = "--to COMPLETED" if joined else f"ROWS{ending} --out COMPLETED{ending}"
    console.print(f"next:  nbridge impute {folder} {files}", soft_wrap=True)
    console.print(f"       nbridge generate {folder} --num 16 --out SAMPLES.npz", soft_wrap=True)


def _print_table(predictions: list[Prediction], console: Console) -> None:
    from rich.table import Table

    rows = f"{predictions[0].rows:,} row{'s' if predictions[0].rows != 1 else ''}"
    console.print(f"\nEach modality imputed from all others, {rows} not used in training", soft_wrap=True)
    table = Table()
    for heading in ("imputed", "log-likelihood (nats)", "accuracy", "RMSE"):
        table.add_column(heading, justify="left" if heading == "imputed" else "right")
    for line in predictions:
        accuracy = "" if line.accuracy is None else f"{line.accuracy:.3f}"
        rmse = "" if line.rmse is None else f"{line.rmse:.4g}"
        table.add_row(line.target, f"{line.log_likelihood:.2f}", accuracy, rmse)
    console.print(table)
