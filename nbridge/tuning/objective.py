r"""The figure that a search maximises: the predictive log-likelihood of hidden modalities of validation rows.

Each trial is scored on the same rows with the same modalities hidden, and modalities are weighed as the spec as it stands weighs them, so
that figures can be compared: with :math:`s_{bj}` the score of modality j in row b, relative to the free baseline
(`nbridge.inference.hidden`), the figure is the mean over rows of

.. math:: v_b = \sum_j \frac{w_j}{\sum_k w_k} \frac{B}{|B_j|} \mathbb{1}[b \in B_j] \, s_{bj}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from nbridge.data.rows import Rows
from nbridge.errors import DataError, NBridgeError
from nbridge.inference.hidden import WORST, HiddenModalities, hidden_log_likelihood, scored
from nbridge.inference.weights import fit_weights
from nbridge.models.base import MultimodalVAE
from nbridge.runs.run import Data, train
from nbridge.spec.reader import spec_from_dict
from nbridge.spec.search import with_values
from nbridge.spec.spec import Spec
from nbridge.training.build import automatic_weights, build_data, build_model, rows_given, settle, settle_covariates
from nbridge.training.callbacks import Callback
from nbridge.training.run_folder import fingerprint
from nbridge.training.texts import settle_arrays
from nbridge.training.validation import evenly_spaced, fit_baseline

MAX_ROWS, DRAWS, SEED = 2000, 32, 0
"""Validation rows at most, draws of z for each, and the seed of draws and of what is hidden."""


class Objective:
    """Trains a spec with some changes and scores it.

    Arguments:
        document: The spec as it stands, as plain values.
        data: Its rows, if they come from Python.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        DataError: if rows do not match the spec, or there are no validation rows with something to hide.
    """

    def __init__(self, document: Mapping[str, Any], data: Data | None, device: str) -> None:
        self.document, self.data, self.device = document, data, device
        spec = self.changed({})
        frame = rows_given(spec, data)
        settled, rows = (settle(spec, frame), frame) if data is None or frame is not None else (settle_arrays(spec, data), data)
        settled = settle_covariates(settled, rows)
        model = build_model(settled)
        splits = build_data(settled, model, rows, warn=lambda _: None)
        if splits.validation is None or not scored(model, splits.validation).any():
            raise DataError("tuning needs validation rows with two modalities observed; raise data.validation")
        automatic = automatic_weights(settled)
        found = fit_weights(model, splits.train) if automatic else {}
        self.weights = {name: found[name] if name in automatic else value for name, value in model.weights.items()}
        self.fingerprint = fingerprint(splits)

    def __call__(self, changes: Mapping[str, object], callback: Callback) -> list[float]:
        """The figure of each validation row after training with these values by path of the spec.

        Raises:
            SpecError: if the changed spec is invalid.
            NBridgeError: if training fails.
        """
        run = train(self.changed(changes), self.data, device=self.device, callbacks=[callback])
        assert run.splits.validation is not None
        return row_figures(run.model.network, run.splits.train, run.splits.validation, self.weights)

    def changed(self, changes: Mapping[str, object]) -> Spec:
        """The spec with other values at some paths."""
        return spec_from_dict(with_values(self.document, changes))


def row_figures(model: MultimodalVAE, train_rows: Rows, validation: Rows, weights: Mapping[str, float]) -> list[float]:
    """The figure :math:`v_b` of each validation row of which something is hidden.

    Raises:
        NBridgeError: if one is not a number.
    """
    prepared = [rows.through(lambda batch: model.prepare(batch).to(model.device)) for rows in (train_rows, validation)]
    rows = evenly_spaced(prepared[1], scored(model, prepared[1]), MAX_ROWS)
    assert rows is not None
    hidden = HiddenModalities(model, rows, fit_baseline(model, prepared[0]), draws=DRAWS, seed=SEED)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(SEED + 1)
        scores = hidden_log_likelihood(model, hidden.rows, hidden.parts, DRAWS, generator, hidden.holes)
    counted = [name for name, mask in zip(model.names, hidden.hidden, strict=True) if name in hidden.free and mask.any()]
    shares = _shares({name: weights[name] for name in counted})
    figures = torch.zeros(len(hidden.rows), dtype=torch.float64)
    for name in counted:
        mask = hidden.hidden[model.names.index(name)].cpu()
        relative = (scores[name].double() - hidden.free[name]).nan_to_num(WORST, WORST, WORST).clamp(min=WORST).cpu()
        figures[mask] += shares[name] * len(mask) / int(mask.sum()) * relative
    if not figures.isfinite().all():
        raise NBridgeError("the log-likelihood of hidden modalities is not finite")
    return [float(f"{value:.6g}") for value in figures.tolist()]


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    used = weights if any(weights.values()) else dict.fromkeys(weights, 1.0)
    return {name: value / sum(used.values()) for name, value in used.items()}


@dataclass(frozen=True)
class Difference:
    """A difference of two figures on the same rows, and its standard error."""

    mean: float
    error: float

    @classmethod
    def of(cls, one: list[float], other: list[float]) -> Self:
        """One figure minus another, row by row."""
        each = Tensor(one).double() - Tensor(other).double()
        return cls(float(each.mean()), float(each.std() / math.sqrt(len(each))) if len(each) > 1 else math.inf)

    @property
    def is_clear(self) -> bool:
        """Whether the first is better by more than two standard errors."""
        return self.mean > 2 * self.error and self.mean > 0
