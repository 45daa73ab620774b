"""``nbridge push`` and ``nbridge pull``."""

from __future__ import annotations

from typing import Annotated

import typer

from nbridge.cli.options import Overwrite, RunPath
from nbridge.cli.parameters import argument, option

Repo = Annotated[str, argument("USER/NAME", "A repository on the Hugging Face Hub.")]


def push(
    directory: RunPath,
    repo: Repo,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    revision: Annotated[str | None, option("BRANCH", "The branch to push to.", shown="main")] = None,
    license_: Annotated[str | None, option("ID", "The licence in the model card, such as apache-2.0.", "--license")] = None,
) -> None:
    """Push a model to the Hugging Face Hub. Uploads the files of its model folder, including spec and model card, but no data.

    Uses the token of `hf auth login`, or HF_TOKEN. Set HF_ENDPOINT to use another hub.
    """
    from nbridge.sharing import hub

    typer.echo(f"{hub.push(directory, repo, private=private, revision=revision, license=license_)}: pushed")


def pull(
    repo: Repo,
    out: Annotated[str, option("DIR", "The model folder to create.")],
    revision: Annotated[str | None, option("REVISION", "A branch, a tag or a commit.", shown="main")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Pull a model from the Hugging Face Hub. The folder is created only if the model is valid; commands accept it like a run folder."""
    from nbridge.sharing import hub

    typer.echo(f"{hub.pull(repo, out, revision=revision, overwrite=overwrite)}: pulled")
