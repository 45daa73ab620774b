"""Rows with missing modalities in training: designs of the joint encoder compared, by share of missing modalities.

    python -m benchmarks.missing [--seeds 3] [--shares 0.2,0.5,0.8] [--samples 200]

writes benchmarks/results/missing.json and a table in benchmarks/README.md. Protocol: `benchmarks/specs/digits.yaml` (two halves of a digit
and its label); of every training and validation row each modality is hidden with the share's probability, but never all; the test rows
are complete, and each modality of them is predicted from every subset of the others. Designs differ in stage `joint` alone, that is in
what replaces the features of an absent modality and in the rows used; afterwards, bridges are trained in the same way, by default.

complete   only rows in which nothing is absent
zeros      every row by its own ELBO; zeros replace absent features
tokens     the same; a learned vector of each modality replaces its features
bridged    the same; bridges, trained jointly, predict the features (their mean if several modalities are observed)
distilled  zeros, and a random part of every row is hidden again, whose posterior is trained towards that of all the
           row has (what nbridge does)
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

import nbridge
from benchmarks.readme import replace_section, spread
from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.evaluation.crossmodal import predict
from nbridge.models.base import Features, Stage
from nbridge.models.bridged import BridgedVAE
from nbridge.training.build import build_data

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "benchmarks" / "specs" / "digits.yaml"
WIDTHS = {name: modality.features for name, modality in nbridge.read_spec(SPEC).modalities.items()}
RESULT = ROOT / "benchmarks" / "results" / "missing.json"


class Complete(BridgedVAE):
    def _observed(self, batch: Batch) -> Tensor:
        return self.presence(batch).all(0)


class Zeros(BridgedVAE):
    def _joint_loss(self, batch: Batch, features: Features, kl_weight: float) -> dict[str, Tensor]:  # noqa: ARG002
        return self.negative_elbo(self.observed_posterior(self.encode(batch), batch), batch, kl_weight)


class Tokens(Zeros):
    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.tokens = nn.ParameterDict({name: torch.zeros(width) for name, width in WIDTHS.items()})

    def filled(self, features: Features, present: Mapping[str, Tensor]) -> Features:
        return {name: torch.where(present[name][:, None], h, self.tokens[name].to(h.dtype)) for name, h in features.items()}

    def joint_stage(self, *, serves: bool = True) -> Stage:
        return replace(stage := super().joint_stage(serves=serves), modules=(*stage.modules, self.tokens))


class Bridged(Zeros):
    def filled(self, features: Features, present: Mapping[str, Tensor]) -> Features:
        return self.bridges(features, present)

    def joint_stage(self, *, serves: bool = True) -> Stage:
        return replace(stage := super().joint_stage(serves=serves), modules=(*stage.modules, self.bridges))


DESIGNS = {"complete": Complete, "zeros": Zeros, "tokens": Tokens, "bridged": Bridged, "distilled": BridgedVAE}


def hidden(batch: Batch, share: float, seed: int) -> Batch:
    """Hides each modality of rows at random, but never all of a row."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(len(batch.names), len(batch), generator=generator) >= share
    kept[torch.randint(len(batch.names), (len(batch),), generator=generator), torch.arange(len(batch))] |= ~kept.any(0)
    return Batch(batch.values, dict(zip(batch.names, kept, strict=True)), batch.cells)


def measure(design: str, share: float, seed: int, samples: int) -> dict[str, float]:
    """Accuracy of the label and predictive log-likelihood of the halves, by the number of modalities observed."""
    spec = nbridge.read_spec(SPEC, overrides=[f"training.seed={seed}"])
    base = nbridge.build_model(spec, seed=seed)
    plain = {"coupling": 0.0, "leave_one_out": 0.0, "contrast": 0.0, "exponents": "ones", "prior": "normal"}
    model = DESIGNS[design](base.encoders, base.decoders, base.fusion, base.bridges, base.weights, **plain)
    splits = build_data(spec, model)
    assert splits.validation is not None
    assert splits.test is not None
    train, validation = (hidden(rows.sample(), share, seed) for rows in (splits.train, splits.validation))
    nbridge.fit(model, train, validation, spec.training)
    test = splits.test.sample()
    figures: dict[str, list[float]] = {}
    for target in model.names:
        others = [name for name in model.names if name != target]
        for size in range(1, len(model.names)):
            for given in combinations(others, size):
                answer = predict(model, test, given, target, samples=samples)
                figures.setdefault(f"{'label' if target == 'label' else 'half'} given {size}, LL", []).append(answer.log_likelihood)
                if answer.accuracy is not None:
                    figures.setdefault(f"label given {size}, accuracy", []).append(answer.accuracy)
    return {question: mean(values) for question, values in sorted(figures.items())}


def table(results: dict) -> str:
    lines = []
    for share, designs in results["shares"].items():
        runs = {name: found for name, found in designs.items() if found}
        questions = list(next(iter(runs.values()))[0])
        lines += ["", f"| {float(share):.0%} of modalities missing | " + " | ".join(questions) + " |", "|---" * (len(questions) + 1) + "|"]
        for name in DESIGNS:
            cells = [spread([run[question] for run in runs[name]]) for question in questions] if name in runs else ["too few rows"] * 1
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines[1:] + ["", f"Means ± standard deviations over {results['seeds']} seeds; log-likelihoods (LL) in nats."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", default="0.2,0.5,0.8")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--designs", default=",".join(DESIGNS))
    options = parser.parse_args()
    shares: dict[str, dict[str, list]] = {}
    for share in options.shares.split(","):
        for design in options.designs.split(","):
            runs = shares.setdefault(share, {}).setdefault(design, [])
            for seed in range(options.seeds):
                try:
                    runs.append(measure(design, float(share), seed, options.samples))
                except DataError as error:
                    print(f"{share} {design}: {error}", flush=True)
                    break
                print(share, design, seed, {key: round(value, 3) for key, value in runs[-1].items()}, flush=True)
    results = {"spec": SPEC.name, "seeds": options.seeds, "samples": options.samples, "shares": shares}
    print(table(results))
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    replace_section("missing", table(results))


if __name__ == "__main__":
    main()
