"""Checks a spec against its data before training: reports all errors at once, and likely mistakes as warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from nbridge.common.messages import clip, listing
from nbridge.common.warnings import Finding
from nbridge.data.batch import Batch
from nbridge.data.group_split import of_items
from nbridge.data.patterns import numbered
from nbridge.data.split import Dataset
from nbridge.draft.columns import counts_rows
from nbridge.errors import DataError, SpecError
from nbridge.models.base import MultimodalVAE
from nbridge.models.support import SupportError, check_support
from nbridge.nn.likelihoods import Categorical, Likelihood
from nbridge.spec.spec import Spec
from nbridge.training.build import build_data, build_model, source_of
from nbridge.training.trainer import check_stages
from nbridge.visual.modality_kinds import kind_of

ROWS_A_CLASS = 5
"""Minimum number of rows per class without a warning."""
FAR = 20
"""Distance from the median, in interquartile ranges, of outliers."""
NAMED = 8
"""Maximum number of columns listed in a line."""


@dataclass(frozen=True)
class Checked:
    """The result of the checks: errors that prevent training and likely mistakes, one line each.

    Observed masks, (N,), are by modality; there are none if rows could not be read.
    """

    errors: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    rows: int = 0
    present: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class _Element:
    """One element of a modality in all rows, NaN if missing."""

    modality: str
    label: str
    values: np.ndarray

    @property
    def known(self) -> np.ndarray:
        return self.values[~np.isnan(self.values)]


def check_data(spec: Spec) -> Checked:
    """Checks shapes, supports, identifiers and splits of the data of a spec, and looks for likely mistakes."""
    shapes = {name: modality.shape for name, modality in spec.modalities.items()}
    try:
        source = source_of(spec)
        if errors := source.mistakes(shapes):
            return Checked(errors)
        dataset = source.load(shapes)
        labels, classes = source.element_names(shapes), source.class_names(shapes)
    except (DataError, SpecError) as error:
        return Checked(tuple(str(error).splitlines()))
    model = build_model(spec)
    model.choose_widths(dataset.batch.representative())
    errors = tuple(_unsupported(model, dataset))
    findings: list[Finding] = []
    if not errors:
        try:
            splits = build_data(spec, model, warn=findings.append)
            check_stages(model, splits.train.through(model.prepare), spec.training)
            findings += of_items(splits) if spec.data.group is None and dataset.groups is None else ()
        except DataError as error:
            errors = (str(error),)
    batch = dataset.batch.representative()
    present = {name: mask.numpy() for name, mask in dataset.batch.present.items()}
    warnings = (*source.remarks(shapes), *(finding.text for finding in findings), *_doubts(model, batch, labels, classes))
    return Checked(errors, warnings, len(dataset.batch), present)


def _unsupported(model: MultimodalVAE, dataset: Dataset) -> Iterator[str]:
    """Values outside the support of their likelihood, one line per modality."""
    origin = f"{dataset.origin}: " if dataset.origin else ""
    batch = dataset.batch.representative()
    for name, likelihood in model.likelihoods.items():
        try:
            check_support({name: likelihood}, batch.select(name))
        except SupportError as error:
            yield str(error.at(dataset.place)) if dataset.place is not None else f"{origin}{error}"
        except DataError as error:
            yield f"{origin}{error}"


def _doubts(model: MultimodalVAE, batch: Batch, labels: Mapping[str, Sequence[str]], classes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Likely mistakes, one line each."""
    for name in model.names:
        yield from _dark(name, model.likelihoods[name], batch)
    # Single pixels are not checked: one in a corner is often the same in all images.
    plain = {name: likelihood for name, likelihood in model.likelihoods.items() if kind_of(likelihood) != "image"}
    elements = [element for name, likelihood in plain.items() for element in _elements(batch, name, labels[name], likelihood)]
    for name, likelihood in plain.items():
        if isinstance(likelihood, Categorical):
            yield from _classes(name, likelihood, batch, classes.get(name, ()))
        else:
            own = [element for element in elements if element.modality == name]
            yield from _constant(name, own)
            yield from _identifiers(own)
            yield from _outside(own, skewed=likelihood.support.is_discrete)
            yield from _binary(name, likelihood, own)
    yield from _twins(elements)


def _elements(batch: Batch, name: str, labels: Sequence[str], likelihood: Likelihood) -> Iterator[_Element]:
    x = likelihood.canonical(batch.values[name]).double()
    # Canonical form has class indices instead of one-hot classes.
    x = x.reshape(len(x), prod(x.shape[1:]))
    observed = batch.present[name][:, None].expand(x.shape)
    if name in batch.cells:
        cells = batch.cells[name].flatten(1)
        observed = observed & (cells if cells.shape == x.shape else cells.all(1, keepdim=True))
    values = np.where(observed.numpy(), x.numpy(), np.nan)
    if len(labels) == values.shape[1]:
        yield from (_Element(name, label, values[:, place]) for place, label in enumerate(labels))
    else:
        yield _Element(name, name, values[:, 0])


def _constant(name: str, elements: Sequence[_Element]) -> Iterator[str]:
    empty = [element.label for element in elements if not element.known.size]
    same = [element.label for element in elements if element.known.size and element.known.min() == element.known.max()]
    if empty:
        yield f"modality {name!r}: {_some(empty)}: no value in any row; leave it out"
    if same:
        yield f"modality {name!r}: {_some(same)}: the same value in all rows; leave it out unless it varies in other data"


def _identifiers(elements: Sequence[_Element]) -> Iterator[str]:
    for element in elements:
        known = element.known
        if len(known) < len(element.values) or len(known) < 2 * ROWS_A_CLASS or (known != np.floor(known)).any():
            continue
        if len(np.unique(known)) == len(known) and counts_rows(known):
            yield f"modality {element.modality!r}: {clip(element.label)}: consecutive whole numbers; are they identifiers?"


def _outside(elements: Sequence[_Element], *, skewed: bool) -> Iterator[str]:
    """A few outliers, often codes of missing cells or values in other units; counts are compared on a log scale."""
    for element in elements:
        known = element.known
        if len(known) < 2 * ROWS_A_CLASS:
            continue
        low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
        scale = (lambda x: np.log1p(np.maximum(x, 0))) if skewed else np.asarray
        far = np.abs(scale(element.values) - scale(middle)) > FAR * (scale(high) - scale(low))
        if high > low and 0 < far.sum() <= 0.1 * len(known):
            rows = np.flatnonzero(far).tolist()
            yield (
                f"modality {element.modality!r}: {clip(element.label)}: {element.values[rows[0]]:g} in {numbered(rows)}, far outside the "
                f"interquartile range {low:g} to {high:g}; is it an error, another unit, or a code for missing?"
            )


def _binary(name: str, likelihood: Likelihood, elements: Sequence[_Element]) -> Iterator[str]:
    if likelihood.support.is_discrete or hasattr(likelihood.support, "upper_bound"):
        return
    both = [element.label for element in elements if element.known.size and set(np.unique(element.known).tolist()) == {0.0, 1.0}]
    if both and len(both) == len(elements):
        yield f"modality {name!r}: {_some(both)}: only 0 and 1; use likelihood: bernoulli"


def _dark(name: str, likelihood: Likelihood, batch: Batch) -> Iterator[str]:
    """Images with values from 0 to 1 whose likelihood expects bytes."""
    high = getattr(likelihood.support, "upper_bound", None)
    if kind_of(likelihood) != "image" or high is None or not batch.present[name].any():
        return
    if (most := float(batch.values[name][batch.present[name]].nan_to_num().max())) <= high / 100:
        yield f"modality {name!r}: no value above {most:g}, but its likelihood has high: {high:g}; set its high"


def _classes(name: str, likelihood: Categorical, batch: Batch, names: Sequence[str]) -> Iterator[str]:
    known = likelihood.canonical(batch.values[name])[batch.present[name]].numpy()
    counts = np.bincount(known, minlength=likelihood.shape[0])
    if likelihood.shape[0] * ROWS_A_CLASS > len(known):
        yield f"modality {name!r}: {likelihood.shape[0]:,} classes in {len(known):,} rows; is it a category at all?"
        return
    for number, what in ((0, "no row"), (1, "one row")):
        if few := np.flatnonzero(counts == number).tolist():
            called = _some([names[one] for one in few]) if names else f"{_some([str(one) for one in few])} (counted from 0)"
            yield f"modality {name!r}: {what} of class{'es' if len(few) > 1 else ''} {called}"


def _twins(elements: Sequence[_Element]) -> Iterator[str]:
    """Identical columns in different modalities, from which each other is imputed too easily in evaluation."""
    seen: dict[bytes, _Element] = {}
    for element in elements:
        if len(np.unique(element.known)) < 2:
            continue
        other = seen.setdefault(element.values.tobytes(), element)
        if other.modality != element.modality:
            yield (
                f"modalities {other.modality!r} and {element.modality!r}: {clip(other.label)} and {clip(element.label)} are the same in "
                "all rows, which makes imputation look better than it is; leave one out"
            )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return listing(clip(name) for name in names[:NAMED]) + more
