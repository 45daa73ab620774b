"""Random damage: of bytes, and of trees of plain values."""

from __future__ import annotations

import copy
import json
import re
from random import Random
from typing import Any

NUMBERS = (
    "0", "-1", "1", "2", "255", "256", "65536", "2147483647", "2147483648", "-2147483649", "4294967296", "9223372036854775807",
    "18446744073709551616", "1e308", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1e-320", "0.1", "1e9", "100000000000000000000", "",
)  # fmt: skip
WORDS = (
    "", " ", "x", "NA", "nan", "null", "true", "~", "normal", "mlp", "a" * 3000, "\x00", "\n", "\ud800", "ß", "🦊", "../..",
    "/dev/null", "0x10", "1_000", "1:30", "2020-01-01", "[", "{", "&a", "*a", "!!python/object:os.system", "nothing.here.Class", "a.b",
    "%s%n", "<script>", "$(x)",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 64, 10**6, 2**31, 2**53, 2**63, 2**64, 10**30, -(10**30), 0.0, -0.0, 0.5, 1e-320, 1e308,
    float("inf"), float("-inf"), float("nan"), [], {}, [[]], [None], [0, 0], [1, 2, 3], {"type": "normal"}, {"": 1}, *WORDS,
)  # fmt: skip


def damaged(rng: Random, content: bytes) -> bytes:
    """Bytes with one to three kinds of damage."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(DAMAGE)(rng, found)
    return bytes(found)


def _range(rng: Random, content: bytearray, most: int = 64) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + rng.randint(1, most))


def _flip(rng: Random, content: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _set(rng: Random, content: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        if content:
            content[rng.randrange(len(content))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))


def _truncate(rng: Random, content: bytearray) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _delete(rng: Random, content: bytearray) -> None:
    start, stop = _range(rng, content)
    del content[start:stop]


def _repeat(rng: Random, content: bytearray) -> None:
    start, stop = _range(rng, content, 512)
    content[start:start] = content[start:stop] * rng.choice((1, 1, 2, 20))


def _swap(rng: Random, content: bytearray) -> None:
    (a, b), (c, d) = sorted(_range(rng, content) for _ in range(2))
    if b <= c:
        content[a:d] = content[c:d] + content[b:c] + content[a:b]


def _insert(rng: Random, content: bytearray) -> None:
    start, _ = _range(rng, content)
    content[start:start] = rng.choice((rng.randbytes(rng.randint(1, 16)), rng.choice(WORDS).encode("utf-8", "surrogatepass")))


def _fill(rng: Random, content: bytearray) -> None:
    start, stop = _range(rng, content)
    content[start:stop] = rng.choice((b"\x00", b"\xff", b" ", b"9")) * (stop - start)


def _number(rng: Random, content: bytearray) -> None:
    """Replaces a number that is written in digits."""
    if places := [*re.finditer(rb"-?\d+(\.\d+)?", content[: 2**16])]:
        place = rng.choice(places)
        content[place.start() : place.end()] = rng.choice(NUMBERS).encode()


DAMAGE = (_flip, _set, _truncate, _delete, _repeat, _swap, _insert, _fill, _number)


def changed(rng: Random, tree: Any) -> Any:
    """A tree of plain values with one to three changes, in a copy."""
    found = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = _changed_once(rng, found)
    return found


def _changed_once(rng: Random, tree: Any) -> Any:
    places = list(_places(tree))
    if not places:
        return rng.choice(VALUES)
    parent, key = rng.choice(places)
    match rng.randrange(8):
        case 0 | 1 | 2:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
        case 3:
            del parent[key]
        case 4:
            other, its = rng.choice(places)
            parent[key] = copy.deepcopy(other[its])
        case 5 if isinstance(parent, dict):
            new = rng.choice((*WORDS, f"{key}_", str(key)[:-1], str(key).upper()))
            parent[new] = parent.pop(key)
        case 6:
            for _ in range(rng.choice((1, 2, 60))):
                parent[key] = rng.choice(([parent[key]], {"a": parent[key]}))
        case _:
            parent[key] = _near(rng, parent[key])
    return tree


def _near(rng: Random, value: Any) -> Any:
    """A value that resembles another one."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, -value, value * 1000, float(value), str(value), [value]))
    if isinstance(value, str):
        return damaged(rng, value.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    return [value, value] if isinstance(value, dict) else value * 2


def _places(tree: Any) -> Any:
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def as_json(tree: Any) -> bytes:
    """JSON in bytes, of half a pair of surrogates and of NaN too."""
    return json.dumps(tree).encode()
