"""Measures the verdict: hides each modality in turn and imputes it from the row's other modalities, with the model and with a baseline.

Both are scored on the same held-out rows. Everything is seeded. Large data are sampled so that this takes seconds; each
`nbridge.evaluation.verdict.BaselineComparison` gives the sample sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from nbridge.common.autograd import gradients
from nbridge.common.process_state import one_thread
from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.data.split import Splits
from nbridge.evaluation.advice import advise, format_advice, summarise_training
from nbridge.evaluation.baseline_inputs import ModalityInputs, blocks_of, inputs_of
from nbridge.evaluation.baselines import Examples, constant_prediction, select_baseline
from nbridge.evaluation.paired import paired
from nbridge.evaluation.targets import RegressionTarget, Target, Values, targets_of, values_of
from nbridge.evaluation.verdict import CHOOSING, MIN_ROWS, BaselineComparison, Verdict, outcome_of
from nbridge.inference.impute import POINT_DRAWS, chunks, decode, fixed_points, point_draws, serving
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Categorical
from nbridge.nn.text_likelihood import Text
from nbridge.spec.spec import Spec
from nbridge.training.progress import EpochRecord

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
    if len(model.names) < 2:
        return Verdict(split, reason="the model has only one modality, so there are no others to impute it from")
    serving_rows = {name: _usable(held, name) for name in model.names}
    if max(int(mask.sum()) for mask in serving_rows.values()) < MIN_ROWS:
        return Verdict(split, tuple(_not_tested(name, int(mask.sum()), split, model) for name, mask in serving_rows.items()))
    with one_thread():
        return _BaselineComparer(model, spec, splits, held, split, seed).verdict(records)


def _not_tested(name: str, rows: int, split: str, model: MultimodalVAE) -> BaselineComparison:
    figure = "accuracy" if isinstance(model.likelihoods[name], Categorical | Text) else "rmse"
    return BaselineComparison(name, "", figure, rows, reason=_too_few(rows, split))


def _too_few(rows: int, split: str) -> str:
    return f"{rows} {split} row{'s' if rows != 1 else ''}, {MIN_ROWS} needed"


@dataclass(frozen=True)
class _Sample:
    """A sample of rows, their values, and the indices of the rows that can be used for each target."""

    batch: Batch
    values: Mapping[str, Values]
    serving: Mapping[str, Tensor]

    def of(self, target: str, most: int) -> np.ndarray:
        """Indices of at most ``most`` rows that can be used for a target."""
        return self.serving[target][:most].numpy()


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
        for name in self.model.names:
            for whole, parts in self._of_modality(name):
                modalities.append(whole)
                columns += parts
                if whole.outcome == "worse":
                    advice.append((name, advise(whole, self.model.likelihoods[name], self.train.values[name], trained)))
        return Verdict(self.split, tuple(modalities), tuple(columns), format_advice(advice))

    @cached_property
    def train(self) -> _Sample:
        return self._sampled(self.splits.train, TRAIN_ROWS)

    @cached_property
    def test(self) -> _Sample:
        return self._sampled(self.held, TEST_ROWS)

    @cached_property
    def choosing(self) -> _Sample | None:
        """Rows that choose the baseline: validation rows, unless they are compared on."""
        validation = self.splits.validation
        return None if self.split == "validation" or validation is None else self._sampled(validation, TEST_ROWS)

    @cached_property
    def blocks(self) -> dict[str, ModalityInputs]:
        return blocks_of(self.model, self.train.values, self.seed)

    def _sampled(self, rows: Rows, most: int) -> _Sample:
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
        return _Sample(batch, values, {name: _usable(batch, name).nonzero()[:, 0] for name in self.model.names})

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

    def _compared(
        self, name: str, target: Target, fitted_on: np.ndarray, rows: np.ndarray, predicted: Values
    ) -> tuple[BaselineComparison, list[BaselineComparison]]:
        train, test = self._examples(self.train, name, target, fitted_on), self._examples(self.test, name, target, rows)
        predictor, baseline = select_baseline(target, train, self._choosing_rows(name, target), self.seed)
        ours = target.scores(test.truth, target.scaled(predicted, logged=True))
        theirs = target.scores(test.truth, baseline(test.inputs))
        plain = target.scores(test.truth, constant_prediction(target, train))
        root = isinstance(target, RegressionTarget)

        def compared(column: str, places: slice, columns: tuple[int, int]) -> BaselineComparison:
            done = paired(ours[:, places], theirs[:, places], root=root)
            result = BaselineComparison(name, column, target.figure, done.rows, train_rows=len(train.truth), columns=columns)
            if done.rows < MIN_ROWS:
                return replace(result, reason=_too_few(done.rows, self.split))
            constant = paired(plain[:, places], plain[:, places], root=root).model
            result = replace(result, model=done.model, baseline=done.baseline, constant=constant, predictor=predictor)
            return replace(result, standard_error=done.standard_error, outcome=outcome_of(result.lead, done.standard_error))

        whole = compared("", slice(None), (len(target.names), target.of_columns))
        single = len(target.names) == 1 and target.names[0] in ("", name)
        each = [] if single else [compared(label, slice(place, place + 1), (1, 1)) for place, label in enumerate(target.names)]
        return whole, each

    def _choosing_rows(self, name: str, target: Target) -> Examples | None:
        if self.choosing is None or len(rows := self.choosing.of(name, TEST_ROWS)) < CHOOSING:
            return None
        return self._examples(self.choosing, name, target, rows)

    def _examples(self, part: _Sample, name: str, target: Target, rows: np.ndarray) -> Examples:
        inputs, factors = inputs_of(self.blocks, {other: values[rows] for other, values in part.values.items()}, name)
        return Examples(inputs, factors, target.scaled(part.values[name][rows]))


def predicted_values(model: MultimodalVAE, batch: Batch, target: str, *, seed: int = 0) -> Values:
    """Imputes a modality from the others, shape (B, E): the point estimate, or for counts the mean of log(1 + x) over draws.

    Values of the target in the batch are hidden.
    """
    counts = model.likelihoods[target].support is constraints.nonnegative_integer
    points, noise = fixed_points(model)
    parts = []
    with serving(model, seed):
        for part in chunks(batch.hide(target), POINT_DRAWS * model.likelihoods[target].numbers):
            z = point_draws(model.fixed_posterior(part.to(model.device), noise.to(model.device)), points)
            if counts:
                # Minimises the squared error of log(1 + x), the scale that the baselines are fitted on.
                parts.append(torch.log1p(decode(model, target, z, noise=True).double()).mean(0).cpu())
            else:
                parts.append(decode(model, target, z, point=True).cpu())
    values = torch.cat(parts)
    return values.reshape(len(values), -1).double().numpy()


def _usable(rows: Rows, target: str) -> Tensor:
    """Mask of the rows that have a modality and at least one other, boolean, shape (N,)."""
    absent = torch.zeros(len(rows), dtype=torch.bool)
    others = [mask.cpu() for name, mask in rows.present.items() if name != target]
    own = rows.present[target].cpu() if target in rows.present else absent
    return own & torch.stack(others or [absent]).any(0)
