"""Text as a modality: MNIST images, their spelt-out names at a random place in a line, and their labels, in our default, JMVAE and MVAE.

    python -m benchmarks.mnist_text [--systems bridged,jmvae,mvae] [--seeds 3] [--rows 12000] [--updates 2400] [--table]

writes benchmarks/results/mnist_text.json, one run at a time, and a table in benchmarks/README.md. Protocol:
modality_specs/mnist_text.yaml with the first rows of MNIST and the same number of updates for every system, in one stage or divided among
two. On 1,000 test rows: "word" is the share of texts whose point estimate is the digit's name, at whatever place; "image" the share of ten
images a row, drawn from the posterior, in which a classifier sees the row's digit; log-likelihoods are predictive, log 1/K sum p(x | z_k)
with K = 200, in nats of a row. Of a text, 1.6 nats are the place of the word, which neither image nor label tells.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from time import process_time

import nbridge
from benchmarks.readme import replace_section, spread
from nbridge.evaluation.classifiers import ScoredClassifier, train_classifiers
from nbridge.evaluation.coherence import coherence
from nbridge.evaluation.crossmodal import predict
from nbridge.spec.reader import read_spec, spec_from_dict
from nbridge.spec.spec import Spec

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "modality_specs" / "mnist_text.yaml"
RESULT = ROOT / "benchmarks" / "results" / "mnist_text.json"
TEST_ROWS, SAMPLES, DRAWS = 1000, 200, 10
SYSTEMS = {"bridged": "bridged (default)", "jmvae": "JMVAE", "mvae": "MVAE"}
QUESTIONS = (("text", "image"), ("text", "label"), ("image", "text"), ("image", "label"), ("label", "text"), ("label", "image"))
"""A target, and the modality that it is imputed from."""


def spec_of(system: str, rows: int, updates: int, seed: int, changes: tuple[str, ...] = ()) -> Spec:
    """The spec of a system; with two stages each has half of the updates."""
    spec = read_spec(SPEC, changes).as_dict()
    stages = ("joint", "bridges") if system == "bridged" else ("joint",)
    spec["model"], spec["data"]["rows"] = {"type": system}, rows
    if system != "bridged":
        del spec["bridges"]
    spec["training"] = {
        "batch_size": 128, "seed": seed, "calibrate": True, "stages": {stage: {"updates": updates // len(stages)} for stage in stages},
    }  # fmt: skip
    return spec_from_dict(spec)


def measure(spec: Spec) -> dict[str, float]:
    """The figures of one run."""
    start = process_time()
    run = nbridge.train(spec)
    seconds = process_time() - start
    assert run.splits.test is not None
    model, rows, train = run.model.network, run.splits.test.sample(TEST_ROWS), run.splits.train.sample()
    judge: ScoredClassifier = train_classifiers(run.spec, model, train, rows, "label", epochs=5)["image"]
    figures = {"seconds": seconds, "judge": judge.accuracy}
    for target, given in QUESTIONS:
        done = predict(model, rows, (given,), target, samples=SAMPLES)
        figures[f"LL {target} from {given}"] = done.log_likelihood
        if done.accuracy is not None:
            figures[f"{target} from {given}"] = done.accuracy
        else:
            figures[f"{target} from {given}"] = coherence(model, rows, (given,), target, "label", judge.classifier, samples=DRAWS).coherence
    return figures


def table(results: dict[str, dict[str, float]]) -> str:
    """All figures, as means over seeds."""
    systems = [name for name in SYSTEMS if any(key.startswith(f"{name} ") for key in results)]
    runs = {name: [figures for key, figures in results.items() if key.startswith(f"{name} ")] for name in systems}
    lines = ["| mean ± sd over seeds | " + " | ".join(f"{SYSTEMS[name]} ({len(runs[name])})" for name in systems) + " |"]
    lines.append("|---" * (len(systems) + 1) + "|")
    for key in next(iter(results.values())):
        form = ".2f" if key.startswith("LL") else ".0f" if key == "seconds" else ".3f"
        lines.append(f"| {_named(key)} | " + " | ".join(spread([run[key] for run in runs[name]], form) for name in systems) + " |")
    return "\n".join(lines)


def _named(key: str) -> str:
    """The words for a figure."""
    known = {"seconds": "CPU seconds of training", "judge": "classifier's accuracy on real images"}
    if key in known:
        return known[key]
    if key.startswith("LL "):
        return f"log p({key[3:].replace(' from ', ' given ')})"
    what = {"text": "word", "image": "image", "label": "label"}[key.split(maxsplit=1)[0]]
    return f"{what} from {key.rsplit(maxsplit=1)[-1].replace('text', 'word')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--updates", type=int, default=2400)
    parser.add_argument("--set", dest="changes", action="append", default=[], help="a change of the spec, KEY=VALUE")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    results: dict[str, dict[str, float]] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    for seed in () if options.table else range(options.first, options.first + options.seeds):
        for system in options.systems.split(","):
            spec = spec_of(system, options.rows, options.updates, seed, tuple(options.changes))
            results[f"{system} {seed}"] = figures = measure(spec)
            print(system, seed, {key: round(value, 3) for key, value in figures.items()}, flush=True)
            options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    accuracy = [figures["text from image"] for key, figures in results.items() if key.startswith("bridged")]
    print(f"word from image, default: {mean(accuracy):.3f}" if accuracy else "")
    if options.out == RESULT:
        replace_section("mnist_text", table(results))


if __name__ == "__main__":
    main()
