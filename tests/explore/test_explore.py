"""The page on which a model is asked: that it shows what the library gives, refuses what it should in one line, and works in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import accessibility
import numpy as np
import pytest
import torch
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from processes import interruptible, start
from starlette.testclient import TestClient

import nbridge
from nbridge.cli import exploring
from nbridge.cli import main as command_line
from nbridge.data.batch import Batch
from nbridge.data.numpy.npy import NPYFolder
from nbridge.data.streaming.stored_rows import StoredRows
from nbridge.explore import controls, requests, responses, uploads
from nbridge.explore.app import STATIC, make_app
from nbridge.explore.connections import Server
from nbridge.explore.guard import HEADERS, refusal
from nbridge.explore.limits import Limits
from nbridge.explore.server import bind
from nbridge.explore.session import Session, open_session, session_of
from nbridge.inference.impute import serving
from nbridge.runs.run import Run
from nbridge.training.checkpoint import load_model
from nbridge.training.run_folder import MODEL
from nbridge.visual import png as pictures
from nbridge.visual.modality_kinds import element_names, kind_of
from nbridge.visual.palette import PALETTE
from nbridge.visual.pca import LatentPCA

PART = "features: 4, encoder: {type: mlp, hidden: [4]}"
SPEC = f"""
name: tiny & <b>small</b>
latent_dim: 3
data: {{source: npz, path: data.npz}}
modalities:
  image: {{shape: [1, 6, 8], {PART}, likelihood: bernoulli}}
  x: {{shape: 3, {PART}, likelihood: normal}}
  wide: {{shape: [2, 20], {PART}, likelihood: laplace}}
  counts: {{shape: 2, {PART}, likelihood: poisson}}
  flags: {{shape: 3, {PART}, likelihood: {{type: bernoulli, attributes: true}}}}
  colour: {{shape: [3, 4, 4], {PART}, likelihood: {{type: discretized_logistic, high: 255}}}}
  label: {{shape: 3, {PART}, likelihood: categorical}}
fusion: {{hidden: [4]}}
bridges: {{hidden: [4]}}
prior: {{type: mixture, components: 2}}
training: {{batch_size: 32, stages: {{joint: {{epochs: 2}}, bridges: {{epochs: 1}}}}}}
"""
NAMES = ("image", "x", "wide", "counts", "flags", "colour", "label")
ROWS, K = 120, 99
HOST = "http://127.0.0.1:8642"


def data() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, ROWS)
    arrays = {
        "image": rng.integers(0, 256, (ROWS, 6, 8)) / 255,
        "x": rng.normal(label[:, None], 1, size=(ROWS, 3)),
        "wide": rng.normal(size=(ROWS, 2, 20)) * np.arange(1, 21),
        "counts": rng.poisson(3, size=(ROWS, 2)).astype(float),
        "flags": (rng.random((ROWS, 3)) < 0.4).astype(float),
        "colour": rng.integers(0, 256, (ROWS, 3, 4, 4)).astype(float),
        "label": label.astype(float),
    }
    arrays["wide"][:, 0, 0] = 7
    arrays["x"][::5, 1] = np.nan
    arrays["image"][2::4, 0, :3] = np.nan
    arrays["label"][3::7] = np.nan
    return arrays


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("explore")
    np.savez(folder / "data.npz", **data(), id=np.array([f"p{number}" for number in range(ROWS)]))
    (folder / "tiny.yaml").write_text(SPEC)
    return nbridge.train(folder / "tiny.yaml", out=folder / "run", overrides=[f"data.path={folder}/data.npz"])


@pytest.fixture(scope="module")
def session(run: Run) -> Session:
    assert run.folder is not None
    return open_session(run.folder)


@pytest.fixture(scope="module")
def client(session: Session) -> TestClient:
    return TestClient(make_app(session), base_url=HOST)


@pytest.fixture(scope="module")
def bare(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The model without its rows."""
    return open_session(shutil.copytree(str(run.folder / MODEL), tmp_path_factory.mktemp("bare") / "model"))


Call = Callable[..., tuple[object, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["nbridge", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            command_line.main()
        return left.value.code, *capsys.readouterr()

    return call


def ask(client: TestClient, path: str, **question: Any) -> dict[str, Any]:
    response = client.post(f"/api/{path}", json=question)
    assert response.status_code == 200, response.text
    return response.json()


def refused(client: TestClient, question: dict[str, Any] | bytes, path: str = "impute") -> tuple[int, str]:
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    response = client.post(f"/api/{path}", content=body)
    assert list(response.json()) == ["error"]
    assert "\n" not in response.json()["error"]
    return response.status_code, response.json()["error"]


def pixels(address: str) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(address.removeprefix(pictures.DATA_URI_PREFIX))))
    return np.asarray(image).reshape(image.height, image.width, -1)


def file_of(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=kind)
    return buffer.getvalue()


def address_of(array: np.ndarray) -> str:
    return pictures.DATA_URI_PREFIX + base64.b64encode(file_of(array)).decode()


def near(found: Any, expected: Any) -> bool:
    """Equal in the digits that are told."""
    expected = expected.tolist() if isinstance(expected, np.ndarray | torch.Tensor) else expected
    return np.allclose(found, expected, rtol=2e-5, atol=1e-12)


# The controls


def test_each_modality_has_the_control_of_its_kind(session: Session):
    found = {one["name"]: one for one in controls.describe(session)["modalities"]}
    assert tuple(found) == NAMES
    assert [one["kind"] for one in found.values()] == ["image", "values", "values", "values", "flags", "image", "classes"]
    assert [found[name]["drawable"] for name in ("image", "colour")] == [True, False]
    assert (found["flags"]["binary"], found["x"]["binary"], found["counts"]["whole"], found["x"]["whole"]) == (True, False, True, False)
    assert found["wide"]["names"][:2] == ["0, 0", "0, 1"]
    assert found["wide"]["names"][-1] == "1, 19"
    assert found["label"]["classes"] == ["0", "1", "2"]
    assert found["flags"]["low"] == [0, 0, 0]
    assert found["flags"]["high"] == [1, 1, 1]


def test_ranges_are_those_of_the_rows_and_the_first_value_is_their_mean(run: Run, session: Session):
    known = {name: np.concatenate([rows.values[name].numpy() for rows in (run.splits.train, run.splits.test)]) for name in NAMES}
    found = {one["name"]: one for one in controls.describe(session)["modalities"]}
    cells = np.concatenate([rows.cells["x"].numpy() for rows in (run.splits.train, run.splits.test)])
    x = np.where(cells, known["x"], np.nan)
    assert near(found["x"]["low"], np.nanmin(x, 0))
    assert near(found["x"]["high"], np.nanmax(x, 0))
    assert near(found["x"]["start"], np.nanmean(x, 0))
    assert found["counts"]["start"] == known["counts"].mean(0).round().tolist()
    wide = known["wide"].reshape(len(x), -1)
    assert (found["wide"]["low"][0], found["wide"]["high"][0]) == (6, 8)
    assert near(found["wide"]["low"][1:], wide.min(0)[1:])
    assert found["wide"]["varied"] == np.argsort(-wide.std(0), kind="stable").tolist()


def test_what_the_page_begins_with_says_what_is_explored(session: Session, run: Run):
    found = controls.describe(session)
    assert found["rows"] == {"split": "test", "count": len(run.splits.test)}
    assert (found["title"], found["model"], found["latent_dim"]) == ("tiny & <b>small</b>", "bridged", 3)
    assert found["priors"] == ["mixture", "normal"]
    json.dumps(found, allow_nan=False)


def test_elements_are_called_as_the_columns_of_a_table():
    parts = {name: {"shape": size, "encoder": "mlp", "likelihood": "normal"} for name, size in (("clinical", 2), ("age", 1), ("lab", 2))}
    table = {"source": "table", "path": "rows.csv", "columns": {"clinical": ["bmi", "pulse"], "lab": ["a"]}}
    spec = nbridge.Spec.model_validate({"data": table, "modalities": parts})
    assert [element_names(spec, name, spec.modalities[name].shape) for name in parts] == [["bmi", "pulse"], ["age"], ["0", "1"]]


# Draws

SETS = [("x",), ("image",), ("image", "label"), ("wide", "flags"), ("colour",), NAMES[:-1]]


@pytest.mark.parametrize("names", SETS)
def test_what_is_imputed_is_what_the_library_imputes_with_the_same_seed(client: TestClient, session: Session, run: Run, names: Any):
    test, partial = run.splits.test, "image" in names
    there = (row for row in range(len(test)) if all(test.present[name][row] for name in names))
    number = next(row for row in there if not partial or not test.cells["image"][row].all())
    every = {"wide": [39, 0, 20]}
    answer = ask(client, "impute", given={name: {"row": number} for name in names}, seed=5, show=every)
    row = run.splits.test.slice(number, number + 1).select(*names)
    plain, noisy = (nbridge.Model(session.model).impute(row, samples=K, noise=noise, seed=5) for noise in (False, True))
    lacking = {name for name in names if name in row.cells and not row.cells[name].all()}
    assert "image" in lacking or not partial
    # An image that is given in part stays as it is on the page, but has its share of the random numbers.
    assert set(answer["modalities"]) == {*set(NAMES) - set(names), *lacking} - {"image" if partial else ""}
    assert answer["draws"] == K
    with serving(session.model, 5):
        z = session.model.posterior(row, K).sample()
        chances = session.model.decoder("label").served(z, session.model.given("label", row)).probs.mean(0)[0]
    pca = LatentPCA.fit(nbridge.Model(session.model).embed(run.splits.test).mean)
    assert near(answer["map"], pca.transform(z[:8, 0]))
    for name, told in answer["modalities"].items():
        kind = kind_of(session.model.likelihoods[name])
        draws = (plain if kind != "values" else noisy).values[name][:, 0]
        if kind == "image":
            top = 255.0 if name == "colour" else 1.0
            for address, draw in zip([*told["draws"], told["mean"]], [*draws[:8], draws.mean(0)], strict=True):
                assert np.array_equal(pixels(address), pictures.to_uint8(draw, 0, top))
            deviation = draws.double().std(0, correction=0).mean(0)
            assert near(told["most"], deviation.max().item())
            assert np.array_equal(pixels(told["sd"])[:, :, 0], (255 * deviation / deviation.max()).round().numpy())
        elif kind == "classes":
            assert near(told["probabilities"], chances)
            assert told["draws"] == draws[:8].tolist()
        else:
            places = every.get(name, list(range(min(12, draws[0].numel()))))
            assert told["elements"] == places
            some = np.sort(draws.flatten(1).double().numpy()[:, places], axis=0)
            assert near(told["draws"], draws.flatten(1)[:8, places].T)
            assert near(told["mean"], some.mean(0))
            assert near(told["sd"], some.std(0, ddof=1))
            # Of 99 draws, 90 of 100 ranks lie between the fifth and the fifth from the end.
            assert near(told["lower"], some[4])
            assert near(told["upper"], some[-5])


def test_a_row_sent_back_as_values_is_the_row_to_the_last_bit(client: TestClient, run: Run):
    number = next(row for row in range(len(run.splits.test)) if run.splits.test.cells["x"][row].all())
    found = client.get(f"/api/row/{number}").json()
    assert found["id"] == run.splits.test_ids[number]
    for name in ("x", "wide", "counts", "flags"):
        there = run.splits.test.values[name][number].flatten()
        assert torch.equal(torch.tensor(found["values"][name]["values"]), there.to(torch.float32))
        sent = ask(client, "impute", given={name: {"values": found["values"][name]["values"]}})
        assert sent == ask(client, "impute", given={name: {"row": number}})
    label = next(row for row in range(len(run.splits.test)) if run.splits.test.present["label"][row])
    value = client.get(f"/api/row/{label}").json()["values"]["label"]
    assert ask(client, "impute", given={"label": value}) == ask(client, "impute", given={"label": {"row": label}})


def test_a_picture_sent_back_is_the_row_where_its_pixels_are_whole_levels(client: TestClient, run: Run):
    number = next(row for row in range(len(run.splits.test)) if run.splits.test.cells["image"][row].all())
    for name in ("image", "colour"):
        value = client.get(f"/api/row/{number}").json()["values"][name]
        sent, own = (ask(client, "impute", given={name: one})["modalities"] for one in (value, {"row": number}))
        assert near(sent["label"]["probabilities"], own["label"]["probabilities"])


def test_an_empty_cell_is_imputed_from_the_others_of_its_row(client: TestClient, session: Session):
    answer = ask(client, "impute", given={"x": {"values": [0.5, None, -1.0]}}, seed=2)
    row = Batch({"x": torch.tensor([[0.5, 0.0, -1.0]])}, {"x": torch.tensor([True])}, {"x": torch.tensor([[True, False, True]])})
    draws = nbridge.Model(session.model).impute(row, samples=K, seed=2).values["x"][:, 0]
    told = answer["modalities"]["x"]
    assert near([one[:8] for one in told["draws"]][1], draws[:8, 1])
    assert near(told["mean"][1], draws[:, 1].double().mean().item())


def test_a_row_that_lacks_something_says_so(client: TestClient, run: Run):
    lacking = next(row for row in range(len(run.splits.test)) if not run.splits.test.present["label"][row])
    assert client.get(f"/api/row/{lacking}").json()["values"]["label"] is None
    assert refused(client, {"given": {"label": {"row": lacking}}}) == (422, f"label: absent from row {lacking}")
    partial = next(row for row in range(len(run.splits.test)) if not run.splits.test.cells["x"][row].all())
    assert client.get(f"/api/row/{partial}").json()["values"]["x"]["values"][1] is None


@pytest.mark.parametrize("prior", [None, "mixture", "normal"])
def test_draws_from_nothing_are_those_that_the_library_generates(client: TestClient, session: Session, prior: Any):
    answer = ask(client, "prior", prior=prior, seed=3)["modalities"]
    drawn = nbridge.Model(session.model).generate(K, seed=3, prior=prior)
    assert list(answer) == list(NAMES)
    for address, image in zip(answer["image"]["draws"], drawn["image"], strict=False):
        assert np.array_equal(pixels(address), pictures.to_uint8(image, 0, 1))
    assert answer["label"]["draws"] == drawn["label"][:8].tolist()
    assert near(answer["flags"]["mean"], drawn["flags"].double().mean(0))


def test_the_map_has_the_posterior_means_of_the_rows_and_decodes_a_point_of_it(client: TestClient, session: Session, run: Run):
    test = run.splits.test
    pca = LatentPCA.fit(means := nbridge.Model(session.model).embed(test).mean)
    found = client.get("/api/latent").json()
    assert near(found["points"], pca.transform(means))
    assert found["classes"] == [
        int(label) if there else -1 for label, there in zip(test.values["label"], test.present["label"], strict=True)
    ]
    assert (found["label"], found["names"], found["split"]) == ("label", ["0", "1", "2"], "test")
    assert found["shares"] == pytest.approx(pca.shares)
    point = [0.3, -0.2]
    z = (pca.centre + 0.3 * pca.directions[0] - 0.2 * pca.directions[1]).float()
    answer = ask(client, "decode", point=point)["modalities"]
    with torch.no_grad():
        assert near(answer["label"]["probabilities"], session.model.decoder("label").served(z).probs)
        assert np.array_equal(pixels(answer["image"]["mean"]), pictures.to_uint8(session.model.decoder("image")(z).mean, 0, 1))


def test_questions_at_the_same_time_are_answered_as_one_after_the_other(client: TestClient):
    def answer(seed: int) -> dict[str, Any]:
        return ask(client, "impute", given={"x": {"row": 1}}, seed=seed)

    alone = [answer(seed) for seed in range(8)]
    assert len({json.dumps(one) for one in alone}) == 8
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(answer, range(8))) == alone


def test_a_question_leaves_the_random_numbers_of_the_process_alone(session: Session):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    responses.impute(session, requests.read(requests.Impute, b'{"given": {"x": {"row": 1}}}', session.model))
    responses.prior(session, requests.Prior())
    assert torch.equal(torch.get_rng_state(), before)


def test_large_rows_are_told_from_fewer_draws():
    def model(size: int) -> nbridge.MultimodalVAE:
        part = {"encoder": {"type": "mlp", "hidden": []}, "decoder": {"type": "mlp", "hidden": []}, "likelihood": "normal"}
        spec = {"latent_dim": 1, "model": "vae", "modalities": {"x": {"shape": size, "features": 1, **part}}}
        return nbridge.build_model(nbridge.Spec.model_validate(spec))

    assert [responses.draws_of(model(size)) for size in (10, 5_000, 50_000)] == [99, 39, 19]


# Uploads


def test_a_picture_of_the_size_of_the_modality_comes_back_as_it_is(client: TestClient):
    array = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    answer = client.post("/api/upload?modality=image", content=file_of(array)).json()
    assert answer["note"] == ""
    assert np.array_equal(pixels(answer["picture"])[:, :, 0], array)
    assert "modalities" in ask(client, "impute", given={"image": {"picture": answer["picture"]}})


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP"])
def test_a_larger_picture_of_the_same_proportions_is_averaged(client: TestClient, kind: str):
    small = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    large = np.kron(small, np.ones((4, 4), np.uint8))
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, format=kind, **({"lossless": True} if kind == "WEBP" else {}))
    answer = client.post("/api/upload?modality=image", content=buffer.getvalue()).json()
    assert answer["note"] == "scaled down from 32 × 24 to 8 × 6 pixels"
    assert np.array_equal(pixels(answer["picture"])[:, :, 0], small)


def test_transparency_becomes_white_sixteen_bits_eight_and_colours_those_of_the_modality(client: TestClient):
    clear = np.zeros((6, 8, 4), np.uint8)
    deep = (np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000).astype(np.uint16)
    found = [pixels(client.post("/api/upload?modality=image", content=file_of(one)).json()["picture"])[:, :, 0] for one in (clear, deep)]
    assert (found[0] == 255).all()
    assert np.array_equal(found[1], deep >> 8)
    grey = client.post("/api/upload?modality=colour", content=file_of(np.full((4, 4), 9, np.uint8))).json()["picture"]
    assert np.array_equal(pixels(grey), np.full((4, 4, 3), 9))


@given(width=st.integers(1, 40), height=st.integers(1, 40), zoom=st.integers(1, 9))
def test_every_whole_multiple_of_a_size_has_its_proportions_and_nothing_smaller_has(width: int, height: int, zoom: int):
    assert uploads._proportional((zoom * width, zoom * height), (width, height))
    assert not uploads._proportional((zoom * width, zoom * height), (zoom * width + 1, zoom * height))
    assert not uploads._proportional((2 * width, 4 * height), (width, height))


FORMATS = "PNG, JPEG, WEBP, BMP, GIF"
UPLOADS = {
    "wrong proportions": ("image", lambda: file_of(np.zeros((9, 12, 3), np.uint8)[:8]), 422,
                          "image: got an image of 12 × 8 pixels, expected 8 × 6, or larger with the same aspect ratio"),
    "too small": ("image", lambda: file_of(np.zeros((3, 4), np.uint8)), 422,
                  "image: got an image of 4 × 3 pixels, expected 8 × 6, or larger with the same aspect ratio"),
    "no picture": ("image", lambda: b"hello", 422, f"image: the image cannot be read (not a {FORMATS} file)"),
    "nothing": ("image", lambda: b"", 422, f"image: the image cannot be read (not a {FORMATS} file)"),
    "damaged": ("image", lambda: file_of(np.random.default_rng(0).integers(0, 255, (60, 80), np.uint8))[:900], 422,
                "image: the image cannot be read (damaged)"),
    "another format": ("image", lambda: file_of(np.zeros((6, 8), np.uint8), "TIFF"), 422,
                       f"image: the image cannot be read (not a {FORMATS} file)"),
    "no image": ("x", lambda: b"", 422, "x: not an image modality"),
    "unknown": ("imgae", lambda: b"", 422,
                "no modality 'imgae' in this model. Did you mean 'image'? Modalities: image, x, wide, counts, flags, colour, label"),
    "too many bytes": ("image", lambda: bytes(controls.UPLOAD + 1), 413, "too large: at most 16 MiB are allowed"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", UPLOADS)
def test_a_file_that_cannot_be_taken_is_told_in_a_line(client: TestClient, mistake: str):
    name, content, status, line = UPLOADS[mistake]
    response = client.post(f"/api/upload?modality={name}", content=content())
    assert (response.status_code, response.json()) == (status, {"error": line})


@pytest.mark.parametrize("side", [6_400, 13_400])
def test_a_small_file_of_very_many_pixels_is_refused_before_it_is_decoded(client: TestClient, side: int, monkeypatch: pytest.MonkeyPatch):
    bomb = io.BytesIO()
    Image.new("1", (side, side)).save(bomb, format="PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("it was decoded"))
    answer = client.post("/api/upload?modality=image", content=bomb.getvalue())
    told = {
        6_400: "image: the image cannot be read (6,400 × 6,400 pixels, at most 40,000,000 are allowed)",
        13_400: "image: the image cannot be read (too many pixels)",
    }
    assert (answer.status_code, answer.json()["error"]) == (422, told[side])


def test_no_more_of_a_body_is_read_than_may_be_there_whatever_its_length_is_said_to_be(client: TestClient):
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while taken < 2**27:
            taken += 2**20
            yield bytes(2**20)

    response = client.post("/api/upload?modality=image", content=endless())
    assert (response.status_code, response.json()) == (413, {"error": "too large: at most 16 MiB are allowed"})
    assert refused(client, b" " * (8 * 2**20 + 1)) == (413, "too large: at most 8 MiB are allowed")


# Mistakes

KNOWN = "Modalities: image, x, wide, counts, flags, colour, label"
PICTURE = address_of(np.zeros((6, 8), np.uint8))
MISTAKES: dict[str, tuple[dict[str, Any] | bytes, int, str]] = {
    "no JSON": (b"{", 400, "the request is not valid JSON"),
    "deep JSON": (b"[" * 200_000, 400, "the request is not valid JSON"),
    "no mapping": (b"[]", 422, "expected a mapping, got a list"),
    "empty": ({}, 422, "missing key 'given'"),
    "nothing present": ({"given": {}}, 422, "nothing is given: give one or more modalities, or draw from the prior"),
    "unknown modality": ({"given": {"lable": {"label": 1}}}, 422, f"no modality 'lable' in this model. Did you mean 'label'? {KNOWN}"),
    "unknown key": ({"given": {}, "sed": 1}, 422, "sed: unknown key 'sed'. Did you mean 'seed'? Known: show, seed, covariates, fixed, given"),  # noqa: E501
    "no value": ({"given": {"x": {}}}, 422, "given.x: expected exactly one of row, picture, values, label, text, got 0"),
    "two values": ({"given": {"x": {"row": 1, "label": 1}}}, 422, "given.x: expected exactly one of row, picture, values, label, text, got 2"),  # noqa: E501
    "another kind": ({"given": {"x": {"label": 1}}}, 422, "x: expected values or row, got label"),
    "NaN": (b'{"given": {"x": {"values": [1, NaN, 2]}}}', 422, "given.x.values.1: expected a finite number, got .nan"),
    "infinite": (b'{"given": {"x": {"values": [1, 2, 1e999]}}}', 422, "given.x.values.2: expected a finite number, got .inf"),
    "too large for the model's numbers": (
        {"given": {"x": {"values": [1, 2, 1e300]}}}, 422, "x: value 1e+300 is outside the support of Normal, finite numbers",
    ),
    "too far from the data": (
        {"given": {"wide": {"values": [3e38] * 40}}}, 422,
        "image: no finite prediction, because a given value is too far from the data; use values nearer to the data",
    ),
    "null": ({"given": {"x": {"values": None}}}, 422, "given.x: expected exactly one of row, picture, values, label, text, got 0"),
    "text": ({"given": {"x": {"values": ["1", 2, 3]}}}, 422, 'given.x.values.0: expected a number, got "1"'),
    "too few": ({"given": {"x": {"values": [1]}}}, 422, "x: got 1 values, expected 3"),
    "all empty": ({"given": {"x": {"values": [None] * 3}}}, 422, "x: no value is given; leave the modality out"),
    "negative count": (
        {"given": {"counts": {"values": [3, -1]}}}, 422, "counts: value -1 is outside the support of Poisson, whole numbers from 0",
    ),
    "broken count": (
        {"given": {"counts": {"values": [2.5, 1]}}}, 422, "counts: value 2.5 is outside the support of Poisson, whole numbers from 0",
    ),
    "no probability": (
        {"given": {"flags": {"values": [0, 1, 1.5]}}}, 422, "flags: value 1.5 is outside the support of Bernoulli, numbers from 0 to 1",
    ),
    "no such class": (
        {"given": {"label": {"label": 3}}}, 422, "label: value 3 is outside the support of Categorical, whole numbers from 0 to 2",
    ),
    "huge class": ({"given": {"label": {"label": 10**30}}}, 422, "label: no such class"),
    "class in words": ({"given": {"label": {"label": "1"}}}, 422, 'given.label.label: expected an integer, got "1"'),
    "no such row": ({"given": {"x": {"row": 99}}}, 422, "row 99: no such row; the test split has rows 0 to 23"),
    "negative row": ({"given": {"x": {"row": -1}}}, 422, "given.x.row: expected 0 or more, got -1"),
    "wrong size": (
        {"given": {"image": {"picture": address_of(np.zeros((8, 6), np.uint8))}}}, 422,
        "image: got an image of 6 × 8 pixels, expected 8 × 6",
    ),
    "no picture": (
        {"given": {"image": {"picture": "https://example.com/a.png"}}}, 422,
        "image: expected a data URI that begins with data:image/png;base64,",
    ),
    "no base64": ({"given": {"image": {"picture": PICTURE + "!"}}}, 422, "image: the image cannot be read (invalid base64)"),
    "no PNG": (
        {"given": {"image": {"picture": pictures.DATA_URI_PREFIX + "aGVsbG8="}}}, 422, "image: the image cannot be read (not a PNG file)",
    ),
    "negative seed": ({"given": {"x": {"row": 1}}, "seed": -1}, 422, "seed: expected 0 or more, got -1"),
    "no such element": ({"given": {"label": {"label": 1}}, "show": {"x": [3]}}, 422, "show.x: no element 3, expected 0 to 2"),
    "too many elements": (
        {"given": {"label": {"label": 1}}, "show": {"wide": list(range(40)) * 2}}, 422, "show.wide: expected 64 entries or fewer, got 80",
    ),
    "elements of nothing": ({"given": {"label": {"label": 1}}, "show": {"y": [0]}}, 422, f"show: no modality 'y' in this model. {KNOWN}"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_answered_is_told_in_a_line(client: TestClient, mistake: str):
    question, status, line = MISTAKES[mistake]
    assert refused(client, question) == (status, line)


def test_mistakes_of_the_other_questions_are_told_alike(client: TestClient, session: Session):
    assert refused(client, {"prior": "mixtur"}, "prior") == (422, "unknown prior 'mixtur'. Did you mean 'mixture'? Known: normal, mixture")
    assert refused(client, {"point": [1]}, "decode") == (422, "point: expected 2 or more entries, got 1")
    told = "image: no finite prediction, because a given value is too far from the data; use values nearer to the data"
    assert refused(client, {"point": [1e300, 1e300]}, "decode") == (422, told)
    assert refused(client, b'{"point": [1, NaN]}', "decode") == (422, "point.1: expected a finite number, got .nan")
    for path, status, line in (
        ("/api/row/24", 404, "row 24: no such row; the test split has rows 0 to 23"),
        ("/api/row/-1", 404, "row -1: expected a number"),
        ("/api/row/%C2%B2", 404, "row ²: expected a number"),
        ("/api/impute", 405, "GET /api/impute: method not allowed"),
        ("/static/../app.py", 404, "GET /app.py: not found"),
        ("/static/explore.js", 404, "GET /static/explore.js: not found"),
    ):
        response = client.get(path)
        assert (response.status_code, response.json()) == (status, {"error": line})


def test_a_failure_of_ours_is_told_in_a_line_and_behind_the_same_headers(session: Session, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("nbridge.explore.app.latent_map", fail)
    response = TestClient(make_app(session), base_url=HOST, raise_server_exceptions=False).get("/api/latent")
    assert (response.status_code, response.json()) == (500, {"error": "nbridge failed (ZeroDivisionError); see the terminal for details"})
    assert all(response.headers[name] == value for name, value in HEADERS.items())


# Who may ask

HOSTS = ["127.0.0.1:8642", "127.0.0.1", "localhost:8642", "LOCALHOST:9000"]
FOREIGN = [
    "example.com",
    "127.0.0.1.example.com:8642",
    "localhost.example.com",
    "127.0.0.1:8642@example.com",
    "[::1]:8642",
    "",
    "0.0.0.0:8642",
]


@pytest.mark.parametrize("path", ["/", "/explore.js", "/api/spec", "/api/row/0", "/nothing"])
def test_only_names_of_this_machine_may_ask_whatever_the_path(client: TestClient, path: str):
    for host in HOSTS:
        assert client.get(path, headers={"host": host}).status_code != 403
    for host in FOREIGN:
        response = client.get(path, headers={"host": host})
        told = f"Host {host!r}: expected 127.0.0.1 or localhost"
        assert (response.status_code, response.json()) == (403, {"error": told})


@pytest.mark.parametrize(
    "origin", ["http://example.com", "null", "http://127.0.0.1:8643", "https://127.0.0.1:8642", "http://localhost:8642", ""]
)
def test_pages_of_other_origins_may_not_ask(client: TestClient, origin: str):
    for response in (client.get("/api/spec", headers={"origin": origin}), client.post("/api/prior", headers={"origin": origin}, json={})):
        assert (response.status_code, response.json()) == (403, {"error": f"Origin {origin!r}: requests from other pages are refused"})
    assert client.post("/api/prior", headers={"origin": HOST}, json={}).status_code == 200


@given(name=st.text(min_size=1, max_size=30), port=st.integers(0, 99999))
def test_no_other_host_is_this_machine(name: str, port: int):
    host = f"{name}:{port}".encode("latin-1", "ignore")
    allowed = host.lower() in (f"127.0.0.1:{port}".encode(), f"localhost:{port}".encode())
    assert (refusal([(b"host", host)]) is None) == allowed
    assert refusal([(b"host", b"localhost"), (b"host", host)]) is not None
    assert refusal([]) is not None


@pytest.mark.parametrize("path", ["/", "/explore.js", "/explore.css", "/palette.css", "/api/spec", "/api/row/999", "/none"])
def test_every_answer_brings_the_policy_of_the_page(client: TestClient, path: str):
    response = client.get(path)
    assert all(response.headers[name] == value for name, value in HEADERS.items())
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"


def test_the_page_refers_to_its_own_files_alone_and_has_no_script_or_style_inside(client: TestClient):
    text = client.get("/").text
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert addresses == ["data:,", "palette.css", "explore.css", "explore.js"]
    kinds = [client.get(f"/{name}").headers["content-type"].partition(";")[0] for name in addresses[1:]]
    assert kinds == ["text/css", "text/css", "text/javascript"]
    assert client.get("/palette.css").text == PALETTE
    assert not re.search(r"<style|<script[^>]*>[^<]|\son\w+=|style=", text)
    for file in STATIC.iterdir():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|eval\(|@import|url\(", file.read_text(encoding="utf-8")), (
            file.name
        )


# Where rows are not to be had


def test_a_model_without_rows_is_asked_with_values_that_are_drawn_and_typed(bare: Session):
    client = TestClient(make_app(bare), base_url=HOST)
    spec = client.get("/api/spec").json()
    assert spec["rows"] is None
    assert "model: no run folder here (spec.resolved.yaml is missing); this is a model folder" in spec["without_rows"]
    ranges = {one["name"]: one for one in spec["modalities"] if "low" in one}
    assert set(ranges) == {"x", "wide", "counts", "flags"}
    assert all(low < high for one in ranges.values() for low, high in zip(one["low"], one["high"], strict=True))
    start = {name: {"values": one["start"]} for name, one in ranges.items()}
    assert set(ask(client, "impute", given={**start, "image": {"picture": PICTURE}})["modalities"]) == {"colour", "label"}
    assert "map" not in ask(client, "prior")
    assert client.get("/api/row/0").json() == {"error": f"there are no rows to choose from: {bare.reason}"}
    told = f"no map: there are no rows ({bare.reason})"
    assert client.get("/api/latent").json() == {"error": told}
    assert refused(client, {"point": [0, 0]}, "decode") == (422, told)


def test_rows_that_came_from_python_are_explored_where_they_are_and_missed_elsewhere(tmp_path: Path):
    part = {"encoder": "mlp", "features": 4}
    spec = {
        "latent_dim": 1,
        "modalities": {"x": {"shape": 2, "likelihood": "normal", **part}, "y": {"shape": 2, "likelihood": "categorical", **part}},
        "training": {"stages": {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}},
        "data": {"source": "memory", "test": 0, "validation": 0},
    }
    rng = np.random.default_rng(0)
    run = nbridge.train(spec, {"x": rng.normal(size=(40, 2)), "y": np.arange(40) % 2}, out=tmp_path / "run")
    here, there = session_of(run), open_session(tmp_path / "run")
    assert (here.split, len(here.rows), here.map_unavailable) == ("train", 40, "no map: it needs at least two latent dimensions and 3 rows")
    assert (there.rows, there.reason) == (None, "the rows of this run came from Python")
    assert there.title == "run"


def test_rows_on_disk_are_picked_as_those_in_memory(session: Session, run: Run, tmp_path: Path):
    for name, array in data().items():
        np.save(tmp_path / f"{name}.npy", array)
    stored = NPYFolder(path=str(tmp_path)).load({name: likelihood.shape for name, likelihood in session.model.likelihoods.items()}).batch
    assert isinstance(stored, StoredRows)
    places = torch.tensor([int(one[1:]) for one in run.splits.test_ids])
    disk = replace(session, rows=stored.subset(places), train=None, ids=None)
    memory = replace(session, train=None, ids=None)
    one, other = (TestClient(make_app(each), base_url=HOST) for each in (disk, memory))
    for path in ("spec", "row/3", "latent"):
        assert one.get(f"/api/{path}").json() == other.get(f"/api/{path}").json()
    question = {"given": {"x": {"row": 3}, "image": {"row": 5}}}
    assert ask(one, "impute", **question) == ask(other, "impute", **question)


def test_rows_that_cannot_be_read_cost_the_page_a_line(run: Run, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch):
    folder = shutil.copytree(str(run.folder), tmp_path / "run")
    spec = folder / "spec.resolved.yaml"
    spec.write_text(spec.read_text().replace("data.npz", "gone.npz"))
    monkeypatch.setattr("nbridge.explore.server.serve", lambda session, *_, **__: None)
    code, _, said = call("explore", folder)
    reason = open_session(folder).reason
    assert "gone.npz" in reason
    assert (code, said) == (0, f"no rows to choose from, enter values instead: {reason}\n")


# The command


def test_what_cannot_be_explored_is_told_as_by_the_other_commands(call: Call, run: Run, tmp_path: Path):
    half = shutil.copytree(str(run.folder), tmp_path / "half")
    shutil.rmtree(half / MODEL)
    for folder in (tmp_path / "none", half, tmp_path):
        with pytest.raises(nbridge.RunError) as caught:
            load_model(folder)
        assert call("explore", folder, "--no-browser") == (2, "", f"{caught.value}\n")
    assert call("explore", half)[2] == f"{half}: no finished model here. Training has not finished; continue with: nbridge resume {half}\n"


def test_answers_are_sent_at_once():
    # By this asyncio tells a socket of TCP, whose small packets it must not hold back until earlier ones are acknowledged.
    with bind(0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_a_port_that_is_taken_is_told_in_a_line(call: Call, run: Run):
    with bind(0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        expected = f"--port {port}: already in use; choose another, or 0 for any free one\n"
        assert call("explore", run.folder, "--port", port, "--no-browser") == (2, "", expected)


def test_a_missing_extra_is_told_in_a_line(call: Call, run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exploring, "find_spec", lambda name: None if name == "uvicorn" else name)
    expected = 'nbridge explore needs uvicorn, which is not installed: pip install "nbridge[explore]"\n'
    assert call("explore", run.folder) == (2, "", expected)


def test_it_serves_this_machine_alone_and_ends_with_control_c(run: Run):
    assert run.folder is not None
    process = start("explore", run.folder, "--port", "0", "--no-browser", before=interruptible)
    line = process.first_line()
    address = re.fullmatch(r"(http://127\.0\.0\.1:\d+/)  \(Ctrl-C to stop\)\n", line)[1]
    with urllib.request.urlopen(address + "api/spec", timeout=30) as answer:
        assert json.load(answer)["title"] == "tiny & <b>small</b>"
        assert "server" not in answer.headers
    process.send(signal.SIGINT)
    assert process.ended(timeout=30) == (0, line, "")


def test_the_browser_is_opened_on_the_page_unless_it_is_not_wanted(call: Call, run: Run, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)

    def interrupted(self: uvicorn.Server, sockets: Any) -> None:
        assert sockets[0].getsockname()[0] == "127.0.0.1"
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", interrupted)
    code, shown, said = call("explore", run.folder, "--port", "0")
    assert (code, said) == (0, "")
    deadline = time.monotonic() + 10
    while not opened and time.monotonic() < deadline:
        time.sleep(0.01)
    assert shown == f"{opened[0]}  (Ctrl-C to stop)\n"
    assert call("explore", run.folder, "--port", "0", "--no-browser")[0] == 0
    assert len(opened) == 1


# A browser


@contextmanager
def served(session: Session) -> Iterator[str]:
    """A server in a thread."""
    with bind(0) as listening:
        listening.listen()
        server = Server(make_app(session), Limits())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


class Page:
    """The page in a browser, by what a person does with it."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser, self.address = browser, address

    def open(self) -> None:
        self.browser.get_log("browser")
        self.browser.get(self.address)
        self.settled("from image")

    def until(self, condition: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 20, poll_frequency=0.03).until(lambda _: condition())

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        """An element, in the middle of the window, where the bar at its top does not cover it."""
        found = self.browser.find_element("css selector", selector)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        return found

    def switch(self, name: str, on: bool) -> None:
        if (found := self.one(card(name, ".switch input"))).is_selected() != on:
            found.click()

    def type(self, field: Any, text: str) -> None:
        from selenium.webdriver.common.keys import Keys

        field.send_keys(Keys.CONTROL, "a", Keys.NULL, text or Keys.BACKSPACE)

    def settled(self, text: str) -> None:
        self.until(lambda: text in self.one("#status").text)

    def shown(self, name: str) -> str:
        selector = f"{card(name, '.elements')}, {card(name, '.tiles')}"
        return self.browser.execute_script("return document.querySelector(arguments[0])?.outerHTML ?? ''", selector)

    def after(self, work: Callable[[], object], name: str) -> str:
        """What is shown of a modality once it is no longer what it was before."""
        before = self.shown(name)
        work()
        return self.until(lambda: (now := self.shown(name)) and now != before and now)

    @property
    def ink(self) -> int:
        """All levels of all pixels of the canvas."""
        levels = "const c = arguments[0]; return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.reduce((a, b) => a + b)"
        return self.browser.execute_script(levels, self.one(CANVAS))

    @property
    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.browser.get_log("browser")]


def card(name: str, inside: str = "") -> str:
    return f'[data-modality="{name}"] {inside}'


CANVAS = card("image", "canvas")
BLACK = 6 * 8 * 255


@pytest.fixture(scope="module")
def browsed(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with served(session) as address, accessibility.browser(tmp_path_factory.mktemp("profile")) as browser:
        yield Page(browser, address)


@pytest.fixture
def page(browsed: Page) -> Iterator[Page]:
    """The page, freshly loaded; its console says nothing to the end, but for what the server refused."""
    browsed.open()
    yield browsed
    assert [line for line in browsed.complaints if "status of 422" not in line] == []


@pytest.mark.slow
def test_in_a_browser_a_row_is_picked_and_what_is_not_given_of_it_is_imputed(page: Page):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    assert page.one("h1").text == "tiny & <b>small</b>"
    assert len(page.all("section.card")) == len(NAMES)
    assert [len(page.all(card(name, kind))) for name, kind in (("x", ".real"), ("counts", ".real"), ("label", ".isreal"))] == [3, 2, 1]
    page.after(lambda: page.one("#next").click(), "x")
    assert page.one("#row").get_attribute("value") == "1"
    page.switch("x", True)
    page.settled("from image, x")
    page.switch("image", False)
    page.settled("from x;")
    assert len(page.all(card("image", ".draws img"))) == 8
    captions = [caption.text.partition(",")[0] for caption in page.all(card("image", "figcaption"))]
    assert captions == ["mean", "deviation", "◆ the row's own"]
    page.after(page.one("#again").click, "image")
    # A slider moves its number and what is imputed; an empty field is imputed itself.
    field = page.one(card("x", "input[type=number]"))
    number = float(field.get_attribute("value"))
    page.after(lambda: page.one(card("x", "input[type=range]")).send_keys(Keys.ARROW_RIGHT * 5), "wide")
    assert float(field.get_attribute("value")) > number
    assert not page.all(card("x", ".span"))
    page.type(field, "")
    page.until(lambda: len(page.all(card("x", ".span"))) == 1)
    page.settled("the rest of x, wide")
    page.switch("label", True)
    page.settled("from x, label")
    classes = Select(page.one(card("label", "select")))
    page.after(next(option for option in classes.options if not option.is_selected()).click, "wide")
    page.switch("flags", True)
    page.settled("from x, flags, label")
    page.after(page.one(card("flags", "input[type=checkbox]:not([role])")).click, "wide")


@pytest.mark.slow
def test_in_a_browser_a_wide_vector_is_turned_page_by_page_and_searched(page: Page):
    assert len(page.all(card("wide", ".track"))) == 12
    page.after(lambda: page.one(card("wide", "button[aria-label^=Further]")).click(), "wide")
    assert page.one(card("wide", ".pager .quiet")).text == "13–24 of 40"
    page.one(card("wide", "option[value=varied]")).click()
    assert page.one(card("wide", ".name")).text in {"0, 19", "1, 19", "0, 18", "1, 18"}
    page.one(card("wide", "input[type=search]")).send_keys("1, 19")
    page.until(lambda: len(page.all(card("wide", ".mean"))) == 1)
    assert [name.text for name in page.all(card("wide", ".name"))] == ["1, 19"]


@pytest.mark.slow
def test_in_a_browser_an_image_is_drawn_by_pointer_touch_and_keys_and_uploaded(page: Page, tmp_path: Path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.after(lambda: page.one(card("image", ".tools button:nth-of-type(3)")).click(), "x")
    canvas = page.one(CANVAS)
    assert page.ink == BLACK
    assert not page.all(".real, .isreal")
    stroke = ActionChains(page.browser, 20).move_to_element(canvas).click_and_hold().move_by_offset(40, 20).release()
    page.after(stroke.perform, "x")
    assert (drawn := page.ink) > BLACK + 600
    page.after(lambda: canvas.send_keys(Keys.ARROW_LEFT * 3 + Keys.ARROW_UP * 2 + " "), "x")
    assert (dotted := page.ink) > drawn
    assert "line 2, column 2" in canvas.get_attribute("aria-label")
    box = page.browser.execute_script("return arguments[0].getBoundingClientRect().toJSON()", canvas)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": box["left"] + across * box["width"], "y": box["top"] + down * box["height"]} for across, down in points]
        page.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    before = page.shown("x")
    touch("touchStart", (0.05, 0.9))
    touch("touchMove", (0.5, 0.9))
    touch("touchEnd")
    page.until(lambda: page.shown("x") != before)
    assert page.ink > dotted
    Image.fromarray(np.full((12, 16), 200, np.uint8)).save(tmp_path / "grey.png")
    page.after(lambda: page.one(card("image", "input[type=file]")).send_keys(str(tmp_path / "grey.png")), "x")
    assert page.ink == 6 * 8 * (3 * 200 + 255)


@pytest.mark.slow
def test_in_a_browser_rows_are_drawn_from_nothing_and_the_map_is_decoded(page: Page):
    from selenium.webdriver.common.keys import Keys

    page.one("#nothing").click()
    page.settled("from the mixture prior")
    assert not page.all(".real, .isreal")
    assert len(page.all(card("image", ".draws img"))) == 8
    page.after(lambda: page.one("#prior option[value=normal]").click(), "x")
    page.settled("from the normal prior")
    page.until(lambda: len(page.all("#map .now")) == 8)
    assert not page.all("#decoded > div")
    page.one("#map svg").click()
    page.until(lambda: len(page.all("#decoded > div")) == len(NAMES))
    decoded = page.one("#decoded").get_attribute("innerHTML")
    page.one("#map svg").send_keys(Keys.ARROW_RIGHT * 4)
    page.until(lambda: page.one("#decoded").get_attribute("innerHTML") != decoded)


@pytest.mark.slow
def test_in_a_browser_a_mistake_is_told_in_its_place_and_gone_once_it_is_mended(page: Page, tmp_path: Path):
    page.switch("counts", True)
    page.settled("from image, counts")
    count = page.one(card("counts", "input[type=number]"))
    page.type(count, "-1")
    page.until(lambda: page.one("#error").text == "counts: value -1 is outside the support of Poisson, whole numbers from 0")
    page.type(count, "2")
    page.until(lambda: not page.one("#error").is_displayed())
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "square.png")
    page.one(card("image", "input[type=file]")).send_keys(str(tmp_path / "square.png"))
    told = "image: got an image of 9 × 9 pixels, expected 8 × 6, or larger with the same aspect ratio"
    page.until(lambda: page.one(card("image", ".error")).text == told)
    page.one("#next").click()
    page.until(lambda: not page.one(card("image", ".error")).is_displayed())


@pytest.mark.slow
def test_in_a_browser_the_page_fits_a_telephone_and_each_control_has_a_name(page: Page):
    for name in NAMES:
        page.switch(name, True)
    page.settled("All modalities are given")
    unnamed = """return [...document.querySelectorAll("input, select, button, canvas, svg[tabindex], img")].filter((node) =>
        !(node.getAttribute("aria-label") || node.getAttribute("alt") || node.labels?.length || node.textContent.trim())).length"""
    assert page.browser.execute_script(unnamed) == 0
    size = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    inner, outer = page.browser.execute_script("const page = document.documentElement; return [page.clientWidth, page.scrollWidth]")
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert inner == outer <= 360
