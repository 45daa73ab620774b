"""Response time of `nbridge explore`, from the request to the last byte of the response, over a real socket.

    python -m benchmarks.explore [--questions 200] [--runs digits,mfeat]

writes benchmarks/results/explore.json and a table in benchmarks/README.md. Models of shipped specs, trained for an epoch a stage (time does
not depend on the weights), on one thread, served in this process by the server that the command has. A question gives values of a test row
as the page sends them, another row each time; the response has the first page of every absent vector. Two kinds take turns over the
modalities: one modality given, and all but one.
"""

from __future__ import annotations

import argparse
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
import uvicorn

import nbridge
from benchmarks.readme import replace_section
from nbridge.explore.app import make_app, warm_up
from nbridge.explore.inputs import row_of
from nbridge.explore.server import HOST, bind
from nbridge.explore.session import Session, session_of

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "explore.json"
QUICK = ("training.stages.joint.epochs=1", "training.stages.bridges.epochs=1")


@contextmanager
def served(session: Session) -> Iterator[http.client.HTTPConnection]:
    """A connection to a server of the session, which runs in a thread."""
    with bind(0) as listening:
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(make_app(session), http="h11", ws="none", lifespan="off", log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        connection = http.client.HTTPConnection(HOST, listening.getsockname()[1])
        try:
            yield connection
        finally:
            connection.close()
            server.should_exit = True
            thread.join()


def questions(session: Session, number: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests by kind, each about another row."""
    assert session.rows is not None
    names = session.model.names
    for turn in range(number):
        values = row_of(session, turn % len(session.rows))["values"]
        name = names[turn // 2 % len(names)]
        kind, given = ("one given", [name]) if turn % 2 else ("all but one given", [other for other in names if other != name])
        yield kind, {"given": {other: values[other] for other in given if values[other] is not None}, "seed": turn}


def measure(name: str, number: int) -> dict[str, Any]:
    """Milliseconds of each kind."""
    run = nbridge.train(HERE.parent / "modality_specs" / f"{name}.yaml", overrides=QUICK)
    torch.set_num_threads(1)
    session = session_of(run)
    warm_up(session)
    took: dict[str, list[float]] = {}
    size = 0
    with served(session) as connection:
        # The first requests warm up the connection and the model's thread.
        for turn, (kind, question) in enumerate([*questions(session, 8), *questions(session, number)]):
            body = json.dumps(question)
            started = time.perf_counter()
            connection.request("POST", "/api/impute", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            seconds = time.perf_counter() - started
            assert answer.status == 200, content
            if turn >= 8:
                took.setdefault(kind, []).append(1000 * seconds)
                size = max(size, len(content))
    figures = {kind: {"median": median(times), "95 %": quantiles(times, n=20)[-1]} for kind, times in took.items()}
    return {"milliseconds": figures, "largest answer, bytes": size}


def table(results: dict[str, Any]) -> str:
    lines = [
        f"1 thread, {results['questions']:,} questions each, milliseconds from the question to the last byte of the answer:",
        "",
        "| run | question | median | 95th percentile |",
        "|---|---|---|---|",
    ]
    for name, run in results["runs"].items():
        lines += [f"| {name} | {kind} | {took['median']:.1f} | {took['95 %']:.1f} |" for kind, took in run["milliseconds"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--runs", default="digits,mfeat")
    parser.add_argument("--dry", action="store_true", help="print the table and write nothing")
    options = parser.parse_args()
    runs = {name: measure(name, options.questions) for name in options.runs.split(",")}
    results = {"questions": options.questions, "runs": runs}
    print(table(results))
    if not options.dry:
        RESULT.write_text(json.dumps(results, indent=1) + "\n")
        replace_section("explore", table(results))


if __name__ == "__main__":
    main()
