"""Single cells: a fifth of the observed columns of each row is hidden and predicted from the rest of the row, by a model and by baselines.

The rest of a row is its other modalities and the other columns of the modality itself. Baselines are fitted for each column, on training
rows with the same kind of holes: the inputs are all other columns, with the mean where a cell is missing, and a column that says where. The
column itself is never an input.

Axes: N rows, R rounds, W elements of the modality, F inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.evaluation.baseline_inputs import WIDE, Inputs, ModalityInputs, inputs_of
from nbridge.evaluation.baselines import Examples
from nbridge.evaluation.targets import Logged, RegressionTarget, Target, Values, counts_of
from nbridge.inference.impute import POINT_DRAWS, chunks, decode, fixed_points, point_draws, serving
from nbridge.models.base import MultimodalVAE
from nbridge.models.holes import observed_elements, random_holes, with_holes
from nbridge.nn.decoders import Decoder, RowDecoder
from nbridge.nn.mixed import Mixed

ROWS, MAX_COLUMNS = 2000, 20
"""Maximum numbers of rows with holes, and of columns of a modality that are compared."""
ROUNDS = 5
"""Maximum number of times that each row is used, with other cells hidden: about once for each cell."""


@dataclass(frozen=True)
class RowsWithHoles:
    """Rows of which some cells of one modality are hidden.

    Arguments:
        batch: The rows, each ``rounds`` times, one round after the other.
        holes: The hidden elements, boolean, shape (R N, W).
        rounds: The number R of rounds.
    """

    batch: Batch
    holes: NDArray[np.bool_]
    rounds: int


def usable_rows(model: MultimodalVAE, batch: Batch, name: str) -> NDArray[np.int64]:
    """The rows of a mixed modality with at least two observed columns, so that one can be hidden."""
    likelihood, seen = mixed(model, name), observed_elements(batch, name).cpu().numpy()
    columns = sum(seen[:, start].astype(np.int64) for start, _ in likelihood.spans)
    return np.flatnonzero(np.asarray(columns) >= 2)


def mixed_modalities(model: MultimodalVAE) -> tuple[str, ...]:
    """The mixed modalities of a model, whose cells are imputed from their other cells."""
    return tuple(name for name, likelihood in model.likelihoods.items() if isinstance(likelihood, Mixed))


def mixed(model: MultimodalVAE, name: str) -> Mixed:
    """The likelihood of a mixed modality."""
    likelihood = model.likelihoods[name]
    assert isinstance(likelihood, Mixed), f"{name} is mixed"
    return likelihood


def hide_cells(model: MultimodalVAE, batch: Batch, name: str, *, seed: int = 0, most: int = ROWS) -> RowsWithHoles:
    """Hides random cells of a mixed modality, in one to five rounds of at most ``most`` rows in total.

    Arguments:
        model: The model.
        batch: Rows of which each has at least two observed columns.
        name: The modality.
        seed: Seed of the holes.
        most: Maximum number of rows with holes.
    """
    kept = batch.slice(0, most)
    rounds = int(np.clip(most // max(1, len(kept)), 1, ROUNDS))
    repeated = kept.index(torch.arange(len(kept)).repeat(rounds))
    with serving(model, seed):
        holes = random_holes(mixed(model, name), observed_elements(repeated, name).cpu())
    return RowsWithHoles(repeated, holes.numpy(), rounds)


def predicted_cells(model: MultimodalVAE, rows: RowsWithHoles, name: str, *, seed: int = 0) -> Values:
    """Imputes the hidden cells, shape (R N, W): the point estimate, or for counts the mean of log(1 + x) over draws."""
    counts = counts_of(mixed(model, name))
    points, noise = fixed_points(model)
    given, parts = with_holes(rows.batch, {name: torch.from_numpy(rows.holes)}), []
    with serving(model, seed):
        for part in chunks(given, POINT_DRAWS * rows.holes.shape[1]):
            given_rows = part.to(model.device)
            z = point_draws(model.fixed_posterior(given_rows, noise.to(model.device)), points)
            parts.append(scored_points(model, name, z, counts, model.decoder_of(name, given_rows)))
    return torch.cat(parts).numpy()


def scored_points(
    model: MultimodalVAE, name: str, z: Tensor, counts: Logged, decoder: Decoder | RowDecoder, size: Tensor | None = None
) -> Tensor:
    """Point estimates from draws of z, shape (K, B, D), on the scale that is scored, flattened, shape (B, E), float64.

    They minimise the squared error: of counts, that of log(1 + x / s), the scale that baselines are fitted on.

    Arguments:
        model: The model.
        name: The modality.
        z: The draws.
        counts: Which elements are counts.
        decoder: The decoder of the rows.
        size: The logarithms of the size factors s of the rows; None for 1.
    """
    if counts is True:
        drawn = decode(model, name, z, decoder=decoder, noise=True).double()
        logs = torch.log1p(drawn if size is None else drawn * (-size).exp()).mean(0).cpu()
        return logs.reshape(len(logs), -1)
    found = decode(model, name, z, decoder=decoder, point=True).double().cpu()
    found = found.reshape(len(found), -1)
    if not isinstance(counts, bool) and counts.any():
        some = torch.from_numpy(counts)
        found[:, some] = torch.log1p(decode(model, name, z, decoder=decoder, noise=True)[..., some.to(z.device)].double()).mean(0).cpu()
    return found


def hidden_scores(target: Target, truth: Values, predicted: Values, rows: RowsWithHoles) -> Values:
    """The scores of each row's hidden cells by column, shape (N, C): the mean over the rounds in which they are hidden; NaN if none."""
    scores = np.where(hidden_columns(target, rows.holes), target.scores(truth, predicted), np.nan)
    by_round = scores.reshape(rows.rounds, -1, scores.shape[1])
    seen = ~np.isnan(by_round)
    return np.where(seen.any(0), np.where(seen, by_round, 0.0).sum(0) / np.maximum(seen.sum(0), 1), np.nan)


def hidden_columns(target: Target, holes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The hidden columns of a target, shape (N, C), from hidden elements, shape (N, W)."""
    return holes[:, [first_element(target, place) for place in range(len(target.names))]]


def first_element(target: Target, place: int) -> int:
    """The first element of a column of a target."""
    return int(target.elements[place]) if isinstance(target, RegressionTarget) else target.spans[place][0]


def sampled_columns(targets: Sequence[Target], seed: int = 0) -> list[Target]:
    """The targets with at most `MAX_COLUMNS` columns in total, drawn at random."""
    total = sum(len(target.names) for target in targets)
    if total <= MAX_COLUMNS:
        return list(targets)
    generator = torch.Generator().manual_seed(seed)
    drawn = sorted(torch.randperm(total, generator=generator)[:MAX_COLUMNS].tolist())
    found, start = list[Target](), 0
    for target in targets:
        places = [place - start for place in drawn if start <= place < start + len(target.names)]
        found += [target.only(places)] if places else []
        start += len(target.names)
    return found


@dataclass(frozen=True)
class CellInputs:
    """Inputs of baselines for the columns of one modality.

    Arguments:
        blocks: The inputs of each modality (`nbridge.evaluation.baseline_inputs.blocks_of`).
        name: The modality.
        spans: Start and stop of the elements of its columns.
    """

    blocks: Mapping[str, ModalityInputs]
    name: str
    spans: tuple[tuple[int, int], ...]

    def examples(self, target: Target, values: Mapping[str, Values], holes: NDArray[np.bool_]) -> Examples:
        """Rows with the inputs and the truth of a target of one column.

        Arguments:
            target: The column.
            values: The values of each modality, shape (N, E); NaN where missing.
            holes: The hidden elements of the modality, shape (N, W).
        """
        inputs, factors = self._inputs(target, values, holes)
        return Examples(inputs, factors, target.scaled(values[self.name]))

    def _inputs(self, target: Target, values: Mapping[str, Values], holes: NDArray[np.bool_]) -> tuple[Inputs, Inputs]:
        first = first_element(target, 0)
        start, stop = next(span for span in self.spans if span[0] == first)
        own = np.where(holes, np.nan, values[self.name])
        own[:, start:stop] = np.nan
        others, weights = inputs_of(self.blocks, values, self.name)
        block = self.blocks[self.name].of(own)
        share = np.full(block.shape[1], 1 / np.sqrt(max(1, block.shape[1])))
        if len(self.spans) > WIDE:
            return np.concatenate([others, block], 1), np.concatenate([weights, share])
        missing = np.isnan(own[:, [span[0] for span in self.spans if span[0] != first]]).astype(float)
        # Neighbours are those with similar values, not those with the same holes.
        return np.concatenate([others, block, missing], 1), np.concatenate([weights, share, np.zeros(missing.shape[1])])
