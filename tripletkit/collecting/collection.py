"""A collection of judgements from its parts: images, database, study, training, pages."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.asking import Asker, AskingSettings, Known
from tripletkit.collecting.background import BackgroundTrainer, TrainerTask
from tripletkit.collecting.database import (
    MAX_NAME,
    JudgementDatabase,
    only_server,
    parse_name,
)
from tripletkit.collecting.offline import Imported, import_judgements, write_offline_page
from tripletkit.collecting.pages import Site, make_app
from tripletkit.collecting.serving import ScaledImages, bound_port, bound_server, shown_hosts
from tripletkit.collecting.study import (
    Study,
    find_changes,
    kept_settings,
    kept_study,
    read_study,
    settings_of,
    study_template,
)
from tripletkit.data.folder import list_images
from tripletkit.data.images import open_images, open_usable_images
from tripletkit.data.judgement_files import DATABASE_FORM, GRID
from tripletkit.data.judgements import Judgements, JudgementsLike, read_judgements
from tripletkit.data.outputs import (
    Destination,
    Outputs,
    marked_form,
    note_written,
    open_output,
)
from tripletkit.data.text_files import check_encodable
from tripletkit.data.triplets import Triplets
from tripletkit.errors import JudgementsError, SettingsError
from tripletkit.features.encoder import open_encoder
from tripletkit.features.feature_parts import BackboneLike, GivenWeights
from tripletkit.features.store import FeatureStore
from tripletkit.progress import Progress

logger = logging.getLogger("tripletkit")

_STUDY_FILE = "study.toml"
_STUDY_FORM = marked_form("a study", b"# What this study says")


class JudgementCollection:
    """A collection of judgements that is open: its pages are served, or written to a file.

    Made by `collect`; closed by `close`, or by leaving a `with` block.

    Attributes:
        links: name of a judge, `everybody` or `owner` -> the link of theirs.
        database: path of the database of judgements.
    """

    def __init__(
        self,
        images: Path,
        database: Path,
        study: Path | None,
        judges: Sequence[str],
        asking: AskingSettings,
        *,
        has_quota: bool,
        ask: str,
        gold: JudgementsLike | None,
        stops: bool,
        address: tuple[str, int] | None,
        url: str,
        backbone: Sequence[BackboneLike],
        weights: GivenWeights,
        cache: Path | None,
    ) -> None:
        self.database, self._url = database, url
        is_grid = asking.screen == GRID
        is_new = not database.exists() or not database.stat().st_size
        if is_new:
            Outputs().file(database, DATABASE_FORM)
        names = _list_names(images)
        opened = open_usable_images(images, names)
        opened.warn_of_missing()
        paths_of = {n: p for n, p in zip(names, opened.paths, strict=True) if p is not None}
        with ExitStack() as stack:
            # The port first: where it is taken, no empty database stays behind.
            self._listener = stack.enter_context(bound_port(*address)) if address else None
            stack.enter_context(only_server(database))
            kept = {} if is_new else kept_settings(database)
            told = self._open_study(study, kept)
            if is_grid and (told.practice or told.attention):
                raise JudgementsError(
                    f"{_STUDY_FILE}: expected no practice and no attention where grids are shown"
                )
            if told.quota and not has_quota:
                asking = replace(asking, n_questions=told.quota)
            collected = JudgementDatabase(database)
            note_written(database)
            numbers = collected.add_images(list(paths_of))
            self._paths = {numbers[name]: path for name, path in paths_of.items()}
            checks = [] if gold is None else _find_numbers(gold, images, numbers)
            checks += _find_told(told.attention, images, numbers)
            practice = _find_told(told.practice, images, numbers)
            reasons = ("".join(row[3:]) for row in told.practice)
            practised = dict(zip(practice, reasons, strict=True))
            asker = Asker(collected, list(self._paths), asking, checks, practised)
            now = settings_of(told, **asdict(asking), ask=ask)
            for change in find_changes(kept, now):
                logger.info("Other than at the last start: %s.", change)
            collected.keep_fact("settings", json.dumps(now))
            if collected.fact("ended"):
                logger.info("The study has ended: nobody is asked until its owner goes on with it.")
            self._judges = [collected.add_judge(name) for name in judges]
            self._stack = stack.pop_all()
        task = TrainerTask(
            database.absolute(),
            numbers,
            partial(_compute_features, images, list(paths_of), backbone, weights, cache),
            "random" if is_grid else defaults.AUTO_ASK if ask == "auto" else ask,
            defaults.SEED,
            asking.grid_of if is_grid else 0,
            told.stop_answers,
        )
        self._trainer = BackgroundTrainer(asker, task, is_enough=told.is_enough if stops else None)
        shown = ScaledImages(self._paths)
        self._site = Site(collected, asker, shown, told, self._trainer.status)
        base = url.rstrip("/")
        if not base and self._listener is not None:
            host, port = self._listener.getsockname()[:2]
            base = f"http://{shown_hosts(host)[0]}:{port}"
        self.links = {judge.name: f"{base}/j/{judge.token}" for judge in self._judges}
        self.links = self.links or {"everybody": f"{base}/join/{collected.open_token}"}
        self.links["owner"] = f"{base}/owner/{collected.owner_token}"

    def wsgi(self) -> Any:
        """Start to train, and return the WSGI application, for a server of one process."""
        self._trainer.start()
        self._stack.callback(self._trainer.stop)
        return make_app(self._site, self._url)

    def serve(self) -> None:
        """Serve the pages until the process is interrupted."""
        assert self._listener is not None, "collect binds an address to serve at"
        with bound_server(self.wsgi(), self._listener) as server:
            try:
                server.run()
            except KeyboardInterrupt:
                pass
            finally:
                self.close()

    def write_page(self, page: Destination) -> int:
        """Write a page that works without a server for the one judge, see `write_offline_page`."""
        asker, study = self._site.asker, self._site.study
        return write_offline_page(page, self._judges[0], asker, self._paths, study)

    def __len__(self) -> int:
        return self._site.database.n_answers()

    def __enter__(self) -> JudgementCollection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the training, and let another process have the database and the address."""
        self._stack.close()

    def _open_study(self, study: Path | None, kept: dict[str, Any]) -> Study:
        path = study or self.database.with_name(_STUDY_FILE)
        if study is not None or path.exists():
            return read_study(path)
        if "language" in kept:
            return kept_study(kept)
        with open_output(Outputs().file(path, _STUDY_FORM)) as file:
            file.write(study_template())
        return Study()


def _list_names(folder: Path) -> list[str]:
    """Return the names of the images of a folder, all of which can be written."""
    names = list_images(folder)
    check_encodable(names, str(folder))
    return names


def _compute_features(
    folder: Path,
    names: Sequence[str],
    backbone: Sequence[BackboneLike],
    weights: GivenWeights,
    cache: Path | None,
    progress: Progress,
) -> np.ndarray:
    """Return the features of images, NaN where one cannot be read; runs in its own process."""
    encoder = open_encoder(backbone, weights=weights, views=[defaults.VIEWS])
    files = open_usable_images(folder, names)
    with FeatureStore(cache) as store:
        return encoder.encode(files, store, progress=progress, tell=False)


def _find_told(rows: Sequence[Sequence[str]], folder: Path, numbers: dict[str, int]) -> list[Known]:
    """Return questions of a study by the numbers of their images."""
    if not rows:
        return []
    names = list(dict.fromkeys(name for row in rows for name in row[:3]))
    places = np.array([[names.index(name) for name in row[:3]] for row in rows])
    triplets = replace(Triplets.from_array(places, names), source=f"{_STUDY_FILE}, question")
    return _find_numbers(triplets, folder, numbers)


def _find_numbers(gold: JudgementsLike, folder: Path, numbers: dict[str, int]) -> list[Known]:
    """Return questions whose answer is known, by the numbers of their images."""
    triplets = read_judgements(gold).decided().triplets
    found = [numbers[name] for name in _find_files(triplets, folder)]
    rows = triplets.rows[~triplets.is_degenerate()].tolist()
    return [(found[a], found[b], found[c]) for a, b, c in rows]


def _find_files(triplets: Triplets, folder: Path) -> list[str]:
    """Return the files of the names of triplets, below a folder."""
    paths = open_images(folder, triplets.names, triplets.first_places()).paths
    return [path.relative_to(folder).as_posix() for path in paths if path is not None]


def import_table(given: Judgements, database: Path, images: Path, judge: str) -> Imported:
    """Add judgements of images of a folder to a database, which is made if it is not there."""
    if (name := parse_name(judge)) is None:
        raise SettingsError("judge", f"expected a name of 1 to {MAX_NAME} letters as `judge`")
    files, names = _find_files(given.triplets, images), _list_names(images)
    if not database.exists():
        Outputs().file(database, DATABASE_FORM)
    with only_server(database):
        opened = JudgementDatabase(database)
        numbers = opened.add_images(names)
        of_name = dict(zip(given.triplets.names, map(numbers.__getitem__, files), strict=True))
        imported = import_judgements(given, opened, of_name, name)
        opened.close()
    note_written(database)
    return imported
