"""Puts imputed values into the dtype and the layout of the arrays that they complete."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from nbridge.data.imputed import BY_LEVEL, STATISTICS, Imputed, Summary


def in_layout(imputed: Imputed[Tensor], given: Mapping[str, np.ndarray]) -> Imputed[np.ndarray]:
    """Imputed rows in the dtype and the layout of arrays, with their observed values; statistics in a floating dtype that holds them.

    The ``given`` arrays may lack modalities; their values in missing places are ignored.
    """
    mask = {name: _mask(imputed, given, name) for name in imputed.values}
    draws = () if imputed.draws is None else (imputed.draws,)
    values = {name: x.numpy() for name, x in imputed.values.items()}
    values |= {name: _placed(given[name], values[name], mask[name], draws) for name in values if name in given}
    statistics = None
    if imputed.statistics is not None:
        every = {what: getattr(imputed.statistics, what) for what in STATISTICS}
        statistics = Summary(
            imputed.statistics.levels,
            **{
                what: {name: _statistic(what, x.numpy(), mask[name], given.get(name)) for name, x in arrays.items()}
                for what, arrays in every.items()
            },
        )
    return Imputed(values, mask, imputed.draws, statistics)


def _statistic(what: str, array: np.ndarray, mask: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    """A statistic of all rows: observed cells have their own value, and standard deviation 0."""
    if given is None or what == "probability":
        return array
    own = given.astype(np.result_type(given.dtype, np.float32))
    return _placed(np.zeros_like(own) if what == "sd" else own, array, mask, array.shape[:1] if what in BY_LEVEL else ())


def _mask(imputed: Imputed[Tensor], given: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The mask of the imputed rows or cells of an array."""
    mask = imputed.mask[name].numpy()
    return mask.reshape(given[name].shape) if name in given and mask.ndim > 1 else mask


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
