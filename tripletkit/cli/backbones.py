"""`tripletkit backbones`: what a model can start from."""

from __future__ import annotations

from tripletkit.cli.console import show_result
from tripletkit.cli.options import command, takes


@command()
@takes("as_json")
def backbones(as_json: bool) -> None:
    """List the frozen networks that a model can start from, and which are ready to use.

    \b
    tripletkit backbones
    tripletkit train train.txt images/ --backbone efficientnet-lite0

    Ready means: usable right now, without a download.
    """
    from tripletkit.api.listings import list_backbones

    show_result(list_backbones(), as_json)
