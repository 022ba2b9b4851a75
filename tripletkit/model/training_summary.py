"""What a training came to, as the record of the model has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tripletkit import defaults
from tripletkit.evaluation.classification import MEASURE_TITLES
from tripletkit.evaluation.intervals import Interval
from tripletkit.evaluation.learning_curve import LearningCurve
from tripletkit.model.record import ModelRecord
from tripletkit.results import Result, Section, Table


@dataclass(frozen=True, repr=False)
class TrainingSummary(Result):
    """What a training came to.

    Attributes:
        record: of the model.
        n_epochs: that its head was trained for.
    """

    record: ModelRecord
    n_epochs: int

    def to_dict(self) -> dict[str, Any]:
        """Return all that is known of the model, as `model.json` has it."""
        return self.record.to_dict()

    def _summary(self) -> str:
        held_out = self.record.validation or self.record.pooled
        return f"{self.record.split.n_train:,} triplets" + (
            f", {held_out._summary()}" if held_out else ""
        )

    def _sections(self) -> list[Section]:
        record = self.record
        sections: list[Section] = [[self._facts()]]
        curve = record.learning_curve
        for shown in (
            record.pooled,
            None if curve is None else LearningCurve.from_dict(curve),
            record.validation,
        ):
            if shown is not None:
                sections += shown._sections()
        if record.unseen_classes is not None:
            sections.append(_show_unseen_classes(record.unseen_classes))
        if record.classification is not None:
            sections += self._show_classes(record.classification)
        return sections

    def _facts(self) -> Table:
        record, split, times = self.record, self.record.split, self.record.times
        dropped = f", {split.n_dropped:,} dropped by the split" if split.n_dropped else ""
        facts = [
            ["images", f"{record.n_images:,}"],
            [
                "triplets",
                f"{split.n_train:,} for training, {split.n_val:,} for validation "
                f"(by {split.by}){dropped}"
                if split.n_val
                else f"{split.n_train:,}, all for training{dropped}",
            ],
            [
                "time",
                f"features {times.features_s:.1f} s, training {times.training_s:.1f} s, "
                f"in all {times.total_s:.1f} s",
            ],
        ]
        if not record.parts:
            # Without validation triplets the last one is kept, which says nothing.
            kept = ["epoch kept", f"{record.best_epoch} of {self.n_epochs}"]
            facts.append(kept if split.n_val else ["epochs", str(record.best_epoch)])
        return Table(facts, has_heading=False)

    def _show_classes(self, scores: Mapping[str, Any]) -> list[Section]:
        trained, frozen = scores["trained"], scores["frozen_cosine"]
        validation = self.record.validation
        is_from_scratch = validation is not None and validation.is_from_scratch
        rows = [
            ["classes", "trained", "95% interval", "untrained" if is_from_scratch else "frozen"]
        ]
        for name, title in MEASURE_TITLES.items():
            rows.append(
                [
                    title.format(k=trained["k"]),
                    f"{trained[name]['value']:.4f}",
                    _show_interval(trained[name], "interval"),
                    f"{frozen[name]['value']:.4f}",
                ]
            )
        variances = [["variance of embeddings", "within classes", "between", "within share"]]
        for where, variance in (
            ("training", scores["training_variance"]),
            ("validation", trained["variance"]),
        ):
            within, between = variance["within"], variance["between"]
            share = f"{within / (within + between):.1%}" if within + between else "nan%"
            variances.append([where, f"{within:.4f}", f"{between:.4f}", share])
        return [
            [
                Table(rows, right=[1, 3]),
                f"Of {trained['n_queries']:,} validation images of "
                f"{len(self.record.classes or ()):,} classes, by {trained['n_reference']:,} "
                "training images.",
            ],
            [Table(variances, right=[1, 2, 3])],
        ]


def _show_unseen_classes(found: Mapping[str, Any]) -> Section:
    rows = [["unseen classes", "accuracy", "95% interval", "shared images", "triplets"]]
    for name, key in (
        ("trained embeddings", "trained"),
        ("frozen features, cosine", "frozen_cosine"),
    ):
        score = found[key]
        rows.append(
            [
                name,
                f"{score['accuracy']:.4f}",
                str(Interval(*score["wilson"])),
                _show_interval(score, "image_interval"),
                f"{score['n']:,}",
            ]
        )
    n_rounds = found["n_rounds"]
    times = (
        f"{n_rounds} times more, each time without about" if n_rounds > 1 else "once more without"
    )
    kinds = f"{found['n_held_out_classes'][0]} of {found['n_groups']} {found['groups_from']}"
    n_images = f"{found['n_held_out_images']:,} images{' in all' if n_rounds > 1 else ''}"
    notes: list[Table | str] = [
        Table(rows, right=[1, 4]),
        f"Trained {times} {kinds} of images ({n_images}), and asked about these.",
    ]
    if (test := found["test"]) is not None:
        notes.append(
            f"Test images: {test['of_test']:.3f} (1 - cosine, centered) from the nearest training "
            f"image, training images {test['of_training']:.3f} from each other, unseen classes "
            f"{test['of_unseen_classes']:.3f}. {_describe_novelty(test['novelty'])}"
        )
    return notes


def _describe_novelty(novelty: float) -> str:
    if novelty <= defaults.NOTHING_NEW:
        return "Expect the accuracy on new images."
    if novelty >= 1:
        return "Expect the accuracy on unseen classes."
    return (
        f"Expect an accuracy between those on new images and on unseen classes, {novelty:.0%} of "
        "the way to the second."
    )


def _show_interval(values: Mapping[str, Any], name: str) -> str:
    """Return what a column of a table says of an interval that JSON holds."""
    if values[name] is not None:
        return str(Interval(*values[name]))
    reason: str = values[f"no_{name}"] or "-"
    return reason.partition(" for an interval")[0]
