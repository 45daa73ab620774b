"""Constructor signatures: reading the source gives what importing gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nbridge.errors import SpecError
from nbridge.spec import option_types, registry
from nbridge.spec.signature import REQUIRED, Option, Signature, read_signature, signature_of_class, signature_of_source
from nbridge.spec.spec import MODEL

BUILT_IN = sorted({(kind, target) for kind, names in registry.BUILT_IN.items() for target in names.values()})


def _excluded(kind: str) -> tuple[str, ...]:
    return MODEL.excluded if kind == MODEL.name else ()


@pytest.mark.parametrize(("kind", "target"), BUILT_IN)
def test_the_source_of_a_built_in_class_says_what_its_import_says(kind: str, target: str) -> None:
    from_source = signature_of_source(target, _excluded(kind))
    assert from_source is not None
    assert from_source == signature_of_class(target, _excluded(kind))
    assert from_source.summary


def test_a_signature_has_shape_options_defaults_and_their_descriptions() -> None:
    signature = read_signature("nbridge.nn.encoders:EmbeddingEncoder")
    assert signature.shape == option_types.ClassShape
    assert list(signature.options) == ["embedding_dim", "hidden", "batch_norm", "activation"]
    assert signature.options["hidden"] == Option(option_types.Widths, (), "Widths of the hidden layers after the embedding.")
    assert read_signature("nbridge.data.numpy.npz:NPZ").options["path"].default is REQUIRED
    assert read_signature("nbridge.data.numpy.npz:NPZ").shape is None


SOURCE = '''
from __future__ import annotations
from typing import Literal

class Plain:
    """Does nothing.

    Arguments:
        free: Whatever
            it is.
        limit: A bound.

    Example:
        limit: of the example
    """
    def __init__(self, shape, features, *, free, limit: int | None = None, house: str = "x"): ...

class Child(Plain):
    """A child."""

class Bare: ...

class Open:
    def __init__(self, *args: int, **kwargs: int) -> None: ...

class Wrong:
    def __init__(self, *, width: Missing = 1) -> None: ...

value = 3
'''


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / f"parts_{tmp_path.name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return f"parts_{tmp_path.name}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "Plain",
            Signature(
                Any, {"free": Option(Any, REQUIRED, "Whatever it is."), "limit": Option(int | None, None, "A bound.")}, "Does nothing."
            ),
        ),
        ("Child", Signature(Any, {"free": Option(Any), "limit": Option(int | None, None)}, "A child.")),
        ("Bare", Signature()),
        ("Open", Signature()),
    ],
)
def test_a_class_of_another_package_is_read_by_import(plug_in: str, name: str, expected: Signature) -> None:
    assert read_signature(f"{plug_in}:{name}", ("house",)) == expected


@pytest.mark.parametrize("name", ["Plain", "Child"])
def test_a_constructor_is_found_in_the_class_or_in_a_parent_of_the_same_module(plug_in: str, name: str) -> None:
    target = f"{plug_in}:{name}"
    assert signature_of_source(target, ("house",)) == signature_of_class(target, ("house",))


@pytest.mark.parametrize("target", ["Bare", "Wrong", "Nobody", "value"])
def test_a_source_that_does_not_say_enough_is_not_guessed(plug_in: str, target: str) -> None:
    assert signature_of_source(f"{plug_in}:{target}") is None


def test_a_module_that_is_nowhere_has_no_source() -> None:
    assert signature_of_source("nbridge.nowhere.at_all:Class") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("value", "'{}:value' is of type int, expected a class"),
        ("Wrong", "'{}:Wrong': cannot read the annotations of its constructor (NameError: name 'Missing' is not defined)"),
    ],
)
def test_a_signature_that_cannot_be_read_is_a_clear_error(plug_in: str, name: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_signature(f"{plug_in}:{name}")
    assert caught.value.problems == [message.format(plug_in)]
