"""Parameters by closed formula, by counting tensors, and by a count of one's own that knows nothing of either."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbridge.evaluation.parameter_counts import COUNTED_UP_TO, ParameterTable, count_parameters, mlp_parameters
from nbridge.nn.networks import MLP, StackedMLP
from nbridge.spec.spec import Spec

SIZES = st.integers(1, 5)
HIDDEN = st.lists(SIZES, max_size=2)


def spec_of(modalities: list[dict[str, Any]], **rest: Any) -> Spec:
    return Spec.model_validate({"modalities": {f"m{i}": modality for i, modality in enumerate(modalities)}, **rest})


def modality(shape: int, features: int, hidden: list[int], *, batch_norm: bool = True) -> dict[str, Any]:
    encoder = {"type": "mlp", "hidden": hidden, "batch_norm": batch_norm}
    return {"shape": shape, "features": features, "likelihood": "bernoulli", "encoder": encoder}


@st.composite
def sizes(draw: st.DrawFn) -> tuple[Spec, dict[str, Any]]:
    """A spec of 2 to 8 modalities, and the numbers it was made from."""
    n = draw(st.integers(2, 8))
    drawn = {
        "n": n,
        "D": draw(SIZES),
        "shape": [draw(SIZES) for _ in range(n)],
        "F": [draw(SIZES) for _ in range(n)],
        "hidden": [draw(HIDDEN) for _ in range(n)],
        "fusion": draw(HIDDEN),
        "bridge": draw(HIDDEN),
        "bn": draw(st.booleans()),
        "own": draw(st.booleans()),
    }
    modalities = [modality(*parts, batch_norm=drawn["bn"]) for parts in zip(drawn["shape"], drawn["F"], drawn["hidden"], strict=True)]
    options = {"batch_norm": drawn["bn"]}
    bridges = {"hidden": drawn["bridge"], "encoders": "own" if drawn["own"] else "shared", **options}
    return spec_of(modalities, latent_dim=drawn["D"], fusion={"hidden": drawn["fusion"], **options}, bridges=bridges), drawn


def dense(*path: int, normed: int) -> int:
    """Weights and biases along a path of widths, and two numbers for each unit of so many normalised layers."""
    weights = sum(a * b for a, b in itertools.pairwise(path))
    return weights + sum(path[1:]) + 2 * sum(path[1 : 1 + normed])


def enumerated(d: dict[str, Any]) -> dict[str, int]:
    """All three totals, network by network, subsets as bit patterns."""
    n, norm = d["n"], int(d["bn"])

    def encoder(i: int) -> int:
        return dense(d["shape"][i], *d["hidden"][i], d["F"][i], normed=norm * (len(d["hidden"][i]) + 1))

    def decoder(i: int) -> int:
        path = [d["D"], d["F"][i], *d["hidden"][i][::-1], d["shape"][i]]
        return dense(*path, normed=norm * (len(path) - 2))

    def fusion(members: list[int]) -> int:
        return dense(sum(d["F"][i] for i in members), *d["fusion"], 2 * d["D"], normed=norm * len(d["fusion"]))

    everything = list(range(n))
    decoders = sum(map(decoder, everything))
    bridged = (1 + d["own"]) * sum(map(encoder, everything)) + fusion(everything) + decoders
    for i in everything:
        for j in everything:
            if i != j:
                bridged += dense(d["F"][i], *d["bridge"], d["F"][j], normed=norm * len(d["bridge"]))
    retrofit = decoders
    for pattern in range(1, 2**n):
        members = [i for i in everything if pattern >> i & 1]
        retrofit += fusion(members) + sum(map(encoder, members))
    mvae = decoders + sum(encoder(i) + fusion([i]) for i in everything)
    return {"bridged": bridged, "retrofit": retrofit, "mvae": mvae}


# Building 255 networks a model takes its time.
@settings(max_examples=12)
@given(drawn=sizes())
def test_formula_tensors_and_an_enumeration_of_all_subsets_agree(drawn: tuple[Spec, dict[str, Any]]) -> None:
    spec, numbers = drawn
    table = count_parameters(spec)
    expected = enumerated(numbers)
    assert [model.name for model in table.models] == list(expected)
    for model in table.models:
        assert model.formula == expected[model.name]
        assert model.counted == expected[model.name]
    assert sum(table.parts.values()) == table.models[0].counted
    own = sum(count for part, count in table.parts.items() if part.endswith(" for bridges"))
    assert table.paper == table.models[0].formula - own
    assert table.reduction == pytest.approx(1 - expected["bridged"] / expected["retrofit"])
    n = numbers["n"]
    assert [model.networks for model in table.models] == [1 + n * (n - 1), 2**n - 1, n]
    assert len([part for part in table.parts if part.startswith("bridge ")]) == n * (n - 1)


def equal_sizes(n: int) -> ParameterTable:
    bridges = {"hidden": [7], "encoders": "shared"}
    return count_parameters(spec_of([modality(4, 3, [5])] * n, latent_dim=2, fusion={"hidden": [6]}, bridges=bridges))


# One modality of four values, by hand: encoder 4-5-3 with two normalised layers, decoder 2-3-5-4, bridge 3-7-3, fusion 3n-6-4.
ENCODER = (4 * 5 + 5 + 2 * 5) + (5 * 3 + 3 + 2 * 3)
DECODER = (2 * 3 + 3 + 2 * 3) + (3 * 5 + 5 + 2 * 5) + (5 * 4 + 4)
BRIDGE = (3 * 7 + 7 + 2 * 7) + (7 * 3 + 3)


def fusion(n: int) -> int:
    return (3 * n * 6 + 6 + 2 * 6) + (6 * 4 + 4)


def test_two_modalities_by_hand() -> None:
    bridged, retrofit, mvae = equal_sizes(2).models
    assert bridged.counted == bridged.formula == 2 * ENCODER + fusion(2) + 2 * BRIDGE + 2 * DECODER
    assert retrofit.counted == retrofit.formula == 4 * ENCODER + fusion(2) + 2 * fusion(1) + 2 * DECODER
    assert mvae.counted == mvae.formula == 2 * ENCODER + 2 * fusion(1) + 2 * DECODER
    assert [model.networks for model in (bridged, retrofit, mvae)] == [3, 3, 2]


def test_three_modalities_by_hand() -> None:
    bridged, retrofit, mvae = equal_sizes(3).models
    assert bridged.counted == bridged.formula == 3 * ENCODER + fusion(3) + 6 * BRIDGE + 3 * DECODER
    assert retrofit.counted == retrofit.formula == 12 * ENCODER + fusion(3) + 3 * fusion(2) + 3 * fusion(1) + 3 * DECODER
    assert mvae.counted == mvae.formula == 3 * ENCODER + 3 * fusion(1) + 3 * DECODER
    assert [model.networks for model in (bridged, retrofit, mvae)] == [7, 7, 3]


def test_encoders_of_their_own_for_bridges_add_each_encoder_once_more_and_are_the_default() -> None:
    for n in (2, 3, 5):
        default = count_parameters(spec_of([modality(4, 3, [5])] * n, latent_dim=2, fusion={"hidden": [6]}, bridges={"hidden": [7]}))
        shared = equal_sizes(n)
        assert default.models[0].counted == default.models[0].formula == shared.models[0].formula + n * ENCODER
        assert default.paper == shared.paper == shared.models[0].formula


def test_bridges_grow_as_n_times_n_minus_one_and_the_retrofits_double() -> None:
    tables = {n: equal_sizes(n) for n in range(2, 9)}
    for n, table in tables.items():
        assert table.models[0].counted - n * (ENCODER + DECODER) - fusion(n) == n * (n - 1) * BRIDGE
        fusions = sum(math.comb(n, k) * fusion(k) for k in range(1, n + 1))
        assert table.models[1].counted == n * 2 ** (n - 1) * ENCODER + fusions + n * DECODER


def test_one_modality_needs_no_bridge() -> None:
    bridged, retrofit, mvae = equal_sizes(1).models
    assert bridged.counted == retrofit.counted == mvae.counted == ENCODER + fusion(1) + DECODER
    assert bridged.networks == retrofit.networks == mvae.networks == 1


def test_where_the_retrofits_are_too_many_to_build_the_formula_stands_alone() -> None:
    n = COUNTED_UP_TO + 1
    bridged, retrofit, mvae = equal_sizes(n).models
    assert retrofit.counted is None
    assert retrofit.networks == 2**n - 1
    subsets = [bin(pattern).count("1") for pattern in range(1, 2**n)]
    assert retrofit.formula == sum(size * ENCODER + fusion(size) for size in subsets) + n * DECODER
    assert bridged.counted == bridged.formula
    assert mvae.counted == mvae.formula


@given(inputs=SIZES, outputs=SIZES, hidden=st.lists(SIZES, max_size=3), batch_norm=st.booleans(), stack=SIZES)
def test_the_formula_of_an_mlp_holds_for_the_network_and_its_stacked_twin(
    inputs: int, outputs: int, hidden: list[int], batch_norm: bool, stack: int
) -> None:
    expected = mlp_parameters(inputs, outputs, hidden, batch_norm=batch_norm)
    single = MLP(inputs, outputs, hidden=hidden, batch_norm=batch_norm)
    stacked = StackedMLP(stack, inputs, outputs, hidden=hidden, batch_norm=batch_norm)
    assert sum(parameter.numel() for parameter in single.parameters()) == expected
    assert sum(parameter.numel() for parameter in stacked.parameters()) == stack * expected


def test_convolutions_and_embeddings_are_counted_too() -> None:
    spec = spec_of(
        [
            {"shape": [1, 5, 4], "encoder": {"type": "conv", "channels": [2, 3]}, "likelihood": {"type": "normal", "scale": "predicted"}},
            {"shape": 3, "encoder": {"type": "embedding", "embedding_dim": 2}, "likelihood": "categorical"},
            {"shape": 6, "encoder": "mlp", "likelihood": "negative_binomial"},
        ]
    )
    for model in count_parameters(spec).models:
        assert model.counted == model.formula
