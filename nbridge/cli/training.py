"""``nbridge train`` and ``nbridge resume``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nbridge.cli.options import AsJson, Device, Overrides, Overwrite, RunPath, SpecPath

if TYPE_CHECKING:
    from rich.console import Console

    from nbridge.evaluation.crossmodal import Prediction
    from nbridge.run import Run


def train(
    spec: SpecPath,
    out: Annotated[str | None, typer.Option(help="The run folder to make.", show_default="runs/NAME-OF-THE-SPEC")] = None,
    set_: Overrides = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a model: the joint stage, then all bridges."""
    from nbridge.progress import ConsoleReporter
    from nbridge.read import read_spec

    # Read before torch is imported, so that a mistake in the spec is shown at once.
    name = read_spec(spec, set_ or ()).name or Path(spec).stem
    from nbridge import run

    console = _console(as_json)
    reporter = ConsoleReporter(console)
    try:
        done = run.train(
            spec, out=out or str(Path("runs", name)), overwrite=overwrite, overrides=set_ or (), device=device, reporter=reporter
        )
    finally:
        reporter.close()
    _summarise(done, console, as_json)


def resume(directory: RunPath, device: Annotated[str | None, typer.Option(help="Another device than before.")] = None, as_json: AsJson = False) -> None:
    """Go on with a run that was stopped, exactly where it was."""
    from nbridge import run
    from nbridge.progress import ConsoleReporter

    console = _console(as_json)
    reporter = ConsoleReporter(console)
    try:
        done = run.resume(directory, device=device, reporter=reporter)
    finally:
        reporter.close()
    _summarise(done, console, as_json)


def _console(as_json: bool) -> Console:
    from rich.console import Console

    return Console(stderr=as_json)


def _summarise(run: Run, console: Console, as_json: bool) -> None:
    """What the model fills in on rows that it has not seen, and what to type next."""
    from nbridge.evaluation.crossmodal import predict_each

    rows = run.splits.test if run.splits.test is not None else run.splits.validation
    predictions = predict_each(run.model, rows) if rows is not None and len(run.model.names) > 1 else []
    if as_json:
        typer.echo(json.dumps({"folder": str(run.folder), "predictions": [asdict(prediction) for prediction in predictions]}, indent=2))
        return
    if predictions:
        _print_table(predictions, console)
    folder = run.folder
    console.print(f"\nmodel: {folder}/model", highlight=False)
    console.print(f"next:  nbridge impute {folder} ROWS.npz --out COMPLETED.npz", highlight=False, soft_wrap=True)
    console.print(f"       nbridge generate {folder} --num 16 --out SAMPLES.npz", highlight=False, soft_wrap=True)


def _print_table(predictions: list[Prediction], console: Console) -> None:
    from rich.table import Table

    table = Table(title=f"Each modality imputed from all others, {predictions[0].rows:,} rows not seen in training", title_justify="left")
    for heading in ("imputed", "given", "log-likelihood (nats)", "accuracy", "RMSE"):
        table.add_column(heading, justify="left" if heading in ("imputed", "given") else "right")
    for line in predictions:
        accuracy = "" if line.accuracy is None else f"{line.accuracy:.3f}"
        rmse = "" if line.rmse is None else f"{line.rmse:.4g}"
        table.add_row(line.target, ", ".join(line.given), f"{line.log_likelihood:.2f}", accuracy, rmse)
    console.print(table)
