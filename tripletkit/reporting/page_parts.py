"""What a page shows beside figures: triplets, a map, neighbours, and all rows as a CSV."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tripletkit.data.names import guard_formula
from tripletkit.reporting.collages import Album
from tripletkit.reporting.model_view import ModelView
from tripletkit.reporting.projections import choose_apart, project_embeddings
from tripletkit.reporting.reported import Reported
from tripletkit.reporting.style import LIGHT
from tripletkit.search.exact import find_neighbors

_N_MISTAKES, _N_CLOSE = 60, 30
_N_DIFFERING, _N_SHARED, _N_CLOSE_OF_ALL = 50, 25, 15
_N_CULPRITS = 8
_N_QUERIES, _N_NEIGHBORS = 6, 8
_N_MAP_IMAGES = 100
_MAP_STEP = 0.07
_N_MAP_DOTS = 3_000

_MISTAKE, _CLOSE, _DIFFERING, _SHARED = "mistake", "close call", "models differ", "mistake of all"


def list_triplets(models: Sequence[Reported], album: Album) -> list[dict[str, Any]]:
    """Return the triplets to look at, each with the margin of every model.

    With one model these are its surest mistakes and its closest calls. With several they are
    those on which the models differ most, the surest mistakes of all, and the closest calls.
    """
    view = models[0].view
    chosen = _choose_of_one(view) if len(models) == 1 else _choose_of_several(models)
    of_image, of_pair = _count_mistakes(models)
    shown = []
    for kind, row in chosen:
        anchor, positive, negative = view.triplets.rows[row].tolist()
        slots = [
            album.add(image)
            | {
                "role": role,
                "n_mistakes": of_image[image],
                # Of the anchor with itself there is none.
                "n_pair_mistakes": of_pair[frozenset((anchor, image))],
            }
            for role, image in zip(
                ("anchor", "positive", "negative"), (anchor, positive, negative), strict=True
            )
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
                "margins": [float(model.view.margins[row]) for model in models],
            }
        )
    return shown


def _choose_of_one(view: ModelView) -> list[tuple[str, int]]:
    """Return kind and row: the surest mistakes, then the closest calls among the right ones."""
    margins = np.where(view.known, view.margins, np.nan)
    order = np.argsort(margins, kind="stable")[: int(view.known.sum())]
    wrong = order[margins[order] <= 0]
    right = order[margins[order] > 0]
    return [(_MISTAKE, int(row)) for row in wrong[:_N_MISTAKES]] + [
        (_CLOSE, int(row)) for row in right[:_N_CLOSE]
    ]


def _choose_of_several(models: Sequence[Reported]) -> list[tuple[str, int]]:
    """Return kind and row, of triplets that every model can answer."""
    margins = np.stack([_in_units(model.view) for model in models])
    known = np.flatnonzero(np.isfinite(margins).all(axis=0))
    n_right = (margins[:, known] > 0).sum(axis=0)
    low, high = margins[:, known].min(axis=0), margins[:, known].max(axis=0)
    differ, none, every = (
        np.flatnonzero((n_right > 0) & (n_right < len(models))),
        np.flatnonzero(n_right == 0),
        np.flatnonzero(n_right == len(models)),
    )
    kinds = (
        (_DIFFERING, differ[np.argsort(low[differ] - high[differ], kind="stable")], _N_DIFFERING),
        (_SHARED, none[np.argsort(high[none], kind="stable")], _N_SHARED),
        (_CLOSE, every[np.argsort(low[every], kind="stable")], _N_CLOSE_OF_ALL),
    )
    return [(kind, int(known[place])) for kind, order, n in kinds for place in order[:n]]


def _in_units(view: ModelView) -> np.ndarray:
    """Return `(n_triplets,)` margins in units of their median size, to be compared with others."""
    sizes = np.abs(view.margins[view.known])
    return view.margins / max(float(np.median(sizes)) if len(sizes) else 0.0, 1e-12)


def _count_mistakes(
    models: Sequence[Reported],
) -> tuple[Counter[int], Counter[frozenset[int]]]:
    """Return in how many mistakes of any model each image is, and each pair with the anchor."""
    of_image: Counter[int] = Counter()
    of_pair: Counter[frozenset[int]] = Counter()
    for view in (model.view for model in models):
        for row in np.flatnonzero(view.known & (view.margins <= 0)):
            anchor, positive, negative = view.triplets.rows[row].tolist()
            of_image.update((anchor, positive, negative))
            of_pair.update((frozenset((anchor, positive)), frozenset((anchor, negative))))
    return of_image, of_pair


def list_culprits(models: Sequence[Reported], album: Album) -> list[dict[str, Any]]:
    """Return the images that are in the most mistakes, and how many answers they are in at all."""
    view = models[0].view
    of_image, _ = _count_mistakes(models)
    named = [model.view.triplets.rows[model.view.known].ravel() for model in models]
    n_named = np.bincount(np.concatenate(named), minlength=len(view.paths))
    return [
        album.add(image) | {"n_mistakes": n_wrong, "n_triplets": int(n_named[image])}
        for image, n_wrong in of_image.most_common(_N_CULPRITS)
    ]


def mark_labels(view: ModelView) -> dict[str | None, str]:
    """Return label -> the classes of its colour and shape in the style sheet; none for None."""
    labels = sorted({label for image in view.labelled if (label := view.label_of(image))})
    return {None: ""} | {
        label: "class-{1} turn-{0}".format(*divmod(number, len(LIGHT.classes)))
        for number, label in enumerate(labels)
    }


def make_map(model: Reported, album: Album, projection: str) -> dict[str, Any] | None:
    """Return places of images and dots in percent; None for fewer than two images."""
    view, images = model.view, model.view.shown
    if len(images) < 2:
        return None
    places = project_embeddings(view.embeddings[images], projection)
    imaged = choose_apart(places, _MAP_STEP, _N_MAP_IMAGES)
    mark_of = mark_labels(view)

    def place(index: int) -> dict[str, Any]:
        x, y = (100 * places[index]).round(2).tolist()
        image = images[index]
        label = view.label_of(image)
        return {
            "x": x,
            "y": round(100 - y, 2),
            "mark": mark_of[label],
            "title": view.triplets.names[image] + (f", {label}" if label else ""),
        }

    dots = np.setdiff1d(np.arange(len(images)), imaged)
    shown = np.linspace(0, len(dots) - 1, min(len(dots), _N_MAP_DOTS)).astype(int)
    return {
        "name": model.name,
        "n_images": len(images),
        "images": [place(index) | album.add(int(images[index])) for index in imaged],
        "dots": [place(index) for index in dots[shown]],
    }


def list_neighbors(models: Sequence[Reported], album: Album) -> list[dict[str, Any]]:
    """Return a few images with those nearest to them: of many mistakes, and evenly drawn."""
    images = np.array(
        [i for i in models[0].view.shown if all(i in model.view.shown for model in models)],
        dtype=np.int64,
    )
    if len(images) < 2:
        return []
    of_image, _ = _count_mistakes(models)
    hard = [image for image, _ in of_image.most_common(_N_QUERIES // 2) if image in images]
    spread = images[np.linspace(0, len(images) - 1, _N_QUERIES).astype(int)].tolist()
    queries = list(dict.fromkeys([*hard, *spread]))[:_N_QUERIES]
    strips = [_find_strips(model, queries, images, album) for model in models]
    return [
        {
            "query": album.add(query),
            "strips": [
                {"name": model.name, "near": of_model[number]}
                for model, of_model in zip(models, strips, strict=True)
            ],
        }
        for number, query in enumerate(queries)
    ]


def _find_strips(
    model: Reported, queries: Sequence[int], images: np.ndarray, album: Album
) -> list[list[dict[str, Any]]]:
    """Return the neighbours of each query as a model finds them."""
    view = model.view
    row_of = {image: row for row, image in enumerate(images.tolist())}
    found = find_neighbors(
        view.embeddings[images],
        view.embeddings[list(queries)],
        _N_NEIGHBORS,
        view.model.distance,
        [np.array([row_of[query]]) for query in queries],
    )
    strips = []
    for number, query in enumerate(queries):
        label, near = view.label_of(query), []
        for row, distance in found.of(number):
            other = view.label_of(int(images[row]))
            same = None if None in (label, other) else label == other
            near.append(album.add(int(images[row])) | {"distance": distance, "same": same})
        strips.append(near)
    return strips


def pack_rows(models: Sequence[Reported]) -> bytes:
    """Return all rows as a CSV, compressed; with several models each has columns of its own."""
    triplets = models[0].view.triplets
    names = np.array([guard_formula(name) for name in triplets.names], dtype=object)
    table = pd.DataFrame(names[triplets.rows], columns=["anchor", "positive", "negative"])
    table.insert(0, "line", triplets.lines)
    for model in models:
        view, of = model.view, "" if len(models) == 1 else f"{model.name}: "
        for what, values in (
            ("d_positive", view.to_positive),
            ("d_negative", view.to_negative),
            ("margin", view.margins),
        ):
            table[guard_formula(of + what)] = np.where(view.known, values, np.nan)
        table[guard_formula(f"{of}right")] = (view.margins > 0).astype(int)
    text = table.to_csv(index=False, float_format="%.5g", lineterminator="\n")
    return gzip.compress(text.encode(), mtime=0)
