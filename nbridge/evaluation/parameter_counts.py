r"""Parameter counts of a bridged model, a retrofit and a product of experts built from the same parts.

======================== ======================================= ======================================================================
model                    inference networks                      parameters
======================== ======================================= ======================================================================
bridged                  1 fusion, :math:`2\binom{n}{2}` bridges :math:`\sum Enc_i + Fuse_M + \sum Dec_i + \sum_{i \neq j} B_{ij}`
retrofit (JMVAE, TELBO)  :math:`\sum_k \binom{n}{k} = 2^n - 1`   :math:`2^{n-1} \sum Enc_i + \sum_{S \neq \emptyset} Fuse_S + \sum Dec_i`
MVAE                     n                                       :math:`\sum Enc_i + \sum Head_i + \sum Dec_i`
======================== ======================================= ======================================================================

:math:`Fuse_S` is an MLP over the concatenated features of S, so its count is :math:`a + b \sum_{i \in S} F_i` and the sum over all
subsets is :math:`(2^n - 1) a + 2^{n-1} b \sum F_i`. Bridges grow as n(n-1), retrofits as :math:`2^n`. Bridges with separate encoders add
:math:`\sum Enc_i`. A flow is one network, plus a guide for each modality.

References:
    Bridged Variational Autoencoders for Joint Modeling of Images and Attributes (Yadav et al., WACV 2020), table 4
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import torch
from torch import nn

from nbridge.models.flow_bridged import FlowBridgedVAE
from nbridge.models.jmvae import JMVAE
from nbridge.models.mvae import MVAE
from nbridge.nn.flow_bridge import FREQUENCIES, default_width
from nbridge.spec.spec import Spec
from nbridge.training.build import SpecParts, bridged_class

COUNTED_UP_TO = 8
"""Maximum number of modalities for which the retrofits' :math:`2^n - 1` networks are built to be counted."""
LABELS = {"bridged": "bridged", "retrofit": "retrofit (JMVAE, TELBO)", "mvae": "MVAE"}
"""Display names of models."""


@dataclass(frozen=True)
class ModelCount:
    """The size of one model: its inference networks (fusions, heads and bridges), and its parameters by the closed formula.

    The parameters ``counted`` on the built networks are None when they were not built.
    """

    name: str
    networks: int
    formula: int
    counted: int | None


@dataclass(frozen=True)
class ParameterTable:
    """Parameter counts of parts and of whole models.

    Arguments:
        parts: Parameters of each part of the bridged model.
        models: Bridged, retrofit and MVAE, in this order.
        paper: Parameters of the bridged model with ``objective: paper``, whose bridges have no separate encoders; None for a flow.
    """

    parts: Mapping[str, int]
    models: tuple[ModelCount, ...]
    paper: int | None = None

    @property
    def reduction(self) -> float:
        """The share of the retrofit's parameters that bridges save; negative when bridges need more."""
        bridged, retrofit, _ = self.models
        return 1 - bridged.formula / retrofit.formula

    @property
    def comparison(self) -> str:
        """The bridged model against the retrofit, as a sentence."""
        return f"The bridged model has {abs(self.reduction):.1%} {'fewer' if self.reduction >= 0 else 'more'} parameters than the retrofit."


def mlp_parameters(inputs: int, outputs: int, hidden: Sequence[int], *, batch_norm: bool) -> int:
    """Parameters of a multilayer perceptron, stacked or not, with optional batch normalisation after each hidden layer."""
    widths = [inputs, *hidden, outputs]
    linear = sum((width + 1) * wider for width, wider in pairwise(widths))
    return linear + (2 * sum(hidden) if batch_norm else 0)


def count_parameters(spec: Spec, *, build: bool = True) -> ParameterTable:
    """Counts the parameters of all three models for a spec, by formula and by building them on torch's ``meta`` device.

    Building is slow for many modalities; without it only the formulas are evaluated.
    """
    parts = SpecParts(spec)
    with torch.device("meta"):
        encoders = {name: _count(parts.encoder(name)) for name in parts.names}
        decoders = {name: _count(parts.decoder(name)) for name in parts.names}
        counted_bridged = _count(bridged_class(spec).from_parts(parts)) if build else None
        counted_retrofit = _count(JMVAE.from_parts(parts)) if build and len(spec.modalities) <= COUNTED_UP_TO else None
        counted_mvae = _count(MVAE.from_parts(parts)) if build else None
    sizes = _sizes(spec, encoders, decoders)
    n, is_flow = len(parts.names), issubclass(bridged_class(spec), FlowBridgedVAE)
    return ParameterTable(
        sizes,
        (
            ModelCount("bridged", 2 + n if is_flow else 1 + n * (n - 1), sum(sizes.values()), counted_bridged),
            ModelCount("retrofit", 2**n - 1, retrofit_parameters(spec, encoders, decoders), counted_retrofit),
            ModelCount("mvae", n, mvae_parameters(spec, encoders, decoders), counted_mvae),
        ),
        None if is_flow else sum(sizes.values()) - _own(spec) * sum(encoders.values()),
    )


def retrofit_parameters(spec: Spec, encoders: Mapping[str, int], decoders: Mapping[str, int]) -> int:
    """The closed formula of the retrofits, from the parameter counts of each encoder and decoder."""
    n, features = len(spec.modalities), sum(modality.features for modality in spec.modalities.values())
    constant = fusion_parameters(spec, 0)
    slope = fusion_parameters(spec, 1) - constant
    fusions = (2**n - 1) * constant + 2 ** (n - 1) * slope * features
    return 2 ** (n - 1) * sum(encoders.values()) + fusions + sum(decoders.values())


def mvae_parameters(spec: Spec, encoders: Mapping[str, int], decoders: Mapping[str, int]) -> int:
    """The closed formula of MVAE, which has a head for each modality."""
    heads = sum(fusion_parameters(spec, modality.features) for modality in spec.modalities.values())
    return sum(encoders.values()) + heads + sum(decoders.values())


def fusion_parameters(spec: Spec, features: int) -> int:
    """Parameters of a fusion network with this number of input features."""
    return mlp_parameters(features, 2 * spec.latent_dim, spec.fusion.kwargs["hidden"], batch_norm=spec.fusion.kwargs["batch_norm"])


def flow_parameters(features: int, latent_dim: int, modalities: int, width: int, blocks: int) -> int:
    """Parameters of a flow's network: an input and an output layer, residual blocks with a context layer, and the spread of its start."""
    first, last = (features + 3 * latent_dim + 1) * width, (width + 1) * latent_dim
    block = 2 * (width + 1) * width + (modalities + 2 * FREQUENCIES + 1) * 2 * width
    return first + blocks * block + last + modalities * latent_dim


def _sizes(spec: Spec, encoders: Mapping[str, int], decoders: Mapping[str, int]) -> dict[str, int]:
    return {
        **{f"encoder {name}": count for name, count in encoders.items()},
        "fusion": fusion_parameters(spec, sum(modality.features for modality in spec.modalities.values())),
        **_bridges(spec, encoders),
        **{f"decoder {name}": count for name, count in decoders.items()},
    }


def _own(spec: Spec) -> bool:
    """Whether bridges have separate encoders."""
    return spec.bridges.encoders == "own" and len(spec.modalities) > 1


def _bridges(spec: Spec, encoders: Mapping[str, int]) -> dict[str, int]:
    """Parameters of a bridge for each ordered pair, or of a flow and its guides, including separate encoders."""
    features = {name: modality.features for name, modality in spec.modalities.items()}
    options, total, own = spec.bridges.bank.kwargs, sum(features.values()), _own(spec)
    if issubclass(bridged_class(spec), FlowBridgedVAE):
        guides = {f"guide {name}": own * count + fusion_parameters(spec, features[name]) for name, count in encoders.items()}
        width = options["width"] or default_width(spec.latent_dim)
        return {"flow": flow_parameters(total, spec.latent_dim, len(features), width, options["blocks"]), **guides}
    bridges = {
        f"bridge {source} -> {target}": mlp_parameters(
            features[source], features[target], options["hidden"], batch_norm=options["batch_norm"]
        )
        for source, target in permutations(features, 2)
    }
    return {**bridges, **{f"encoder {name} for bridges": count for name, count in encoders.items() if own}}


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
