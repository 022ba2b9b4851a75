"""`tripletkit losses`: what a model can learn by."""

from __future__ import annotations

from tripletkit.cli.console import show_result
from tripletkit.cli.options import command, takes


@command()
@takes("as_json")
def losses(as_json: bool) -> None:
    """List the losses that `train --loss` takes, with their formulas and papers.

    \b
    tripletkit losses
    tripletkit train images/ --labels labels.csv --loss center

    d is the distance between the embeddings of anchor a, positive p and negative n (`--distance`),
    x an embedding, w and s the vectors of classes and the scale that the classifier learns.
    """
    from tripletkit.api.listings import list_losses

    show_result(list_losses(), as_json)
