"""Bridges with the default objective and with the paper's, on scikit-learn's digits in halves, over seeds.

    python benchmarks/digits.py [--seeds 3] [--samples 200]

writes benchmarks/results/digits.json and a table in docs/benchmarks/results.md. Protocol: benchmarks/specs/digits.yaml; the
joint stage of a seed is the same for both objectives; figures are over the test split, which no seed changes. References: logistic
regression on the raw pixels, and for images the mean of the training images of the *true* class (a reference that knows the label).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from readme import replace_section
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import nbridge
from nbridge.data.split import Splits
from nbridge.evaluation.crossmodal import predict

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "benchmarks" / "specs" / "digits.yaml"
RESULT = ROOT / "benchmarks" / "results" / "digits.json"
OBJECTIVES = {
    "distill + cross, poe": (),
    "paper (eq. 8, 9), mean": ("bridges.objective=paper", "bridges.combine=mean"),
}
QUESTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "label given both halves": (("top", "bottom"), "label"),
    "label given top": (("top",), "label"),
    "label given bottom": (("bottom",), "label"),
    "bottom given top": (("top",), "bottom"),
    "bottom given top and label": (("top", "label"), "bottom"),
    "top given label": (("label",), "top"),
}
METRICS = {
    "accuracy": "accuracy",
    "log_likelihood": "predictive log-likelihood",
    "point_log_likelihood": "log-likelihood of the point estimate",
}


def measure(seed: int, overrides: tuple[str, ...], samples: int) -> tuple[dict[str, dict[str, float]], Splits]:
    run = nbridge.train(SPEC, overrides=(f"training.seed={seed}", *overrides))
    assert run.splits.test is not None
    test = run.splits.test.sample()
    figures: dict[str, dict[str, float]] = {}
    for question, (given, target) in QUESTIONS.items():
        answer = predict(run.model.network, test, given, target, samples=samples)
        figures[question] = {"log_likelihood": answer.log_likelihood}
        if answer.accuracy is not None:
            figures[question]["accuracy"] = answer.accuracy
        else:
            point = run.model.impute(test.only(*given)).values[target]
            figures[question]["point_log_likelihood"] = bernoulli(test.values[target], point)
    return figures, run.splits


def references(splits: Splits) -> dict[str, dict[str, float]]:
    train, test = splits.train.sample().values, splits.test.sample().values if splits.test is not None else {}
    figures: dict[str, dict[str, float]] = {}
    for question, (given, target) in QUESTIONS.items():
        if target == "label" and "label" not in given:
            regression = LogisticRegression(max_iter=2000).fit(pixels(train, given), train["label"].numpy())
            figures[question] = {"accuracy": float(regression.score(pixels(test, given), test["label"].numpy()))}
        else:
            means = torch.stack([train[target][train["label"] == c].mean(0) for c in range(10)])
            figures[question] = {"point_log_likelihood": bernoulli(test[target], means[test["label"]])}
    return figures


def pixels(rows: Mapping[str, Tensor], names: tuple[str, ...]) -> np.ndarray:
    return np.concatenate([rows[name].flatten(1).numpy() for name in names], axis=1)


def bernoulli(x: Tensor, probability: Tensor) -> float:
    probability = probability.clamp(1e-3, 1 - 1e-3)
    return float((x * probability.log() + (1 - x) * (1 - probability).log()).flatten(1).sum(1).mean())


def table(results: dict) -> str:
    names = [*results["systems"], "reference"]
    lines = ["| test split, mean ± sd of " + f"{results['seeds']} seeds | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for question in QUESTIONS:
        for metric, label in METRICS.items():
            cells = [spread(results["systems"][name], question, metric) for name in results["systems"]]
            if not any(cells):
                continue
            reference = results["references"][question].get(metric)
            lines.append(f"| {question}: {label} | " + " | ".join([*cells, "" if reference is None else f"{reference:.3f}"]) + " |")
    return "\n".join(lines)


def spread(runs: list[dict], question: str, metric: str) -> str:
    values = [run[question][metric] for run in runs if metric in run[question]]
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else "".join(f"{value:.3f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change the spec; then nothing is written")
    options = parser.parse_args()
    systems: dict[str, list] = {name: [] for name in OBJECTIVES}
    known: dict[str, dict[str, float]] = {}
    for seed in range(options.seeds):
        for name, overrides in OBJECTIVES.items():
            figures, splits = measure(seed, (*overrides, *options.set), options.samples)
            systems[name].append(figures)
            print(f"seed {seed}, {name}: {figures}", flush=True)
            known = known or references(splits)
    results = {"spec": SPEC.name, "seeds": options.seeds, "samples": options.samples, "systems": systems, "references": known}
    print(table(results))
    if not options.set:
        RESULT.write_text(json.dumps(results, indent=1) + "\n")
        replace_section("digits", table(results))


if __name__ == "__main__":
    main()
