"""Models as graphs: they impute as the model does, whatever is present, and what cannot be one says so in a line."""

from __future__ import annotations

import itertools
import json
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from strategies import grown_model, rows_of
from torch import Tensor, nn
from typer.testing import CliRunner

import nbridge
from nbridge.cli.main import app
from nbridge.data.batch import Batch
from nbridge.data.column import PRESENT
from nbridge.errors import RunError
from nbridge.inference.impute import fixed_points, impute
from nbridge.inference.served import Served
from nbridge.models.base import MultimodalVAE
from nbridge.models.bridged import BridgedVAE
from nbridge.nn.flow_bridge import FlowBridge
from nbridge.nn.likelihoods import Categorical, DiscretizedLogistic, NegativeBinomial, Poisson
from nbridge.nn.networks import MLP
from nbridge.sharing import onnx as export
from nbridge.sharing.graph import COMPLETED, ImputationGraph
from nbridge.sharing.onnx import export_model

NARROW = {"type": "mlp", "hidden": [5]}
MODALITIES: dict[str, dict[str, Any]] = {
    "image": {"shape": [1, 3, 4], "features": 4, "encoder": {"type": "conv", "channels": [3]}, "likelihood": "bernoulli"},
    "label": {"shape": 4, "features": 3, "encoder": {"type": "embedding", "embedding_dim": 2}, "likelihood": "categorical"},
    "genes": {"shape": 3, "features": 4, "encoder": NARROW, "likelihood": "negative_binomial"},
    "size": {"shape": 2, "features": 3, "encoder": NARROW, "likelihood": {"type": "normal", "scale": "predicted"}},
    "cells": {"shape": 2, "features": 3, "encoder": NARROW, "likelihood": "poisson"},
    "depth": {"shape": [2, 2], "features": 3, "encoder": NARROW, "likelihood": "laplace"},
    "grey": {"shape": [1, 2, 2], "features": 3, "encoder": NARROW, "likelihood": {"type": "discretized_logistic", "levels": 16}},
}
MIXED, COUNTED = ("image", "label", "size"), ("genes", "cells", "depth", "grey")
MODELS: dict[str, dict[str, Any]] = {
    "bridged": {},
    "bridged, mean": {"bridges": {"hidden": [5], "combine": "mean"}},
    "bridged, own encoders": {"bridges": {"hidden": [5], "encoders": "own"}},
    "flow": {"bridges": {"type": "flow", "width": 8, "steps": 2, "encoders": "shared"}},
    "flow, own encoders": {"bridges": {"type": "flow", "width": 8, "steps": 2, "encoders": "own"}},
    **{name: {"model": name} for name in ("jmvae", "telbo", "mvae", "bivcca", "joint", "vae")},
}


def model_of(kind: str, names: tuple[str, ...], seed: int = 0) -> MultimodalVAE:
    spec = {"latent_dim": 3, "modalities": {name: MODALITIES[name] for name in names}, "fusion": {"hidden": [6]}, **MODELS[kind]}
    model = grown_model(nbridge.Spec.model_validate(spec), seed)
    for module in model.modules():
        if isinstance(module, FlowBridge):
            # A flow that does something, seen from what serves.
            module.average.load_state_dict({name: 3 * x for name, x in module.average.state_dict().items()})
    return model


def every_pattern(model: MultimodalVAE, given: tuple[str, ...], seed: int = 1) -> dict[str, Tensor]:
    """Rows in which the given modalities are present in every way, none of them among these; what is absent is NaN, or no class."""
    patterns = torch.tensor(list(itertools.product([False, True], repeat=len(given))))
    inputs: dict[str, Tensor] = {}
    for name, x in rows_of(model, len(patterns), seed).items():
        if name in given:
            shown = patterns[:, given.index(name)]
            over = shown.reshape(-1, *(1 for _ in x.shape[1:]))
            inputs |= {name: torch.where(over, x, torch.nan if x.is_floating_point() else -7), name + PRESENT: shown}
    return inputs


def imputed(model: MultimodalVAE, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the model itself makes of a graph's inputs."""
    names = [name for name in inputs if not name.endswith(PRESENT)]
    return impute(model, Batch({name: inputs[name] for name in names}, {name: inputs[name + PRESENT] for name in names})).values


def check(model: MultimodalVAE, outputs: dict[str, Tensor], inputs: dict[str, Tensor]) -> None:
    """That outputs are those of `impute` within 1e-4; what is rounded may fall on the other side of a half."""
    expected = imputed(model, inputs)
    for name, x in outputs.items():
        likelihood = model.likelihoods[name.removesuffix(COMPLETED)]
        mine = expected[name.removesuffix(COMPLETED)]
        assert x.dtype == mine.dtype
        if isinstance(likelihood, Categorical):
            assert torch.equal(x, mine)
        elif isinstance(likelihood, DiscretizedLogistic | NegativeBinomial | Poisson):
            step = (likelihood.high - likelihood.low) / (likelihood.levels - 1) if isinstance(likelihood, DiscretizedLogistic) else 1.0
            off = (x - mine).abs()
            assert (off > 1e-4).float().mean() < 0.05
            assert off.max() <= step + 1e-4
        else:
            torch.testing.assert_close(x, mine, rtol=1e-4, atol=1e-4)


def told(error: pytest.ExceptionInfo[RunError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# The graph, as torch runs it step by step


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("names", [MIXED, COUNTED])
def test_a_graph_imputes_as_the_model_does_for_every_pattern_of_presence(kind: str, names: tuple[str, ...]):
    for seed in range(3):
        model = model_of(kind, names, seed)
        graph, inputs = ImputationGraph(model, model.names, model.names), every_pattern(model, model.names, seed)
        outputs = graph(inputs)
        check(model, outputs, inputs)
        for name in model.names:
            shown = inputs[name + PRESENT]
            assert torch.equal(outputs[name + COMPLETED][shown], inputs[name][shown])


@pytest.mark.parametrize("kind", MODELS)
def test_modalities_that_are_no_inputs_are_absent_and_those_that_are_no_outputs_are_left_out(kind: str):
    model = model_of(kind, MIXED)
    given, wanted = model.names[-1:], model.names[:1]
    inputs = every_pattern(model, given)
    outputs = ImputationGraph(model, given, wanted)(inputs)
    assert list(outputs) == [wanted[0] + COMPLETED]
    check(model, outputs, inputs)


def test_a_flow_serves_a_row_alike_whatever_rows_are_beside_it():
    model = model_of("flow", MIXED)
    inputs = every_pattern(model, model.names)
    together = imputed(model, inputs)
    for row in range(8):
        alone = imputed(model, {name: x[row : row + 1] for name, x in inputs.items()})
        for name, x in alone.items():
            torch.testing.assert_close(x[0], together[name][row], rtol=1e-5, atol=1e-6)
    q = model.fixed_posterior(Batch.complete(rows_of(model, 2, 0)).hide("image"), fixed_points(model)[1])
    assert not torch.equal(q.mean[0], q.mean[1])


# Files


@pytest.mark.parametrize("kind", ["flow", "jmvae"])
def test_a_pt2_file_holds_the_same_graph_for_any_number_of_rows(kind: str, tmp_path: Path):
    model = model_of(kind, MIXED[1:])
    export_model(Served(model), tmp_path / "model.pt2")
    graph = torch.export.load(tmp_path / "model.pt2").module()
    inputs = every_pattern(model, model.names)
    for rows in (len(inputs["label"]), 1):
        few = {name: x[-rows:] for name, x in inputs.items()}
        # By name, in any order.
        check(model, graph(**dict(reversed(few.items()))), few)


def in_onnx(path: Path, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    outputs = session.run(None, {name: x.numpy() for name, x in inputs.items()})
    return {one.name: torch.from_numpy(x) for one, x in zip(session.get_outputs(), outputs, strict=True)}


def test_an_onnx_file_holds_the_same_graph_for_any_number_of_rows(tmp_path: Path):
    model = model_of("bridged", MIXED[1:])
    description = export_model(Served(model), tmp_path / "model.onnx")
    inputs = every_pattern(model, model.names)
    for rows in (len(inputs["label"]), 1):
        few = {name: x[-rows:] for name, x in inputs.items()}
        outputs = in_onnx(tmp_path / "model.onnx", few)
        assert list(outputs) == list(description["outputs"])
        check(model, outputs, few)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "names"), [("flow", MIXED[:2]), ("mvae", COUNTED), ("jmvae", MIXED[1:])])
def test_models_of_other_kinds_and_every_likelihood_are_the_same_in_onnx(kind: str, names: tuple[str, ...], tmp_path: Path):
    model = model_of(kind, names)
    export_model(Served(model), tmp_path / "model.onnx")
    inputs = every_pattern(model, model.names)
    check(model, in_onnx(tmp_path / "model.onnx", inputs), inputs)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table, one of whose columns has classes."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    lines = [f"{rng.normal():.3f},{rng.normal():.3f},{('I', 'II', 'III')[number % 3]}" for number in range(60)]
    (folder / "rows.csv").write_text("\n".join(["age,bmi,stage", *lines]) + "\n")
    spec = {
        "data": {
            "source": "table",
            "path": str(folder / "rows.csv"),
            "columns": {"body": ["age", "bmi"], "stage": "stage"},
            "classes": {"stage": ["I", "II", "III"]},
        },
        "modalities": {
            "body": {"shape": 2, "encoder": NARROW, "likelihood": "normal"},
            "stage": {"shape": 3, "encoder": NARROW, "likelihood": "categorical"},
        },
        "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
    }
    nbridge.train(spec, out=folder / "run")
    return folder / "run"


def test_the_command_line_exports_and_the_file_tells_what_it_takes_gives_and_means(run: Path, tmp_path: Path):
    out = tmp_path / "stage.pt2"
    arguments = ["export", str(run), "--given", "body", "--targets", "stage", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (0, f"{out}: body, body__present -> stage__completed\n"), done.exception
    with zipfile.ZipFile(out) as archive:
        description = json.loads(archive.read("archive/extra/nbridge.json"))
        texts = b"".join(archive.read(name) for name in archive.namelist())
        pickled = [name for name in archive.namelist() if archive.read(name)[:1] == b"\x80" and "weights/" not in name]
    assert description == {
        "nbridge": nbridge.__version__,
        "model": "BridgedVAE",
        "modalities": {
            "body": {"shape": [2], "likelihood": "Normal", "columns": ["age", "bmi"]},
            "stage": {"shape": [3], "likelihood": "Categorical", "columns": ["stage"], "classes": {"stage": ["I", "II", "III"]}},
        },
        "inputs": {"body": {"type": "float32", "shape": ["rows", 2]}, "body__present": {"type": "bool", "shape": ["rows"]}},
        "outputs": {"stage__completed": {"type": "int64", "shape": ["rows"]}},
    }
    assert pickled == []
    assert str(Path(nbridge.__file__).parent).encode() not in texts, "no path of the machine that it was made on"
    again = CliRunner().invoke(app, arguments)
    assert str(again.exception) == f"--out {out}: exists already. Use --overwrite to replace it."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--given", "bdy"], "--given 'bdy': no such modality in this model. Did you mean 'body'? Modalities: body, stage"),
        (["--targets", "stage,,grade"], "--targets 'grade': no such modality in this model. Modalities: body, stage"),
        (["--given", ""], "--given: expected one or more modalities. Modalities: body, stage"),
    ],
)
def test_names_that_the_model_lacks_are_refused(run: Path, tmp_path: Path, options: list[str], message: str):
    done = CliRunner().invoke(app, ["export", str(run), *options, "--out", str(tmp_path / "model.pt2")])
    assert str(done.exception) == message
    assert list(tmp_path.iterdir()) == []


def test_other_endings_and_places_that_cannot_be_written_are_refused(run: Path, tmp_path: Path):
    done = CliRunner().invoke(app, ["export", str(run), "--out", "model.h5"])
    assert str(done.exception) == "--out model.h5: expected a file that ends in .onnx or .pt2"
    model = model_of("vae", MIXED)
    with pytest.raises(RunError) as error:
        export_model(Served(model), "model.h5")
    assert told(error) == "model.h5: expected a file that ends in .onnx or .pt2"
    with pytest.raises(RunError) as error:
        export_model(Served(model), tmp_path / "none" / "model.pt2")
    assert told(error) == f"{tmp_path}/none/model.pt2: cannot be written (No such file or directory)"


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    with pytest.raises(RunError) as error:
        export_model(Served(model_of("vae", MIXED)), "model.onnx")
    assert told(error) == 'ONNX export needs onnxscript, which is not installed: pip install "nbridge[onnx]"'


def test_a_model_too_large_for_onnx_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export, "MAX_BYTES", 1000)
    with pytest.raises(RunError) as error:
        export_model(Served(model_of("bridged", MIXED)), "model.onnx")
    assert told(error) == "model.onnx: the model's weights are 0.0 GiB, and an ONNX file holds 2 GiB; export to .pt2"


class Looking(nn.Module):
    """A network whose operations depend on the values that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MLP(3, 2)

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z) if float(z.sum()) > 0 else self.network(-z)


def test_a_part_that_no_graph_can_follow_is_told_and_what_was_there_stays(tmp_path: Path):
    model = model_of("bridged", ("image", "size"))
    model.decoder("size").network = nn.Sequential(Looking(), MLP(2, 4))
    (tmp_path / "model.pt2").write_text("before")
    with pytest.raises(RunError) as error:
        export_model(Served(model), tmp_path / "model.pt2")
    assert told(error).startswith("cannot be exported: torch.export cannot trace a part of the model (")
    assert (tmp_path / "model.pt2").read_text() == "before"


def test_a_part_that_onnx_has_no_like_of_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("No decomposition of aten.special_bessel_j0\nand so on")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(RunError) as error:
        export_model(Served(model_of("vae", MIXED)), tmp_path / "model.onnx")
    reason = "a part of the model has no equivalent (No decomposition of aten.special_bessel_j0)"
    assert told(error) == f"cannot be exported to ONNX: {reason}; try .pt2"
    assert list(tmp_path.iterdir()) == []


class Halved(BridgedVAE):
    """A model that serves otherwise than the one it inherits from, and forgot the graph."""

    def infer(self, batch: Batch) -> Any:
        q = super().infer(batch)
        return nbridge.nn.distributions.diagonal_normal(q.mean / 2, q.stddev)


def test_a_model_whose_masks_do_not_give_what_it_gives_is_not_exported(tmp_path: Path):
    model = model_of("bridged", MIXED)
    model.__class__ = Halved
    with pytest.raises(RunError) as error:
        export_model(Served(model), tmp_path / "model.pt2")
    assert told(error).startswith("cannot be exported: masked_posterior of Halved differs from its posterior, by up to ")
    Halved.masked_posterior = MultimodalVAE.masked_posterior
    with pytest.raises(RunError) as error:
        export_model(Served(model), tmp_path / "model.pt2")
    assert told(error) == "cannot be exported: Halved has no masked_posterior, which export needs"
    assert list(tmp_path.iterdir()) == []
