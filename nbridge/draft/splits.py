"""Infers how to split rows: from columns of groups (patients) or splits, and from items that several rows share."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from nbridge.common.messages import clip, listing
from nbridge.data.batch import Batch
from nbridge.data.column_names import hint_of, words_of
from nbridge.data.ids import identifier_of
from nbridge.data.shared_items import FEWEST, item_digests, plain_items, telling
from nbridge.data.split import Dataset, split
from nbridge.data.split_labels import PART_OF, RowLabels, check_undivided, groups_of, parts_of
from nbridge.data.tables.profiles import Profile
from nbridge.errors import DataError

REPEATED = 0.9
"""Maximum share of distinct values in a column of groups."""
SHARED_ROWS = 0.05
"""Minimum share of rows with repeated items for items to define groups."""
SHARES = 0.1
"""The shares of validation rows and of test rows in a draft spec."""
SMALL = 40
"""With fewer rows, a draft spec holds out none."""

WHO = (
    *("patient", "participant", "donor", "speaker", "person", "individual", "user", "customer", "client", "animal"),
    *("member", "subject", "household", "family", "site"),
)
"""Words for groups, most likely first."""
_ALONE = tuple(who for who in WHO if who != "member")
"""Words that are sufficient without ``id``; members are often numbered from 1 within a family or household."""
_CLASSES = frozenset({"subject", "household", "family", "site"})
"""Words that also name classes (school subject, plant family, tumour site); their values must be codes."""
_ID = r"(?:[_.\- ]?(?:id|ids|no|nr|num|number|code|key|index|name))"
_GROUP = re.compile(rf"(?:.*[_.\- ])?(?P<long>{'|'.join(WHO)})s?{_ID}|(?P<bare>{'|'.join(_ALONE)})", re.IGNORECASE)
_SPLIT = re.compile(r"(?:.*[_.\- ])?(?:split|fold|part|partition|set|subset)", re.IGNORECASE)

Texts = Callable[[], Sequence[str]]
"""Returns the values of a column as text, one per row, empty if missing."""


@dataclass(frozen=True)
class SplitKeys:
    """The split options of a draft spec: the column or modality for ``group`` and ``split``, with comments by option and remarks.

    Further columns of groups or splits are left out; remarks give the reasons.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def taken(self) -> frozenset[str]:
        """The columns that are not in modalities."""
        return frozenset((*self.options.values(), *self.left_out))


def keys_among(columns: Mapping[str, Texts]) -> SplitKeys:
    """Finds the columns of groups and splits.

    Example:
        >>> found = keys_among({"patient_id": lambda: [f"p{row // 3}" for row in range(60)], "age": lambda: ["30"] * 60})
        >>> found.options
        {'group': 'patient_id'}
    """
    parts = {name: texts for name, values in columns.items() if _SPLIT.fullmatch(name) and _are_parts(texts := values())}
    keys = _with_split(SplitKeys(), parts) if parts else SplitKeys()
    named = {name: found for name in columns if name not in keys.taken and (found := _who(name))}
    for name, (who, bare) in sorted(named.items(), key=lambda item: WHO.index(item[1][0])):
        texts = columns[name]()
        if not _are_groups(texts, who, bare=bare):
            continue
        return _with_group(keys, name, texts, "families" if who == "family" else f"{who}s", next(iter(parts.values()), None))
    return keys


def keys_of_items(keys: SplitKeys, items: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> SplitKeys:
    """Adds a modality with repeated items as the group, unless columns define groups or splits.

    Items are the name of each modality, its values :math:`(N, ...)`, NaN in missing cells, and its observed mask, :math:`(N,)`.
    """
    labels = [RowLabels(name, _digests(values, there), alone=True) for name, values, there in items if there.any()]
    return keys_of_labels(keys, labels)


def keys_of_labels(keys: SplitKeys, items: Iterable[RowLabels]) -> SplitKeys:
    """Like `keys_of_items`, for items with labels, such as the paths of photographs."""
    if keys.options:
        return keys
    shared = {one.what: one for one in items if _repeat(one.texts)}
    if not shared:
        return keys
    best, *others = sorted(shared.values(), key=lambda one: len(set(one.texts)))
    count, rows = len(set(best.texts) - {""}), len(best.texts)
    if not _dividable(best):
        return replace(keys, remarks=(*keys.remarks, f"{clip(best.what)}: {count:,} items in {rows:,} rows, too few to hold some out"))
    why = f"{_shared_rows(best.texts):,} of {rows:,} rows share their {best.what} with others ({count:,} different)"
    remark = f"data.group: {clip(best.what)}: {why}, so that rows of one are kept in one part"
    more = f"{listing(clip(one.what) for one in others)}: repeat as well, and data.group names one; rows that share another may be divided"
    remarks = (*keys.remarks, remark, *([more] if others else []))
    options, reasons = {**keys.options, "group": best.what}, {**keys.reasons, "group": f"{why}; {_STAY}"}
    return SplitKeys(options, reasons, remarks, keys.left_out)


def file_labels(name: str, files: Sequence[Path], ids: Sequence[str]) -> RowLabels:
    """Labels the images of a folder by content; only files of equal size are read. Files are named by identifiers."""
    sizes = {path: path.stat().st_size for path in files}
    counts = Counter(sizes.values())
    known = {identifier_of(path.stem): _content(path) if counts[size] > 1 else path.name for path, size in sizes.items()}
    return RowLabels(name, [known.get(text, "") for text in ids], alone=True)


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def column_texts(profile: Profile) -> list[str]:
    """The values of a table column as text, empty if missing."""
    return np.array([*profile.texts, ""], dtype=object)[profile.codes].tolist()


_STAY = "they stay in one part: else validation praises what was memorised"


def _who(name: str) -> tuple[str, bool] | None:
    """The word for groups in a column name, and whether it is without ``id``; None if there is none."""
    if found := _GROUP.fullmatch(name):
        return (found["long"] or found["bare"]).lower(), found["bare"] is not None
    who = words_of(name)[-1] if hint_of(name) == "owner" else ""
    return (who, True) if who in _ALONE else None


def _are_parts(texts: Sequence[str]) -> bool:
    """Whether values assign rows to training and at least one other split."""
    parts = [PART_OF.get(text.casefold(), "") for text in set(texts)]
    return "train" in parts and len(set(parts)) > 1 and "" not in parts and sum(PART_OF[text.casefold()] == "train" for text in texts) > 1


def _are_groups(texts: Sequence[str], who: str, *, bare: bool) -> bool:
    """Whether values are complete and repeat, and are codes if the name is ambiguous."""
    different = set(texts)
    if "" in different or not FEWEST <= len(different) <= REPEATED * len(texts):
        return False
    return not (bare and who in _CLASSES) or all(any(letter.isdigit() for letter in text) for text in different)


def _with_split(keys: SplitKeys, parts: Mapping[str, Sequence[str]]) -> SplitKeys:
    (name, texts), *others = parts.items()
    counts = Counter(PART_OF[text.casefold()] for text in texts)
    found = listing(f"{part} {counts[part]:,}" for part in ("train", "validation", "test") if part in counts)
    remark = f"data.split: {clip(name)}: assigns rows to parts, {found}"
    reasons = {"split": f"assigns rows to parts: {found}; shares below of parts that it has count for nothing"}
    left_out = tuple(other for other, _ in others)
    more = [f"left out: {listing(map(clip, left_out))}: assigns rows to parts as well, and data.split names one column"] if others else []
    return SplitKeys({**keys.options, "split": name}, {**keys.reasons, **reasons}, (*keys.remarks, remark, *more), left_out)


def _with_group(keys: SplitKeys, name: str, texts: Sequence[str], what: str, parts: Sequence[str] | None) -> SplitKeys:
    labels = RowLabels(clip(name), texts)
    count = len(set(texts))
    if parts is not None:
        try:
            check_undivided(groups_of(labels), parts_of(RowLabels("", parts)))
        except DataError:
            text = (
                f"{clip(name)}: rows of one of its {count:,} values are in several parts of data.split, so that figures are too good; to "
            )
            text += f"keep them together, write data.group: {clip(name)} in place of data.split"
            return replace(keys, remarks=(*keys.remarks, text), left_out=(*keys.left_out, name))
    elif not _dividable(labels):
        text = f"{clip(name)}: {count:,} {what}, too unlike in size to hold some out by data.group"
        return replace(keys, remarks=(*keys.remarks, text), left_out=(*keys.left_out, name))
    why = f"{len(texts):,} rows of {count:,} {what}"
    remark = f"data.group: {clip(name)}: {why}; rows of one are kept in one part"
    options, reasons = {**keys.options, "group": name}, {**keys.reasons, "group": f"{why}; {_STAY}"}
    return SplitKeys(options, reasons, (*keys.remarks, remark), keys.left_out)


def _dividable(labels: RowLabels) -> bool:
    """Whether groups can be split into the shares of a draft spec."""
    rows = len(labels.texts)
    if rows < SMALL:
        return True
    try:
        dataset = Dataset(Batch.complete({"x": torch.zeros(rows, 1)}), groups=groups_of(labels).codes)
        split(dataset, validation=SHARES, test=SHARES, seed=0)
    except DataError:
        return False
    return True


def _digests(values: np.ndarray, there: np.ndarray) -> list[str]:
    """Digests of the items of rows; empty for a modality whose rows agree by chance."""
    if not telling(values[there]):
        return [""] * len(values)
    return item_digests(values, there & ~plain_items(values))


def _repeat(texts: Sequence[str]) -> bool:
    """Whether many rows share their labels, with too many labels for classes."""
    rows = sum(map(bool, texts))
    return len(set(texts) - {""}) >= FEWEST and _shared_rows(texts) >= max(2, SHARED_ROWS * rows)


def _shared_rows(texts: Sequence[str]) -> int:
    """The number of rows whose label occurs in other rows."""
    counts = Counter(filter(None, texts))
    return sum(count for count in counts.values() if count > 1)
