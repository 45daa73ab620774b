"""CITE-seq: imputes the surface proteins of cells from their RNA, beside principal components and ridge regression.

Run `python examples/cite_seq.py`. The cells are simulated, so that the truth is known: cell types and gradual programmes set the rates of
genes and proteins, and the depth of the RNA varies more than tenfold between cells. Errors are those of log(1 + protein), in standard
deviations of each protein, on held-out cells.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV

import nbridge

CELLS, GENES, PROTEINS, TYPES, PROGRAMMES = 3000, 400, 24, 8, 6
COMPONENTS = 30


def simulate(seed: int, cells: int = CELLS) -> dict[str, np.ndarray]:
    """Counts of genes and of proteins."""
    rng = np.random.default_rng(seed)
    types = rng.choice(TYPES, cells, p=rng.dirichlet(np.full(TYPES, 5.0)))
    programmes = rng.normal(size=(cells, PROGRAMMES))
    # A type marks one gene in five, and a programme one in ten.
    marks = rng.normal(size=(TYPES, GENES)) * (rng.random((TYPES, GENES)) < 0.2) * 1.5
    slopes = rng.normal(size=(PROGRAMMES, GENES)) * (rng.random((PROGRAMMES, GENES)) < 0.1) * 0.7
    log_rna = rng.normal(-0.5, 1.0, GENES) + marks[types] + programmes @ slopes
    depth = np.exp(rng.normal(0.0, 0.8, (cells, 1)))
    rna = negative_binomial(rng, depth * np.exp(log_rna), 2.0)
    levels = rng.normal(size=(TYPES, PROTEINS)) * 1.2
    # Programmes act on proteins together: what two of them do is not the sum.
    gates = np.tanh(programmes @ rng.normal(size=(PROGRAMMES, PROTEINS)) * 0.8)
    log_protein = rng.normal(3.0, 0.7, PROTEINS) + levels[types] + 0.6 * gates
    protein = negative_binomial(rng, np.exp(log_protein + rng.normal(0.0, 0.2, (cells, 1))), 8.0)
    return {"rna": rna, "protein": protein}


def negative_binomial(rng: np.random.Generator, mean: np.ndarray, dispersion: float) -> np.ndarray:
    return rng.poisson(rng.gamma(dispersion, mean / dispersion)).astype(np.float32)


def by_ridge(rna: np.ndarray, protein: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Log(1 + protein) by ridge regression on principal components of log(1 + counts per 10,000)."""
    components = PCA(COMPONENTS, random_state=0).fit(logs(rna))
    model = RidgeCV(np.logspace(-2, 4, 13)).fit(components.transform(logs(rna)), np.log1p(protein))
    return model.predict(components.transform(logs(new)))


def logs(rna: np.ndarray) -> np.ndarray:
    return np.log1p(1e4 * rna / np.maximum(rna.sum(1, keepdims=True), 1.0))


def spec(epochs: tuple[int, int], seed: int) -> dict[str, object]:
    return {
        "latent_dim": 20,
        "modalities": {
            "rna": {"shape": GENES, "encoder": "mlp", "likelihood": {"type": "negative_binomial", "size_factor": "auto"}},
            "protein": {"shape": PROTEINS, "encoder": "mlp", "likelihood": "negative_binomial"},
        },
        "training": {
            "seed": seed,
            "stages": {stage: {"epochs": count} for stage, count in zip(("joint", "bridges"), epochs, strict=True)},
        },
    }


def measure(seed: int, epochs: tuple[int, int] = (100, 60), cells: int = CELLS) -> tuple[float, float]:
    """RMSE of log(1 + protein) in standard deviations: of nbridge, and of ridge regression."""
    counts = simulate(seed, cells)
    held = np.arange(cells) % 5 == 0
    run = nbridge.train(spec(epochs, seed), {name: x[~held] for name, x in counts.items()})
    draws = run.model.impute({"rna": counts["rna"][held]}, samples=100, seed=seed)["protein"]
    truth, spread = np.log1p(counts["protein"][held]), np.log1p(counts["protein"]).std(0)
    ours = np.log1p(draws).mean(0)
    theirs = by_ridge(counts["rna"][~held], counts["protein"][~held], counts["rna"][held])
    return rmse((ours - truth) / spread), rmse((theirs - truth) / spread)


def rmse(error: np.ndarray) -> float:
    return float(np.sqrt(np.square(error).mean()))


def main(seeds: Sequence[int] = (0, 1, 2), epochs: tuple[int, int] = (100, 60), cells: int = CELLS) -> None:
    found = [measure(seed, epochs, cells) for seed in seeds]
    for seed, (ours, theirs) in zip(seeds, found, strict=True):
        print(f"seed {seed}: RMSE of protein from RNA {ours:.3f}, PCA and ridge {theirs:.3f}")
    ours, theirs = np.mean(found, 0)
    print(f"mean of {len(seeds)}: RMSE of protein from RNA {ours:.3f}, PCA and ridge {theirs:.3f}")


if __name__ == "__main__":
    main()
