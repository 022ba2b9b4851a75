"""The heads that choose questions, trained on the answers so far.

The only module here that trains; everything else takes its result.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.choosing import Committee, fit_temperature
from tripletkit.data.votes import Votes, make_loss_weights
from tripletkit.evaluation.distances import triplet_margins


def train_committee(
    features: np.ndarray,
    rows: np.ndarray,
    votes: Votes,
    *,
    n_members: int = defaults.COMMITTEE_MEMBERS,
    seed: int = defaults.SEED,
    temperature: float | None = None,
) -> Committee:
    """Train heads that differ in seed and in the answers that each sees most of.

    Args:
        features: `(n_images, n_features)` float32.
        rows: `(n_questions, 3)`: anchor, what most judges chose, the other.
        votes: on these rows.
        n_members: how many heads.
        seed: start of the first; the others follow.
        temperature: see `Committee`. Defaults to half of the margin that training asks for.
    Raises:
        CollapseError: if a head's embeddings become alike.
    """
    from tripletkit.model.embedding import embed
    from tripletkit.model.settings import HeadSettings, choose_epochs
    from tripletkit.training.epochs import train_model

    is_open = votes.is_tie
    rows, votes = rows[~is_open], votes.take(~is_open)
    rng = np.random.default_rng(seed)
    embeddings = []
    settings = HeadSettings.of_recipe(
        defaults.COMMITTEE_RECIPE, seed=seed, hidden=defaults.COMMITTEE_HIDDEN
    )
    for member in range(n_members):
        # A bootstrap sample for each, so that heads differ where answers are few.
        drawn = rng.integers(0, len(rows), len(rows)) if n_members > 1 else np.arange(len(rows))
        epochs = choose_epochs(len(drawn), settings.batch_size, settings.epochs)
        of_member = replace(
            settings, seed=seed + member, epochs=min(epochs, defaults.COMMITTEE_MAX_EPOCHS)
        )
        weights = make_loss_weights(votes.take(drawn), "weight")
        trained = train_model(features, rows[drawn], rows[:0], of_member, loss_weights=weights)
        embeddings.append(embed(trained.head, features))
    return Committee(embeddings, settings.distance, temperature or settings.margin / 2)


def calibrate(committee: Committee, rows: np.ndarray, votes: Votes) -> float:
    """Return the temperature that fits answers to questions that the committee has not seen.

    Args:
        committee: trained on other questions.
        rows, votes: `(n_questions, 3)` and their votes.
    """
    margins = np.mean(
        [triplet_margins(each, rows, committee.distance) for each in committee.embeddings], axis=0
    )
    return fit_temperature(margins, votes.share)
