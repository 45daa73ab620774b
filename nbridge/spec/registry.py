"""Registry of component types: short names and their classes, imported on demand.

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

from nbridge.common.messages import clip, did_you_mean
from nbridge.errors import SpecError

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "encoders": {
        "mlp": "nbridge.nn.encoders:MLPEncoder",
        "conv": "nbridge.nn.encoders:ConvEncoder",
        "embedding": "nbridge.nn.encoders:EmbeddingEncoder",
    },
    "decoders": {"mlp": "nbridge.nn.decoders:MLPDecoder", "conv": "nbridge.nn.decoders:ConvDecoder"},
    "likelihoods": {
        "bernoulli": "nbridge.nn.likelihoods:Bernoulli",
        "categorical": "nbridge.nn.likelihoods:Categorical",
        "normal": "nbridge.nn.likelihoods:Normal",
        "laplace": "nbridge.nn.likelihoods:Laplace",
        "discretized_logistic": "nbridge.nn.likelihoods:DiscretizedLogistic",
        "poisson": "nbridge.nn.likelihoods:Poisson",
        "negative_binomial": "nbridge.nn.likelihoods:NegativeBinomial",
    },
    "fusions": {"mlp": "nbridge.nn.fusion:Fusion"},
    "bridges": {"mlp": "nbridge.nn.bridges:BridgeBank", "flow": "nbridge.nn.flow_bridge:FlowBridge"},
    "priors": {"mixture": "nbridge.models.mixture_prior:Mixture"},
    "models": {
        "bridged": "nbridge.models.bridged:BridgedVAE",
        "joint": "nbridge.models.joint:JointVAE",
        "vae": "nbridge.models.vae:VAE",
        "jmvae": "nbridge.models.jmvae:JMVAE",
        "telbo": "nbridge.models.telbo:TELBO",
        "mvae": "nbridge.models.mvae:MVAE",
        "bivcca": "nbridge.models.bivcca:BiVCCA",
    },
    # In the order in which formats are asked whether they read some rows.
    "datasets": {
        "mudata": "nbridge.data.omics.source:MuDataSource",
        "h5mu": "nbridge.data.omics.source:H5MU",
        "h5ad": "nbridge.data.omics.source:H5MU",
        "images": "nbridge.data.images.source:Images",
        "table": "nbridge.data.tables.source:Table",
        "parquet": "nbridge.data.tables.parquet:Parquet",
        "npy": "nbridge.data.numpy.npy:NPYFolder",
        "npz": "nbridge.data.numpy.npz:NPZ",
        "frame": "nbridge.data.tables.frame_source:FrameSource",
        "memory": "nbridge.data.memory:Memory",
        "celeba": "nbridge.data.benchmarks.celeba:CelebA",
        "digits": "nbridge.data.benchmarks.digits:Digits",
        "mnist": "nbridge.data.benchmarks.mnist:MNIST",
        "fashion_mnist": "nbridge.data.benchmarks.mnist:FashionMNIST",
        "mnist_fashion": "nbridge.data.benchmarks.paired:MNISTFashion",
        "polymnist": "nbridge.data.benchmarks.polymnist:PolyMNIST",
    },
}
"""The class of each short name, by kind."""

FROM_PYTHON = ("memory", "frame", "mudata")
"""Data sources that take their rows from Python instead of a file."""

NOUNS: Mapping[str, str] = {
    "encoders": "encoder", "decoders": "decoder", "likelihoods": "likelihood", "fusions": "fusion", "bridges": "bridges", "priors": "prior",
    "models": "model", "datasets": "data source",
}  # fmt: skip
"""The singular noun for each kind in error messages."""

BASES: Mapping[str, str] = {
    "encoders": "nbridge.nn.encoders:Encoder",
    "decoders": "torch.nn:Module",
    "likelihoods": "nbridge.nn.likelihoods:Likelihood",
    "fusions": "nbridge.nn.fusion:Fusion",
    "bridges": "nbridge.nn.bridges:Bridges",
    "priors": "nbridge.models.mixture_prior:Mixture",
    "models": "nbridge.models.base:MultimodalVAE",
    "datasets": "nbridge.data.source:DataSource",
}
"""The required base class of each kind."""

STAGES: Mapping[str, tuple[str, ...]] = {
    "bridged": ("joint", "bridges"),
    "joint": ("joint",),
    "vae": ("joint",),
    "jmvae": ("joint",),
    "telbo": ("joint", "subsets"),
    "mvae": ("joint",),
    "bivcca": ("joint",),
}
"""The training stages of each model, in order."""

_EXTENSIBLE = frozenset({"encoders", "decoders", "likelihoods", "datasets"})
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def known(kind: str) -> list[str]:
    """The built-in and installed names of a kind, sorted."""
    return sorted({*BUILT_IN[kind], *installed(kind)})


def locate(kind: str, name: str, keywords: tuple[str, ...] = ()) -> str:
    """The class of a type, as ``package.module:Class``. ``kind`` is one of `BUILT_IN`; the error message also lists ``keywords``.

    Raises:
        SpecError: if the name is unknown.
    """
    if name in BUILT_IN[kind]:
        return BUILT_IN[kind][name]
    if ":" in name:
        if _TARGET.fullmatch(name):
            return name
        raise SpecError([f"invalid {NOUNS[kind]} '{clip(name)}', expected the form 'package.module:Class'"])
    if name in installed(kind):
        return installed(kind)[name]
    names = sorted({*known(kind), *keywords})
    raise SpecError([
        f"unknown {NOUNS[kind]} '{clip(name)}'.{did_you_mean(name, names)} Known: {', '.join(names)}. "
        "For your own class write 'package.module:Class'."
    ])  # fmt: skip


def is_built_in(target: str) -> bool:
    """Whether ``package.module:Class`` belongs to this package."""
    return target.startswith("nbridge.")


def load(target: str) -> Any:
    """Imports ``package.module:Class``.

    Raises:
        SpecError: if the module cannot be imported or has no such attribute.
    """
    module_name, _, name = target.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
    except Exception as error:
        reason = clip((str(error).splitlines() or [""])[0], 200)
        raise SpecError([f"'{target}': module '{module_name}' cannot be imported ({type(error).__name__}: {reason})"]) from error
    for part in name.split("."):
        if not hasattr(value, part):
            raise SpecError([f"'{target}': module '{module_name}' has no '{part}'.{did_you_mean(part, vars(value))}"])
        value = getattr(value, part)
    return value


def resolve(kind: str, name: str, base: type) -> type:
    """Imports the class of a type. ``kind`` is one of `BUILT_IN`; the class must extend ``base``.

    Raises:
        SpecError: if the name is unknown, its module cannot be imported, or it is not a subclass of ``base``.
    """
    target = locate(kind, name)
    value = load(target)
    if not isinstance(value, type):
        raise SpecError([f"{NOUNS[kind]} '{target}' is of type {type(value).__name__}, expected a class"])
    if not issubclass(value, base):
        raise SpecError([f"{NOUNS[kind]} '{target}' does not inherit from {base.__module__}.{base.__qualname__}"])
    return value


@functools.cache
def installed(kind: str) -> dict[str, str]:
    """The classes that installed packages declare, by name; if two packages declare the same name, the first one found wins."""
    if kind not in _EXTENSIBLE:
        return {}
    return {
        point.name: f"{point.module}:{point.attr}" for point in reversed(list(importlib.metadata.entry_points(group=f"nbridge.{kind}")))
    }
