"""Assignments from the command line: what they reach, and how their mistakes are told."""

from __future__ import annotations

import pytest

from nbridge.errors import SpecError
from nbridge.spec.reader import parse_spec
from nbridge.spec.registry import BUILT_IN

LABEL = "modalities: {label: {shape: 10, encoder: mlp, likelihood: categorical}}\n"
ENCODERS = f"Known: {', '.join(sorted(BUILT_IN['encoders']))}. For your own class write 'package.module:Class'."


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "s.yaml", overrides)
    return caught.value.problems


def test_assignments_reach_every_part_of_a_spec() -> None:
    spec = parse_spec(
        LABEL,
        overrides=[
            "name=no",
            "training.seed=7",
            "training.stages.joint.epochs=3",
            "data=digits",
            "data.test=0.3",
            "latent_dim=1",
            "latent_dim=2",
            "modalities.label.encoder.hidden=[64, 32]",
            "modalities.label.encoder.hidden.1=16",
            "modalities.label.likelihood.type=categorical",
            "modalities.image={shape: [1, 8, 8], encoder: conv, likelihood: bernoulli}",
            "bridges.objective=paper",
        ],
    )
    assert (spec.name, spec.training.seed, spec.latent_dim, spec.bridges.objective) == ("no", 7, 2, "paper")
    assert (spec.data.source.type, spec.data.test, spec.training.stage("joint").epochs) == ("digits", 0.3, 3)
    assert spec.modalities["label"].encoder.kwargs["hidden"] == (64, 16)
    assert spec.modalities["image"].shape == (1, 8, 8)


ASSIGNMENTS = [
    ("training.seed=x", ['training.seed: expected an integer, got "x"']),
    ("training.seed=", ["training.seed: expected an integer, got nothing"]),
    (
        "training.sed=1",
        [
            "training.sed: unknown key 'sed'. Did you mean 'seed'? Known: batch_size, learning_rate, gradient_clip, schedule, "
            "warmup_steps, weight_decay, kl_annealing, patience, updates, seed, precision, compile, cache_features, "
            "calibrate, conformal, checkpoint_seconds, stages"
        ],
    ),
    ("modalities.image.shape=3", ["modalities.image: missing key 'encoder'", "modalities.image: missing key 'likelihood'"]),
    ("modalities.label.encoder.hidden=64", ["modalities.label.encoder.hidden: expected a list, got 64"]),
    ("modalities.label.encoder=mpl", [f"modalities.label.encoder: unknown encoder 'mpl'. Did you mean 'mlp'? {ENCODERS}"]),
    ("modalities.label.shape.0=3", ["modalities.label.shape: this is a number; it has no key '0'"]),
    ("name.a.b=3", ["name: this is text; it has no key 'a'"]),
    ("data=[", ["not valid YAML: while parsing a flow node, expected the node content, but found '<stream end>'"]),
    ("data={source: digits, source: npz}", ["data.source: duplicate key 'source'; the first is in line 1"]),
    ("training.seed", ["expected path.to.key=value, such as training.seed=1"]),
    ("=1", ["expected path.to.key=value, such as training.seed=1"]),
    ("training..seed=1", ["expected path.to.key=value, such as training.seed=1"]),
]


@pytest.mark.parametrize(("assignment", "messages"), ASSIGNMENTS)
def test_a_mistake_of_an_assignment_names_it(assignment: str, messages: list[str]) -> None:
    assert problems(f"name: x\n{LABEL}", assignment) == [f"--set {assignment}: {message}" for message in messages]


def test_a_deep_path_is_one_line_and_builds_nothing() -> None:
    (told,) = problems(f"name: x\n{LABEL}", "a." * 10**5 + "b=1")
    assert told == f"--set {'a.' * 50}...: nested more than 50 levels deep"


def test_an_index_outside_a_list_is_told() -> None:
    text = "modalities: {image: {shape: [1, 8, 8], encoder: mlp, likelihood: normal}}\n"
    assert parse_spec(text, overrides=["modalities.image.shape.2=4"]).modalities["image"].shape == (1, 8, 4)
    message = "--set modalities.image.shape.3=4: modalities.image.shape: '3' is not an index of this list of 3 entries (the first is 0)"
    assert problems(text, "modalities.image.shape.3=4") == [message]


def test_an_assignment_mends_a_mistake_of_the_file_and_the_rest_keep_their_places() -> None:
    text = f"{LABEL}latent_dim: x\nname: 3\n"
    assert problems(text, "latent_dim=4", "training.seed=x") == [
        "s.yaml:3:7: name: expected text, got 3",
        '--set training.seed=x: training.seed: expected an integer, got "x"',
    ]
