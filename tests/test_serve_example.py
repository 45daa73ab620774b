"""The example that serves a model: answers are those of `Model.impute`, and mistakes are answered with its message."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbridge

pytest.importorskip("fastapi", reason='the extra is missing: pip install -e ".[test]"')


@pytest.fixture(scope="module")
def model() -> nbridge.Model:
    modalities = {
        "x": {"shape": 2, "encoder": "mlp", "likelihood": "normal"},
        "kind": {"shape": 3, "encoder": "mlp", "likelihood": "categorical"},
    }
    return nbridge.Model.from_spec(nbridge.Spec.model_validate({"modalities": modalities}))


@pytest.fixture(scope="module")
def client(model: nbridge.Model) -> Any:
    from fastapi.testclient import TestClient

    spec = importlib.util.spec_from_file_location("serve", Path(__file__).parent.parent / "examples" / "serve.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return TestClient(example.serve(model))


def test_an_answer_is_what_the_model_imputes(client: Any, model: nbridge.Model):
    rows = [{"x": [0.5, None], "kind": 1}, {"x": [1.0, 2.0]}, {"x": None, "kind": 2}]
    answer = client.post("/impute", json={"rows": rows}).json()
    arrays = {"x": np.array([[0.5, np.nan], [1, 2], [np.nan, np.nan]]), "kind": np.array([1, np.nan, 2])}
    expected = model.impute(arrays)
    assert answer.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(np.array(answer[name], dtype=float), array)
    assert answer["x"][1] == [1.0, 2.0]
    assert answer["x"][0][0] == 0.5


def test_draws_and_intervals_are_optional(client: Any):
    rows = [{"x": [0.5, 1.0]}, {"kind": 1}]
    assert np.shape(client.post("/impute", json={"rows": rows, "samples": 4}).json()["x"]) == (4, 2, 2)
    found = client.post("/impute", json={"rows": rows, "intervals": [0.9]}).json()
    assert found["x__lower"][1][0] < found["x__upper"][1][0]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"rows": [{"y": 1}]}, "no modality 'y', expected x, kind"),
        ({"rows": [{"x": [1, 2, 3]}]}, "modality 'x': expected numbers of shape (2,)"),
        ({"rows": [{"x": "many"}]}, "modality 'x': expected numbers of shape (2,)"),
        ({"rows": [{"kind": 7}]}, "modality 'kind'"),
        ({"rows": [{"kind": 1}], "samples": 2, "intervals": [0.9]}, ""),
        ({"rows": [{"kind": 1}], "intervals": [2]}, ""),
    ],
)
def test_a_mistake_is_answered_with_the_line_of_nbridge(client: Any, question: dict[str, Any], message: str):
    answer = client.post("/impute", json=question)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(message)
    assert "\n" not in answer.json()["detail"]


def test_an_empty_question_is_refused(client: Any):
    assert client.post("/impute", json={"rows": []}).status_code == 422
