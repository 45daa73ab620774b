"""Sets of sources for training bridges, and ways to combine several sources, by number of observed modalities.

    python -m benchmarks.subsets [--seeds 3] [--sets 2] [--samples 50]

writes benchmarks/results/subsets.json and a table in benchmarks/README.md. Protocol: `benchmarks/specs/mfeat.yaml`, six descriptions of a
digit and its class; stage `joint` of a seed is the same for all variants. For every number of observed modalities each modality is
predicted from random sets of this size, the same for all variants, on test rows: accuracy and predictive log-likelihood (LL) of the
class, and predictive LL of a number of the six vectors, in nats.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import nbridge
from benchmarks.designs import BRIDGES, JOINT
from benchmarks.readme import replace_section, spread
from nbridge.data.batch import Batch
from nbridge.evaluation.crossmodal import predict
from nbridge.models.base import MultimodalVAE
from nbridge.training.build import build_data
from nbridge.training.state import TrainingState

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "benchmarks" / "specs" / "mfeat.yaml"
RESULT = ROOT / "benchmarks" / "results" / "subsets.json"
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "singletons, poe": {"subsets": "singletons", "combine": "poe"},
    "singletons, mean": {"subsets": "singletons", "combine": "mean"},
    "random, poe": {"subsets": "random", "combine": "poe"},
    "random, mean": {"subsets": "random", "combine": "mean"},
    "flow": {"type": "flow"},
}
FIGURES = {"accuracy": "accuracy of the class", "class": "LL of the class", "vectors": "LL of a number of the vectors"}


def spec(variant: str, seed: int) -> nbridge.Spec:
    described = nbridge.read_spec(SPEC, overrides=[f"training.seed={seed}"]).as_dict()
    stochastic = VARIANTS[variant].get("type") == "flow"
    bridges = {"encoders": "shared"} if stochastic else BRIDGES
    return nbridge.Spec.model_validate(described | {"model": dict(JOINT), "bridges": {**bridges, **VARIANTS[variant]}})


def trained(seed: int) -> dict[str, tuple[MultimodalVAE, Batch]]:
    """Every variant over one joint stage, with the test rows."""
    models, joint = {}, {}
    for variant in VARIANTS:
        chosen = spec(variant, seed)
        model = nbridge.build_model(chosen, seed=seed)
        splits = build_data(chosen, model)
        assert splits.test is not None
        assert splits.validation is not None
        train, validation = splits.train.sample(), splits.validation.sample()
        if joint:
            model.load_state_dict(joint, strict=False)
            nbridge.fit(model, train, validation, chosen.training, state=TrainingState(stage=1))
        else:
            nbridge.fit(model, train, validation, chosen.training)
            joint = {name: x.clone() for name, x in model.state_dict().items() if not name.startswith("bridges")}
        models[variant] = (model, splits.test.sample())
    return models


def measure(model: MultimodalVAE, test: Batch, sets: int, samples: int) -> dict[str, list[float]]:
    """Scores by number of observed modalities, from 1 to all but one."""
    draw, found = random.Random(0), {name: [] for name in FIGURES}
    for size in range(1, len(model.names)):
        seen: dict[str, list[float]] = {name: [] for name in FIGURES}
        for target in model.names:
            others = [name for name in model.names if name != target]
            for _ in range(sets):
                answer = predict(model, test, draw.sample(others, size), target, samples=samples)
                if answer.accuracy is None:
                    seen["vectors"].append(answer.log_likelihood / math.prod(model.likelihoods[target].shape))
                else:
                    seen["accuracy"].append(answer.accuracy)
                    seen["class"].append(answer.log_likelihood)
        for name, values in seen.items():
            found[name].append(mean(values))
    return found


def table(results: dict) -> str:
    lines = []
    for figure, title in FIGURES.items():
        runs = {variant: [run[figure] for run in runs] for variant, runs in results["variants"].items()}
        sizes = range(len(next(iter(runs.values()))[0]))
        lines += ["", f"| {title}, given | " + " | ".join(str(size + 1) for size in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
        for variant, values in runs.items():
            lines.append(f"| {variant} | " + " | ".join(spread([run[size] for run in values]) for size in sizes) + " |")
    return "\n".join([*lines[1:], "", f"Means ± standard deviations over {results['seeds']} seeds."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", type=int, default=2)
    parser.add_argument("--samples", type=int, default=50)
    options = parser.parse_args()
    variants: dict[str, list] = {variant: [] for variant in VARIANTS}
    for seed in range(options.seeds):
        for variant, (model, test) in trained(seed).items():
            variants[variant].append(measure(model, test, options.sets, options.samples))
            print(seed, variant, {name: [round(x, 3) for x in values] for name, values in variants[variant][-1].items()}, flush=True)
    results = {"spec": SPEC.name, "seeds": options.seeds, "sets": options.sets, "samples": options.samples, "variants": variants}
    print(table(results))
    RESULT.write_text(json.dumps(results, indent=1) + "\n")
    replace_section("subsets", table(results))


if __name__ == "__main__":
    main()
