"""Write scikit-learn's handwritten digits as a little competition.

    python examples/write_digits.py FOLDER

makes FOLDER/images (700 PNGs), train.txt (6,000 triplets `anchor positive negative` over 500
of them), test.txt with truth.csv (2,000 questions over the other 200, the two candidates in
chance order), and labels.csv (which digit each is). Two digits look alike if they are the same
digit. The images are real: 8 x 8 scans of the writing of 43 people (Alpaydin, Kaynak. Optical
Recognition of Handwritten Digits. UCI, 1998).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from tripletkit.data.triplets import write_triplets

N_TRAIN, N_TEST = 500, 200
N_TRAIN_TRIPLETS, N_TEST_TRIPLETS = 6_000, 2_000
SIDE_PX = 64


def main(folder: Path) -> None:
    """Write images, triplets and truth."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(digits.images))[: N_TRAIN + N_TEST]
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names = [f"{number:04d}.png" for number in range(len(chosen))]
    for name, index in zip(names, chosen, strict=True):
        # 0 is paper and 16 is ink in the data set.
        pixels = (255 - digits.images[index] * 255 / 16).astype(np.uint8)
        image = Image.fromarray(pixels).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
        image.save(folder / "images" / name)

    labels = digits.target[chosen]
    train = draw_triplets(labels[:N_TRAIN], N_TRAIN_TRIPLETS, rng)
    test = draw_triplets(labels[N_TRAIN:], N_TEST_TRIPLETS, rng) + N_TRAIN
    truth = rng.integers(0, 2, len(test))
    test = np.where(truth[:, None] == 1, test, test[:, [0, 2, 1]])

    write_triplets(folder / "train.txt", names, train)
    write_triplets(folder / "test.txt", names, test)
    write_lines(folder / "truth.csv", ["label", *map(str, truth)])
    rows = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
    write_lines(folder / "labels.csv", ["name,label", *rows])
    print(f"Wrote {len(names)} images, {len(train):,} + {len(test):,} triplets to {folder}/.")


def write_lines(path: Path, lines: list[str]) -> None:
    """Write a small text file."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def draw_triplets(labels: np.ndarray, n_triplets: int, rng: np.random.Generator) -> np.ndarray:
    """Return `(n_triplets, 3)` rows: two images of one digit and one of another."""
    rows = []
    while len(rows) < n_triplets:
        anchor, positive, negative = rng.integers(0, len(labels), 3)
        if anchor != positive and labels[anchor] == labels[positive] != labels[negative]:
            rows.append((anchor, positive, negative))
    return np.array(rows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/write_digits.py FOLDER")
    main(Path(sys.argv[1]))
