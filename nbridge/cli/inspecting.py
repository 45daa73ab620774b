"""``nbridge validate``, ``nbridge params`` and ``nbridge schema``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from nbridge.cli.options import PATTERNS, AsJson, Overrides, Overwrite, SpecPath, check_output, console_of, prefixed_errors
from nbridge.errors import DataError, SpecError

if TYPE_CHECKING:
    from nbridge.evaluation.parameter_counts import ParameterTable
    from nbridge.spec.spec import Spec


def validate(
    spec: SpecPath, set_: Overrides = None, data: Annotated[bool, typer.Option("--data", help="Also check the data.")] = False
) -> None:
    """Check a spec. Shows all errors at once, with line numbers. Data are read only with --data.

    With --data, anything that prevents training is an error. Likely mistakes are warnings: constant columns, identifiers used as values,
    outliers, the same column in two modalities, items shared by training and held-out rows.
    """
    from nbridge.spec.reader import read_spec

    parsed = read_spec(spec, set_ or ())
    import torch

    from nbridge.models.bridged import BridgedVAE
    from nbridge.models.flow_bridged import FlowBridgedVAE
    from nbridge.training.build import build_model, check_size

    with prefixed_errors(spec, SpecError), torch.device("meta"):
        check_size(model := build_model(parsed))
    n = len(model.names)
    parts = [f"{n} modalit{'y' if n == 1 else 'ies'}"]
    if isinstance(model, (BridgedVAE, FlowBridgedVAE)):
        parts.append("a flow" if isinstance(model, FlowBridgedVAE) else f"{n * (n - 1)} bridges")
    count = sum(parameter.numel() for parameter in model.parameters())
    typer.echo(f"{spec}: valid. {parsed.model.type}, {', '.join(parts)}, {count:,} parameters")
    if data:
        _check_data(parsed)


def _check_data(spec: Spec) -> None:
    """Prints the patterns of presence and the warnings; raises DataError with all errors."""
    from nbridge.cli.tables import print_patterns
    from nbridge.draft.checks import check_data

    found = check_data(spec)
    if found.present:
        print_patterns(found.present, console_of(), PATTERNS)
    for line in found.warnings:
        typer.echo(f"warning: {line}", err=True)
    if found.errors:
        raise DataError("\n".join(f"error: {line}" for line in found.errors))
    count = len(found.warnings)
    typer.echo(f"data: {found.rows:,} rows, no errors, {count if count else 'no'} warning{'s' if count != 1 else ''}")


def params(spec: SpecPath, set_: Overrides = None, as_json: AsJson = False) -> None:
    """Count the parameters of a model. Shows each part, and a comparison with the retrofit (JMVAE, TELBO) and MVAE."""
    from nbridge.spec.reader import read_spec

    parsed = read_spec(spec, set_ or ())
    from nbridge.evaluation.parameter_counts import count_parameters

    with prefixed_errors(spec, SpecError):
        table = count_parameters(parsed)
    if as_json:
        typer.echo(json.dumps({**asdict(table), "reduction": table.reduction}, indent=2))
    else:
        _print_counts(table)


def schema(
    out: Annotated[str | None, typer.Option(metavar="FILE", help="The JSON file to write; by default it is printed.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the JSON Schema of specs. Editors use it for completion and validation."""
    target = None if out is None else check_output(out, overwrite, (".json",))
    from nbridge.spec.json_schema import schema_text

    if target is None:
        typer.echo(schema_text(), nl=False)
        return
    from nbridge.common.atomic_files import write_text

    write_text(target, schema_text())
    typer.echo(f"{target}: written")


def _print_counts(table: ParameterTable) -> None:
    from rich.console import Console
    from rich.table import Table

    from nbridge.evaluation.parameter_counts import LABELS

    console = Console()
    parts = Table("part", title="The bridged model", title_justify="left")
    parts.add_column("parameters", justify="right")
    for name, count in table.parts.items():
        parts.add_row(name, f"{count:,}")
    console.print(parts)
    models = Table("model", title="Models built from the same parts", title_justify="left")
    for heading in ("inference networks", "parameters", "counted"):
        models.add_column(heading, justify="right")
    for line in table.models:
        models.add_row(LABELS[line.name], f"{line.networks:,}", f"{line.formula:,}", "-" if line.counted is None else f"{line.counted:,}")
    console.print(models)
    typer.echo(f"{table.comparison} Bridges grow as n(n-1), retrofits as 2^n.")
    if table.paper not in (None, table.models[0].formula):
        typer.echo(f"With bridges: {{objective: paper}}, without separate encoders for bridges, it has {table.paper:,}.")
