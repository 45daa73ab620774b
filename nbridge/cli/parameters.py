"""Arguments and options of commands whose default is not a value to show."""

from typing import Any

import typer


def argument(metavar: str, help_: str) -> Any:
    """A positional argument; its default is not shown."""
    return typer.Argument(metavar=metavar, help=help_, show_default=False)


def option(metavar: str, help_: str, *flags: str, shown: str | bool = False) -> Any:
    """An option with a value; ``shown`` is the text for its default, which is not shown otherwise."""
    return typer.Option(*flags, metavar=metavar, help=help_, show_default=shown)
