"""nbridge: multimodal VAEs that fill in whole missing modalities, from a declarative spec.

The names below are imported when they are first used, so that ``import nbridge`` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from nbridge.version import __version__

if TYPE_CHECKING:
    from nbridge.batch import Batch
    from nbridge.build import build_model
    from nbridge.checkpoint import load
    from nbridge.comparison import compare
    from nbridge.completion import impute_arrays
    from nbridge.decoders import Decoder
    from nbridge.encoders import Encoder
    from nbridge.errors import DataError, NBridgeError, RunError, SpecError
    from nbridge.evaluation.suite import evaluate
    from nbridge.file_completion import impute_file
    from nbridge.first_look import init
    from nbridge.frame_completion import impute
    from nbridge.fusion import Fusion
    from nbridge.imputation import embed, generate
    from nbridge.likelihoods import Likelihood
    from nbridge.models.base import MultimodalVAE, Stage
    from nbridge.models.bridged import BridgedVAE
    from nbridge.read import read_spec
    from nbridge.run import Run, resume, train
    from nbridge.sklearn_imputer import NBridgeImputer
    from nbridge.spec import Spec
    from nbridge.training import fit
    from nbridge.training_spec import TrainingSpec

_HOME = {
    "Batch": "nbridge.batch",
    "BridgedVAE": "nbridge.models.bridged",
    "DataError": "nbridge.errors",
    "Decoder": "nbridge.decoders",
    "Encoder": "nbridge.encoders",
    "Fusion": "nbridge.fusion",
    "Likelihood": "nbridge.likelihoods",
    "MultimodalVAE": "nbridge.models.base",
    "NBridgeError": "nbridge.errors",
    "NBridgeImputer": "nbridge.sklearn_imputer",
    "Run": "nbridge.run",
    "RunError": "nbridge.errors",
    "Spec": "nbridge.spec",
    "SpecError": "nbridge.errors",
    "Stage": "nbridge.models.base",
    "TrainingSpec": "nbridge.training_spec",
    "build_model": "nbridge.build",
    "compare": "nbridge.comparison",
    "embed": "nbridge.imputation",
    "evaluate": "nbridge.evaluation.suite",
    "fit": "nbridge.training",
    "generate": "nbridge.imputation",
    "impute": "nbridge.frame_completion",
    "impute_arrays": "nbridge.completion",
    "impute_file": "nbridge.file_completion",
    "init": "nbridge.first_look",
    "load": "nbridge.checkpoint",
    "read_spec": "nbridge.read",
    "resume": "nbridge.run",
    "train": "nbridge.run",
}

__all__ = ["__version__", *_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'nbridge' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
