"""``nbridge impute``, ``nbridge generate`` and ``nbridge embed``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nbridge.cli.joining import are_images, impute_folders, impute_joined
from nbridge.cli.options import Overwrite, RunPath, Seed, blaming, check_output, check_output_folder, console_of, warning
from nbridge.data.endings import has_ending
from nbridge.errors import DataError, RunError

if TYPE_CHECKING:
    from torch import Tensor

    from nbridge.nn.likelihoods import Likelihood
    from nbridge.spec.option_types import Prior

Rows = Annotated[
    str,
    typer.Argument(
        metavar="ROWS",
        help="An npz file, one array a modality, a csv or parquet table, an h5mu or h5ad file, or a folder of images.",
        show_default=False,
    ),
]
ManyRows = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ROWS",
        help="An npz file, a folder of npy files, a parquet or csv file, of any size; an h5mu or h5ad file; a folder of images; with --to "
        "several.",
        show_default=False,
    ),
]
OutAlike = Annotated[
    str | None, typer.Option(metavar="PATH", help="The file to write, of the same kind; or the folder.", show_default=False)
]
Shard = Annotated[str, typer.Option(metavar="I/N", help="Write this part of the rows alone, such as 1/4.")]
Out = Annotated[str, typer.Option(metavar="FILE", help="The npz file to write.", show_default=False)]


def impute(
    directory: RunPath,
    rows: ManyRows = None,
    out: OutAlike = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Write several tables or folders of images, joined on identifiers, each by its name.", show_default=False
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option(metavar="K", min=1, help="Draws for each row; one best estimate when left out.")] = None,
    noise: Annotated[bool, typer.Option(help="Whether draws include the spread of the likelihood.")] = True,
    seed: Seed = 0,
    intervals: Annotated[
        str | None,
        typer.Option(
            metavar="P,P", help="Also write NAME__mean, __sd, __lower and __upper: central intervals, such as 0.9.", show_default=False
        ),
    ] = None,
    draws: Annotated[int, typer.Option(metavar="K", min=1, help="Draws that intervals are taken from.")] = 399,
    shard: Shard = "1/1",
    overwrite: Overwrite = False,
) -> None:
    """Fill in what is absent. Absent are NaN, null, empty cells, rows where NAME__present is false, and modalities that the file lacks.

    Observed values stay as they are, to the letter in a csv file, NAME__imputed tells where values were filled in, all else passes through.
    Intervals are of the predictive distribution, several of them behind an axis of levels; classes have NAME__probability instead.
    With --to, tables and folders of images that are joined are each written back; without ROWS they are those that the run was trained
    from, and rows that one of them lacks come at its end. Images that were there are copied, and imputed ones are PNG files beside them.
    """
    target = None if to is not None else _target(rows or [], out, overwrite)
    from nbridge.cli.tables import MeasuringBar
    from nbridge.inference.file_completion import Wishes, impute_file, parse_shard
    from nbridge.inference.intervals import parse_levels

    try:
        part = parse_shard(shard)
        levels = () if intervals is None else parse_levels(intervals)
        wishes = Wishes(samples, noise, seed, levels, draws)
        wishes.check()
    except DataError as error:
        raise RunError(f"--{error}") from error
    if to is not None:
        if out is not None or part[1] > 1:
            other = "--out" if out is not None else "--shard"
            raise RunError(f"--to {to}: goes without {other}; all tables are written whole, by their names")
        impute_joined(directory, rows or [], to, wishes, overwrite)
        return
    from nbridge.model import load

    assert rows is not None
    assert target is not None
    (path,) = rows
    model = load(directory)
    if model.binding.images is not None and are_images(path, target, part):
        impute_folders(model, rows, str(target), wishes)
        return
    options = {"samples": samples, "noise": noise, "seed": seed}
    bar = MeasuringBar(console_of(stderr=True))
    try:
        done = impute_file(model, path, target, **options, intervals=levels, draws=draws, shard=part, progress=bar)
    finally:
        bar.close()
    warning(done.warnings)
    counts = ", ".join(f"{name} {count:,}" for name, count in done.imputed.items())
    passed = f"; passed through {', '.join(name or 'a column without a name' for name in done.passed)}" if done.passed else ""
    of_all = "" if part[1] == 1 else f" of {done.total:,}, the first of them row {done.start:,}"
    typer.echo(f"{target}: {done.stop - done.start:,} rows{of_all}; imputed {counts}{passed}")


def _target(rows: Sequence[str], out: str | None, overwrite: bool) -> Path:
    """The file or the folder to write where one is read."""
    from nbridge.data.streaming.files import FOLDER, kind_of

    if not rows:
        raise typer.BadParameter("Missing argument 'ROWS', the file to fill in. With --to FOLDER, those of the run.")
    if len(rows) > 1:
        raise typer.BadParameter("Several ROWS are joined on their identifiers and written to a folder: --to FOLDER.")
    if out is None:
        raise typer.BadParameter("Missing option '--out', the file to write.")
    kind = kind_of(rows[0])
    return check_output_folder(out, overwrite, rows[0]) if kind == FOLDER else check_output(out, overwrite, (kind,), rows[0])


def generate(
    directory: RunPath,
    out: Annotated[str, typer.Option(metavar="FILE", help="An npz file, or a png file for a grid of images.", show_default=False)],
    given: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Hold a modality fixed: label=3, x=[0.1,0.2]; may be repeated.", show_default=False),
    ] = None,
    num: Annotated[int, typer.Option(metavar="N", min=1, help="How many rows.")] = 16,
    noise: Annotated[bool, typer.Option(help="Whether to draw from the likelihood; else its mean is given.")] = False,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="With nothing given: normal, N(0, I), or mixture.", show_default="what the model was trained with"
        ),
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draw new rows. They come from the prior, or from what is given of them."""
    target = check_output(out, overwrite, (".npz", ".png"))
    from nbridge.inference.impute import mixture_for
    from nbridge.model import load

    model = load(directory)
    fixed = _parse_given(model.likelihoods, given or [])
    with blaming(f"--prior {prior}", DataError):
        mixture_for(model.network, prior, fixed)
    values = model.generate(num, fixed, noise=noise, seed=seed, prior=cast("Prior | None", prior))
    if has_ending(target, ".png"):
        from nbridge.cli.pictures import write_grid

        write_grid(target, model.network, values)
    else:
        from nbridge.data.numpy.npz import write_npz

        keys = model.binding.keys
        write_npz(target, {keys.get(name, name): x.numpy() for name, x in values.items()})
    typer.echo(f"{target}: {num:,} rows")


def embed(directory: RunPath, rows: Rows, out: Out, overwrite: Overwrite = False) -> None:
    """Write the code of each row. It is the mean and the standard deviation of q(z|x), whatever the row lacks."""
    target = check_output(out, overwrite, (".npz",), rows)
    from nbridge.data.numpy.npz import write_npz
    from nbridge.inference.reading import read_batch
    from nbridge.model import load

    model = load(directory)
    batch, ids = read_batch(model, rows)
    with blaming(rows, DataError):
        q = model.embed(batch)
    table = model.binding.table
    named = {} if ids is None else {model.binding.id if table is None else table.id: ids}
    write_npz(target, {**named, "mean": q.mean.numpy(), "stddev": q.stddev.numpy()})
    typer.echo(f"{target}: {len(q.mean):,} rows, {model.network.latent_dim} dimensions")


def _parse_given(likelihoods: Mapping[str, Likelihood], given: list[str]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    for item in given:
        name, _, text = item.partition("=")
        with blaming(f"--given {item}", DataError):
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
    """One row of a modality, in the YAML that a spec is written in."""
    from nbridge.data.arrays import to_batch
    from nbridge.models.support import check_support
    from nbridge.spec import yaml_positions as yaml_tree

    try:
        value = yaml_tree.parse(text).value
    except yaml_tree.Unreadable as error:
        raise DataError(error.flaw.text) from error
    batch = to_batch({name: [value]}, {name: likelihood.shape}, allow_missing=True)
    if name in batch.cells or not batch.present[name].all():
        raise DataError("NaN in it; leave out what is not known")
    check_support({name: likelihood}, batch)
    return batch.values[name][0]
