"""Imputation of NumPy arrays: what was read goes out again in the same layout, type and order, with the holes filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from nbridge.common.messages import did_you_mean, listing
from nbridge.data.arrays import to_batch
from nbridge.data.column import PRESENT, plain_array
from nbridge.errors import DataError
from nbridge.inference.impute import Imputed, impute
from nbridge.inference.intervals import BY_LEVEL, DRAWS, FIGURES, Summary, check_levels, summarise
from nbridge.models.base import MultimodalVAE

IMPUTED = "__imputed"
"""Ending of the name of a mask of imputed rows or cells."""


def impute_arrays(
    model: MultimodalVAE,
    arrays: Mapping[str, ArrayLike | Tensor],
    *,
    samples: int | None = None,
    noise: bool = True,
    seed: int = 0,
    intervals: Sequence[float] = (),
    draws: int = DRAWS,
) -> dict[str, np.ndarray]:
    """Fills in what is absent from arrays: NaN, rows that ``NAME__present`` marks as absent, and modalities that are not there at all.

    Arguments:
        model: A trained model.
        arrays: Arrays by modality, as `nbridge.data.arrays.to_batch` takes them; arrays of other names pass through.
        samples: The number K of draws, or None for the point estimate.
        noise: Whether draws include the spread of the likelihood.
        seed: Seed of the draws.
        intervals: Probabilities of central intervals to give beside the point estimate, such as 0.9; see
        `nbridge.inference.intervals.summarise`.
        draws: The number of draws that intervals are taken from.

    Returns:
        Every modality, shape (N, ...) or (K, N, ...), with observed values bit-identical, and a mask ``NAME__imputed`` for each: rows,
        shape (N,), or cells where rows were observed in part. With intervals also ``NAME__mean``, ``NAME__sd``, ``NAME__lower`` and
        ``NAME__upper`` of the predictive distribution, in the layout of NAME as floating point, the ends behind an axis of levels where
        there are several; for classes ``NAME__probability``, shape (N, C). Observed cells have their own value and a deviation of 0.

    Raises:
        DataError: when the arrays do not fit the model, a level is no probability or needs more draws, or intervals meet samples.

    Example:
        >>> import nbridge, numpy as np
        >>> model = nbridge.build_model(nbridge.Spec.model_validate({"modalities": {
        ...     "x": {"shape": 2, "encoder": "mlp", "likelihood": "normal"},
        ...     "y": {"shape": 3, "encoder": "mlp", "likelihood": "categorical"}}}))
        >>> done = impute_arrays(model, {"x": [[0.5, 1.0], [np.nan, np.nan]], "y": [2.0, 1.0]})
        >>> done["x"][0], done["x__imputed"], done["y__imputed"]
        (array([0.5, 1. ]), array([False,  True]), array([False, False]))
    """
    check_intervals(intervals, draws, samples)
    shapes = {name: likelihood.shape for name, likelihood in model.likelihoods.items()}
    batch = to_batch(arrays, shapes, allow_missing=True, ignore_extra=True)
    done = impute(model, batch, samples=samples, noise=noise, seed=seed)
    taken = {*shapes, *(name + PRESENT for name in shapes)}
    completed = {name: plain_array(array) for name, array in arrays.items() if name not in taken}
    for name in completed:
        # Nearly the name of a modality that is not given: a slip of the pen would have all of it imputed in silence.
        if near := did_you_mean(name, [modality for modality in shapes if modality not in arrays], cutoff=0.8):
            raise DataError(f"array {name!r}: no such modality.{near} Modalities: {listing(shapes)}")
    given = {name: plain_array(array) for name, array in arrays.items() if name in shapes}
    completed |= in_place(done, given, samples)
    if intervals:
        completed |= summary_in_place(summarise(model, batch, levels=intervals, draws=draws, seed=seed), done, given)
    return completed


def check_intervals(intervals: Sequence[float], draws: int, samples: int | None) -> None:
    """Checks that intervals can be had: they describe the point estimate, and need draws enough.

    Raises:
        DataError: when they cannot.
    """
    if intervals:
        check_levels(intervals, draws)
        if samples is not None:
            raise DataError("intervals go with the one best estimate, and samples are draws instead of it; leave out one of them")


def in_place(done: Imputed, given: Mapping[str, np.ndarray], samples: int | None) -> dict[str, np.ndarray]:
    """What was imputed, put where arrays have holes, and the masks.

    Arguments:
        done: Rows in which nothing is absent.
        given: The arrays by modality, as they were read; what their holes hold does not matter.
        samples: The number K of draws, or None for a point estimate.

    Returns:
        As `impute_arrays`, without arrays of other names.
    """
    completed: dict[str, np.ndarray] = {}
    for name, values in done.values.items():
        guess, imputed = values.numpy(), _mask(done, given, name)
        if name in given:
            guess = _placed(given[name], guess, imputed, () if samples is None else (samples,))
        completed[name], completed[name + IMPUTED] = guess, imputed
    return completed


def summary_in_place(summary: Summary, done: Imputed, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Figures of what was imputed, in the layout of the arrays, with observed values where nothing was.

    Arguments:
        summary: The figures, of the same rows.
        done: Rows in which nothing is absent.
        given: The arrays by modality, as they were read.

    Returns:
        By ``NAME__FIGURE``, in floating point that holds what NAME holds.
    """
    arrays: dict[str, np.ndarray] = {}
    for name in done.values:
        for what in FIGURES:
            if name not in getattr(summary, what):
                continue
            figure, levels = getattr(summary, what)[name].numpy(), ()
            if what in BY_LEVEL:
                figure, levels = (figure, (len(figure),)) if len(figure) > 1 else (figure[0], ())
            if name in given and what != "probability":
                own = given[name].astype(np.result_type(given[name].dtype, np.float32))
                figure = _placed(np.zeros_like(own) if what == "sd" else own, figure, _mask(done, given, name), levels)
            arrays[f"{name}__{what}"] = figure
    return arrays


def _mask(done: Imputed, given: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Which rows of an array, or which of its cells, were imputed."""
    imputed = done.mask[name].numpy()
    return imputed.reshape(given[name].shape) if name in given and imputed.ndim > 1 else imputed


def _placed(given: np.ndarray, guess: np.ndarray, imputed: np.ndarray, draws: tuple[int, ...]) -> np.ndarray:
    """The array given, with guesses where they are needed, in its own layout and type; draws come first."""
    filled = np.broadcast_to(given, (*draws, *given.shape)).copy()
    mask = np.broadcast_to(imputed.reshape(*imputed.shape, *(1 for _ in given.shape[imputed.ndim :])), filled.shape)
    filled[mask] = _cast(guess.reshape(filled.shape)[mask], given.dtype)
    return filled


def _cast(guess: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Guesses in the type of what was given: whole where it is whole, and its bounds in place of what lies past them."""
    guess = guess.astype(np.float64)
    if dtype.kind == "f":
        return guess.clip(np.finfo(dtype).min, np.finfo(dtype).max)
    if dtype.kind in "iu":
        # The bound of 64 bits is no float64; the number before it is.
        guess = guess.clip(np.iinfo(dtype).min, np.nextafter(float(np.iinfo(dtype).max), 0))
    return guess.round()
