"""Judgements from elsewhere: a page that holds its questions, its answers, and tables."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tripletkit.collecting.asking import Asker, is_first_left
from tripletkit.collecting.database import GivenAnswer, Judge, JudgementDatabase, parse_answer
from tripletkit.collecting.serving import is_same, media_type, scale_image
from tripletkit.collecting.study import Study, render_markdown
from tripletkit.data.judgement_files import (
    CANT_TELL,
    FIRST,
    GRID,
    IMPORTED,
    LEFT,
    NEITHER,
    RIGHT,
    SECOND,
)
from tripletkit.data.judgements import Judgements
from tripletkit.data.outputs import Destination, marked_form, note_input, open_output
from tripletkit.errors import JudgementsError
from tripletkit.results import Result, Section

_FORMAT = 1
_IMAGE_PX = 400
MAX_IMPORT_BYTES = 20 << 20
_QUALITY = 80
OFFLINE_FORM = marked_form("a page of judgements that tripletkit wrote", b"tripletkit-offline")
_STATIC = Path(__file__).parent / "static"


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

    def _sections(self) -> list[Section]:
        return [[self._summary()]]


def write_offline_page(
    path: Destination, judge: Judge, asker: Asker, paths: Mapping[int, Path], study: Study
) -> int:
    """Write a page with all of a judge's open questions, and return how many it holds."""
    # Practice says at once what is right, which the page does not know.
    screens = [s for s in asker.all_screens(judge.id) if s.purpose != "practice"]
    if not screens:
        raise JudgementsError(f'"{judge.name}" has answered everything already')
    numbers = sorted({number for screen in screens for number in screen.images})
    # By place in this page, not by number: the file shows nothing of the database.
    images = [_data_uri(scale_image(paths[n], _IMAGE_PX, _QUALITY)) for n in numbers]
    place_of = {number: place for place, number in enumerate(numbers)}
    data = {
        "format": _FORMAT,
        "database": asker.database.id,
        "key": judge.token,
        "judge": judge.name,
        "words": study.words,
        "consent": study.consent_hash,
        "screens": [screen.to_dict(place_of) for screen in screens],
    }
    import jinja2

    script = (_STATIC / "offline.js").read_text(encoding="utf-8")
    style = (_STATIC / "collect.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tripletkit.collecting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("offline.html.j2").render(
        data=data,
        images=images,
        judge=judge.name,
        screen=screens[0].to_dict(place_of),
        study=study,
        say=study.say,
        instructions=study.instruct(is_grid=screens[0].kind == GRID),
        consent=render_markdown(study.consent),
        script=script,
        style=style,
        script_hash=_hash(script),
        style_hash=_hash(style),
    )
    with open_output(path) as file:
        file.write(page)
    return len(screens)


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
            consent = {"text": str(agreed.get("text")), "at": _parse_moment(agreed.get("at"), path)}
            database.change_judge(judge.id, about=judge.about | {"consent": consent})
        for number, entry in enumerate(fields["answers"], 1):
            place = f"{path}: answer {number}"
            if not isinstance(entry, dict) or "at" not in entry:
                raise JudgementsError(f"{place}: expected an answer with its time")
            moment = _parse_moment(entry.pop("at"), place)
            try:
                outcomes[database.add_answer(judge.id, parse_answer(entry, moment))] += 1
            except JudgementsError as error:
                raise JudgementsError(f"{place}: {error}") from error
    return Imported(judge.name, outcomes["new"], outcomes["known"], outcomes["taken"])


def import_judgements(
    given: Judgements, database: JudgementDatabase, numbers: Mapping[str, int], name: str
) -> Imported:
    """Add judgements that were made elsewhere; all of them, or none.

    Votes become answers of as many judges as the row with the most votes has: NAME, NAME 2 and so
    on. How probable their questions were is not known, so they are learned from and not scored.
    `numbers` has those of the images by the names that `given` has for them.
    """
    choices = _choices(given)
    mark = given.record.sha256[:16]
    outcomes: Counter[str] = Counter()
    with database.writing() as connection:
        n_most = max(map(len, choices), default=0)
        judges = [database.add_judge(name if k == 0 else f"{name} {k + 1}") for k in range(n_most)]
        known = {row[0] for row in connection.execute("SELECT client_id FROM answers")}
        for place, row in enumerate(given.triplets.rows.tolist()):
            images = [numbers[given.triplets.names[image]] for image in row]
            question = None
            for judge, choice in zip(judges, choices[place], strict=False):
                client_id = f"import-{mark}-{place}-{judge.id}"
                if client_id in known:
                    outcomes["known"] += 1
                    continue
                question = question or database.add_question(images, IMPORTED)
                # Which image stood where is not known: half of them are taken for the left one.
                is_turned = not is_first_left(0, judge.id, place)
                shown = images[:0:-1] if is_turned else images[1:]
                side = NEITHER
                if choice != CANT_TELL:
                    side = LEFT if (choice == FIRST) != is_turned else RIGHT
                shown_all = [images[0], *shown]
                screen = database.add_screen(judge.id, "fresh", shown_all, question=question)
                answer = GivenAnswer(client_id, screen, side, (), 0.0, "import")
                outcomes[database.add_answer(judge.id, answer)] += 1
    return Imported(name, outcomes["new"], outcomes["known"], 0)


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
        if path.stat().st_size > MAX_IMPORT_BYTES:
            raise JudgementsError(
                f"{path}: expected at most {MAX_IMPORT_BYTES >> 20} MB of answers, got "
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


def _data_uri(data: bytes) -> str:
    return f"data:{media_type(data)};base64,{base64.b64encode(data).decode()}"


def _hash(text: str) -> str:
    """Return a source for a content security policy: this very text and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
