from typing import Any

import tripletkit as tk
from tripletkit.cli.commands import command, takes


@command()
@takes("as_json")
def losses() -> Any:
    """List the losses that `train --loss` takes, with their formulas and papers.

    \b
    tripletkit losses
    tripletkit train images/ --labels labels.csv --loss center

    d is the distance between the embeddings of anchor a, positive p and negative n (`--distance`),
    x an embedding, w and s the vectors of classes and the scale that the classifier learns.
    """
    return tk.list_losses()
