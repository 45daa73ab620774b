"""Effect of bfloat16 on likelihood and speed: the same training in float32 and with ``precision: auto``, over seeds.

    python -m benchmarks.precision [--seeds 3] [--rows 12800] [--epochs 10]

writes benchmarks/results/precision.json and a line in benchmarks/README.md. Protocol: MNIST's images and labels
(modality_specs/mnist_label.yaml with widths 512, 512, the first ROWS training rows), stage `joint`; log p(image, label) of 1,000 test
rows by importance sampling, K = 100, in float32 for both; seconds of training alone, the two in turn, one thread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, median, stdev

import torch

import nbridge
from benchmarks.floor import Seconds
from benchmarks.readme import replace_section
from nbridge.acceleration.precision_choice import choose_precision
from nbridge.evaluation.importance import log_likelihood
from nbridge.training.build import build_data, build_model

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "modality_specs" / "mnist_label.yaml"
RESULT = ROOT / "benchmarks" / "results" / "precision.json"
WAYS = ("float32", "auto")


def spec(seed: int, precision: str, epochs: int) -> nbridge.Spec:
    keys = nbridge.read_spec(SPEC).as_dict()
    encoder = {"type": "mlp", "hidden": [512]}
    modalities = {name: {**modality, "encoder": encoder, "features": 512} for name, modality in keys["modalities"].items()}
    for modality in modalities.values():
        modality.pop("decoder", None)
    training = {"seed": seed, "precision": precision, "batch_size": 128, "stages": {"joint": {"epochs": epochs}}}
    data = {"source": "memory", "validation": 0, "test": 0}
    return nbridge.Spec.model_validate({"model": "joint", "latent_dim": 128, "modalities": modalities, "data": data, "training": training})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=12_800)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = nbridge.read_spec(SPEC)
    splits = build_data(source, build_model(source))
    assert splits.test is not None
    train, test = splits.train.slice(0, options.rows), splits.test.slice(0, 1000)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    products = ""
    for seed in range(options.seeds):
        for way in WAYS if seed % 2 == 0 else WAYS[::-1]:
            clock = Seconds()
            run = nbridge.train(spec(seed, way, options.epochs), train, callbacks=[clock])
            products = choose_precision("auto", run.model.network, 128).chosen
            likelihood = log_likelihood(run.model.network, test, run.model.names, samples=100)
            seconds = median(epoch.seconds for epoch in clock.epochs)
            found[way].append({"log_likelihood": likelihood.log_likelihood, "epoch_seconds": seconds})
            print(seed, way, found[way][-1], flush=True)
    gaps = [a["log_likelihood"] - f["log_likelihood"] for a, f in zip(found["auto"], found["float32"], strict=True)]
    speed = median(f["epoch_seconds"] for f in found["float32"]) / median(a["epoch_seconds"] for a in found["auto"])
    result = {"auto": products, "rows": options.rows, "epochs": options.epochs, "runs": found, "gaps": gaps, "speed": speed}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    spread = stdev(gaps) if len(gaps) > 1 else 0.0
    level = mean(f["log_likelihood"] for f in found["float32"])
    replace_section(
        "precision",
        f"**Precision** (`benchmarks/precision.py`, MNIST's images and labels, widths 512, {options.epochs} epochs of {options.rows:,} "
        f"rows, one thread): with `precision: auto` ({products} here) log p(image, label) on test rows is {mean(gaps):+.2f} ± {spread:.2f} "
        f"nats from float32's {level:.2f} over {len(gaps)} seeds, {speed:.2f} times as fast.",
    )
    print("gaps", gaps, "speed", speed)


if __name__ == "__main__":
    main()
