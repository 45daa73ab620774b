"""From specs to models and rows: plug-ins, refusals, and rows that do not fit."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nbridge
from nbridge.data.split import Splits
from nbridge.nn.encoders import ConvEncoder, MLPEncoder
from nbridge.spec import registry
from nbridge.spec.reader import spec_from_dict
from nbridge.training import build
from nbridge.training.build import build_data

MODALITIES = {
    "x": {"shape": 3, "encoder": "mlp", "likelihood": "normal"},
    "p": {"shape": 2, "encoder": "mlp", "likelihood": "bernoulli"},
    "y": {"shape": 4, "encoder": "mlp", "likelihood": "categorical"},
}


def spec(**changes: object) -> nbridge.Spec:
    return nbridge.Spec.model_validate({"modalities": MODALITIES, **changes})


def rows(number: int = 20) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {"x": generator.normal(size=(number, 3)), "p": generator.random((number, 2)), "y": np.arange(number) % 4}


def refuse(data: dict[str, object]) -> str:
    with pytest.raises(nbridge.DataError) as caught:
        build_data(spec(), nbridge.build_model(spec()), data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def replaced(name: str, row: object, value: object) -> dict[str, np.ndarray]:
    data = {key: array.astype(float) for key, array in rows().items()}
    data[name][row] = value
    return data


def test_parts_are_those_of_the_spec_and_decoders_mirror_their_encoders():
    model = nbridge.build_model(
        nbridge.Spec.model_validate(
            {
                "latent_dim": 5,
                "modalities": {
                    "a": {"shape": 7, "features": 6, "encoder": {"type": "mlp", "hidden": [9, 8]}, "likelihood": "normal"},
                    "b": {"shape": [1, 5, 5], "encoder": {"type": "conv", "channels": [3, 4]}, "likelihood": "bernoulli"},
                    "c": {"shape": [1, 5, 5], "encoder": "conv", "decoder": {"type": "mlp", "hidden": [11]}, "likelihood": "laplace"},
                },
            }
        )
    )
    assert isinstance(model.encoders["a"], MLPEncoder)
    assert isinstance(model.encoders["b"], ConvEncoder)
    widths = {
        name: [layer.out_features for layer in decoder.modules() if isinstance(layer, torch.nn.Linear)]
        for name, decoder in model.decoders.items()
    }
    assert widths["a"] == [6, 8, 9, 7]
    assert widths["b"] == [4 * 2 * 2]
    assert widths["c"] == [11, 25]


def test_rows_of_every_split_fit_and_presence_is_never_inferred_from_zeros():
    data = rows()
    data["x"][3] = 0.0
    splits = build_data(spec(), nbridge.build_model(spec()), data)
    parts = [splits.train, splits.validation, splits.test]
    assert sum(len(part) for part in parts) == 20
    assert all(part.present["x"].all() for part in parts)


def test_scaling_is_fitted_on_present_training_rows_only():
    data = rows(200)
    absent = np.arange(200) % 3 == 0
    data["x"] = np.where(absent[:, None], np.nan, data["x"] * 7 + 100)
    splits = build_data(spec(), model := nbridge.build_model(spec()), data)
    model.fit_statistics(splits.train)
    seen = splits.train.values["x"][splits.train.present["x"]]
    likelihood = model.likelihoods["x"]
    torch.testing.assert_close(likelihood.shift, seen.mean(0))
    torch.testing.assert_close(likelihood.unit, seen.std(0, correction=0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (replaced("p", (7, 1), 1.5), "modality 'p', row 7: value 1.5 is outside the support of Bernoulli, numbers from 0 to 1"),
        (replaced("y", 5, 4), "modality 'y': row 5 holds 4.0, expected a class index from 0 to 3"),
        (replaced("x", (2, 0), np.inf), "modality 'x': inf in row 2, cell (0,): values must be finite (NaN marks absent values)"),
        (replaced("x", slice(None), np.nan), "modality 'x': present in none of the 20 rows, expected at least one"),
        ({**rows(), "x": rows()["x"][:, :2]}, "modality 'x': array of shape (20, 2), expected (rows, 3)"),
        ({name: array for name, array in rows().items() if name != "x"}, "modality 'x': no array of this name."),
        ({**rows(), "y": np.full((20, 4), 0.25)}, "modality 'y', row 0: expected a class index or a one-hot row, with a single 1 among 0s"),
        ({**rows(), "p": np.zeros(20, dtype=int)}, "modality 'p'"),
    ],
)
def test_rows_that_do_not_fit_are_refused_in_one_line(data: dict[str, np.ndarray], message: str):
    assert refuse(data).startswith(message)


class JointAlone(nbridge.MultimodalVAE):
    """A model of another kind: an encoder and a head for the first modality alone, no bridges, an option of its own."""

    def __init__(self, encoders, decoders, head, *, pull: float = 1.0) -> None:
        super().__init__(encoders, decoders, head.latent_dim)
        self.head, self.pull = head, pull

    @classmethod
    def from_parts(cls, parts, **options):
        encoders, decoders = ({name: make(name) for name in parts.names} for make in (parts.encoder, parts.decoder))
        return cls(encoders, decoders, parts.fusion(parts.names[:1]), **options)

    def infer(self, batch):
        return self.head(self.encode(batch))

    def stages(self):
        def loss(batch, features, kl_weight):
            z = self.head(self.encode(batch)).rsample()
            return {name: -self.log_prob(name, z, batch).mean() for name in self.names} | {"pull": self.pull * z.square().mean()}

        return (nbridge.Stage("alone", (self,), loss, lambda batch: self.presence(batch).all(0)),)


def test_a_model_of_another_kind_is_named_in_a_spec_takes_the_parts_it_needs_and_trains(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    kind = f"{__name__}:JointAlone"
    run = nbridge.train(
        {"model": {"type": kind, "pull": 0.5}, "modalities": MODALITIES, "training": {"stages": {"alone": {"epochs": 2}}}}, rows(60)
    )
    assert type(run.model.network).__name__ == "JointAlone"
    assert run.model.network.pull == 0.5
    assert {name.split(".")[0] for name, _ in run.model.network.named_parameters()} == {"encoders", "decoders", "head"}
    assert run.model.impute(run.splits.test.hide("y"), samples=3).values["y"].shape == (3, 12)


@pytest.mark.parametrize("number", [1, 20])
def test_one_modality_and_twenty_train_and_impute(number: int):
    modality = {"shape": 3, "features": 4, "encoder": {"type": "mlp", "hidden": [4]}, "likelihood": "normal"}
    spec = {
        "latent_dim": 2,
        "modalities": {f"m{i}": modality for i in range(number)},
        "bridges": {"hidden": [4]},
        "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
    }
    generator = np.random.default_rng(0)
    run = nbridge.train(spec, {f"m{i}": generator.normal(size=(50, 3)) for i in range(number)})
    assert len(run.model.network.bridges.pairs) == number * (number - 1)
    done = run.model.impute(run.splits.test.only("m0"), samples=2)
    assert all(torch.isfinite(values).all() for values in done.values.values())


def test_entry_points_give_short_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest):
    (tmp_path / "plugin_of_a_friend.py").write_text(
        "import nbridge\n"
        "class Ring(nbridge.Encoder):\n"
        "    def __init__(self, shape, features, *, turns: int = 2):\n"
        "        super().__init__(); self.features = features; self.turns = turns\n"
        "    def forward(self, x): return x.new_zeros(len(x), self.features)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    information = tmp_path / "plugin_of_a_friend-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-a-friend\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[nbridge.encoders]\nring = plugin_of_a_friend:Ring\n")
    registry.entry_points.cache_clear()
    request.addfinalizer(registry.entry_points.cache_clear)
    chosen = {**MODALITIES, "x": {**MODALITIES["x"], "encoder": {"type": "ring", "turns": 3}}}
    model = nbridge.build_model(nbridge.Spec.model_validate({"modalities": chosen}))
    assert type(model.encoders["x"]).__name__ == "Ring"
    assert model.encoders["x"].turns == 3
    sys.modules.pop("plugin_of_a_friend")


def test_a_constructor_that_refuses_its_options_is_a_mistake_of_the_spec():
    wrong = {**MODALITIES["x"], "likelihood": {"type": "discretized_logistic", "low": 1.0, "high": 0.0}}
    with pytest.raises(nbridge.SpecError, match=r"modalities.x.likelihood: .* high \(0.0\) must be above low \(1.0\)"):
        nbridge.build_model(nbridge.Spec.model_validate({"modalities": {"x": wrong}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"bridges": {"objective": {"cross": 1}}, "modalities": {n: MODALITIES[n] for n in "xp"}},
            "model: objective {'cross': 1.0} trains nothing",
        ),
        (
            {"modalities": {"x": {**MODALITIES["x"], "shape": [1, 4, 4], "encoder": {"type": "conv", "channels": []}}}},
            "expected 1 or more entries, got 0",
        ),
        (
            {"data": {"source": "digits", "validation": 0}, "training": {"patience": 3}},
            "needs validation rows, and data.validation is 0",
        ),
        ({"training": {"batch_size": 1}}, "training.batch_size: expected 2 or more, got 1"),
        ({"training": {"seed": 2**70}}, "training.seed"),
    ],
)
def test_what_cannot_work_is_refused_when_the_spec_is_read_or_built(changes: dict[str, object], message: str):
    with pytest.raises(nbridge.SpecError) as caught:
        nbridge.build_model(spec_from_dict({"modalities": MODALITIES, **changes}))
    assert message in str(caught.value)


WIDE = {"encoder": {"type": "mlp", "hidden": [4]}, "features": 4}
MANY: dict[str, dict[str, Any]] = {
    # No single layer is large.
    "encoder": {"modalities": {"x": {**WIDE, "encoder": {"type": "mlp", "hidden": [9000] * 200}, "shape": 2, "likelihood": "normal"}}},
    "fusion": {"fusion": {"hidden": [9000] * 200}},
    "bridges": {"bridges": {"hidden": [9000] * 200}},
    "blocks": {"bridges": {"type": "flow", "width": 5000, "blocks": 200}},
    "channels": {
        "modalities": {"x": {"encoder": {"type": "conv", "channels": [5000] * 200}, "shape": [1, 4, 4, 4], "likelihood": "normal"}},
    },
}


@pytest.mark.parametrize("where", MANY)
def test_many_layers_that_no_memory_holds_are_refused_before_any_is_allocated(where: str, monkeypatch: pytest.MonkeyPatch):
    plain = {name: {**WIDE, "shape": 2, "likelihood": "normal"} for name in "xy"}
    changes = MANY[where]
    wanted = nbridge.Spec.model_validate({**changes, "latent_dim": 2, "modalities": {**plain, **changes.get("modalities", {})}})
    monkeypatch.setattr(build, "own_draws", lambda _: pytest.fail("weights were allocated"))
    with pytest.raises(nbridge.SpecError, match=r"^[\d,]{14,} parameters would take [\d,.]+ GB, and this machine has [\d,.]+ GB; "):
        nbridge.build_model(wanted)


@pytest.mark.parametrize(
    ("part", "limit"),
    [
        ({"fusion": {"hidden": [4] * 201}}, "fusion.hidden: expected 200 entries or fewer, got 201"),
        ({"bridges": {"type": "flow", "blocks": 10**9}}, "bridges.blocks: expected 200 or less, got 1000000000"),
    ],
)
def test_layers_that_take_forever_to_build_are_refused_by_their_number(part: dict[str, object], limit: str):
    with pytest.raises(nbridge.SpecError, match=re.escape(limit)):
        spec_from_dict({**part, "modalities": {name: {**WIDE, "shape": 2, "likelihood": "normal"} for name in "xy"}})


def test_live_modules_are_checked_where_they_are_put_together():
    good = nbridge.build_model(spec())
    parts = (dict(good.encoders.items()), dict(good.decoders.items()), good.fusion, good.bridges)
    with pytest.raises(ValueError, match="unknown term 'distil' in objective, expected elbo, distill, match, cross"):
        nbridge.BridgedVAE(*parts, objective={"distil": 1.0})
    with pytest.raises(ValueError, match="combine is 'pow', expected one of mean, poe"):
        nbridge.BridgedVAE(*parts, combine="pow")
    with pytest.raises(ValueError, match=r"weights of unknown modalities \['z'\]"):
        nbridge.BridgedVAE(*parts, {"z": 1.0})
    with pytest.raises(ValueError, match="their modalities must be the same"):
        nbridge.BridgedVAE({"x": parts[0]["x"]}, *parts[1:])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: nbridge.Model(model).generate(3, {"yy": 1}), "given 'yy': no such modality in this model; it has x, p, y"),
        (lambda model: nbridge.Model(model).generate(3, {"y": [0, 1]}), "given 'y': 2 rows, expected one value or 3 of them"),
        (lambda model: nbridge.Model(model).generate(0), "num is 0, expected 1 or more"),
        (lambda model: nbridge.Model(model).impute(rows(), samples=0), "samples is 0, expected 1 or more"),
        (
            lambda model: nbridge.Model(model).embed(nbridge.Batch.complete({"x": torch.zeros(2, 3)}), samples=-1),
            "samples is -1, expected 1 or more",
        ),
    ],
)
def test_calls_that_make_no_sense_are_told_so(call, message: str):
    with pytest.raises(nbridge.DataError) as caught:
        call(nbridge.build_model(spec()))
    assert str(caught.value) == message


def test_one_class_is_given_to_all_generated_rows_and_a_slip_of_a_name_is_noticed():
    model = nbridge.build_model(spec())
    assert nbridge.Model(model).generate(5, {"y": 2})["y"].tolist() == [2] * 5
    values = MODALITIES | {"label": MODALITIES["y"]}
    wide = nbridge.build_model(nbridge.Spec.model_validate({"modalities": values}))
    with pytest.raises(nbridge.DataError, match=r"array 'lable': no such modality. Did you mean 'label'\?"):
        nbridge.Model(wide).impute({**rows(), "lable": np.zeros(20)})


# Rows and pairs that are worth a warning


def heard(data: dict[str, np.ndarray], **keys: object) -> tuple[Splits, list[str]]:
    lines: list[str] = []
    chosen = spec(data=keys) if keys else spec()
    return build_data(chosen, nbridge.build_model(chosen), data, warn=lambda finding: lines.append(finding.text)), lines


def with_empty_rows(*numbers: int) -> dict[str, np.ndarray]:
    data = rows(40)
    masks = {f"{name}__present": np.ones(40, dtype=bool) for name in data}
    for mask in masks.values():
        mask[list(numbers)] = False
    return {**data, **masks}


def test_rows_in_which_nothing_is_observed_are_named_and_stay_unless_the_spec_says_otherwise():
    splits, lines = heard(with_empty_rows(4, 7, 9, 12, 30))
    assert lines == [
        "nothing is observed in rows 4, 7, 9 and 2 more (5 in all); such rows are kept, but not trained on; "
        "data.empty_rows: drop removes them"
    ]
    assert sum(len(part) for part in (splits.train, splits.validation, splits.test)) == 40
    splits, lines = heard(with_empty_rows(4), empty_rows="drop")
    assert lines == ["nothing is observed in row 4; such rows are dropped (data.empty_rows: drop)"]
    parts = (splits.train, splits.validation, splits.test)
    assert sum(len(part) for part in parts) == 39
    assert all(torch.stack(list(part.present.values())).any(0).all() for part in parts)
    with pytest.raises(nbridge.DataError) as caught:
        heard(with_empty_rows(4, 7), empty_rows="refuse")
    assert str(caught.value) == (
        "nothing is observed in rows 4, 7, and data.empty_rows is refuse; remove them, or set data.empty_rows to drop"
    )
    for choice in ("keep", "drop", "refuse"):
        assert heard(rows(40), empty_rows=choice)[1] == []


def test_rows_that_are_dropped_leave_the_split_of_the_others_as_it_would_be_without_them():
    data, kept = rows(40), np.delete(np.arange(40), [4, 7])
    splits, _ = heard(with_empty_rows(4, 7), empty_rows="drop")
    without, lines = heard({name: array[kept] for name, array in data.items()})
    assert lines == []
    for part in ("train", "validation", "test"):
        assert all(torch.equal(getattr(splits, part).values[name], getattr(without, part).values[name]) for name in data)


def test_modalities_that_no_training_row_has_together_are_told():
    data = rows(40)
    first, second, *_ = data
    even = np.arange(40) % 2 == 0
    _, lines = heard({**data, f"{first}__present": even, f"{second}__present": ~even})
    (line,) = lines
    assert line.startswith(f"no training row has both {first} and {second}, so ")


def test_a_batch_that_lacks_a_modality_altogether_is_refused():
    data = build_data(spec(), nbridge.build_model(spec()), rows()).train
    assert refuse(data.select("x")) == "modality 'p' is not in these rows, which have x"


@pytest.mark.parametrize("source", ["npz", "npy"])
def test_rows_of_files_in_which_nothing_is_observed_are_dropped_as_those_in_memory(source: str, tmp_path: Path):
    data = rows(40)
    data["x"][[4, 7]], data["p"][[4, 7]] = np.nan, np.nan
    data["y"] = np.where(np.isin(np.arange(40), [4, 7]), np.nan, data["y"])
    if source == "npz":
        np.savez(path := tmp_path / "rows.npz", **data, id=np.arange(40) + 100)
    else:
        path = tmp_path
        for name, array in {**data, "id": np.arange(40) + 100}.items():
            np.save(path / f"{name}.npy", array)
    chosen = {"source": source, "path": str(path)}
    model = nbridge.build_model(spec())
    splits = build_data(spec(data={**chosen, "empty_rows": "drop"}), model)
    ids = np.concatenate([splits.train_ids, splits.validation_ids, splits.test_ids])
    assert sorted(ids) == [number + 100 for number in range(40) if number not in (4, 7)]
    test = splits.test.sample()
    torch.testing.assert_close(test.values["x"].double().numpy(), data["x"][splits.test_ids - 100], check_dtype=False)
    with pytest.raises(nbridge.DataError) as caught:
        build_data(spec(data={**chosen, "empty_rows": "refuse"}), model)
    assert str(caught.value) == (
        f"{path}: nothing is observed in rows 4, 7, and data.empty_rows is refuse; remove them, or set data.empty_rows to drop"
    )
