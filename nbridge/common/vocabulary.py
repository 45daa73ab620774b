r"""Vocabularies: texts as sequences of token numbers, and back.

Number 0 pads a sequence, 1 ends it, 2 stands for any token that the vocabulary lacks; the tokens of the vocabulary follow. A text is a
sequence of at least one token and its end.
"""

from __future__ import annotations

import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from nbridge.common.messages import clip, quoted
from nbridge.errors import DataError, SpecError

PAD, END, UNKNOWN = 0, 1, 2
"""The numbers of the padding, of the end of a text, and of any token that is not in the vocabulary."""
SPECIAL = 3
"""The number of the first token of a vocabulary."""
REPLACEMENT = "\ufffd"
"""How an unknown token is written."""
MOST_TOKENS = 32_768
"""The most tokens of a vocabulary: each has weights of its own, and a probability at every place of a text."""
LONGEST_TEXT = 4096
"""The most tokens of a text."""

TokenKind = Literal["characters", "words", "bytes"]
ASCII = tuple(map(chr, range(32, 127)))
"""The tokens of characters before any data are seen."""
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")
_TIGHT_LEFT, _TIGHT_RIGHT = frozenset(".,;:!?)]}%\u2019"), frozenset("([{")
"""Signs without a space before, or after them."""


class Vocabulary(ABC):
    """Texts as token numbers.

    Attributes:
        unit: What a token is called in messages, in the plural.
    """

    unit: str

    @abstractmethod
    def __len__(self) -> int:
        """The number of tokens, those for padding, the end and unknown tokens included."""

    @abstractmethod
    def numbers(self, text: str) -> list[int]:
        """The token numbers of a text, without its end."""

    @abstractmethod
    def text(self, numbers: Sequence[int]) -> str:
        """The text of token numbers, up to the end or the padding."""

    @property
    @abstractmethod
    def widest(self) -> int:
        """The most characters that a token adds to a text."""

    @property
    def blank(self) -> int | None:
        """The number of the token of a single blank, if there is one."""
        return None


class TokenList(Vocabulary):
    """A vocabulary of characters or words.

    Arguments:
        kind: What a token is.
        tokens: The tokens, in order.

    Raises:
        SpecError: if a token appears twice or is empty.

    Example:
        >>> vocabulary = TokenList("words", ["a", "cat"])
        >>> vocabulary.numbers("a black cat"), vocabulary.text([3, 4, 1, 0])
        ([3, 2, 4], 'a cat')
    """

    def __init__(self, kind: Literal["characters", "words"], tokens: Iterable[str]) -> None:
        self.kind: TokenKind = kind
        self.unit = kind
        self.tokens = tuple(tokens)
        self._number = {token: number for number, token in enumerate(self.tokens, start=SPECIAL)}
        if len(self._number) < len(self.tokens):
            raise SpecError([f"vocabulary: token {quoted(Counter(self.tokens).most_common(1)[0][0])} appears twice"])
        if "" in self._number:
            raise SpecError(["vocabulary: a token is empty, expected at least one character in each"])

    def __len__(self) -> int:
        return SPECIAL + len(self.tokens)

    def numbers(self, text: str) -> list[int]:
        return [self._number.get(token, UNKNOWN) for token in split(self.kind, text)]

    def text(self, numbers: Sequence[int]) -> str:
        tokens = [REPLACEMENT if number == UNKNOWN else self.tokens[number - SPECIAL] for number in until_end(numbers)]
        return "".join(tokens) if self.kind == "characters" else _spaced(tokens)

    @property
    def widest(self) -> int:
        return max((len(token) for token in self.tokens), default=1) + (self.kind == "words")

    @property
    def blank(self) -> int | None:
        return self._number.get(" ")


class Bytes(Vocabulary):
    """The bytes of UTF-8, which need no data: every text is known.

    Example:
        >>> Bytes().text(Bytes().numbers("h\u00e9"))
        'h\u00e9'
    """

    unit = "bytes"

    def __len__(self) -> int:
        return SPECIAL + 256

    def numbers(self, text: str) -> list[int]:
        return [SPECIAL + byte for byte in _composed(text).encode("utf-8", "replace")]

    def text(self, numbers: Sequence[int]) -> str:
        known = [number - SPECIAL for number in until_end(numbers) if number >= SPECIAL]
        return bytes(known).decode("utf-8", "replace")

    @property
    def widest(self) -> int:
        return 1

    @property
    def blank(self) -> int | None:
        return SPECIAL + ord(" ")


class TokenizerFile(Vocabulary):
    """The vocabulary of a ``tokenizer.json`` of the package tokenizers.

    Arguments:
        content: The content of the file.

    Raises:
        SpecError: if the package is missing, the content is no tokenizer, or has too many tokens.
    """

    unit = "tokens"

    def __init__(self, content: str) -> None:
        try:
            from tokenizers import Tokenizer  # pyright: ignore[reportMissingImports] (an extra)
        except ImportError as error:
            raise SpecError(["likelihood.tokenizer needs the package tokenizers: pip install 'nbridge[text]'"]) from error
        try:
            self._tokenizer: Any = Tokenizer.from_str(content)
        # The package raises plain exceptions.
        except Exception as error:
            raise SpecError([f"likelihood.tokenizer: not the tokenizer.json of the package tokenizers ({clip(error, 100)})"]) from error
        if (count := self._tokenizer.get_vocab_size()) > MOST_TOKENS:
            raise SpecError([f"likelihood.tokenizer: {count:,} tokens, expected at most {MOST_TOKENS:,}"])

    def __len__(self) -> int:
        return SPECIAL + self._tokenizer.get_vocab_size()

    def numbers(self, text: str) -> list[int]:
        return [SPECIAL + number for number in self._tokenizer.encode(text, add_special_tokens=False).ids]

    def text(self, numbers: Sequence[int]) -> str:
        return self._tokenizer.decode([number - SPECIAL for number in until_end(numbers) if number >= SPECIAL])

    @property
    def widest(self) -> int:
        return max((len(token) for token in self._tokenizer.get_vocab()), default=1) + 1


def learned_tokens(kind: TokenKind, texts: Iterable[str], most: int) -> tuple[str, ...]:
    """The most frequent tokens of some texts, at most ``most`` of them, the most frequent first; none for bytes.

    Example:
        >>> learned_tokens("words", ["a cat", "a dog"], 2)
        ('a', 'cat')
    """
    if kind == "bytes":
        return ()
    counts = Counter(token for text in texts for token in split(kind, text))
    return tuple(sorted(counts, key=lambda token: (-counts[token], token))[:most])


def make_vocabulary(kind: TokenKind, tokens: Iterable[str] | None = None, tokenizer: str | None = None) -> Vocabulary:
    """A vocabulary by the options of a spec: the content or the path of a tokenizer, else tokens of a kind.

    Without tokens, those of characters are the printable ones of ASCII, and there are none of words.

    Raises:
        SpecError: if options contradict each other, or the tokenizer cannot be read.
    """
    if tokenizer is not None:
        return TokenizerFile(tokenizer_content(tokenizer))
    if kind == "bytes":
        if tokens:
            raise SpecError(["likelihood.vocabulary: tokens: bytes needs none; leave it out"])
        return Bytes()
    if kind not in get_args(TokenKind):
        raise SpecError([f"likelihood.tokens: {quoted(str(kind))}, expected one of {', '.join(get_args(TokenKind))}"])
    known = (ASCII if kind == "characters" else ()) if tokens is None else tuple(tokens)
    if len(known) > MOST_TOKENS:
        raise SpecError([f"likelihood.vocabulary: {len(known):,} tokens, expected at most {MOST_TOKENS:,}"])
    return TokenList(kind, known)


def tokenizer_content(tokenizer: str) -> str:
    """The content of a tokenizer file, which is given by its path or by the content itself.

    Raises:
        SpecError: if the file cannot be read, or is not JSON.
    """
    if tokenizer.lstrip().startswith("{"):
        return tokenizer
    try:
        content = Path(tokenizer).read_text(encoding="utf-8")
        json.loads(content)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "not JSON"
        raise SpecError([f"likelihood.tokenizer: {clip(tokenizer)} cannot be read ({reason})"]) from error
    return content


def split(kind: TokenKind, text: str) -> list[str]:
    """The tokens of a text, accents composed: its characters, or its words and signs.

    Example:
        >>> split("words", "a cat, isn't it?")
        ['a', 'cat', ',', "isn't", 'it', '?']
    """
    composed = _composed(text)
    return _WORD.findall(composed) if kind == "words" else list(composed)


def until_end(numbers: Sequence[int]) -> list[int]:
    """The token numbers before the end or the padding.

    Example:
        >>> until_end([5, 3, 1, 0])
        [5, 3]
    """
    found: list[int] = []
    for number in numbers:
        if number in (PAD, END):
            break
        found.append(int(number))
    return found


def padded(numbers: Sequence[int], length: int) -> list[int]:
    """The token numbers of a text with its end and padding, of a given length; a longer text is cut.

    Example:
        >>> padded([7, 8], 5), padded([7, 8, 9], 3)
        ([7, 8, 1, 0, 0], [7, 8, 1])
    """
    kept = [*numbers[: length - 1], END]
    return [*kept, *[PAD] * (length - len(kept))]


def check_length(length: int) -> None:
    """Checks the most tokens of a text.

    Raises:
        DataError: if there are too many.
    """
    if length > LONGEST_TEXT:
        raise DataError(f"texts of {length:,} tokens, expected at most {LONGEST_TEXT:,}")


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _spaced(tokens: Sequence[str]) -> str:
    """Words with blanks between them, except beside signs that touch their neighbours."""
    found = ""
    for place, token in enumerate(tokens):
        tight = place == 0 or token in _TIGHT_LEFT or tokens[place - 1] in _TIGHT_RIGHT
        found += token if tight else f" {token}"
    return found
