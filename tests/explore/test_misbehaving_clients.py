"""Clients that misbehave: they are bounded in memory, number and time, leave nothing on the terminal, and do not disturb other requests."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import Started, interruptible
from pydantic import ValidationError
from starlette.testclient import TestClient

import nbridge
from nbridge.__main__ import _stop
from nbridge.data.batch import Batch
from nbridge.explore import app, requests, responses
from nbridge.explore.app import make_app
from nbridge.explore.connections import Server
from nbridge.explore.guard import refusal
from nbridge.explore.limits import SMALL, Bodies, Limits
from nbridge.explore.server import bind, serve
from nbridge.explore.session import Session

PART = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
SPEC = {
    "latent_dim": 2,
    "modalities": {
        "x": {"shape": 3, "likelihood": "normal", **PART},
        "y": {"shape": 2, "likelihood": "normal", **PART},
        "image": {"shape": [1, 4, 4], "likelihood": "bernoulli", **PART},
    },
    "fusion": {"hidden": [4]},
}
KNOWN = "Modalities: x, y, image"
END = b"\r\n"


def session_of_an_untrained_model() -> Session:
    spec = nbridge.Spec.model_validate(SPEC)
    torch.manual_seed(0)
    return Session(nbridge.build_model(spec).eval(), spec, "untrained", reason="none are needed")


@pytest.fixture(scope="module")
def session() -> Session:
    return session_of_an_untrained_model()


class Serving:
    """A server in a thread of its own."""

    def __init__(self, server: Server, port: int) -> None:
        self.server, self.port = server, port

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def head(self, path: str, method: str = "POST", **headers: object) -> bytes:
        return head(self.port, path, method, **headers)

    def ask(self, path: str, question: object = None) -> tuple[int, Any]:
        """The status and the answer to a question, or to GET where there is none."""
        with self.connect() as client:
            body = b"" if question is None else json.dumps(question).encode()
            method = "GET" if question is None else "POST"
            client.sendall(self.head(path, method, content_length=len(body), connection="close") + body)
            return answer_of(everything(client))

    def connections(self) -> int:
        return len(self.server.server_state.connections)


def head(port: int, path: str, method: str = "POST", **headers: object) -> bytes:
    fields = {"host": f"127.0.0.1:{port}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return "\r\n".join([f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]).encode()


def everything(client: socket.socket) -> bytes:
    """What a server writes until it closes the connection."""
    found = b""
    with suppress(ConnectionError):
        while chunk := client.recv(65536):
            found += chunk
    return found


def answer_of(response: bytes) -> tuple[int, Any]:
    top, _, body = response.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(body)


@contextmanager
def serving(app: Session | Callable[..., Any], limits: Limits | None = None) -> Iterator[Serving]:
    limits = limits or Limits()
    with bind(0) as listening:
        listening.listen()
        server = Server(make_app(app, limits) if isinstance(app, Session) else app, limits)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield Serving(server, listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# What is left on the terminal


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def half_close(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


def then(data: bytes) -> Callable[[socket.socket], None]:
    """Sends more after the response has begun."""

    def send(client: socket.socket) -> None:
        client.recv(10)
        client.sendall(data)

    return send


UPLOAD, IMPUTE = "/api/upload?modality=image", "/api/impute"
MISBEHAVIOUR: dict[str, tuple[tuple[str, dict[str, Any]] | None, bytes, Callable[[socket.socket], None] | None]] = {
    "an upload is cut off": ((UPLOAD, {"content_length": 1000}), b"abc", socket.socket.close),
    "an upload is reset": ((UPLOAD, {"content_length": 1000}), b"abc", reset),
    "an upload ends early": ((UPLOAD, {"content_length": 1000}), b"abc", half_close),
    "a question is cut off": ((IMPUTE, {"content_length": 1000}), b'{"given"', socket.socket.close),
    "a chunked question is cut off": ((IMPUTE, {"transfer_encoding": "chunked"}), b"5\r\nabc", socket.socket.close),
    "reset while it is answered": (("/api/spec", {"method": "GET"}), b"", reset),
    "reset before it continues": ((UPLOAD, {"content_length": 3, "expect": "100-continue"}), b"", reset),
    "a damaged chunk": ((UPLOAD, {"transfer_encoding": "chunked"}), b"zz\r\nabc", None),
    "a damaged chunk after the answer": (("/api/spec", {"method": "GET", "transfer_encoding": "chunked"}), b"", then(b"zz\r\nabc")),
    "a chunk that is longer than it says": (("/", {"method": "GET", "transfer_encoding": "chunked"}), b"", then(b"5\r\nabcdefghijkl")),
    "more than the length": ((UPLOAD, {"content_length": 3}), b"abcdefghi\r\n\r\n", None),
    "negative length": ((UPLOAD, {"content_length": -5}), b"abc", None),
    "length without end": ((UPLOAD, {"content_length": "9" * 5000}), b"abc", None),
    "no HTTP": (None, b"\x00\xff\xfe\r\n\r\n", None),
    "TLS": (None, bytes.fromhex("16030100a5010000a10303") + bytes(range(150)), None),
    "HTTP/2": (None, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
    "target that is not ASCII": (None, b"GET /\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", None),
    "a header of a megabyte": (None, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 2**20, None),
    "a name of a megabyte": (None, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"a" * 2**20, None),
    "headers without end": (None, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"a: b\r\n" * 100_000, None),
    "a websocket": (("/", {"method": "GET", "upgrade": "websocket", "connection": "upgrade"}), b"", half_close),
    "a proxy": (None, b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n", half_close),
}  # fmt: skip


def test_a_client_that_misbehaves_leaves_nothing_on_the_terminal(
    session: Session, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    with serving(session) as server:
        for name, (request, data, after) in MISBEHAVIOUR.items():
            with server.connect() as client, suppress(ConnectionError):
                client.sendall((server.head(request[0], **request[1]) if request else b"") + data)
                if after is not None:
                    after(client)
                if after not in (socket.socket.close, reset):
                    everything(client)
            until(lambda: server.connections() == 0)
            until(lambda: not server.server.server_state.tasks)
            assert capfd.readouterr() == ("", ""), name
            assert caplog.record_tuples == [], name
        assert server.ask("/api/spec")[1]["title"] == "untrained"


def test_a_failure_of_ours_is_still_written_to_the_terminal(
    session: Session, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("nbridge.explore.app.latent_map", lambda _: 1 / 0)
    with serving(session) as server:
        assert server.ask("/api/latent") == (500, {"error": "nbridge failed (ZeroDivisionError); see the terminal for details"})
    assert "ZeroDivisionError: division by zero" in capfd.readouterr().err


# Memory


def explore_untrained(delay: float = 0) -> None:
    """A server of its own, as the command starts it, which takes some time for each answer."""
    signal.signal(signal.SIGTERM, _stop)
    interruptible()
    session, prior = session_of_an_untrained_model(), responses.prior

    def slow(*arguments: Any) -> dict[str, Any]:
        time.sleep(delay)
        return prior(*arguments)

    responses.prior = slow
    serve(session, 0, browser=False, announce=lambda address: print(address, flush=True))


def explore_slowly() -> None:
    explore_untrained(0.4)


def port_of(process: Started) -> int:
    return int(process.first_line().strip().strip("/").rpartition(":")[2])


def memory_of(process: Started, what: str) -> int:
    """In MiB."""
    return int(re.search(rf"{what}:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) // 1024


def readable(clients: list[socket.socket]) -> list[socket.socket]:
    return select.select(clients, [], [], 0)[0]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_fifty_stuck_uploads_take_the_memory_of_eight():
    process = Started(explore_untrained)
    port = port_of(process)
    before = memory_of(process, "VmRSS")
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(50)]
        for client in clients:
            client.sendall(head(port, UPLOAD, content_length=16 * 2**20) + bytes(8 * 2**20))
        until(lambda: len(readable(clients)) == 42)
        told = {"error": "other requests use all the memory for uploads; try again in a minute"}
        assert all(answer_of(client.recv(65536)) == (503, told) for client in readable(clients))
        assert memory_of(process, "VmHWM") - before < 120
        process.send(signal.SIGINT)
        assert process.ended(timeout=30)[::2] == (0, "")


def test_small_requests_are_answered_while_uploads_use_all_the_memory(session: Session, monkeypatch: pytest.MonkeyPatch):
    made: list[Bodies] = []
    monkeypatch.setattr(app, "Bodies", lambda limits: made.append(Bodies(limits)) or made[-1])
    with serving(session, Limits(bodies=2**20)) as server, server.connect() as stuck:
        stuck.sendall(server.head(UPLOAD, content_length=2**22) + bytes(SMALL + 2**20))
        # Else the first large question could take the memory, and the upload be the one that is refused.
        until(lambda: made[0]._held >= 2**20)
        question = {"given": {"x": {"values": [1, 2, 3]}}}
        alone = json.loads(json.dumps(responses.impute(session, requests.Impute.model_validate(question))))
        big = {**question, "padding": "a" * (SMALL + 100)}
        until(lambda: server.ask(IMPUTE, big)[0] == 503)
        assert server.ask(IMPUTE, question) == (200, alone)
        stuck.close()
        until(lambda: server.ask(IMPUTE, big)[0] == 422)


ENTRIES = 200_000
LARGE = {
    "values": b'{"given": {"x": {"values": [%s]}}}' % b",".join([b"1"] * ENTRIES),
    "wrong values": b'{"given": {"x": {"values": [%s]}}}' % b",".join([b'""'] * ENTRIES),
    "keys": b"{%s}" % b",".join(b'"%d":1' % number for number in range(ENTRIES)),
    "modalities": b'{"given": {%s}}' % b",".join(b'"%d":{}' % number for number in range(ENTRIES)),
    "elements": b'{"given": {}, "show": {"x": [%s]}}' % b",".join([b"-1"] * ENTRIES),
    "lists": b"[%s]" % b",".join([b"[]"] * ENTRIES),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_request_of_very_many_entries_is_refused_before_it_is_parsed(session: Session, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(nbridge.NBridgeError, match=r"^the request has too many entries for this model of 21 elements in 3 modalities$"):
        requests.read(requests.Impute, LARGE[name], session.model)


def test_a_request_of_a_very_long_name_is_answered_in_a_short_line(session: Session):
    client = TestClient(make_app(session), base_url="http://127.0.0.1")
    name, cut = "a" * 2**20, "a" * 40 + "..."
    for question, line in (
        ({"given": {name: {"row": 1}}}, f"no modality '{cut}' in this model. {KNOWN}"),
        ({"given": {"y": {"values": [1, 2]}}, "show": {name: [0]}}, f"show: no modality '{cut}' in this model. {KNOWN}"),
        ({"given": {}, name: 1}, f"{cut}: unknown key '{cut}'. Known: show, seed, covariates, fixed, given"),
    ):
        answer = client.post(IMPUTE, json=question)
        assert (answer.status_code, answer.json()) == (422, {"error": line})


def test_wrong_entries_of_a_list_cost_one_mistake():
    for kind, question in (
        (requests.Impute, {"given": {"x": {"values": [""] * 5000}}}),
        (requests.Prior, {"show": {"x": [-1] * 50}}),
        (requests.Decode, {"point": ["", ""]}),
    ):
        with pytest.raises(ValidationError) as caught:
            kind.model_validate(question)
        assert caught.value.error_count() == 1


def test_fields_of_a_form_are_not_parsed(session: Session):
    form = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 100_000
    client = TestClient(make_app(session), base_url="http://127.0.0.1")
    answer = client.post(UPLOAD, content=form, headers={"content-type": "multipart/form-data; boundary=b"})
    assert (answer.status_code, answer.json()["error"][:35]) == (422, "image: the image cannot be read (no")


# Time

SHORT = Limits(request_seconds=0.3, body_seconds=0.3, response_seconds=0.3)


def trickle(client: socket.socket, data: bytes) -> float:
    """The seconds until a client that sends data again and again is cut off."""
    began = time.monotonic()
    with suppress(ConnectionError):
        while time.monotonic() < began + 10:
            client.sendall(data)
            time.sleep(0.02)
    return time.monotonic() - began


def test_a_client_that_never_ends_its_request_is_cut_off_however_it_goes_on(session: Session):
    with serving(session, SHORT) as server:
        starts = {
            "headers": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"a: b\r\n"),
            "a header": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", b"a"),
            "empty lines": (b"", b"\r\n"),
            "a body": (server.head(UPLOAD, content_length=10_000), b"a"),
            "chunks": (server.head(IMPUTE, transfer_encoding="chunked"), b"1\r\na\r\n"),
            "a body that nobody reads": (server.head("/", "GET", content_length=10_000), b"a"),
            "a body that is too large": (server.head(UPLOAD, content_length=2**40), bytes(10_000)),
            "the headers after an answer": (server.head("/api/spec", "GET") + b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
        }

        def cut_off(name: str) -> float:
            with server.connect() as client:
                client.sendall(starts[name][0])
                return trickle(client, starts[name][1])

        with ThreadPoolExecutor(len(starts)) as threads:
            found = dict(zip(starts, threads.map(cut_off, starts), strict=True))
        assert all(seconds < 3 for seconds in found.values()), found
        assert server.connections() == 0
        with server.connect() as client:
            assert everything(client) == b""


def test_a_body_that_is_late_is_told_so_in_a_line(session: Session):
    with serving(session, SHORT) as server, server.connect() as client:
        client.sendall(server.head(UPLOAD, content_length=10) + b"abc")
        assert answer_of(everything(client)) == (408, {"error": "the request took longer than 0.3 s to arrive"})


def test_a_client_that_does_not_read_its_answer_is_cut_off_and_one_that_reads_slowly_is_not():
    size = 2**24

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(size).encode())]})
        await send({"type": "http.response.body", "body": bytes(size)})

    with serving(app, Limits(request_seconds=0.1, response_seconds=0.3)) as server, server.connect() as client:
        client.sendall(server.head("/", "GET"))
        until(lambda: server.connections() == 1)
        until(lambda: server.connections() == 0, 3)
        assert len(everything(client)) < size
    with serving(app, Limits(request_seconds=0.1, response_seconds=5)) as server, server.connect() as client:
        client.sendall(server.head("/", "GET", connection="close"))
        time.sleep(0.4)
        assert len(everything(client)) > size


def test_an_answer_that_takes_longer_than_all_limits_is_given(session: Session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nbridge.explore.app.latent_map", lambda _: time.sleep(0.8) or {"slow": True})
    with serving(session, SHORT) as server:
        assert server.ask("/api/latent") == (200, {"slow": True})


# Number


def test_many_connections_are_few_and_the_page_is_still_served(session: Session):
    with serving(session, Limits(connections=8)) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(100)]
        for number, client in enumerate(clients):
            with suppress(ConnectionError):
                client.sendall((b"", b"GET /", server.head(UPLOAD, content_length=1000) + b"a")[number % 3])
        assert server.ask("/api/spec")[1]["title"] == "untrained"
        assert server.connections() <= 8
        until(lambda: len(readable(clients)) >= 92)


def test_the_page_is_served_while_an_answer_is_computed(session: Session, monkeypatch: pytest.MonkeyPatch):
    computing, end = threading.Event(), threading.Event()

    def slow(_: Session) -> dict[str, bool]:
        computing.set()
        return {"ended": end.wait(10)}

    monkeypatch.setattr("nbridge.explore.app.latent_map", slow)
    with serving(session, Limits(connections=3)) as server, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(server.ask, "/api/latent")
        assert computing.wait(10)
        with ExitStack() as stack:
            for _ in range(6):
                stack.enter_context(server.connect())
            with server.connect() as client:
                client.sendall(server.head("/explore.js", "GET", connection="close"))
                assert everything(client).startswith(b"HTTP/1.1 200")
        end.set()
        assert waiting.result() == (200, {"ended": True})


# Answers


def test_questions_at_the_same_time_among_clients_that_misbehave_get_what_the_library_gives(session: Session):
    rng = np.random.default_rng(0)
    given = [[round(float(value), 3) for value in row] for row in rng.normal(size=(40, 3))]

    def expected(seed: int) -> Any:
        row = Batch({"x": torch.tensor([given[seed]])}, {"x": torch.tensor([True])})
        draws = nbridge.Model(session.model).impute(row, samples=99, seed=seed).values["y"][:, 0].double()
        return draws.mean(0).tolist(), draws[:8].T.tolist()

    with serving(session) as server:

        def answer(seed: int) -> Any:
            with server.connect() as cut:
                cut.sendall(server.head(IMPUTE, content_length=100) + b'{"given": {"x": {"values": [9, 9, 9]}}')
            status, found = server.ask(IMPUTE, {"given": {"x": {"values": given[seed]}}, "seed": seed})
            assert status == 200
            return found["modalities"]["y"]["mean"], found["modalities"]["y"]["draws"]

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(answer, range(40)))
    for seed, (means, draws) in enumerate(answers):
        assert np.allclose(means, expected(seed)[0], rtol=2e-5, atol=1e-7)
        assert np.allclose(draws, expected(seed)[1], rtol=2e-5, atol=1e-7)


# The end


def test_the_server_ends_at_once_while_requests_hang():
    process = Started(explore_slowly)
    port = port_of(process)
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)) for _ in range(40)]
        hanging = [
            b"",
            b"GET / HT",
            head(port, UPLOAD, content_length=100) + b"a",
            head(port, IMPUTE, transfer_encoding="chunked") + b"5\r\nab",
            head(port, "/api/prior", content_length=2) + b"{}",
        ]
        for place, client in enumerate(clients):
            client.sendall(hanging[place % 5])
        time.sleep(0.2)
        process.send(signal.SIGTERM)
        # Eight answers of 0.4 s each are waited for.
        code, _, said = process.ended(timeout=3)
        assert (code, said) == (0, "")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_ends_the_server_unless_it_is_to_be_ignored(
    session: Session, ignored: bool, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else _stop)
    with bind(0) as listening, ThreadPoolExecutor(1) as threads:
        listening.listen()
        server = Server(make_app(session), Limits())
        served = Serving(server, listening.getsockname()[1])

        def hang_up() -> Any:
            with served.connect() as stuck:
                stuck.sendall(served.head(UPLOAD, content_length=100) + b"a")
                until(lambda: server.server_state.tasks)
                os.kill(os.getpid(), signal.SIGHUP)
                time.sleep(0.3)
                ended = server.should_exit
                server.should_exit = True
                return ended

        ended = threads.submit(hang_up)
        server.run(sockets=[listening])
        assert ended.result() is not ignored
    assert signal.signal(signal.SIGHUP, before) is (signal.SIG_IGN if ignored else _stop)
    assert capfd.readouterr() == ("", "")
    assert caplog.record_tuples == []


# Pages of other origins


@pytest.mark.parametrize("path", ["/", "/explore.js", "/api/spec", "/nothing"])
@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "anything"])
def test_requests_of_other_pages_without_an_origin_are_refused(session: Session, path: str, site: str):
    client = TestClient(make_app(session), base_url="http://127.0.0.1")
    for mode, target in (("no-cors", "image"), ("no-cors", "script"), ("navigate", "iframe"), ("cors", "empty")):
        answer = client.get(path, headers={"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": target})
        told = {"error": f"Sec-Fetch-Site {site!r}: requests from other pages are refused"}
        assert (answer.status_code, answer.json()) == (403, told)
    for own in ({}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}):
        assert client.get(path, headers=own).status_code == (404 if path == "/nothing" else 200)


def test_a_link_of_another_page_opens_the_page_and_nothing_else(session: Session):
    client = TestClient(make_app(session), base_url="http://127.0.0.1")
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=link).status_code == 200
    assert [client.get(path, headers=link).status_code for path in ("/api/spec", "/api/row/0", "/explore.js")] == [403] * 3
    assert client.post("/", headers=link).status_code == 403
    assert client.get("/", headers={**link, "host": "example.com"}).status_code == 403
    assert client.get("/", headers={**link, "origin": "http://example.com"}).status_code == 403


def test_of_several_values_none_may_be_foreign():
    host, own, foreign = (b"host", b"localhost"), (b"sec-fetch-site", b"same-origin"), (b"sec-fetch-site", b"cross-site")
    assert refusal([host, own]) is None
    assert refusal([host, own, foreign]) is not None
    assert refusal([host, foreign, own]) is not None
    assert refusal([own]) is not None
