"""Makes PyPI's torchvision, which is built against CUDA torch, importable with CPU torch.

Its compiled part does not load there, and ``import torchvision`` ends with "operator torchvision::nms does not exist". Declaring the
missing operators is enough for what is written in Python, which is all that multivae uses.
"""

from __future__ import annotations

import importlib
import re
import sys

import torch

_LIBRARY: list[torch.library.Library] = []


def import_torchvision() -> None:
    """Imports torchvision and declares its missing operators."""
    while True:
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if not (found := re.search(r"operator torchvision::(\w+) does not exist", str(error))):
                raise
            _forget()
            _declare(found[1])
        else:
            return


def _declare(operator: str) -> None:
    if not _LIBRARY:
        _LIBRARY.append(torch.library.Library("torchvision", "FRAGMENT"))
    _LIBRARY[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def _forget() -> None:
    """Removes the modules of the failed import."""
    from torch._library.simple_registry import singleton

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in [operator for operator in singleton._data if operator.startswith("torchvision::")]:
        del singleton._data[operator]
