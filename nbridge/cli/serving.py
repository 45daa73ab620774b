"""``nbridge impute``, ``nbridge generate`` and ``nbridge embed``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nbridge.cli.options import (
    Overwrite,
    RunPath,
    Seed,
    SetCovariate,
    check_covariates,
    check_output,
    check_output_folder,
    check_target,
    console_of,
    covariates_of,
    prefixed_errors,
)
from nbridge.cli.parameters import argument, option
from nbridge.data.endings import has_ending
from nbridge.data.folders import is_folder, kind_of
from nbridge.data.remote import check_writable, checked, is_url
from nbridge.errors import DataError, RunError

if TYPE_CHECKING:
    from torch import Tensor

    from nbridge.inference.options import ImputationOptions, Shard
    from nbridge.nn.likelihoods import Likelihood
    from nbridge.spec.option_types import Prior

Rows = Annotated[
    str, argument("ROWS", "An npz file with one array per modality, a csv or parquet table, an h5mu or h5ad file, or a folder of images.")
]
ManyRows = Annotated[
    list[str] | None,
    argument(
        "ROWS",
        "An npz, parquet or csv file or a folder of npy files, of any size; an h5mu or h5ad file; or a folder of images. Several with "
        "--to.",
    ),
]
OutAlike = Annotated[str | None, option("PATH", "The file or folder to write, of the same kind as ROWS.")]
ShardText = Annotated[str, typer.Option(metavar="I/N", help="Write only this part of the rows, such as 1/4.")]
Out = Annotated[str, option("FILE", "The npz file to write.")]


def impute(
    directory: RunPath,
    rows: ManyRows = None,
    out: OutAlike = None,
    to: Annotated[
        str | None, option("FOLDER", "Write several tables or folders of images that are joined on identifiers, under their names.")
    ] = None,
    samples: Annotated[int | None, typer.Option(metavar="K", min=1, help="Draws per row; by default one point estimate.")] = None,
    noise: Annotated[bool, typer.Option(help="Whether draws include the spread of the likelihood.")] = True,
    seed: Seed = 0,
    intervals: Annotated[
        str | None, option("P,P", "Also write NAME__mean, __sd, __lower and __upper for these central intervals, such as 0.9.")
    ] = None,
    draws: Annotated[int, typer.Option(metavar="K", min=1, help="Draws for the intervals.")] = 399,
    shard: ShardText = "1/1",
    set_covariate: SetCovariate = None,
    overwrite: Overwrite = False,
) -> None:
    """Impute missing values. These are NaN, null, empty cells, rows where NAME__present is false, and modalities not in the file.

    Observed values are unchanged, in a csv file character for character. NAME__imputed marks the imputed values. Everything else in the
    file is copied.

    Intervals are quantiles of the predictive distribution; several levels add an axis. Classes get NAME__probability instead.

    With --to, each joined table or folder of images is written back. Without ROWS, they are those that the run was trained from. Rows that
    one of them lacks are appended. Existing images are copied, and imputed ones are written as PNG files.
    """
    target = None if to is not None else _target(rows or [], out, overwrite)
    from nbridge.inference.intervals import parse_levels
    from nbridge.inference.options import ImputationOptions, Shard

    try:
        part = Shard.parse(shard)
        levels = () if intervals is None else parse_levels(intervals)
        options = ImputationOptions(samples, noise, seed, levels, draws, covariates_of(set_covariate))
        options.check()
    except DataError as error:
        raise RunError(f"--{error}") from error
    if target is not None:
        assert rows is not None
        _impute(directory, rows[0], target, options, part)
        return
    if out is not None or part.of > 1:
        other = "--out" if out is not None else "--shard"
        raise RunError(f"--to {to}: cannot be combined with {other}; all tables are written whole, under their names")
    check_target(Path(str(to)), f"--to {to}", overwrite)
    _impute(directory, rows or [], Path(str(to)), options, part)


def _impute(directory: str, rows: str | list[str], target: Path | str, options: ImputationOptions, shard: Shard) -> None:
    """Imputes rows with a progress bar, and prints a summary."""
    from nbridge.cli.tables import EvaluationProgress, print_findings
    from nbridge.data.source import open_data
    from nbridge.inference.complete import impute_rows
    from nbridge.model import load

    model = load(directory)
    check_covariates(model, options.covariates)
    source = open_data(rows, model.binding.own)
    if source.into_folder and isinstance(rows, str):
        if not is_folder(rows):
            raise RunError(f"--out {target}: this model has images, which are written as files; write to a folder, --to FOLDER")
        if shard.of > 1:
            raise RunError(f"--shard {shard.number}/{shard.of}: not supported for images; leave it out")
    with closing(EvaluationProgress(console_of(stderr=True))) as bar:
        done = impute_rows(model, source, target, options, shard=shard, progress=bar)
    print_findings(done.warnings)
    counts = ", ".join(f"{name} {count:,}" for name, count in done.imputed.items())
    if source.into_folder:
        typer.echo(f"{target}: {', '.join(path.name for path in done.files)}: {done.total:,} rows; imputed {counts}")
        for file, count in done.appended.items():
            typer.echo(f"{Path(file).name}: {count:,} missing rows were appended")
        return
    passed = f"; passed through {', '.join(name or 'a column without a name' for name in done.passed)}" if done.passed else ""
    of_all = "" if shard.of == 1 else f" of {done.total:,}, starting at row {done.start:,}"
    typer.echo(f"{target}: {done.stop - done.start:,} rows{of_all}; imputed {counts}{passed}")


def _target(rows: Sequence[str], out: str | None, overwrite: bool) -> Path | str:
    """The checked output path, or URL, for a single input file or folder."""
    if not rows:
        raise typer.BadParameter("Missing argument 'ROWS', the file to impute. It is optional with --to FOLDER.")
    if len(rows) > 1:
        raise typer.BadParameter("Several ROWS are joined on their identifiers and need --to FOLDER.")
    if out is None:
        raise typer.BadParameter("Missing option '--out', the file to write.")
    ending = kind_of(rows[0])
    if is_url(out):
        checked(out)
        if ending and not has_ending(out, ending):
            raise RunError(f"--out {out}: expected a file that ends in {ending}")
        check_writable(out, overwrite=overwrite)
        return out
    return check_output(out, overwrite, (ending,), rows[0]) if ending else check_output_folder(out, overwrite, rows[0])


def generate(
    directory: RunPath,
    out: Annotated[str, option("FILE", "An npz file, or a png file for a grid of images.")],
    given: Annotated[list[str] | None, option("NAME=VALUE", "Condition on a modality: label=3, x=[0.1,0.2]; may be repeated.")] = None,
    num: Annotated[int, typer.Option(metavar="N", min=1, help="Number of rows.")] = 16,
    noise: Annotated[bool, typer.Option(help="Whether to sample from the likelihood instead of taking its mean.")] = False,
    prior: Annotated[str | None, option("NAME", "The prior if nothing is given: normal, N(0, I), or mixture.", shown="the model's")] = None,
    seed: Seed = 0,
    set_covariate: SetCovariate = None,
    overwrite: Overwrite = False,
) -> None:
    """Generate new rows. Samples from the prior, or conditionally on the given modalities."""
    target = check_output(out, overwrite, (".npz", ".png"))
    from nbridge.inference.impute import mixture_for
    from nbridge.model import load

    model = load(directory)
    covariates = covariates_of(set_covariate)
    check_covariates(model, covariates)
    fixed = _parse_given(model.likelihoods, given or [])
    with prefixed_errors(f"--prior {prior}", DataError):
        mixture_for(model.network, prior, fixed)
    values = model.generate(num, fixed, noise=noise, seed=seed, prior=cast("Prior | None", prior), covariates=covariates)
    if has_ending(target, ".png"):
        from nbridge.cli.image_grid import write_grid

        write_grid(target, model.network, values)
    else:
        from nbridge.data.numpy.archive import write_npz

        names = model.binding.own.array_names(values)
        write_npz(target, {names[name]: x.numpy() for name, x in values.items()})
    typer.echo(f"{target}: {num:,} rows")


def embed(directory: RunPath, rows: Rows, out: Out, set_covariate: SetCovariate = None, overwrite: Overwrite = False) -> None:
    """Embed each row in the latent space. Writes the mean and standard deviation of q(z|x) for any pattern of missing modalities."""
    target = check_output(out, overwrite, (".npz",), rows)
    from nbridge.cli.tables import print_findings
    from nbridge.data.ids import fixed_width
    from nbridge.data.marks import COUNTED, imputed_before
    from nbridge.data.numpy.archive import write_npz
    from nbridge.inference.reading import read_batch
    from nbridge.model import load

    model = load(directory)
    fixed = covariates_of(set_covariate)
    check_covariates(model, fixed)
    batch, ids, before = read_batch(model, rows, model.fixed(fixed))
    print_findings(imputed_before(before, COUNTED))
    with prefixed_errors(rows, DataError):
        q = model.embed(batch, covariates=fixed)
    named = {} if ids is None else {model.binding.own.id: fixed_width(ids)}
    write_npz(target, {**named, "mean": q.mean.numpy(), "stddev": q.stddev.numpy()})
    typer.echo(f"{target}: {len(q.mean):,} rows, {model.network.latent_dim} dimensions")


def _parse_given(likelihoods: Mapping[str, Likelihood], given: list[str]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for item in given:
        name, _, text = item.partition("=")
        with prefixed_errors(f"--given {item}", DataError):
            if not text:
                raise DataError("expected NAME=VALUE, such as label=3 or x=[0.1,0.2]")
            if name not in likelihoods:
                from nbridge.common.messages import did_you_mean, listing

                raise DataError(f"no modality {name!r}.{did_you_mean(name, likelihoods)} Modalities: {listing(likelihoods)}")
            if name in values:
                raise DataError(f"modality {name!r} is given twice")
            values[name] = _parse_value(name, likelihoods[name], text)
    return values


def _parse_value(name: str, likelihood: Likelihood, text: str) -> Tensor:
    """Parses one row of a modality from YAML text."""
    from nbridge.data.arrays import to_batch
    from nbridge.models.support import check_support
    from nbridge.spec import yaml_positions as yaml_tree

    try:
        value = yaml_tree.parse(text).value
    except yaml_tree.ParseError as error:
        raise DataError(error.diagnostic.text) from error
    batch = to_batch({name: [value]}, {name: likelihood.shape}, allow_missing=True)
    if name in batch.cells or not batch.present[name].all():
        raise DataError("contains NaN; give a complete value, or leave the modality out")
    check_support({name: likelihood}, batch)
    return batch.values[name][0]
