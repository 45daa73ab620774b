"""``precision: auto``: measures whether bfloat16 is faster than float32 for a model's matrices on this machine.

Support for bfloat16 instructions does not imply speed: a CPU with ``avx512_bf16`` may multiply float32 at twice the rate. So products of
the shapes of the model's largest layers are timed in both, with gradients, for about 50 milliseconds. The choice is stored with the run,
because another measurement could differ and resumed training would then not be bit-identical.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nbridge.acceleration.distributed import ALONE, World
from nbridge.acceleration.precision import Products, has_bf16_products
from nbridge.spec.option_types import Precision

MIN_WEIGHT_SIZE = 2**16
"""Smallest size of a weight for which bfloat16 can outweigh its conversions (measured: 256 x 256); smaller ones are not timed."""
MAX_WEIGHTS = 3
"""Number of weights of different shapes that are timed, largest first."""
MAX_MULTIPLICATIONS = 2**25
"""Largest number of multiplications in a timed product; a larger layer is represented by a part of its outputs."""
BUDGET, REPEATS = 0.05, 7
"""Approximate seconds of timing, and the largest number of repeats per product, at least two."""
MIN_SPEEDUP = 1.15
"""Required speed-up of bfloat16: rounding costs accuracy, and the timed products are only a part of a step."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision of a run's matrix products, and the timings behind it in milliseconds, None if nothing was timed."""

    asked: Precision
    chosen: Products
    float32_ms: float | None = None
    bf16_ms: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The entry in ``env.json``, without timings if there are none."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def choose_precision(asked: Precision, model: nn.Module, rows: int, *, clock: Clock | None = None, world: World = ALONE) -> PrecisionChoice:
    """The precision requested by a spec; for ``auto`` the faster one, or float32 if the difference is small.

    Float32 is chosen without timing if the device has no bfloat16 instructions or the largest weight has fewer than `MIN_WEIGHT_SIZE`
    elements. With several processes, the first one measures for all. The clock returns seconds; by default it is the system clock,
    synchronised with the device.

    Example:
        >>> choose_precision("auto", nn.Linear(8, 8), 128)
        PrecisionChoice(asked='auto', chosen='float32', float32_ms=None, bf16_ms=None)
    """
    if asked != "auto":
        return PrecisionChoice(asked, asked)
    weights = wide_weights(model)
    if not weights or not has_bf16_products(weights[0].device):
        return PrecisionChoice(asked, "float32")
    measured = measure(weights, rows, clock) if world.is_main else (0.0, 0.0)
    float32, bf16 = world.gather(torch.tensor(measured, dtype=torch.float64))[0].tolist()
    return PrecisionChoice(asked, "bf16" if float32 >= MIN_SPEEDUP * bf16 else "float32", round(1000 * float32, 3), round(1000 * bf16, 3))


def wide_weights(model: nn.Module) -> list[Tensor]:
    """The largest weights of different shapes with `MIN_WEIGHT_SIZE` elements or more, largest first: matrices, stacks, convolutions."""
    by_shape = {tuple(weight.shape): weight for weight in model.parameters() if weight.ndim > 1 and weight.numel() >= MIN_WEIGHT_SIZE}
    return list[Tensor](sorted(by_shape.values(), key=lambda weight: weight.numel(), reverse=True)[:MAX_WEIGHTS])


def measure(weights: list[Tensor], rows: int, clock: Clock | None = None) -> tuple[float, float]:
    """Seconds of the products with these weights in float32 and in bfloat16, each the best of a few interleaved repeats.

    A convolution is timed as the product of its weight with the patches of its input. Weights are of any shape, outputs first, or stacks of
    matrices.
    """
    clock = clock or _clock(weights[0].device)
    until = clock() + BUDGET
    products = [_product(weight, rows, kind) for kind in (torch.float32, torch.bfloat16) for weight in weights]
    best = [float("inf")] * len(products)
    for repeat in range(1 + REPEATS):
        if repeat > 2 and clock() >= until:
            break
        for number, product in enumerate(products):
            started = clock()
            product()
            seconds = clock() - started
            # The first repeat is a warm-up: it allocates memory and generates kernels.
            best[number] = min(best[number], seconds) if repeat else best[number]
    return sum(best[: len(weights)]), sum(best[len(weights) :])


def _product(weight: Tensor, rows: int, kind: torch.dtype) -> Callable[[], object]:
    """The product of a layer and the two of its gradients, including conversions of weights and gradients."""
    matrices = weight.detach() if weight.ndim == 3 else weight.detach().flatten(1)[None]
    each = rows * matrices.shape[1] * matrices.shape[2]
    some = max(1, MAX_MULTIPLICATIONS // each)
    matrices = matrices[:some, : max(1, MAX_MULTIPLICATIONS // (rows * matrices.shape[2]))].contiguous()
    matrices = (matrices if weight.ndim == 3 else matrices[0]).requires_grad_()
    x = matrices.new_ones(*matrices.shape[:-2], rows, matrices.shape[-1], dtype=kind).requires_grad_()
    slope = matrices.new_ones(*matrices.shape[:-2], rows, matrices.shape[-2], dtype=kind)

    def product() -> object:
        with torch.enable_grad(), torch.autocast(weight.device.type, torch.bfloat16, enabled=kind == torch.bfloat16, cache_enabled=False):
            return torch.autograd.grad(x @ matrices.mT, (x, matrices), slope)

    return product


def _clock(device: torch.device) -> Clock:
    """The system clock, read after the device has finished all queued work."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
