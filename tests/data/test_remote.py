"""Rows, results and models at URLs: they are the same as in local files, failures take one line, and no credentials are written."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import nbridge
from nbridge.cli.main import app
from nbridge.data import remote
from nbridge.errors import DataError, NBridgeError, RunError

fsspec = pytest.importorskip("fsspec", reason='the extra is missing: pip install -e ".[test]"')


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; ``/denied/`` is refused and ``/broken/`` ends in the middle of a file."""

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/denied/"):
            self.send_error(403)
        elif self.path.startswith("/broken/"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x,y\n")
        else:
            super().do_GET()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with absent cells, and the same in an archive."""
    folder = tmp_path_factory.mktemp("served")
    values = np.random.default_rng(0).normal(size=(60, 2))
    cells = [f"{x:.2f},{'' if row % 4 == 0 else f'{x + y / 9:.2f}'}" for row, (x, y) in enumerate(values)]
    (folder / "rows.csv").write_text("\n".join(["x,y", *cells, ""]))
    with zipfile.ZipFile(folder / "rows.zip", "w") as archive:
        archive.write(folder / "rows.csv", "inner/rows.csv")
    return folder


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp", reason='the extra is missing: pip install -e ".[test]"')
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def memory(folder: Path) -> Any:
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/rows.csv", (folder / "rows.csv").read_bytes())
    return files


def spec_of(path: str) -> dict[str, Any]:
    part = {"shape": 1, "encoder": "mlp", "likelihood": "normal"}
    few = {"stages": {"joint": {"updates": 2}, "bridges": {"updates": 2}}}
    return {"data": {"source": "table", "path": path}, "modalities": {"x": part, "y": part}, "training": few, "latent_dim": 2}


@pytest.fixture(scope="module")
def run(memory: Any, tmp_path_factory: pytest.TempPathFactory) -> nbridge.Run:
    """Trained from a URL."""
    return nbridge.train(spec_of("memory://bucket/rows.csv"), out=tmp_path_factory.mktemp("runs") / "run")


def line_of(found: pytest.ExceptionInfo[Any]) -> str:
    line = str(found.value)
    assert "\n" not in line
    return line


# Reading


def test_a_url_trains_and_imputes_as_the_file_does(run: nbridge.Run, folder: Path, memory: Any, tmp_path: Path):
    local = nbridge.train(spec_of(str(folder / "rows.csv")))
    assert all((local.splits.train.values[name] == run.splits.train.values[name]).all() for name in "xy")
    run.model.impute(folder / "rows.csv", out=tmp_path / "local.csv")
    run.model.impute("memory://bucket/rows.csv", out=tmp_path / "remote.csv")
    assert (tmp_path / "remote.csv").read_bytes() == (tmp_path / "local.csv").read_bytes()
    assert run.folder is not None
    assert "memory://bucket/rows.csv" in (run.folder / "spec.resolved.yaml").read_text()
    assert nbridge.resume(run.folder).model.names == ("x", "y")


@pytest.mark.parametrize("where", ["{web}/rows.csv", "zip://inner/rows.csv::{folder}/rows.zip", "zip://inner/rows.csv::{web}/rows.zip"])
def test_http_and_archives_are_read(where: str, web: str, folder: Path, run: nbridge.Run):
    assert remote.local_copy(where.format(web=web, folder=folder)).read_bytes() == (folder / "rows.csv").read_bytes()
    assert len(run.model.embed(where.format(web=web, folder=folder)).mean) == 60


def test_a_draft_and_its_file_name_the_url(memory: Any):
    draft = nbridge.init("memory://bucket/rows.csv")
    assert 'path: "memory://bucket/rows.csv"' in draft.text
    assert "nbridge-" not in draft.text


def test_a_file_is_fetched_once_and_again_when_it_has_changed(memory: Any):
    memory.pipe_file("/bucket/changing.csv", b"x\n1\n")
    first = remote.local_copy("memory://bucket/changing.csv")
    memory.pipe_file("/bucket/changing.csv", b"x\n22\n")
    assert remote.local_copy("memory:/bucket/changing.csv") == first
    remote.refresh()
    assert remote.local_copy("memory://bucket/changing.csv").read_bytes() == b"x\n22\n"
    remote.refresh()
    assert remote.local_copy("memory://bucket/changing.csv") != first


def test_messages_about_a_copy_name_the_url(memory: Any, run: nbridge.Run, tmp_path: Path):
    memory.pipe_file("/bucket/wrong.csv", b"x,y\n1,many\n")
    with pytest.raises(DataError, match=r"^memory://bucket/wrong\.csv: ") as found:
        run.model.impute("memory://bucket/wrong.csv", out=tmp_path / "out.csv")
    assert "nbridge-" not in line_of(found)
    assert not list(tmp_path.iterdir())


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("a/../../../../escaped.npy", b"")
        archive.writestr("a/x.npy", b"")
    with pytest.raises(DataError, match=r"cannot be read \((unsafe name|no such file)"):
        remote.local_copy(f"zip://a::{tmp_path}/evil.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.zip"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/none.csv", "no such file"),
        ("/denied/rows.csv", "access denied; set credentials in the environment"),
        ("/broken/rows.csv", ""),
    ],
)
def test_what_a_server_does_not_give_takes_one_line_and_leaves_nothing(web: str, run: nbridge.Run, path: str, reason: str, tmp_path: Path):
    before = {one for one in remote._folder().rglob("*") if one.is_file()}
    with pytest.raises(DataError) as found:
        run.model.impute(web + path, out=tmp_path / "out.csv")
    assert line_of(found).startswith(f"{web}{path}: cannot be read ({reason}")
    assert not list(tmp_path.iterdir())
    assert {one for one in remote._folder().rglob("*") if one.is_file()} == before


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "no answer in time; check the network, or try again"),
        (PermissionError("x"), "access denied; set credentials in the environment"),
        (type("NoCredentialsError", (Exception,), {})("none"), "no credentials; set them in the environment of the service"),
        (OSError("connection\nreset"), "connection reset"),
    ],
)
def test_every_failure_of_a_filesystem_takes_one_line(memory: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str):
    def fail(*_: object) -> None:
        raise error

    memory.pipe_file("/bucket/failing.csv", b"x")
    monkeypatch.setattr(type(memory), "get_file", fail)
    with pytest.raises(DataError) as found:
        remote.local_copy("memory://bucket/failing.csv")
    assert line_of(found).endswith(f": cannot be read ({reason})")


def test_unknown_protocols_and_missing_packages_take_one_line(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError) as found:
        remote.local_copy("gopher://bucket/rows.csv")
    assert line_of(found) == "gopher://bucket/rows.csv: cannot be read (unknown protocol gopher)"
    monkeypatch.setattr(remote, "find_spec", lambda name: None)
    with pytest.raises(DataError) as found:
        nbridge.init("s3://bucket/rows.csv")
    assert line_of(found).endswith('expected a file; download it first, or pip install "nbridge[remote]"')


# Credentials


@pytest.mark.parametrize(
    "url", ["https://user:s3cret@host/rows.csv", "s3://key:s3cret@bucket/rows.csv", "https://host/rows.csv?sig=s3cret"]
)
def test_credentials_in_a_url_are_neither_used_nor_shown(url: str, run: nbridge.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(
        f"data: {{source: table, path: '{url}'}}\nmodalities:\n  x: {{shape: 1, encoder: mlp, likelihood: normal}}\n"
        "  y: {shape: 1, encoder: mlp, likelihood: normal}\n"
    )
    for words in (
        ("train", "spec.yaml", "--out", "new"),
        ("validate", "spec.yaml", "--data"),
        ("init", url, "--out", "new.yaml"),
        ("impute", str(run.folder), url, "--out", "out.csv"),
        ("impute", str(run.folder), "memory://bucket/rows.csv", "--out", url),
    ):
        done = CliRunner().invoke(app, list(words))
        assert isinstance(done.exception, NBridgeError), words
        assert "s3cret" not in f"{done.exception} {done.output}", words
        assert "may be secret" in str(done.exception), words
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


# Writing


def test_a_completed_file_is_put_whole(run: nbridge.Run, memory: Any, folder: Path, tmp_path: Path):
    run.model.impute(folder / "rows.csv", out=tmp_path / "local.csv")
    run.model.impute("memory://bucket/rows.csv", out="memory://bucket/completed.csv")
    assert memory.cat_file("/bucket/completed.csv") == (tmp_path / "local.csv").read_bytes()
    words = ["impute", str(run.folder), "memory://bucket/rows.csv", "--out", "memory://bucket/completed.csv"]
    again = CliRunner().invoke(app, words)
    assert str(again.exception) == "memory://bucket/completed.csv: exists already. Use --overwrite to replace it."
    done = CliRunner().invoke(app, [*words, "--overwrite"])
    assert (done.exit_code, done.stdout.split(": ")[0]) == (0, "memory://bucket/completed.csv")


def test_a_failed_imputation_or_put_keeps_the_old_file(run: nbridge.Run, memory: Any, folder: Path, monkeypatch: pytest.MonkeyPatch):
    memory.pipe_file("/bucket/kept.csv", b"old")
    memory.pipe_file("/bucket/wrong.csv", b"x,y\n1,many\n")
    with pytest.raises(DataError):
        run.model.impute("memory://bucket/wrong.csv", out="memory://bucket/kept.csv")

    def fail(*_: object) -> None:
        raise OSError("the connection was lost")

    monkeypatch.setattr(type(memory), "put_file", fail)
    with pytest.raises(DataError) as found:
        run.model.impute(folder / "rows.csv", out="memory://bucket/kept.csv")
    assert line_of(found) == "memory://bucket/kept.csv: cannot be written (the connection was lost)"
    assert memory.cat_file("/bucket/kept.csv") == b"old"


def test_where_a_partial_file_would_be_visible_it_is_renamed_at_the_end(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "STORES", frozenset())
    names: list[str] = []
    put = type(memory).put_file
    monkeypatch.setattr(type(memory), "put_file", lambda self, local, place: (names.append(place), put(self, local, place))[1])
    with remote.delivered("memory://bucket/renamed.csv") as local:
        assert local is not None
        local.write_text("whole")
    assert memory.cat_file("/bucket/renamed.csv") == b"whole"
    assert [name.endswith(".tmp") for name in names] == [True]
    assert not [name for name in memory.find("/bucket") if name.endswith(".tmp")]


def test_what_cannot_be_written_at_a_url_is_refused_before_any_work(run: nbridge.Run, memory: Any, folder: Path):
    for out, reason in {
        "http://127.0.0.1:9/out.csv": "http can be read, not written; write to a local file, s3:// or gs://",
        "zip://out.csv::memory://bucket/out.zip": "zip can be read, not written; write to a local file, s3:// or gs://",
        "memory://bucket/out": "a folder, which cannot be replaced as a whole at a URL; write a local folder, then copy it",
    }.items():
        with pytest.raises(DataError) as found:
            run.model.impute(folder / "rows.csv", out=out)
        assert line_of(found) == f"{out}: {reason}"
    for act in (
        lambda: nbridge.train(spec_of(str(folder / "rows.csv")), out="memory://bucket/run"),
        lambda: run.model.save("memory://b/m"),
    ):
        with pytest.raises(RunError, match=r"^memory://b.*: a URL, expected a local folder, since "):
            act()
    assert not Path("memory:").exists()


# Models


def test_a_model_is_loaded_from_a_url_and_loading_one_reads_no_rows(run: nbridge.Run, memory: Any, monkeypatch: pytest.MonkeyPatch):
    assert run.folder is not None
    for file in (run.folder / "model").iterdir():
        memory.pipe_file(f"/bucket/model/{file.name}", file.read_bytes())
    model = nbridge.load("memory://bucket/model")
    assert model.names == run.model.names
    with pytest.raises(RunError, match=r"^memory://bucket/none: cannot be read \(no such file\)$"):
        nbridge.load("memory://bucket/none")

    def touched(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(remote, "_filesystem", touched)
    remote.refresh()
    assert "memory://" in str(nbridge.load(run.folder).spec)
