r"""Bridges: hallucinated features :math:`\hat{h}_j = B_{ij}(h_i)` of an absent modality j from an observed modality i.

There is one bridge per ordered pair, :math:`2 \binom{n}{2} = n (n - 1)` in all (Yadav et al., 2020, section 3.1). Retrofitted models
train an inference network for each of the :math:`2^n - 1` subsets; with bridges, one joint posterior serves every subset.

Axes: P ordered pairs, B rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import torch
from torch import Tensor, nn

from nbridge.nn.networks import StackedMLP
from nbridge.spec.option_types import Activation, Widths

Pair = tuple[str, str]


class Bridges(nn.Module):
    """Base class of bridges; the constructor takes the feature width of each modality."""


class BridgeBank(Bridges):
    r"""All n(n-1) bridges as MLPs; bridges of equal shape run as one batched product.

    Arguments:
        features: Feature width of each modality.
        hidden: Widths of the hidden layers of every bridge.
        batch_norm: Whether to use batch normalisation.
        activation: The nonlinearity.

    Attributes:
        pairs: The ordered pairs (source, target).

    Example:
        >>> bank = BridgeBank({"image": 6, "label": 2})
        >>> h = {"image": torch.randn(3, 6), "label": torch.zeros(3, 2)}
        >>> present = {"image": torch.ones(3, dtype=torch.bool), "label": torch.zeros(3, dtype=torch.bool)}
        >>> bank(h, present)["label"].shape
        torch.Size([3, 2])
    """

    def __init__(
        self, features: Mapping[str, int], *, hidden: Widths = (128,), batch_norm: bool = True, activation: Activation = "leaky_relu"
    ) -> None:
        super().__init__()
        self.pairs: tuple[Pair, ...] = tuple(permutations(features, 2))
        self.groups: dict[str, tuple[Pair, ...]] = {}
        for source, target in self.pairs:
            shape = f"{features[source]}_to_{features[target]}"
            self.groups[shape] = (*self.groups.get(shape, ()), (source, target))
        self.stacks = nn.ModuleDict(
            {
                shape: StackedMLP(
                    len(pairs), features[pairs[0][0]], features[pairs[0][1]], hidden=hidden, batch_norm=batch_norm, activation=activation
                )
                for shape, pairs in self.groups.items()
            }
        )

    def hallucinate(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> dict[Pair, Tensor]:
        r"""Computes :math:`B_{ij}(h_i)` for every pair (i, j), each of shape :math:`(B, F_j)`.

        Arguments:
            features: Features of every modality, shape :math:`(B, F_i)`; any finite values where the modality is absent.
            present: The rows used for batch statistics in training; all rows by default.
        """
        outputs: dict[Pair, Tensor] = {}
        for shape, pairs in self.groups.items():
            # Every source has the same number of consecutive bridges in a group.
            sources = tuple(dict.fromkeys(source for source, _ in pairs))
            counts = None if present is None else torch.stack([present[source] for source in sources])
            stacked = self.stacks[shape](torch.stack([features[source] for source in sources]), counts)
            outputs |= zip(pairs, stacked.unbind(), strict=True)
        return outputs

    def hallucinate_from(self, source: str, h: Tensor) -> dict[str, Tensor]:
        r"""Computes :math:`B_{ij}(h_i)` for one source i, shape :math:`(B, F_j)`, by target j; only in eval mode.

        ``h`` are its features in the rows that have it, :math:`(B, F_i)`.
        """
        outputs: dict[str, Tensor] = {}
        for shape, pairs in self.groups.items():
            indices = [index for index, pair in enumerate(pairs) if pair[0] == source]
            if indices:
                stack = self.stacks[shape]
                assert isinstance(stack, StackedMLP)
                # The bridges of a source are consecutive.
                hallucinated = stack.apply_slice(slice(indices[0], indices[-1] + 1), h)
                outputs |= zip((pairs[index][1] for index in indices), hallucinated.unbind(), strict=True)
        return outputs

    def forward(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        r"""Replaces absent features by the mean over the observed sources; observed features are unchanged.

        .. math:: \hat{h}_j = \frac{1}{|S|} \sum_{i \in S} B_{ij}(h_i)

        Rows with nothing observed get zeros.
        """
        return mean_of_sources(features, self.hallucinate(features), torch.stack([present[name] for name in features]))


def mean_of_sources(features: Mapping[str, Tensor], hallucinated: Mapping[Pair, Tensor], given: Tensor) -> dict[str, Tensor]:
    r"""Replaces the features of modalities that are not given by the mean of those hallucinated from the given ones.

    Features have the shape (B, F_i), in order; ``given``, boolean, shape (M, B), are the modalities that count as observed.
    """
    present = dict(zip(features, given, strict=True))
    count = given.sum(0).clamp(min=1)[:, None]
    filled: dict[str, Tensor] = {}
    for target, observed in features.items():
        total = torch.zeros_like(observed)
        for source in features:
            if source != target:
                total = total + torch.where(present[source][:, None], hallucinated[source, target], 0.0)
        filled[target] = torch.where(present[target][:, None], observed, total / count)
    return filled
