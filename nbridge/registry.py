"""Short names of components, and the classes that they stand for; nothing is imported before it is asked for.

A type in a spec is one of the names below, a name that an installed package declares as an entry point (groups ``nbridge.encoders``,
``nbridge.decoders``, ``nbridge.likelihoods`` and ``nbridge.datasets``), or ``package.module:Class``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import re
from collections.abc import Mapping
from typing import Any

from nbridge.errors import SpecError
from nbridge.phrases import clip, did_you_mean

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "encoders": {
        "mlp": "nbridge.encoders:MLPEncoder",
        "conv": "nbridge.encoders:ConvEncoder",
        "embedding": "nbridge.encoders:EmbeddingEncoder",
    },
    "decoders": {"mlp": "nbridge.decoders:MLPDecoder", "conv": "nbridge.decoders:ConvDecoder"},
    "likelihoods": {
        "bernoulli": "nbridge.likelihoods:Bernoulli",
        "categorical": "nbridge.likelihoods:Categorical",
        "normal": "nbridge.likelihoods:Normal",
        "laplace": "nbridge.likelihoods:Laplace",
        "discretized_logistic": "nbridge.likelihoods:DiscretizedLogistic",
        "poisson": "nbridge.likelihoods:Poisson",
        "negative_binomial": "nbridge.likelihoods:NegativeBinomial",
    },
    "fusions": {"mlp": "nbridge.fusion:Fusion"},
    "bridges": {"mlp": "nbridge.bridges:BridgeBank", "flow": "nbridge.flow_bridge:FlowBridge"},
    "priors": {"mixture": "nbridge.mixture:Mixture"},
    "models": {
        "bridged": "nbridge.models.bridged:BridgedVAE",
        "joint": "nbridge.models.joint:JointVAE",
        "vae": "nbridge.models.vae:VAE",
        "jmvae": "nbridge.models.jmvae:JMVAE",
        "telbo": "nbridge.models.telbo:TELBO",
        "mvae": "nbridge.models.mvae:MVAE",
        "bivcca": "nbridge.models.bivcca:BiVCCA",
    },
    "datasets": {
        "celeba": "nbridge.data.celeba:CelebA",
        "digits": "nbridge.data.digits:Digits",
        "mnist": "nbridge.data.idx:MNIST",
        "fashion_mnist": "nbridge.data.idx:FashionMNIST",
        "mnist_fashion": "nbridge.data.paired:MNISTFashion",
        "polymnist": "nbridge.data.polymnist:PolyMNIST",
        "npz": "nbridge.data.npz:NPZ",
        "npy": "nbridge.data.npy:NPYFolder",
        "parquet": "nbridge.data.parquet:Parquet",
        "table": "nbridge.data.table:Table",
        "images": "nbridge.data.images:Images",
        "frame": "nbridge.data.frame_table:FrameSource",
        "h5mu": "nbridge.data.h5mu:H5MU",
        "h5ad": "nbridge.data.h5mu:H5MU",
        "mudata": "nbridge.data.h5mu:MuDataSource",
        "memory": "nbridge.data.memory:Memory",
    },
}
"""The class of each short name, by kind."""

FROM_PYTHON = ("memory", "frame", "mudata")
"""Data sources of rows that no file holds."""

NOUNS: Mapping[str, str] = {
    "encoders": "encoder", "decoders": "decoder", "likelihoods": "likelihood", "fusions": "fusion", "bridges": "bridges", "priors": "prior",
    "models": "model", "datasets": "data source",
}  # fmt: skip
"""What an error calls one component of a kind."""

BASES: Mapping[str, str] = {
    "encoders": "nbridge.encoders:Encoder",
    "decoders": "torch.nn:Module",
    "likelihoods": "nbridge.likelihoods:Likelihood",
    "fusions": "nbridge.fusion:Fusion",
    "bridges": "nbridge.bridges:Bridges",
    "priors": "nbridge.mixture:Mixture",
    "models": "nbridge.models.base:MultimodalVAE",
    "datasets": "nbridge.data.dataset:Source",
}
"""What a class of a kind inherits from."""

STAGES: Mapping[str, tuple[str, ...]] = {
    "bridged": ("joint", "bridges"),
    "joint": ("joint",),
    "vae": ("joint",),
    "jmvae": ("joint",),
    "telbo": ("joint", "subsets"),
    "mvae": ("joint",),
    "bivcca": ("joint",),
}
"""The training stages that a model declares, in their order."""

_EXTENSIBLE = frozenset({"encoders", "decoders", "likelihoods", "datasets"})
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def known(kind: str) -> list[str]:
    """The names of a kind, built-in and installed, in alphabetical order."""
    return sorted({*BUILT_IN[kind], *_entry_points(kind)})


def locate(kind: str, name: str, words: tuple[str, ...] = ()) -> str:
    """The class, as ``package.module:Class``, that a type of a spec stands for.

    Arguments:
        kind: One of the kinds of `BUILT_IN`.
        name: The type, as a spec spells it.
        words: What else a spec may say here, for the message.

    Raises:
        SpecError: when the name is unknown.
    """
    if name in BUILT_IN[kind]:
        return BUILT_IN[kind][name]
    if ":" in name:
        if _TARGET.fullmatch(name):
            return name
        raise SpecError([f"{NOUNS[kind]} '{clip(name)}' is not of the form 'package.module:Class'"])
    installed = _entry_points(kind)
    if name in installed:
        return installed[name]
    names = sorted({*known(kind), *words})
    raise SpecError([
        f"unknown {NOUNS[kind]} '{clip(name)}'.{did_you_mean(name, names)} Known: {', '.join(names)}. "
        "For your own class write 'package.module:Class'."
    ])  # fmt: skip


def is_house(target: str) -> bool:
    """Whether ``package.module:Class`` belongs to this package."""
    return target.startswith("nbridge.")


def load(target: str) -> Any:
    """Imports what ``package.module:Class`` names.

    Raises:
        SpecError: when the module cannot be imported or has no such name.
    """
    module_name, _, name = target.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
    except Exception as error:
        reason = clip((str(error).splitlines() or [""])[0], 200)
        raise SpecError([f"'{target}': module '{module_name}' cannot be imported ({type(error).__name__}: {reason})"]) from error
    for part in name.split("."):
        if not hasattr(value, part):
            raise SpecError([f"'{target}': '{part}' is not in module '{module_name}'.{did_you_mean(part, vars(value))}"])
        value = getattr(value, part)
    return value


def resolve(kind: str, name: str, base: type) -> type:
    """Imports the class that a type of a spec stands for.

    Arguments:
        kind: One of the kinds of `BUILT_IN`.
        name: The type, as a spec spells it.
        base: What the class must inherit from.

    Raises:
        SpecError: when the name is unknown, its module cannot be imported, or the class is none of its kind.
    """
    target = locate(kind, name)
    value = load(target)
    if not isinstance(value, type):
        raise SpecError([f"{NOUNS[kind]} '{target}' is not a class, it is of type {type(value).__name__}"])
    if not issubclass(value, base):
        raise SpecError([f"{NOUNS[kind]} '{target}' does not inherit from {base.__module__}.{base.__qualname__}"])
    return value


@functools.cache
def _entry_points(kind: str) -> dict[str, str]:
    """Names that installed packages declare; a name declared twice belongs to the package that is found first."""
    if kind not in _EXTENSIBLE:
        return {}
    return {
        point.name: f"{point.module}:{point.attr}" for point in reversed(list(importlib.metadata.entry_points(group=f"nbridge.{kind}")))
    }
