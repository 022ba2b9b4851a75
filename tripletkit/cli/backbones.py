from typing import Any

import tripletkit as tk
from tripletkit.cli.commands import command, takes


@command()
@takes("as_json")
def backbones() -> Any:
    """List the frozen networks that a model can start from, and which are ready to use.

    \b
    tripletkit backbones
    tripletkit train train.txt images/ --backbone efficientnet-lite0
    tripletkit train train.txt images/ --backbone hf:Xenova/dinov2-small

    Ready means: usable right now, without a download.
    """
    return tk.list_backbones()
