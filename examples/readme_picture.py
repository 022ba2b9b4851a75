"""Draw the picture at the top of the README, for a light and for a dark page.

    pip install scikit-image
    python examples/readme_picture.py quickstart/model/model.json docs/images

The three photos are textures that scikit-image brings along (grass, gravel, brick; CC0 by
CC0Textures). The two accuracies are those that `train` wrote into the model folder of the
quickstart, on images that it held out.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch, Rectangle

# Paper, ink, quiet ink, line of a chosen candidate, bar of frozen features, bar of the model.
LIGHT = ("#ffffff", "#1f2328", "#59636e", "#0b6b3a", "#b6bec8", "#0b6b3a")
DARK = ("#0d1117", "#f0f6fc", "#9198a1", "#4ac26b", "#57606a", "#4ac26b")


def draw(photos: list[np.ndarray], accuracies: tuple[float, float], colors: tuple[str, ...]):
    """Return a figure: the question, its answer, and what answering is worth."""
    paper, ink, quiet, chosen, frozen, trained = colors
    figure = plt.figure(figsize=(12.8, 4.0), facecolor=paper)
    places = ((0.225, 0.16, 0.66), (0.03, 0.21, 0.52), (0.465, 0.21, 0.52))
    for photo, (left, bottom, height), title in zip(photos, places, ("A", "B", "C"), strict=True):
        axes = figure.add_axes((left, bottom, height * 4.0 / 12.8, height))
        axes.imshow(photo, cmap="gray")
        axes.set_axis_off()
        axes.set_title(title, color=ink, fontsize=15, fontweight="bold")
        if title == "B":
            axes.add_patch(
                Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, ec=chosen, lw=7)
            )
    figure.text(0.328, 0.93, "Is A more like B or like C?", ha="center", color=ink, fontsize=18)
    figure.text(0.113, 0.09, "like B: 1", ha="center", color=chosen, fontsize=16)
    figure.text(0.546, 0.09, "like C: 0", ha="center", color=quiet, fontsize=16)

    axes = figure.add_axes((0.735, 0.2, 0.25, 0.52))
    for place, (accuracy, color) in enumerate(zip(accuracies, (frozen, trained), strict=True)):
        axes.add_patch(
            FancyBboxPatch(
                (place, 0.5), 0.62, accuracy - 0.5, boxstyle="square,pad=0", fc=color, ec="none"
            )
        )
        axes.text(
            place + 0.31, accuracy + 0.02, f"{accuracy:.2f}", ha="center", color=ink, fontsize=18
        )
    axes.set(xlim=(-0.15, 1.8), ylim=(0.5, 1.04), facecolor=paper)
    axes.set_xticks((0.31, 1.31), ("frozen\nfeatures", "trained on\njudgements"), fontsize=13)
    axes.set_yticks((0.5, 1.0), ("0.5", "1"), fontsize=11)
    axes.tick_params(colors=quiet, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(quiet)
    figure.text(0.86, 0.93, "Accuracy on unseen images", ha="center", color=ink, fontsize=18)
    figure.text(
        0.86, 0.845, "(handwritten digits of the quickstart)", ha="center", color=quiet, fontsize=12
    )
    return figure


def main() -> None:
    """Read the photos and the record, and write two pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("record", type=Path, help="model.json of the quickstart")
    parser.add_argument("folder", type=Path, help="folder of the two pictures")
    given = parser.parse_args()
    from skimage import data

    photos = [image[:360, :360] for image in (data.grass(), data.gravel(), data.brick())]
    rows = json.loads(given.record.read_text(encoding="utf-8"))["pooled"]
    accuracies = (rows["frozen"]["accuracy"], rows["trained"]["accuracy"])
    for name, colors in (("question-light", LIGHT), ("question-dark", DARK)):
        figure = draw(photos, accuracies, colors)
        figure.savefig(given.folder / f"{name}.webp", dpi=110, pil_kwargs={"quality": 82})


if __name__ == "__main__":
    main()
