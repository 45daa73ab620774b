"""Splits that keep groups together, by a column of groups or a column of parts, and warnings about doubtful splits.

Validation and test metrics are honest only if held-out rows are new to the model. When rows of one patient, speaker or photograph fall into
several parts, the metrics reward memorisation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from nbridge.common.messages import clip, did_you_mean, listing
from nbridge.common.warnings import Finding
from nbridge.data.column import plain_array
from nbridge.data.rows import Rows
from nbridge.data.shared_items import FEWEST, item_labels, spelt, telling
from nbridge.data.split import Dataset, Splits
from nbridge.data.split_labels import Groups, NoColumnError, RowLabels, array_labels, check_undivided, groups_of, parts_of
from nbridge.errors import DataError

SHARED = 0.01
"""Fraction of held-out rows sharing an item with training rows above which to warn; at least two rows."""


def labels_of(arrays: Mapping[str, ArrayLike | Tensor], column: str) -> RowLabels:
    """The labels in one of several in-memory arrays.

    Arguments:
        arrays: The arrays by name.
        column: The name of the array.

    Raises:
        NoColumnError: when there is no such array, or it does not hold one value per row.
    """
    if column not in arrays:
        found = f"Found: {listing(arrays)}" if arrays else "these rows are a batch; pass arrays by name, or a data frame"
        raise NoColumnError(f"no array {clip(column)!r}.{did_you_mean(column, arrays)} {found}")
    return array_labels(f"array {clip(column)!r}", plain_array(arrays[column]))


def check_named(arrays: Mapping[str, ArrayLike | Tensor], named: Mapping[str, str], modalities: Collection[str]) -> None:
    """Checks that the arrays named by the spec exist; without them, other arrays would be reported as misspelt modalities.

    Arguments:
        arrays: The arrays by name.
        named: The names in the spec, by key.
        modalities: The modalities, which may be named as well.

    Raises:
        NoColumnError: for the first that is missing.
    """
    for key, column in named.items():
        if column not in modalities:
            _named(key, partial(labels_of, arrays), column)


def assigned(
    dataset: Dataset, labels: Callable[[str], RowLabels], *, group: str | None, split: str | None, held_out: bool = True
) -> tuple[Dataset, Groups | None]:
    """Attaches groups and parts to rows, from two columns.

    Arguments:
        dataset: All rows.
        labels: Reads a column by name.
        group: The column of groups, or a modality whose identical items form groups; None if rows are independent.
        split: The column of parts; None if parts are random or assigned by the source.
        held_out: Whether any rows are held out.

    Raises:
        DataError: when a column is missing, a row lacks a value or has an unknown part, a group has rows in two parts, or there is only
            one group.
    """
    if split is not None:
        if dataset.part is not None:
            raise DataError(f"data.split: {split!r}, but this data source assigns rows to parts itself; leave data.split out")
        dataset = replace(dataset, part=parts_of(_fitting(_named("split", labels, split), dataset)))
    if group is None:
        return dataset, None
    if dataset.groups is not None:
        raise DataError(f"data.group: {group!r}, but this data source has groups of its own; leave data.group out")
    groups = groups_of(_fitting(_group_labels(dataset, labels, group), dataset))
    if dataset.part is not None:
        check_undivided(groups, dataset.part)
    elif held_out and not groups.codes.any():
        text = f"all {len(groups.codes):,} rows are of group {groups.name(0)}, so none can be held out; name a column of several groups, "
        raise groups.labels.error("group", text + "or set data.validation and data.test to 0")
    return replace(dataset, groups=groups.codes), groups


def of_groups(groups: Groups | None, dataset: Dataset, splits: Splits, *, validation: float, test: float) -> Iterator[Finding]:
    """Warnings about groups: no group has two rows, or a part is far from its fraction.

    Arguments:
        groups: The groups of all rows; None if there are none.
        dataset: The rows that were split, with their groups.
        splits: The resulting parts.
        validation: The requested validation fraction.
        test: The requested test fraction.
    """
    if groups is None or dataset.groups is None:
        return
    codes, counts = np.unique(dataset.groups, return_counts=True)
    what = f"data.group ({groups.labels.what})"
    if counts.max() == 1:
        text = f"{what}: each of the {len(counts):,} rows is a group of its own, which has no effect; check the column"
        yield Finding("split", "", text, {"groups": len(counts)})
        return
    own = dataset.part is not None
    drawn = {} if own else {"test": (splits.test, test, len(dataset.batch))}
    if not own or not (dataset.part == "validation").any():
        drawn["validation"] = (splits.validation, validation, int((dataset.part == "train").sum()) if own else len(dataset.batch))
    largest = int(counts.argmax())
    for name, (rows, fraction, of) in drawn.items():
        wanted, count = round(fraction * of), 0 if rows is None else len(rows)
        if 2 * abs(count - wanted) > wanted:
            text = (
                f"{what}: {name} has {count:,} rows where data.{name} ({fraction:g}) asks for {wanted:,}, because groups are not split; "
                f"the largest of {len(counts):,}, {groups.name(int(codes[largest]))}, has {counts[largest]:,} of {of:,} rows"
            )
            yield Finding("split", "", text, {"part": name, "rows": count, "asked": wanted, "largest": int(counts[largest])})


def of_items(splits: Splits) -> Iterator[Finding]:
    """Warnings for modalities in which held-out rows share items with training rows beyond chance.

    Arguments:
        splits: The parts of all rows.
    """
    held = {name: rows for name, rows in (("validation", splits.validation), ("test", splits.test)) if rows is not None}
    for name in splits.train.names:
        trained = _items(splits.train, name)
        if len(trained) < FEWEST:
            continue
        for part, rows in held.items():
            digests = [item for item in _digests(rows, name) if item]
            shared = sum(item in trained for item in digests)
            if shared >= max(2, SHARED * len(digests)):
                text = (
                    f"modality {name!r}: {shared:,} of {len(digests):,} {part} rows share an item with training rows, so "
                    f"{part} metrics reward memorisation; data.group: {name} keeps rows of one item together, or name the column of "
                    "patients, speakers or photographs"
                )
                yield Finding("split", name, text, {"part": part, "rows": shared, "of": len(digests)})
                break


def _named(key: str, labels: Callable[[str], RowLabels], column: str) -> RowLabels:
    try:
        return labels(column)
    except NoColumnError as error:
        raise NoColumnError(f"data.{key}: {error}") from error


def _group_labels(dataset: Dataset, labels: Callable[[str], RowLabels], group: str) -> RowLabels:
    """The labels of a column, or of a modality if no column of that name has one value per row."""
    try:
        return _named("group", labels, group)
    except NoColumnError:
        if group not in dataset.batch.names:
            raise
    return item_labels(dataset.batch, group)


def _fitting(labels: RowLabels, dataset: Dataset) -> RowLabels:
    if len(labels.texts) != len(dataset.batch):
        origin = f"{labels.origin}: " if labels.origin else ""
        raise DataError(f"{origin}{labels.what}: {len(labels.texts)} values for {len(dataset.batch)} rows, expected one for each row")
    return labels


def _items(rows: Rows, name: str) -> set[str]:
    """The items of training rows; empty if the modality may repeat by chance."""
    sample = rows.select(name).representative()
    values = spelt(sample, name)[sample.present[name]].cpu().numpy()
    if not len(values) or not telling(values):
        return set()
    return {item for item in _digests(rows, name) if item}


def _digests(rows: Rows, name: str) -> list[str]:
    """A hash per row; empty where it is absent, or where all its elements are equal."""
    return list(item_labels(rows, name, plain=False).texts)
