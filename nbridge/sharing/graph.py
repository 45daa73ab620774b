r"""The point estimate of a model as one graph: values and presence in, completed rows out, whatever is present.

`nbridge.inference.impute.impute` looks at presence and works for the rows that need it; here masks stand in for every choice, so that the
same operations serve every pattern, rows with nothing present among them.

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
from nbridge.nn.distributions import diagonal_normal

COMPLETED = "__completed"
"""What follows a modality's name in the name of its completed values: inputs and outputs of a graph share no name."""


class ImputationGraph(nn.Module):
    r"""Completes rows by their point estimate, from the modalities given.

    Inputs, by name, are ``NAME``, numbers of shape (B, \*shape) or class indices of type int64 and shape (B,), and ``NAME__present``,
    boolean, shape (B,), of each modality given; absent rows may hold anything. Outputs are ``NAME__completed`` of each modality wanted, of
    the same shapes, types and units: what is present comes out as it came in.

    Arguments:
        model: A trained model; its copy goes into the graph, on the CPU and without gradients.
        given: The modalities that rows may have; any others are absent.
        wanted: The modalities to complete.
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
        """Completed values of modalities wanted, of values and presence of those given."""
        z, number = point_draws(self.posterior(inputs), self.points), self._presence(inputs).sum(0)
        return {name + COMPLETED: self._completed(name, z, number, inputs) for name in self.wanted}

    def posterior(self, inputs: Mapping[str, Tensor]) -> Independent:
        """q(z | what is present), batch shape (B,) or (K, B) over D; the prior for rows with nothing present."""
        present = self._presence(inputs)
        forms = {name: self._standard_form(name, inputs, shown) for name, shown in zip(self.model.names, present, strict=True)}
        q, some = self.model.masked_posterior(forms, present, self.noise), present.any(0)[:, None]
        return diagonal_normal(torch.where(some, q.mean, 0.0), torch.where(some, q.stddev, 1.0))

    def _presence(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Presence in the order of the model's modalities, shape (M, B)."""
        nowhere = torch.zeros(inputs[self.given[0]].shape[0], dtype=torch.bool)
        return torch.stack([inputs[name + PRESENT] if name in self.given else nowhere for name in self.model.names])

    def _standard_form(self, name: str, inputs: Mapping[str, Tensor], present: Tensor) -> Tensor:
        """What an encoder sees: zeros for an absent row, as in `MultimodalVAE.inputs`."""
        likelihood = self.model.likelihoods[name]
        blank = likelihood.blank(present.shape[0])
        x = torch.where(_beside(present, blank), inputs[name], blank) if name in self.given else blank
        form = likelihood.standardize(x)
        return torch.where(_beside(present, form), form, 0.0)

    def _completed(self, name: str, z: Tensor, number: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """What is present, and the estimate of what is not: of these rows all that is present, so many modalities, is another one."""
        guess = decode(self.model, name, z, number, point=True)
        return torch.where(_beside(inputs[name + PRESENT], guess), inputs[name], guess) if name in self.given else guess


def _beside(present: Tensor, x: Tensor) -> Tensor:
    """Presence, shape (B,), with axes of length one for those that a value has behind its rows."""
    return present.reshape(-1, *(1 for _ in x.shape[1:]))
