"""A YAML 1.2 parser that keeps the position of every key and value.

ruamel.yaml composes the text into nodes with positions, and the nodes are converted to plain values here: ``no`` is text, ``1e-3`` is a
number, and a duplicate key is an error that names both positions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from nbridge.common.messages import clip, noun
from nbridge.common.process_state import ignored_warnings

Path = tuple[str | int, ...]
Position = tuple[int, int]
"""Line and column, starting at 1."""

MAX_DEPTH = 50
_MAX_VALUES = 100_000
_INTEGER_LIMIT = 2**63
_TAG = "tag:yaml.org,2002:"
_DIRECTIVE = re.compile(r"^%YAML[ \t]+(?!1\.2\s)(\S+)", re.MULTILINE)
_TAB = re.compile(r"[ ]*\t")


class Diagnostic(NamedTuple):
    """An error that is found before validation."""

    position: Position
    path: Path
    text: str


class ParseError(Exception):
    """A text that cannot be parsed; never shown to a user."""

    def __init__(self, position: Position, text: str, path: Path = ()) -> None:
        self.diagnostic = Diagnostic(position, path, text)
        super().__init__(text)


@dataclass
class Tree:
    """A parsed document, with the positions of keys and values by path, and errors that do not prevent reading the rest."""

    value: Any = None
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)


def parse(text: str) -> Tree:
    """Parses a document; the value of an empty one is None.

    Raises:
        ParseError: if the text is not a single YAML 1.2 document within the size limits.
    """
    if directive := _DIRECTIVE.search(text):
        raise ParseError(_at(text, directive.start()), f"YAML {clip(directive[1])} is requested, but a spec is YAML 1.2; remove this line")
    root = _compose(text)
    tree = Tree()
    if root is not None:
        tree.value = _Reader(tree).read(root, ())
    return tree


def _compose(text: str) -> Node | None:
    try:
        with ignored_warnings(ReusedAnchorWarning):
            return YAML(typ="safe", pure=True).compose(text)
    except ReaderError as error:
        raise ParseError(_at(text, error.position), f"the character U+{ord(text[error.position]):04X} is not allowed in YAML") from error
    except MarkedYAMLError as error:
        raise _syntax(error, text) from error
    except RecursionError as error:
        raise ParseError((1, 1), f"nested more than {MAX_DEPTH} levels deep") from error
    except Exception as error:  # on some invalid texts ruamel.yaml raises IndexError and other unrelated exceptions
        raise ParseError((1, 1), f"not valid YAML ({type(error).__name__})") from error


def _syntax(error: MarkedYAMLError, text: str) -> ParseError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    for number in range(min(line + 1, len(lines))):
        if tab := _TAB.match(lines[number]):
            return ParseError((number + 1, tab.end()), "tab in the indentation; use spaces")
    problem = str(error.problem)
    if "another document" in problem:
        return ParseError((line + 1, column + 1), "a second document starts here; a spec is a single document")
    if "'\\t'" in problem:
        return ParseError((line + 1, column + 1), "tab; use spaces")
    reason = ", ".join(" ".join(part.split()) for part in (error.context, problem) if part)
    return ParseError((line + 1, column + 1), f"not valid YAML: {clip(reason, 200)}")


def _at(text: str, offset: int) -> Position:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _mark(node: Node) -> Position:
    return node.start_mark.line + 1, node.start_mark.column + 1


class _Reader:
    """Converts nodes to values. An alias is a copy of its anchor; errors in the copy have the position of the anchor."""

    def __init__(self, tree: Tree, count: int = 0) -> None:
        self.tree = tree
        self.count = count
        self.kinds: Mapping[type[Node], Callable[[Any, Path], Any]] = {
            MappingNode: self._mapping, SequenceNode: self._sequence, ScalarNode: self._scalar,
        }  # fmt: skip
        self.scalars: Mapping[str, Callable[[str], Any]] = {
            "str": _text, "timestamp": _text, "value": _text, "null": lambda _: None, "bool": lambda text: text.lower() == "true",
            "int": _integer, "float": _float,
        }  # fmt: skip

    def read(self, node: Node, path: Path) -> Any:
        self.count += 1
        if len(path) > MAX_DEPTH:
            raise ParseError(_mark(node), f"nested more than {MAX_DEPTH} levels deep")
        if self.count > _MAX_VALUES:
            raise ParseError(_mark(node), f"more than {_MAX_VALUES} values; aliases of aliases grow fast")
        self.tree.values[path] = _mark(node)
        return self.kinds[type(node)](node, path)

    def _report(self, node: Node, path: Path, text: str) -> None:
        self.tree.diagnostics.append(Diagnostic(_mark(node), path, text))

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        self._tagged(node, path, "map")
        result: dict[str, Any] = {}
        for key, value in node.value:
            name = self._key(key, path)
            if name is None:
                continue
            here = (*path, name)
            if name in result:
                self._report(key, here, f"duplicate key '{clip(name)}'; the first is in line {self.tree.keys[here][0]}")
                continue
            self.tree.keys[here] = _mark(key)
            result[name] = self.read(value, here)
            if result[name] is None:  # the mark of an empty value is after the next line break
                self.tree.values[here] = _mark(key)
        return result

    def _key(self, node: Node, path: Path) -> str | None:
        if node.tag == f"{_TAG}merge":
            self._report(node, path, "merge keys (<<) are not part of YAML 1.2; write the keys out")
            return None
        reader = _Reader(Tree(), self.count)
        value = reader.read(node, path)
        # An alias to a long list may be the key of every entry.
        self.count = reader.count
        if isinstance(value, str):
            return value
        self._report(
            node, path, f"a key must be text, this is {noun(value)}" + ("; put it in quotes" if isinstance(node, ScalarNode) else "")
        )
        return None

    def _sequence(self, node: SequenceNode, path: Path) -> list[Any]:
        self._tagged(node, path, "seq")
        return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        if not self._tagged(node, path, *self.scalars):
            return node.value
        try:
            return self.scalars[str(node.tag).removeprefix(_TAG)](node.value)
        except ValueError as error:
            self._report(node, path, str(error))
            return None

    def _tagged(self, node: Node, path: Path, *tags: str) -> bool:
        if plain := str(node.tag).removeprefix(_TAG) in tags:
            return plain
        self._report(node, path, f"tags such as {clip(node.tag)} are not supported; write the plain value")
        return plain


def _text(text: str) -> str:
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("the text contains a null character or a surrogate")
    return text


def _integer(text: str) -> int:
    digits = text.replace("_", "").lower()
    try:
        number = int(digits, 10) if re.fullmatch(r"[-+]?\d+", digits) else int(digits, 0)
    except ValueError:
        raise ValueError(f"'{clip(text)}' is not an integer, or too large") from None
    if not -_INTEGER_LIMIT <= number < _INTEGER_LIMIT:
        raise ValueError("the number is outside the range of 64-bit integers")
    return number


def _float(text: str) -> float:
    words = {".inf": "inf", "-.inf": "-inf", "+.inf": "inf", ".nan": "nan"}
    plain = text.replace("_", "").lower()
    try:
        return float(words.get(plain, plain))
    except ValueError:
        raise ValueError(f"'{clip(text)}' is not a number") from None
