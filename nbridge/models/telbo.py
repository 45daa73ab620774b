r"""TELBO: a joint VAE with subset posteriors that maximise the ELBO of their own modalities under its decoders.

.. math::
    \max \; \mathrm{ELBO}(x_M) + \sum_{\emptyset \neq S \subsetneq M} \mathrm{ELBO}_S(x_S), \qquad
    \mathrm{ELBO}_S = \mathbb{E}_{q_S(z \mid x_S)} \Big[ \sum_{i \in S} w_i \log p(x_i \mid z) \Big]
    - \mathrm{KL}(q_S(z \mid x_S) \,\|\, p(z))

Decoders learn from the joint term alone. Two forms were published: two stages, ``joint`` and then ``subsets`` with everything else frozen
(a retrofit of a trained joint VAE), or one stage, in which decoders are frozen and in eval mode in the subset terms, which only pass
gradients through them to z.

The term of a subset needs only its own modalities, and the joint term of an incomplete row is the ELBO of its observed modalities
(`nbridge.models.joint`), so both forms learn from incomplete rows.

References:
    Generative Models of Visually Grounded Imagination (Vedantam, Fischer, Huang & Murphy, 2018), https://arxiv.org/abs/1705.10762
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nbridge.data.batch import Batch
from nbridge.models.base import Decoders, Encoders, Features, Stage, Weights
from nbridge.models.retrofit import Networks, Retrofit
from nbridge.nn.fusion import Fusion


class TELBO(Retrofit):
    """A joint VAE with subset posteriors that maximise the ELBO of their own modalities.

    Arguments:
        encoders: The joint posterior's encoder for each modality.
        decoders: A decoder for each modality.
        fusion: Maps the features of all modalities to the joint posterior.
        networks: An inference network for each nonempty proper subset of the modalities.
        weights: The weight of each modality's log-likelihood in training; 1 by default.
        one_stage: Whether to train joint and subset posteriors together in stage `joint`, instead of the latter in a stage `subsets`.
    """

    def __init__(
        self, encoders: Encoders, decoders: Decoders, fusion: Fusion, networks: Networks, weights: Weights = None,
        *, one_stage: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(encoders, decoders, fusion, networks, weights)
        self.one_stage = one_stage

    def stages(self) -> tuple[Stage, ...]:
        if len(self.names) == 1:
            return (self.joint_stage(),)
        if self.one_stage:
            modules = (self.encoders, self.fusion, self.decoders, self.networks)
            return (Stage("joint", modules, self._both_losses, self._observed),)
        return self.joint_stage(serves=False), Stage("subsets", (self.networks,), self._subsets_loss, self._observed)

    def _both_losses(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:
        joint = self._joint_loss(batch, features, kl_weight)
        with _frozen(self.decoders):
            return joint | self._subsets_loss(batch, features, kl_weight)

    def _subsets_loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:  # noqa: ARG002
        inputs = self.inputs(batch)
        nll, kl = [], []
        for subset in self.subsets:
            rows = torch.stack([batch.present[name] for name in subset]).all(0)
            terms = self.negative_elbo(self.subset_posterior(subset, inputs), batch, kl_weight, names=subset, rows=rows)
            kl.append(terms.pop("kl"))
            nll.extend(terms.values())
        return {"subsets.nll": torch.stack(nll).sum(), "subsets.kl": torch.stack(kl).sum()}


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Puts the module in eval mode and freezes its parameters; gradients still pass through it."""
    modes = {part: part.training for part in module.modules()}
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.eval().requires_grad_(False)
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        for parameter in learning:
            parameter.requires_grad_(True)
