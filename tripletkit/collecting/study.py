"""What a study says to its judges and asks of them: `study.toml` beside the database."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tripletkit import defaults
from tripletkit.data.judgement_files import open_database
from tripletkit.data.outputs import OutputForm, Outputs, note_input, open_output
from tripletkit.errors import JudgementsError

STUDY_FILE = "study.toml"
_FORM = OutputForm("a study", mark="# What this study says")
_LANGUAGES = ("en", "de", "es", "fr")
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Study:
    """What a study says and asks; every attribute but `words` is a key of the file.

    Attributes:
        language: one that is shipped, or a file of words; `words` are what it says.
        quota: answers of each judge; 0 where nothing is said.
        practice: names of the anchor, the nearer image and the other, and why, if that is said.
    """

    language: str = "en"
    title: str = ""
    question: str = ""
    instructions: str = ""
    consent: str = ""
    quota: int = 0
    pause_every: int = defaults.PAUSE_EVERY
    practice: tuple[tuple[str, ...], ...] = ()
    attention: tuple[tuple[str, ...], ...] = ()
    thanks: str = ""
    code: str = ""
    link: str = ""
    stop_answers: int = 200
    stop_points: float = 0.5
    words: dict[str, str] = field(default_factory=lambda: _read_words("en"))

    def say(self, key: str, **values: object) -> str:
        """Return a text of the pages."""
        return self.words[key].format(**values)

    def instruct(self, *, is_grid: bool) -> str:
        """Return the instructions, or what is usually said, as HTML."""
        usual = self.words["usual_instructions_grid" if is_grid else "usual_instructions"]
        return render_markdown(self.instructions or usual)

    @property
    def consent_hash(self) -> str:
        """What tells whether somebody has agreed to this very text; empty where there is none."""
        return self.consent and hashlib.sha256(self.consent.encode()).hexdigest()[:16]

    def link_of(self, parameters: Mapping[str, str]) -> str:
        """Return the link of the last page, with what came in the link of a judge."""
        values = {"code": self.code, **parameters}
        return re.sub(r"{(\w+)}", lambda found: quote(values.get(found[1], "")), self.link)

    def is_enough(self, about: Mapping[str, Any]) -> bool:
        """Return whether more answers would bring too little, by what is known of a model."""
        after, curve = about.get("after_more"), about.get("curve")
        if after is None or not curve or about.get("more") != self.stop_answers:
            return False
        return 100 * (after - curve[-1]["accuracy"]) < self.stop_points


def open_study(given: Path | None, database: Path, kept: Mapping[str, Any]) -> Study:
    """Read the given file, else that beside the database, else take what the database kept; where
    there is nothing yet, a file is made."""
    path = given or database.with_name(STUDY_FILE)
    if given is not None or path.exists():
        return _read_study(path)
    if "language" in kept:
        return Study(**{each.name: kept[each.name] for each in fields(Study) if each.name in kept})
    with open_output(Outputs().file(path, _FORM)) as file:
        file.write((_HERE / "templates" / STUDY_FILE).read_text(encoding="utf-8"))
    return Study()


def _read_study(path: Path) -> Study:
    given = _read_toml(path)
    known = {each.name: each.default for each in fields(Study) if each.name != "words"}
    if unknown := sorted(set(given) - set(known)):
        raise JudgementsError(f"{path}: expected {', '.join(known)}, got {', '.join(unknown)}")
    for key, value in given.items():
        is_right, expected = _KINDS.get(key) or _KINDS[type(known[key])]
        if not is_right(value):
            raise JudgementsError(f"{path}: {key}: expected {expected}, got {value!r}"[:500])
        if isinstance(value, list):
            given[key] = tuple(map(tuple, value))
    return Study(**given, words=_read_words(given.get("language", "en"), path.parent))


def _are_questions(value: Any, most: int = 3) -> bool:
    """Return whether a value is a list of anchor, nearer and other, and why where that may be."""
    return isinstance(value, list) and all(
        isinstance(row, list)
        and 3 <= len(row) <= most
        and all(isinstance(text, str) for text in row)
        and len(set(row[:3])) == 3
        for row in value
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


# What a value is to be, by its key or by the type of its usual value.
_KINDS: dict[Any, tuple[Callable[[Any], Any], str]] = {
    "link": (
        lambda value: _is_text(value) and re.match(r"https?://|$", value),
        "an address that begins with https://",
    ),
    "practice": (
        lambda value: _are_questions(value, 4),
        "a list of [anchor, nearer, other], and why where you like",
    ),
    tuple: (_are_questions, "a list of [anchor, nearer, other]"),
    str: (_is_text, "a text"),
    int: (lambda value: type(value) is int and value >= 1, "a number from 1 on"),
    float: (lambda value: type(value) in (int, float) and value >= 0, "a number from 0 on"),
}


def _read_words(language: str, folder: Path = Path()) -> dict[str, str]:
    """Return the words of a language that is shipped, or of a file with the same keys."""
    if language in _LANGUAGES:
        return tomllib.loads((_HERE / "words" / f"{language}.toml").read_text(encoding="utf-8"))
    english, path = _read_words("en"), folder / language
    if not path.is_file():
        raise JudgementsError(
            f"{path}: expected one of {', '.join(_LANGUAGES)} as `language`, or a file of words"
        )
    words = _read_toml(path)
    wrong = [
        key
        for key, text in english.items()
        if not isinstance(words.get(key), str) or _braces(words[key]) != _braces(text)
    ]
    if wrong or set(words) != set(english):
        unknown = sorted(set(words) - set(english))
        raise JudgementsError(
            f"{path}: expected the keys of the English words, with the same braces; missing or "
            f"with other braces: {', '.join(wrong) or 'none'}; not known: "
            f"{', '.join(unknown) or 'none'}"
        )
    return words


def _braces(text: str) -> list[str]:
    return sorted(re.findall(r"{[^}]*}|[{}]", text))


def _read_toml(path: Path) -> dict[str, Any]:
    note_input(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise JudgementsError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise JudgementsError(f"{path}: expected UTF-8 text: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise JudgementsError(f"{path}: expected TOML: {error}") from error


def kept_settings(database: Path) -> dict[str, Any]:
    """Return what the database was last asked with; nothing where that was never kept."""
    with open_database(database) as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = 'settings'").fetchone()
    return {} if row is None else json.loads(row["value"])


def shorten_setting(value: object) -> str:
    """Return a setting in a line of its own."""
    text = "the words of a language" if isinstance(value, dict) else " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def render_markdown(text: str) -> str:
    """Return Markdown as HTML. HTML in the text is shown as it is written, images are left out."""
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return renderer.render(text)
