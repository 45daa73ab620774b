"""``precision: auto``: whether this machine multiplies a model's own matrices faster in bfloat16 than in float32, by measuring it.

Instructions for bfloat16 do not make it faster everywhere: a processor with ``avx512_bf16`` may multiply float32 at twice the rate. So
products of the shapes of the model's largest layers are timed in both, with their gradients, for about 50 milliseconds. The choice belongs
to the run: another measurement could end otherwise, and training would not be resumed bit for bit.
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

WIDE = 2**16
"""Numbers in the largest weight from which on bfloat16 can pay for its roundings (measured: 256 x 256); below it nothing is timed."""
LAYERS = 3
"""Weights of different shapes that are timed, the largest ones."""
MULTIPLICATIONS = 2**25
"""Multiplications in a timed product, at most: a larger layer is represented by some of its outputs."""
BUDGET, REPEATS = 0.05, 7
"""Seconds that timing takes, about, and the most repeats of each product; two are taken in any case."""
GAIN = 1.15
"""How many times as fast bfloat16 must be to be chosen: its roundings cost accuracy, and what is timed is not all of a step."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Chosen:
    """The precision of a run's matrix products, and what it rests on.

    Arguments:
        asked: What the spec says.
        chosen: What the products are taken in.
        float32_ms: Milliseconds of the timed products in float32; None where nothing was timed.
        bf16_ms: Milliseconds of the same products in bfloat16.
    """

    asked: Precision
    chosen: Products
    float32_ms: float | None = None
    bf16_ms: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """What ``env.json`` keeps; times only where there are some."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def choose_precision(asked: Precision, model: nn.Module, rows: int, *, clock: Clock | None = None, world: World = ALONE) -> Chosen:
    """The precision that a spec asks for; for ``auto`` the faster one, float32 in doubt.

    Float32 is chosen without timing where the device has no instructions for bfloat16, or the largest weight has fewer than `WIDE` numbers.
    Of several processes the first one measures, and all of them follow it.

    Arguments:
        asked: What the spec says.
        model: The model, on the device that it is trained on.
        rows: Rows in a batch.
        clock: Seconds, from any origin; the processor's own clock when left out.
        world: The processes that train together.

    Example:
        >>> choose_precision("auto", nn.Linear(8, 8), 128)
        Chosen(asked='auto', chosen='float32', float32_ms=None, bf16_ms=None)
    """
    if asked != "auto":
        return Chosen(asked, asked)
    weights = wide_weights(model)
    if not weights or not has_bf16_products(weights[0].device):
        return Chosen(asked, "float32")
    measured = measure(weights, rows, clock) if world.is_main else (0.0, 0.0)
    float32, bf16 = world.gather(torch.tensor(measured, dtype=torch.float64))[0].tolist()
    return Chosen(asked, "bf16" if float32 >= GAIN * bf16 else "float32", round(1000 * float32, 3), round(1000 * bf16, 3))


def wide_weights(model: nn.Module) -> list[Tensor]:
    """The largest weights of different shapes, largest first, that have `WIDE` numbers: matrices, stacks of matrices, convolutions."""
    by_shape = {tuple(weight.shape): weight for weight in model.parameters() if weight.ndim > 1 and weight.numel() >= WIDE}
    return list[Tensor](sorted(by_shape.values(), key=lambda weight: weight.numel(), reverse=True)[:LAYERS])


def measure(weights: list[Tensor], rows: int, clock: Clock | None = None) -> tuple[float, float]:
    """Seconds of the products with these weights, in float32 and in bfloat16: of each the best of a few repeats, taken in turns.

    A convolution is timed as the product of its weight with the patches of its input.

    Arguments:
        weights: Weights of any shape, outputs first, or stacks of matrices.
        rows: Rows in a batch.
        clock: Seconds, from any origin.
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
            # The first time of each pays for memory and for code made to its shape.
            best[number] = min(best[number], seconds) if repeat else best[number]
    return sum(best[: len(weights)]), sum(best[len(weights) :])


def _product(weight: Tensor, rows: int, kind: torch.dtype) -> Callable[[], object]:
    """A layer's product and the two products of its gradients, with the roundings of weights and their gradients around them."""
    matrices = weight.detach() if weight.ndim == 3 else weight.detach().flatten(1)[None]
    each = rows * matrices.shape[1] * matrices.shape[2]
    some = max(1, MULTIPLICATIONS // each)
    matrices = matrices[:some, : max(1, MULTIPLICATIONS // (rows * matrices.shape[2]))].contiguous()
    matrices = (matrices if weight.ndim == 3 else matrices[0]).requires_grad_()
    x = matrices.new_ones(*matrices.shape[:-2], rows, matrices.shape[-1], dtype=kind).requires_grad_()
    slope = matrices.new_ones(*matrices.shape[:-2], rows, matrices.shape[-2], dtype=kind)

    def product() -> object:
        with torch.enable_grad(), torch.autocast(weight.device.type, torch.bfloat16, enabled=kind == torch.bfloat16, cache_enabled=False):
            return torch.autograd.grad(x @ matrices.mT, (x, matrices), slope)

    return product


def _clock(device: torch.device) -> Clock:
    """The processor's clock, read when the device has done all that was asked of it."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
