"""``nbridge impute``, ``nbridge generate`` and ``nbridge embed``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nbridge.cli.joining import IMAGES, are_images, impute_folders, impute_joined
from nbridge.cli.options import Overwrite, RunPath, Seed, blaming, check_output, check_output_folder, console_of, warning
from nbridge.data.endings import ARCHIVE, has_ending
from nbridge.errors import DataError, RunError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from nbridge.data.tables.layout import TableLayout
    from nbridge.nn.likelihoods import Likelihood
    from nbridge.spec.option_types import Prior
    from nbridge.spec.spec import Spec

    Arrays = dict[str, np.ndarray]

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
    from nbridge.training.checkpoint import load_model

    assert rows is not None
    assert target is not None
    (path,) = rows
    model, spec = load_model(directory)
    if spec.data.source.type == IMAGES and are_images(path, target, part):
        impute_folders(model, spec, rows, str(target), wishes)
        return
    options = {"keys": _keys(spec), "id": _id_key(spec), "samples": samples, "noise": noise, "seed": seed, "table": _table(spec)}
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
    from nbridge.inference.impute import generate as draw
    from nbridge.inference.impute import mixture_for
    from nbridge.training.checkpoint import load_model

    model, spec = load_model(directory)
    fixed = _parse_given(model.likelihoods, given or [])
    with blaming(f"--prior {prior}", DataError):
        mixture_for(model, prior, fixed)
    values = draw(model, num, fixed, noise=noise, seed=seed, prior=cast("Prior | None", prior))
    if has_ending(target, ".png"):
        from nbridge.cli.pictures import write_grid

        write_grid(target, model, values)
    else:
        from nbridge.data.numpy.npz import write_npz

        write_npz(target, _under_keys(spec, {name: x.numpy() for name, x in values.items()}))
    typer.echo(f"{target}: {num:,} rows")


def embed(directory: RunPath, rows: Rows, out: Out, overwrite: Overwrite = False) -> None:
    """Write the code of each row. It is the mean and the standard deviation of q(z|x), whatever the row lacks."""
    target = check_output(out, overwrite, (".npz",), rows)
    from nbridge.data.arrays import to_batch
    from nbridge.data.numpy.npz import write_npz
    from nbridge.inference.impute import embed as posterior
    from nbridge.training.checkpoint import load_model

    model, spec = load_model(directory)
    given, others = _read_rows(spec, rows)
    shapes = {name: likelihood.shape for name, likelihood in model.likelihoods.items()}
    with blaming(rows, DataError):
        q = posterior(model, to_batch(given, shapes, allow_missing=True))
    identifiers = {key: others[key] for key in [_id_key(spec)] if key in others}
    write_npz(target, {**identifiers, "mean": q.mean.numpy(), "stddev": q.stddev.numpy()})
    typer.echo(f"{target}: {len(q.mean):,} rows, {model.latent_dim} dimensions")


def _read_rows(spec: Spec, path: str) -> tuple[Arrays, Arrays]:
    """The arrays of a file that hold modalities, under their names, and all others."""
    from nbridge.data.ids import check_ids
    from nbridge.data.numpy.npz import read_npz
    from nbridge.data.omics.container import is_omics_file
    from nbridge.data.tables.columns import ending_of
    from nbridge.inference.file_plan import match_keys

    if is_omics_file(path):
        return _read_omics(spec, path)
    if spec.data.source.type == IMAGES and not has_ending(path, ARCHIVE):
        return _read_images(spec, path)
    if ending_of(path) and (layout := _table(spec)) is not None:
        return _read_table(layout, path)
    arrays = read_npz(path)
    with blaming(path, DataError):
        taken, names = match_keys(tuple(arrays), _keys(spec), "array")
        given, others = {name: _as_numbers(spec, name, arrays[key]) for name, key in taken.items()}, {name: arrays[name] for name in names}
        if _id_key(spec) in others:
            first = next(iter(given.values()))
            check_ids(others[_id_key(spec)], len(first) if first.ndim else None)
    return given, others


def _as_numbers(spec: Spec, name: str, array: np.ndarray) -> np.ndarray:
    """The array of a modality; classes that it holds as text are their numbers."""
    from nbridge.data.numpy.class_texts import are_texts, class_numbers, texts_in
    from nbridge.training.build import class_names_of

    classes = class_names_of(spec).get(name)
    if classes is None or not are_texts(array.dtype, array.shape):
        return array
    return class_numbers(texts_in(array, what := f"modality {name!r}"), classes, what)


def _read_images(spec: Spec, path: str) -> tuple[Arrays, Arrays]:
    """The modalities of a folder of images, or of a table of their paths, and its identifiers."""
    from nbridge.data.images.source import Images
    from nbridge.inference.image_completion import read_images

    layout = _table(spec)
    assert layout is not None, "images are read as tables are"
    arrays, ids = read_images(Images(**spec.data.source.kwargs), layout, [path])
    return arrays, {} if ids is None else {layout.id: ids}


def _read_table(layout: TableLayout, path: str) -> tuple[Arrays, Arrays]:
    """The modalities of a table, and its identifiers."""
    from tempfile import TemporaryDirectory

    from nbridge.data.folders import find_file
    from nbridge.data.ids import check_ids
    from nbridge.data.tables.rows import cell_rows
    from nbridge.errors import naming

    found = find_file(path)
    with TemporaryDirectory() as scratch, naming(found), cell_rows(found, layout, Path(scratch)) as table:
        (block,) = table.blocks(table.there, 0, table.rows, table.rows)
        if layout.id not in table.passed:
            return dict(block.arrays), {}
        (texts,) = table.identifiers(layout.id, table.rows, table.rows)
        return dict(block.arrays), {layout.id: check_ids(texts, told=table.told_ids(layout.id))}


def _read_omics(spec: Spec, path: str) -> tuple[Arrays, Arrays]:
    """The modalities of an .h5mu or .h5ad file, and its obs_names."""
    from tempfile import TemporaryDirectory

    from nbridge.data.streaming.files import find_rows, open_rows
    from nbridge.errors import naming
    from nbridge.training.build import omics_layout_of

    found, kind = find_rows(path)
    with (
        TemporaryDirectory() as scratch,
        naming(found),
        open_rows(found, kind, {}, Path(scratch), omics=omics_layout_of(spec)) as rows,
    ):
        total = rows.layout(rows.keys[0]).shape[0]
        (block,) = rows.blocks(rows.keys, 0, total, total)
        (names,) = rows.identifiers("", total, total)
        return {key: block.with_nan(key) for key in rows.keys}, {_id_key(spec): names}


def _under_keys(spec: Spec, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Arrays of modalities, and masks that belong to them, under the keys that npz files have for them."""
    keys = _keys(spec)
    parts = {name: name.partition("__") for name in arrays}
    return {keys[stem] + separator + ending: arrays[name] for name, (stem, separator, ending) in parts.items()}


def _keys(spec: Spec) -> dict[str, str]:
    """The key of each modality in npz files; keys of MuData are no names that such files have."""
    from nbridge.training.build import omics_layout_of

    named = (spec.data.source.kwargs.get("keys") if omics_layout_of(spec) is None else None) or {}
    return {name: named.get(name, name) for name in spec.modalities}


def _table(spec: Spec) -> TableLayout | None:
    """Which columns of a csv file are which modality, of a model that was trained from one, or from a data frame."""
    from nbridge.training.build import table_of

    return table_of(spec)


def _id_key(spec: Spec) -> str:
    return str(spec.data.source.kwargs.get("id", "id"))


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
