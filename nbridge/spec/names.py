"""Valid names of modalities.

A name is used as a key of ``torch.nn.ModuleDict``, in tensor names of checkpoints, in array names of npz files and on the command line.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from nbridge.common.messages import clip
from nbridge.spec.strict import invalid

RESERVED = frozenset({
    "T_destination", "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "clear", "compile", "cpu", "cuda",
    "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer", "get_extra_state", "get_parameter", "get_submodule",
    "half", "ipu", "items", "keys", "load_state_dict", "modules", "mtia", "named_buffers", "named_children", "named_modules",
    "named_parameters", "parameters", "pop", "register_backward_hook", "register_buffer", "register_forward_hook",
    "register_forward_pre_hook", "register_full_backward_hook", "register_full_backward_pre_hook", "register_load_state_dict_post_hook",
    "register_load_state_dict_pre_hook", "register_module", "register_parameter", "register_state_dict_post_hook",
    "register_state_dict_pre_hook", "requires_grad_", "set_extra_state", "set_submodule", "share_memory", "state_dict", "to", "to_empty",
    "train", "training", "type", "update", "values", "xpu", "zero_grad",
})  # fmt: skip
"""Attributes of ``torch.nn.ModuleDict``, which rejects them as keys; a literal because parsing a spec must not import torch."""

_RESERVED_BY = {"id": "the row ids", "kl": "a term of the loss"}


def check_name(name: str) -> str:
    """Returns ``name`` if it is a valid name of a modality.

    Raises:
        PydanticCustomError: with the rule that it violates.
    """
    if not name.isidentifier():
        raise invalid(f"'{clip(name)}' is not a valid modality name: use letters, digits and single underscores, and start with a letter")
    if name.startswith("_") or "__" in name:
        raise invalid(
            f"'{clip(name)}' is not a valid modality name: leading and double underscores are reserved (NAME__present marks presence)"
        )
    if name in RESERVED or name in _RESERVED_BY:
        owner = _RESERVED_BY.get(name, "torch.nn.ModuleDict")
        raise invalid(f"'{name}' is not a valid modality name: it is reserved for {owner}; use another, such as '{name}_1'")
    return name


def free_name(text: str, taken: Collection[str] = ()) -> str:
    """Makes a valid modality name from ``text`` that is not in ``taken``.

    Example:
        >>> free_name("Blood pressure (mm)"), free_name("1st", ["column_1st"]), free_name("keys")
        ('Blood_pressure_mm', 'column_1st_2', 'column_keys')
    """
    stem = re.sub(r"[\W_]+", "_", text).strip("_")
    try:
        name = check_name(stem)
    except PydanticCustomError:
        name = f"column_{stem}".strip("_")
    number = 1
    while (found := name if number == 1 else f"{name}_{number}") in taken:
        number += 1
    return found


ModalityName = Annotated[str, AfterValidator(check_name)]
"""An identifier without leading or double underscores that is not reserved."""
