"""The precision of matrix products, applied from outside the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from nbridge.nn.networks import StackedMLP

Products = Literal["float32", "bf16"]


def has_bf16_products(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16 products (avx512_bf16, amx_bf16, CUDA since Ampere)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Private functions of torch, because no public ones exist; without them, float32.
    asked = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return device.type == "cpu" and any(ask is not None and ask() for ask in asked)


@contextmanager
def matmul_precision(products: Products, model: nn.Module) -> Iterator[None]:
    """Runs the matrix products of a model in float32 or bfloat16.

    Outputs of networks are float32, so that densities, KL terms and the optimiser use it. Between the layers of a network, and from bridges
    to the fusion after them, values stay in bfloat16, because the next product would round them anyway.
    """
    if products == "float32":
        yield
        return
    device = next(model.parameters()).device
    between = _between_layers(model)
    with ExitStack() as stack:
        for module in model.modules():
            if module not in between:
                stack.callback(module.register_forward_hook(_as_float32).remove)
        # Without autocast's cache, which would keep the rounded weights across optimiser steps.
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, cache_enabled=False))
        yield


def _between_layers(model: nn.Module) -> set[nn.Module]:
    """Modules whose output is the input of another product: all layers of a network but the last, and bridges."""
    inner: set[nn.Module] = set()
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            inner.update(list(module)[:-1])
        elif isinstance(module, StackedMLP):
            inner.update(module.modules())
    return {layer for layer in inner if isinstance(layer, StackedMLP) or not next(layer.children(), None)}


def _as_float32(module: nn.Module, inputs: object, output: object) -> object:  # noqa: ARG001 (torch's signature)
    return output.float() if isinstance(output, Tensor) and output.dtype == torch.bfloat16 else output
