"""Presence patterns: which modalities rows have together, in training and at inference.

A pattern is a string with a 1 or a 0 per modality, in the model's order: ``"101"`` is a row with the first and the third.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from nbridge.common.messages import listing, some_of
from nbridge.common.warnings import Finding

KEPT = 1000
"""Number of patterns kept with a model, the most frequent."""
NAMED = 3
"""Number of items of a longer list named in a message."""
LONG = 3
"""Above this number of names, messages list the absent modalities if these are fewer."""


@dataclass(frozen=True)
class Patterns:
    """The presence patterns of the training rows.

    Arguments:
        names: The modalities, in order.
        rows: The number of rows of each pattern, the most frequent first.
        others: The number of rarer patterns that are not kept.
        other_rows: The number of their rows.
        never: The elements without a value in any training row, by modality.
    """

    names: tuple[str, ...]
    rows: Mapping[str, int]
    others: int = 0
    other_rows: int = 0
    never: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, names: Sequence[str], present: Mapping[str, Tensor], kept: int = KEPT) -> Patterns:
        """Counts the patterns of rows.

        Arguments:
            names: The modalities, in order.
            present: Boolean masks by modality, shape (N,); a modality without one is absent from every row.
            kept: The number of patterns to keep.

        Example:
            >>> Patterns.of(["x", "y"], {"x": torch.tensor([True, True, False]), "y": torch.tensor([True, True, True])}).rows
            {'11': 2, '01': 1}
        """
        # Ties put fuller patterns first, so that the order depends on the rows alone.
        ordered = sorted(count(names, present).items(), key=lambda item: (-item[1], item[0].count("0"), item[0]))
        rest = ordered[kept:]
        return cls(tuple(names), dict(ordered[:kept]), len(rest), sum(number for _, number in rest))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Patterns:
        """Inverse of `as_dict`.

        Raises:
            ValueError: when the dictionary is malformed.
        """
        found = cls(tuple(content["names"]), dict(content["rows"]), content["others"], content["other_rows"], content.get("never", {}))
        numbers = [*found.rows.values(), found.others, found.other_rows]
        if not all(isinstance(text, str) for elements in dict(found.never).values() for text in elements):
            raise ValueError("names of elements are not text")
        if any(set(pattern) - {"0", "1"} or len(pattern) != len(found.names) for pattern in found.rows):
            raise ValueError("patterns of other modalities")
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError("invalid numbers of rows")
        return found

    def as_dict(self) -> dict[str, Any]:
        """A JSON-compatible dictionary."""
        never = {"never": {name: list(elements) for name, elements in self.never.items()}} if self.never else {}
        return {"names": list(self.names), "rows": dict(self.rows), "others": self.others, "other_rows": self.other_rows, **never}

    def with_these(self, pattern: str) -> int:
        """The number of rows with at least the modalities of a pattern, among the patterns kept."""
        wanted = int(pattern, 2)
        return sum(number for other, number in self.rows.items() if int(other, 2) & wanted == wanted)

    def pairwise(self, pattern: str) -> bool:
        """Whether some row has each pair of the pattern's modalities, or a single one; True for the empty pattern.

        Example:
            >>> Patterns(("x", "y", "z"), {"110": 5, "011": 4, "101": 2}).pairwise("111")
            True
        """
        own = [place for place, bit in enumerate(pattern) if bit == "1"]
        sets = combinations(own, 2) if len(own) > 1 else ((place,) for place in own)
        return all(any(all(other[place] == "1" for place in those) for other in self.rows) for those in sets)


def count(names: Sequence[str], present: Mapping[str, Tensor]) -> Counter[str]:
    """The number of rows of each pattern.

    Arguments:
        names: The modalities, in order.
        present: Boolean masks by modality, shape (N,); a modality without one is absent from every row.
    """
    codes = torch.zeros(len(next(iter(present.values()))), dtype=torch.long)
    for name in names:
        codes *= 2
        if name in present:
            codes += present[name].cpu()
    found, numbers = codes.unique(return_counts=True)
    spelt = (format(code, f"0{len(names)}b") for code in found.tolist())
    return Counter(dict(zip(spelt, numbers.tolist(), strict=True)))


def unseen(patterns: Patterns | None, counts: Mapping[str, int], learned: Callable[[str], bool] | None = None) -> tuple[Finding, ...]:
    """One warning for rows whose presence patterns training neither had nor taught; empty if the training patterns are unknown.

    Arguments:
        patterns: The patterns of the training rows.
        counts: The number of rows of each pattern at inference, from `count`.
        learned: Whether a model has learned a pattern that no training row had, as most models learn to use an image alone from rows with
            image and label; by default, no such pattern counts as learned.
    """
    if patterns is None:
        return ()
    taught = learned or (lambda _: False)
    if not (new := {pattern: number for pattern, number in counts.items() if pattern not in patterns.rows and not taught(pattern)}):
        return ()
    ordered = sorted(new.items(), key=lambda item: (-item[1], item[0].count("0"), item[0]))
    have = {pattern: patterns.with_these(pattern) for pattern in new}
    groups = [f"with {_observed(patterns.names, pattern)} observed: {_rows(number)}" for pattern, number in ordered[:NAMED]]
    if more := ordered[NAMED:]:
        groups.append(f"{len(more)} more pattern{'s' if len(more) > 1 else ''}: {_rows(sum(number for _, number in more))}")
    these = "this pattern" if len(new) == 1 else "these patterns"
    none = f"none of training's {len(patterns.rows):,} most frequent patterns is {'this' if len(new) == 1 else 'among them'}"
    none_had = none if patterns.others else f"no training row had {these}"
    text = f"rows {'; '.join(groups)}; {none_had} ({_nearness(have)})"
    listed = [{"pattern": pattern, "rows": number, "training_rows_with_these": have[pattern]} for pattern, number in ordered[:KEPT]]
    return (Finding("pattern", "", text, {"modalities": list(patterns.names), "patterns": listed, "rows": sum(new.values())}),)


def never_together(names: Sequence[str], present: Mapping[str, Tensor]) -> tuple[Finding, ...]:
    """Warnings for pairs of modalities that no training row has together: one each for up to three, and one for the rest.

    Such a pair is linked only by third modalities observed with each of the two.

    Arguments:
        names: The modalities.
        present: Boolean masks by modality of the training rows, shape (N,).
    """
    known = [name for name in names if name in present and bool(present[name].any())]
    together = {frozenset(pair) for pair in combinations(known, 2) if bool((present[pair[0]] & present[pair[1]]).any())}
    apart = [pair for pair in combinations(known, 2) if frozenset(pair) not in together]
    found = []
    for one, other in apart[:NAMED]:
        between = [name for name in known if {frozenset((name, one)), frozenset((name, other))} <= together]
        text = f"no training row has both {one} and {other}, so {one} -> {other} and {other} -> {one} have no pairs to learn from; "
        text += (
            f"{_short(between)}, observed with each of them, serve{'s' if len(between) == 1 else ''} instead"
            if between
            else "no other modality is observed with both either, so imputing one from the other is a guess: add rows that have both"
        )
        found.append(Finding("apart", f"{one},{other}", text, {"pairs": [[one, other]], "instead": between}))
    if more := apart[NAMED:]:
        named = _short([f"{one} and {other}" for one, other in more])
        text = f"{len(more)} more pair{'s' if len(more) > 1 else ''} of modalities in no training row together: {named}"
        found.append(Finding("apart", "", text, {"pairs": [list(pair) for pair in more]}))
    return tuple(found)


def nothing_observed(rows: Sequence[int], consequence: str) -> Finding:
    """A warning that nothing is observed in some rows.

    Arguments:
        rows: Their indices, in order.
        consequence: What happens to them.
    """
    text = f"nothing is observed in {numbered(rows)}; {consequence}"
    return Finding("empty", "", text, {"rows": len(rows), "first": [int(row) for row in rows[:NAMED]]})


def numbered(rows: Sequence[int]) -> str:
    """Lists row indices, only the first few if there are many.

    Example:
        >>> numbered([4]), numbered([4, 7, 9, 12])
        ('row 4', 'rows 4, 7, 9 and 1 more (4 in all)')
    """
    first = listing(str(row) for row in rows[:NAMED])
    if len(rows) > NAMED:
        return f"rows {first} and {len(rows) - NAMED:,} more ({len(rows):,} in all)"
    return f"row{'s' if len(rows) > 1 else ''} {first}"


def unlearned(patterns: Patterns | None) -> tuple[Finding, ...]:
    """Warns of elements without a value in any training row, whose imputed values are not learnt; empty if the patterns are unknown."""
    found = {} if patterns is None else patterns.never
    what = "no training row had a value; what is imputed is not learnt"
    return tuple(
        Finding("unlearned", name, f"modality {name!r}: {some_of(elements, NAMED)}: {what}", {"elements": list(elements)})
        for name, elements in found.items()
    )


def _observed(names: Sequence[str], pattern: str) -> str:
    have = [name for name, bit in zip(names, pattern, strict=True) if bit == "1"]
    lack = [name for name, bit in zip(names, pattern, strict=True) if bit == "0"]
    if not have:
        return "nothing"
    if not lack:
        return "everything"
    return f"all but {listing(lack)}" if len(have) > LONG and len(lack) < len(have) else f"only {listing(have)}"


def _nearness(have: Mapping[str, int]) -> str:
    """Describes how close new patterns are to training's, by the number of rows with the same modalities and more."""
    if len(have) == 1:
        ((pattern, number),) = have.items()
        if "1" not in pattern:
            return "they are served from the prior"
        return f"{number:,} had these modalities and more" if number else "nor these modalities together with others"
    apart = sum(not number for number in have.values())
    if not apart:
        return "each is a subset of one that it had"
    return f"{apart} of them {'is' if apart == 1 else 'are'} not a subset of any that it had"


def _rows(number: int) -> str:
    return f"{number:,} row{'s' if number != 1 else ''}"


def _short(names: Sequence[str]) -> str:
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return listing([*names[:NAMED], *more])
