"""Patterns of presence: what is kept of training rows, and what is told of rows and pairs of modalities that training never had."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nbridge.common.warnings import Finding
from nbridge.data.patterns import Patterns, count, never_together, numbered, unseen
from nbridge.inference.served import Served
from nbridge.spec.reader import spec_from_dict
from nbridge.training.build import build_model

NAMES = ("image", "label", "text")
MASKS = st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), max_size=30))


def present(rows: list[str], names: tuple[str, ...] = NAMES) -> dict[str, torch.Tensor]:
    """Masks of rows that are spelt as patterns."""
    return {name: torch.tensor([row[i] == "1" for row in rows], dtype=torch.bool) for i, name in enumerate(names)}


def told(training: list[str], serving: list[str], names: tuple[str, ...] = NAMES) -> tuple[Finding, ...]:
    return unseen(Patterns.of(names, present(training, names)), count(names, present(serving, names)))


@given(MASKS)
def test_patterns_are_counted_as_rows_one_by_one(rows: list[list[bool]]):
    spelt = ["".join("01"[bit] for bit in row) for row in rows]
    names = tuple(f"m{i}" for i in range(len(spelt[0]) if spelt else 1))
    counts = count(names, present(spelt, names))
    assert counts == {pattern: spelt.count(pattern) for pattern in set(spelt)}
    kept = Patterns.of(names, present(spelt, names), kept=3)
    assert list(kept.rows.values()) == sorted(counts.values(), reverse=True)[:3]
    assert sum(kept.rows.values()) + kept.other_rows == len(rows)
    assert len(kept.rows) + kept.others == len(counts)
    assert Patterns.from_dict(json.loads(json.dumps(kept.as_dict()))) == kept
    everything = Patterns.of(names, present(spelt, names))
    for pattern in ("".join(bits) for bits in product("01", repeat=len(names))):
        fitting = (row for row in spelt if all(bit == "1" for bit, wanted in zip(row, pattern, strict=True) if wanted == "1"))
        assert everything.with_these(pattern) == sum(1 for _ in fitting)
        own = [place for place, bit in enumerate(pattern) if bit == "1"]
        pairs = [(i, j) for i in own for j in own if i < j or len(own) == 1]
        assert everything.pairwise(pattern) == all(any(row[i] == row[j] == "1" for row in spelt) for i, j in pairs)


def test_a_modality_that_rows_do_not_name_is_absent_from_all_of_them():
    assert count(NAMES, {"label": torch.tensor([True, False])}) == {"010": 1, "000": 1}


@given(MASKS)
def test_rows_with_patterns_of_training_are_not_told(rows: list[list[bool]]):
    spelt = ["".join("01"[bit] for bit in row) for row in rows]
    names = tuple(f"m{i}" for i in range(len(spelt[0]) if spelt else 1))
    assert told(spelt, spelt, names) == ()
    assert unseen(None, count(names, present(spelt, names))) == ()


MANY = ("a", "b", "c", "d", "e", "f")
LINES = {
    ("111",) * 5 + ("001",): (["110"] * 12, "rows with only image, label observed: 12 rows; no training row had this pattern "
                                             "(5 had these modalities and more)"),
    ("100", "010"): (["110"], "rows with only image, label observed: 1 row; no training row had this pattern "
                              "(nor these modalities together with others)"),
    ("110", "011"): (["111", "111"], "rows with everything observed: 2 rows; no training row had this pattern "
                                     "(nor these modalities together with others)"),
    ("111", "110"): (["000"] * 4, "rows with nothing observed: 4 rows; no training row had this pattern (they are served from the prior)"),
    ("111",): (["010", "010", "001"], "rows with only label observed: 2 rows; with only text observed: 1 row; no training row had these "
                                      "patterns (each is a subset of one that it had)"),
    ("011", "100"): (["110", "101", "001", "111", "010"], "rows with everything observed: 1 row; with only image, text observed: 1 row; "
                     "with only image, label observed: 1 row; 2 more patterns: 2 rows; no training row had these patterns "
                     "(3 of them are not a subset of any that it had)"),
}  # fmt: skip


@pytest.mark.parametrize("training", LINES)
def test_rows_unlike_those_of_training_are_told_in_one_line(training: tuple[str, ...]):
    serving, text = LINES[training]
    (finding,) = told(list(training), serving)
    assert (finding.kind, finding.text, finding.line) == ("pattern", text, f"warning: {text}")
    assert finding.details["rows"] == len(serving)
    assert {one["pattern"]: one["rows"] for one in finding.details["patterns"]} == {row: serving.count(row) for row in serving}
    json.dumps(finding.as_dict(), allow_nan=False)


def test_long_patterns_are_told_by_what_they_lack():
    (finding,) = told(["111111"], ["111110"], MANY)
    assert finding.text.startswith("rows with all but f observed: 1 row; ")


def test_of_more_patterns_than_are_kept_no_more_is_said_than_is_known():
    rows = present(["111"] * 3 + ["110"] * 2 + ["100"])
    kept = Patterns.of(NAMES, rows, kept=2)
    assert (kept.rows, kept.others, kept.other_rows) == ({"111": 3, "110": 2}, 1, 1)
    (finding,) = unseen(kept, count(NAMES, present(["100"])))
    assert finding.text == (
        "rows with only image observed: 1 row; none of training's 2 most frequent patterns is this (5 had these modalities and more)"
    )


@pytest.mark.parametrize(
    "damage", [{"rows": {"11": 1}}, {"rows": {"1x1": 1}}, {"rows": {"111": -1}}, {"rows": {"111": "2"}}, {"others": None}]
)
def test_damaged_patterns_are_refused(damage: dict[str, object]):
    with pytest.raises((ValueError, TypeError)):
        Patterns.from_dict({**Patterns.of(NAMES, present(["111"])).as_dict(), **damage})


def test_modalities_that_are_never_together_are_told_with_what_links_them():
    (finding,) = never_together(NAMES, present(["110", "011", "011"]))
    assert finding.text == (
        "no training row has both image and text, so image -> text and text -> image have no pairs to learn from; "
        "label, observed with each of them, serves instead"
    )
    assert (finding.kind, finding.where) == ("apart", "image,text")
    assert finding.details == {"pairs": [["image", "text"]], "instead": ["label"]}
    first, *_ = never_together(NAMES, present(["100", "011"]))
    assert first.text == (
        "no training row has both image and label, so image -> label and label -> image have no pairs to learn from; "
        "no other modality is observed with both either, so imputing one from the other is a guess: add rows that have both"
    )
    names = ("a", "b", "c", "d")
    found = never_together(names, present(["1000", "0100", "0010", "0001"], names))
    assert [one.where for one in found] == ["a,b", "a,c", "a,d", ""]
    assert found[-1].text == "3 more pairs of modalities in no training row together: b and c, b and d, c and d"


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=12))
def test_pairs_that_are_never_together_are_all_told(rows: list[list[bool]]):
    names, masks = ("a", "b", "c", "d"), np.array(rows)
    found = never_together(names, {name: torch.from_numpy(masks[:, i]) for i, name in enumerate(names)})
    pairs = {tuple(pair) for one in found for pair in one.details["pairs"]}
    some = masks.any(0)
    expected = {
        (names[i], names[j]) for i in range(4) for j in range(i + 1, 4) if some[i] and some[j] and not (masks[:, i] & masks[:, j]).any()
    }
    assert pairs == expected


def test_rows_are_named_by_the_first_few():
    assert numbered(range(3)) == "rows 0, 1, 2"
    assert numbered(range(2000)) == "rows 0, 1, 2 and 1,997 more (2,000 in all)"


# What a model has learned to serve

PAIRS, WHOLE, APART = ("110", "011", "101"), ("111",), ("110", "001")
EVERY = {"111", "110", "101", "011", "100", "010", "001"}
SINGLE = {"100", "010", "001"}
LEARNED = {
    # model, its options, bridges, training patterns: what it serves
    ("bridged", "{}", "mlp", WHOLE): EVERY,
    ("bridged", "{}", "mlp", PAIRS): {*PAIRS, *SINGLE},
    ("bridged", "{}", "mlp", APART): {"110", *SINGLE},
    ("bridged", "{}", "flow", WHOLE): EVERY,
    ("bridged", "{}", "flow", PAIRS): {*PAIRS, *SINGLE},
    ("joint", "{}", "mlp", WHOLE): {"111"},
    ("joint", '{"coupling": 1.0}', "mlp", WHOLE): EVERY,
    ("joint", "{}", "mlp", (*WHOLE, "100")): EVERY,
    ("joint", "{}", "mlp", PAIRS): {*PAIRS, *SINGLE},
    ("jmvae", "{}", "mlp", WHOLE): EVERY,
    ("jmvae", '{"alpha": 0.0}', "mlp", WHOLE): {"111"},
    ("jmvae", "{}", "mlp", PAIRS): {*PAIRS, *SINGLE},
    ("telbo", "{}", "mlp", PAIRS): {*PAIRS, *SINGLE},
    ("mvae", "{}", "mlp", PAIRS): EVERY,
    ("mvae", "{}", "mlp", APART): {"110", *SINGLE},
    ("bivcca", "{}", "mlp", PAIRS): EVERY,
}


@pytest.mark.parametrize(("kind", "options", "bridges", "training"), LEARNED)
def test_a_model_knows_which_patterns_it_has_learned_to_serve(kind: str, options: str, bridges: str, training: tuple[str, ...]):
    part = {"shape": 1, "encoder": {"type": "mlp", "hidden": [2]}, "likelihood": "normal", "features": 2}
    spec = {
        "latent_dim": 1, "model": {"type": kind, **json.loads(options)}, "bridges": {"type": bridges},
        "modalities": dict.fromkeys(NAMES, part),
    }  # fmt: skip
    network = build_model(spec_from_dict(spec))
    patterns = ["".join(bits) for bits in product("01", repeat=3)]
    assert Served(network).unseen(dict.fromkeys(patterns, 2)) == (), "nothing is known of its training"
    seen = Patterns.of(NAMES, present(list(training)))
    expected = LEARNED[kind, options, bridges, training]
    assert {pattern for pattern in patterns if network.supports_pattern(pattern, seen)} == expected
    found = Served(network, patterns=seen).unseen(dict.fromkeys(patterns, 2))
    assert {one["pattern"] for one in found[0].details["patterns"]} == set(patterns) - expected
    assert Served(network, patterns=seen).unseen(dict.fromkeys(expected, 1)) == ()
