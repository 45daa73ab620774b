"""The time of a training step compared with a lower bound given by the hardware.

    python -m benchmarks.floor [--widths 512,512 1024,1024] [--threads 1] [--repeats 5]

writes benchmarks/results/floor.json and a table in benchmarks/README.md. The floor of a step is the time of its matrix products at the
highest rate measured on this machine, in the same precision, plus the time to move the optimiser's numbers through memory:

    floor = operations / rate + 28 bytes x parameters / bandwidth

Operations are counted by torch's own counter during one step, forward and backward. Adam reads a parameter, its gradient and two moments
and writes three of them, 4 bytes each. The rate is the best of several square and of the model's own shapes; the bandwidth is that of a
copy. Model: an image of 784 pixels and a label, stage `joint`, batch 128, latent 128; steps are those of nbridge's own trainer, the median
epoch of each training, and the median over repeats in alternation. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import nbridge
from benchmarks.readme import replace_section
from nbridge.acceleration.precision import Products, has_bf16_products
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, BATCH, LATENT, EPOCHS = 6400, 128, 128, 4
BYTES = 28
"""Bytes that Adam moves per parameter."""


class Seconds(Callback):
    """Records the time of each epoch."""

    def __init__(self) -> None:
        self.epochs: list[EpochRecord] = []

    def on_validation(self, record: EpochRecord) -> None:
        self.epochs.append(record)


def spec(widths: list[int]) -> nbridge.Spec:
    """An image and a label, each with an encoder of these widths and a decoder of the same in reverse."""
    encoder = {"type": "mlp", "hidden": widths[:-1]}
    return nbridge.Spec.model_validate(
        {
            "model": "joint",
            "latent_dim": LATENT,
            "modalities": {
                "image": {"shape": [1, 28, 28], "encoder": encoder, "features": widths[-1], "likelihood": "bernoulli"},
                "label": {"shape": 10, "encoder": encoder, "features": widths[-1], "likelihood": "categorical"},
            },
            "fusion": {"hidden": []},
            "training": {"batch_size": BATCH},
        }
    )


def trained(of: nbridge.Spec, products: Products, *, compiled: bool = False) -> nbridge.Spec:
    """Trains the joint model of a spec for a few epochs on given rows."""
    keys = of.as_dict()
    training = {"batch_size": BATCH, "precision": products, "compile": compiled, "stages": {"joint": {"epochs": EPOCHS}}}
    data = {"source": "memory", "validation": 0, "test": 0}
    return nbridge.Spec.model_validate({**keys, "model": "joint", "data": data, "training": {**keys["training"], **training}})


def rows() -> nbridge.Batch:
    torch.manual_seed(0)
    return nbridge.Batch.complete({"image": torch.rand(ROWS, 1, 28, 28), "label": torch.randint(0, 10, (ROWS,))})


def step_seconds(of: nbridge.Spec, batch: nbridge.Batch, device: str) -> tuple[float, float]:
    """Seconds per step in the median epoch without the first, and seconds of compilation."""
    seconds = Seconds()
    nbridge.train(of, batch, device=device, callbacks=[seconds])
    return median(epoch.seconds for epoch in seconds.epochs[1:]) / (len(batch) // BATCH), seconds.epochs[0].compile_seconds or 0.0


def counted(of: nbridge.Spec, batch: nbridge.Batch, device: torch.device) -> tuple[int, int]:
    """Floating-point operations of one step, forward and backward, and parameters."""
    model = nbridge.build_model(of).to(device)
    (stage,) = model.stages()
    prepared = model.prepare(batch.slice(0, BATCH).to(device))
    with FlopCounterMode(display=False) as counter:
        torch.stack(list(stage.loss(prepared, {}, 1.0).values())).sum().backward()
    return counter.get_total_flops(), sum(parameter.numel() for parameter in model.parameters())


def product_shapes(of: nbridge.Spec) -> list[tuple[int, int, int]]:
    """The shapes of the model's matrix products, forward and backward, and a large square."""
    layers = {
        (module.in_features, module.out_features) for module in nbridge.build_model(of).modules() if isinstance(module, torch.nn.Linear)
    }
    wide = sorted(layers, key=lambda layer: -layer[0] * layer[1])[:3]
    return [shape for i, o in wide for shape in ((BATCH, i, o), (BATCH, o, i), (i, BATCH, o))] + [(2048, 2048, 2048)]


def fastest(run: Callable[[], Tensor], device: torch.device, calls: int = 20, repeats: int = 10) -> float:
    """Seconds of one call, the best of several rounds."""
    best = float("inf")
    for _ in range(repeats + 1):
        synchronise(device)
        started = time.perf_counter()
        for _ in range(calls):
            run()
        synchronise(device)
        best = min(best, (time.perf_counter() - started) / calls)
    return best


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def product_rate(products: Products, shapes: list[tuple[int, int, int]], device: torch.device) -> float:
    """Floating-point operations per second of the fastest product among these shapes."""
    dtype = torch.bfloat16 if products == "bf16" else torch.float32
    rates = []
    for rows_, inner, columns in shapes:
        a, b = torch.randn(rows_, inner, device=device).to(dtype), torch.randn(inner, columns, device=device).to(dtype)
        rates.append(2 * rows_ * inner * columns / fastest(lambda a=a, b=b: a @ b, device))
    return max(rates)


def bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of a copy larger than the caches."""
    source = torch.randn(2**25, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * source.element_size() / fastest(lambda: target.copy_(source), device, calls=3)


def measure(
    specs: dict[str, nbridge.Spec], batch: nbridge.Batch, repeats: int, device: torch.device, *, compiled: bool = False
) -> dict[str, dict[str, float]]:
    """Step times and their lower bounds, by spec and precision."""
    kinds: list[Products] = ["float32", "bf16"] if has_bf16_products(device) else ["float32"]
    ways: list[tuple[Products, bool]] = [(products, how) for products in kinds for how in ((False, True) if compiled else (False,))]
    moved = bandwidth(device)
    results: dict[str, dict[str, float]] = {}
    for name, of in specs.items():
        operations, parameters = counted(trained(of, "float32"), batch, device)
        steps: dict[tuple[Products, bool], list[tuple[float, float]]] = {way: [] for way in ways}
        for _ in range(repeats):
            for products, how in ways:
                steps[products, how].append(step_seconds(trained(of, products, compiled=how), batch, str(device)))
        for (products, how), found in steps.items():
            rate = product_rate(products, product_shapes(of), device)
            step, arithmetic, memory = median(seconds for seconds, _ in found), operations / rate, BYTES * parameters / moved
            line = results[f"{name} {products}{', compiled' if how else ''}"] = {
                "parameters": parameters,
                "operations": operations,
                "rate": rate,
                "bandwidth": moved,
                "floor_products": arithmetic,
                "floor_optimiser": memory,
                "step": step,
                "fraction": (arithmetic + memory) / step,
                "compile_seconds": median(cost for _, cost in found),
            }
            print(name, products, how, {key: round(value, 5) for key, value in line.items()}, flush=True)
    return results


def table(results: dict[str, dict[str, float]]) -> str:
    lines = [
        "| joint stage, batch 128 | parameters | products (GFLOP at GFLOP/s) | floor: products + optimiser | step | fraction |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        cost = f" (compiling: {r['compile_seconds']:.0f} s)" if r["compile_seconds"] else ""
        lines.append(
            f"| {name}{cost} | {r['parameters'] / 1e6:.2f} M | {r['operations'] / 1e9:.2f} at {r['rate'] / 1e9:,.0f} "
            f"| {1e3 * r['floor_products']:.1f} + {1e3 * r['floor_optimiser']:.1f} ms | {1e3 * r['step']:.1f} ms | {r['fraction']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", nargs="+", default=["512,512", "1024,1024"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="compare compiled with eager stages; writes results/compile.json instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    specs = {text: spec([int(width) for width in text.split(",")]) for text in options.widths}
    results = measure(specs, rows(), options.repeats, torch.device("cpu"), compiled=options.compile)
    name = "compile" if options.compile else "floor"
    settings = {"threads": options.threads, "repeats": options.repeats}
    (RESULTS / f"{name}.json").write_text(json.dumps({**settings, "steps": results}, indent=1) + "\n")
    text = f"{options.threads} thread{'s' if options.threads > 1 else ''}, medians of {options.repeats}:\n\n{table(results)}"
    print(text)
    replace_section(name, text)


if __name__ == "__main__":
    main()
