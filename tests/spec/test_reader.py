"""Specs as text: where every mistake stands, assignments from the command line, and bad input of every kind."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawn_specs import SPECS
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from nbridge.errors import SpecError
from nbridge.spec.reader import parse_spec, read_spec, spec_from_dict, write_spec
from nbridge.spec.registry import BUILT_IN
from nbridge.spec.spec import Spec

LABEL = "modalities: {label: {shape: 10, encoder: mlp, likelihood: categorical}}\n"
KEYS = "spec_version, name, model, latent_dim, data, modalities, covariates, fusion, bridges, prior, training, tune"
ENCODERS = f"Known: {', '.join(sorted(BUILT_IN['encoders']))}. For your own class write 'package.module:Class'."
REPOSITORY = Path(__file__).parents[2]

BROKEN = """\
# every kind of mistake at once
name: broken
modle: bridged
latent_dim: "16"
modalities:
  top:    {shape: [1, 4, 8], encoder: {type: mpl, hidden: [128]}, likelihood: categorical}
  label:  {shape: 10, encoder: {type: mlp, hidden: [64, none]}, likelihoo: categorical}
  top: {}
  keys:
    shape: [4, 0]
    encoder: mlp
    likelihood: {type: normal, scale: -1}
training: {batch_size: , stages: {join: {epochs: 60}}}
"""
BROKEN_LINES = [
    f"3:1: modle: unknown key 'modle'. Did you mean 'model'? Known: {KEYS}",
    '4:13: latent_dim: expected an integer, got "16"',
    f"6:46: modalities.top.encoder.type: unknown encoder 'mpl'. Did you mean 'mlp'? {ENCODERS}",
    "6:79: modalities.top.likelihood: categorical supports shapes of one axis, the number of classes (2 or more); got [1, 4, 8]",
    "7:3: modalities.label: missing key 'likelihood'",
    '7:57: modalities.label.encoder.hidden.1: expected an integer, got "none"',
    "7:65: modalities.label.likelihoo: unknown key 'likelihoo'. Did you mean 'likelihood'? "
    "Known: columns, shape, encoder, decoder, likelihood, features, weight",
    "8:3: modalities.top: duplicate key 'top'; the first is in line 6",
    "9:3: modalities.keys: 'keys' is not a valid modality name: it is reserved for torch.nn.ModuleDict; use another, such as 'keys_1'",
    "10:16: modalities.keys.shape.1: expected a number above 0, got 0",
    "12:39: modalities.keys.likelihood.scale: expected 'learned', 'predicted' or a number above 0, got -1",
    "13:12: training.batch_size: expected an integer, got nothing",
    "13:35: training.stages.join: unknown stage 'join'. Did you mean 'joint'? Known: joint, bridges, subsets",
]


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "s.yaml", overrides)
    return caught.value.problems


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert caught.value.problems == [f"{path}:{line}" for line in BROKEN_LINES]


@given(SPECS)
def test_a_written_spec_reads_back_as_itself(document: dict[str, Any]) -> None:
    spec = spec_from_dict(document)
    text = write_spec(spec)
    assert parse_spec(text) == spec
    assert write_spec(parse_spec(text)) == text


@pytest.mark.parametrize("path", sorted((REPOSITORY / "modality_specs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_spec_holds(path: Path) -> None:
    spec = read_spec(path)
    assert parse_spec(write_spec(spec)) == spec


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("=", "="),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ('"a: b # c"', "a: b # c"),
        ("größe", "größe"),
    ],
)
def test_text_stays_text(text: str, value: str) -> None:
    assert parse_spec(f"{LABEL}name: {text}\n").name == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1.0e-3", 1e-3), ("1E-3", 1e-3), (".001", 1e-3), ("2", 2.0), ("+1", 1.0), ("1_0.5", 10.5), ("0x10", 16.0)],
)
def test_numbers_are_numbers(text: str, value: float) -> None:
    rate = parse_spec(f"{LABEL}training: {{learning_rate: {text}}}\n").training.learning_rate
    assert type(rate) is float
    assert rate == value


@pytest.mark.parametrize(
    ("text", "value"), [("010", 10), ("0o17", 15), ("0x1F", 31), ("1_000", 1000), ("-7", -7), (str(2**63 - 1), 2**63 - 1)]
)
def test_integers_are_those_of_yaml_1_2(text: str, value: int) -> None:
    assert parse_spec(f"{LABEL}training: {{seed: {text}}}\n").training.seed == value


def test_an_anchor_gives_a_copy() -> None:
    text = "modalities:\n  a: &part {shape: 2, encoder: mlp, likelihood: normal}\n  b: *part\n  c: {<<: *part}\n"
    assert problems(text) == [
        *(f"s.yaml:4:3: modalities.c: missing key '{key}'" for key in ("shape", "encoder", "likelihood")),
        "s.yaml:4:7: modalities.c: merge keys (<<) are not part of YAML 1.2; write the keys out",
    ]
    modalities = parse_spec(text.replace("  c: {<<: *part}\n", ""), overrides=["modalities.b.shape=3"]).modalities
    assert (modalities["a"].shape, modalities["b"].shape) == ((2,), (3,))


EMPTY = "empty spec; at least the key 'modalities' is required"
UNREADABLE = [
    ("", f"1:1: {EMPTY}"),
    ("# a comment\n\n# another\n", f"1:1: {EMPTY}"),
    ("---\n...\n", f"2:1: {EMPTY}"),
    ("null\n", f"1:1: {EMPTY}"),
    ("- a\n", "1:1: a spec must be a mapping, this is a list"),
    ("just text\n", "1:1: a spec must be a mapping, this is text"),
    ("\n3\n", "2:1: a spec must be a mapping, this is a number"),
    ("name: x\nmodalities:\n\tlabel: 1\n", "3:1: tab in the indentation; use spaces"),
    ("name: x\nmodalities:\n  \tlabel: 1\n", "3:3: tab in the indentation; use spaces"),
    ("name:\tx\n", "1:6: tab; use spaces"),
    ("name: [a, b\n", "2:1: not valid YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
    ("name: 'x\n", "2:1: not valid YAML: while scanning a quoted scalar, found unexpected end of stream"),
    ("a: b: c\n", "1:5: not valid YAML: mapping values are not allowed here"),
    ("a: *b\n", "1:4: not valid YAML: found undefined alias 'b'"),
    ("a: @b\n", "1:4: not valid YAML: while scanning for the next token, found character '@' that cannot start any token"),
    ("name: a\n---\nname: b\n", "2:1: a second document starts here; a spec is a single document"),
    ("%YAML 1.1\n---\nname: no\n", "1:1: YAML 1.1 is requested, but a spec is YAML 1.2; remove this line"),
    ("name: a\x00b\n", "1:8: the character U+0000 is not allowed in YAML"),
    ("a: &a [*a]\n", "1:7: a." + ".".join("0" * 50) + ": nested more than 50 levels deep"),
    ("[" * 5000, "1:1: nested more than 50 levels deep"),
]


@pytest.mark.parametrize(("text", "message"), UNREADABLE, ids=[repr(text[:20]) for text, _ in UNREADABLE])
def test_a_text_that_is_no_spec_is_one_clear_line(text: str, message: str) -> None:
    told = problems(text)
    assert len(told) == 1
    if "nested" not in message:
        assert told == [f"s.yaml:{message}"]
    else:
        assert told[0].startswith("s.yaml:1:")
        assert told[0].endswith("nested more than 50 levels deep")


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    (told,) = problems("\n".join(lines))
    assert told.endswith(": more than 100000 values; aliases of aliases grow fast")


def test_an_alias_to_a_long_list_as_the_key_of_every_entry_is_counted_each_time() -> None:
    lines = [f"a: &a [{', '.join(['x'] * 1000)}]"] + ["? *a\n: 1"] * 1000
    assert problems("\n".join(lines))[-1].endswith(": more than 100000 values; aliases of aliases grow fast")


FLAWS = [
    ("1: x", ["2:1: a key must be text, this is a number; put it in quotes"]),
    ("null: x", ["2:1: a key must be text, this is nothing; put it in quotes"]),
    ("true: x", ["2:1: a key must be text, this is true or false; put it in quotes"]),
    ("? [a]\n: x", ["2:3: a key must be text, this is a list"]),
    ("name: !person x", ["2:7: name: tags such as !person are not supported; write the plain value"]),
    (
        "name: !!python/name:os.system x",
        ["2:7: name: tags such as tag:yaml.org,2002:python/name:os.system are not supported; write the plain value"],
    ),
    ("latent_dim: !!int abc", ["2:13: latent_dim: 'abc' is not an integer, or too large"]),
    (f"latent_dim: {'9' * 5000}", [f"2:13: latent_dim: '{'9' * 40}...' is not an integer, or too large"]),
    (f"latent_dim: {2**63}", ["2:13: latent_dim: the number is outside the range of 64-bit integers"]),
    ("training: {learning_rate: !!float x}", ["2:27: training.learning_rate: 'x' is not a number"]),
    ("training: {learning_rate: 1e999}", ["2:27: training.learning_rate: expected a finite number, got .inf"]),
    ("training: {learning_rate: .NaN}", ["2:27: training.learning_rate: expected a finite number, got .nan"]),
    ('name: "\\ud800"', ["2:7: name: the text contains a null character or a surrogate"]),
    ("name: a\nname: b", ["3:1: name: duplicate key 'name'; the first is in line 2"]),
    ("fusion:", ["2:1: fusion: expected a type or a mapping with the key 'type', got nothing"]),
    ('"a\\nb": 1', [f"2:1: a?b: unknown key 'a?b'. Known: {KEYS}"]),
]


@pytest.mark.parametrize(("line", "messages"), FLAWS, ids=[line[:30] for line, _ in FLAWS])
def test_a_flaw_of_the_text_is_told_once_and_in_its_place(line: str, messages: list[str]) -> None:
    assert problems(f"{LABEL}{line}\n") == [f"s.yaml:{message}" for message in messages]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: \xff\n", "not UTF-8 text (byte 7 is 0xff)"),
        ("name: x\n".encode("utf-16"), "not UTF-8 text (byte 1 is 0xff)"),
        (b"\x89PNG\r\n\x1a\n", "not UTF-8 text (byte 1 is 0x89)"),
    ],
)
def test_a_file_that_is_no_text_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        read_spec(path)
    assert caught.value.problems == [f"{path}: {message}"]


def test_a_file_that_is_not_there_or_a_directory_is_one_clear_line(tmp_path: Path) -> None:
    for path, message in [(tmp_path / "none.yaml", "no such file"), (tmp_path, "is a directory, expected a YAML file")]:
        with pytest.raises(SpecError) as caught:
            read_spec(path)
        assert caught.value.problems == [f"{path}: {message}"]
    with pytest.raises(SpecError, match=r"^a\?b: cannot be read \(.*null.*\)$"):
        read_spec("a\0b")


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + LABEL.replace("\n", "\r\n").encode() + b"name: x\r\n")
    assert read_spec(path).name == "x"


@given(st.text(st.characters(exclude_categories=()), max_size=60) | st.text("abc:-?[]{}&*!|>'\"%@`#, \n\t<=~0123456789.", max_size=60))
@example("%YAML 1.2\n---\na: 1")
@example("? \n")
@example("!")
@example("a: |9\n x")
@example("%TAG ! x\n%TAG ! x\n---\na")
def test_no_text_ends_in_anything_but_clear_lines(text: str) -> None:
    for line in problems(text):
        assert line.startswith("s.yaml:")
        assert len(line.splitlines()) == 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
    | st.just("mlp"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "shape", "hidden", "objective", "stages", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = st.sampled_from(
    [
        "name",
        "model",
        "latent_dim",
        "data",
        "data.source",
        "modalities",
        "modalities.a",
        "modalities.label.shape",
        "modalities.label.encoder",
        "modalities.label.encoder.hidden",
        "modalities.label.decoder",
        "modalities.label.likelihood",
        "modalities.label.weight",
        "fusion",
        "bridges",
        "bridges.objective",
        "bridges.combine",
        "training",
        "training.stages",
        "training.stages.joint",
        "training.patience",
        "spec_version",
    ]
)


@given(PLACES, JSON)
def test_no_value_in_any_place_ends_in_anything_but_clear_lines(place: str, value: object) -> None:
    told, spec = _told_or_read(f"{place}={_flow(value)}")
    assert all(line.startswith("--set ") and len(line.splitlines()) == 1 for line in told)
    assert spec is None or parse_spec(write_spec(spec)) == spec
    assert bool(told) == (spec is None)


def _told_or_read(assignment: str) -> tuple[list[str], Spec | None]:
    try:
        return [], parse_spec(LABEL, overrides=[assignment])
    except SpecError as error:
        return error.problems, None


def _flow(value: object) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()


def test_reading_a_spec_imports_no_torch() -> None:
    script = """
import sys
from nbridge.errors import SpecError
from nbridge.spec.reader import parse_spec, write_spec
from nbridge.spec.json_schema import schema_text
schema_text()
good = "modalities: {image: {shape: [1, 8, 8], encoder: conv, likelihood: normal, decoder: conv}}"
for source in ("digits", "mnist", "fashion_mnist", "mnist_fashion", "polymnist", "memory"):
    write_spec(parse_spec(good, overrides=[f"data={source}"]))
try:
    parse_spec(good, overrides=["modalities.image.encoder=mpl", "training.seed=x"])
except SpecError as error:
    assert len(error.problems) == 2
    print([name for name in ("torch", "numpy", "sklearn", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"


def _work(count: int, text: Callable[[int], str]) -> int:
    """The number of calls that it takes to name so many mistakes."""
    calls = 0

    def called(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(called)
    try:
        with pytest.raises(SpecError) as error:
            parse_spec(text(count))
    finally:
        sys.setprofile(None)
    assert len(error.value.problems) >= count
    return calls


@pytest.mark.parametrize(
    "text",
    [
        lambda count: LABEL + "".join(f"wrong{place}: {place}\n" for place in range(count)),
        lambda count: LABEL + "latent_dim: 2\n" * (count + 1),
        lambda count: LABEL.replace("mlp", f"{{type: mlp, hidden: [{', '.join(['a'] * count)}]}}"),
        lambda count: LABEL + f"data: {{source: table, path: x.csv, classes: {{{', '.join(f'c{place}: 3' for place in range(count))}}}}}",
        lambda count: "modalities:\n" + "".join(f"  m{place}: {{shap: 4, encoder: mlpp, likelihood: 3}}\n" for place in range(count)),
    ],
    ids=["keys", "duplicates", "list", "mapping", "modalities"],
)
def test_work_grows_with_the_number_of_mistakes_and_not_with_its_square(text: Callable[[int], str]):
    _work(10, text)
    assert _work(240, text) < 2.5 * _work(120, text)
