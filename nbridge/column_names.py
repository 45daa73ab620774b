"""What the name of a column says of its values: classes, counts, quantities, codes, or identifiers of what rows are of."""

from __future__ import annotations

import re
from typing import Literal

Hint = Literal["classes", "counts", "quantity", "codes", "owner", ""]
"""What a name says; `owner`: the values identify a person or another item that several rows may be of."""

CLASSES = frozenset(
    [
        "class",
        "classes",
        "subclass",
        "pclass",
        "label",
        "labels",
        "target",
        "type",
        "types",
        "subtype",
        "kind",
        "species",
        "subspecies",
        "breed",
        "family",
        "genus",
        "phylum",
        "category",
        "categories",
        "subcategory",
        "stage",
        "grade",
        "cluster",
        "group",
        "cohort",
        "status",
        "state",
        "region",
        "country",
        "city",
        "gender",
        "sex",
        "race",
        "ethnicity",
        "diagnosis",
        "genotype",
        "phenotype",
        "brand",
        "genre",
        "batch",
        "arm",
        "digit",
        "weekday",
        "digits",
    ]
)
COUNTS = frozenset(
    [
        "count",
        "counts",
        "visits",
        "children",
        "siblings",
        "events",
        "episodes",
        "admissions",
        "reads",
        "cases",
        "deaths",
        "births",
        "pregnancies",
        "attempts",
        "clicks",
        "views",
        "purchases",
        "orders",
        "transactions",
        "hits",
        "goals",
        "calls",
    ]
)
COUNTED = frozenset(["n", "num", "nb", "nr", "number", "count"])
"""Words that a count of something begins with, such as ``n_visits``."""
QUANTITIES = frozenset(
    [
        "age",
        "ages",
        "height",
        "weight",
        "width",
        "length",
        "depth",
        "size",
        "mass",
        "bmi",
        "index",
        "temperature",
        "temp",
        "pressure",
        "price",
        "cost",
        "income",
        "salary",
        "amount",
        "dose",
        "dosage",
        "duration",
        "distance",
        "time",
        "score",
        "points",
        "rate",
        "ratio",
        "percent",
        "percentage",
        "pct",
        "speed",
        "area",
        "volume",
        "density",
        "concentration",
        "intensity",
        "power",
        "energy",
        "voltage",
        "current",
        "signal",
        "sensor",
        "days",
        "weeks",
        "months",
        "years",
        "hours",
        "minutes",
        "seconds",
        "latitude",
        "longitude",
        "lat",
        "lon",
        "mm",
        "cm",
        "kg",
    ]
)
CODES = frozenset(["code", "codes", "zip", "zipcode", "postcode", "postalcode", "postal", "plz", "fips", "icd", "sku"])
OWNERS = frozenset(
    ["patient", "subject", "participant", "person", "user", "customer", "client", "member", "individual", "donor", "speaker"]
)
IDENTIFYING = frozenset(["id", "ids", "no", "nr", "number", "key", "code", "uuid"])


def words_of(name: str) -> list[str]:
    """The words of a name in lower case, without digits.

    Example:
        >>> words_of("BloodType_2"), words_of("n.visits"), words_of("patientID"), words_of("größe")
        (['blood', 'type'], ['n', 'visits'], ['patient', 'id'], ['größe'])
    """
    return re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())


def hint_of(name: str) -> Hint:
    """What a name says of the values of its column; empty where it says nothing.

    Example:
        >>> [hint_of(name) for name in ("n_visits", "class_count", "tumor_stage", "type_of_cell", "age_group", "age", "zip", "user_id", "x1")]
        ['counts', 'counts', 'classes', 'classes', 'classes', 'quantity', 'codes', 'owner', '']
    """
    words = words_of(name)
    if not words:
        return ""
    several = len(words) > 1
    owner = words[:-1] if several and words[-1] in IDENTIFYING else words
    hints: tuple[tuple[Hint, bool], ...] = (
        ("counts", words[-1] in COUNTS or (several and words[0] in COUNTED)),
        ("owner", owner[-1] in OWNERS),
        ("classes", words[-1] in CLASSES or owner[-1] in CLASSES or (several and words[1] == "of" and words[0] in CLASSES)),
        ("codes", words[-1] in CODES or (several and words[-1] in {"id", "ids"})),
        ("quantity", not QUANTITIES.isdisjoint(words)),
    )
    return next((hint for hint, said in hints if said), "")
