"""What can be chosen by name, and what is stored: backbones, losses, settings, features."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tripletkit import defaults
from tripletkit.api.given import PathLike, as_path
from tripletkit.features.backbones import BACKBONES, load_plugins, read_facts
from tripletkit.features.feature_parts import remove_networks
from tripletkit.features.store import FeatureStore, clear_store, find_store
from tripletkit.losses.loss_registry import LOSSES
from tripletkit.model.settings import SETTINGS
from tripletkit.results import Result, Section, Table


@dataclass(frozen=True, repr=False)
class Listing(Result):
    """Things that can be chosen by name.

    Attributes:
        kind: what they are, such as `"backbones"`.
        facts: name -> what is known of it.
    """

    kind: str
    facts: Mapping[str, Mapping[str, Any]]
    _shown: Sequence[Section]
    _of_hub: Sequence[Mapping[str, str]] = ()

    def __len__(self) -> int:
        return len(self.facts)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as JSON takes them."""
        if self.kind == "settings":
            return {name: dict(facts) for name, facts in self.facts.items()}
        of_hub = {"hub": list(map(dict, self._of_hub))} if self._of_hub else {}
        return {self.kind: [dict(facts) for facts in self.facts.values()]} | of_hub

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each, named by it."""
        return pd.DataFrame.from_dict(dict(self.facts), orient="index")

    def _summary(self) -> str:
        names = list(self.facts)
        more = ", ..." if len(names) > 8 else ""
        return f"{len(self)} {self.kind}, {', '.join(names[:8])}{more}"

    def _sections(self) -> Sequence[Section]:
        return self._shown

    def _notebook_sections(self) -> Sequence[Section]:
        # Papers and long explanations are for a terminal, where one can search.
        return self._shown[:1]


def list_backbones() -> Listing:
    """Return the frozen networks that a model can start from, and which are ready to use.

    Returns:
        A `Listing`; ready means without a download. Some good encoders of the Hugging Face hub are
        shown below them, and are `hub` of `to_dict()`.
    """
    load_plugins()
    facts = {
        backbone.name: {
            "name": backbone.name,
            "ready": backbone.is_ready(),
            "n_features": backbone.n_features,
            "input_size_px": backbone.input_size_px,
            "resize": backbone.preprocessing.resample,
            "weights": backbone.origin,
            "licence": backbone.licence,
            "paper": backbone.paper,
        }
        for backbone in BACKBONES.values()
    }
    rows = [["name", "ready", "features", "input", "weights", "licence"]]
    rows += [
        [
            name,
            "yes" if row["ready"] else "no",
            f"{row['n_features']:,}",
            f"{row['input_size_px']} px, {row['resize']}",
            str(row["weights"]),
            str(row["licence"]),
        ]
        for name, row in facts.items()
    ]
    of_hub = read_facts("hub_encoders.csv")
    shown = [["encoder", "backbone", "float32 file", "licence"]]
    shown += [[row[key] for key in ("encoder", "backbone", "size", "licence")] for row in of_hub]
    notes = (
        "Encoders of the Hugging Face hub, for `backbone` too: pip install 'tripletkit[hub]'.",
        "None was run here; docs/encoders.md says where each fact was read.",
    )
    papers = [f"{name}: {row['paper']}" for name, row in facts.items()]
    return Listing(
        "backbones", facts, [[Table(rows, right=[2])], [*notes, Table(shown)], papers], of_hub
    )


def list_losses() -> Listing:
    """Return what a model can learn by, with formulas and papers."""
    facts = {
        name: {key: value for key, value in asdict(loss).items() if key != "of_triplets"}
        | {"needs_labels": loss.needs_labels}
        for name, loss in LOSSES.items()
    }
    rows = [["name", "labels", "formula"]]
    rows += [
        [loss.name, "needed" if loss.needs_labels else "", loss.formula] for loss in LOSSES.values()
    ]
    papers = [f"{loss.name}: {loss.summary}.\n  {loss.paper}" for loss in LOSSES.values()]
    return Listing("losses", facts, [[Table(rows)], papers])


def list_settings() -> Listing:
    """Return the settings of a training: what each is, may be, and is by default."""
    facts = {
        name: {"default": each.default, "may_be": each.describe(), "help": each.help}
        for name, each in SETTINGS.items()
    }
    rows = [["setting", "default", "may be"]]
    rows += [[name, str(row["default"]).lower(), str(row["may_be"])] for name, row in facts.items()]
    note = "Defaults are those of the recipe mlp; other recipes have some of their own."
    texts = [
        f"{name}\n{textwrap.fill(str(row['help']), 92, initial_indent=_IN, subsequent_indent=_IN)}"
        for name, row in facts.items()
    ]
    return Listing("settings", facts, [[Table(rows)], [note], texts])


_IN = " " * 4


@dataclass(frozen=True, repr=False)
class StoredFeatures(Result):
    """What the feature store holds.

    Attributes:
        path: of the store.
        size_bytes: on disk.
        spaces: for each backbone and view of images: its name, weights, images, size, last use.
    """

    path: Path
    size_bytes: int
    spaces: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return {"path": str(self.path), "size_bytes": self.size_bytes, "spaces": self.spaces}

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row for each space."""
        return pd.DataFrame(self.spaces)

    def _summary(self) -> str:
        return f"{self.path}, {_show_megabytes(self.size_bytes)}"

    def _sections(self) -> list[Section]:
        if not self.spaces:
            return [[f"{self.path}: empty"]]
        rows = [["backbone", "weights", "stage", "view", "images", "size", "last used"]]
        rows += [
            [
                row["backbone"],
                row["weights_sha256"][:12],
                row["stage"],
                row["view"],
                f"{row['n_images']:,}",
                _show_megabytes(row["size_bytes"]),
                row["last_used"],
            ]
            for row in self.spaces
        ]
        size = _show_megabytes(self.size_bytes)
        return [[f"{self.path}: {size}", Table(rows, right=[4, 5])]]


def cache_info(cache: PathLike | None = None) -> StoredFeatures:
    """Return where the feature store is and what it holds.

    Args:
        cache: folder of the feature store. Defaults to the user's.
    Returns:
        `StoredFeatures`.
    """
    where = as_path(cache)
    path, size_bytes = find_store(where)
    spaces: list[dict[str, Any]] = []
    if size_bytes is not None:
        with FeatureStore(where) as store:
            spaces = store.uses()
        size_bytes = find_store(where)[1]
    return StoredFeatures(Path(path), size_bytes or 0, spaces)


def clear_cache(cache: PathLike | None = None) -> int:
    """Delete the feature store, and the networks written beside it; both are made when needed.

    Args:
        cache: folder of the feature store. Defaults to the user's.
    Returns:
        How many bytes were freed.
    """
    where = as_path(cache)
    return clear_store(where) + remove_networks(find_store(where)[0].parent)


def prune_cache(
    cache: PathLike | None = None, *, unused_days: int = defaults.PRUNE_UNUSED_DAYS
) -> int | None:
    """Delete features of images that are gone or changed, and of backbones long unused.

    Args:
        cache: folder of the feature store. Defaults to the user's.
        unused_days: features of backbones that were not used for so many days are dropped.
    Returns:
        Of how many images features were dropped; None where there is no store.
    """
    where = as_path(cache)
    path, size_bytes = find_store(where)
    if size_bytes is None:
        return None
    with FeatureStore(where) as store:
        dropped = store.prune(unused_days)
    remove_networks(path.parent, time.time() - unused_days * 86_400)
    return dropped


def _show_megabytes(size_bytes: int) -> str:
    """Return a size as people read it."""
    return f"{size_bytes / 1e6:,.1f} MB"
