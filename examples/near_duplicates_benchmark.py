"""What near-duplicates flatter: copies of a tenth of the images, under other names.

    python examples/near_duplicates_benchmark.py clothing/ work/ [--recipes map mlp] [--seeds 3]

The folder has images/, train.txt, and val.txt with val_truth.csv as a test of other images. A tenth
of the images of training gets a copy: cut by 5% on each side, brighter by 15%, or written again as
a JPEG of quality 50. Wherever such an image is named, its copy is named half of the times. The
held-out accuracy that training prints is compared with that without copies, and both with the test.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

import tripletkit as tk

SHARE, SEED = 0.1, 5
KINDS = ("cut", "brighter", "written again")


def write_copy(source: Path, target: Path, kind: str) -> None:
    """Write a near-duplicate of an image."""
    with Image.open(source) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    if kind == "cut":
        image = image.crop((width // 20, height // 20, width - width // 20, height - height // 20))
    elif kind == "brighter":
        image = ImageEnhance.Brightness(image).enhance(1.15)
    image.save(target, quality=50 if kind == "written again" else 88)


def copy_images(data: Path, work: Path) -> tk.Triplets:
    """Fill work/images with all images and the copies, and return triplets that name both."""
    rng = np.random.default_rng(SEED)
    triplets = tk.read_judgements(data / "train.txt").triplets
    shutil.copytree(data / "images", work / "images", dirs_exist_ok=True)
    chosen = rng.choice(len(triplets.names), round(SHARE * len(triplets.names)), replace=False)
    copy_of = {}
    names = list(triplets.names)
    for number, image in enumerate(chosen.tolist()):
        copy_of[image] = len(names)
        name = f"copy{number:03}.jpg"
        write_copy(work / "images" / names[image], work / "images" / name, KINDS[number % 3])
        names.append(name)
    rows = triplets.rows.copy()
    for row in rows:
        for place in range(3):
            if row[place] in copy_of and rng.random() < 0.5:
                row[place] = copy_of[row[place]]
    return tk.Triplets.from_array(rows, names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--recipes", nargs="+", default=["map"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    sets = {
        "without": tk.read_judgements(options.data / "train.txt").triplets,
        "with": copy_images(options.data, options.work),
    }
    print("recipe  seed  copies   held out  test    flattered by")
    for recipe in options.recipes:
        for seed in range(options.seeds):
            for name, triplets in sets.items():
                model = tk.train(
                    triplets,
                    options.work / "images",
                    recipe=recipe,
                    backbone=options.backbone,
                    seed=seed,
                    cache=options.cache,
                )
                answers = model.answer(options.data / "val.txt", images=options.work / "images")
                test = tk.score(answers, options.data / "val_truth.csv").accuracy
                held_out = model.validation.trained.accuracy
                print(
                    f"{recipe:8}{seed:4}  {name:8} {held_out:.4f}    {test:.4f}  "
                    f"{100 * (held_out - test):+.2f} points",
                    flush=True,
                )


if __name__ == "__main__":
    main()
