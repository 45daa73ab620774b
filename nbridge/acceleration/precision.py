"""The precision of matrix products, applied from outside: models never mention it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from nbridge.annotations import Precision


@contextmanager
def matmul_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """Runs the products of layers in float32, or in bfloat16 with results back in float32.

    Everything else (normalisation, densities, KL terms, the optimiser) stays in float32. Processors with bfloat16 products (avx512_bf16,
    amx_bf16, CUDA from Ampere on) gain speed on wide layers; others lose it.
    """
    if precision == "float32":
        yield
        return
    hook = register_module_forward_hook(_as_float32)  # pyright: ignore[reportArgumentType] (a hook may give another output)
    try:
        # Without a cache: it would keep the weights' rounded copies over the optimiser's steps.
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield
    finally:
        hook.remove()


def _as_float32(module: nn.Module, inputs: object, output: object) -> object:  # noqa: ARG001 (torch's signature)
    return output.float() if isinstance(output, Tensor) and output.dtype == torch.bfloat16 else output
