"""What a model is, in a line and as a card for notebooks."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

from tripletkit.data.folder import list_images
from tripletkit.errors import ImageNameError, ImageReadError
from tripletkit.evaluation.intervals import Interval, NoInterval
from tripletkit.evaluation.pooled import PooledScore
from tripletkit.evaluation.scoring import Score
from tripletkit.features.encoder import Encoder
from tripletkit.model.model_folder import ModelFolder

_N_IMAGES, _SIDE_PX = 6, 72


def describe_model(encoder: Encoder, folder: ModelFolder | None, path: Path | None) -> str:
    """Return what a model is, in a line.

    Args:
        encoder: the model's.
        folder: its files; None without a training.
        path: its folder, None before it is saved.
    """
    facts = _facts(encoder, folder, path)
    return ", ".join(f"{name} {value}" if name else value for name, value in facts)


def draw_card(encoder: Encoder, folder: ModelFolder | None, path: Path | None) -> str:
    """Return what a model is as HTML, with a few of the images that it was trained with.

    Args:
        encoder, folder, path: see `describe_model`.
    """
    title, *facts = _facts(encoder, folder, path)
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in facts
    )
    return (
        f"<div><strong>{html.escape(' '.join(title).strip())}</strong>"
        f"<table>{rows}</table>{_draw_images(folder)}</div>"
    )


def _facts(
    encoder: Encoder, folder: ModelFolder | None, path: Path | None
) -> list[tuple[str, str]]:
    backbones = " + ".join(part.backbone.name for part in encoder.parts)
    if folder is None:
        return [
            ("", f"tripletkit backbone {backbones}"),
            ("features", f"{encoder.n_features:,} numbers"),
            ("distance", encoder.distance),
        ]
    record = folder.record
    facts = [
        ("", f"tripletkit model {path or '(not saved)'}"),
        ("recipe", record.settings.recipe),
        ("backbone", backbones or "none, features were given"),
        ("distance", record.settings.distance),
        ("trained on", f"{record.split.n_train:,} triplets, {record.n_images:,} images"),
    ]
    if validation := record.validation or record.pooled:
        facts += [
            ("validation", _describe(validation.trained)),
            ("frozen features", _describe(validation.frozen)),
        ]
    return facts


def _describe(score: Score | PooledScore) -> str:
    interval: Interval | NoInterval | None
    if isinstance(score, PooledScore):
        interval, n = score.interval, score.n_triplets
    else:
        interval, n = score.image_interval or score.wilson, score.n
    reach = f"95% interval {interval.low:.3f} to {interval.high:.3f}, " if interval else ""
    return f"{score.accuracy:.3f} ({reach}{n:,} triplets)"


def _draw_images(model: ModelFolder | None) -> str:
    """Return a few images of the image folder; none where it is gone, or there was none."""
    if model is None or (folder := model.image_folder) is None:
        return ""
    from tripletkit.reporting.collages import read_thumbnail

    try:
        names = list_images(folder)
    except ImageNameError:
        return ""
    drawn = []
    # Evenly over the names, since neighbours in that order are often alike.
    for place in range(min(_N_IMAGES, len(names))):
        name = names[place * len(names) // _N_IMAGES if len(names) > _N_IMAGES else place]
        file = io.BytesIO()
        try:
            read_thumbnail(folder / name, _SIDE_PX).save(file, "JPEG", quality=85)
        except ImageReadError:
            continue
        data = base64.b64encode(file.getvalue()).decode()
        drawn.append(
            f"<img src='data:image/jpeg;base64,{data}' title='{html.escape(name, quote=True)}' "
            f"alt='{html.escape(name, quote=True)}' style='display:inline-block;margin:2px'>"
        )
    return "".join(drawn)
