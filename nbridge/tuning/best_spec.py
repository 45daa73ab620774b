"""The best spec: the user's own text with other values, so that comments and order are kept."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from nbridge.spec.overrides import apply, assign


def best_text(text: str, changes: Mapping[str, Any], overrides: Sequence[str] = (), heading: str = "") -> str:
    """A spec with other values at some paths.

    Arguments:
        text: The spec as written.
        changes: Values by path.
        overrides: Assignments ``path.to.key=value`` that were made before.
        heading: A comment for the top.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.version = None
    document = yaml.load(text)
    for one in overrides:
        apply(one, document)
    for path, value in changes.items():
        assign(document, tuple(path.split(".")), _flow(value))
    stream = io.StringIO()
    yaml.dump(document, stream)
    comment = "".join(f"# {line}\n" for line in heading.splitlines())
    return comment + stream.getvalue()


def _flow(value: Any) -> Any:
    """Lists and mappings on one line."""
    if isinstance(value, Mapping):
        mapping = CommentedMap((key, _flow(one)) for key, one in value.items())
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list):
        from ruamel.yaml.comments import CommentedSeq

        sequence = CommentedSeq([_flow(one) for one in value])
        sequence.fa.set_flow_style()
        return sequence
    return value
