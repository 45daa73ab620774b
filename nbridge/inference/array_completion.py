"""Imputes NumPy arrays; layout, dtype and order are preserved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from nbridge.common.messages import did_you_mean, listing
from nbridge.data.arrays import to_batch
from nbridge.data.batch import Batch
from nbridge.data.column import PRESENT, plain_array
from nbridge.errors import DataError
from nbridge.inference.impute import Imputed, impute
from nbridge.inference.intervals import BY_LEVEL, DRAWS, FIGURES, Summary, check_levels, summarise
from nbridge.models.base import MultimodalVAE

IMPUTED = "__imputed"
"""Suffix of the names of masks of imputed rows or cells."""


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
    """Imputes NaN, rows marked as missing in ``NAME__present``, and modalities without an array.

    Arguments:
        model: A trained model.
        arrays: Arrays by modality, as `nbridge.data.arrays.to_batch` takes them; arrays of other names pass through.
        samples: The number K of samples, or None for the point estimate.
        noise: Whether samples include the spread of the likelihood.
        seed: Random seed.
        intervals: Probabilities of central intervals to return with the point estimate, such as 0.9; see
            `nbridge.inference.intervals.summarise`.
        draws: The number of samples that intervals are computed from.

    Returns:
        Every modality, shape (N, ...) or (K, N, ...), with observed values bit-identical, and its mask ``NAME__imputed``: of rows, shape
        (N,), or of cells if some rows are partially observed. With intervals, also ``NAME__mean``, ``NAME__sd``, ``NAME__lower`` and
        ``NAME__upper`` of the predictive distribution, in the layout of NAME as floating point, with a leading axis of levels for
        interval ends if there are several; for classes ``NAME__probability``, shape (N, C). Observed cells have their own value and
        standard deviation 0.

    Raises:
        DataError: if the arrays do not match the model, a level is not a probability or needs more samples, or intervals are combined
            with ``samples``.

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
    return fill_arrays(model, arrays, rows_of(model, arrays), samples=samples, noise=noise, seed=seed, intervals=intervals, draws=draws)


def rows_of(model: MultimodalVAE, arrays: Mapping[str, ArrayLike | Tensor]) -> Batch:
    """The rows of arrays by modality; arrays of other names are ignored.

    Raises:
        DataError: if the arrays do not match the model.
    """
    shapes = {name: likelihood.shape for name, likelihood in model.likelihoods.items()}
    return to_batch(arrays, shapes, allow_missing=True, ignore_extra=True)


def fill_arrays(
    model: MultimodalVAE,
    arrays: Mapping[str, ArrayLike | Tensor],
    batch: Batch,
    *,
    samples: int | None,
    noise: bool,
    seed: int,
    intervals: Sequence[float],
    draws: int,
) -> dict[str, np.ndarray]:
    """What `impute_arrays` does, once its options are checked and the arrays are read.

    Arguments:
        model: A trained model.
        arrays: The arrays.
        batch: Their rows (`rows_of`).
        samples: As for `impute_arrays`, as are all further arguments.
        noise: See there.
        seed: See there.
        intervals: See there.
        draws: See there.
    """
    done = impute(model, batch, samples=samples, noise=noise, seed=seed)
    shapes = model.likelihoods
    taken = {*shapes, *(name + PRESENT for name in shapes)}
    completed = {name: plain_array(array) for name, array in arrays.items() if name not in taken}
    for name in completed:
        # Otherwise a typo in its name would silently impute a whole modality.
        if near := did_you_mean(name, [modality for modality in shapes if modality not in arrays], cutoff=0.8):
            raise DataError(f"array {name!r}: no such modality.{near} Modalities: {listing(shapes)}")
    given = {name: plain_array(array) for name, array in arrays.items() if name in shapes}
    completed |= in_place(done, given, samples)
    if intervals:
        completed |= summary_in_place(summarise(model, batch, levels=intervals, draws=draws, seed=seed), done, given)
    return completed


def check_intervals(intervals: Sequence[float], draws: int, samples: int | None) -> None:
    """Checks the levels and that intervals are not combined with samples.

    Raises:
        DataError: if a level is invalid or needs more samples, or both are given.
    """
    if intervals:
        check_levels(intervals, draws)
        if samples is not None:
            raise DataError("intervals and samples cannot be combined; leave out one of them")


def in_place(done: Imputed, given: Mapping[str, np.ndarray], samples: int | None) -> dict[str, np.ndarray]:
    """Puts imputed values into the missing places of arrays, and adds masks.

    Arguments:
        done: The imputed rows.
        given: The original arrays by modality; their values in missing places are ignored.
        samples: The number K of samples, or None for a point estimate.

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
    """Summaries in the layout of the arrays, with the values of observed cells.

    Arguments:
        summary: The summary of the same rows.
        done: The imputed rows.
        given: The original arrays by modality.

    Returns:
        Arrays by ``NAME__FIGURE``, in a floating-point dtype that can represent the values of NAME.
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
    """The mask of the imputed rows or cells of an array."""
    imputed = done.mask[name].numpy()
    return imputed.reshape(given[name].shape) if name in given and imputed.ndim > 1 else imputed


def _placed(given: np.ndarray, guess: np.ndarray, imputed: np.ndarray, draws: tuple[int, ...]) -> np.ndarray:
    """The original array with imputed values in the masked places, in its layout and dtype; samples come first."""
    filled = np.broadcast_to(given, (*draws, *given.shape)).copy()
    mask = np.broadcast_to(imputed.reshape(*imputed.shape, *(1 for _ in given.shape[imputed.ndim :])), filled.shape)
    filled[mask] = _cast(guess.reshape(filled.shape)[mask], given.dtype)
    return filled


def _cast(guess: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Imputed values in the dtype of the original: clipped to its range, and rounded if it is an integer."""
    guess = guess.astype(np.float64)
    if dtype.kind == "f":
        return guess.clip(np.finfo(dtype).min, np.finfo(dtype).max)
    if dtype.kind in "iu":
        # The upper bound of int64 is not a float64, but the float before it is.
        guess = guess.clip(np.iinfo(dtype).min, np.nextafter(float(np.iinfo(dtype).max), 0))
    return guess.round()
