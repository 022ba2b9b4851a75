"""What `tripletkit mine` prints: as JSON, and for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tripletkit.texts.tables import align_columns

if TYPE_CHECKING:
    import numpy as np

    from tripletkit.evaluation.classification import ClassDistances, DistanceDistribution
    from tripletkit.search.offline_mining import Cut, MinedImages


def summarise_classes(
    images: ClassDistances,
    distribution: DistanceDistribution,
    cuts: tuple[Cut, Cut],
    quantiles: tuple[tuple[float, float], tuple[float, float]],
    mined: MinedImages,
) -> dict[str, Any]:
    """Return the distances within and between classes, and what was mined."""
    import numpy as np

    from tripletkit.search.offline_mining import NOBODY

    kinds = {}
    for kind, counts, cut, shares, chosen in (
        ("positives", distribution.positives, cuts[0], quantiles[0], mined.positives),
        ("negatives", distribution.negatives, cuts[1], quantiles[1], mined.negatives),
    ):
        kinds[kind] = {
            "pairs": int(counts.sum()),
            "median": distribution.quantile(counts, 0.5),
            "quantiles": list(shares),
            "low": cut.low,
            "high": cut.high if np.isfinite(cut.high) else None,
            "mined": int((chosen != NOBODY).sum()),
            "images_with_none": int((chosen[:, 0] == NOBODY).sum()),
        }
    margins = mined.margins()
    return {
        "distance": images.distances.distance,
        "images": len(images),
        "classes": images.n_classes,
        **kinds,
        "separation": distribution.separation,
        "overlap": distribution.overlap,
        "mixed_pairs": mined.mixed_pairs,
        "mixed_images": mined.mixed_images,
        "triplets": len(margins),
        "triplets_wrong": float((margins <= 0).mean()) if len(margins) else None,
    }


def describe_classes(summary: dict[str, Any]) -> str:
    """Return the summary of mined images as text."""
    rows = [["", "pairs", "median", "mined from", "to", "quantiles", "mined", "images with none"]]
    for label, kind in (("within classes", "positives"), ("between classes", "negatives")):
        of_kind = summary[kind]
        low, high = of_kind["quantiles"]
        rows.append(
            [
                label,
                f"{of_kind['pairs']:,}",
                f"{of_kind['median']:.4f}",
                f"{of_kind['low']:.4f}",
                "any" if of_kind["high"] is None else f"{of_kind['high']:.4f}",
                f"{low:g} to {high:g}",
                f"{of_kind['mined']:,} {kind}",
                f"{of_kind['images_with_none']:,}",
            ]
        )
    lines = [
        f"{summary['images']:,} images of {summary['classes']:,} classes, "
        f"{summary['distance']} distance",
        align_columns(rows, right=[1, 2, 3, 4, 6, 7]),
        f"A pair of one class is nearer than a pair of two in {summary['separation']:.1%} of "
        f"cases (chance: 50%); the two distributions overlap by {summary['overlap']:.0%}.",
        f"{summary['mixed_pairs']:.1%} of the positives are farther from their image than its "
        f"nearest negative; of {summary['mixed_images']:.1%} of the images the nearest other "
        "one is a negative.",
    ]
    if summary["triplets"]:
        lines.append(
            f"{summary['triplets']:,} triplets of these, {summary['triplets_wrong']:.1%} of them "
            "answered wrong by the distance."
        )
    else:
        lines.append("No triplet: no image has a positive and a negative between the cuts.")
    return "\n".join(lines)


def summarise_triplets(margins: np.ndarray, hardest: np.ndarray, distance: str) -> dict[str, Any]:
    """Return what margins all triplets have, and the hardest ones.

    Args:
        margins: `(n_triplets,)`, NaN where an image could not be read.
        hardest: indices of those kept.
    """
    import numpy as np

    def describe(of_part: np.ndarray) -> dict[str, Any]:
        return {
            "triplets": len(of_part),
            "wrong": float((of_part <= 0).mean()),
            "lowest_margin": float(of_part.min()),
            "median_margin": float(np.median(of_part)),
            "highest_margin": float(of_part.max()),
        }

    return {
        "distance": distance,
        "all": describe(margins[np.isfinite(margins)]),
        "kept": describe(margins[hardest]),
    }


def describe_triplets(summary: dict[str, Any]) -> str:
    """Return the summary of the hardest triplets as text."""
    rows = [["", "triplets", "answered wrong", "margin from", "median", "to"]]
    for label, part in (("all", summary["all"]), ("hardest, kept", summary["kept"])):
        margins = [part[f"{which}_margin"] for which in ("lowest", "median", "highest")]
        rows.append(
            [
                label,
                f"{part['triplets']:,}",
                f"{part['wrong']:.1%}",
                *(f"{margin:.4f}" for margin in margins),
            ]
        )
    return (
        f"{align_columns(rows, right=range(1, 6))}\n"
        f"margin = d(anchor, negative) - d(anchor, positive), {summary['distance']} distance"
    )
