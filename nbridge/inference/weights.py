r"""Weights of likelihoods that follow from the data.

A modality of many elements has thousands of nats where a label has two, so that a joint model may ignore the label at next to no cost.
Equal shares for all (weights in inverse proportion to the nats) would spoil images for the sake of a label. The weight lies between:

.. math:: w_i = \frac{c}{\sqrt{L_i}}, \qquad c = \frac{\sum_j L_j}{\sum_j \sqrt{L_j}}, \qquad
    L_i = -\frac{1}{N} \sum_n \log p_\mathrm{free}(x_{ni})

with :math:`L_i` the nats of modality i under the best model that ignores all others (`nbridge.inference.free`), real values in units of
their own spread. The factor c leaves the sum of all nats what it was, and with it the price of the divergence from the prior: weights that
only grow let small tables be learned by heart (`benchmarks/suite`). Modalities of equal nats have weight 1; log-likelihoods are always
reported without weights.
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
"""Nats below which a modality counts as this many: one that hardly varies has little to teach, and is not to outweigh all others."""
ENOUGH = 5_000
"""Rows with two modalities or more from which on the contrast has its full weight."""
LEAST_CONTRAST = 2.0
"""Nats below which a contrast is left out: its parts would only move the statistics of batch normalisation."""


def weights_of(nats: Mapping[str, float]) -> dict[str, float]:
    """The weight of each modality from its nats.

    Arguments:
        nats: Nats of each modality under its free baseline.

    Example:
        >>> weights_of({"image": 400.0, "label": 1.0})
        {'image': 0.9548, 'label': 19.1}
    """
    bounded = {name: max(LEAST, value) for name, value in nats.items()}
    scale = sum(bounded.values()) / sum(math.sqrt(value) for value in bounded.values())
    # Rounded, so that sums of another order give the same weights.
    return {name: float(f"{scale / math.sqrt(value):.4g}") for name, value in bounded.items()}


def fit_weights(model: MultimodalVAE, rows: Rows) -> dict[str, float]:
    """The weights of all modalities of a model by its training rows; 1 for one that no row has.

    Arguments:
        model: The model, whose likelihoods say what values mean.
        rows: Training rows, prepared or not, with any pattern of observed modalities.
    """
    nats = nats_of(model, rows)
    return dict.fromkeys(model.names, 1.0) | (weights_of(nats) if nats else {})


def weigh_contrast(model: MultimodalVAE, rows: Rows) -> None:
    r"""Sets the nats by which a joint model weighs its contrast (`nbridge.models.joint`).

    .. math:: \min(1, N / 5000)^2 \, M \, \Big( \prod_i L_i \Big)^{1 / M}

    A geometric mean, because modalities can share no more than the small ones have: by the sum, a photograph of 17,000 nats would
    have its attributes learned by heart.

    Arguments:
        model: The model, whose likelihoods say what values mean.
        rows: Training rows, prepared or not, with any pattern of observed modalities.
    """
    if isinstance(model, JointVAE) and model.contrast:
        several = int((torch.stack(list(rows.present.values())).sum(0) >= 2).sum())
        logs = [math.log(max(LEAST, value)) for value in nats_of(model, rows).values()]
        nats = len(logs) * math.exp(sum(logs) / max(1, len(logs)))
        # Rounded as weights are.
        scale = float(f"{min(1.0, several / ENOUGH) ** 2 * nats:.4g}")
        model.contrast_nats = scale if model.contrast * scale >= LEAST_CONTRAST else 0.0


def nats_of(model: MultimodalVAE, rows: Rows) -> dict[str, float]:
    """The nats of each modality that some row has, under its free baseline.

    Arguments:
        model: The model, whose likelihoods say what values mean.
        rows: Rows, prepared or not, with any pattern of observed modalities.
    """
    batch = model.prepare(rows.representative())
    nats: dict[str, float] = {}
    for name, likelihood in model.likelihoods.items():
        mask = batch.present[name]
        if mask.any():
            nats[name] = marginal_nats(likelihood, batch.values[name][mask], batch.cells[name][mask] if name in batch.cells else None)
    return nats


def with_weights(spec: Spec, weights: Mapping[str, float]) -> Spec:
    """The spec with the weights of a model written out where they follow from the data."""
    auto = [name for name, modality in spec.modalities.items() if modality.weight == "auto" and name in weights]
    if not auto:
        return spec
    written = {name: spec.modalities[name].model_copy(update={"weight": weights[name]}) for name in auto}
    return spec.model_copy(update={"modalities": {**spec.modalities, **written}})
