"""Images that tests draw, and judgements of their colours."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

COLOURS = ["red", "lime", "blue", "yellow", "black", "magenta"]


def draw_images(folder: Path, n_images: int, rng: np.random.Generator) -> list[str]:
    """Draw p00.png and on, in colours by turns, six discs and six boxes each; return the names."""
    folder.mkdir(parents=True)
    names = [f"p{number:02}.png" for number in range(n_images)]
    for number, name in enumerate(names):
        image = Image.new("RGB", (40, 36), "white")
        x, y = rng.integers(2, 14, 2)
        draw = ImageDraw.Draw(image)
        shape = (draw.ellipse, draw.rectangle)[number // len(COLOURS) % 2]
        shape((x, y, x + 20, y + 16), fill=COLOURS[number % len(COLOURS)])
        image.putpixel((39, 35), (number, number, number))
        image.save(folder / name)
    return names


def draw_rows(
    low: int, high: int, n_rows: int, rng: np.random.Generator, share_wrong: float = 0.0
) -> list[list[int]]:
    """Draw triplets of images from `low` to below `high`: the positive has the anchor's colour."""
    rows: list[list[int]] = []
    while len(rows) < n_rows:
        a, b, c = map(int, rng.choice(np.arange(low, high), 3, replace=False))
        if (a - b) % len(COLOURS) == 0 != (a - c) % len(COLOURS):
            is_wrong = share_wrong and rng.random() < share_wrong
            rows.append([a, c, b] if is_wrong else [a, b, c])
    return rows


def class_triplets(labels: np.ndarray, n_triplets: int, seed: int = 0) -> np.ndarray:
    """Triplets whose positive is of the anchor's class and whose negative is of another."""
    rng = np.random.default_rng(seed)
    rows = []
    while len(rows) < n_triplets:
        row = rng.permutation(len(labels))[:3]
        if labels[row[0]] == labels[row[1]] != labels[row[2]]:
            rows.append(row)
    return np.array(rows)
