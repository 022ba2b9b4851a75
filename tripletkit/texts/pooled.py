"""What `tripletkit train` says of held-out draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tripletkit.texts.scores import describe_interval
from tripletkit.texts.tables import align_columns

if TYPE_CHECKING:
    from tripletkit.evaluation.learning_curve import LearningCurve
    from tripletkit.evaluation.pooled import CandidateWorth, PooledScore, PooledValidation


def describe_pooled(pooled: PooledValidation) -> str:
    """Return the scores of held-out draws, and what each candidate part is worth."""
    table = [
        ["held-out images", "accuracy", "95% interval", "answers"],
        _score_row("trained without them", pooled.trained),
        _score_row("frozen features, cosine", pooled.frozen),
    ]
    score = pooled.trained
    notes = [
        align_columns(table, right=[1, 3]),
        f"{pooled.n_draws} draws of {pooled.by}, a third held out in each: {score.n_triplets:,} "
        f"triplets over {score.n_images:,} images, every image counted alike. The interval "
        "allows for shared images and shared training.",
    ]
    if score.of_test is not None:
        notes.append(
            "A test over as many other images of the same kind, itself a sample, would show "
            f"{describe_interval(score.of_test)} in 95 of 100 cases."
        )
    if pooled.epoch is not None:
        notes.append(
            f"Best after epoch {pooled.epoch} of {pooled.n_epochs}. The model in the folder was "
            "trained on all triplets, as long in proportion."
        )
    if pooled.candidates:
        notes += ["", _describe_candidates(pooled.candidates)]
    return "\n".join(notes)


def describe_curve(curve: LearningCurve) -> str:
    """Return accuracy against the number of judgements, and what more would bring."""
    table = [["learned from", "accuracy on held-out images"]]
    for n, accuracy in zip(curve.n_triplets, curve.accuracies, strict=True):
        table.append([f"{n:,.0f} judgements", f"{accuracy:.4f}"])
    table.append(
        [f"{curve.n_triplets[0]:,.0f}, over fewer images", f"{curve.with_fewer_images:.4f}"]
    )
    return f"{align_columns(table, right=[1])}\n{curve.outlook}"


def _describe_candidates(candidates: tuple[CandidateWorth, ...]) -> str:
    table = [["part", "weight", "alone", "95% interval", "all others"]]
    for worth in sorted(candidates, key=lambda worth: -worth.weight):
        score = worth.score
        table.append(
            [
                worth.name,
                f"{worth.weight:.3f}",
                f"{score.accuracy:.4f}",
                describe_interval(score.interval) if score.interval else "-",
                "-" if worth.without is None else f"{worth.without:.4f}",
            ]
        )
    return align_columns(table, right=[1, 2, 4])


def _score_row(name: str, score: PooledScore) -> list[str]:
    interval = describe_interval(score.interval) if score.interval else "-"
    return [name, f"{score.accuracy:.4f}", interval, f"{score.n_answers:,}"]
