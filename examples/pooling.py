"""Pooling: a regression on imputed rows, with standard errors that contain what is not known of the missing values.

Run `python examples/pooling.py`. Of 442 people with diabetes the body-mass index is missing more often where the disease progressed less,
so that a regression on the complete rows alone is biased. Each of 20 imputations is analysed as if it were complete, and the results are
pooled by Rubin's rules; the regression with nothing missing is the reference.
"""

from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes

import nbridge

NAMES = ("body-mass index", "blood pressure", "sex", "age")
SPEC = {
    "modalities": {
        "bmi": {"shape": 1, "encoder": "mlp", "likelihood": "normal"},
        "serum": {"shape": 6, "encoder": "mlp", "likelihood": "normal"},
        "person": {"shape": 4, "encoder": "mlp", "likelihood": "normal"},
    }
}


def regression(outcome: np.ndarray, covariates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients of ordinary least squares, with an intercept last, and their squared standard errors."""
    design = np.column_stack([covariates, np.ones(len(covariates))])
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ outcome
    variance = ((outcome - design @ coefficients) ** 2).sum() / (len(design) - design.shape[1])
    return coefficients, variance * inverse.diagonal()


def analysis(bmi: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The progression of the disease by body-mass index, blood pressure, sex and age."""
    age, sex, pressure, progression = person.T
    return regression(progression, np.column_stack([bmi, pressure, sex, age]))


def main(seed: int = 0, updates: int | None = None) -> dict[str, np.ndarray]:
    data: Any = load_diabetes()
    values, progression = data.data / data.data.std(0), (data.target - data.target.mean()) / data.target.std()
    person = np.column_stack([values[:, 0], values[:, 1], values[:, 3], progression])
    bmi, serum = values[:, [2]], values[:, 4:]

    hidden = np.random.default_rng(seed).random(len(bmi)) < 1 / (1 + np.exp(2 * progression))
    rows = {"bmi": np.where(hidden[:, None], np.nan, bmi), "serum": serum, "person": person}
    run = nbridge.train({**SPEC, "training": {"seed": seed, **({} if updates is None else {"updates": updates})}}, rows)
    draws = run.model.impute(rows, samples=20)["bmi"]
    analyses = [analysis(draw[:, 0], person) for draw in draws]
    pooled = nbridge.pool(*zip(*analyses, strict=True), complete_degrees_of_freedom=len(bmi) - 5)

    whole, alone = analysis(bmi[:, 0], person), analysis(bmi[~hidden, 0], person[~hidden])
    print(f"body-mass index missing in {hidden.mean():.0%} of {len(bmi)} people")
    print(f"{'coefficient':16} {'nothing missing':>17} {'complete rows':>17} {'pooled':>17}   fraction missing")
    for place, name in enumerate(NAMES):
        found = [(coefficients[place], np.sqrt(squared[place])) for coefficients, squared in (whole, alone)]
        columns = [f"{value:+8.3f} ± {error:.3f}" for value, error in [*found, (pooled.estimate[place], pooled.standard_error[place])]]
        print(f"{name:16} {columns[0]:>17} {columns[1]:>17} {columns[2]:>17}   {pooled.fraction_missing[place]:.2f}")
    return {"whole": whole[0], "complete rows": alone[0], "pooled": pooled.estimate}


if __name__ == "__main__":
    main()
