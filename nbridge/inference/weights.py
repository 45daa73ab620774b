r"""Likelihood weights, computed from the data.

A modality with many elements has thousands of nats, a label two, so a joint model can ignore the label at almost no cost. Equal shares
(weights inversely proportional to the nats) would degrade images for the sake of a label. The weights are a compromise:

.. math:: w_i = \frac{c}{\sqrt{L_i}}, \qquad c = \frac{\sum_j L_j}{\sum_j \sqrt{L_j}}, \qquad
    L_i = -\frac{1}{N} \sum_n \log p_\mathrm{free}(x_{ni})

with :math:`L_i` the nats of modality i under the free baseline (`nbridge.inference.free`), with real values in units of their standard
deviation. The factor c preserves the total nats, and so the relative cost of the divergence from the prior: with larger weights alone,
models memorise small tables (`benchmarks/suite`). If all modalities have equal nats, all weights are 1. Log-likelihoods are always reported
unweighted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from nbridge.data.rows import Rows
from nbridge.inference.free import marginal_nats
from nbridge.models.base import MultimodalVAE
from nbridge.models.joint import JointVAE
from nbridge.spec.spec import Spec

LEAST = 0.05
"""Lower bound on the nats of a modality, so that one that hardly varies does not outweigh all others."""
ENOUGH = 5_000
"""Number of rows with at least two modalities from which the contrast has its full weight."""
CELLS = 5.0
"""Factor of the weights of tables whose cells are imputed from each other: with few nats in a row, the divergence from the prior would make
z so noisy that single cells are imputed little better than by their mean (`benchmarks/tables`)."""
LEAST_CONTRAST = 2.0
"""Weights of the contrast below this number of nats are set to 0: its subsets would only affect batch normalisation."""


def weights_of(nats: Mapping[str, float]) -> dict[str, float]:
    """Computes the weight of each modality from its nats.

    Example:
        >>> weights_of({"image": 400.0, "label": 1.0})
        {'image': 0.9548, 'label': 19.1}
    """
    bounded = {name: max(LEAST, value) for name, value in nats.items()}
    scale = sum(bounded.values()) / sum(math.sqrt(value) for value in bounded.values())
    # Rounded, so that the weights do not depend on the order of summation.
    return {name: float(f"{scale / math.sqrt(value):.4g}") for name, value in bounded.items()}


def fit_weights(model: MultimodalVAE, rows: Rows) -> dict[str, float]:
    """Computes the weights of all modalities from training rows; 1 for a modality that no row has."""
    nats = nats_of(model, rows)
    weights = dict.fromkeys(model.names, 1.0) | (weights_of(nats) if nats else {})
    return {name: float(f"{weight * (CELLS if model.likelihoods[name].partly else 1.0):.4g}") for name, weight in weights.items()}


def weigh_contrast(model: MultimodalVAE, rows: Rows) -> None:
    r"""Sets the nats that weight the contrast of a joint model (`nbridge.models.joint`).

    .. math:: \min(1, N / 5000)^2 \, M \, \Big( \prod_i L_i \Big)^{1 / M}

    The mean is geometric because modalities share at most the nats of the smallest: with the sum, a model would memorise the attributes
    of photographs of 17,000 nats.
    """
    if isinstance(model, JointVAE) and model.contrast:
        several = int((torch.stack(list(rows.present.values())).sum(0) >= 2).sum())
        logs = [math.log(max(LEAST, value)) for value in nats_of(model, rows).values()]
        nats = len(logs) * math.exp(sum(logs) / max(1, len(logs)))
        # Rounded like weights.
        scale = float(f"{min(1.0, several / ENOUGH) ** 2 * nats:.4g}")
        model.contrast_nats = scale if model.contrast * scale >= LEAST_CONTRAST else 0.0


def nats_of(model: MultimodalVAE, rows: Rows) -> dict[str, float]:
    """Computes the nats of each modality with observed rows, under the free baseline."""
    batch = model.prepare(rows.representative())
    nats: dict[str, float] = {}
    for name, likelihood in model.likelihoods.items():
        mask = batch.present[name]
        if mask.any():
            nats[name] = marginal_nats(likelihood, batch.values[name][mask], batch.cells[name][mask] if name in batch.cells else None)
    return nats


def with_weights(spec: Spec, weights: Mapping[str, float]) -> Spec:
    """The spec, with automatic weights replaced by the given ones."""
    auto = [name for name, modality in spec.modalities.items() if modality.weight == "auto" and name in weights]
    if not auto:
        return spec
    written = {name: spec.modalities[name].model_copy(update={"weight": weights[name]}) for name in auto}
    return spec.model_copy(update={"modalities": {**spec.modalities, **written}})
