"""Which questions to ask people next, from Python and for `tripletkit suggest`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tripletkit import defaults
from tripletkit.api.inputs import TripletsLike
from tripletkit.api.model import Model
from tripletkit.collecting.choosing import suggest_at_random, suggest_by_model
from tripletkit.collecting.committee import split_members
from tripletkit.data.images import ImagesLike
from tripletkit.data.judgements import open_judgements
from tripletkit.data.triplets import Triplets
from tripletkit.errors import ImageNameError, SettingsError
from tripletkit.progress import Progress


def suggest(
    model: Model,
    images: ImagesLike | None = None,
    n: int = defaults.CHOSEN_BATCH,
    *,
    ask: str = "auto",
    asked: Sequence[TripletsLike] = (),
    seed: int = defaults.SEED,
    skip_bad: bool = False,
    follow_outside: bool = False,
    progress: Progress | None = None,
) -> Triplets:
    """Choose the questions whose answers a model would learn most from.

    Args:
        model: that was trained on the answers so far.
        images: to ask about; see `Model.embed`. Defaults to the folder of the training.
        n: how many questions at most. Defaults to `200`.
        ask: `"random"`, `"margin"` (where the model is least sure), `"disagreement"` (where its
            members contradict each other), or `"auto"`, the default, which is one of them.
        asked: triplets whose questions are not to be asked again, whichever way round.
        seed: start of everything by chance. Defaults to `0`.
        skip_bad, follow_outside, progress: see `Model.embed`.
    Returns:
        Questions in `Triplets`: is the first more like the second or the third? The order of the
        last two is by chance. No image is in more than two of them, but for `"random"`.
    Raises:
        SettingsError: if `ask` is no such way, or needs a model of several members.
        ImageNameError, ImageReadError: if there are fewer than three images, or one cannot be read.
    Reference:
        Settles. Active learning literature survey. 2009 (uncertainty sampling, query by committee).
    """
    way = defaults.AUTO_ASK if ask == "auto" else ask
    if way not in ("random", "margin", "disagreement"):
        raise SettingsError(
            "ask", f"expected auto, random, margin or disagreement as `ask`, got {ask!r}"
        )
    embedded = model.embed(
        images, skip_bad=skip_bad, follow_outside=follow_outside, progress=progress
    )
    if len(embedded) < 3:
        raise ImageNameError(f"expected three images or more to ask about, got {len(embedded)}")
    place_of = {name: place for place, name in enumerate(embedded.names)}
    known = [_places(open_judgements(each).triplets, place_of) for each in asked]
    left_out = np.concatenate([np.empty((0, 3), dtype=np.int32), *known])
    rng = np.random.default_rng(seed)
    if way == "random":
        rows = suggest_at_random(len(embedded), n, left_out, rng)
    else:
        members = _members(model, embedded.vectors, way)
        rows = suggest_by_model(members, model.distance, n, way, left_out, rng)
    return Triplets.from_array(rows, embedded.names)


def _places(triplets: Triplets, place_of: dict[str, int]) -> np.ndarray:
    """Return the `(n, 3)` int32 rows whose images are all known."""
    places = np.array([place_of.get(name, -1) for name in triplets.names], dtype=np.int32)
    rows: np.ndarray = places[triplets.rows].reshape(-1, 3)
    return rows[(rows >= 0).all(axis=1)]


def _members(model: Model, vectors: np.ndarray, way: str) -> list[np.ndarray]:
    if way == "margin" or model.record is None:
        members = [vectors]
    else:
        members = split_members(vectors, model.record.settings, model.record.n_features)
    if way == "disagreement" and len(members) < 2:
        raise SettingsError(
            "ask",
            "`ask=disagreement` needs a model of several members that can be told apart; "
            f"{model!r} is not one. Use `ask=margin`, or train one with the setting members=5",
        )
    return members
