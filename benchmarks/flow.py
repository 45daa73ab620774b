"""Images generated from a label by bridges of every kind, on scikit-learn's digits, image and label.

    python -m benchmarks.flow [--seeds 3] [--systems paper,default,flow,...]

writes benchmarks/results/flow.json and a table in benchmarks/README.md. Protocol: binarised digits, 1,300 rows for training and 497 for
testing (one split for all seeds); encoders of widths 192 and 64 with 48 and 16 features, z of 16 dimensions, label weight 1; 300 epochs of
stage `joint`, the same for all but jmvae, then 120 of bridges or 400 of the flow. From the label of each test row: coherence is the share
of 16 generated images that a classifier reads as that label; predictive LL is log 1/K sum_k p(x given z_k) of the row's own image, K = 384;
the variance ratio is that of 200 generated images of a class, summed over pixels, to that of its real ones, averaged over classes.
Coherence alone rewards mean images; read it together with the other two.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import nbridge
from benchmarks.designs import JOINT, plain
from benchmarks.readme import replace_section
from nbridge.inference.impute import serving
from nbridge.models.base import MultimodalVAE

RESULT = Path(__file__).resolve().parent / "results" / "flow.json"
TRAIN = 1300
BRIDGES = {"hidden": [128, 128]}
SYSTEMS: dict[str, dict[str, Any]] = {
    "paper": {"bridges": {**BRIDGES, "objective": "paper"}},
    "plain": plain(**BRIDGES),
    "own encoders": plain(**BRIDGES, encoders="own"),
    "flow": {"model": dict(JOINT), "bridges": {"type": "flow", "encoders": "shared"}},
    "flow with own encoders": {"model": dict(JOINT), "bridges": {"type": "flow", "encoders": "own"}},
    "jmvae": {"model": "jmvae"},
}
FIGURES = {
    "coherence": "image given label: coherence",
    "predictive": "predictive LL",
    "variance": "variance ratio",
    "label": "label given image: accuracy",
}


def rows() -> tuple[nbridge.Batch, nbridge.Batch]:
    pixels, classes = load_digits(return_X_y=True)
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))
    both = nbridge.Batch.complete({"image": torch.tensor(pixels > 7).float()[order], "label": torch.tensor(classes)[order]})
    return both.slice(0, TRAIN), both.slice(TRAIN, len(both))


def spec(system: str, seed: int) -> nbridge.Spec:
    def stage(epochs: int, rate: float) -> dict[str, Any]:
        return {"epochs": epochs, "learning_rate": rate}

    bridges = stage(400, 1e-3) if system.startswith("flow") else stage(120, 2e-3)
    return nbridge.Spec.model_validate({
        "latent_dim": 16,
        "modalities": {
            "image": {
                "shape": 64, "features": 48, "likelihood": "bernoulli",
                "encoder": {"type": "mlp", "hidden": [192]}, "decoder": {"type": "mlp", "hidden": [192]},
            },
            "label": {
                "shape": 10, "features": 16, "likelihood": "categorical",
                "encoder": {"type": "mlp", "hidden": [64]}, "decoder": {"type": "mlp", "hidden": [64]},
            },
        },
        "training": {"batch_size": 128, "seed": seed, "schedule": "cosine", "stages": {"joint": stage(300, 2e-3), "bridges": bridges}},
        **SYSTEMS[system],
    })  # fmt: skip


def classifier(train: nbridge.Batch) -> nn.Module:
    """A classifier of digits, trained on training rows with 3 % of the pixels flipped."""
    torch.manual_seed(0)
    widths = (64, 128, 128)
    hidden = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.BatchNorm1d(b), nn.LeakyReLU(0.2))]
    network, steps = nn.Sequential(*hidden, nn.Linear(128, 10)), 1500
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        index = torch.randint(len(train), (128,))
        x, y = train.values["image"][index], train.values["label"][index]
        flipped = (x + (torch.rand_like(x) < 0.03).float()).remainder(2)
        optimizer.zero_grad()
        F.cross_entropy(network(flipped), y).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def measure(model: MultimodalVAE, test: nbridge.Batch, reads: nn.Module) -> dict[str, float]:
    image, label = test.values["image"], test.values["label"]
    with serving(model, 0):
        drawn = pictures(model, label, 16)
        right = (reads(drawn.flatten(0, 1)).argmax(-1).view(16, -1) == label).float().mean()
        prepared = model.prepare(test)
        log_probs = [model.log_prob("image", model.posterior(test.only("label"), 128).sample(), prepared) for _ in range(3)]
        predictive = (torch.cat(log_probs).logsumexp(0) - math.log(384)).mean()
        ratios = [pictures(model, torch.full((200,), c), 1)[0].var(0).sum() / image[label == c].var(0).sum() for c in range(10)]
        guessed = model.likelihoods["label"].expectation(model.decoder("label")(model.posterior(test.only("image"), 32).sample())).mean(0)
        accuracy = (model.likelihoods["label"].point(guessed) == label).float().mean()
    figures = {"coherence": right, "predictive": predictive, "variance": torch.stack(ratios).mean(), "label": accuracy}
    return {name: figure.item() for name, figure in figures.items()}


def pictures(model: MultimodalVAE, label: Tensor, samples: int) -> Tensor:
    """Pixel means of images generated from labels, shape (K, B, 64)."""
    z = model.posterior(nbridge.Batch.complete({"label": label}), samples).sample()
    return model.likelihoods["image"].expectation(model.decoder("image")(z))


def table(results: dict) -> str:
    lines = [f"| mean ± sd of {results['seeds']} seeds | " + " | ".join(FIGURES.values()) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for system, runs in results["systems"].items():
        values = [[run[name] for run in runs] for name in FIGURES]
        lines.append(f"| {system} | " + " | ".join(f"{mean(v):.3f} ± {stdev(v) if len(v) > 1 else 0:.3f}" for v in values) + " |")
    lines += ["", f"The classifier reads {results['classifier']:.3f} of the real test images rightly."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    options = parser.parse_args()
    train, test = rows()
    reads = classifier(train)
    systems: dict[str, list] = {}
    for system in options.systems.split(","):
        for seed in range(options.seeds):
            chosen = spec(system, seed)
            model = nbridge.build_model(chosen, seed=seed)
            nbridge.fit(model, train, None, chosen.training)
            systems.setdefault(system, []).append(measure(model, test, reads))
            print(system, seed, {name: round(figure, 3) for name, figure in systems[system][-1].items()}, flush=True)
    with torch.no_grad():
        right = (reads(test.values["image"]).argmax(-1) == test.values["label"]).float().mean().item()
    results = {"seeds": options.seeds, "systems": systems, "classifier": right}
    print(table(results))
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    replace_section("flow", table(results))


if __name__ == "__main__":
    main()
