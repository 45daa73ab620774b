"""Measures the verdict: hides each modality in turn and imputes it from the row's other modalities, with the model and with a baseline.

Of mixed modalities, single cells are hidden and imputed as well (`nbridge.evaluation.single_cells`), which needs no other modality.
Both are scored on the same held-out rows. Everything is seeded. Large data are sampled so that this takes seconds; each
`nbridge.evaluation.verdict.BaselineComparison` gives the sample sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nbridge.common.autograd import gradients
from nbridge.common.process_state import one_thread
from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.data.split import Splits
from nbridge.evaluation.advice import advise, format_advice, summarise_training
from nbridge.evaluation.baseline_inputs import ModalityInputs, blocks_of, inputs_of
from nbridge.evaluation.baselines import Examples, constant_prediction, select_baseline
from nbridge.evaluation.cell_baselines import CellComparer
from nbridge.evaluation.compared_scores import ComparedScores, Sample, too_few
from nbridge.evaluation.single_cells import (
    ROWS as CELL_ROWS,
)
from nbridge.evaluation.single_cells import (
    hide_cells,
    mixed_modalities,
    predicted_cells,
    sampled_columns,
    scored_points,
    usable_rows,
)
from nbridge.evaluation.targets import Target, Values, counts_of, targets_of, values_of
from nbridge.evaluation.verdict import CHOOSING, MIN_ROWS, BaselineComparison, Verdict
from nbridge.inference.impute import POINT_DRAWS, chunks, fixed_points, point_draws, serving
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Categorical
from nbridge.nn.text_likelihood import Text
from nbridge.spec.spec import Spec
from nbridge.training.records import EpochRecord

TRAIN_ROWS, TEST_ROWS = 5000, 2000
"""Maximum numbers of rows that a baseline is fitted on and that both predictors are compared on."""
OWN_ROWS = 1000
"""Number of these rows reserved for each modality, so that rare modalities are represented."""
FIT_VALUES, DECODED = 2**25, 2**26
"""Maximum number of values in the training sample over all modalities, and of decoded values of one modality."""
LEAST_TRAIN, LEAST_TEST = 500, 250
"""Minimum sample sizes, even for very wide rows."""


@gradients()
def compare_with_baselines(
    model: MultimodalVAE, spec: Spec, splits: Splits, *, rows: Batch | None = None,
    split: Literal["test", "validation", "train"] | None = None, records: Iterable[EpochRecord] = (), seed: int = 0,
) -> Verdict:  # fmt: skip
    """Compares a trained model with baselines, per modality and per column.

    Baselines are fitted on the training rows; if the comparison uses test rows, they are chosen on validation rows. By default a sample of
    ``split`` is compared on, and ``split`` is test, or validation if there are no test rows.

    Example:
        >>> import nbridge
        >>> spec = {
        ...     "modalities": {"x": {"shape": 3, "encoder": "mlp", "likelihood": "normal"},
        ...                    "y": {"shape": 2, "encoder": "mlp", "likelihood": "categorical"}},
        ...     "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}}}
        >>> run = nbridge.train(spec, {"x": np.random.default_rng(0).normal(size=(40, 3)), "y": np.arange(40) % 2})
        >>> compare_with_baselines(run.model.network, run.spec, run.splits).modalities[1].description
        'not tested (8 test rows, 20 needed)'
    """
    if split is None:
        split = "test" if splits.test is not None and len(splits.test) else "validation"
    parts = {"test": splits.test, "validation": splits.validation}
    if split == "train":
        return Verdict(split, reason="training rows flatter the model; use test or validation rows")
    held = parts[split] if rows is None else rows
    if held is None or not len(held):
        return Verdict("", reason="no test rows and no validation rows; set data.test or data.validation in the spec")
    tabular = mixed_modalities(model)
    if len(model.names) < 2 and not tabular:
        return Verdict(split, reason="the model has only one modality, so there are no others to impute it from")
    numbers = {name: int(_usable(held, name).sum()) for name in model.names} if len(model.names) > 1 else {}
    observed = {name: int(held.presence().present[name].sum()) for name in tabular if name in held.names}
    if max((*numbers.values(), *observed.values())) < MIN_ROWS:
        whole = (_not_tested(name, rows, split, model) for name, rows in numbers.items())
        cells = (BaselineComparison(name, "", "rmse", rows, reason=too_few(rows, split), cells=True) for name, rows in observed.items())
        return Verdict(split, (*whole, *cells))
    with one_thread():
        return _BaselineComparer(model, spec, splits, held, split, seed).verdict(records)


def _not_tested(name: str, rows: int, split: str, model: MultimodalVAE) -> BaselineComparison:
    figure = "accuracy" if isinstance(model.likelihoods[name], Categorical | Text) else "rmse"
    return BaselineComparison(name, "", figure, rows, reason=too_few(rows, split))


@dataclass(frozen=True)
class _BaselineComparer:
    """A model and the rows to compare it on."""

    model: MultimodalVAE
    spec: Spec
    splits: Splits
    held: Rows
    split: str
    seed: int

    def verdict(self, records: Iterable[EpochRecord]) -> Verdict:
        trained = summarise_training(self.spec, len(self.splits.train), records)
        modalities: list[BaselineComparison] = []
        columns: list[BaselineComparison] = []
        advice: list[tuple[str, str]] = []
        several = self.model.names if len(self.model.names) > 1 else ()
        found = (*(self._of_modality(name) for name in several), *(self._of_cells(name) for name in mixed_modalities(self.model)))
        for whole, parts in chain.from_iterable(found):
            modalities.append(whole)
            columns += parts
            if whole.outcome == "worse":
                name = whole.target
                advice.append((whole.title, advise(whole, self.model.likelihoods[name], self.train.values[name], trained)))
        return Verdict(self.split, tuple(modalities), tuple(columns), format_advice(advice))

    @cached_property
    def train(self) -> Sample:
        return self._sampled(self.splits.train, TRAIN_ROWS)

    @cached_property
    def test(self) -> Sample:
        return self._sampled(self.held, TEST_ROWS)

    @cached_property
    def choosing(self) -> Sample | None:
        """Rows that choose the baseline: validation rows, unless they are compared on."""
        validation = self.splits.validation
        return None if self.split == "validation" or validation is None else self._sampled(validation, TEST_ROWS)

    @cached_property
    def blocks(self) -> dict[str, ModalityInputs]:
        return blocks_of(self.model, self.train.values, self.seed)

    def _sampled(self, rows: Rows, most: int) -> Sample:
        """Rows at random, and more of those that have a modality which few have."""
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))
        wide = sum(likelihood.blank(1).numel() for likelihood in self.model.likelihoods.values())
        most = min(most, max(LEAST_TRAIN, FIT_VALUES // wide))
        taken = torch.zeros(len(rows), dtype=torch.bool)
        taken[order[:most]] = True
        for name in self.model.names:
            usable = order[_usable(rows, name)[order]]
            taken[usable[: min(OWN_ROWS, most)]] = True
        picked = order[taken[order]]
        batch = rows.index(picked)
        values = {name: values_of(self.model, batch, name) for name in self.model.names}
        return Sample(batch, values, {name: _usable(batch, name).nonzero()[:, 0] for name in self.model.names})

    def _of_modality(self, name: str) -> Iterator[tuple[BaselineComparison, list[BaselineComparison]]]:
        """The comparisons of a modality, one per figure, each with those of its columns."""
        fitted_on, rows = self.train.of(name, TRAIN_ROWS), self.test.of(name, TEST_ROWS)
        rows = rows[: max(LEAST_TEST, DECODED // (POINT_DRAWS * self.train.values[name].shape[1]))]
        if len(rows) < MIN_ROWS:
            yield _not_tested(name, len(rows), self.split, self.model), []
            return
        targets = targets_of(self.model, self.spec, name, self.train.values[name][fitted_on], self.seed) if len(fitted_on) else ()
        if not targets:
            why = "all its columns are constant in the training rows" if len(fitted_on) else "no training row has it and another modality"
            yield BaselineComparison(name, "", "rmse", len(rows), reason=why), []
            return
        chunk = self.test.batch.index(torch.from_numpy(rows))
        predicted = predicted_values(self.model, chunk, name, seed=self.seed)
        for target in targets:
            yield self._compared(name, target, fitted_on, rows, predicted)

    def _of_cells(self, name: str) -> Iterator[tuple[BaselineComparison, list[BaselineComparison]]]:
        """The comparisons of the single cells of a mixed modality, one per figure, each with those of its columns."""
        most = max(LEAST_TEST, DECODED // (POINT_DRAWS * self.train.values[name].shape[1]))
        chosen = usable_rows(self.model, self.test.batch, name)[:most]
        if len(chosen) < MIN_ROWS:
            why = f"{too_few(len(chosen), self.split)} with two observed columns"
            yield BaselineComparison(name, "", "rmse", len(chosen), reason=why, cells=True), []
            return
        fitted_on = usable_rows(self.model, self.train.batch, name)[:CELL_ROWS]
        own = self.train.values[name][fitted_on]
        targets = sampled_columns(targets_of(self.model, self.spec, name, own, self.seed) if len(own) else (), self.seed)
        if not targets:
            why = "all its columns are constant in the training rows" if len(own) else "no training row has two of its columns"
            yield BaselineComparison(name, "", "rmse", len(chosen), reason=why, cells=True), []
            return
        of_columns = {target.figure: target.of_columns for target in targets}
        comparer = CellComparer(self.model, name, self.train, self.choosing, self.blocks, fitted_on, self.split, self.seed)
        held = self.test.batch.index(torch.from_numpy(chosen))
        rows = hide_cells(self.model, held, name, seed=self.seed, most=min(CELL_ROWS, most))
        predicted = predicted_cells(self.model, rows, name, seed=self.seed)
        for target in targets:
            yield comparer.compared(target, rows, predicted, of_columns[target.figure])

    def _compared(
        self, name: str, target: Target, fitted_on: np.ndarray, rows: np.ndarray, predicted: Values
    ) -> tuple[BaselineComparison, list[BaselineComparison]]:
        train, test = self._examples(self.train, name, target, fitted_on), self._examples(self.test, name, target, rows)
        predictor, baseline = select_baseline(target, train, self._choosing_rows(name, target), self.seed)
        ours = target.scores(test.truth, target.scaled(predicted, logged=True))
        theirs = target.scores(test.truth, baseline(test.inputs))
        plain = target.scores(test.truth, constant_prediction(target, train))
        scores = ComparedScores(ours, theirs, plain, target.figure, self.split)
        single = len(target.names) == 1 and target.names[0] in ("", name)
        blank = BaselineComparison(name, "", target.figure, 0, train_rows=len(train.truth), predictor=predictor)
        whole = scores.compared(replace(blank, columns=(len(target.names), target.of_columns)))
        each = (scores.compared(replace(blank, column=label), slice(place, place + 1)) for place, label in enumerate(target.names))
        return whole, [] if single else list(each)

    def _choosing_rows(self, name: str, target: Target) -> Examples | None:
        if self.choosing is None or len(rows := self.choosing.of(name, TEST_ROWS)) < CHOOSING:
            return None
        return self._examples(self.choosing, name, target, rows)

    def _examples(self, part: Sample, name: str, target: Target, rows: np.ndarray) -> Examples:
        inputs, factors = inputs_of(self.blocks, {other: values[rows] for other, values in part.values.items()}, name)
        return Examples(inputs, factors, target.scaled(part.values[name][rows]))


def predicted_values(model: MultimodalVAE, batch: Batch, target: str, *, seed: int = 0) -> Values:
    """Imputes a modality from the others, shape (B, E): the point estimate, or for counts the mean of log(1 + x / s) over draws.

    Values of the target in the batch are hidden, but for the size factor s of its counts.
    """
    counts = counts_of(model.likelihoods[target])
    points, noise = fixed_points(model)
    parts = []
    with serving(model, seed):
        for part in chunks(batch, POINT_DRAWS * model.likelihoods[target].numbers):
            rows = part.to(model.device)
            z = point_draws(model.fixed_posterior(rows.hide(target), noise.to(model.device)), points)
            parts.append(scored_points(model, target, z, counts, model.decoder_of(target, rows), model.log_size(target, rows)))
    return torch.cat(parts).numpy()


def _usable(rows: Rows, target: str) -> Tensor:
    """Mask of the rows that have a modality and at least one other, boolean, shape (N,)."""
    absent = torch.zeros(len(rows), dtype=torch.bool)
    others = [mask.cpu() for name, mask in rows.present.items() if name != target]
    own = rows.present[target].cpu() if target in rows.present else absent
    return own & torch.stack(others or [absent]).any(0)
