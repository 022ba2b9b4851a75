"""What a study says to its judges and asks of them: `study.toml` beside the database."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tripletkit import defaults
from tripletkit.data.judgement_files import open_database
from tripletkit.data.outputs import note_input
from tripletkit.errors import JudgementsError

_PARAMETER = re.compile(r"[0-9A-Za-z_.-]{1,40}")
# In the links of Prolific and of Mechanical Turk; the first of each is whose they are.
_URL_PARAMETERS = ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID", "workerId", "assignmentId", "hitId")
LANGUAGES = ("en", "de", "es", "fr")
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
        """Return the instructions as HTML."""
        usual = self.words["usual_instructions_grid" if is_grid else "usual_instructions"]
        return render_markdown(self.instructions or usual)

    @property
    def consent_hash(self) -> str:
        """What tells whether somebody has agreed to this very text; empty where there is none."""
        return self.consent and hashlib.sha256(self.consent.encode()).hexdigest()[:16]

    def link_of(self, parameters: Mapping[str, str]) -> str:
        """Return the link of the last page, with what came in the link of a judge."""
        values = {"code": self.code, **dict.fromkeys(_URL_PARAMETERS, ""), **parameters}
        return re.sub(r"{(\w+)}", lambda found: quote(values.get(found[1], "")), self.link)

    def is_enough(self, about: Mapping[str, Any]) -> bool:
        """Return whether more answers would bring too little, by what is known of a model."""
        after, curve = about.get("after_more"), about.get("curve")
        if after is None or not curve or about.get("more") != self.stop_answers:
            return False
        return 100 * (after - curve[-1]["accuracy"]) < self.stop_points


def read_study(path: Path) -> Study:
    """Read a file of a study; raises `JudgementsError` where a value is not of its kind."""
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


def read_parameters(given: Mapping[str, str]) -> dict[str, str]:
    """Return what a link says of a participant, the names and values that are of their kind."""
    found = {name: given.get(name, "") for name in _URL_PARAMETERS}
    return {name: value for name, value in found.items() if _PARAMETER.fullmatch(value)}


def _read_words(language: str, folder: Path = Path()) -> dict[str, str]:
    """Return the words of a language that is shipped, or of a file with the same keys."""
    if language in LANGUAGES:
        return tomllib.loads((_HERE / "words" / f"{language}.toml").read_text(encoding="utf-8"))
    english, path = _read_words("en"), folder / language
    if not path.is_file():
        raise JudgementsError(
            f"{path}: expected one of {', '.join(LANGUAGES)} as `language`, or a file of words"
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


def study_template() -> str:
    """Return a file of a study that says nothing yet, and what could be said."""
    return (_HERE / "templates" / "study.toml").read_text(encoding="utf-8")


def describe_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what a collection was started with, a short text each; the usual words left out."""
    told = {key: value for key, value in settings.items() if key != "words" and value}
    return {key: _shorten(value) for key, value in told.items()}


def find_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what is other than at the last start, a text each."""
    return [
        f"{key} is {_shorten(now.get(key))}, it was {_shorten(before.get(key))}"
        for key in now
        if key in before and json.dumps(now[key]) != json.dumps(before[key])
    ]


def _shorten(value: Any) -> str:
    text = "the words of a language" if isinstance(value, dict) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def settings_of(study: Study, **asking: Any) -> dict[str, Any]:
    """Return what a database keeps of how it was asked, as plain JSON values."""
    return asking | json.loads(json.dumps(asdict(study)))


def kept_settings(database: Path) -> dict[str, Any]:
    """Return what the database was last asked with; nothing where that was never kept."""
    with open_database(database) as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = 'settings'").fetchone()
    return {} if row is None else json.loads(row["value"])


def kept_study(settings: Mapping[str, Any]) -> Study:
    """Return the study of kept settings."""
    given = {each.name: settings[each.name] for each in fields(Study) if each.name in settings}
    return replace(Study(), **given)


def render_markdown(text: str) -> str:
    """Return Markdown as HTML. HTML in the text is shown as it is written, images are left out."""
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return renderer.render(text)
