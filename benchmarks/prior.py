"""Rows generated from N(0, I) and from mixtures fitted to the codes of the training rows, on digits in halves with their label.

    python -m benchmarks.prior [--seeds 3]

writes benchmarks/results/prior.json and a table in benchmarks/README.md. Protocol: benchmarks/specs/digits.yaml, trained once a
seed; mixtures differ only in their components. Of 20 sets of draws, each as many as there are test rows (expectations, as images are
shown): "halves and label agree" is the share of draws in which a classifier of each half and the label decoded beside them name one digit,
"halves agree" the same of the two halves. The Fréchet distance is in the features of both classifiers, between each set and the test rows;
log p(x, label) is that of test rows by importance sampling from q(z | x), K = 500, under the prior in question. Real rows: the test rows
with their labels, and the distance between them and as many training rows, over 20 sets.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor

import nbridge
from benchmarks.readme import replace_section
from nbridge.evaluation.classifiers import ScoredClassifier, train_classifiers
from nbridge.evaluation.diversity import frechet_distance
from nbridge.inference.impute import serving
from nbridge.models.base import MultimodalVAE
from nbridge.models.mixture_prior import Mixture

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "benchmarks" / "specs" / "digits.yaml"
RESULT = ROOT / "benchmarks" / "results" / "prior.json"
LABEL, SETS, SAMPLES = "label", 20, 500
COMPONENTS = (1, 10, 50)
FIGURES = {
    "all_agree": "halves and label agree",
    "halves_agree": "halves agree",
    "frechet": "Fréchet distance",
    "log_likelihood": "log p(x, label), nats",
}


def measure(seed: int) -> dict[str, dict[str, float]]:
    run = nbridge.train(SPEC, overrides=(f"training.seed={seed}",))
    assert run.splits.test is not None
    model, train, test = run.model, run.splits.train.sample(), run.splits.test.sample()
    judges = train_classifiers(run.spec, model.network, train, test, LABEL, epochs=60)
    real = described(model.network, test.values, judges)
    figures = {}
    for components in (None, *COMPONENTS):
        model.network.mixture = None
        if components:
            model.network.mixture = Mixture(model.network.latent_dim, components=components)
            model.network.mixture.fit_rows(model.network.posterior, train, seed)
        drawn = described(model.network, model.generate(SETS * len(test), seed=seed), judges)
        name = f"mixture of {components}" if components else "N(0, I)"
        figures[name] = scores(drawn, real) | {"log_likelihood": log_likelihood(model.network, test)}
    torch.manual_seed(seed)
    others = [train.index(torch.randperm(len(train))[: len(test)]) for _ in range(SETS)]
    features = torch.cat([described(model.network, other.values, judges)[1] for other in others])
    figures["real rows"] = scores(real, real) | {"frechet": distance(features, real[1])}
    return figures


@torch.no_grad()
def described(model: MultimodalVAE, values: Mapping[str, Tensor], judges: Mapping[str, ScoredClassifier]) -> tuple[Tensor, Tensor]:
    """The digits of each half and of the label, shape (3, N), and the features of both halves, shape (N, F)."""
    halves = {name: judge.classifier for name, judge in judges.items()}
    said = [classifier.predict(values[name])[:, 0] for name, classifier in halves.items()]
    features = [classifier.features(values[name]) for name, classifier in halves.items()]
    return torch.stack([*said, model.likelihoods[LABEL].canonical(values[LABEL])]), torch.cat(features, 1)


def scores(drawn: tuple[Tensor, Tensor], real: tuple[Tensor, Tensor]) -> dict[str, float]:
    (said, features), (_, others) = drawn, real
    agree = said == said[0]
    return {
        "all_agree": agree.all(0).double().mean().item(),
        "halves_agree": agree[:2].all(0).double().mean().item(),
        "frechet": distance(features, others),
    }


def distance(features: Tensor, real: Tensor) -> float:
    """The mean Fréchet distance between real rows and sets of the same number of these rows."""
    return mean(frechet_distance(part, real) for part in features.split(len(real)))


def log_likelihood(model: MultimodalVAE, rows: nbridge.Batch) -> float:
    """The mean log p(x) of rows under the given prior, by importance sampling."""
    with serving(model, 0):
        q = model.posterior(rows, SAMPLES)
        z = q.sample()
        weights = model.log_joint(rows, z) - q.log_prob(z)
        if model.mixture is not None:
            weights += model.mixture.distribution().log_prob(z) - model.prior(*z.shape[:-1]).log_prob(z)
        return (weights.double().logsumexp(0) - math.log(SAMPLES)).mean().item()


def table(results: dict) -> str:
    runs = results["runs"]
    lines = [f"| mean ± sd of {len(runs)} seeds | " + " | ".join(FIGURES.values()) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for name in runs[0]:
        cells = [spread([run[name][figure] for run in runs]) if figure in runs[0][name] else "" for figure in FIGURES]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    return f"{mean(values):.3f} ± {stdev(values) if len(values) > 1 else 0:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    runs = []
    for seed in range(options.seeds):
        runs.append(measure(seed))
        for name, figures in runs[-1].items():
            print(seed, name, {figure: round(value, 3) for figure, value in figures.items()}, flush=True)
    results = {"spec": SPEC.name, "sets": SETS, "samples": SAMPLES, "runs": runs}
    print(table(results))
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    replace_section("prior", table(results))


if __name__ == "__main__":
    main()
