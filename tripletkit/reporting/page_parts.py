"""What a page shows beside figures: triplets, a map, neighbours, and all rows as a CSV."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tripletkit.data.text_files import guard_formula
from tripletkit.reporting.collages import thumbnail_uri
from tripletkit.reporting.model_view import ModelView
from tripletkit.reporting.projections import choose_apart, project_embeddings
from tripletkit.reporting.style import LIGHT
from tripletkit.search.image_search import find_neighbors

_N_MISTAKES, _N_CLOSE = 60, 30
_N_DIFFERING, _N_SHARED, _N_CLOSE_OF_ALL = 50, 25, 15
_N_CULPRITS = 8
_N_QUERIES, _N_NEIGHBORS = 6, 8
_N_MAP_IMAGES = 100
_MAP_STEP = 0.07
_N_MAP_DOTS = 3_000


class PageParts:
    """The parts of a page, and the images that they show, each held once.

    Attributes:
        sources: data URIs of the images in the order in which they were first shown.
    """

    def __init__(self, models: Sequence[ModelView]) -> None:
        """Count in how many mistakes of any model each image is, and each pair with the anchor."""
        self.sources: list[str] = []
        self._models, self._view = models, models[0]
        self._numbers: dict[int, int] = {}
        self._of_image: Counter[int] = Counter()
        self._of_pair: Counter[frozenset[int]] = Counter()
        for model in models:
            for anchor, *others in model.triplets.rows[model.mistakes].tolist():
                self._of_image.update((anchor, *others))
                self._of_pair.update(frozenset((anchor, other)) for other in others)

    def _show(self, image: int) -> dict[str, Any]:
        """Return what the template needs of an image."""
        if image not in self._numbers:
            path = self._view.paths[image]
            assert path is not None, "an image that cannot be read is shown nowhere"
            self._numbers[image] = len(self.sources)
            self.sources.append(thumbnail_uri(path))
        return {
            "number": self._numbers[image],
            "name": self._view.triplets.names[image],
            "label": self._view.label_of(image),
        }

    def triplets(self) -> list[dict[str, Any]]:
        """Return the triplets to look at, each with the margin of every model.

        With one model these are its surest mistakes and its closest calls. With several they are
        those on which the models differ most, the surest mistakes of all, and the closest calls.
        """
        view, models = self._view, self._models
        chosen = _choose_of_one(view) if len(models) == 1 else _choose_of_several(models)
        shown = []
        for kind, row in chosen:
            anchor, *_ = images = view.triplets.rows[row].tolist()
            slots = [
                self._show(image)
                | {
                    "role": role,
                    "n_mistakes": self._of_image[image],
                    # Of the anchor with itself there is none.
                    "n_pair_mistakes": self._of_pair[frozenset((anchor, image))],
                }
                for role, image in zip(("anchor", "positive", "negative"), images, strict=True)
            ]
            numbers = [slot["number"] for slot in slots]
            shown.append(
                {
                    "kind": kind,
                    "line": int(view.triplets.lines[row]),
                    "slots": slots,
                    "images": numbers,
                    "pairs": ["{}-{}".format(*sorted((numbers[0], n))) for n in numbers[1:]],
                    "to_positive": float(view.to_positive[row]),
                    "to_negative": float(view.to_negative[row]),
                    "margins": [float(model.margins[row]) for model in models],
                }
            )
        return shown

    def culprits(self) -> list[dict[str, Any]]:
        """Return the images in the most mistakes, and how many answers they are in at all."""
        named = [model.triplets.rows[model.is_answered].ravel() for model in self._models]
        n_named = np.bincount(np.concatenate(named), minlength=len(self._view.paths))
        return [
            self._show(image) | {"n_mistakes": n_wrong, "n_triplets": int(n_named[image])}
            for image, n_wrong in self._of_image.most_common(_N_CULPRITS)
        ]

    def labels(self) -> dict[str, str]:
        """Return label -> the classes of its colour and shape in the style sheet."""
        view = self._view
        labels = sorted({label for image in view.labelled if (label := view.label_of(image))})
        return {
            label: "class-{1} turn-{0}".format(*divmod(number, len(LIGHT.classes)))
            for number, label in enumerate(labels)
        }

    def map(self, model: ModelView, projection: str) -> dict[str, Any] | None:
        """Return places of images and dots in percent; None for fewer than two images."""
        images, mark_of = model.shown, self.labels()
        if len(images) < 2:
            return None
        places = project_embeddings(model.embeddings[images], projection)
        imaged = choose_apart(places, _MAP_STEP, _N_MAP_IMAGES)

        def place(index: int) -> dict[str, Any]:
            x, y = (100 * places[index]).round(2).tolist()
            name, label = model.triplets.names[images[index]], model.label_of(images[index])
            return {
                "x": x,
                "y": round(100 - y, 2),
                "mark": mark_of.get(label or "", ""),
                "title": f"{name}, {label}" if label else name,
            }

        dots = np.setdiff1d(np.arange(len(images)), imaged)
        shown = np.linspace(0, len(dots) - 1, min(len(dots), _N_MAP_DOTS)).astype(int)
        return {
            "name": model.name,
            "n_images": len(images),
            "images": [place(index) | self._show(int(images[index])) for index in imaged],
            "dots": [place(index) for index in dots[shown]],
        }

    def neighbors(self) -> list[dict[str, Any]]:
        """Return a few images with those nearest to them: of many mistakes, and evenly drawn."""
        images = self._view.shown
        for model in self._models[1:]:
            images = images[np.isin(images, model.shown)]
        if len(images) < 2:
            return []
        hard = [i for i, _ in self._of_image.most_common(_N_QUERIES // 2) if i in images]
        spread = images[np.linspace(0, len(images) - 1, _N_QUERIES).astype(int)].tolist()
        queries = list(dict.fromkeys([*hard, *spread]))[:_N_QUERIES]
        strips = [self._strips(model, queries, images) for model in self._models]
        return [
            {
                "query": self._show(query),
                "strips": [
                    {"name": model.name, "near": of_model[number]}
                    for model, of_model in zip(self._models, strips, strict=True)
                ],
            }
            for number, query in enumerate(queries)
        ]

    def _strips(
        self, model: ModelView, queries: Sequence[int], images: np.ndarray
    ) -> list[list[dict[str, Any]]]:
        """Return the neighbours of each query as a model finds them."""
        found = find_neighbors(
            model.embeddings[images],
            model.embeddings[list(queries)],
            _N_NEIGHBORS,
            model.model.distance,
            [np.flatnonzero(images == query) for query in queries],
        )
        strips = []
        for number, query in enumerate(queries):
            label, near = model.label_of(query), []
            for row, distance in found.of(number):
                other = model.label_of(images[row])
                same = None if None in (label, other) else label == other
                near.append(self._show(int(images[row])) | {"distance": distance, "same": same})
            strips.append(near)
        return strips


def _choose_of_one(view: ModelView) -> list[tuple[str, int]]:
    """Return kind and row: the surest mistakes, then the closest calls among the right ones."""
    order = np.argsort(view.margins, kind="stable")[: int(view.is_answered.sum())]
    is_wrong = view.margins[order] <= 0
    kinds = (
        ("mistake", order[is_wrong][:_N_MISTAKES]),
        ("close call", order[~is_wrong][:_N_CLOSE]),
    )
    return [(kind, int(row)) for kind, rows in kinds for row in rows]


def _choose_of_several(models: Sequence[ModelView]) -> list[tuple[str, int]]:
    """Return kind and row, of triplets that every model can answer."""
    margins = np.stack([_in_units(model) for model in models])
    known = np.flatnonzero(np.isfinite(margins).all(axis=0))
    n_right = (margins[:, known] > 0).sum(axis=0)
    low, high = margins[:, known].min(axis=0), margins[:, known].max(axis=0)
    kinds = (
        ("models differ", (n_right > 0) & (n_right < len(models)), low - high, _N_DIFFERING),
        ("mistake of all", n_right == 0, high, _N_SHARED),
        ("close call", n_right == len(models), low, _N_CLOSE_OF_ALL),
    )
    chosen = []
    for kind, is_one, key, n in kinds:
        of_kind = np.flatnonzero(is_one)
        order = of_kind[np.argsort(key[of_kind], kind="stable")][:n]
        chosen += [(kind, int(row)) for row in known[order]]
    return chosen


def _in_units(view: ModelView) -> np.ndarray:
    """Return `(n_triplets,)` margins in units of their median size, to be compared with others."""
    sizes = np.abs(view.margins[view.is_answered])
    return view.margins / max(float(np.median(sizes)) if len(sizes) else 0.0, 1e-12)


def pack_rows(models: Sequence[ModelView]) -> bytes:
    """Return all rows as a CSV, compressed; with several models each has columns of its own."""
    triplets = models[0].triplets
    names = np.array([guard_formula(name) for name in triplets.names], dtype=object)
    table = pd.DataFrame(names[triplets.rows], columns=["anchor", "positive", "negative"])
    table.insert(0, "line", triplets.lines)
    for view in models:
        of = "" if len(models) == 1 else f"{view.name}: "
        for what, values in (
            ("d_positive", view.to_positive),
            ("d_negative", view.to_negative),
            ("margin", view.margins),
        ):
            table[guard_formula(of + what)] = np.where(view.is_answered, values, np.nan)
        table[guard_formula(f"{of}right")] = (view.margins > 0).astype(int)
    text = table.to_csv(index=False, float_format="%.5g", lineterminator="\n")
    return gzip.compress(text.encode(), mtime=0)
