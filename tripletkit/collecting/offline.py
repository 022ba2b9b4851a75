"""Collecting without a server: a page that holds its questions, and the file it gives back."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from tripletkit.collecting.answer_forms import parse_answer
from tripletkit.collecting.asking import Asker
from tripletkit.collecting.database import Judge, JudgementDatabase, add_answer
from tripletkit.collecting.instructions import render_markdown
from tripletkit.collecting.scaled_images import media_type, scale_image
from tripletkit.collecting.serving import is_same
from tripletkit.data.outputs import Destination, marked_form, note_input, open_output
from tripletkit.errors import JudgementsError

FORMAT = 1
IMAGE_PX = 400
MAX_IMPORT_BYTES = 20 << 20
_QUALITY = 80
OFFLINE_FORM = marked_form("a page of judgements that tripletkit wrote", b"tripletkit-offline")
_STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class Imported:
    """What came of an answer file.

    Attributes:
        judge: name.
        n_new: answers that were added.
        n_known: answers that were there before, from an earlier import of this file.
        n_taken: answers to screens that have another answer by now.
    """

    judge: str
    n_new: int
    n_known: int
    n_taken: int


def write_offline_page(
    path: Destination,
    database: JudgementDatabase,
    judge: Judge,
    asker: Asker,
    paths: Mapping[int, Path],
    instructions: str,
) -> int:
    """Write a page with all of a judge's open questions; whole or not at all.

    Args:
        path: the HTML file.
        database, judge: whose questions they are.
        asker: makes the questions that are not there yet.
        paths: number of an image -> its file.
        instructions: Markdown.
    Returns:
        How many questions it holds.
    Raises:
        ImageReadError: if an image cannot be read.
        OutputError: if the file cannot be written.
    """
    screens = asker.all_screens(judge.id)
    if not screens:
        raise JudgementsError(f'"{judge.name}" has answered everything already')
    numbers = sorted({number for s in screens for number in (s.anchor, *s.shown)})
    # By place in this page, not by number: the file shows nothing of the database.
    images = [_data_uri(scale_image(paths[n], IMAGE_PX, _QUALITY)) for n in numbers]
    place_of = {number: place for place, number in enumerate(numbers)}
    data = {
        "format": FORMAT,
        "database": database.id,
        "key": judge.token,
        "judge": judge.name,
        "screens": [screen.to_dict(place_of) for screen in screens],
    }
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
        kind=screens[0].kind,
        n_shown=max(len(screen.shown) for screen in screens),
        instructions=render_markdown(instructions),
        script=script,
        style=style,
        script_hash=_hash(script),
        style_hash=_hash(style),
    )
    with open_output(path) as file:
        file.write(page)
    return len(screens)


def import_answers(path: Path, database: JudgementDatabase) -> Imported:
    """Add the answers of a file that an offline page gave; all of them, or none.

    Args:
        path: the JSON file.
        database: that the page was made from.
    Raises:
        JudgementsError: if it is no such file, belongs to another database, or an answer is not
            as the page makes them.
    """
    fields = _read(path)
    if fields["database"] != database.id:
        raise JudgementsError(
            f"{path}: expected answers for {database.path}, got those of another database"
        )
    judge = next((j for j in database.judges() if j.name == fields["judge"]), None)
    if judge is None or not is_same(fields["key"], judge.token):
        raise JudgementsError(f"{path}: expected answers of a judge of {database.path}")
    answers = []
    for number, entry in enumerate(fields["answers"], 1):
        try:
            if not isinstance(entry, dict) or "at" not in entry:
                raise JudgementsError("expected an answer with its time")
            answers.append(parse_answer(_without(entry, "at"), _parse_moment(entry["at"])))
        except JudgementsError as error:
            raise JudgementsError(f"{path}: answer {number}: {error}") from error
    n_new = n_known = n_taken = 0
    with database.writing() as connection:
        for number, answer in enumerate(answers, 1):
            try:
                is_new = add_answer(connection, judge.id, answer)
            except JudgementsError as error:
                if "answered already" not in str(error):
                    raise JudgementsError(f"{path}: answer {number}: {error}") from error
                n_taken += 1
                continue
            n_new += is_new
            n_known += not is_new
    return Imported(judge.name, n_new, n_known, n_taken)


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
    if (
        not isinstance(fields, dict)
        or set(fields) != set(kinds)
        or not all(isinstance(fields[name], kind) for name, kind in kinds.items())
    ):
        raise JudgementsError(
            f"{path}: expected a file of answers that an offline page saved, with the fields "
            f"{', '.join(kinds)}"
        )
    if fields["format"] != FORMAT:
        raise JudgementsError(
            f"{path}: expected format {FORMAT}, got {fields['format']}; another version of "
            "tripletkit made the page"
        )
    return fields


def _parse_moment(value: object) -> str:
    try:
        if not isinstance(value, str) or len(value) > 40:
            raise ValueError
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise JudgementsError("at: expected an ISO time") from None
    if moment.tzinfo is None:
        raise JudgementsError("at: expected an ISO time with its zone")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _without(entry: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != key}


def _data_uri(data: bytes) -> str:
    return f"data:{media_type(data)};base64,{base64.b64encode(data).decode()}"


def _hash(text: str) -> str:
    """Return a source for a content security policy: this very text and no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
