"""A collection of judgements: its pages are served or written, and judgements are taken in."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit import defaults
from tripletkit.collecting.asking import Asker, AskingSettings, Known
from tripletkit.collecting.choosing import BackgroundTrainer
from tripletkit.collecting.database import JudgementDatabase, only_server
from tripletkit.collecting.serving import (
    bound_port,
    bound_server,
    data_uri,
    hash_source,
    is_same,
    open_templates,
    scale_image,
    tell_address,
)
from tripletkit.collecting.study import (
    STUDY_FILE,
    kept_settings,
    open_study,
    render_markdown,
    shorten_setting,
)
from tripletkit.data.images import list_images, open_images, open_usable_images
from tripletkit.data.judgement_files import (
    CANT_TELL,
    DATABASE_FORM,
    FIRST,
    GRID,
    IMPORTED,
    LEFT,
    NEITHER,
    RIGHT,
    SECOND,
)
from tripletkit.data.judgements import Judgements
from tripletkit.data.outputs import (
    Destination,
    OutputForm,
    Outputs,
    note_input,
    note_written,
    open_output,
)
from tripletkit.data.text_files import check_encodable
from tripletkit.data.triplets import Triplets
from tripletkit.errors import JudgementsError
from tripletkit.features.encoder import BackboneLike, GivenWeights, open_encoder
from tripletkit.features.store import FeatureStore
from tripletkit.progress import Progress
from tripletkit.results import Result

logger = logging.getLogger("tripletkit")

_FORMAT = 1
_IMAGE_PX, _QUALITY = 400, 80
_MAX_IMPORT_BYTES = 20 << 20
OFFLINE_FORM = OutputForm("a page of judgements that tripletkit wrote", mark="tripletkit-offline")
_STATIC = Path(__file__).parent / "static"


class JudgementCollection(AbstractContextManager["JudgementCollection"]):
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
        ask: str,
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
            self._study = told = open_study(study, database, kept)
            if is_grid and (told.practice or told.attention):
                raise JudgementsError(
                    f"{STUDY_FILE}: expected no practice and no attention where grids are shown"
                )
            if not asking.n_questions:
                n_questions = told.quota or defaults.QUESTIONS_PER_JUDGE
                asking = replace(asking, n_questions=n_questions)
            self._collected = collected = JudgementDatabase(database)
            note_written(database)
            numbers = collected.add_images(list(paths_of))
            self._paths = {numbers[name]: path for name, path in paths_of.items()}
            checks = _find_told(told.attention, images, numbers)
            practice = _find_told(told.practice, images, numbers)
            reasons = ("".join(row[3:]) for row in told.practice)
            practised = dict(zip(practice, reasons, strict=True))
            self._asker = Asker(collected, list(self._paths), asking, checks, practised)
            settings = asdict(asking) | {"ask": ask} | json.loads(json.dumps(asdict(told)))
            for key, setting in settings.items():
                if setting != kept.get(key, setting):
                    change = shorten_setting(setting), shorten_setting(kept[key])
                    logger.info("Other than at the last start: %s is %s, it was %s.", key, *change)
            collected.keep_fact("settings", json.dumps(settings))
            if collected.is_ended:
                logger.info("The study has ended: nobody is asked until its owner goes on with it.")
            self._judges = [collected.add_judge(name) for name in judges]
            self._stack = stack.pop_all()
        self._trainer = BackgroundTrainer(
            self._asker,
            numbers,
            partial(_compute_features, images, list(paths_of), backbone, weights, cache),
            "random" if is_grid else defaults.AUTO_ASK if ask == "auto" else ask,
            n_more=told.stop_answers,
            is_enough=told.is_enough if stops else None,
        )
        base = url.rstrip("/")
        if not base and self._listener is not None:
            base = tell_address(self._listener)
        self.links = {judge.name: f"{base}/j/{judge.token}" for judge in self._judges}
        self.links = self.links or {"everybody": f"{base}/join/{collected.open_token}"}
        self.links["owner"] = f"{base}/owner/{collected.owner_token}"

    def wsgi(self) -> Any:
        """Start to train, and return the WSGI application, for a server of one process."""
        from tripletkit.collecting.pages import Site

        self._trainer.start()
        self._stack.callback(self._trainer.stop)
        site = Site(self._collected, self._asker, self._paths, self._study, self._trainer.status)
        return site.make_app(self._url)

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
        """Write a page with the open questions of the one judge, and return how many they are."""
        (judge,), study = self._judges, self._study
        # Practice says at once what is right, which the page does not know.
        screens = [s for s in self._asker.all_screens(judge.id) if s.purpose != "practice"]
        if not screens:
            raise JudgementsError(f'"{judge.name}" has answered everything already')
        numbers = sorted({number for screen in screens for number in screen.images})
        # By place in this page, not by number: the file shows nothing of the database.
        place_of = {number: place for place, number in enumerate(numbers)}
        shown = [screen.to_dict(place_of) for screen in screens]
        data = {
            "format": _FORMAT,
            "database": self._collected.id,
            "key": judge.token,
            "judge": judge.name,
            "words": study.words,
            "consent": study.consent_hash,
            "screens": shown,
        }
        script = (_STATIC / "offline.js").read_text(encoding="utf-8")
        style = (_STATIC / "collect.css").read_text(encoding="utf-8")
        templates = open_templates("tripletkit.collecting", "templates")
        text = templates.get_template("offline.html.j2").render(
            data=data,
            images=[data_uri(*scale_image(self._paths[n], _IMAGE_PX, _QUALITY)) for n in numbers],
            judge=judge.name,
            screen=shown[0],
            study=study,
            say=study.say,
            instructions=study.instruct(is_grid=screens[0].kind == GRID),
            consent=render_markdown(study.consent),
            script=script,
            style=style,
            script_hash=hash_source(script),
            style_hash=hash_source(style),
        )
        with open_output(page) as file:
            file.write(text)
        return len(screens)

    def __len__(self) -> int:
        return self._collected.n_answers()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the training, and let another process have the database and the address."""
        self._stack.close()


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
    triplets = replace(Triplets.from_array(places, names), source=f"{STUDY_FILE}, question")
    found = [numbers[name] for name in _find_files(triplets, folder)]
    return [(found[a], found[b], found[c]) for a, b, c in triplets.rows.tolist()]


def _find_files(triplets: Triplets, folder: Path) -> list[str]:
    """Return the files of the names of triplets, below a folder."""
    paths = open_images(folder, triplets.names, triplets.first_places()).paths
    return [path.relative_to(folder).as_posix() for path in paths if path is not None]


# Judgements from elsewhere


@dataclass(frozen=True, repr=False)
class Imported(Result):
    """What came of answers from elsewhere.

    Of the answers of `judge`, `n_new` were added; `n_known` were there before, from an earlier
    import of this file; and `n_taken` are to screens that have another answer by now.
    """

    judge: str
    n_new: int
    n_known: int
    n_taken: int

    def _summary(self) -> str:
        more = f", {self.n_known:,} were there already" if self.n_known else ""
        more += f", {self.n_taken:,} left out, answered otherwise since" if self.n_taken else ""
        return f"{self.n_new:,} answers of {self.judge} added{more}."


def import_answers(path: Path, database: JudgementDatabase) -> Imported:
    """Add the answers of a file that an offline page gave; all of them, or none."""
    fields = _read(path)
    if fields["database"] != database.id:
        raise JudgementsError(
            f"{path}: expected answers for {database.path}, got those of another database"
        )
    judge = next((j for j in database.judges() if j.name == fields["judge"]), None)
    if judge is None or not is_same(fields["key"], judge.token):
        raise JudgementsError(f"{path}: expected answers of a judge of {database.path}")
    outcomes: Counter[str] = Counter()
    with database.writing():
        if agreed := fields["consent"]:
            moment = _parse_moment(agreed.get("at"), path)
            database.agree(judge, str(agreed.get("text")), moment)
        for number, entry in enumerate(fields["answers"], 1):
            place = f"{path}: answer {number}"
            if not isinstance(entry, dict) or "at" not in entry:
                raise JudgementsError(f"{place}: expected an answer with its time")
            moment = _parse_moment(entry.pop("at"), place)
            try:
                outcomes[database.add_answer(judge.id, entry, moment)] += 1
            except JudgementsError as error:
                raise JudgementsError(f"{place}: {error}") from error
    return Imported(judge.name, outcomes["new"], outcomes["known"], outcomes["taken"])


def import_table(given: Judgements, path: Path, folder: Path, name: str) -> Imported:
    """Add judgements that were made elsewhere; all of them, or none.

    Votes become answers of as many judges as the row with the most votes has: NAME, NAME 2 and so
    on. How probable their questions were is not known, so they are learned from and not scored.
    """
    choices = _choices(given)
    files, names = _find_files(given.triplets, folder), _list_names(folder)
    if not path.exists():
        Outputs().file(path, DATABASE_FORM)
    mark = given.record.sha256[:16]
    n_new = n_known = 0
    with only_server(path):
        database = JudgementDatabase(path)
        with database.writing() as connection:
            numbers = database.add_images(names)
            n_most = max(map(len, choices), default=0)
            named = [name if k == 0 else f"{name} {k + 1}" for k in range(n_most)]
            judges = [database.add_judge(each).id for each in named]
            known = {row[0] for row in connection.execute("SELECT client_id FROM answers")}
            for place, row in enumerate(given.triplets.rows.tolist()):
                images = [numbers[files[image]] for image in row]
                question = None
                for judge, choice in zip(judges, choices[place], strict=False):
                    client_id = f"import-{mark}-{place}-{judge}"
                    if client_id in known:
                        n_known += 1
                        continue
                    question = question or database.add_question(images, IMPORTED)
                    # Which image stood where is not known: half of them are taken for the left.
                    is_turned = (place + judge) % 2 == 1
                    shown = [images[0], *(images[:0:-1] if is_turned else images[1:])]
                    side = NEITHER
                    if choice != CANT_TELL:
                        side = LEFT if (choice == FIRST) != is_turned else RIGHT
                    screen = database.add_screen(judge, "fresh", shown, question=question)
                    answer = {"client_id": client_id, "screen": screen, "side": side, "places": []}
                    database.add_answer(judge, answer | {"response_ms": 0.0, "method": "import"})
                    n_new += 1
        database.close()
    note_written(path)
    return Imported(name, n_new, n_known, 0)


def _choices(given: Judgements) -> list[list[str]]:
    """Return what was said of each row, a choice for each who said something."""
    if given.votes is None:
        labels = given.as_truth().labels
        return [[{1: FIRST, 0: SECOND}.get(label, CANT_TELL)] for label in labels.tolist()]
    votes = np.stack([given.votes.for_first, given.votes.for_second], axis=1)
    # Who cannot tell has half a vote for each image.
    is_undecided = (votes % 1 == 0.5).all(axis=1)
    if (is_wrong := (votes % 1 != 0).any(axis=1) & ~is_undecided).any():
        a, b = votes[is_wrong][0]
        raise JudgementsError(
            f"{given.source}: expected whole numbers of votes, as each becomes an answer, got "
            f"{a:g} and {b:g}"
        )
    return [
        [FIRST] * a + [SECOND] * b + [CANT_TELL] * undecided
        for (a, b), undecided in zip(votes.astype(int).tolist(), is_undecided.tolist(), strict=True)
    ]


def is_answer_file(path: Path) -> bool:
    """Return whether a file is, or means to be, what an offline page saved."""
    with path.open("rb") as file:
        return b'"database"' in file.read(200)


def _read(path: Path) -> dict[str, Any]:
    """Return what a file holds, if it has the form of one."""
    note_input(path)
    try:
        if path.stat().st_size > _MAX_IMPORT_BYTES:
            raise JudgementsError(
                f"{path}: expected at most {_MAX_IMPORT_BYTES >> 20} MB of answers, got "
                f"{path.stat().st_size >> 20} MB"
            )
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise JudgementsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise JudgementsError(f"{path}: expected a JSON file of answers: {error}") from error
    kinds = {"format": int, "database": str, "key": str, "judge": str, "answers": list}
    optional = {"consent": dict}
    found = fields if isinstance(fields, dict) else {}
    if {name: type(value) for name, value in found.items()} not in (kinds, kinds | optional):
        raise JudgementsError(
            f"{path}: expected a file of answers that an offline page saved, with the fields "
            f"{', '.join(kinds)}"
        )
    if found["format"] != _FORMAT:
        raise JudgementsError(
            f"{path}: expected format {_FORMAT}, got {found['format']}; another version of "
            "tripletkit made the page"
        )
    return {"consent": {}} | found


def _parse_moment(value: object, place: object) -> str:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise JudgementsError(f"{place}: at: expected an ISO time with its zone")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
