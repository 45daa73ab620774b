"""Random specs, models as they might be after training, rows inside their support and patterns of presence."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor, nn

from nbridge.data.batch import Batch
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Bernoulli, Categorical, DiscretizedLogistic, Likelihood, NegativeBinomial, Poisson
from nbridge.spec.registry import BUILT_IN
from nbridge.spec.spec import Spec
from nbridge.training.build import build_model

MODELS = tuple(BUILT_IN["models"])
JOINT = tuple(name for name in MODELS if name != "vae")
"""Models of several modalities."""
RETROFITS = {"jmvae", "telbo"}
"""Models with a network for each of 2^n - 1 subsets, which are drawn with few modalities."""
WIDTHS = st.lists(st.integers(1, 4), max_size=2)
SEEDS = st.integers(0, 2**31)
SCALES = st.sampled_from(["learned", "predicted", 0.5])

elementwise = st.one_of(
    st.sampled_from(["bernoulli", "normal", "laplace", "discretized_logistic", "poisson", "negative_binomial"]),
    st.builds(lambda scale: {"type": "normal", "scale": scale}, SCALES),
    st.builds(lambda scale: {"type": "laplace", "scale": scale, "standardize": False}, SCALES),
    st.builds(lambda levels: {"type": "discretized_logistic", "levels": levels, "high": 255.0}, st.integers(2, 256)),
)


@st.composite
def modalities(draw: st.DrawFn) -> dict[str, Any]:
    """One modality of a spec: a shape, and an encoder and a likelihood that serve it."""
    shape = draw(st.one_of(st.integers(1, 5), st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    options = {"batch_norm": draw(st.booleans())}
    encoders: list[dict[str, Any]] = [{"type": "mlp", "hidden": draw(WIDTHS), **options}]
    likelihood = elementwise
    if isinstance(shape, int) or len(shape) == 1:
        if (shape if isinstance(shape, int) else shape[0]) >= 2:
            likelihood = st.one_of(st.just("categorical"), elementwise)
            encoders.append({"type": "embedding", "embedding_dim": draw(st.integers(1, 3)), "hidden": draw(WIDTHS), **options})
    else:
        encoders.append({"type": "conv", "channels": draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)), **options})
    return {
        "shape": shape,
        "encoder": draw(st.sampled_from(encoders)),
        "likelihood": draw(likelihood),
        "features": draw(st.integers(1, 4)),
        "weight": draw(st.sampled_from([0.5, 1.0, 10.0])),
    }


@st.composite
def models(draw: st.DrawFn, names: Sequence[str], kinds: Collection[str] = MODELS) -> Any:
    """A model of one of these kinds, with options drawn."""
    kind = draw(st.sampled_from([kind for kind in kinds if len(names) <= 4 or kind not in RETROFITS]))
    shares = draw(st.lists(st.integers(1, 9), min_size=len(names), max_size=len(names)))
    options: dict[str, Any] = {
        "vae": {"modality": draw(st.sampled_from(names))},
        "jmvae": {"alpha": draw(st.sampled_from([0.0, 0.1, 2.0]))},
        "telbo": {"one_stage": draw(st.booleans())},
        "mvae": {"random_subsets": draw(st.integers(0, 3))},
        "bivcca": draw(st.sampled_from([{}, {"mixing": {n: part / sum(shares) for n, part in zip(names, shares, strict=True)}}])),
    }
    return {"type": kind, **options.get(kind, {})}


@st.composite
def specs(draw: st.DrawFn, min_size: int = 2, max_size: int = 6, kinds: Collection[str] = MODELS) -> Spec:
    """A spec of several modalities with everything drawn, checked; a model of one of these kinds."""
    known = ["image", "label", "text", "genes", "x", "y_2", "top"]
    most = min(max_size, 4) if RETROFITS.issuperset(kinds) else max_size
    names = draw(st.lists(st.sampled_from(known), min_size=min_size, max_size=most, unique=True))
    objective = st.one_of(st.just("paper"), st.dictionaries(st.sampled_from(["elbo", "distill", "match"]), st.just(0.5), min_size=1))
    return Spec.model_validate(
        {
            "model": draw(models(names, kinds)),
            "latent_dim": draw(st.integers(1, 4)),
            "modalities": {name: draw(modalities()) for name in names},
            "fusion": {"hidden": draw(WIDTHS), "batch_norm": draw(st.booleans())},
            "bridges": {
                "hidden": draw(WIDTHS),
                "batch_norm": draw(st.booleans()),
                "objective": draw(objective),
                "combine": draw(st.sampled_from(["mean", "poe"])),
                "encoders": draw(st.sampled_from(["shared", "own"])),
            },
        }
    )


def grown_model(spec: Spec, seed: int) -> MultimodalVAE:
    """A model with weights, running statistics and training rows' statistics unlike those of a fresh one, in eval mode."""
    torch.manual_seed(seed)
    model = build_model(spec, seed=seed)
    for module in model.modules():
        for name, tensor in module.named_buffers(recurse=False):
            if name == "running_mean":
                tensor.normal_()
            elif name == "running_var":
                tensor.uniform_(0.5, 2.0)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.weight)
    model.fit_statistics(Batch.complete(rows_of(model, 12, seed)))
    return model.eval()


def rows_of(model: MultimodalVAE, rows: int, seed: int) -> dict[str, Tensor]:
    """Values of every modality inside its support, from a seed."""
    generator = torch.Generator().manual_seed(seed)
    return {name: values(likelihood, rows, generator) for name, likelihood in model.likelihoods.items()}


def values(likelihood: Likelihood, rows: int, generator: torch.Generator) -> Tensor:
    """Rows of one modality inside its support; classes are indices, counts whole numbers in floating point."""
    shape = (rows, *likelihood.shape)
    match likelihood:
        case Categorical():
            return torch.randint(likelihood.shape[0], (rows,), generator=generator)
        case Bernoulli():
            return torch.rand(shape, generator=generator)
        case Poisson() | NegativeBinomial():
            return torch.poisson(torch.full(shape, 2.0), generator=generator)
        case DiscretizedLogistic():
            step = (likelihood.high - likelihood.low) / (likelihood.levels - 1)
            return likelihood.low + (step * torch.randint(likelihood.levels, shape, generator=generator)).clamp(max=likelihood.high)
        case _:
            return 3 + 2 * torch.randn(shape, generator=generator)


@st.composite
def served(
    draw: st.DrawFn, min_size: int = 2, max_size: int = 6, max_rows: int = 6, kinds: Collection[str] = MODELS
) -> tuple[Spec, MultimodalVAE, Batch]:
    """A spec, a model of it of one of these kinds, and rows whose patterns of presence differ, empty ones among them."""
    spec = draw(specs(min_size, max_size, kinds))
    model = grown_model(spec, draw(SEEDS))
    rows = draw(st.integers(1, max_rows))
    present = draw(hnp.arrays(bool, (len(model.names), rows)))
    masks = {name: torch.as_tensor(mask.copy()) for name, mask in zip(model.names, present, strict=True)}
    return spec, model, Batch(rows_of(model, rows, draw(SEEDS)), masks)
