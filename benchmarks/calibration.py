"""Coverage of 90 % intervals and calibration of class probabilities by number of modalities given: as trained, and calibrated.

    python -m benchmarks.calibration [--data mfeat,tcga] [--seeds 3] [--set training.stages.joint.epochs=40 ...]

prints a line for each data set, kind of calibration and number given. Protocol: the shipped spec and its own split; each modality is hidden
in turn, and each test row served from a random set of its others, of each size. `in 90 %` is the share of all real cells in central 90 %
intervals; `worst modality` is the one farthest from 90 %. `one factor` uses each modality's overall factor, `by number` that of
the number given. With few rows the ECE is never zero: `by chance` is that of labels drawn from the predicted probabilities.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

import nbridge
from nbridge.evaluation.calibration import coverage, expected_calibration_error
from nbridge.models.base import MultimodalVAE
from nbridge.models.subsets import random_subset_of_size
from nbridge.nn.likelihoods import Categorical

HERE = Path(__file__).parent
LEVEL, DRAWS, NUMBERS = 0.9, 79, 2**21
KINDS = ("as trained", "one factor", "by number")


def factor(model: MultimodalVAE, name: str, number: int, kind: str) -> Tensor | None:
    """The factor of a modality's spread for a number of other given modalities."""
    spread = model.likelihoods[name].spread
    return None if spread is None or kind == "as trained" else spread[0 if kind == "one factor" else number]


@torch.no_grad()
def measured(model: MultimodalVAE, rows: nbridge.Batch) -> dict[tuple[str, int], dict[str, list[Tensor]]]:
    """By kind and number given: shares of cells covered of each real modality, and probabilities and labels of each one of classes."""
    found: dict[tuple[str, int], dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    for name, likelihood in model.likelihoods.items():
        for number in range(1, len(model.names)):
            here = rows.index(rows.present[name] & (model.given(name, rows) >= number))
            here = here.slice(0, max(40, NUMBERS // (DRAWS * math.prod(likelihood.shape))))
            if not len(here):
                continue
            others = model.presence(here)
            others[model.names.index(name)] = False
            part = random_subset_of_size(others, torch.full((len(here),), number))
            z = model.posterior(nbridge.Batch(here.values, dict(zip(model.names, part, strict=True)), here.cells), DRAWS).sample()
            raw, x = model.decoder(name).network(z), here.values[name]
            for kind in KINDS:
                distribution = likelihood(raw, factor(model, name, number, kind))
                if isinstance(likelihood, Categorical):
                    found[kind, number]["probability"].append(likelihood.expectation(distribution).double().mean(0))
                    found[kind, number]["label"].append(x)
                else:
                    found[kind, number]["covered"].append(coverage(distribution.sample(), x, LEVEL).flatten())
    return found


def figures(parts: dict[str, list[Tensor]]) -> tuple[float, float, float, float]:
    """Coverage over all cells, that of the worst modality, ECE, and the ECE of labels drawn from the probabilities."""
    shares = [part.mean().item() for part in parts["covered"]]
    p, y = torch.cat(parts["probability"]), torch.cat(parts["label"])
    generator = torch.Generator().manual_seed(0)
    drawn = [expected_calibration_error(p, torch.multinomial(p, 1, generator=generator)[:, 0]) for _ in range(50)]
    worst = max(shares, key=lambda share: abs(share - LEVEL))
    return torch.cat(parts["covered"]).mean().item(), worst, expected_calibration_error(p, y), mean(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mfeat,tcga")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    print("| data | spreads | given | in 90 % | worst modality | ECE | by chance |\n|---|---|---|---|---|---|---|")
    for data in options.data.split(","):
        runs = defaultdict(list)
        for seed in range(options.seeds):
            changes = ["training.calibrate=true", f"training.seed={seed}", *options.set]
            run = nbridge.train(HERE.parent / "modality_specs" / f"{data}.yaml", overrides=changes, device="cpu")
            assert run.splits.test is not None
            torch.manual_seed(seed)
            test = run.model.network.prepare(run.splits.test.sample())
            for key, parts in measured(run.model.network, test).items():
                runs[key].append(figures(parts))
        for kind, number in sorted(runs, key=lambda key: (KINDS.index(key[0]), key[1])):
            cells = [f"{mean(values):.3f}" for values in zip(*runs[kind, number], strict=True)]
            print(f"| {data} | {kind} | {number} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
