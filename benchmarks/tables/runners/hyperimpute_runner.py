# pyright: reportMissingImports=false
"""HyperImpute: a model chosen for each column from several by cross-validation, over all rows together, as it has no other way.

Its defaults, but linear models and forests alone (boosted trees take hours on a few hundred rows), 10 inner rounds.
Its answer is one completed table; classes in order that it takes for numbers are rounded.
"""

from __future__ import annotations

import logging
import os
import warnings

os.environ.update(OMP_NUM_THREADS="1", TQDM_DISABLE="1")
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import joblib  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from exchange import Question, serve  # noqa: E402
from hyperimpute.plugins.imputers import Imputers  # noqa: E402

ROUNDS = 10


def answer(question: Question) -> dict[str, np.ndarray]:
    both = pd.DataFrame(np.concatenate([question.train, question.rows]))
    imputer = Imputers().get(
        "hyperimpute",
        optimizer="simple",
        classifier_seed=["logistic_regression", "random_forest"],
        regression_seed=["linear_regression", "random_forest_regressor"],
        n_inner_iter=ROUNDS,
        random_state=question.seed,
    )
    with joblib.parallel_config(backend="sequential"):
        values = imputer.fit_transform(both).to_numpy()[len(question.train) :]
    for place, count in enumerate(question.counts):
        if count:
            values[:, place] = values[:, place].round().clip(0, count - 1)
    return {"values": values}


if __name__ == "__main__":
    serve(answer)
