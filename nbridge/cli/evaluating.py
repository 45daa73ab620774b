"""``nbridge evaluate`` and ``nbridge compare``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nbridge.cli.options import (
    AsJson,
    Device,
    Overrides,
    Seed,
    SpecPath,
    console_of,
    default_folder,
    prefixed_errors,
    reporting,
    split_names,
)
from nbridge.cli.parameters import argument, option
from nbridge.errors import DataError, NBridgeError, SpecError

if TYPE_CHECKING:
    from nbridge.evaluation.results import Metric, Settings, Split

SplitName = Annotated[str, typer.Option(metavar="NAME", help="test, validation or train.")]
MetricNames = Annotated[str | None, option("A,B", "The metrics; by default all that the models support.")]
Given = Annotated[
    list[str] | None,
    option("A,B", "A conditioning set, '' for the prior; may be repeated. By default, each single modality and each set of all but one."),
]
NumRows = Annotated[int, typer.Option(metavar="N", help="Maximum number of rows; 0 for all.")]
DensityRows = Annotated[int | None, option("N", "Maximum number of rows for metrics with K samples.", shown="all of them")]
Samples = Annotated[int, typer.Option(metavar="K", help="Importance samples of z per row.")]
Draws = Annotated[int, typer.Option(metavar="N", help="Draws per row for the other metrics.")]
Generated = Annotated[int, typer.Option(metavar="N", help="Draws per row for metrics with classifiers.")]
Label = Annotated[str | None, option("NAME", "The modality that classifiers predict.", shown="the first")]


def evaluate(
    directory: Annotated[str, argument("DIR", "A run folder.")],
    split: SplitName = "test",
    metrics: MetricNames = None,
    given: Given = None,
    rows: NumRows = 1000,
    density_rows: DensityRows = None,
    samples: Samples = 5000,
    draws: Draws = 200,
    generated: Generated = 10,
    label: Label = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Evaluate a trained model. Compares it with baselines and measures likelihoods, cross-modal generation and imputation.

    Results are printed and saved as JSON in the run folder.
    """
    from nbridge.cli.tables import EvaluationProgress, print_evaluation, print_findings
    from nbridge.cli.verdicts import print_verdict
    from nbridge.common.atomic_files import write_json, writing
    from nbridge.evaluation import suite
    from nbridge.evaluation.classifier_cache import ClassifierCache
    from nbridge.runs import run
    from nbridge.training.run_folder import CLASSIFIERS, evaluation_path
    from nbridge.training.state import read_records

    settings = _settings(split, metrics, given, rows, density_rows, samples, draws, generated, label, seed)
    cache = ClassifierCache(Path(directory) / CLASSIFIERS)
    trained = run.open_run(directory, device=device)
    with closing(EvaluationProgress(console_of(stderr=True))) as bar, prefixed_errors(directory, DataError), _options_as_typed():
        parts = (trained.model.network, trained.spec, trained.splits, settings)
        evaluation = suite.evaluate(*parts, classifiers=cache, announce=bar, records=read_records(Path(directory)))
    with writing(target := evaluation_path(Path(directory), split)):
        write_json(target, evaluation.as_dict())
    print_findings(evaluation.warnings)
    if as_json:
        typer.echo(json.dumps(evaluation.as_dict(), indent=2))
    else:
        if evaluation.verdict is not None:
            print_verdict(evaluation.verdict, console_of())
            typer.echo()
        print_evaluation(evaluation, console_of())
        typer.echo(f"{target}: written")


def compare(
    spec: SpecPath,
    models: Annotated[str, typer.Option(metavar="A,B", help="The models to train and compare.")] = "bridged,jmvae,telbo,mvae",
    out: Annotated[str | None, option("DIR", "The output folder.", shown="runs/compare-NAME-OF-THE-SPEC")] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Number of seeds per model.")] = 3,
    set_: Overrides = None,
    split: SplitName = "test",
    metrics: MetricNames = None,
    given: Given = None,
    rows: NumRows = 1000,
    density_rows: DensityRows = None,
    samples: Samples = 5000,
    draws: Draws = 200,
    generated: Generated = 10,
    label: Label = None,
    device: Device = "auto",
    minutes: Annotated[float | None, option("M", "Stop after M minutes; run the same command to continue.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train and evaluate several models on one spec. Run the same command again to continue after an interruption."""
    from nbridge.spec.reader import read_spec

    # Read before importing torch, so that errors in the spec show immediately.
    folder = default_folder(spec, read_spec(spec, set_ or ()).name, "compare-") if out is None else out
    if minutes is not None and not minutes > 0:
        raise NBridgeError(f"--minutes {minutes:g}: expected more than 0")
    from nbridge.cli.tables import EvaluationProgress, print_comparison
    from nbridge.runs import comparison

    settings = _settings(split, metrics, given, rows, density_rows, samples, draws, generated, label, 0)
    console = console_of(stderr=True)
    bar = EvaluationProgress(console)

    def announce(line: str) -> None:
        bar.close()
        console.print(line, soft_wrap=True)

    with closing(bar), reporting(console) as progress, prefixed_errors(spec, SpecError), _options_as_typed():
        done = comparison.compare(
            spec, split_names(models), folder, seeds=seeds, settings=settings, overrides=set_ or (), device=device, minutes=minutes,
            announce=announce, callbacks=[progress], measuring=bar,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(done.as_dict(), indent=2))
    else:
        print_comparison(done, console_of())
        table, figures = comparison.comparison_paths(Path(folder), split)
        typer.echo(f"{table}, with standard errors, and {figures}: written")


@contextmanager
def _options_as_typed() -> Iterator[None]:
    """Spells options in error messages as on the command line."""
    from nbridge.evaluation.results import OptionError

    try:
        yield
    except OptionError as error:
        raise NBridgeError(re.sub(r"^\w+", lambda name: f"--{name[0].replace('_', '-')}", str(error))) from error


def _settings(
    split: str, metrics: str | None, given: list[str] | None, rows: int, density_rows: int | None, samples: int, draws: int, generated: int,
    label: str | None, seed: int,
) -> Settings:  # fmt: skip
    from nbridge.evaluation.results import Settings

    return Settings(
        # Settings.check rejects unknown metrics and splits.
        metrics=None if metrics is None else cast("tuple[Metric, ...]", split_names(metrics)),
        given=None if given is None else tuple(split_names(names) for names in given),
        split=cast("Split", split), rows=rows or None, density_rows=density_rows, samples=samples, draws=draws, generated=generated,
        label=label, seed=seed,
    )  # fmt: skip
