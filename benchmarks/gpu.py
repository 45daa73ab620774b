"""The paper's networks on a GPU: the time of a step and its lower bound, and of all seven systems at 500 epochs.

    python -m benchmarks.gpu [--spec modality_specs/mnist_paper.yaml] [--repeats 5]

writes benchmarks/results/gpu.json, with the device's name, and a table in benchmarks/README.md. The floor is that of benchmarks/floor.py;
each precision is measured as it is and compiled, where kernels are launched as one graph. Seconds of a system are those of its stages'
median epochs on 57,000 rows of random images and labels, times the paper's 500 epochs, without evaluation.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median

import torch

import nbridge
from benchmarks import floor
from benchmarks.readme import replace_section

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "gpu.json"
SYSTEMS = ("vae", "joint", "jmvae", "telbo", "mvae", "bivcca", "bridged")
ROWS, EPOCHS, PAPER_EPOCHS = 57_000, 3, 500


def system_seconds(path: str, model: str, batch: nbridge.Batch, device: str) -> float:
    """Estimated seconds of a system's stages at the paper's number of epochs."""
    stages = {name: {"epochs": EPOCHS} for name in ("joint", "bridges", "subsets")}
    keys = nbridge.read_spec(path).as_dict()
    data = {"source": "memory", "validation": 0, "test": 0}
    training = {**keys["training"], "precision": "auto", "stages": stages}
    seconds = floor.Seconds()
    nbridge.train(
        nbridge.Spec.model_validate({**keys, "model": model, "data": data, "training": training}), batch, device=device, callbacks=[seconds]
    )
    names = dict.fromkeys(epoch.stage for epoch in seconds.epochs)
    return sum(PAPER_EPOCHS * median(e.seconds for e in seconds.epochs if e.stage == name and e.epoch > 1) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default=str(ROOT / "modality_specs" / "mnist_paper.yaml"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda", help="another device tries the benchmark out; then nothing is written")
    parser.add_argument("--rows", type=int, default=ROWS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: torch finds no GPU here")
    device = torch.device(options.device)
    torch.manual_seed(0)
    batch = nbridge.Batch.complete({"image": torch.rand(options.rows, 1, 28, 28), "label": torch.randint(0, 10, (options.rows,))})
    few = batch.slice(0, floor.ROWS)
    steps = floor.measure({"paper": nbridge.read_spec(options.spec)}, few, options.repeats, device, compiled=device.type == "cuda")
    systems = {}
    for name in SYSTEMS:
        systems[name] = system_seconds(options.spec, name, batch, options.device)
        print(f"{name}: {PAPER_EPOCHS} epochs would take {systems[name] / 60:.1f} minutes", flush=True)
    print(floor.table(steps))
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        RESULT.write_text(json.dumps({"device": name, "repeats": options.repeats, "steps": steps, "seconds": systems}, indent=1) + "\n")
        minutes = ", ".join(f"{system} {seconds / 60:.1f}" for system, seconds in systems.items())
        total = sum(systems.values()) / 60
        replace_section("gpu", f"{floor.table(steps)}\n\nOn one {name}, minutes for {PAPER_EPOCHS} epochs: {minutes}; {total:.0f} in all.")


if __name__ == "__main__":
    main()
