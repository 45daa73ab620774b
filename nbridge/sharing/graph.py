r"""A model's point estimate as one static graph: values and presence in, completed rows out, for every pattern of presence.

`nbridge.inference.impute.impute` branches on presence. Here masks replace the branches, so that the same operations handle every pattern,
including rows with nothing present.

Axes: K points, M modalities, B rows, D latent dimensions.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from nbridge.data.column import PRESENT
from nbridge.inference.impute import decode, fixed_points, point_draws
from nbridge.models.base import MultimodalVAE
from nbridge.nn.distributions import normal_or_prior

COMPLETED = "__completed"
"""Suffix of the outputs, because inputs and outputs of a graph must have different names."""


class ImputationGraph(nn.Module):
    r"""Completes rows with the point estimate from the given modalities.

    Inputs are, for each given modality, ``NAME``, numbers of shape (B, \*shape) or int64 class indices of shape (B,), and
    ``NAME__present``, boolean, shape (B,); the values of absent rows are ignored. Outputs are ``NAME__completed`` for each wanted modality,
    with the same shapes, types and units; present values are returned unchanged.

    Arguments:
        model: A trained model; the graph holds a copy, on the CPU and without gradients.
        given: The modalities that rows may have; the others are always absent.
    """

    points: Tensor
    noise: Tensor

    def __init__(self, model: MultimodalVAE, given: Sequence[str], wanted: Sequence[str]) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().eval().requires_grad_(requires_grad=False)
        self.given, self.wanted = tuple(given), tuple(wanted)
        for name, fixed in zip(("points", "noise"), fixed_points(model), strict=True):
            self.register_buffer(name, fixed.clone())

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Completed values of the wanted modalities, from values and presence of the given ones."""
        z, number = point_draws(self.posterior(inputs), self.points), self._presence(inputs).sum(0)
        return {name + COMPLETED: self._completed(name, z, number, inputs) for name in self.wanted}

    def posterior(self, inputs: Mapping[str, Tensor]) -> Independent:
        """q(z | present modalities), batch shape (B,) or (K, B) over D; the prior for rows with nothing present."""
        present = self._presence(inputs)
        forms = {name: self._standard_form(name, inputs, shown) for name, shown in zip(self.model.names, present, strict=True)}
        return normal_or_prior(present.any(0), self.model.masked_posterior(forms, present, self.noise))

    def _presence(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Presence in the order of the model's modalities, shape (M, B)."""
        nowhere = torch.zeros(inputs[self.given[0]].shape[0], dtype=torch.bool)
        return torch.stack([inputs[name + PRESENT] if name in self.given else nowhere for name in self.model.names])

    def _standard_form(self, name: str, inputs: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """The encoder's input: zeros for an absent row, as in `MultimodalVAE.inputs`."""
        likelihood = self.model.likelihoods[name]
        blank = likelihood.blank(present.shape[0])
        x = torch.where(_broadcast(present, blank), inputs[name], blank) if name in self.given else blank
        form = likelihood.standardize(likelihood.typical(x))
        return torch.where(_broadcast(present, form), form, 0.0)

    def _completed(self, name: str, z: Tensor, number: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Present values, with estimates for absent ones; ``number`` counts each row's present modalities, for calibration."""
        guess = decode(self.model, name, z, number, point=True)
        return torch.where(_broadcast(inputs[name + PRESENT], guess), inputs[name], guess) if name in self.given else guess


def _broadcast(present: Tensor, x: Tensor) -> Tensor:
    """Presence, shape (B,), reshaped to broadcast against values."""
    return present.reshape(-1, *(1 for _ in x.shape[1:]))
