"""Texts: densities against enumeration, padding that nothing depends on, draws and estimates that are texts, and vocabularies."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import nbridge
from nbridge.common.vocabulary import END, PAD, SPECIAL, UNKNOWN, Bytes, TokenList, learned_tokens, make_vocabulary, padded
from nbridge.errors import SpecError
from nbridge.inference.free import fit_marginal
from nbridge.nn.decoders import Decoder
from nbridge.nn.text import TextDecoder, TextEncoder
from nbridge.nn.text_distributions import ParallelText, ended
from nbridge.nn.text_likelihood import Text
from nbridge.spec.option_types import TextOrder
from nbridge.testing import check_encoder, check_likelihood, check_model

ORDERS: tuple[TextOrder, ...] = ("parallel", "autoregressive")
LETTERS = ("a", "b")


def every_text(places: int, letters: int = len(LETTERS)) -> Tensor:
    """All texts of at most ``places`` tokens with their end, unknown tokens included."""
    tokens = range(UNKNOWN, SPECIAL + letters)
    lengths = range(1, places)
    return torch.tensor([padded(text, places) for length in lengths for text in itertools.product(tokens, repeat=length)])


def likelihood(order: TextOrder, places: int = 4, letters: tuple[str, ...] = LETTERS) -> Text:
    torch.manual_seed(0)
    return Text((places,), vocabulary=letters, order=order, width=8)


@pytest.mark.parametrize("order", ORDERS)
def test_parts_meet_the_requirements_of_the_library(order: TextOrder):
    check_likelihood(likelihood(order))
    check_likelihood(likelihood(order, 2))


@pytest.mark.parametrize(("kind", "pooling"), [*itertools.product(("conv", "transformer"), ("mean", "attention"))])
def test_encoders_meet_the_requirements_of_the_library(kind: str, pooling: str):
    rows = torch.tensor([[5, 4, 1, 0, 0, 0], [3, 1, 0, 0, 0, 0], [0] * 6, [3, 3, 3, 3, 3, 1]]).float()
    spec = {"shape": 6, "encoder": {"type": "text", "kind": kind, "pooling": pooling, "width": 6}, "likelihood": "text"}
    model = nbridge.build_model(nbridge.Spec.model_validate({"modalities": {"t": spec}, "model": "vae"}))
    encoder = model.encoders["t"]
    assert isinstance(encoder, TextEncoder)
    check_encoder(encoder, (6,), rows)
    check_encoder(encoder, (6,))


@pytest.mark.parametrize(("order", "kind"), [*itertools.product(ORDERS, ("conv", "transformer"))])
def test_a_model_of_texts_meets_the_requirements_of_the_library(order: str, kind: str):
    text = {
        "shape": 5, "encoder": {"type": "text", "kind": kind, "width": 8, "layers": 1}, "features": 8,
        "likelihood": {"type": "text", "vocabulary": ["a", "b"], "order": order, "width": 8},
    }  # fmt: skip
    other = {"shape": 3, "encoder": {"type": "mlp", "hidden": [8]}, "likelihood": "normal", "features": 8}
    check_model(nbridge.build_model(nbridge.Spec.model_validate({"latent_dim": 4, "modalities": {"text": text, "x": other}})))


@pytest.mark.parametrize("order", ORDERS)
def test_the_probabilities_of_all_texts_sum_to_one(order: TextOrder):
    one, texts = likelihood(order), every_text(4)
    raw = 2 * torch.randn(3, 1, *one.raw_shape)
    found = one.log_prob(raw.expand(3, len(texts), *one.raw_shape), texts)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(3))


@pytest.mark.parametrize("order", ORDERS)
def test_draws_have_the_frequencies_of_their_probabilities(order: TextOrder):
    one, texts = likelihood(order, 3), every_text(3)
    distribution = one(torch.randn(1, *one.raw_shape))
    draws = distribution.sample((4000,))[:, 0]
    expected = distribution.log_prob(texts).exp() if order == "parallel" else one(one_raw(distribution, len(texts))).log_prob(texts).exp()
    seen = torch.stack([(draws == text).all(1).double().mean() for text in texts])
    assert seen.sum() == 1
    assert (seen - expected).abs().max() < 4 * math.sqrt(0.25 / 4000)


def one_raw(distribution: object, rows: int) -> Tensor:
    """The raw parameters behind a recurrent text of one row, for several rows; its state is bounded by tanh."""
    context, state = distribution.context, distribution.state  # type: ignore[attr-defined]
    return torch.cat([context, state.atanh()], -1).expand(rows, -1)


def test_a_parallel_mode_is_the_most_probable_text():
    one, texts = likelihood("parallel"), every_text(4)
    for seed in range(20):
        raw = 2 * torch.randn(1, *one.raw_shape, generator=torch.Generator().manual_seed(seed))
        scores = one.log_prob(raw.expand(len(texts), *one.raw_shape), texts)
        assert torch.equal(one(raw).mode[0], texts[scores.argmax()])


@pytest.mark.parametrize("order", ORDERS)
def test_the_estimate_is_the_candidate_with_the_highest_probability_over_samples(order: TextOrder):
    one = likelihood(order)
    raw = 2 * torch.randn(5, 3, *one.raw_shape)
    distribution = one(raw)
    estimate = one.estimate(distribution)
    candidates = [*distribution.mode]
    scores = torch.stack([distribution.log_prob(one_text).logsumexp(0) for one_text in candidates])
    best = torch.stack([candidates[int(place)][row] for row, place in enumerate(scores.argmax(0))])
    assert torch.equal(estimate, best)


@pytest.mark.parametrize("order", ORDERS)
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_what_follows_the_end_does_not_matter(order: TextOrder, data: st.DataObject):
    one = likelihood(order, 6)
    tokens = st.integers(UNKNOWN, SPECIAL + len(LETTERS) - 1)
    text = data.draw(st.lists(tokens, min_size=1, max_size=5))
    tail = data.draw(st.lists(st.integers(0, SPECIAL + len(LETTERS) - 1), min_size=5, max_size=5))
    clean, dirty = torch.tensor([padded(text, 6)]), torch.tensor([[*text, END, *tail][:6]])
    assert torch.equal(one.canonical(dirty), clean)
    encoder = TextEncoder((6,), 4, tokens=one.tokens).eval()
    assert torch.equal(encoder(one.standardize(one.canonical(dirty))), encoder(one.standardize(clean)))
    raw = torch.randn(2, 1, *one.raw_shape)
    assert torch.equal(one.log_prob(raw, one.canonical(dirty)), one.log_prob(raw, clean))


def test_padding_does_not_change_the_features_of_a_text():
    encoder, longer = TextEncoder((4,), 8, tokens=9).eval(), TextEncoder((7,), 8, tokens=9).eval()
    state = encoder.state_dict()
    state["places"] = torch.cat([state["places"], torch.randn(3, 64)])
    longer.load_state_dict(state)
    text = torch.tensor([[3.0, 5, 1, 0]])
    torch.testing.assert_close(encoder(text), longer(torch.nn.functional.pad(text, (0, 3))))


@pytest.mark.parametrize("order", ORDERS)
def test_gradients_reach_z_and_all_weights(order: TextOrder):
    one = likelihood(order)
    decoder = Decoder(TextDecoder(4, one.raw_shape, width=8, hidden=8), one)
    z = torch.randn(2, 6, 4, requires_grad=True)
    decoder.log_prob(z, every_text(4)[-6:]).sum().backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0
    assert all(weight.grad is not None for weight in decoder.parameters())


def test_the_temperature_of_parallel_texts_flattens_them():
    one = likelihood("parallel")
    one.spread = torch.tensor([1.0, 50.0])
    raw = 5 * torch.randn(1, 2, *one.raw_shape)
    sharp, flat = one.served(raw, torch.tensor([0, 1])).log_probs[0].exp().amax(-1)  # type: ignore[attr-defined]
    assert (flat[1:-1] < 0.3).all()
    torch.testing.assert_close(sharp, ParallelText(raw).log_probs[0, 0].exp().amax(-1))


def test_the_free_baseline_has_the_frequencies_of_each_place():
    one = likelihood("autoregressive", 3)
    x = torch.tensor([[3, 1, 0]] * 30 + [[4, 3, 1]] * 10)
    marginal = fit_marginal(one, x)
    found = marginal.log_prob(torch.tensor([[3, 1, 0], [4, 3, 1]])).exp()
    torch.testing.assert_close(found, torch.tensor([0.75 * 0.75, 0.25 * 0.25], dtype=torch.float64), rtol=0.03, atol=0)


def test_texts_match_but_for_blanks_around_them():
    one = Text((8,), vocabulary=(" ", "a", "b"))
    form = one.vocabulary
    rows = torch.tensor([padded(form.numbers(text), 8) for text in ("  ab", "ab   ", "a b", "  a b ", " ba")])
    assert one.matches(rows, rows[:1].expand_as(rows)).tolist() == [True, True, False, False, False]
    assert one.matches(rows[[2]], rows[[3]]).tolist() == [True]
    shares = one.right_tokens(rows, rows[:1].expand_as(rows))
    torch.testing.assert_close(shares, torch.tensor([1.0, 1.0, 0.5, 0.5, 1 / 3]))


def test_all_texts_that_are_ended_are_canonical():
    texts = every_text(4)
    assert torch.equal(ended(texts), texts)
    assert torch.equal(ended(texts.double()), texts)


TEXTS = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=20)


@given(st.lists(TEXTS, min_size=1, max_size=5))
@settings(max_examples=50)
def test_texts_of_characters_and_bytes_come_back(texts: list[str]):
    characters = TokenList("characters", learned_tokens("characters", texts, 1000))
    for vocabulary in (characters, Bytes()):
        for text in texts:
            numbers = vocabulary.numbers(text)
            assert max(numbers) < len(vocabulary)
            again = vocabulary.text([*numbers, END, PAD])
            assert vocabulary.numbers(again) == numbers
            assert again == vocabulary.text(vocabulary.numbers(again))


@given(st.lists(TEXTS, min_size=1, max_size=5))
@settings(max_examples=50)
def test_words_come_back_as_the_same_words(texts: list[str]):
    vocabulary = TokenList("words", learned_tokens("words", texts, 1000))
    for text in texts:
        numbers = vocabulary.numbers(text)
        assert UNKNOWN not in numbers
        if not any(character in text for character in "'\u2019-"):
            assert vocabulary.numbers(vocabulary.text(numbers)) == numbers


def test_plain_sentences_of_words_come_back_as_they_were():
    text = "A young woman (smiling), with black hair; isn't it?"
    vocabulary = TokenList("words", learned_tokens("words", [text], 100))
    assert vocabulary.text(vocabulary.numbers(text)) == text


def test_a_vocabulary_has_the_most_frequent_tokens_and_a_limit():
    assert learned_tokens("characters", ["abca", "b"], 2) == ("a", "b")
    assert learned_tokens("bytes", ["abca"], 2) == ()
    vocabulary = TokenList("characters", "ab")
    assert vocabulary.text(vocabulary.numbers("abc")) == "ab\ufffd"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary": ["a", "a"]}, "appears twice"),
        ({"vocabulary": ["a", ""]}, "is empty"),
        ({"tokens": "bytes", "vocabulary": ["a"]}, "bytes needs none"),
        ({"tokenizer": "nothing.json"}, "cannot be read"),
        ({"tokenizer": "{}"}, "needs the package tokenizers|not the tokenizer.json"),
        ({"tokens": "letters"}, "characters"),
        ({"order": "backwards"}, "parallel"),
    ],
)
def test_a_wrong_vocabulary_is_one_line(options: dict[str, object], message: str):
    spec = {"modalities": {"t": {"shape": 5, "encoder": "text", "likelihood": {"type": "text", **options}}}, "model": "vae"}
    with pytest.raises((SpecError, ValueError), match=message):
        nbridge.build_model(nbridge.spec.reader.spec_from_dict(spec))


def test_a_shape_that_no_text_fits_is_refused():
    for shape in (1, [2, 3], 5000):
        spec = {"modalities": {"t": {"shape": shape, "encoder": "text", "likelihood": "text"}}, "model": "vae"}
        with pytest.raises(SpecError, match="shapes of one axis, the most tokens of a text"):
            nbridge.spec.reader.spec_from_dict(spec)


def test_bytes_need_no_data_and_have_all_tokens():
    assert len(make_vocabulary("bytes")) == SPECIAL + 256


def test_a_tokenizer_file_is_kept_with_the_model(tmp_path: Path):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "cat": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(tmp_path / "tokenizer.json"))
    text = {"shape": 5, "encoder": "text", "likelihood": {"type": "text", "tokenizer": str(tmp_path / "tokenizer.json")}}
    number = {"shape": 2, "encoder": "mlp", "likelihood": "normal"}
    spec = {"modalities": {"t": text, "x": number}, "training": {"stages": {"joint": {"updates": 2}, "bridges": {"updates": 2}}}}
    data = {"t": ["a cat", "cat", "a", "a cat a"] * 10, "x": torch.randn(40, 2)}
    nbridge.train(spec, data, out=tmp_path / "run")
    (tmp_path / "tokenizer.json").unlink()
    model = nbridge.load(tmp_path / "run" / "model")
    done = model.impute({"t": ["a cat", None], "x": torch.randn(2, 2)})
    assert done["t"][0] == "a cat"
    assert {*done["t"][1].split()} <= {"a", "cat", "[UNK]", ""}
