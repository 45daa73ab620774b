# pyright: reportMissingImports=false
"""MOFA+ (mofapy2): factor analysis of all rows together, which has no way to fill in rows that it did not learn from.

Standardised numbers are one view and one-hot classes another, both Gaussian, because its Bernoulli views have no intercept. At most 10
factors; fast convergence. Draws of a number have the mean and the variance of its reconstruction; the class of a row is the largest of its
columns, and their values, at least 0.01 and divided by their sum, are its probabilities.
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
    numbers, classes = np.flatnonzero(question.counts == 0), np.flatnonzero(question.counts)
    views = [((both - mean) / spread)[:, numbers]] if len(numbers) else []
    views += [np.concatenate([one_hot(both[:, place], int(question.counts[place])) for place in classes], 1)] if len(classes) else []
    means, variances = reconstructed(views, len(question.train), question.seed)
    values = question.rows.copy()
    draws = np.repeat(values[None], question.draws, 0)
    if len(numbers):
        values[:, numbers] = means[0] * spread[numbers] + mean[numbers]
        noise = np.random.default_rng(question.seed).normal(size=(question.draws, *means[0].shape))
        draws[:, :, numbers] = (means[0] + noise * np.sqrt(variances[0])) * spread[numbers] + mean[numbers]
    found = {}
    if len(classes):
        for place, part in zip(classes, np.split(means[-1], np.cumsum(question.counts[classes])[:-1], axis=1), strict=True):
            values[:, place] = part.argmax(1)
            share = np.maximum(part, LEAST)
            found[f"probabilities_{place}"] = share / share.sum(1, keepdims=True)
    return {"values": values, "draws": draws, **found}


def one_hot(column: np.ndarray, count: int) -> np.ndarray:
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
