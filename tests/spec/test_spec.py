"""What a spec may say, what it says by default, and what each mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from drawn_specs import SPECS
from hypothesis import given
from pydantic import ValidationError

from nbridge.errors import SpecError
from nbridge.models.bridged import DEFAULT_OBJECTIVE
from nbridge.models.bridged import Term as ModelTerm
from nbridge.spec import registry
from nbridge.spec.components import Component
from nbridge.spec.names import RESERVED
from nbridge.spec.reader import spec_from_dict
from nbridge.spec.registry import BUILT_IN
from nbridge.spec.signature import read_signature
from nbridge.spec.spec import BridgesKeys, BridgesSpec, DataKeys, Spec, Term

LABEL = {"shape": 10, "encoder": "mlp", "likelihood": "categorical"}
KEYS = "spec_version, name, model, latent_dim, data, modalities, covariates, fusion, bridges, prior, training"
ENCODERS = f"Known: {', '.join(sorted(BUILT_IN['encoders']))}. For your own class write 'package.module:Class'."
MODELS = "bivcca, bridged, jmvae, joint, mvae, telbo, vae"
OWN = "For your own class write 'package.module:Class'."
MODALITY_RULE = "is not a valid modality name: use letters, digits and single underscores, and start with a letter"
UNDERSCORES = "is not a valid modality name: leading and double underscores are reserved (NAME__present marks presence)"


def spec(**keys: Any) -> Spec:
    return spec_from_dict({"modalities": {"label": LABEL}, **keys})


def label(**keys: Any) -> dict[str, Any]:
    return {"modalities": {"label": {**LABEL, **keys}}}


def problems(**keys: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        spec(**keys)
    return caught.value.problems


def test_the_shortest_spec_is_filled_with_defaults() -> None:
    shortest = spec()
    modality = shortest.modalities["label"]
    assert modality.shape == (10,)
    assert modality.encoder == Component("mlp", {"hidden": (128,), "batch_norm": True, "activation": "leaky_relu", "dropout": 0.0})
    assert (modality.decoder, modality.features, modality.weight) == (Component("mirror"), 128, "auto")
    assert (shortest.model, shortest.latent_dim, shortest.name) == (
        Component("bridged", {"coupling": "auto", "leave_one_out": "auto", "contrast": "auto"}),
        32,
        None,
    )
    assert (shortest.data.source, shortest.data.validation, shortest.data.test, shortest.data.seed) == (Component("memory"), 0.1, 0.2, 0)
    assert shortest.bridges == BridgesSpec(
        Component("mlp", {"hidden": (128,), "batch_norm": True, "activation": "leaky_relu"}), {"distill": 1.0, "cross": 1.0}, "poe"
    )
    assert {name: (stage.epochs, stage.updates) for name, stage in shortest.training.stages.items()} == {
        "joint": (None, None), "bridges": (None, None)
    }  # fmt: skip


def test_the_short_and_the_full_spelling_are_one() -> None:
    full = spec(
        model={"type": "bridged"},
        data={"source": "digits"},
        fusion={"type": "mlp"},
        bridges={},
        modalities={
            "label": {"shape": [10], "encoder": {"type": "mlp"}, "decoder": {"type": "mirror"}, "likelihood": {"type": "categorical"}}
        },
    )
    assert full == spec(model="bridged", data="digits", fusion="mlp", bridges="mlp")


@given(SPECS)
def test_a_resolved_spec_is_a_fixed_point(document: dict[str, Any]) -> None:
    first = spec_from_dict(document)
    second = spec_from_dict(first.as_dict())
    assert second == first
    assert second.as_dict() == first.as_dict()
    declared, said = registry.STAGES[first.model.type], document.get("training", {}).get("stages", {})
    assert {name: second.training.stage(name) for name in {*declared, *said}} == first.training.stages
    assert list(second.modalities) == list(document["modalities"])


def test_a_stage_takes_from_training_what_it_does_not_say() -> None:
    training = spec(
        training={"batch_size": 32, "gradient_clip": 5, "patience": 3, "stages": {"joint": {"gradient_clip": None, "learning_rate": 1}}}
    ).training
    joint, bridges, third = training.stage("joint"), training.stage("bridges"), training.stage("third")
    assert (joint.batch_size, joint.gradient_clip, joint.learning_rate, joint.patience) == (32, None, 1.0, 3)
    assert (bridges.batch_size, bridges.gradient_clip, bridges.learning_rate) == (32, 5.0, 1e-3)
    assert (third.batch_size, third.epochs, third.updates) == (32, None, None)


@pytest.mark.parametrize(
    ("joint", "budget"),
    [
        ({}, (None, 900)),
        ({"updates": 50}, (None, 50)),
        ({"epochs": 7}, (7, None)),
        ({"updates": None}, (None, None)),
        ({"epochs": None}, (None, 900)),
    ],
)
def test_the_budget_of_a_stage_counts_before_that_of_all_stages(joint: dict[str, Any], budget: tuple[int | None, int | None]) -> None:
    one = spec(training={"updates": 900, "stages": {"joint": joint}})
    for training in (one.training, spec_from_dict(one.as_dict()).training):
        assert (training.stage("joint").epochs, training.stage("joint").updates) == budget
        assert training.stage("bridges").updates == 900


def test_the_default_objective_and_the_terms_are_the_models() -> None:
    assert spec().bridges.objective == DEFAULT_OBJECTIVE
    assert get_args(Term) == get_args(ModelTerm)


@pytest.mark.parametrize(
    ("bridges", "objective", "combine"),
    [
        ({"objective": "paper"}, "paper", "mean"),
        ({"objective": "paper", "combine": "poe"}, "paper", "poe"),
        ({"objective": {"elbo": 0, "match": 2}}, {"match": 2.0}, "poe"),
        ({"combine": "mean"}, {"distill": 1.0, "cross": 1.0}, "mean"),
    ],
)
def test_the_paper_objective_combines_by_the_mean(bridges: dict[str, Any], objective: Any, combine: str) -> None:
    parsed = spec(bridges=bridges).bridges
    assert (parsed.objective, parsed.combine) == (objective, combine)


def test_reserved_names_are_those_that_torch_refuses() -> None:
    public = {name for name in dir(torch.nn.ModuleDict()) if not name.startswith("_")}
    assert public <= RESERVED


@pytest.mark.parametrize("name", ["image", "Bild", "größe", "x1", "a_b", "class", "match"])
def test_a_vetted_name_is_a_key_of_a_module_dict(name: str) -> None:
    assert list(spec(modalities={name: LABEL}).modalities) == [name]
    torch.nn.ModuleDict({name: torch.nn.Identity()})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.b", f"modalities.a.b: 'a.b' {MODALITY_RULE}"),
        ("a b", f"modalities.a b: 'a b' {MODALITY_RULE}"),
        ("1a", f"modalities.1a: '1a' {MODALITY_RULE}"),
        ("", f"modalities.: '' {MODALITY_RULE}"),
        ("_a", f"modalities._a: '_a' {UNDERSCORES}"),
        ("a__present", f"modalities.a__present: 'a__present' {UNDERSCORES}"),
        (
            "keys",
            "modalities.keys: 'keys' is not a valid modality name: it is reserved for torch.nn.ModuleDict; use another, such as 'keys_1'",
        ),
        ("id", "modalities.id: 'id' is not a valid modality name: it is reserved for the row ids; use another, such as 'id_1'"),
        ("kl", "modalities.kl: 'kl' is not a valid modality name: it is reserved for a term of the loss; use another, such as 'kl_1'"),
    ],
)
def test_a_name_that_is_taken_or_no_name_is_refused(name: str, message: str) -> None:
    assert problems(modalities={name: LABEL}) == [message]


ACTIVATIONS = "'leaky_relu', 'relu', 'elu', 'gelu', 'silu' or 'tanh'"
MISTAKES: list[tuple[dict[str, Any], list[str]]] = [
    ({"modalities": {}}, ["modalities: expected 1 or more entries, got 0"]),
    ({"modalities": {f"m{i}": LABEL for i in range(21)}}, ["modalities: expected 20 entries or fewer, got 21"]),
    ({"modalities": [LABEL]}, ["modalities: expected a mapping, got a list"]),
    ({"modalities": {"label": 3}}, ["modalities.label: expected a mapping, got 3"]),
    ({"modalities": {"label": {}}}, [f"modalities.label: missing key '{key}'" for key in ("shape", "encoder", "likelihood")]),
    (
        label(likelihood={"type": "mixed", "size_factor": "auto", "columns": {"n": "poisson", "a": "normal", "b": "normal"}}),
        ["modalities.label.likelihood.size_factor: unknown key 'size_factor'. Known: type, columns, scale"],
    ),
    (
        label(likelihood={"type": "mixed", "columns": {"n": {"type": "poisson", "size_factor": "auto"}, "a": "normal", "b": "normal"}}),
        [
            "modalities.label.likelihood.columns.n.size_factor: unknown key 'size_factor'. "
            "Known: type, classes, whole, low, high, zero_inflated"
        ],
    ),
    ({"modle": "bridged"}, [f"modle: unknown key 'modle'. Did you mean 'model'? Known: {KEYS}"]),
    ({"spec_version": 2, "new": 1}, ["spec_version: spec_version 2 is newer than the newest supported (1); upgrade nbridge"]),
    ({"spec_version": 0}, ["spec_version: expected 1 or more, got 0"]),
    ({"name": 3}, ["name: expected text, got 3"]),
    ({"name": "a\nb"}, ['name: expected one line of text, got "a\\nb"']),
    ({"latent_dim": True}, ["latent_dim: expected an integer, got true"]),
    ({"latent_dim": "16"}, ['latent_dim: expected an integer, got "16"']),
    ({"latent_dim": None}, ["latent_dim: expected an integer, got nothing"]),
    ({"latent_dim": 16.0}, ["latent_dim: expected an integer, got 16.0"]),
    ({"latent_dim": 0}, ["latent_dim: expected a number above 0, got 0"]),
    (
        {"model": "brigded"},
        [f"model: unknown model 'brigded'. Did you mean 'bridged'? Known: {', '.join(registry.known('models'))}. {OWN}"],
    ),
    ({"model": 1}, ["model: expected a type or a mapping with the key 'type', got 1"]),
    (
        {"model": {"type": "bridged", "combine": "poe"}},
        ["model.combine: unknown key 'combine'. Known: type, coupling, leave_one_out, contrast"],
    ),
    ({"model": {"type": "jmvae", "alfa": 1}}, ["model.alfa: unknown key 'alfa'. Did you mean 'alpha'? Known: type, alpha"]),
    ({"model": {"type": "jmvae", "alpha": -1}}, ["model.alpha: expected 0 or more, got -1"]),
    ({"model": {"type": "telbo", "one_stage": 1}}, ["model.one_stage: expected true or false, got 1"]),
    ({"model": {"type": "mvae", "random_subsets": -1}}, ["model.random_subsets: expected 0 or more, got -1"]),
    ({"model": {"type": "vae", "modality": 3}}, ["model.modality: expected text, got 3"]),
    ({"model": {"type": "bivcca", "mixing": {"label": -1}}}, ["model.mixing.label: expected 0 or more, got -1"]),
    ({"model": {"type": "bivcca", "mixing": 0.5}}, ["model.mixing: expected a mapping, got 0.5"]),
    (label(shape=3.7), ["modalities.label.shape: expected a size or a list of sizes, got 3.7"]),
    (label(shape=True), ["modalities.label.shape: expected a size or a list of sizes, got true"]),
    (label(shape="10"), ['modalities.label.shape: expected a size or a list of sizes, got "10"']),
    (label(shape=0), ["modalities.label.shape: expected a number above 0, got 0"]),
    (
        label(shape=[4, -1, 2.5]),
        ["modalities.label.shape.1: expected a number above 0, got -1", "modalities.label.shape.2: expected an integer, got 2.5"],
    ),
    (label(shape=[]), ["modalities.label.shape: expected 1 or more entries, got 0"]),
    (label(shape=[1] * 9), ["modalities.label.shape: expected 8 entries or fewer, got 9"]),
    (label(encoder="mpl"), [f"modalities.label.encoder: unknown encoder 'mpl'. Did you mean 'mlp'? {ENCODERS}"]),
    (label(encoder={"type": "mpl"}), [f"modalities.label.encoder.type: unknown encoder 'mpl'. Did you mean 'mlp'? {ENCODERS}"]),
    (label(encoder={"type": 1}), ["modalities.label.encoder.type: expected a type, got 1"]),
    (label(encoder={"hidden": [1]}), ["modalities.label.encoder: missing key 'type'"]),
    (label(encoder=["mlp"]), ["modalities.label.encoder: expected a type or a mapping with the key 'type', got a list"]),
    (
        label(encoder={"type": "mlp", "hiden": [1], "hidden": "128", "batch_norm": 1, "activation": "rleu", "dropout": 1}),
        [
            'modalities.label.encoder.hidden: expected a list, got "128"',
            "modalities.label.encoder.batch_norm: expected true or false, got 1",
            f"modalities.label.encoder.activation: expected {ACTIVATIONS}, got \"rleu\". Did you mean 'relu'?",
            "modalities.label.encoder.dropout: expected a number below 1, got 1",
            "modalities.label.encoder.hiden: unknown key 'hiden'. Did you mean 'hidden'? "
            "Known: type, hidden, batch_norm, activation, dropout",
        ],
    ),
    (label(encoder={"type": "mlp", "hidden": [64, 0]}), ["modalities.label.encoder.hidden.1: expected a number above 0, got 0"]),
    (label(decoder={"type": "mirror", "hidden": [1]}), ["modalities.label.decoder.hidden: unknown key 'hidden'. Known: type"]),
    (
        label(likelihood="gauss"),
        [f"modalities.label.likelihood: unknown likelihood 'gauss'. Known: {', '.join(registry.known('likelihoods'))}. {OWN}"],
    ),
    (
        label(likelihood={"type": "normal", "scale": "lerned"}),
        ["modalities.label.likelihood.scale: expected 'learned', 'predicted' or a number, got \"lerned\". Did you mean 'learned'?"],
    ),
    (
        label(likelihood={"type": "normal", "scale": 0}),
        ["modalities.label.likelihood.scale: expected 'learned', 'predicted' or a number above 0, got 0"],
    ),
    (
        label(shape=[1, 28, 28]),
        ["modalities.label.likelihood: categorical supports shapes of one axis, the number of classes (2 or more); got [1, 28, 28]"],
    ),
    (
        label(shape=1, encoder="embedding", features="x"),
        [
            "modalities.label.encoder: embedding supports shapes of one axis, the number of classes (2 or more); got [1]",
            "modalities.label.likelihood: categorical supports shapes of one axis, the number of classes (2 or more); got [1]",
            'modalities.label.features: expected an integer, got "x"',
        ],
    ),
    (
        label(encoder={"type": "conv"}, decoder="conv"),
        [
            "modalities.label.encoder: conv supports shapes of two to four axes, channels first; got [10]",
            "modalities.label.decoder: conv supports shapes of two to four axes, channels first; got [10]",
        ],
    ),
    (label(weight=float("nan")), ["modalities.label.weight: expected 'auto' or a finite number, got .nan"]),
    (label(weight=float("-inf")), ["modalities.label.weight: expected 'auto' or a finite number, got -.inf"]),
    (label(weight=-1), ["modalities.label.weight: expected 'auto' or 0 or more, got -1"]),
    (
        {"data": "digit"},
        [f"data: unknown data source 'digit'. Did you mean 'digits'? Known: {', '.join(registry.known('datasets'))}. {OWN}"],
    ),
    ({"data": {"source": "npz"}}, ["data: missing key 'path'"]),
    ({"data": {"type": "digits"}}, ["data.type: unknown key 'type'. Known: source, validation, test, seed, empty_rows, group, split"]),
    ({"data": {"validation": 1}}, ["data.validation: expected a number below 1, got 1"]),
    (
        {"data": {"source": "npz", "path": 3, "validation": 0.5, "test": 0.5}},
        [
            "data.test: validation (0.5) and test (0.5) leave no rows for training; their sum must be below 1",
            "data.path: expected text, got 3",
        ],
    ),
    ({"fusion": {"hidden": [1.5]}}, ["fusion.hidden.0: expected an integer, got 1.5"]),
    (
        {"bridges": {"objective": "papr"}},
        [
            "bridges.objective: expected 'paper' or a mapping of weights over elbo, distill, match, cross, "
            "got \"papr\". Did you mean 'paper'?"
        ],
    ),
    (
        {"bridges": {"objective": {"elbo": 0}}},
        ["bridges.objective: at least one of elbo, distill, match, cross must have a positive weight"],
    ),
    (
        {"bridges": {"objective": {"elbo": -1, "distil": 1}, "combine": "product"}},
        [
            "bridges.objective.elbo: expected 0 or more, got -1",
            "bridges.objective.distil: unknown term 'distil'. Did you mean 'distill'? Known: elbo, distill, match, cross",
            "bridges.combine: expected 'mean' or 'poe', got \"product\"",
        ],
    ),
    ({"training": 3}, ["training: expected a mapping, got 3"]),
    ({"training": {"stages": 3}}, ["training.stages: expected a mapping, got 3"]),
    (
        {"training": {"updates": 0, "stages": {"joint": {"epochs": 5, "updates": 100}, "bridges": {"patience": "none"}}}},
        [
            "training.updates: expected a number above 0, got 0",
            "training.stages.joint: both epochs (5) and updates (100) are given; set one of them to null",
            "training.stages.bridges.patience: expected an integer or 'auto', got \"none\"",
        ],
    ),
    (
        {"training": {"seed": 1.5, "precision": "fp16", "learning_rate": 0, "stages": {"join": {"epochs": 1}, "bridges": {"epochs": 0}}}},
        [
            "training.learning_rate: expected a number above 0, got 0",
            "training.seed: expected an integer, got 1.5",
            "training.precision: expected 'auto', 'float32' or 'bf16', got \"fp16\". Did you mean 'bf16'?",
            "training.stages.bridges.epochs: expected a number above 0, got 0",
            "training.stages.join: unknown stage 'join'. Did you mean 'joint'? Known: joint, bridges, subsets",
        ],
    ),
]


@pytest.mark.parametrize(("keys", "expected"), MISTAKES, ids=lambda value: str(value)[:60])
def test_each_mistake_is_told_in_plain_words(keys: dict[str, Any], expected: list[str]) -> None:
    assert problems(**keys) == expected


def test_mistakes_of_all_parts_are_told_at_once() -> None:
    told = problems(
        latent_dim=0, fusion=3, modalities={"label": {**LABEL, "weight": -1}, "keys": {**LABEL, "shape": 0}}, training={"seed": "x"}
    )
    assert [line.partition(":")[0] for line in told] == [
        "latent_dim",
        "modalities.label.weight",
        "modalities.keys",
        "modalities.keys.shape",
        "fusion",
        "training.seed",
    ]


def test_a_spec_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec().latent_dim = 3


@pytest.mark.parametrize("name", registry.BUILT_IN["datasets"])
def test_no_data_source_has_an_option_that_the_split_takes(name: str) -> None:
    assert not set(read_signature(registry.BUILT_IN["datasets"][name]).options) & {"source", *DataKeys.model_fields}


def test_bridges_have_no_option_that_the_objective_takes() -> None:
    assert not set(read_signature(registry.BUILT_IN["bridges"]["mlp"]).options) & {"type", *BridgesKeys.model_fields}


PLUG_IN = '''
from typing import Annotated
import torch
from annotated_types import Predicate
from pydantic import AfterValidator
from nbridge.nn.encoders import Encoder

def refuse(value):
    raise ValueError("nothing is right")

class Checked(Encoder):
    def __init__(self, shape: torch.Size, features, *, even: Annotated[int, Predicate(lambda x: x % 2 == 0)] = 0,
                 never: Annotated[int, AfterValidator(refuse)]): ...

class Mine(Encoder):
    """Mine."""
    def __init__(self, shape: tuple[int, int], features: int, *, copy: bool, model_config: int = 3, sizes: list[int] | None = None): ...
    def forward(self, x): ...

class Odd(Encoder):
    def __init__(self, shape, features, *, device: torch.Tensor | None = None): ...
'''


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / f"spec_{tmp_path.name}.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(tmp_path)
    return f"spec_{tmp_path.name}"


def test_the_options_of_ones_own_class_are_its_schema_whatever_their_names(plug_in: str) -> None:
    mine = {"type": f"{plug_in}:Mine", "copy": True, "sizes": [1, 2]}
    parsed = spec(modalities={"a": {"shape": [2, 3], "encoder": mine, "likelihood": "normal"}})
    assert parsed.modalities["a"].encoder == Component(f"{plug_in}:Mine", {"copy": True, "model_config": 3, "sizes": [1, 2]})
    assert spec_from_dict(parsed.as_dict()) == parsed


def test_a_shape_that_ones_own_class_does_not_serve_is_told(plug_in: str) -> None:
    own = {"type": f"{plug_in}:Mine", "copy": True}
    assert problems(**label(encoder=own)) == [f"modalities.label.encoder: {plug_in}:Mine does not support shape [10]"]


def test_a_check_in_the_annotation_of_ones_own_option_is_a_mistake_like_any_other(plug_in: str) -> None:
    told = problems(**label(encoder={"type": f"{plug_in}:Checked", "even": 3, "never": 1}))
    assert [line.partition(": ")[0] for line in told] == ["modalities.label.encoder.even", "modalities.label.encoder.never"]
    assert told[1].endswith(": nothing is right")


def test_parts_of_a_spec_may_be_given_to_another() -> None:
    one = spec(training={"stages": {"joint": {"epochs": 3}}}, bridges={"objective": "paper"}, data={"test": 0.5})
    again = Spec(modalities=one.modalities, training=one.training, bridges=one.bridges, data=one.data, fusion=one.fusion, model=one.model)
    assert again == one
    assert Spec(modalities=one.modalities, fusion=Component("mlp", {"hidden": [3]})).fusion.kwargs["hidden"] == (3,)


def test_mistakes_in_the_options_of_ones_own_class_are_told_alike(plug_in: str) -> None:
    mine = {"type": f"{plug_in}:Mine", "copi": True, "sizes": [1, "2"]}
    assert problems(modalities={"a": {"shape": 3, "encoder": mine, "likelihood": "normal"}}) == [
        "modalities.a.encoder: missing key 'copy'",
        'modalities.a.encoder.sizes.1: expected an integer, got "2"',
        "modalities.a.encoder.copi: unknown key 'copi'. Did you mean 'copy'? Known: type, copy, model_config, sizes",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Odd", "an option of '{}:Odd' has a type that YAML cannot express; use the types of nbridge.spec.option_types"),
        ("Encoder2", "'{0}:Encoder2': module '{0}' has no 'Encoder2'. Did you mean 'Encoder'?"),
        ("torch", "encoder '{}:torch' is of type module, expected a class"),
    ],
)
def test_a_class_of_ones_own_that_cannot_serve_is_told(plug_in: str, name: str, message: str) -> None:
    assert problems(**label(encoder=f"{plug_in}:{name}")) == [f"modalities.label.encoder: {message.format(plug_in)}"]
