"""What `tripletkit train` says at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tripletkit import defaults
from tripletkit.texts.classification import describe_measures
from tripletkit.texts.pooled import describe_curve, describe_pooled
from tripletkit.texts.scores import describe_image_interval, describe_interval
from tripletkit.texts.tables import align_columns

if TYPE_CHECKING:
    from tripletkit.data.training_set import TrainingSet
    from tripletkit.evaluation.scoring import Score
    from tripletkit.evaluation.validation import LabelScores, Validation
    from tripletkit.evaluation.vote_scoring import VoteScore
    from tripletkit.training.result import TrainingResult
    from tripletkit.training.unseen_classes import UnseenClasses


def describe_training(result: TrainingResult) -> str:
    """Return the summary of a training run as lines of text."""
    data, record, trained = result.data, result.record, result.trained
    validation, times = result.validation, result.record.times
    dropped = f", {data.n_dropped:,} dropped by the split" if data.n_dropped else ""
    facts = [
        ["images", f"{record.n_images:,}"],
        [
            "triplets",
            f"{len(data.train):,} for training, {len(data.val):,} for validation "
            f"(by {data.by}){dropped}"
            if len(data.val)
            else f"{len(data.train):,}, all for training{dropped}",
        ],
        [
            "time",
            f"features {times.features_s:.1f} s, training {times.training_s:.1f} s, "
            f"in all {times.total_s:.1f} s",
        ],
    ]
    if not record.parts:
        epochs = f"{trained.best_epoch} of {len(trained.history)}"
        # Without validation triplets the last one is kept, which says nothing.
        facts.append(["epoch kept", epochs] if len(data.val) else ["epochs", epochs.split()[0]])
    parts = [align_columns(facts)]
    if result.pooled is not None:
        parts.append(describe_pooled(result.pooled))
    if result.curve is not None:
        parts.append(describe_curve(result.curve))
    if validation is not None:
        parts.append(_describe_validation(validation))
    if result.unseen_classes is not None:
        parts.append(_describe_unseen_classes(result.unseen_classes))
    if result.label_scores is not None:
        is_from_scratch = validation is not None and validation.is_from_scratch
        before = "untrained" if is_from_scratch else "frozen"
        parts.append(_describe_classes(result.label_scores, data, before))
    return "\n\n".join(parts)


def _describe_validation(validation: Validation) -> str:
    table = [["validation", "accuracy", "95% interval", "shared images", "triplets"]]
    table.append(_score_row("trained embeddings", validation.trained))
    if validation.frozen_head is not None:
        table.append(_score_row("head, backbone frozen", validation.frozen_head))
    before = "untrained network" if validation.is_from_scratch else "frozen features"
    table.append(_score_row(f"{before}, cosine", validation.frozen))
    able = [baseline for baseline in validation.baselines if baseline.n_undecided < baseline.n]
    table += [
        [
            f"names alone: {baseline.name}",
            f"{baseline.accuracy:.4f}",
            describe_interval(baseline.wilson),
            "",
            f"{baseline.n:,}",
        ]
        for baseline in able
    ]
    notes = [align_columns(table, right=[1, 4])]
    if validation.trained_votes is not None:
        notes += ["", _describe_agreement(validation.trained_votes, validation.frozen_votes), ""]
    if not able:
        notes.append("Names alone could answer none of these: training shares none with them.")
    from tripletkit.evaluation.validation import chooses_epoch

    if chooses_epoch(validation.trained.n):
        notes.append(
            "The model was chosen by the same triplets, so the first line is a little too high."
        )
    if n_ties := validation.trained.n_ties:
        notes.append(f"Ties, counted as wrong: {n_ties:,}.")
    return "\n".join(notes)


def _describe_agreement(trained: VoteScore, frozen: VoteScore) -> str:
    """Return how far answers agree with the people who were asked, and how far they could."""
    table = [["votes", "agreement", "95% interval", "shared images", "triplets"]]
    for name, score in (("trained embeddings", trained), ("frozen features, cosine", frozen)):
        resampled = describe_image_interval(score.image_interval)
        row = [name, f"{score.agreement:.4f}", describe_interval(score.wilson), resampled]
        table.append([*row, f"{score.n:,}"])
    table.append(["ceiling: the majority", f"{trained.ceiling:.4f}", "", "", f"{trained.n:,}"])
    if (voters := trained.voters) is not None:
        table += [
            ["a voter with most others", f"{voters.with_majority:.4f}", "", "", f"{voters.n:,}"],
            ["a voter with another", f"{voters.one_another:.4f}", "", "", f"{voters.n:,}"],
        ]
    return align_columns(table, right=[1, 4])


def _describe_unseen_classes(unseen_classes: UnseenClasses) -> str:
    table = [
        ["unseen classes", "accuracy", "95% interval", "shared images", "triplets"],
        _score_row("trained embeddings", unseen_classes.trained),
        _score_row("frozen features, cosine", unseen_classes.frozen),
    ]
    first, *others = unseen_classes.rounds
    times = f"{len(others) + 1} times more, each time without about"
    times = times if others else "once more without"
    kinds = f"{first.n_held_out_classes} of {first.n_groups} {unseen_classes.groups_from}"
    n_images = f"{unseen_classes.n_held_out_images:,} images{' in all' if others else ''}"
    notes = [
        align_columns(table, right=[1, 4]),
        f"Trained {times} {kinds} of images ({n_images}), and asked about these.",
    ]
    if (nearness := unseen_classes.nearness) is not None:
        notes.append(
            f"Test images: {nearness.of_test:.3f} (1 - cosine, centered) from the nearest "
            f"training image, training images {nearness.of_training:.3f} from each other, new "
            f"kinds {nearness.of_unseen_classes:.3f}. {_describe_novelty(nearness.novelty)}"
        )
    return "\n".join(notes)


def _describe_classes(scores: LabelScores, data: TrainingSet, before: str) -> str:
    trained, frozen = scores.trained, scores.frozen
    table = [["classes", "trained", "95% interval", before]]
    for (title, value, interval), (_, frozen_value, _) in zip(
        describe_measures(trained), describe_measures(frozen), strict=True
    ):
        table.append([title, value, interval, frozen_value])
    variances = [["variance of embeddings", "within classes", "between", "within share"]]
    for where, variance in (("training", scores.training), ("validation", trained.variances)):
        variances.append(
            [
                where,
                f"{variance.within:.4f}",
                f"{variance.between:.4f}",
                f"{variance.within_share:.1%}",
            ]
        )
    return "\n".join(
        [
            align_columns(table, right=[1, 3]),
            f"Of {trained.n_queries:,} validation images of {len(data.labels.classes):,} "
            f"classes, by {trained.n_reference:,} training images.",
            "",
            align_columns(variances, right=[1, 2, 3]),
        ]
    )


def _describe_novelty(novelty: float) -> str:
    if novelty <= defaults.NOTHING_NEW:
        return "Expect the accuracy on new images."
    if novelty >= 1:
        return "Expect the accuracy on unseen classes."
    return (
        f"Expect an accuracy between those on new images and on unseen classes, {novelty:.0%} of "
        "the way to the second."
    )


def _score_row(name: str, score: Score) -> list[str]:
    resampled = describe_image_interval(score.image_interval)
    return [
        name,
        f"{score.accuracy:.4f}",
        describe_interval(score.wilson),
        resampled,
        f"{score.n:,}",
    ]
