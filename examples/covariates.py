"""Covariates: cells of three batches whose measurements are shifted by batch, which should not count.

Run `python examples/covariates.py`. The data are simulated: two factors of each cell set two panels of measurements, and each batch shifts
all of them. A model that is given the batch as a covariate has codes that do not show it, and says what panel b would have been in batch A.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

import nbridge

CELLS, BATCHES = 4000, ("A", "B", "C")


def simulate(seed: int, cells: int = CELLS) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Two panels and the batch of each cell, and panel b as it would be in batch A."""
    rng = np.random.default_rng(seed)
    batch, factors = rng.integers(0, len(BATCHES), cells), rng.normal(size=(cells, 2))
    values, in_a = {"batch": np.array(BATCHES)[batch]}, np.empty(0)
    for name, width in (("a", 8), ("b", 5)):
        shifts, plain = 1.5 * rng.normal(size=(len(BATCHES), width)), factors @ rng.normal(size=(2, width))
        values[name] = plain + shifts[batch] + 0.3 * rng.normal(size=(cells, width))
        in_a = plain + shifts[0]
    return values, in_a


def spec(seed: int, epochs: tuple[int, int], covariates: dict[str, str]) -> dict[str, object]:
    stages = {stage: {"epochs": count} for stage, count in zip(("joint", "bridges"), epochs, strict=True)}
    return {
        "latent_dim": 6,
        "covariates": covariates,
        "modalities": {name: {"shape": width, "encoder": "mlp", "likelihood": "normal"} for name, width in (("a", 8), ("b", 5))},
        "training": {"seed": seed, "stages": stages},
    }


def measure(seed: int, epochs: tuple[int, int], cells: int, *, told: bool) -> tuple[float, float, float]:
    """How well a classifier finds the batch in codes of held-out cells, and the errors of panel b in batch A: of its mean, and RMSE."""
    values, in_a = simulate(seed, cells)
    held = np.arange(cells) % 4 == 0
    rows, new = ({name: x[part] for name, x in values.items() if told or name != "batch"} for part in (~held, held))
    model = nbridge.train(spec(seed, epochs, {"batch": "categorical"} if told else {}), rows).model
    hidden = {**new, "b": np.full_like(new["b"], np.nan)}
    found = cross_val_score(LogisticRegression(max_iter=2000), model.embed(hidden).mean.numpy(), values["batch"][held], cv=5).mean()
    error = model.impute(hidden, covariates={"batch": "A"} if told else None)["b"] - in_a[held]
    return float(found), float(np.abs(error.mean(0)).max()), float(np.sqrt(np.square(error).mean()))


def main(seeds: int = 3, epochs: tuple[int, int] = (60, 30), cells: int = CELLS) -> None:
    for told in (False, True):
        found = np.mean([measure(seed, epochs, cells, told=told) for seed in range(seeds)], 0)
        what = "with the batch as a covariate" if told else "without covariates"
        print(
            f"{what}: a classifier finds the batch of {found[0]:.1%} of cells in z (chance {1 / len(BATCHES):.1%}); "
            f"panel b in batch A: error of its mean {found[1]:.2f}, RMSE {found[2]:.2f}"
        )


if __name__ == "__main__":
    main()
