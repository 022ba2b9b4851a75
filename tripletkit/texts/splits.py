"""What splits keep and drop, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from tripletkit import defaults
from tripletkit.data.splits.split_files import SplitPrice


def describe_splits(prices: Sequence[SplitPrice], *, is_folds: bool) -> str:
    """Return what each split keeps and drops."""
    return "\n\n".join(
        "\n".join([f"fold {number}"] * is_folds + _describe_one(price))
        for number, price in enumerate(prices, 1)
    )


def _describe_one(price: SplitPrice) -> list[str]:
    def line(label: str, n_triplets: int, n_images: int | None = None) -> str:
        share = n_triplets / price.n_triplets
        images = "" if n_images is None else f"{n_images:>12,}"
        return f"{label:<24}{n_triplets:>10,}{share:>10.2%}{images}"

    expected = f"{defaults.EXPECTED_ACCURACY:.0%}"
    return [
        f"{'':<24}{'triplets':>10}{'share':>10}{'images':>12}",
        line("kept for training", price.n_train, price.n_train_images),
        line("kept for validation", price.n_val, price.n_val_images),
        line("dropped", price.n_dropped),
        f"{'on both sides':<44}{price.n_shared_images:>12,}",
        f"An accuracy of {expected} on this validation set is known to "
        f"±{100 * price.half_width:.1f} points at best (95%, Wilson).",
    ]
