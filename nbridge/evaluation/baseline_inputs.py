"""Inputs of the baselines: all other modalities, concatenated, standardised and without missing values.

Columns are standardised by the training rows: counts as log(1 + x), lognormal columns as log x, the pixels of an image by a common spread,
classes one-hot. Missing values become the column's mean, and each modality gets a column that indicates its presence. Wide modalities are
reduced to principal components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from nbridge.common.vocabulary import END
from nbridge.evaluation.targets import Logged, Values, column_moments, counts_of
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Categorical, Likelihood
from nbridge.nn.mixed import Mixed
from nbridge.nn.text_likelihood import Text
from nbridge.visual.modality_kinds import kind_of

WIDE = 100
"""A modality with more columns than this is wide."""
COMPONENTS, FEWEST = 400, 20
"""Principal components divided among the wide modalities, and the fewest that each of them gets."""
FITTED = 2000
"""Maximum number of rows that principal components are fitted on."""
TINY = 1e-30
"""Lower bound of lognormal values."""
FAR = 10.0
"""Standardised values are clipped to this, so that columns that hardly ever vary do not dominate."""

Inputs = NDArray[np.float64]


@dataclass(frozen=True)
class ModalityInputs:
    """Maps one modality to input columns.

    Arguments:
        classes: The number of its classes; 0 when it has none.
        tokens: The number of tokens of its texts, which are counted; 0 when it has none.
        logged: Which of its values are counts.
        lognormal: Which of its values are lognormal.
        centre: The mean of each column.
        unit: The standard deviation of each column; infinite for a constant one.
        components: The fitted principal components; None when all columns are kept.
        indicated: The share of training rows that have the modality, to centre the presence indicator; None when all or none have it.
    """

    classes: int
    logged: Logged
    lognormal: Logged
    centre: Values
    unit: Values
    components: PCA | None
    indicated: float | None
    tokens: int = 0

    def of(self, values: Values) -> Inputs:
        """Input columns, shape (N, F), from values of shape (N, E), NaN where missing."""
        plain = _plain(values, self.classes, self.logged, self.lognormal, self.tokens)
        standard: Inputs = np.nan_to_num(np.clip((plain - self.centre) / self.unit, -FAR, FAR))
        kept = standard if self.components is None else np.asarray(self.components.transform(standard), np.float64)
        if self.indicated is None:
            return kept
        present = ~np.isnan(values).all(1)
        return np.column_stack([kept, np.where(present, 1.0, 0.0) - self.indicated])


def blocks_of(model: MultimodalVAE, train: Mapping[str, Values], seed: int = 0) -> dict[str, ModalityInputs]:
    """Fits a block for each modality on the training rows. Values are of shape (N, E)."""
    wide = sum(values.shape[1] > WIDE for values in train.values())
    share = max(FEWEST, COMPONENTS // max(1, wide))
    return {name: _fitted(model.likelihoods[name], values, share, seed) for name, values in train.items()}


def inputs_of(blocks: Mapping[str, ModalityInputs], values: Mapping[str, Values], target: str) -> tuple[Inputs, Inputs]:
    """Inputs for predicting a target, shape (N, F), and the weight of each column in distances, shape (F,).

    The weights give every modality the same share of a distance, regardless of its number of columns.
    """
    parts = [blocks[name].of(x) for name, x in values.items() if name != target]
    if not parts:
        return np.empty((len(values[target]), 0)), np.empty(0)
    factors = [np.full(part.shape[1], 1 / np.sqrt(max(1, part.shape[1]))) for part in parts]
    return np.concatenate(parts, 1), np.concatenate(factors)


def _fitted(likelihood: Likelihood, values: Values, share: int, seed: int) -> ModalityInputs:
    classes = likelihood.shape[0] if isinstance(likelihood, Categorical) else 0
    logged, lognormal = counts_of(likelihood), _lognormal(likelihood)
    tokens = likelihood.tokens if isinstance(likelihood, Text) else 0
    plain, present = _plain(values, classes, logged, lognormal, tokens), ~np.isnan(values).all(1)
    centre, spread = column_moments(plain)
    if classes or kind_of(likelihood) == "image":
        spread = np.full_like(spread, np.sqrt((spread**2).mean()))
    if isinstance(likelihood, Mixed):
        # The elements of a class share a spread, as those of a modality of classes do.
        for start, stop in likelihood.spans:
            spread[start:stop] = np.sqrt((spread[start:stop] ** 2).mean())
    unit = np.where(spread > 1e-6 * np.abs(centre), spread, np.inf)
    indicated = None if present.all() or not present.any() else float(present.mean())
    bare = ModalityInputs(classes, logged, lognormal, centre, unit, None, None, tokens)
    if plain.shape[1] <= WIDE:
        return replace(bare, indicated=indicated)
    rows = bare.of(values[np.flatnonzero(present)[:FITTED]])
    kept = min(share, len(rows) - 1, plain.shape[1] - 1)
    components = None if kept < 1 else PCA(kept, svd_solver="randomized", random_state=seed).fit(rows)
    return replace(bare, components=components, indicated=indicated)


def _lognormal(likelihood: Likelihood) -> Logged:
    """Which elements of a likelihood are lognormal columns: none, or by element, shape (E,)."""
    if isinstance(likelihood, Mixed):
        return np.array([kind.type == "lognormal" for kind in likelihood.kinds.values() for _ in range(kind.width)])
    return False


def _plain(values: Values, classes: int, logged: Logged, lognormal: Logged, tokens: int = 0) -> Values:
    """Values as columns: classes one-hot, counts as log(1 + x), lognormal ones as log x, texts as counts of tokens; NaN where missing."""
    if tokens:
        counts = np.stack([np.bincount(row, minlength=tokens) for row in np.nan_to_num(values).astype(np.int64)])
        return np.where(np.isnan(values).any(1, keepdims=True), np.nan, counts[:, END + 1 :].astype(np.float64))
    if classes:
        one_hot = (values == np.arange(classes)).astype(float)
        return np.where(np.isnan(values), np.nan, one_hot)
    if np.any(logged):
        values = np.where(logged, np.log1p(np.maximum(values, 0.0)), values)
    return np.where(lognormal, np.log(np.maximum(values, TINY)), values) if np.any(lognormal) else values
