"""Infers from a column's name what its values are: classes, counts, quantities, codes, or identifiers of what rows belong to."""

from __future__ import annotations

import re
from typing import Literal

Hint = Literal["classes", "counts", "quantity", "codes", "owner", ""]
"""What a name suggests; `owner`: the values identify a person or another item that several rows may belong to."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CLASSES = _words(
    "class classes subclass pclass label labels target type types subtype kind species subspecies breed family genus phylum category "
    "categories subcategory stage grade cluster group cohort status state region country city gender sex race ethnicity diagnosis genotype "
    "phenotype brand genre batch arm digit digits weekday"
)
COUNTS = _words(
    "count counts visits children siblings events episodes admissions reads cases deaths births pregnancies attempts clicks views "
    "purchases orders transactions hits goals calls"
)
COUNTED = _words("n num nb nr number count")
"""First words of count names such as ``n_visits``."""
QUANTITIES = _words(
    "age ages height weight width length depth size mass bmi index temperature temp pressure price cost income salary amount dose dosage "
    "duration distance time score points rate ratio percent percentage pct speed area volume density concentration intensity power energy "
    "voltage current signal sensor days weeks months years hours minutes seconds latitude longitude lat lon mm cm kg"
)
CODES = _words("code codes zip zipcode postcode postalcode postal plz fips icd sku")
OWNERS = _words("patient subject participant person user customer client member individual donor speaker")
IDENTIFYING = _words("id ids no nr number key code uuid")


def words_of(name: str) -> list[str]:
    """Splits a name into lower-case words, without digits.

    Example:
        >>> words_of("BloodType_2"), words_of("n.visits"), words_of("patientID"), words_of("größe")
        (['blood', 'type'], ['n', 'visits'], ['patient', 'id'], ['größe'])
    """
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def hint_of(name: str) -> Hint:
    """What a column's name suggests about its values; empty if nothing.

    Example:
        >>> [hint_of(name) for name in ("n_visits", "class_count", "tumor_stage", "type_of_cell", "age_group")]
        ['counts', 'counts', 'classes', 'classes', 'classes']
        >>> [hint_of(name) for name in ("age", "zip", "user_id", "cost_per_user", "store_id", "class_id", "x1")]
        ['quantity', 'codes', 'owner', 'quantity', 'codes', 'classes', '']
    """
    words = words_of(name)
    if not words:
        return ""
    several = len(words) > 1
    owner = words[:-1] if several and words[-1] in IDENTIFYING else words
    hints: dict[Hint, bool] = {
        "counts": words[-1] in COUNTS or (several and words[0] in COUNTED),
        "owner": owner[-1] in OWNERS and "per" not in words,
        "classes": words[-1] in CLASSES or owner[-1] in CLASSES or (several and words[1] == "of" and words[0] in CLASSES),
        "codes": words[-1] in CODES or (several and words[-1] in {"id", "ids"}),
        "quantity": not QUANTITIES.isdisjoint(words),
    }
    found: list[Hint] = [hint for hint, said in hints.items() if said]
    return found[0] if found else ""
