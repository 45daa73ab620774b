# pyright: reportMissingImports=false
"""MOFA+ (mofapy2): factor analysis of all rows together, which has no way to fill in rows that it did not learn from.

Each group of columns is a Gaussian view of standardised numbers and one-hot classes, because its Bernoulli views have no intercept. At
most 10 factors; fast convergence. Draws of a number have the mean and the variance of its reconstruction; the class of a row is the
largest of its columns, and their values, at least 0.01 and divided by their sum, are its probabilities.
"""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
from exchange import Question, serve, standardised
from mofapy2.run.entry_point import entry_point

FACTORS, ROUNDS, LEAST = 10, 500, 0.01


def answer(question: Question) -> dict[str, np.ndarray]:
    both = np.concatenate([question.train, question.rows])
    mean, spread = standardised(question)
    rng = np.random.default_rng(question.seed)
    order = np.argsort(question.groups, kind="stable")
    parts = {place: columns((both[:, place] - mean[place]) / spread[place], int(question.counts[place])) for place in order}
    views = [np.concatenate([parts[p] for p in order if question.groups[p] == group], 1) for group in np.unique(question.groups)]
    means, variances = (np.concatenate(found, 1) for found in reconstructed(views, len(question.train), question.seed))
    values, found = question.rows.copy(), {}
    draws = np.repeat(values[None], question.draws, 0)
    ends = np.cumsum([parts[place].shape[1] for place in order])
    for place, end in zip(order, ends, strict=True):
        start = end - parts[place].shape[1]
        if question.counts[place]:
            share = np.maximum(means[:, start:end], LEAST)
            values[:, place], found[f"probabilities_{place}"] = share.argmax(1), share / share.sum(1, keepdims=True)
        else:
            values[:, place] = means[:, start] * spread[place] + mean[place]
            noise = rng.normal(size=(question.draws, len(values))) * np.sqrt(variances[:, start])
            draws[:, :, place] = values[:, place] + noise * spread[place]
    return {"values": values, "draws": draws, **found}


def columns(column: np.ndarray, count: int) -> np.ndarray:
    """A column of numbers as it is, of classes one-hot, NaN where missing."""
    if not count:
        return column[:, None]
    return np.where(np.isnan(column)[:, None], np.nan, column[:, None] == np.arange(count))


def reconstructed(views: list[np.ndarray], first: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Means and variances of all cells of each view, from a row on."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = entry_point()
        model.set_data_options(scale_views=False)
        model.set_data_matrix([[view] for view in views], likelihoods=["gaussian"] * len(views))
        model.set_model_options(factors=min(FACTORS, sum(view.shape[1] for view in views) - 1))
        model.set_train_options(iter=ROUNDS, convergence_mode="fast", seed=seed, verbose=False, quiet=True)
        model.build()
        model.run()
        model.impute(uncertainty=True, mask_outliers=False)
    means = [mean[first:] + np.nanmean(view, 0) for mean, view in zip(model.imputed_data["mean"], views, strict=True)]
    return means, [np.nan_to_num(variance[first:]) for variance in model.imputed_data["variance"]]


if __name__ == "__main__":
    serve(answer)
