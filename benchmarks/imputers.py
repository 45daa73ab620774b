"""Real tables with whole groups of columns missing: nbridge compared with scikit-learn's imputers.

    python -m benchmarks.imputers [--seeds 3] [--data mfeat,folds,test] [--methods ...]

writes benchmarks/results/imputers.json and a table in benchmarks/README.md; runs that the file holds already are not repeated, so that it
continues where it was stopped: delete the file to start again. Protocol:
columns standardised by the training rows; of training rows each modality is missing with probability 1/4, of rows to fill in with
probability 1/2, at random, one of each row always there.

- `mfeat`: 1,400 and 600 rows, split anew for each seed; six descriptions of a digit, 649 columns, and its class.
- `folds`: TCGA breast cancer, the 150 rows in which protein is known, in 5 folds: 526 columns and the subtype.
- `test`: all 150 of them to learn from, and the 70 rows of the official test part, in which protein is absent as it came: the subtype from
  miRNA and mRNA, and each of the two from the other alone.

Labels are one-hot columns to scikit-learn, and the largest is the class. What each says of how sure it is: KNNImputer (10 neighbours) the
values of the neighbours, and for labels their shares; IterativeImputer (BayesianRidge on 100 columns, drawn
by how much a column is correlated with them, 5 rounds, because all columns would take hours) 20 draws of `sample_posterior`, and for labels
their shares; MOFA+, in an environment of its own (`benchmarks.tables.environments`) and over all rows together, 20 draws of its normal
distributions, and for labels its one-hot columns; the column mean the values of the training rows. missForest, miceforest and HyperImpute
are compared in `benchmarks.tables` alone, because their models of each of 500 columns take hours. nbridge is the spec
benchmarks/specs/mfeat.yaml or tcga.yaml, with and without `calibrate`, and the same with a flow. A label's calibration error is never zero
in so few rows: `by chance` is that of labels drawn from the same probabilities.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (makes the next line work)
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.metrics.pairwise import nan_euclidean_distances
from torch import Tensor
from torch.nn import functional as F

import nbridge
from benchmarks.readme import replace_section, spread
from benchmarks.tables.environments import Environments, UnavailableError, default_folder
from nbridge.data.batch import Batch
from nbridge.data.numpy.archive import read_npz
from nbridge.evaluation.calibration import coverage, crps, expected_calibration_error
from nbridge.inference.calibration import uncalibrate
from nbridge.inference.intervals import summarise
from nbridge.models.base import MultimodalVAE

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "imputers.json"
LEVELS = (0.5, 0.9, 0.95)
DRAWS, ITERATIVE_DRAWS, NEIGHBOURS, NEAREST, ITERATIONS = 100, 20, 10, 100, 5
MISSING, HIDDEN, TEST_ROWS, FOLDS = 0.25, 0.5, 600, 5


@dataclass(frozen=True)
class Task:
    """Training rows, rows with known truth, and the latter with some modalities hidden."""

    spec: str
    train: Batch
    test: Batch
    hidden: Batch

    @property
    def reals(self) -> list[str]:
        return [name for name, x in self.train.values.items() if x.is_floating_point()]

    @property
    def label(self) -> str:
        (name,) = (name for name, x in self.train.values.items() if not x.is_floating_point())
        return name

    @property
    def classes(self) -> int:
        return int(self.train.values[self.label].max()) + 1

    def scored(self, name: str) -> Tensor:
        """Mask of the rows in which a modality is known and hidden."""
        return self.test.present[name] & ~self.hidden.present[name]


@dataclass(frozen=True)
class Prediction:
    """Of each real modality an estimate, (B, C), and draws, (K, B, C); of the label probabilities, (B, classes).

    Draws that are the complete distribution, not a sample from it, are scored as such.
    """

    point: dict[str, Tensor]
    draws: dict[str, Tensor]
    probability: Tensor
    whole: bool = False


# Rows


def kept(present: Mapping[str, Tensor], share: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Presence after hiding a share of each row's modalities at random; a randomly chosen one always stays."""
    had = torch.stack(list(present.values()))
    stays = had & (torch.rand(had.shape, generator=generator) >= share)
    spared = torch.where(had, torch.rand(had.shape, generator=generator), -1.0).argmax(0)
    stays[spared, torch.arange(had.shape[1])] |= ~stays.any(0)
    return dict(zip(present, stays, strict=True))


def standardised(task: Task) -> Task:
    """All real columns in units of the training rows' spread."""
    units: dict[str, tuple[Tensor, Tensor]] = {}
    for name in task.reals:
        x = task.train.values[name][task.train.present[name]]
        units[name] = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)

    def scaled(batch: Batch) -> Batch:
        return Batch({n: (x - units[n][0]) / units[n][1] if n in units else x for n, x in batch.values.items()}, batch.present)

    return Task(task.spec, scaled(task.train), scaled(task.test), scaled(task.hidden))


def hidden_at_random(spec: str, train: Batch, test: Batch, seed: int) -> Task:
    generator = torch.Generator().manual_seed(seed)
    train = Batch(train.values, kept(train.present, MISSING, generator))
    return standardised(Task(spec, train, test, Batch(test.values, kept(test.present, HIDDEN, generator))))


def mfeat(seed: int) -> Iterator[Task]:
    arrays = read_npz("mfeat/mfeat.npz")
    views = {name: torch.from_numpy(x.astype(np.float32)) for name, x in arrays.items() if name != "labels"}
    rows = Batch.complete({**views, "label": torch.from_numpy(arrays["labels"].astype(np.int64))})
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    yield hidden_at_random("mfeat", rows.index(order[TEST_ROWS:]), rows.index(order[:TEST_ROWS]), seed)


def tcga(part: str) -> Batch:
    """The official training or test part; the latter has no protein."""
    arrays = read_npz("tcga_brca_mixomics/tcga_brca.npz")
    subtypes = np.unique(arrays[f"{part}_subtype"], return_inverse=True)[1]
    rows, widths = len(subtypes), {name: arrays[f"train_{name}"].shape[1] for name in ("mirna", "mrna", "protein")}
    values = {name: torch.from_numpy(arrays.get(f"{part}_{name}", np.zeros((rows, width), np.float32))) for name, width in widths.items()}
    present = {name: torch.full((rows,), f"{part}_{name}" in arrays) for name in widths}
    return Batch({**values, "subtype": torch.from_numpy(subtypes)}, {**present, "subtype": torch.ones(rows, dtype=torch.bool)})


def folds(seed: int) -> Iterator[Task]:
    rows = tcga("train")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    for fold in order.chunk(FOLDS):
        yield hidden_at_random("tcga", rows.index(order[~torch.isin(order, fold)]), rows.index(fold), seed)


def test(seed: int) -> Iterator[Task]:
    train, rows = tcga("train"), tcga("test")
    asked = [(("mirna", "mrna"), "subtype"), (("mirna",), "mrna"), (("mrna",), "mirna")]
    every = rows.index(torch.arange(len(rows)).repeat(len(asked)))
    seen = {name: torch.tensor([name in given for given, _ in asked]).repeat_interleave(len(rows)) for name in rows.names}
    known = {name: seen[name] | torch.tensor([name == target for _, target in asked]).repeat_interleave(len(rows)) for name in rows.names}
    train = Batch(train.values, kept(train.present, MISSING, torch.Generator().manual_seed(seed)))
    yield standardised(Task("tcga", train, Batch(every.values, known), Batch(every.values, seen)))


DATA: Mapping[str, Callable[[int], Iterator[Task]]] = {"mfeat": mfeat, "folds": folds, "test": test}
TITLES = {"mfeat": "mfeat, 600 rows", "folds": "TCGA, folds", "test": "TCGA, test part"}


# Imputers


def table_of(task: Task, batch: Batch) -> np.ndarray:
    """All modalities concatenated, NaN where absent."""
    columns = [x if x.is_floating_point() else F.one_hot(x, task.classes).float() for x in batch.values.values()]
    there = batch.present.values()
    return torch.cat([torch.where(p[:, None], x, math.nan) for p, x in zip(there, columns, strict=True)], 1).double().numpy()


def modalities_of(task: Task, table: np.ndarray) -> dict[str, Tensor]:
    widths = [x.shape[1] if x.is_floating_point() else task.classes for x in task.train.values.values()]
    return dict(zip(task.train.names, torch.from_numpy(np.array(table)).float().split(widths, -1), strict=True))


def column_mean(task: Task, seed: int) -> dict[str, Prediction]:
    train, rows = table_of(task, task.train), len(task.hidden)
    point = modalities_of(task, np.broadcast_to(np.nanmean(train, 0), (rows, train.shape[1])))
    rng = np.random.default_rng(seed)
    draws = modalities_of(task, np.stack([rng.choice(column[~np.isnan(column)], (DRAWS, rows)) for column in train.T], -1))
    return {"column mean": Prediction(point, draws, point[task.label])}


def knn(task: Task, seed: int) -> dict[str, Prediction]:  # noqa: ARG001 (it draws nothing)
    train, rows = table_of(task, task.train), table_of(task, task.hidden)
    point = modalities_of(task, np.asarray(KNNImputer(n_neighbors=NEIGHBOURS).fit(train).transform(rows)))
    distances = np.nan_to_num(nan_euclidean_distances(rows, train), nan=np.inf)
    values, draws = modalities_of(task, train), {}
    for name in task.reals:
        having = np.where(task.train.present[name].numpy(), distances, np.inf)
        nearest = np.argsort(having, 1, kind="stable")[:, :NEIGHBOURS]
        draws[name] = values[name][torch.from_numpy(nearest.T.copy())]
    return {"KNNImputer": Prediction(point, draws, point[task.label], whole=True)}


def iterative(task: Task, seed: int) -> dict[str, Prediction]:
    train, rows = table_of(task, task.train), table_of(task, task.hidden)
    options: dict[str, Any] = {"n_nearest_features": NEAREST, "max_iter": ITERATIONS, "tol": 0.0, "random_state": seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        imputer = IterativeImputer(sample_posterior=True, **options).fit(train)
        draws = modalities_of(task, np.stack([np.asarray(imputer.transform(rows)) for _ in range(ITERATIVE_DRAWS)]))
        # The same regressions, with means instead of draws.
        point = modalities_of(task, np.asarray(imputer.set_params(sample_posterior=False).transform(rows)))
    label = draws[task.label]
    shares = F.one_hot(label.argmax(-1), label.shape[-1]).float().mean(0)
    return {"IterativeImputer": Prediction(point, draws, shares)}


def mofa(task: Task, seed: int) -> dict[str, Prediction]:
    """Factor analysis with a view for each modality."""
    names, parts = task.train.names, {}
    for part, batch in (("train", task.train), ("rows", task.hidden)):
        columns = [x.double() if x.is_floating_point() else x[:, None].double() for x in batch.values.values()]
        there = batch.present.values()
        parts[part] = torch.cat([torch.where(p[:, None], x, math.nan) for p, x in zip(there, columns, strict=True)], 1).numpy()
    widths = [task.train.values[name].shape[1] if name in task.reals else 1 for name in names]
    groups = np.repeat(np.arange(len(names)), widths)
    counts = np.where(groups == list(names).index(task.label), task.classes, 0)
    question = {**parts, "counts": counts, "ordered": np.zeros(len(counts), dtype=bool), "groups": groups}
    answer = Environments(default_folder(), limit=3600.0).ask("mofa", question, seed, ITERATIVE_DRAWS)
    place = int(np.flatnonzero(counts)[0])
    point, draws = (dict(zip(names, torch.from_numpy(answer[part]).split(widths, -1), strict=True)) for part in ("values", "draws"))
    return {"MOFA+": Prediction(point, draws, torch.from_numpy(answer[f"probabilities_{place}"]))}


def served(model: MultimodalVAE, task: Task) -> Prediction:
    point, draws = nbridge.Model(model).impute(task.hidden).values, nbridge.Model(model).impute(task.hidden, samples=DRAWS).values
    return Prediction(point, draws, summarise(model, task.hidden).probability[task.label])


def bridged(name: str, *changes: str) -> Callable[[Task, int], dict[str, Prediction]]:
    """A model of the bundled spec, with and without calibrated spreads."""

    def run(task: Task, seed: int) -> dict[str, Prediction]:
        spec = nbridge.read_spec(HERE / "specs" / f"{task.spec}.yaml", overrides=[*changes, f"training.seed={seed}"])
        memory = {"source": "memory", "validation": spec.data.validation, "test": 0.0, "seed": seed}
        model = nbridge.train({**spec.as_dict(), "data": memory}, task.train, device="cpu").model
        found = {name: served(model.network, task)}
        uncalibrate(model.network)
        return {**found, f"{name}, not calibrated": served(model.network, task)}

    return run


METHODS: Mapping[str, Callable[[Task, int], dict[str, Prediction]]] = {
    "mean": column_mean,
    "knn": knn,
    "iterative": iterative,
    "mofa": mofa,
    "nbridge": bridged("nbridge"),
    "flow": bridged("nbridge, flow", "bridges={type: flow}", "training.stages.bridges.epochs=150"),
}
FIGURES = {
    "accuracy": "label: accuracy", "ece": "ECE", "by chance": "by chance", "rmse": "cells: RMSE", "crps": "CRPS",
    "50": "in 50 %", "90": "in 90 %", "95": "in 95 %",
}  # fmt: skip


# Scores


def figures(task: Task, prediction: Prediction) -> dict[str, Tensor]:
    """The terms of the scores, for each cell and label."""
    found: dict[str, list[Tensor]] = {name: [] for name in ("square", "crps", *(f"{level:.0%}" for level in LEVELS))}
    for name in task.reals:
        rows = task.scored(name)
        x, draws = task.test.values[name][rows], prediction.draws[name][:, rows]
        found["square"].append((prediction.point[name][rows] - x).double().square().flatten())
        found["crps"].append(crps(draws, x, fair=not prediction.whole).flatten())
        for level in LEVELS:
            found[f"{level:.0%}"].append(coverage(draws, x, level).flatten())
    rows = task.scored(task.label)
    labels = {"probability": prediction.probability[rows].double(), "label": task.test.values[task.label][rows]}
    return {name: torch.cat(parts) for name, parts in found.items()} | labels


def scores(parts: list[dict[str, Tensor]]) -> dict[str, float]:
    """Scores over the cells and labels of all folds."""
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    p, y = whole["probability"], whole["label"]
    p = p.clamp(min=0) / p.clamp(min=0).sum(1, keepdim=True)
    generator = torch.Generator().manual_seed(0)
    drawn = [expected_calibration_error(p, torch.multinomial(p, 1, generator=generator)[:, 0]) for _ in range(100)]
    return {
        "accuracy": (p.argmax(1) == y).double().mean().item(),
        "ece": expected_calibration_error(p, y),
        "by chance": mean(drawn),
        "rmse": whole["square"].mean().sqrt().item(),
        "crps": whole["crps"].mean().item(),
        **{f"{100 * level:.0f}": whole[f"{level:.0%}"].mean().item() for level in LEVELS},
    }


def measure(data: str, method: str, seed: int) -> dict[str, dict[str, float]]:
    parts: dict[str, list[dict[str, Tensor]]] = {}
    for task in DATA[data](seed):
        for name, prediction in METHODS[method](task, seed).items():
            parts.setdefault(name, []).append(figures(task, prediction))
    return {name: scores(of_name) for name, of_name in parts.items()}


def table(results: Mapping[str, Any], seeds: int) -> str:
    lines = ["| mean ± sd over seeds | | seeds | " + " | ".join(FIGURES.values()) + " |", "|---" * (len(FIGURES) + 3) + "|"]
    for data in DATA:
        found = [results[f"{data} {method} {seed}"] for method in METHODS for seed in range(seeds) if f"{data} {method} {seed}" in results]
        for name in dict.fromkeys(name for run in found for name in run):
            values = [[run[name][figure] for run in found if name in run] for figure in FIGURES]
            cells = [spread(v) for v in values]
            lines.append(f"| {TITLES[data]} | {name} | {len(values[0])} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--result", type=Path, default=RESULT, help="where the figures are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(options.result.read_text()) if options.result.exists() else {}
    for data in options.data.split(","):
        for seed in range(options.seeds):
            for method in options.methods.split(","):
                if (key := f"{data} {method} {seed}") not in results:
                    try:
                        results[key] = measure(data, method, seed)
                    except UnavailableError as reason:
                        print(data, seed, method, reason, flush=True)
                        continue
                    for name, found in results[key].items():
                        print(data, seed, name, {figure: round(value, 3) for figure, value in found.items()}, flush=True)
                    options.result.write_text(json.dumps(results, indent=1) + "\n")
    if options.result == RESULT:
        replace_section("imputers", table(results, options.seeds))
    print(table(results, options.seeds))


if __name__ == "__main__":
    main()
