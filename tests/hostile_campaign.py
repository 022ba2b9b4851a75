"""The hostile campaign in small: kills, overwriting, damaged texts, images and tags.

    python tests/hostile_campaign.py                 all of it, about half an hour
    python tests/hostile_campaign.py kill --points 5
    python -m pytest tests/hostile_campaign.py       the same as a test

Each part prints a row: what was tried, how often, how often it was refused in words of ours, and
what should not be (a traceback, a lost file, a half output, litter). Seeds are fixed.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tiny_backbone as tiny
from click.testing import CliRunner
from PIL import Image, ImageDraw

from tripletkit import defaults
from tripletkit.cli.main import tripletkit
from tripletkit.data.images import read_image
from tripletkit.data.labels import read_labels
from tripletkit.data.triplet_files import read_triplets
from tripletkit.errors import TripletkitError
from tripletkit.evaluation.answers import read_answers, read_truth
from tripletkit.model.model_folder import load_model

SHARED = Path(__file__).parents[2] / "shared" / "data" / "hostile"
N_IMAGES, N_TEXTS, N_DAMAGED_IMAGES, N_TAGS, N_KILLS = 24, 20_000, 5_000, 2_000, 40
COLOURS = ["red", "blue", "lime"]
TIMEOUT_S = 120

KILLED = {
    "train": "train train.txt images --backbone tiny --epochs 3 -o m0 --force",
    "embed": "embed images --backbone tiny -o vectors.parquet --force",
    "mine": "mine labels.csv images --backbone tiny -o mined.csv --triplets-out hard.txt --force",
    "report": "report m0 --triplets train.txt -o report.html --force",
    "index": "neighbors images --query query.png --backbone tiny --index index.npz --force",
    "collage": "collage train.txt images -o triplets.png --force",
}
# Outputs that may be named for any file of the world, and must leave it as it is.
OVERWRITING = [
    "predict test.txt --model m0 -o {}",
    "predict test.txt --model m0 --format labels -o {}",
    "triplets labels.csv images -o {}",
    "triplets labels.csv images -o new.txt --truth {}",
    "embed images --backbone tiny -o {}",
    "neighbors images --query query.png --backbone tiny --collage {}",
    "collage train.txt images -o {}",
    "report m0 --triplets train.txt -o {}",
    "plot history m0 -o {}",
    "classify labels.csv images --backbone tiny --confusion-csv {}",
    "classify labels.csv images --backbone tiny --confusion {}",
    "mine labels.csv images --backbone tiny -o {}",
    "mine labels.csv images --backbone tiny --triplets-out {}",
    "mine labels.csv images --backbone tiny --plot {}",
    "compare answers.txt others.txt truth.csv --rows {}",
    "split train.txt --by random -o {}",
    "export --model m0 -o {}",
    "train train.txt images --backbone tiny -o {}",
    "finetune m0 --images images -o {}",
]


@dataclass
class Row:
    """What came of one part."""

    what: str
    n_tried: int = 0
    n_refused: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{self.n_tried:>8,}{self.n_refused:>10,}{len(self.problems):>10,}"
        return "\n".join([f"{self.what:<34}{counts}", *(f"    {p}" for p in self.problems[:5])])


class World:
    """A folder with images, texts and a model, and the command in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "world"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        weights = folder / "tiny.weights.h5"
        tiny.write_weights(weights)
        self.environment = os.environ | {
            tiny.WEIGHTS_VARIABLE: str(weights),
            defaults.CACHE_VARIABLE: str(folder / "cache"),
            "TMPDIR": str(self.temporary),
        }
        self._draw()
        process = self.start(KILLED["train"])
        _, stderr = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, stderr

    def start(self, command: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, tiny.__file__, *command.split()],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def snapshot(self) -> dict[Path, bytes | None]:
        return {
            path.relative_to(self.folder): path.read_bytes() if path.is_file() else None
            for path in sorted(self.folder.rglob("*"))
        }

    def litter(self) -> list[str]:
        found = [*self.folder.rglob(".*"), *self.temporary.iterdir()]
        return [path.name for path in found]

    def _draw(self) -> None:
        (self.folder / "images").mkdir(parents=True)
        rng = random.Random(5)
        colour_of = {f"p{number:02}.png": COLOURS[number % 3] for number in range(N_IMAGES)}
        for number, (name, colour) in enumerate(colour_of.items()):
            image = Image.new("RGB", (40, 36), "white")
            ImageDraw.Draw(image).ellipse((4, 4, 20 + number % 7, 24), fill=colour)
            image.putpixel((39, 35), (number, number, number))
            image.save(self.folder / "images" / name)
        names = list(colour_of)
        lines = []
        while len(lines) < 200:
            a, b, c = rng.sample(names, 3)
            if colour_of[a] == colour_of[b] != colour_of[c]:
                lines.append(f"{a} {b} {c}\n")
        texts = {
            "train.txt": "".join(lines),
            "test.txt": "".join(lines[:50]),
            "truth.csv": "label\n" + "1\n0\n" * 25,
            "answers.txt": "1\n" * 50,
            "others.txt": "0\n" * 50,
            "labels.csv": "name,label\n" + "".join(f"{n},{c}\n" for n, c in colour_of.items()),
        }
        for name, text in texts.items():
            (self.folder / name).write_text(text)
        shutil.copy(self.folder / "images" / "p00.png", self.folder / "query.png")


def kill_commands(world: World, n_points: int) -> Iterator[Row]:
    """Kill each command at moments spread over its run; then let it run once more."""
    for name, command in KILLED.items():
        row = Row(f"kill -9 of {name}")
        before = world.snapshot()
        outputs = {word for word in command.split() if word not in map(str, before)} | {"m0"}
        started_s = time.monotonic()
        world.start(command).communicate(timeout=TIMEOUT_S)
        duration_s = time.monotonic() - started_s
        for point in range(n_points):
            process = world.start(command)
            try:
                process.communicate(timeout=duration_s * (point + 0.5) / n_points)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
            row.n_tried += 1
            _check_nothing_lost(world, before, outputs, f"point {point}", row)
        process = world.start(command)
        _, stderr = process.communicate(timeout=TIMEOUT_S)
        if process.returncode != 0:
            row.problems.append(f"cannot be run again: {stderr[-300:]}")
        if litter := world.litter():
            row.problems.append(f"left behind: {litter[:5]}")
        yield row


def _check_nothing_lost(world: World, before: dict, outputs: set[str], when: str, row: Row) -> None:
    after = world.snapshot()
    for path, content in before.items():
        if path.parts[0] not in outputs and after.get(path) != content:
            row.problems.append(f"{when}: {path} is lost or changed")
    try:
        load_model(world.folder / "m0")
    except TripletkitError as error:
        row.problems.append(f"{when}: {error}")


def overwrite_everything(world: World, seed: int) -> Iterator[Row]:
    """Name every file of the world as the output of every command."""
    patch = pytest.MonkeyPatch()
    patch.chdir(world.folder)
    for name in (tiny.WEIGHTS_VARIABLE, defaults.CACHE_VARIABLE):
        patch.setenv(name, world.environment[name])
    tiny.register()
    before = world.snapshot()
    targets = [path for path in before if len(path.parts) == 1 or path.parts[0] == "m0"]
    images = [path for path in before if path.parent == Path("images")]
    targets += random.Random(seed).sample(images, 3)
    for command in OVERWRITING:
        row = Row("over: " + " ".join(command.split()[:1] + command.split()[-2:]))
        for target in targets:
            for force in ("", " --force"):
                result = CliRunner().invoke(tripletkit, (command.format(target) + force).split())
                row.n_tried += 1
                row.n_refused += result.exit_code in (1, 2)
                if not isinstance(result.exception, SystemExit | None):
                    row.problems.append(f"{target}{force}: {result.exception!r}")
                after = world.snapshot()
                # A model, an answer file or a truth file of ours is what --force is for.
                lost = {path for path in before if after.get(path) != before[path]}
                if lost - _replaceable(command, target, force):
                    row.problems.append(f"{target}{force}: {sorted(map(str, lost))} lost")
                _restore(world, before)
        yield row
    tiny.unregister()
    patch.undo()


def _replaceable(command: str, target: Path, force: str) -> set[Path]:
    """Return what a command may replace: files that have the very form of its output."""
    if not force:
        return set()
    name = command.split()[0]
    if name == "train" and target == Path("m0"):
        return {Path("m0") / name for name in ("model.json", "head.weights.h5", "history.csv")}
    forms = {
        "predict": {"answers.txt", "others.txt"},
        "triplets": {"train.txt", "test.txt", "truth.csv"},
        "mine": {"train.txt", "test.txt"},
    }
    return {target} if str(target) in forms.get(name, set()) else set()


def _restore(world: World, before: dict[Path, bytes | None]) -> None:
    for path in set(world.snapshot()) - set(before):
        whole = world.folder / path
        shutil.rmtree(whole) if whole.is_dir() else whole.unlink(missing_ok=True)
    for path, content in before.items():
        if content is not None and (world.folder / path).read_bytes() != content:
            (world.folder / path).write_bytes(content)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few of them flipped, cut, doubled or put in."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(4)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[place : place + rng.randint(1, 8)]
        elif kind == 2:
            changed[place:place] = changed[place : place + rng.randint(1, 40)]
        else:
            changed[place:place] = rng.choice(
                [b"\0", b'"', b"\xff", b"\r", b"\n", b",", b"#", b"\xef\xbb\xbf", b"1e308", b"nan"]
            )
    return bytes(changed)


def _try(row: Row, call: Callable[[], object], what: str) -> None:
    row.n_tried += 1
    try:
        call()
    except TripletkitError:
        row.n_refused += 1
    except Exception as error:
        row.problems.append(f"{what}: {error!r}")


def damage_texts(world: World, n: int, seed: int) -> Row:
    """Give damaged texts to every reader of texts."""
    row, rng = Row("damaged texts"), random.Random(seed)
    readers = [read_triplets, read_labels, read_answers, read_truth]
    texts = [
        (world.folder / name).read_bytes()[:600]
        for name in ("train.txt", "labels.csv", "answers.txt", "truth.csv")
    ] + [b"a,b,c,prediction,margin\nx,y,z,1,0.5\nx,z,y,0,-0.5\n"]
    for number in range(n):
        data = mutate(rng.choice(texts), rng)
        reader = rng.choice(readers)
        _try(row, lambda r=reader, d=data: r(io.BytesIO(d)), f"{reader.__name__} {number}")
    return row


def damage_images(world: World, n: int, seed: int) -> Row:
    """Give damaged images of every format to the decoder."""
    row, rng = Row("damaged images"), random.Random(seed)
    image = Image.open(world.folder / "images" / "p00.png").convert("RGB")
    path = world.folder / "damaged"
    wholes = []
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"):
        buffer = io.BytesIO()
        try:
            image.save(buffer, form)
        except (KeyError, OSError):  # this Pillow cannot write it
            continue
        wholes.append(buffer.getvalue())
    for number in range(n):
        path.write_bytes(mutate(rng.choice(wholes), rng))
        _try(row, lambda: read_image(path), f"image {number}")
    path.unlink()
    return row


def damage_tags(world: World, n: int, seed: int) -> Row:
    """Give images whose EXIF tags are damaged to the decoder."""
    row, rng = Row("damaged EXIF"), random.Random(seed)
    image = Image.open(world.folder / "images" / "p00.png").convert("RGB")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    tags = exif.tobytes()
    path = world.folder / "damaged.jpg"
    for number in range(n):
        damaged = bytearray(tags)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(6, len(damaged))] = rng.randrange(256)
        image.save(path, exif=bytes(damaged))
        _try(row, lambda: read_image(path), f"tags {number}")
    path.unlink()
    return row


def try_manifests(world: World) -> Row:
    """Give every awkward file of the development data to the commands that read such files."""
    row = Row("files of the manifests")
    if not SHARED.is_dir():
        return row
    images = SHARED / "images"
    triplets = world.folder.parent / "one.txt"
    calls = []
    for name in _manifest(SHARED / "manifest.csv"):
        quoted = '"' + name.replace('"', '""') + '"'
        triplets.write_text(f"{quoted} 00001.jpg 00002.jpg\n", encoding="utf-8")
        calls += [["audit", triplets, images], ["collage", triplets, images, "-o", "c.png"]]
        _call(row, calls, name)
        calls = []
    for name in _manifest(SHARED / "triplets" / "manifest.csv"):
        path = SHARED / "triplets" / name
        calls = [
            ["audit", path, images],
            ["split", path, "-o", "parts", "--by", "random"],
            ["collage", path, images, "-o", "c.png"],
            ["controls", path, path],
            ["score", path],
        ]
        _call(row, calls, name)
    return row


def _manifest(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [line["file"] for line in csv.DictReader(file)]


def _call(row: Row, calls: list[list], name: str) -> None:
    for arguments in calls:
        with CliRunner().isolated_filesystem():
            result = CliRunner().invoke(tripletkit, list(map(str, arguments)))
        row.n_tried += 1
        row.n_refused += result.exit_code != 0
        if not isinstance(result.exception, SystemExit | None):
            row.problems.append(f"{arguments[0]} {name!a}: {result.exception!r}")


PARTS = ("overwrite", "texts", "images", "tags", "manifests", "kill")


def run(parts: list[str], n_points: int, seed: int = 11) -> list[Row]:
    """Run parts of the campaign, print a row each, and return the rows."""
    print(f"{'':<34}{'tried':>8}{'refused':>10}{'problems':>10}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        steps: dict[str, Callable[[], Iterator[Row]]] = {
            "overwrite": lambda: overwrite_everything(world, seed),
            "texts": lambda: iter([damage_texts(world, N_TEXTS, seed)]),
            "images": lambda: iter([damage_images(world, N_DAMAGED_IMAGES, seed)]),
            "tags": lambda: iter([damage_tags(world, N_TAGS, seed)]),
            "manifests": lambda: iter([try_manifests(world)]),
            "kill": lambda: kill_commands(world, n_points),
        }
        for part in parts:
            for row in steps[part]():
                print(row, flush=True)
                rows.append(row)
    return rows


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", PARTS)
def test_the_campaign_finds_nothing(part: str) -> None:
    assert [row.problems for row in run([part], N_KILLS) if row.problems] == []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--points", type=int, default=N_KILLS, help="Kills of each command.")
    chosen = parser.parse_args()
    found = run(chosen.parts or list(PARTS), chosen.points)
    sys.exit(any(row.problems for row in found))
