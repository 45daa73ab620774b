# pyright: reportMissingImports=false
"""miceforest: chained LightGBM models with predictive mean matching, over all rows together.

As its documentation shows, with its defaults and 3 rounds; each data set is a draw. Rows to fill in are learnt from too, without the cells
that are hidden, because ``impute_new_data`` of release 6.0.5 returns the random values that it starts with. Classes without an order, and
any two, are categorical; classes in order are numbers, whose imputed values are then observed classes too (models of their classes would
take six times as long). The estimate of a number is the mean of its draws, of a class the most frequent one.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from exchange import Question, serve
from miceforest import ImputationKernel

ROUNDS = 3


def answer(question: Question) -> dict[str, np.ndarray]:
    both = np.concatenate([question.train, question.rows])
    frame = pd.DataFrame(both, columns=pd.Index([f"c{place}" for place in range(both.shape[1])]))
    for place in np.flatnonzero((question.counts > 0) & ~question.ordered):
        known = both[~np.isnan(both[:, place]), place]
        frame[f"c{place}"] = pd.Categorical(frame[f"c{place}"], categories=np.unique(known))
    kernel = ImputationKernel(frame, num_datasets=question.draws, random_state=question.seed)
    kernel.mice(ROUNDS, num_threads=1)
    completed = (kernel.complete_data(dataset).astype(float).to_numpy() for dataset in range(question.draws))
    draws = np.stack([table[len(question.train) :] for table in completed])
    values = draws.mean(0)
    for place, count in enumerate(question.counts):
        if count:
            values[:, place] = (draws[:, :, place, None] == np.arange(count)).mean(0).argmax(1)
    return {"values": values, "draws": draws}


if __name__ == "__main__":
    serve(answer)
