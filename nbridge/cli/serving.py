"""``nbridge impute``, ``nbridge generate`` and ``nbridge embed``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nbridge.cli.options import Overwrite, RunPath, Seed, check_output
from nbridge.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from nbridge.models.base import MultimodalVAE
    from nbridge.spec import Spec

Rows = Annotated[str, typer.Argument(metavar="ROWS", help="An npz file, one array a modality.", show_default=False)]
Out = Annotated[str, typer.Option(help="The npz file to write.", show_default=False)]


def impute(
    directory: RunPath,
    rows: Rows,
    out: Out,
    samples: Annotated[int | None, typer.Option(min=1, help="Draws for each row; one best estimate when left out.")] = None,
    noise: Annotated[bool, typer.Option(help="Whether draws include the spread of the likelihood.")] = True,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Fill in what is absent: NaN, rows that NAME__present marks, modalities that the file lacks."""
    target = check_output(out, overwrite, (".npz",))
    from nbridge.checkpoint import load_model
    from nbridge.completion import IMPUTED, impute_arrays
    from nbridge.data.npz import write_npz

    model, spec = load_model(directory)
    keys = _keys(spec)
    done = impute_arrays(model, _read_rows(spec, rows), samples=samples, noise=noise, seed=seed)
    write_npz(target, {_renamed(name, keys): array for name, array in done.items()})
    counts = ", ".join(f"{name} {int(done[name + IMPUTED].reshape(len(done[name + IMPUTED]), -1).any(1).sum()):,}" for name in model.names)
    typer.echo(f"{target}: {len(done[model.names[0] + IMPUTED]):,} rows; imputed {counts}")


def generate(
    directory: RunPath,
    out: Annotated[str, typer.Option(help="An npz file, or a png file for a grid of images.", show_default=False)],
    given: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Hold a modality fixed; may be repeated.")] = None,
    num: Annotated[int, typer.Option(min=1, help="How many rows.")] = 16,
    noise: Annotated[bool, typer.Option(help="Whether to draw from the likelihood; else its mean is given.")] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Draw new rows, from the prior or given some modalities."""
    target = check_output(out, overwrite, (".npz", ".png"))
    from nbridge.checkpoint import load_model
    from nbridge.imputation import generate as draw

    model, _ = load_model(directory)
    values = draw(model, num, _parse_given(model, given or []), noise=noise, seed=seed)
    if target.suffix == ".png":
        from nbridge.cli.pictures import write_grid

        write_grid(target, model, values)
    else:
        from nbridge.data.npz import write_npz

        write_npz(target, {name: x.numpy() for name, x in values.items()})
    typer.echo(f"{target}: {num:,} rows")


def embed(directory: RunPath, rows: Rows, out: Out, overwrite: Overwrite = False) -> None:
    """Write the mean and the standard deviation of q(z|x) for each row, whatever it lacks."""
    target = check_output(out, overwrite, (".npz",))
    from nbridge.checkpoint import load_model
    from nbridge.data.arrays import to_batch
    from nbridge.data.npz import write_npz
    from nbridge.imputation import embed as posterior

    model, spec = load_model(directory)
    arrays = _read_rows(spec, rows)
    shapes = {name: likelihood.shape for name, likelihood in model.likelihoods.items()}
    q = posterior(model, to_batch(arrays, shapes, allow_missing=True, ignore_extra=True))
    identifiers = {key: arrays[key] for key in [_id_key(spec)] if key in arrays}
    write_npz(target, {**identifiers, "mean": q.mean.numpy(), "stddev": q.stddev.numpy()})
    typer.echo(f"{target}: {len(q.mean):,} rows, {model.latent_dim} dimensions")


def _read_rows(spec: Spec, path: str) -> dict[str, np.ndarray]:
    """The arrays of a file under the names of the modalities."""
    from nbridge.data.ids import check_ids
    from nbridge.data.npz import read_npz

    names = {key: name for name, key in _keys(spec).items()}
    arrays = {_renamed(key, names): array for key, array in read_npz(path).items()}
    try:
        if _id_key(spec) in arrays:
            check_ids(arrays[_id_key(spec)], len(arrays[_id_key(spec)]))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return arrays


def _keys(spec: Spec) -> dict[str, str]:
    """The key of each modality in npz files, where it bears another name."""
    return dict(spec.data.source.kwargs.get("keys") or {})


def _id_key(spec: Spec) -> str:
    return str(spec.data.source.kwargs.get("id", "id"))


def _renamed(key: str, names: dict[str, str]) -> str:
    """The key with its modality renamed and its ending (``__present``, ``__imputed``) kept."""
    stem, separator, ending = key.partition("__")
    return names.get(stem, stem) + separator + ending


def _parse_given(model: MultimodalVAE, given: list[str]) -> dict[str, Tensor]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from nbridge.data.arrays import to_batch

    values: dict[str, Tensor] = {}
    for item in given:
        name, _, text = item.partition("=")
        if name not in model.names:
            raise DataError(f"--given {item}: no modality {name!r}; it has {', '.join(model.names)}")
        try:
            value = YAML(typ="safe").load(text)
            values[name] = to_batch({name: [value]}, {name: model.likelihoods[name].shape}).values[name][0]
        except (YAMLError, DataError, ValueError, TypeError) as error:
            raise DataError(f"--given {item}: {str(error).splitlines()[0]}") from error
    return values
