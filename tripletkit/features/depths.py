"""How deep in a network features are taken: at its end, at earlier stages, or both.

Where people compare shapes or surfaces, early layers with the spread of their maps agree better
with them than the last layer does; where classes decide, it is the other way round. One pass
gives features of every depth.
"""

from __future__ import annotations

from tripletkit import defaults
from tripletkit.errors import BackboneError
from tripletkit.features.backbone import Backbone, Stage

# Name of a depth -> (with the last features, with those of the earlier stages).
DEPTHS = dict(zip(defaults.DEPTHS, ((True, False), (False, True), (True, True)), strict=True))


def stages_at(backbone: Backbone, depth: str) -> tuple[Stage | None, ...]:
    """Return what is taken of a network at a depth; None stands for its last features.

    Args:
        depth: a key of `DEPTHS`.
    Raises:
        BackboneError: if there is no such depth, or the network names no stages.
    """
    if depth not in DEPTHS:
        raise BackboneError(f'expected a depth among {", ".join(DEPTHS)}, got "{depth}"')
    with_last, with_early = DEPTHS[depth]
    if with_early and not backbone.stages:
        raise BackboneError(
            f"{backbone.name}: names no stages, so that it has features of depth last alone, "
            f"got depth {depth}."
        )
    return (None,) * with_last + backbone.stages * with_early
