r"""Bridges: hallucinated features :math:`\hat{h}_j = B_{ij}(h_i)` of an absent modality j from an observed modality i.

There is one bridge for each ordered pair, :math:`2 \binom{n}{2} = n (n - 1)` in all (Yadav et al., 2020, section 3.1). Where the
retrofits train an inference network for each of the :math:`2^n - 1` subsets, bridges let the one joint posterior serve every subset.

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
    """What stands for the features of absent modalities; its constructor takes the width of each modality's features."""


class BridgeBank(Bridges):
    r"""All n(n-1) bridges, as MLPs; those of equal shape run as one batched product.

    Arguments:
        features: Width of each modality's features.
        hidden: Widths of the hidden layers of every bridge.
        batch_norm: Whether to normalise.
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
        self,
        features: Mapping[str, int],
        *,
        hidden: Widths = (128,),
        batch_norm: bool = True,
        activation: Activation = "leaky_relu",
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
                    len(pairs),
                    features[pairs[0][0]],
                    features[pairs[0][1]],
                    hidden=hidden,
                    batch_norm=batch_norm,
                    activation=activation,
                )
                for shape, pairs in self.groups.items()
            }
        )

    def hallucinate(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> dict[Pair, Tensor]:
        r"""Every :math:`B_{ij}(h_i)`, shape :math:`(B, F_j)`, by pair (i, j).

        Arguments:
            features: Features of every modality, shape :math:`(B, F_i)`; anything finite where the modality is absent.
            present: In training, the rows over which batch normalisation takes its statistics; all rows when left out.
        """
        outputs: dict[Pair, Tensor] = {}
        for shape, pairs in self.groups.items():
            # Each source of a group has as many bridges in it as every other, one after the other.
            sources = tuple(dict.fromkeys(source for source, _ in pairs))
            counts = None if present is None else torch.stack([present[source] for source in sources])
            stacked = self.stacks[shape](torch.stack([features[source] for source in sources]), counts)
            outputs |= zip(pairs, stacked.unbind(), strict=True)
        return outputs

    def hallucinate_from(self, source: str, h: Tensor) -> dict[str, Tensor]:
        r"""The :math:`B_{ij}(h_i)` of one source i, shape :math:`(B, F_j)`, by target j; in eval mode.

        Arguments:
            source: The source.
            h: Its features, shape :math:`(B, F_i)`, of the rows that have it.
        """
        outputs: dict[str, Tensor] = {}
        for shape, pairs in self.groups.items():
            places = [place for place, pair in enumerate(pairs) if pair[0] == source]
            if places:
                stack = self.stacks[shape]
                assert isinstance(stack, StackedMLP)
                # The bridges of a source follow each other.
                hallucinated = stack.some(slice(places[0], places[-1] + 1), h)
                outputs |= zip((pairs[place][1] for place in places), hallucinated.unbind(), strict=True)
        return outputs

    def forward(self, features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        r"""Absent features filled in by the mean over the observed sources, observed ones untouched.

        .. math:: \hat{h}_j = \frac{1}{|S|} \sum_{i \in S} B_{ij}(h_i)

        Rows with nothing observed get zeros.
        """
        return mean_of_sources(features, self.hallucinate(features), torch.stack([present[name] for name in features]))


def mean_of_sources(features: Mapping[str, Tensor], hallucinated: Mapping[Pair, Tensor], given: Tensor) -> dict[str, Tensor]:
    r"""Features with the mean of what the given modalities hallucinate in the place of the others.

    Arguments:
        features: Features of every modality, shape (B, F_i), in order.
        hallucinated: What each modality says of every other, by pair.
        given: Which modalities count as observed, boolean, shape (M, B).
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
