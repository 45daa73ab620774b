"""The section ``tune``: every value that a search can draw is a valid spec, and every mistake is one line with its position."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

import nbridge
from nbridge.errors import SpecError
from nbridge.spec.json_schema import json_schema
from nbridge.spec.reader import parse_spec, spec_from_dict, write_spec
from nbridge.spec.search import Choice, Range, with_values
from nbridge.spec.spec import Spec
from nbridge.tuning.space import Space, default_entries, space_of

SPEC = """
data: {source: digits}
modalities:
  top: {shape: [1, 4, 8], encoder: mlp, likelihood: bernoulli}
  table: {shape: 6, encoder: {type: table, hide: 0.2}, likelihood: normal}
  label: {shape: 10, encoder: embedding, likelihood: categorical}
"""
TUNE = {
    "latent_dim": [4, 64],
    "training.learning_rate": [1e-4, 1e-2],
    "model.coupling": [0, 2],
    "training.stages.joint.gradient_clip": [None, 1.0, 5],
    "modalities.*.encoder.hidden": [[64], [32, 16], 8 * [4]],
    "modalities.label.weight": ["auto", 2.0],
    "bridges": ["mlp", {"type": "mlp", "hidden": [8]}],
}
DOCUMENT: dict[str, Any] = {
    "data": {"source": "digits"},
    "modalities": {
        "top": {"shape": [1, 4, 8], "encoder": "mlp", "likelihood": "bernoulli"},
        "table": {"shape": 6, "encoder": {"type": "table", "hide": 0.2}, "likelihood": "normal"},
        "label": {"shape": 10, "encoder": "embedding", "likelihood": "categorical"},
    },
}


def space(tune: dict[str, Any] | None = None) -> Space:
    document = {**DOCUMENT, "tune": tune or {}}
    return space_of(Spec.model_validate(document), document)


SPACES = {"own": space(TUNE), "default": space()}


@pytest.mark.parametrize("name", SPACES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_draw_is_a_valid_spec_with_these_values(name: str, data: st.DataObject):
    found = SPACES[name]
    parameters = {}
    for option in found.options:
        if isinstance(option, Choice):
            parameters[option.key] = json.dumps(data.draw(st.sampled_from(option.values)))
        elif option.whole:
            parameters[option.key] = data.draw(st.integers(int(option.low), int(option.high)))
        else:
            parameters[option.key] = data.draw(st.floats(option.low, option.high))
    values = found.suggest(FixedTrial(parameters))  # pyright: ignore[reportArgumentType]
    assert found.parameters(values) == parameters
    changes = found.changes(values)
    spec = spec_from_dict(with_values(DOCUMENT, changes))
    assert spec.latent_dim == values["latent_dim"]
    assert spec.training.learning_rate == values["training.learning_rate"]
    assert list(spec.modalities["top"].encoder.kwargs["hidden"]) == values["modalities.*.encoder.hidden"]
    assert spec.data == Spec.model_validate(DOCUMENT).data


def test_two_numbers_are_a_range_whole_and_logarithmic_where_the_option_says_so_and_all_else_is_a_choice():
    found = {option.key: option for option in SPACES["own"].options}
    assert found["latent_dim"] == Range("latent_dim", ("latent_dim",), 4, 64, whole=True)
    assert found["training.learning_rate"] == Range("training.learning_rate", ("training.learning_rate",), 1e-4, 1e-2, whole=False)
    assert found["model.coupling"] == Range("model.coupling", ("model.coupling",), 0, 2, whole=False)
    assert [found[key].log for key in ("latent_dim", "training.learning_rate", "model.coupling")] == [True, True, False]
    assert found["modalities.*.encoder.hidden"].paths == tuple(f"modalities.{name}.encoder.hidden" for name in DOCUMENT["modalities"])
    assert SPACES["default"].options[5].paths == ("modalities.table.encoder.hide",)
    assert found["bridges"] == Choice("bridges", ("bridges",), ("mlp", {"type": "mlp", "hidden": [8]}))


def test_the_spec_as_it_stands_is_a_point_of_the_default_space_and_has_no_changes():
    found = SPACES["default"]
    assert found.holds_default
    assert found.changes(found.default) == {}
    assert "modalities.*.encoder.hide" in default_entries(Spec.model_validate(DOCUMENT))
    assert not space({"latent_dim": [2, 4]}).holds_default


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ("latent_dims: [8, 64]", "7:3: tune.latent_dims: unknown key 'latent_dims'. Did you mean 'latent_dim'? Known:"),
        ("latent_dim: [0, 64]", "7:16: tune.latent_dim.0: expected a number above 0, got 0"),
        ("latent_dim: [2.5, 64]", "7:16: tune.latent_dim.0: expected an integer, got 2.5"),
        ("latent_dim: 8", "7:15: tune.latent_dim: expected a list, got 8"),
        ("latent_dim: [8, 8]", "7:15: tune.latent_dim: the range must rise: 8 is not below 8"),
        ("latent_dim: [8]", "7:3: tune.latent_dim: expected the two ends of a range or a list of at least two values, got 1"),
        ("modalities.top.encoder.hidden: [[64], 128]", "7:41: tune.modalities.top.encoder.hidden.1: expected a list, got 128; give each"),
        ("modalities.top.encoder.activation: [relu, rlu]", "7:45: tune.modalities.top.encoder.activation.1: expected 'leaky_relu',"),
        ("modalities.*.encoder.nope: [1, 2]", "7:3: tune.modalities.*.encoder.nope: no modality has this option"),
        ("modalities.tap.features: [1, 2]", "7:3: tune.modalities.tap.features: no modality 'tap'. Did you mean 'top'?"),
        ("data.seed: [1, 2]", "7:3: tune.data.seed: cannot be searched: values of trials could not be compared"),
        ("modalities.top.likelihood.type: [normal, laplace]", "7:3: tune.modalities.top.likelihood.type: cannot be searched"),
        ("training..x: [1, 2]", "7:3: tune.training..x: expected path.to.key, such as training.learning_rate"),
        ("spec_version.x: [1, 2]", "7:3: tune.spec_version.x: expected an integer"),
    ],
)
def test_a_mistake_is_one_line_with_its_position(entry: str, line: str):
    with pytest.raises(SpecError) as caught:
        parse_spec(f"{SPEC.lstrip()}tune:\n  {entry}\n", "a.yaml")
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"a.yaml:{line}")


def test_all_mistakes_are_shown_at_once_and_an_option_is_set_by_one_key():
    tune = "tune:\n  nope: [1, 2]\n  modalities.top.features: [4, 8]\n  modalities.*.features: [4, 8]\n"
    with pytest.raises(SpecError) as caught:
        parse_spec(SPEC + tune)
    assert [problem.split(": ")[1] for problem in caught.value.problems] == ["tune.nope", "tune.modalities.*.features"]


def test_training_ignores_the_section():
    with_tune, without = parse_spec(SPEC + "tune: {latent_dim: [2, 4]}"), parse_spec(SPEC)
    assert with_tune.tune == {"latent_dim": [2, 4]}
    assert write_spec(with_tune) == write_spec(without)
    assert nbridge.Spec.model_validate(DOCUMENT).tune == {}


def test_the_schema_for_editors_has_the_section():
    found = json_schema()["properties"]["tune"]
    assert found["type"] == "object"
    assert found["additionalProperties"] == {"items": {}, "minItems": 2, "type": "array"}
