"""``nbridge push`` and ``nbridge pull``."""

from __future__ import annotations

from typing import Annotated

import typer

from nbridge.cli.options import Overwrite, RunPath

Repo = Annotated[str, typer.Argument(metavar="USER/NAME", help="A repository on the Hugging Face Hub.", show_default=False)]


def push(
    directory: RunPath,
    repo: Repo,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="The branch to push to.", show_default="main")] = None,
    license_: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="The licence in the model card, such as apache-2.0.", show_default=False)
    ] = None,
) -> None:
    """Push a model to the Hugging Face Hub. Uploads the files of its model folder, including spec and model card, but no data.

    Uses the token of `hf auth login`, or HF_TOKEN. Set HF_ENDPOINT to use another hub.
    """
    from nbridge.sharing import hub

    typer.echo(f"{hub.push(directory, repo, private=private, revision=revision, license=license_)}: pushed")


def pull(
    repo: Repo,
    out: Annotated[str, typer.Option(metavar="DIR", help="The model folder to create.", show_default=False)],
    revision: Annotated[str | None, typer.Option(metavar="REVISION", help="A branch, a tag or a commit.", show_default="main")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Pull a model from the Hugging Face Hub. The folder is created only if the model is valid; commands accept it like a run folder."""
    from nbridge.sharing import hub

    typer.echo(f"{hub.pull(repo, out, revision=revision, overwrite=overwrite)}: pulled")
