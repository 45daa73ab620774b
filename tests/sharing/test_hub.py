"""Models that go to a hub and come back as they were; what is refused in one line; and that a model folder is all that anyone needs."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from local_hub import READER, TOKEN, LocalHub, serving
from processes import Script, Started
from typer.testing import CliRunner

import nbridge
from nbridge.cli.main import app
from nbridge.errors import RunError
from nbridge.evaluation.verdict import BaselineComparison, Verdict
from nbridge.sharing import hub
from nbridge.training.checkpoint import CARD, CONFIG, TENSORS

SPEC = {
    "name": "weather",
    "modalities": {
        "x": {"shape": 3, "encoder": "mlp", "likelihood": "normal"},
        "kind": {"shape": 2, "encoder": "mlp", "likelihood": "categorical"},
    },
    "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
}
ROWS = {"x": np.random.default_rng(0).normal(size=(40, 3)), "kind": np.arange(40) % 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "weather"
    nbridge.train(SPEC, ROWS, out=folder)
    return folder


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub on this machine; the cache of another is not touched, and whoever is logged in is not here."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    disable_progress_bars()
    with serving() as found:
        yield found


def push(run: Path, server: LocalHub, repo: str = "user/weather", **options: object) -> str:
    return hub.push(run, repo, endpoint=server.endpoint, **{"token": TOKEN, **options})


def pull(server: LocalHub, out: Path, repo: str = "user/weather", **options: object) -> Path:
    return hub.pull(repo, out, endpoint=server.endpoint, **options)


def same(one: nbridge.MultimodalVAE, other: nbridge.MultimodalVAE) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# A model folder by itself


def test_a_model_folder_serves_anywhere_without_its_run_its_rows_or_the_right_to_write(run: Path, tmp_path: Path):
    alone = Path(shutil.copytree(run / "model", tmp_path / "elsewhere"))
    alone.chmod(0o555)
    code = (
        "import sys, numpy as np, nbridge; model = nbridge.load(sys.argv[1]);"
        "done = model.impute({'x': np.zeros((2, 3))}); print(done['kind'].shape, model.patterns is not None)"
    )
    try:
        done = Started(Script(code), "script", "elsewhere", folder=tmp_path).ended()
    finally:
        alone.chmod(0o755)
    assert done == (0, "(2,) True\n", "")
    assert sorted(path.name for path in alone.iterdir()) == sorted([CARD, TENSORS, CONFIG])


# There and back


def test_a_model_comes_back_bit_for_bit_with_nothing_but_its_own_files(run: Path, server: LocalHub, tmp_path: Path):
    assert push(run, server) == f"{server.endpoint}/user/weather"
    assert set(server.repositories["user/weather"].branches["main"]) == {".gitattributes", CARD, TENSORS, CONFIG}
    server.repositories["user/weather"].branches["main"]["training_rows.csv"] = b"private"
    folder = pull(server, tmp_path / "pulled")
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, TENSORS, CONFIG])
    assert (folder / TENSORS).read_bytes() == (run / "model" / TENSORS).read_bytes()
    assert same(nbridge.load(folder).network, nbridge.load(run).network)
    assert same(hub.load("user/weather", endpoint=server.endpoint)[0], nbridge.load(run).network)
    assert not any("training_rows" in line for line in server.asked)
    assert list(tmp_path.glob(".*.tmp")) == []


def test_the_card_has_the_header_that_the_hub_reads_and_keeps_what_was_added_to_it(run: Path, server: LocalHub, tmp_path: Path):
    from huggingface_hub import ModelCard

    def card() -> ModelCard:
        return ModelCard(server.repositories["user/weather"].branches["main"][CARD].decode())

    push(run, server)
    assert (card().data.library_name, card().data.license) == ("nbridge", None)
    assert {"multimodal", "vae"} <= set(card().data.tags)
    assert card().text.strip().startswith("# weather")
    folder = pull(server, tmp_path / "pulled")
    text = (folder / CARD).read_text().replace("tags:\n", "tags:\n- mine\n") + "\nTrained on clouds.\n"
    (folder / CARD).write_text(text)
    push(folder, server, license="apache-2.0")
    push(pull(server, folder, overwrite=True), server)
    assert card().data.license == "apache-2.0"
    assert card().data.tags.count("mine") == card().data.tags.count("vae") == 1
    assert card().text.count("Trained on clouds.") == card().text.count("# weather") == 1
    assert (run / "model" / CARD).read_text().startswith("# weather")


def test_the_card_of_a_run_has_its_verdict_its_data_hash_and_valid_metadata(run: Path, server: LocalHub, tmp_path: Path):
    from huggingface_hub import ModelCard

    whole_run = Path(shutil.copytree(run, tmp_path / "run"))
    scores = [
        BaselineComparison("x", "", "rmse", 40, 0.5, 0.7, 1.0, 0.05, "better", "ridge", 90),
        BaselineComparison("kind", "", "accuracy", 3),
    ]
    (whole_run / "verdict.json").write_text(json.dumps(Verdict("test", tuple(scores)).as_dict()))
    for _ in range(2):
        push(whole_run, server, license="mit")
        text = server.repositories["user/weather"].branches["main"][CARD].decode()
        (whole_run / "model" / CARD).write_text(text)
    assert text.count("## Verdict") == text.count(json.loads((run / "env.json").read_text())["fingerprint"]) == 1
    assert "| x | RMSE in standard deviations | 0.5" in text
    data = ModelCard(text).data
    assert data.license == "mit"
    assert [(one.metric_type, one.metric_value) for one in data.eval_results] == [("rmse", 0.5)]
    assert (data.model_name, data.eval_results[0].task_name) == ("weather", "imputation")


def test_a_branch_has_a_model_of_its_own(run: Path, server: LocalHub, tmp_path: Path):
    push(run, server, revision="second try")
    assert TENSORS not in server.repositories["user/weather"].branches["main"]
    assert same(nbridge.load(pull(server, tmp_path / "pulled", revision="second try")).network, nbridge.load(run).network)


def test_private_repositories_are_made_private_and_read_with_a_token(run: Path, server: LocalHub, tmp_path: Path):
    push(run, server, private=True)
    assert server.repositories["user/weather"].private
    assert same(nbridge.load(pull(server, tmp_path / "pulled", token=TOKEN)).network, nbridge.load(run).network)
    push(run, server, "user/open")
    assert not server.repositories["user/open"].private


def test_the_command_line_pushes_and_pulls(run: Path, server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    call = CliRunner().invoke
    pushed = call(app, ["push", str(run), "user/weather", "--private", "--license", "mit"])
    assert (pushed.exit_code, pushed.stdout) == (0, f"{server.endpoint}/user/weather: pushed\n")
    assert b"license: mit" in server.repositories["user/weather"].branches["main"][CARD]
    pulled = call(app, ["pull", "user/weather", "--out", "here"])
    assert (pulled.exit_code, pulled.stdout) == (0, "here: pulled\n")
    again = call(app, ["pull", "user/weather", "--out", "here"])
    assert str(again.exception) == "here: model folder exists already. Use --overwrite to replace it."


# What is refused


def told(error: pytest.ExceptionInfo[RunError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def whole(run: Path, **changes: bytes | None) -> dict[str, bytes]:
    files = {name: (run / "model" / name).read_bytes() for name in (CARD, TENSORS, CONFIG)}
    return {name: x for name, x in {**files, **changes}.items() if x is not None}


def changed(run: Path, **values: object) -> bytes:
    return json.dumps({**json.loads((run / "model" / CONFIG).read_text()), **values}).encode()


def with_encoder(run: Path, name: str) -> bytes:
    spec = json.loads(changed(run))["spec"]
    spec["modalities"]["x"]["encoder"]["type"] = name
    return changed(run, spec=spec)


def test_a_class_outside_nbridge_is_imported_if_it_is_allowed(run: Path, server: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "my_parts.py").write_text("from nbridge.nn.encoders import MLPEncoder\nclass Mine(MLPEncoder): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    server.put("user/weather", whole(run, **{CONFIG: with_encoder(run, "my_parts:Mine")}))
    try:
        folder = pull(server, tmp_path / "pulled", allow=["my_parts"])
        assert type(nbridge.load(folder).network.encoders["x"]).__name__ == "Mine"
    finally:
        sys.modules.pop("my_parts", None)
    with pytest.raises(RunError, match="asks for the class 'my_parts:Mine'"):
        nbridge.load("user/weather", endpoint=server.endpoint)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (lambda run: {}, "user/weather: not an nbridge model, expected config.json and model.safetensors; it holds .gitattributes"),
        (
            lambda run: {f"data-{number}.csv": b"" for number in range(9)},
            "user/weather: not an nbridge model, expected config.json and model.safetensors; it holds .gitattributes, data-0.csv, "
            "data-1.csv, data-2.csv and 6 more",
        ),
        (
            lambda run: whole(run, **{CONFIG: b'{"architectures": ["BertModel"]}'}),
            "user/weather: not an nbridge model; config.json is from another library",
        ),
        (
            lambda run: whole(run, **{CONFIG: changed(run, format_version=9)}),
            "user/weather/config.json: format version 9 is newer than the newest supported (1); upgrade nbridge",
        ),
        (
            lambda run: whole(run, **{TENSORS: (run / "model" / TENSORS).read_bytes()[:900]}),
            "user/weather/model.safetensors: truncated or damaged (",
        ),
        (
            lambda run: whole(run, **{CONFIG: changed(run, spec={**json.loads(changed(run))["spec"], "latent_dim": 5})}),
            "user/weather/model.safetensors: tensor decoders.x.network.network.layers.0.weight is torch.float32 of shape (128, 32), "
            "expected torch.float32 of shape (128, 5)",
        ),
        (
            lambda run: whole(run, **{CONFIG: b"[" * 100_000}),
            "user/weather: not an nbridge model; config.json is from another library",
        ),
        (
            lambda run: whole(run, **{CONFIG: with_encoder(run, "my_parts:Mine")}),
            "user/weather/config.json: modalities.x.encoder.type: asks for the class 'my_parts:Mine', which is not imported, because ",
        ),
    ],
    ids=["empty", "other files", "another library", "newer", "damaged", "misshapen", "deep", "another's class"],
)
def test_what_is_no_whole_model_is_not_pulled_and_leaves_nothing(run, server, tmp_path, files, message):
    server.put("user/weather", files(run))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RunError) as error:
        pull(server, tmp_path / "pulled")
    assert told(error).startswith(message)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ({}, {"repo": "user/none", "token": READER}, "user/none: no such repository on {hub}, or it is private and this token has no "),
        ({}, {"repo": "user/none"}, "user/none: no such repository on {hub}, or it is private and this token has no access; "),
        ({"private": True}, {}, "user/weather: no such repository on {hub}, or it is private and this token has no access; log in with: "),
        ({"gated": True}, {}, "user/weather: access must be requested first, on {hub}"),
        ({}, {"revision": "v9"}, "user/weather: no branch, tag or commit 'v9'"),
        ({}, {"token": "hf_old"}, "user/weather: {hub} rejected this token; log in with: hf auth login, or set HF_TOKEN"),
        ({}, {"repo": "no name!"}, "no name!: invalid repository name, expected user/name"),
    ],
)
def test_what_the_hub_does_not_give_is_told_in_one_line(run, server, tmp_path, kind, options, message):
    server.put("user/weather", whole(run), **kind)
    with pytest.raises(RunError) as error:
        pull(server, tmp_path / "pulled", **options)
    assert told(error).startswith(message.format(hub=server.endpoint))


def test_a_hub_that_is_out_of_order_or_not_there_is_told(run: Path, server: LocalHub, tmp_path: Path):
    server.put("user/weather", whole(run))
    server.broken = True
    with pytest.raises(RunError) as error:
        pull(server, tmp_path / "pulled")
    assert told(error) == f"user/weather: {server.endpoint} answered 500; try again later"
    with pytest.raises(RunError) as error:
        hub.pull("user/weather", tmp_path / "pulled", endpoint="http://127.0.0.1:9")
    assert re.fullmatch(r"user/weather: http://127.0.0.1:9 cannot be reached \(.+\)", told(error))


def test_a_model_is_pushed_and_loaded_by_its_name(run: Path, server: LocalHub):
    model = nbridge.load(run)
    assert model.push("user/weather", endpoint=server.endpoint, token=TOKEN) == f"{server.endpoint}/user/weather"
    again = nbridge.load("user/weather", endpoint=server.endpoint)
    assert same(again.network, model.network)
    assert (again.spec, again.patterns, again.binding) == (model.spec, model.patterns, model.binding)
    with pytest.raises(RunError, match=r"^user/other: no such repository .*\(no folder user/other here either\)$"):
        nbridge.load("user/other", endpoint=server.endpoint)


def test_without_a_network_the_cache_serves_what_was_loaded_before(run, server, tmp_path, monkeypatch):
    from huggingface_hub import constants

    server.put("user/weather", whole(run))
    hub.load("user/weather", endpoint=server.endpoint)
    asked = list(server.asked)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(hub.load("user/weather", endpoint=server.endpoint)[0], nbridge.load(run).network)
    with pytest.raises(RunError) as error:
        hub.load("user/other", endpoint=server.endpoint)
    reason = f"not in the hub's cache, and {server.endpoint} cannot be reached or HF_HUB_OFFLINE is set"
    assert told(error) == f"user/other: {reason}"
    with pytest.raises(RunError) as error:
        pull(server, tmp_path / "pulled")
    assert told(error) == f"user/weather: {server.endpoint} cannot be used, because HF_HUB_OFFLINE is set"
    assert server.asked == asked


def test_a_push_that_may_not_be_is_told_and_changes_nothing(run: Path, server: LocalHub):
    with pytest.raises(RunError) as error:
        push(run, server, token=None)
    assert told(error) == "user/weather: pushing needs a token; log in with: hf auth login, or set HF_TOKEN"
    with pytest.raises(RunError) as error:
        push(run, server, token=READER)
    assert told(error) == f"user/weather: {server.endpoint} denied access: this token lacks permission"
    assert not server.repositories
    server.put("user/weather", whole(run))
    before = dict(server.repositories["user/weather"].branches["main"])
    with pytest.raises(RunError) as error:
        push(run, server, private=True)
    assert told(error) == "user/weather: exists already and is public; make it private on its page, or choose another name"
    with pytest.raises(RunError) as error:
        push(run, server, license="nonsense")
    assert told(error).startswith("user/weather: ")
    assert "license" in told(error)
    assert server.repositories["user/weather"].branches["main"] == before


@pytest.mark.parametrize(
    ("files", "named"),
    [({"pytorch_model.bin": b"", "vocab.txt": b""}, "pytorch_model.bin, vocab.txt"), ({CONFIG: b"{}"}, CONFIG)],
)
def test_what_others_put_into_a_repository_is_not_overwritten(run, server, files, named):
    server.put("user/weather", files)
    with pytest.raises(RunError) as error:
        push(run, server)
    assert told(error) == f"user/weather: holds other files ({named}) and no nbridge model; choose another name"
    assert TENSORS not in server.repositories["user/weather"].branches["main"]


def test_a_run_without_a_whole_model_is_not_pushed(run: Path, server: LocalHub, tmp_path: Path):
    half = Path(shutil.copytree(run, tmp_path / "half"))
    (half / "model" / TENSORS).unlink()
    with pytest.raises(RunError) as error:
        push(half, server)
    assert told(error) == f"{half}/model/{TENSORS}: no such file"
    assert server.asked == []


def test_only_a_model_folder_is_replaced(run: Path, server: LocalHub, tmp_path: Path):
    server.put("user/weather", whole(run))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(RunError) as error:
            pull(server, tmp_path / "mine", overwrite=overwrite)
        assert told(error) == f"{tmp_path}/mine: exists and is not an nbridge model folder; choose another"
    with pytest.raises(RunError) as error:
        pull(server, tmp_path / "none" / "pulled")
    assert told(error) == f"{tmp_path}/none/pulled: folder {tmp_path}/none does not exist"
    assert server.asked == []


def test_a_missing_extra_says_how_to_get_it(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "find_spec", lambda name: None if name == "huggingface_hub" else find_spec(name))
    for ask in (
        lambda: hub.push(run, "user/weather"),
        lambda: hub.pull("user/weather", tmp_path / "pulled"),
        lambda: hub.load("user/weather"),
    ):
        with pytest.raises(RunError) as error:
            ask()
        assert told(error) == 'the hub needs huggingface_hub, which is not installed: pip install "nbridge[hub]"'
