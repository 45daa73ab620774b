"""Imputation of rows in every format, with options as keywords, and arrays imputed at once as what they should give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np

import nbridge
from nbridge.data.arrays import to_batch
from nbridge.data.column import PRESENT, plain_array
from nbridge.data.output_names import named_arrays
from nbridge.inference import complete
from nbridge.inference.impute import impute
from nbridge.inference.intervals import summarise
from nbridge.inference.layout import in_layout
from nbridge.inference.options import ImputationOptions, Shard
from nbridge.inference.served import Served


def impute_rows(
    model: Served,
    rows: Any,
    out: str | PathLike[str] | None = None,
    *,
    shard: tuple[int, int] = (1, 1),
    progress: Any = None,
    **options: Any,
) -> complete.Completed:
    return complete.impute_rows(model, rows, out, ImputationOptions(**options), shard=Shard(*shard), progress=progress)


def impute_arrays(
    network: nbridge.MultimodalVAE,
    arrays: Mapping[str, Any],
    *,
    samples: int | None = None,
    noise: bool = True,
    seed: int = 0,
    intervals: Sequence[float] = (),
    draws: int = 399,
) -> dict[str, np.ndarray]:
    """All rows at once, without blocks, shards or files."""
    shapes = {name: likelihood.shape for name, likelihood in network.likelihoods.items()}
    batch = to_batch(arrays, shapes, allow_missing=True, ignore_extra=True)
    done = impute(network, batch, samples=samples, noise=noise, seed=seed)
    if intervals:
        statistics = summarise(network, batch, levels=intervals, draws=draws, seed=seed)
        done = type(done)(done.values, done.mask, done.draws, statistics)
    given = {name: plain_array(array) for name, array in arrays.items() if name in shapes}
    others = {key: plain_array(array) for key, array in arrays.items() if key not in {*shapes, *(name + PRESENT for name in shapes)}}
    return others | {key: array for key, array, _ in named_arrays(in_layout(done, given), {name: name for name in shapes})}
