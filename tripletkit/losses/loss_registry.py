"""The registry of losses: what each is made of, what it needs, and its paper.

A loss is one record here and one function in `losses`. Nothing in this module imports
TensorFlow, so that the command line can list them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from tripletkit.errors import SettingsError
from tripletkit.registry import Reference, Registry, load_object


@dataclass(frozen=True)
class Loss:
    """Facts of one loss.

    Attributes:
        formula: of a triplet or image, as text.
        of_triplets: function, or `"module:function"`, from the two distances of triplets (and the
            margin) to their losses; None where no triplet has a part.
        has_margin: the function takes a margin.
        has_cross_entropy: a classifier on the embeddings has a part.
        has_centers: class centers have a part.
    """

    name: str
    summary: str
    formula: str
    paper: str
    of_triplets: Reference | None = None
    has_margin: bool = False
    has_cross_entropy: bool = False
    has_centers: bool = False

    @property
    def needs_labels(self) -> bool:
        return self.has_cross_entropy or self.has_centers

    def of_distances(self, margin: float) -> Callable[..., Any] | None:
        """Return the function of the two distances; None where triplets have no part.

        It is tried first: a fault in a loss of the user's own ends in a line that names it.
        """
        return _try_function(self, margin)


@cache
def _try_function(loss: Loss, margin: float) -> Callable[..., Any] | None:
    """Return the function of a loss once it was tried; each training of a draw asks for it."""
    from tripletkit.features.keras_backend import tf

    if loss.of_triplets is None:
        return None
    further = (margin,) if loss.has_margin else ()
    two = tf.TensorSpec((2,), tf.float32)
    try:
        function = load_object(loss.of_triplets)
        traced = tf.function(lambda *given: function(*given, *further), autograph=False)
        shape = tuple(traced.get_concrete_function(two, two).output_shapes)
    except Exception as error:
        # TensorFlow puts where it happened before the reason, and the kind of the error.
        kind = type(error).__name__
        reason = (str(error).strip() or "no reason").splitlines()[-1].strip()
        problem = f"{kind}: {reason.removeprefix(f'{kind}: ')}"
    else:
        problem = "" if shape == (2,) else f"of 2 triplets it gives the shape {shape}"
    if problem:
        takes = "two distances and the margin" if further else "two distances"
        raise SettingsError(
            "loss",
            f'"{loss.name}": expected a function of {takes}, written with `keras.ops`, that '
            f"gives a loss for each triplet; {problem}",
        )
    return lambda to_positive, to_negative: function(to_positive, to_negative, *further)


_FUNCTIONS = "tripletkit.losses.functions"
_FACENET = "Schroff, Kalenichenko, Philbin. FaceNet. CVPR 2015. arXiv:1503.03832"

LOSSES: Registry[Loss] = Registry("loss", partial(SettingsError, "loss"))
get_loss = LOSSES.find


def register_loss(
    name: str,
    of_triplets: Reference,
    *,
    has_margin: bool = False,
    summary: str = "",
    formula: str = "",
    paper: str = "",
) -> None:
    """Add a loss of your own, to be taken by its name from now on.

    Args:
        name: how it is called, as in `train(..., loss=name)`.
        of_triplets: a function from the distances of anchor and positive and of anchor and
            negative, both `(n,)`, and the margin where there is one, to the losses `(n,)`, written
            with `keras.ops`; or where it is, as `"module:function"`.
        has_margin: the function takes the margin as its third argument.
        summary, formula, paper: what `list_losses` says of it.
    Raises:
        SettingsError: if the name is taken.
    """
    LOSSES.add(Loss(name, summary, formula, paper, of_triplets, has_margin))


for _loss in (
    Loss(
        name="triplet",
        summary="the negative must be a margin further off than the positive",
        formula="max(0, d(a,p) - d(a,n) + margin)",
        paper=_FACENET,
        of_triplets=f"{_FUNCTIONS}:_triplet_margin_loss",
        has_margin=True,
    ),
    Loss(
        name="soft-margin",
        summary="a margin that never ends: every triplet keeps a pull",
        formula="log(1 + exp(d(a,p) - d(a,n)))",
        paper="Hermans, Beyer, Leibe. In Defense of the Triplet Loss. 2017. arXiv:1703.07737",
        of_triplets=f"{_FUNCTIONS}:_soft_margin_loss",
    ),
    Loss(
        name="ratio",
        summary="a softmax over the two distances",
        formula="(exp d(a,p) / (exp d(a,p) + exp d(a,n)))^2",
        paper="Hoffer, Ailon. Deep metric learning using triplet network. 2015. arXiv:1412.6622",
        of_triplets=f"{_FUNCTIONS}:_ratio_loss",
    ),
    Loss(
        name="cross-entropy",
        summary="a classifier on the embeddings",
        formula="-log softmax(s cos(w, x))[class]",
        paper="Wang et al. NormFace. ACM MM 2017. arXiv:1704.06369 (a learned scale)",
        has_cross_entropy=True,
    ),
    Loss(
        name="center",
        summary="cross-entropy, and every embedding drawn to the moving center of its class",
        formula="-log softmax(s cos(w, x))[class] + weight * |x - center of class|^2 / 2",
        paper="Wen, Zhang, Li, Qiao. A discriminative feature learning approach for deep face "
        "recognition. ECCV 2016. doi:10.1007/978-3-319-46478-7_31",
        has_cross_entropy=True,
        has_centers=True,
    ),
    Loss(
        name="triplet+cross-entropy",
        summary="the sum of both, with a weight",
        formula="max(0, d(a,p) - d(a,n) + margin) - weight * log softmax(s cos(w, x))[class]",
        paper=f"{_FACENET} (the first part), Wang et al. NormFace. arXiv:1704.06369 (the second)",
        of_triplets=f"{_FUNCTIONS}:_triplet_margin_loss",
        has_margin=True,
        has_cross_entropy=True,
    ),
):
    LOSSES.add(_loss)
