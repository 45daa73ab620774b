"""What `nbridge tune` gains: the spec of a task as it stands against the best one of a search, on test rows.

    python -m benchmarks.tuning [--tasks digits,tcga,penguins] [--trials 20] [--budget 1500] [--seeds 3]

A search sees training and validation rows of seed 0. Then both specs are trained with each seed on the split of that seed, and scored by
the log-likelihood of hidden modalities of its test rows, in nats over the free baseline (`nbridge.tuning.objective`). A task whose search
says that the default stands has a gain of exactly 0. Results are kept in benchmarks/results/tuning.json, a task at a time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbridge
from benchmarks.readme import spread
from benchmarks.suite.results import Results
from benchmarks.suite.systems import System, spec_of
from benchmarks.suite.tasks import TASKS
from nbridge.spec.search import with_values
from nbridge.tuning.objective import row_figures

RESULT = Path(__file__).resolve().parent / "results" / "tuning.json"


def measure(name: str, trials: int, budget: int, seeds: int) -> dict[str, Any]:
    """Searches a task's spec, and scores both specs on test rows by seed."""
    with TemporaryDirectory() as folder:
        found = nbridge.tune(spec_of(TASKS[name], System("default"), 0, budget), out=folder, trials=trials, device="cpu")
    figures: dict[str, list[float]] = {"default": [], "best": []}
    for seed in range(seeds):
        document = spec_of(TASKS[name], System("default"), seed, budget).as_dict()
        weights = None
        for label, changes in (("default", {}), ("best", found.changes)):
            if label == "best" and not changes:
                figures["best"].append(figures["default"][-1])
                continue
            run = nbridge.train(with_values(document, changes), device="cpu")
            assert run.splits.test is not None
            # Those of the spec as it stands, so that both figures have the same unit.
            weights = weights or dict(run.model.network.weights)
            rows = row_figures(run.model.network, run.splits.train, run.splits.test, weights)
            figures[label].append(sum(rows) / len(rows))
    return {**figures, "changes": found.changes, "default_stands": found.default_stands, "text": found.text()}


def table(results: dict[str, Any]) -> str:
    """The results as a table in Markdown."""
    lines = ["| task | default, nats | best, nats | gain | search |", "|---|---:|---:|---:|---|"]
    for name, one in results.items():
        gains = [best - default for default, best in zip(one["default"], one["best"], strict=True)]
        said = "the default stands" if one["default_stands"] else ", ".join(f"{key}={value}" for key, value in one["changes"].items())
        lines.append(f"| {name} | {spread(one['default'])} | {spread(one['best'])} | {spread(gains, '+.3f')} | {said} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="digits,tcga,penguins", help="names, with commas between")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--budget", type=int, default=1_500, help="updates of each of two stages")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    results = Results(RESULT)
    for name in options.tasks.split(","):
        if (key := f"{name} | {options.trials} | {options.budget} | {options.seeds}") not in results:
            results.put(key, measure(name, options.trials, options.budget, options.seeds))
    print(table(results.read()))


if __name__ == "__main__":
    main()
