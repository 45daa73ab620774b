"""Likely mistakes in data: columns without values, codes of missing cells, identifiers, twins; the same for each way to hand in rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from math import prod

import numpy as np
import torch

from nbridge.common.messages import clip, listing
from nbridge.common.warnings import Finding
from nbridge.data.batch import Batch
from nbridge.data.ids import counts_rows
from nbridge.data.patterns import numbered
from nbridge.models.base import MultimodalVAE
from nbridge.nn.likelihoods import Categorical, Likelihood
from nbridge.nn.mixed import Mixed
from nbridge.spec.columns import REAL
from nbridge.visual.modality_kinds import kind_of

ROWS_A_CLASS = 5
"""Minimum number of rows per class without a warning."""
FAR = 20
"""Distance from the median, in interquartile ranges, of outliers."""
MERGED = 0.9
"""Minimum share of distinct values that stay distinct in float32 without a warning."""
NAMED = 8
"""Maximum number of columns listed in a line."""

Names = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class _Element:
    """One element of a modality in all rows, NaN if missing."""

    modality: str
    label: str
    values: np.ndarray

    @property
    def known(self) -> np.ndarray:
        return self.values[~np.isnan(self.values)]


def likely_mistakes(model: MultimodalVAE, batch: Batch, labels: Names, classes: Names) -> Iterator[str]:
    """Likely mistakes in rows, one line each.

    Arguments:
        model: A model of their modalities.
        batch: The rows.
        labels: The names of the elements of each modality.
        classes: The names of the classes of categorical modalities, as far as they are known.
    """
    for name in model.names:
        yield from _dark(name, model.likelihoods[name], batch)
    twins = _Twins()
    # Single pixels are not checked: one in a corner is often the same in all images.
    for name, likelihood in model.likelihoods.items():
        if kind_of(likelihood) not in ("image", "text"):
            known = labels.get(name, ())
            if isinstance(likelihood, Mixed) and len(known) != likelihood.shape[0]:
                known = [likelihood.columns[number] for number in likelihood.column_of.tolist()]
            elements = map(twins.seen, _elements(batch, name, known, likelihood))
            if isinstance(likelihood, Categorical):
                deque(elements, maxlen=0)
                yield from _classes(name, likelihood, batch, classes.get(name, ()))
            elif isinstance(likelihood, Mixed):
                yield from _of_columns(name, likelihood, elements, known)
            else:
                yield from _of_numbers(name, likelihood, elements)
    yield from twins.lines


def _of_numbers(name: str, likelihood: Likelihood, elements: Iterable[_Element]) -> Iterator[str]:
    """Likely mistakes in the columns of a modality, which are read once, so that few are in memory."""
    skewed = likelihood.support.is_discrete
    bounded = skewed or hasattr(likelihood.support, "upper_bound")
    kinds: dict[str, list[str]] = {"empty": [], "same": [], "binary": [], "other": []}
    identifiers, far, merged = list[str](), list[str](), list[str]()
    standardised = hasattr(likelihood, "shift")
    for element in elements:
        known = np.unique(element.known)
        kind = "empty" if not len(known) else "same" if len(known) == 1 else "binary" if known.tolist() == [0, 1] else "other"
        kinds[kind].append(element.label)
        if standardised and kind == "other" and _merges(element.known):
            merged.append(element.label)
        identifiers += _identifiers(element)
        far += _outside(element, skewed=skewed)
    if kinds["same"]:
        yield f"modality {name!r}: {_some(kinds['same'])}: the same value in all rows; leave it out unless it varies in other data"
    if merged:
        yield f"modality {name!r}: {_some(merged)}: many values are equal in float32 once standardised; center or transform it, or split it"
    yield from (*identifiers, *far)
    if kinds["binary"] and not bounded and not any(kinds[kind] for kind in ("empty", "same", "other")):
        yield f"modality {name!r}: {_some(kinds['binary'])}: only 0 and 1; use likelihood: bernoulli"


def without_counts(model: MultimodalVAE, batch: Batch, origin: str = "") -> Iterator[str]:
    """Rows whose observed counts are all 0, in modalities with size factors, one line for each modality.

    Arguments:
        model: A model of the modalities.
        batch: The rows.
        origin: The file of the rows, if any.
    """
    for name, likelihood in model.likelihoods.items():
        if likelihood.has_size and name in batch.values:
            x = likelihood.canonical(batch.values[name])
            none = (torch.where(batch.cells[name], x, 0.0) if name in batch.cells else x).flatten(1).sum(1) == 0
            if rows := (none & batch.present[name]).nonzero()[:, 0].tolist():
                where = f"{origin}: " if origin else ""
                yield f"{where}modality {name!r}: depth 0, all counts are 0, in {numbered(rows)}; remove such rows, or mark them as missing"


def _of_columns(name: str, likelihood: Mixed, elements: Iterator[_Element], labels: Sequence[str]) -> Iterator[str]:
    """Likely mistakes in the columns of a mixed modality, by kind: 0 and 1 are no mistake in a binary column, nor counts far from most."""
    same, merged, binary, lines = list[str](), list[str](), list[str](), list[str]()
    for (column, kind), (start, stop) in zip(likelihood.kinds.items(), likelihood.spans, strict=True):
        # Read once, so that few are in memory.
        parts = list(islice(elements, stop - start))
        element = replace(parts[0], label=column)
        known = element.known
        if not len(known):
            continue
        if kind.width > 1:
            counts = [int((part.known == 1).sum()) for part in parts]
            if max(counts) == len(known):
                same.append(column)
            else:
                lines += _of_classes(f"modality {name!r}: {clip(column)}", counts, _class_names(column, labels[start:stop]))
            continue
        distinct = np.unique(known)
        if len(distinct) == 1:
            same.append(column)
        elif kind.binary:
            lines += (f"modality {name!r}: {clip(column)}: {value:g} in one row only" for value in distinct if (known == value).sum() == 1)
        else:
            merged += [column] if kind.type in REAL and _merges(known if kind.type == "normal" else np.log(known)) else []
            lines += (*_identifiers(element), *_outside(element, skewed=kind.type != "normal"))
            binary += [column] if kind.type in REAL and distinct.tolist() == [0, 1] else []
    if same:
        yield f"modality {name!r}: {_some(same)}: the same value in all rows; leave it out unless it varies in other data"
    if merged:
        yield f"modality {name!r}: {_some(merged)}: many values are equal in float32 once standardised; center or transform it, or split it"
    yield from lines
    if binary:
        yield f"modality {name!r}: {_some(binary)}: only 0 and 1; make it bernoulli"


def _class_names(column: str, labels: Sequence[str]) -> Sequence[str]:
    """The names of a column's classes, from labels such as ``stage=II``; none if they are not known."""
    prefix = f"{column}="
    return [label.removeprefix(prefix) for label in labels] if all(label.startswith(prefix) for label in labels) else ()


def never_observed(model: MultimodalVAE, rows: Batch, train: Batch, labels: Names) -> Iterator[Finding]:
    """Warns of elements without a value in any training row, of which nothing can be learnt.

    Arguments:
        model: A model of the modalities.
        rows: All rows.
        train: The training rows.
        labels: The names of the elements of each modality.
    """
    for name, likelihood in model.likelihoods.items():
        lacking, everywhere = _lacking(train, name), _lacking(rows, name)
        named = _names_of(likelihood, labels.get(name, ()))
        if never := _called(everywhere, named):
            yield Finding("unlearned", name, f"modality {name!r}: {_some(never)}: no value in any row; leave it out", {"elements": never})
        if some := _called(lacking - everywhere, named):
            text = f"modality {name!r}: {_some(some)}: no value in any training row, so that nothing is learnt about it; leave it out"
            yield Finding("unlearned", name, text, {"elements": some})


def _names_of(likelihood: Likelihood, labels: Sequence[str]) -> Mapping[int, str]:
    """The names of elements, by index; those of one column of a mixed modality have its name."""
    if isinstance(likelihood, Mixed):
        return {place: likelihood.columns[number] for place, number in enumerate(likelihood.column_of.tolist())}
    return dict(enumerate(labels))


def _called(places: Iterable[int], named: Mapping[int, str]) -> list[str]:
    """The names of elements, each once, or else their numbers."""
    return list(dict.fromkeys(named.get(place, str(place)) for place in sorted(places)))


def _lacking(batch: Batch, name: str) -> set[int]:
    """The elements of a modality without a value, by index."""
    if name not in batch.cells:
        return set()
    seen = (batch.cells[name] & batch.present[name].view(-1, *[1] * (batch.cells[name].ndim - 1))).any(0)
    return set((~seen.flatten()).nonzero().flatten().tolist())


def _elements(batch: Batch, name: str, labels: Sequence[str], likelihood: Likelihood) -> Iterator[_Element]:
    given = batch.values[name]
    # Canonical form has class indices instead of one-hot classes; other values are looked at in the precision of the data.
    x = likelihood.canonical(given)
    x = given if given.is_floating_point() and x.is_floating_point() and x.shape == given.shape else x
    x = x.reshape(len(x), prod(x.shape[1:]))
    observed = batch.present[name][:, None].expand(x.shape)
    if name in batch.cells:
        cells = batch.cells[name].flatten(1)
        observed = observed & (cells if cells.shape == x.shape else cells.all(1, keepdim=True))
    columns = zip(labels, x.unbind(1), observed.unbind(1), strict=True) if len(labels) == x.shape[1] else [(name, x[:, 0], observed[:, 0])]
    for label, values, seen in columns:
        yield _Element(name, label, np.where(seen.numpy(), values.double().numpy(), np.nan))


def _merges(values: np.ndarray) -> bool:
    """Whether float32 can't tell many distinct values apart after standardisation, as where one value is far from all others."""
    # A spread below the smallest normal number may be rounded to 0.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        standard = ((values - values.mean()) / values.std()).astype(np.float32)
    return bool(len(np.unique(standard)) < MERGED * len(np.unique(values)))


def _identifiers(element: _Element) -> Iterator[str]:
    known = element.known
    if len(known) < len(element.values) or len(known) < 2 * ROWS_A_CLASS or (known != np.floor(known)).any():
        return
    if len(np.unique(known)) == len(known) and counts_rows(known):
        yield f"modality {element.modality!r}: {clip(element.label)}: consecutive whole numbers; are they identifiers?"


def _outside(element: _Element, *, skewed: bool) -> Iterator[str]:
    """A few outliers, often codes of missing cells or values in other units; counts are compared on a log scale."""
    known = element.known
    if len(known) < 2 * ROWS_A_CLASS:
        return
    low, middle, high = np.quantile(known, [0.25, 0.5, 0.75])
    scale = (lambda x: np.log1p(np.maximum(x, 0))) if skewed else np.asarray
    far = np.abs(scale(element.values) - scale(middle)) > FAR * (scale(high) - scale(low))
    if high > low and 0 < far.sum() <= 0.1 * len(known):
        rows = np.flatnonzero(far).tolist()
        yield (
            f"modality {element.modality!r}: {clip(element.label)}: {element.values[rows[0]]:g} in {numbered(rows)}, far outside the "
            f"interquartile range {low:g} to {high:g}; is it an error, another unit, or a code for missing?"
        )


def _dark(name: str, likelihood: Likelihood, batch: Batch) -> Iterator[str]:
    """Images with values from 0 to 1 whose likelihood expects bytes."""
    high = getattr(likelihood.support, "upper_bound", None)
    if kind_of(likelihood) != "image" or high is None or not batch.present[name].any():
        return
    if (most := float(batch.values[name][batch.present[name]].nan_to_num().max())) <= high / 100:
        yield f"modality {name!r}: no value above {most:g}, but its likelihood has high: {high:g}; set its high"


def _classes(name: str, likelihood: Categorical, batch: Batch, names: Sequence[str]) -> Iterator[str]:
    known = likelihood.canonical(batch.values[name])[batch.present[name]].numpy()
    yield from _of_classes(f"modality {name!r}", np.bincount(known, minlength=likelihood.shape[0]).tolist(), names)


def _of_classes(where: str, counts: Sequence[int], names: Sequence[str]) -> Iterator[str]:
    """Classes in no row or in one row, or more classes than rows can tell apart."""
    if len(counts) * ROWS_A_CLASS > sum(counts):
        yield f"{where}: {len(counts):,} classes in {sum(counts):,} rows; is it a category at all?"
        return
    for number, what in ((0, "no row"), (1, "one row")):
        if few := [place for place, count in enumerate(counts) if count == number]:
            called = _some([names[one] for one in few]) if names else f"{_some([str(one) for one in few])} (counted from 0)"
            yield f"{where}: {what} of class{'es' if len(few) > 1 else ''} {called}"


class _Twins:
    """Identical columns in different modalities, from which each other is imputed too easily in evaluation."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._first: dict[bytes, tuple[str, str]] = {}

    def seen(self, element: _Element) -> _Element:
        """Compares an element with those before it, and returns it."""
        if len(np.unique(element.known)) > 1:
            own = element.modality, element.label
            other = self._first.setdefault(blake2b(element.values.tobytes()).digest(), own)
            if other[0] != own[0]:
                self.lines.append(
                    f"modalities {other[0]!r} and {own[0]!r}: {clip(other[1])} and {clip(own[1])} are the same in all rows, which makes "
                    "imputation look better than it is; leave one out"
                )
        return element


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return listing(clip(name) for name in names[:NAMED]) + more
