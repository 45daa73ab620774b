"""A spec against its data, before anything is trained: what is wrong, all of it at once, and what is likely a mistake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from nbridge.common.messages import clip, listing
from nbridge.common.warnings import Finding
from nbridge.data.batch import Batch
from nbridge.data.group_split import of_items
from nbridge.data.numpy.npz import NPZ
from nbridge.data.omics.source import H5MU
from nbridge.data.patterns import numbered
from nbridge.data.split import Dataset, Source
from nbridge.data.tables.layout import TableLayout
from nbridge.data.tables.source import Table
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
"""Fewer rows than this for each class are few."""
FAR = 20
"""Quartile ranges from the median that are far outside."""
NAMED = 8
"""Columns that one line names."""


@dataclass(frozen=True)
class Checked:
    """What was found.

    Arguments:
        errors: What forbids training, a line each.
        warnings: What is worth a second look, a line each.
        rows: The number of rows.
        present: The presence of each modality, (N,); of none where rows could not be read.
    """

    errors: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    rows: int = 0
    present: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class _Element:
    """One number of each row: NaN where it is absent."""

    modality: str
    label: str
    values: np.ndarray

    @property
    def known(self) -> np.ndarray:
        return self.values[~np.isnan(self.values)]


def check_data(spec: Spec) -> Checked:
    """Checks the rows that a spec names: shapes, supports, identifiers and splits; and looks for what is likely a mistake.

    Arguments:
        spec: A spec that holds.
    """
    shapes = {name: modality.shape for name, modality in spec.modalities.items()}
    try:
        source = source_of(spec)
        if isinstance(source, Table | H5MU) and (errors := source.mistakes(shapes)):
            return Checked(errors)
        dataset = source.load(shapes)
        labels, classes = _labels(source, shapes), _classes_of(source, shapes)
    except (DataError, SpecError) as error:
        return Checked(tuple(str(error).splitlines()))
    model = build_model(spec)
    errors = tuple(_unsupported(model, dataset))
    heard: list[Finding] = []
    if not errors:
        try:
            splits = build_data(spec, model, warn=heard.append)
            check_stages(model, splits.train.through(model.prepare), spec.training)
            heard += of_items(splits) if spec.data.group is None and dataset.groups is None else ()
        except DataError as error:
            errors = (str(error),)
    batch = dataset.batch.representative()
    present = {name: mask.numpy() for name, mask in dataset.batch.present.items()}
    warnings = (*source.remarks(shapes), *(finding.text for finding in heard), *_doubts(model, batch, labels, classes))
    return Checked(errors, warnings, len(dataset.batch), present)


def _labels(source: Source, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """What the elements of a modality are called: by their columns or variables, where they have any."""
    if isinstance(source, H5MU):
        return source.labels(shapes)
    if isinstance(source, Table):
        layout = source.layout(shapes, source.files(shapes))
        return {name: _element_names(layout, name) for name in shapes}
    return {name: [name] if prod(shape) == 1 else [f"{name}[{i}]" for i in range(prod(shape))] for name, shape in shapes.items()}


def _classes_of(source: Source, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Sequence[str]]:
    """What the classes of a modality are called, where they have names."""
    if isinstance(source, H5MU | NPZ):
        return {name: tuple(map(str, texts)) for name, texts in source.classes.items()}
    if not isinstance(source, Table):
        return {}
    layout = source.layout(shapes, source.files(shapes))
    return {name: layout.classes.get(layout.columns[name][0], ()) for name in shapes if layout.is_index(name)}


def _element_names(layout: TableLayout, name: str) -> list[str]:
    if layout.is_index(name):
        return list(layout.columns[name])
    names: list[str] = []
    for one in layout.fields(name):
        several = one.classes and [f"{one.column}={text}" for text in one.classes]
        names += [one.column] if one.stop - one.start == 1 else several or [f"{one.column}[{i}]" for i in range(one.stop - one.start)]
    return names


def _unsupported(model: MultimodalVAE, dataset: Dataset) -> Iterator[str]:
    """Values outside the support of their likelihood: a line for each modality."""
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
    """What is likely a mistake, a line each."""
    for name in model.names:
        yield from _dark(name, model.likelihoods[name], batch)
    # A pixel says little by itself: that of a corner is often the same in all images.
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
    # One-hot classes have become their numbers.
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
        yield f"modality {name!r}: {_some(empty)}: no value in any row, so nothing can be learned of it; leave it out"
    if same:
        yield f"modality {name!r}: {_some(same)}: the same value in all rows; leave it out, unless it is to vary elsewhere"


def _identifiers(elements: Sequence[_Element]) -> Iterator[str]:
    for element in elements:
        known = element.known
        if len(known) < len(element.values) or len(known) < 2 * ROWS_A_CLASS or (known != np.floor(known)).any():
            continue
        if len(np.unique(known)) == len(known) and counts_rows(known):
            yield f"modality {element.modality!r}: {clip(element.label)}: whole numbers that count the rows; are they identifiers?"


def _outside(elements: Sequence[_Element], *, skewed: bool) -> Iterator[str]:
    """Few values, far from all others: often the mark of an absent cell, or another unit; counts are compared by their logs."""
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
                f"modality {element.modality!r}: {clip(element.label)}: {element.values[rows[0]]:g} in {numbered(rows)}, far outside of "
                f"{low:g} to {high:g}, the middle half; is it an error, another unit, or the mark of an absent cell?"
            )


def _binary(name: str, likelihood: Likelihood, elements: Sequence[_Element]) -> Iterator[str]:
    if likelihood.support.is_discrete or hasattr(likelihood.support, "upper_bound"):
        return
    both = [element.label for element in elements if element.known.size and set(np.unique(element.known).tolist()) == {0.0, 1.0}]
    if both and len(both) == len(elements):
        yield f"modality {name!r}: {_some(both)}: 0 and 1 alone; use likelihood: bernoulli"


def _dark(name: str, likelihood: Likelihood, batch: Batch) -> Iterator[str]:
    """Images from 0 to 1 of which a likelihood expects bytes."""
    high = getattr(likelihood.support, "upper_bound", None)
    if kind_of(likelihood) != "image" or high is None or not batch.present[name].any():
        return
    if (most := float(batch.values[name][batch.present[name]].nan_to_num().max())) <= high / 100:
        yield f"modality {name!r}: no value above {most:g}, and its likelihood has them up to {high:g}; set its high"


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
    """Columns of different modalities that say the same: what one of them is imputed from would not be there when it is needed."""
    seen: dict[bytes, _Element] = {}
    for element in elements:
        if len(np.unique(element.known)) < 2:
            continue
        other = seen.setdefault(element.values.tobytes(), element)
        if other.modality != element.modality:
            yield (
                f"modalities {other.modality!r} and {element.modality!r}: {clip(other.label)} and {clip(element.label)} hold the same in "
                "all rows, so that imputation seems better than it is wherever both are there; leave one out"
            )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return listing(clip(name) for name in names[:NAMED]) + more
