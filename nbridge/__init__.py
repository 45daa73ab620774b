"""nbridge: multimodal VAEs that fill in whole missing modalities, from a declarative spec.

The names below are imported when they are first used, so that ``import nbridge`` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from nbridge.version import __version__

if TYPE_CHECKING:
    from nbridge.data.batch import Batch
    from nbridge.draft.draft import init
    from nbridge.errors import DataError, NBridgeError, NBridgeWarning, RunError, SpecError
    from nbridge.inference.pooling import Pooled, pool
    from nbridge.model import Model, load
    from nbridge.models.base import MultimodalVAE, Stage
    from nbridge.models.bridged import BridgedVAE
    from nbridge.nn.decoders import Decoder
    from nbridge.nn.encoders import Encoder
    from nbridge.nn.fusion import Fusion
    from nbridge.nn.likelihoods import Likelihood
    from nbridge.runs.comparison import compare
    from nbridge.runs.run import Run, resume, train
    from nbridge.sklearn import NBridgeImputer
    from nbridge.spec.reader import read_spec
    from nbridge.spec.spec import Spec
    from nbridge.spec.training import TrainingSpec
    from nbridge.training.build import build_model
    from nbridge.training.callbacks import Callback, StopTraining
    from nbridge.training.trainer import fit

_HOME = {
    "Batch": "nbridge.data.batch",
    "BridgedVAE": "nbridge.models.bridged",
    "Callback": "nbridge.training.callbacks",
    "DataError": "nbridge.errors",
    "Decoder": "nbridge.nn.decoders",
    "Encoder": "nbridge.nn.encoders",
    "Fusion": "nbridge.nn.fusion",
    "Likelihood": "nbridge.nn.likelihoods",
    "Model": "nbridge.model",
    "MultimodalVAE": "nbridge.models.base",
    "NBridgeError": "nbridge.errors",
    "NBridgeImputer": "nbridge.sklearn",
    "NBridgeWarning": "nbridge.errors",
    "Pooled": "nbridge.inference.pooling",
    "Run": "nbridge.runs.run",
    "RunError": "nbridge.errors",
    "Spec": "nbridge.spec.spec",
    "SpecError": "nbridge.errors",
    "Stage": "nbridge.models.base",
    "StopTraining": "nbridge.training.callbacks",
    "TrainingSpec": "nbridge.spec.training",
    "build_model": "nbridge.training.build",
    "compare": "nbridge.runs.comparison",
    "fit": "nbridge.training.trainer",
    "init": "nbridge.draft.draft",
    "load": "nbridge.model",
    "pool": "nbridge.inference.pooling",
    "read_spec": "nbridge.spec.reader",
    "resume": "nbridge.runs.run",
    "train": "nbridge.runs.run",
}

__all__ = ["__version__", *_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'nbridge' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
