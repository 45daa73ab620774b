"""Cost of importance sampling: time relative to the decoder's forward passes, and memory by number of draws.

    python benchmarks/importance.py [--rows 10] [--repeats 5]

writes benchmarks/results/importance.json and a sentence in benchmarks/README.md. Protocol: one thread; an image of
784 Bernoulli pixels and its label, fresh weights, latent 64; `log_likelihood` of the image, 5,000 draws a row from q(z | image), against
the image decoder's network alone, without gradients, on as many z in the same chunks; the two alternate, and the ratio is that of
their medians. Memory is the peak of a process that does nothing else, less that of one that draws once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from readme import replace_section

import nbridge
from nbridge.evaluation import weights
from nbridge.evaluation.importance import log_likelihood

RESULT = Path(__file__).resolve().parent / "results" / "importance.json"
WIDTHS = (256, 512)
SAMPLES, LATENT, PIXELS = 5000, 64, 784
MEMORY_SAMPLES = (1, 100, 5_000, 50_000, 200_000)


def build(width: int) -> nbridge.MultimodalVAE:
    torch.manual_seed(0)
    widths = {"type": "mlp", "hidden": [width, width]}
    spec = {
        "latent_dim": LATENT,
        "modalities": {
            "image": {"shape": PIXELS, "encoder": widths, "likelihood": "bernoulli"},
            "label": {"shape": 10, "encoder": widths, "likelihood": "categorical"},
        },
    }
    return nbridge.build_model(nbridge.Spec.model_validate(spec)).eval()


def images(rows: int) -> nbridge.Batch:
    return nbridge.Batch.complete({"image": torch.rand(rows, PIXELS, generator=torch.Generator().manual_seed(0))})


@torch.no_grad()
def bare(model: nbridge.MultimodalVAE, z: torch.Tensor, rows: int) -> None:
    network, size = model.decoder("image").network, weights.ELEMENTS // PIXELS
    for _ in range(rows):
        for piece in z.split(size):
            network(piece)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def cost(width: int, rows: int, repeats: int) -> dict[str, float]:
    """Medians of alternating repeats, microseconds per draw."""
    model, batch, z = build(width), images(rows), torch.randn(SAMPLES, LATENT)
    work = {"bare": lambda: bare(model, z, rows), "whole": lambda: log_likelihood(model, batch, "image", samples=SAMPLES)}
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, run in work.items():
            times[name].append(seconds(run))
    found = {name: 1e6 * median(values[1:]) / (rows * SAMPLES) for name, values in times.items()}
    return found | {"ratio": found["whole"] / found["bare"]}


def peak(samples: int) -> float:
    """Peak memory of a separate process in MiB, the median of three, because allocator overhead varies by tens of MiB."""
    command = [sys.executable, __file__, "--peak", str(samples)]
    return median(float(subprocess.run(command, capture_output=True, check=True, text=True).stdout) for _ in range(3))


def sentence(results: dict) -> str:
    costs = " and ".join(f"{results['cost'][str(width)]['ratio']:.2f} (widths {width}, {width})" for width in WIDTHS)
    memory = ", ".join(f"{results['memory'][str(samples)]:.0f} MiB at K = {samples:,}" for samples in MEMORY_SAMPLES[1:])
    return (
        f"**Importance sampling** (`benchmarks/importance.py`, K = {SAMPLES:,}, one thread): {costs} times the bare forward passes of the "
        f"decoder, medians of {results['repeats']}; memory beyond a single draw's: {memory}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        log_likelihood(build(WIDTHS[0]), images(2), "image", samples=options.peak)
        # Not getrusage, whose peak is inherited from the parent process.
        kibibytes = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(int(kibibytes) / 1024)
        return
    results = {
        "samples": SAMPLES,
        "latent_dim": LATENT,
        "pixels": PIXELS,
        "rows": options.rows,
        "repeats": options.repeats,
        "threads": torch.get_num_threads(),
        "cost": {str(width): cost(width, options.rows, options.repeats) for width in WIDTHS},
        "resident": {str(samples): peak(samples) for samples in MEMORY_SAMPLES},
    }
    results["memory"] = {key: value - results["resident"]["1"] for key, value in results["resident"].items()}
    print(json.dumps(results, indent=1))
    print(sentence(results))
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    replace_section("importance", sentence(results))


if __name__ == "__main__":
    main()
