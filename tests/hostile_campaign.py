"""The hostile campaign in small: kills, overwriting, harm, damaged texts, images and tags.

    python tests/hostile_campaign.py                 all of it, a quarter of an hour
    python tests/hostile_campaign.py kill --points 5 --shipped
    python -m pytest -m campaign tests/hostile_campaign.py

Each part prints rows: how often something was tried, refused in words of ours or killed, and what
must not be: tracebacks, wrong numbers, files lost or half, things left behind. Seeds are fixed.
`--shipped` takes the backbone that a user gets instead of a tiny one.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_backbone as tiny
from click.testing import CliRunner, Result
from collected import answer_all, start
from conftest import run_command
from drawn import COLOURS, draw_images, draw_rows
from forked_commands import PreloadedCommand
from mutated_images import images_with_mutated_exif, mutated_images
from opened import read_answers, read_triplets, read_truth
from PIL import Image

from tripletkit import TripletkitError, defaults
from tripletkit.data.decoding import read_image
from tripletkit.data.labels import read_labels
from tripletkit.data.outputs import end_moves, remove_unfinished
from tripletkit.data.triplets import write_triplets
from tripletkit.model.model_folder import load_model

SHARED = Path(__file__).parents[2] / "shared" / "data" / "hostile"
N_IMAGES, N_TEXTS, N_DAMAGED_IMAGES, N_TAGS, N_KILLS = 24, 20_000, 5_000, 2_000, 40
N_RECORDS, SEED, TIMEOUT_S = 300, 11, 900
PARTNERS = ("00001.jpg", "00002.jpg")  # in each triplet about an image of the manifest

# Each is killed while one of two runs replaces what the other wrote: {} is one word or the other.
# Then what it replaces; files of one folder belong together.
_KILLED = """
train: train train.txt images --backbone tiny --epochs 3 -o m0 --force --seed {} | 1 0 | m0
finetune: finetune m0 --images images --epochs {} -o m1 --force | 2 1 | m1
embed: embed images --model {} -o vectors.parquet --force | m1 m0 | vectors.parquet
mine: mine labels.csv images --model {} -o m.csv --triplets-out h.txt --force | m1 m0 | m.csv h.txt
report: report m0 --triplets {} -o report.html --force | test.txt train.txt | report.html
index: neighbors images --query query.png --model {} --index index.npz --force | m1 m0 | index.npz
collage: collage {} images -o triplets.png --force | test.txt train.txt | triplets.png
export: export --model {} -o exported --onnx --force | m1 m0 | exported
split: split train.txt -o parts --by image --force --seed {} | 1 0 | parts
import: collect images --import {} --judge old --db old.sqlite | train.txt test.txt | old.sqlite
"""
KILLED = {k: tuple(v.split(" | ")) for k, v in (r.split(": ") for r in _KILLED.split("\n") if r)}
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

STORING = "embed images --backbone tiny --cache work -o stored.npz"
# Calls that would harm what is the user's, if they did as they are told. Each is refused, but for
# those of the cache, which find nothing there that is theirs.
HARMING = [
    "cache clear --yes --cache work",
    f"{STORING} && cache clear --yes --cache work",
    f"{STORING} && cache prune --unused-days 0 --cache work",
    "embed --model given --features f.npz -o f.npz --force",
    "embed --model given --features f.npz -o linked.npz --force",
    "embed --model given --features f.npz -o images/../f.npz --force",
    "embed --model given --features f.parquet -o f.parquet --force",
    "neighbors --model given --features f.npz --query a1 --index f.npz --force",
    "train train.txt images --backbone tiny --epochs 1 -o m1 --tensorboard images/tb",
    "train train.txt images --backbone tiny --epochs 1 -o m1 --cache images",
    "train train.txt images --backbone tiny --epochs 1 -o images/m1",
    "train train.txt images --backbone tiny --epochs 1 -o m1 --cache m0",
    "export-judgements judgements.sqlite -o images",
    "export-judgements judgements.sqlite -o . --force",
    "export --model m0 -o images/networks",
    "split train.txt -o images --by random",
    "triplets labels.csv images -o settings.txt --force",
    "triplets labels.csv images -o new.txt --truth settings.txt --force",
    "mine labels.csv images --backbone tiny -o mined.csv --triplets-out settings.txt --force",
    "suggest images --model m0 -o settings.txt --force",
    "predict test.txt --model m0 --format labels -o settings.txt --force",
    "report m0 --triplets train.txt -o images/report.html",
    "collect images --db images/judgements.sqlite --judge a --ask random --offline p.html",
    "collect images --db j.sqlite --judge a --ask random --offline images/p.html",
]
# Files of other programs, some with names like ours, where a cache may be.
FOREIGN = [
    "networks/dinov2.onnx",
    "networks/0123456789abcdef.onnx",
    "features/part-0.parquet",
    "features/.notes",
    "features.sqlite3.bak",
    "settings.toml",
]

# What is written where nothing, or hardly anything, can be.
DENIED = [
    "predict test.txt --model m0 -o out/p.csv",
    "triplets labels.csv images -o out/t.txt --truth out/t.csv",
    "embed images --model m0 -o out/e.parquet",
    "embed images --model m0 -o out/e.npz",
    "neighbors images --query query.png --model m0 --index out/i.npz",
    "collage train.txt images -o out/c.png",
    "report m0 --triplets train.txt -o out/r.html",
    "plot history m0 -o out/h.svg",
    "mine labels.csv images --model m0 -o out/m.csv --triplets-out out/m.txt",
    "compare answers.txt others.txt truth.csv --rows out/rows.csv",
    "split train.txt --by random -o out/s",
    "export --model m0 -o out/x --onnx",
    "train train.txt images --backbone tiny --epochs 1 -o out/m",
    "finetune m0 --images images --epochs 1 -o out/f",
    "classify labels.csv images --model m0 --confusion out/c.svg",
    "suggest images --model m0 -o out/q.txt",
    "extract images --backbone tiny -o out/parts",
    "collect images --import test.txt --judge old --db out/j.sqlite",
    "collect images --db out/k.sqlite --judge a --ask random --offline out/p.html",
]
# These need no place to write.
READING = [
    "score answers.txt truth.csv",
    "audit train.txt images",
    "predict test.txt --model m0",
    "neighbors images --query query.png --model m0",
]
# How each place comes to be so: a line of shell before the command, in mounts of its own.
BOTH = 'for it in "$PWD/out" "$TRIPLETKIT_CACHE"; do'
PLACES = {
    "without permission": f'{BOTH} chmod 555 "$it"; done; '
    'exec setpriv --bounding-set -dac_override,-dac_read_search,-fowner "$@"',
    "on a read-only mount": f'{BOTH} mount -o bind,ro "$it" "$it"; done; exec "$@"',
    "on a full disk": f'{BOTH} mount -t tmpfs -o size=4k tmpfs "$it"; done; exec "$@"',
    "on a disk of 40 kB": f'{BOTH} mount -t tmpfs -o size=40k tmpfs "$it"; done; exec "$@"',
    "with a limit of file size": 'exec prlimit --fsize=2000 "$@"',
}
# Files of labels, or of what was taken for them.
NAMES = [f"p{number:02}.png" for number in range(N_IMAGES)]
LABELS = {
    "empty": b"",
    "a heading alone": b"name,label\n",
    "no label": b"name,label\n" + b"".join(f"{n},\n".encode() for n in NAMES),
    "other images": b"name,label\nx.png,a\ny.png,b\n",
    "an image twice": b"name,label\np00.png,a\np00.png,b\np01.png,a\n",
    "an image twice alike": b"name,label\np00.png,a\np00.png,a\np01.png,b\n",
    "one class": b"name,label\n" + b"".join(f"{n},a\n".encode() for n in NAMES),
    "classes of one": b"name,label\n" + b"".join(f"{n},{n}\n".encode() for n in NAMES),
    "not a number": b"name,label\np00.png,nan\np01.png,inf\np02.png,1e400\n",
    "three columns": b"name,label,label\np00.png,a,b\np01.png,b,a\n",
    "no heading": b"p00.png,a\np01.png,b\np02.png,a\n",
    "a row too short": b"name,label\np00.png,a\np01.png\n",
    "Windows names": b"name,label\nC:\\x\\p00.png,a\nC:\\x\\p01.png,b\n",
    "UTF-16": "name,label\np00.png,a\np01.png,b\n".encode("utf-16"),
    "Latin-1": "name,label\np00.png,é\np01.png,b\n".encode("latin-1"),
    "zeros": b"name,label\np00.png,a\0\np01.png,b\n",
    "JSON that is cut": b'[{"name": "p00.png", "label": "a"}, {"na',
    "JSON of other things": b'{"a": {"b": [1, 2, {"c": null}]}}',
    "triplets": b"p00.png p01.png p02.png\n" * 5,
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a formula": b"name,label\np00.png,=1+1\np01.png,@x\n",
    "a long name": b"name,label\np00.png," + b"x" * 100_000 + b"\np01.png,b\n",
}
LABELLED = [
    "neighbors images --query query.png --model m0 --labels {}",
    "classify {} images --model m0",
    "triplets {} images -o new.txt --force",
    "plot map m0 --triplets train.txt --images images --labels {} -o map.svg --force",
    "mine {} images --model m0 -o new.csv --force",
]
# What another program, or a fault, may have made of a database of judgements.
DAMAGE = [
    "DROP TABLE questions",
    "DELETE FROM questions",
    "DELETE FROM meta",
    "DELETE FROM images",
    "CREATE TRIGGER t AFTER INSERT ON answers BEGIN DELETE FROM answers; END",
    "DROP TABLE answers; CREATE VIEW answers AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL "
    "SELECT id + 1 FROM n) SELECT * FROM n",
]
DATABASES = [
    "judges {}",
    "audit {} images",
    "score answers.txt {}",
    "export-judgements {} -o exported",
    "split {} -o parts --by random",
    "collect images --db {} --judge a -n 2 --ask random --offline p.html",
]
# Modules of other packages, each the function `plug` of an entry point.
PLUGINS = {
    "does not import": "import nothing_like_this",
    "has no such function": "plugs = 1",
    "raises": "def plug(): raise RuntimeError('plugged badly')",
    "ends Python": "import sys\ndef plug(): sys.exit(3)",
    "is no function": "plug = 7",
    "prints": "def plug(): print('a,b,c')",
    "takes a name that is taken": "import tripletkit as tk\n"
    "def plug(): tk.register_backbone('efficientnet-lite0', 'a:b', n_features=3, input_size_px=3)",
    "warns": "import warnings\ndef plug(): warnings.warn('plugged')",
}

KINDS = ("traceback", "wrong", "lost", "left")


@dataclass
class Row:
    """What came of one part."""

    what: str
    n_tried: int = 0
    n_refused: int = 0
    problems: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def __str__(self) -> str:
        counts = f"{self.n_tried:>8,}{self.n_refused:>9,}"
        counts += "".join(f"{len(found):>11,}" for found in self.problems.values())
        examples = [
            f"    {kind}: {text}" for kind, found in self.problems.items() for text in found[:5]
        ]
        return "\n".join([f"{self.what:<32}{counts}", *examples])

    def call(self, words: Sequence[object], what: str) -> Result:
        """Run a command in this process, and count what came of it."""
        result = run_command(*words)
        self.n_tried += 1
        self.n_refused += result.exit_code in (1, 2)
        if not isinstance(result.exception, SystemExit | None):
            self.problems["traceback"].append(f"{words[0]}: {what}: {result.exception!r}")
        if len(result.output) > 20_000:
            self.problems["wrong"].append(
                f"{words[0]}: {what}: says {len(result.output):,} letters"
            )
        return result


HEADING = f"{'':<32}{'tried':>8}{'refused':>9}" + "".join(f"{kind:>11}" for kind in KINDS)


class World:
    """A folder with images, texts and a model, and the command in a process of its own."""

    def __init__(self, folder: Path, n_kills: int, is_shipped: bool) -> None:
        self.folder = folder / "world"
        self.n_kills, self.is_shipped = n_kills, is_shipped
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
        self.run(KILLED["train"][0].format(0))
        self.at_first = self.snapshot()

    def run(self, command: str, *, check: bool = True, **more: str) -> subprocess.CompletedProcess:
        """Run the command in a process of its own, with more in its environment."""
        return subprocess.run(
            [sys.executable, tiny.__file__, *self.words(command)],
            cwd=self.folder,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=check,
        )

    def judge(self, name: str) -> None:
        """Write a database of judgements."""
        database, asker = start(self.folder / name, NAMES, n_questions=20, overlap=2)
        for judge in ("anna", "ben"):
            answer_all(database, asker, judge, lambda anchor, shown: "left")
        database.close()

    def words(self, command: str) -> list[str]:
        """Return the words of a call, as shipped without a backbone of the tests' own."""
        return command.replace(" --backbone tiny" * self.is_shipped, "").split()

    def snapshot(self) -> dict[Path, bytes | None]:
        return {
            path.relative_to(self.folder): path.read_bytes() if path.is_file() else None
            for path in sorted(self.folder.rglob("*"))
        }

    def restore(self, before: dict[Path, bytes | None]) -> None:
        for path in set(self.snapshot()) - set(before):
            whole = self.folder / path
            shutil.rmtree(whole) if whole.is_dir() else whole.unlink(missing_ok=True)
        for path, content in before.items():
            if content is not None and (self.folder / path).read_bytes() != content:
                (self.folder / path).write_bytes(content)

    def lost(self, before: dict[Path, bytes | None]) -> list[str]:
        """Return which files are gone, or other than they were."""
        after = self.snapshot()
        return [str(path) for path in before if after.get(path) != before[path]]

    def litter(self) -> list[str]:
        """Return what commands have left behind, which is no hidden file of FOREIGN."""
        found = [*self.folder.rglob(".*"), *self.temporary.iterdir()]
        return [path.name for path in found if path.name != ".notes"]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run commands in this process as `run` does in others."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for name in (tiny.WEIGHTS_VARIABLE, defaults.CACHE_VARIABLE):
                patch.setenv(name, self.environment[name])
            tiny.register()
            yield
            tiny.unregister()

    @contextmanager
    def preloaded(self, *prefix: str) -> Iterator[PreloadedCommand]:
        """Give a process whose forks run the command."""
        errors = self.folder.parent / "errors.txt"
        preloaded = PreloadedCommand(self.folder, self.environment, errors, prefix)
        try:
            yield preloaded
        finally:
            preloaded.close()

    def _draw(self) -> None:
        rng = np.random.default_rng(5)
        draw_images(self.folder / "images", N_IMAGES, rng)
        rows = draw_rows(0, N_IMAGES, 200, rng)
        lines = [" ".join(NAMES[image] for image in row) + "\n" for row in rows]
        labels = [f"{name},{COLOURS[number % len(COLOURS)]}\n" for number, name in enumerate(NAMES)]
        texts = {
            "train.txt": "".join(lines),
            "test.txt": "".join(lines[:50]),
            "truth.csv": "label\n" + "1\n0\n" * 25,
            "answers.txt": "1\n" * 50,
            "others.txt": "0\n" * 50,
            "labels.csv": "name,label\n" + "".join(labels),
        }
        for name, text in texts.items():
            (self.folder / name).write_text(text)
        shutil.copy(self.folder / "images" / "p00.png", self.folder / "query.png")


def kill_commands(world: World) -> Iterator[Row]:
    """Kill each command at moments spread over its run; then let it run once more.

    By turns with SIGKILL and SIGTERM. The store of features is emptied every fourth time, so that
    what is killed computes and stores, too, and the next runs with what that left.
    """
    for name, (command, given, outputs) in KILLED.items():
        row = Row(f"kill of {name}")
        variants = [" ".join(world.words(command.format(word))) for word in given.split()]
        with world.preloaded() as preloaded:
            durations_s, whole = [], []
            for variant in variants:
                started_s = time.monotonic()
                preloaded.start(variant.split())
                if preloaded.wait(TIMEOUT_S) != 0:
                    row.problems["traceback"].append(preloaded.errors.read_text()[-300:])
                durations_s.append(time.monotonic() - started_s)
                whole.append(_read_outputs(world, outputs))
            before = world.snapshot()
            for point in range(world.n_kills):
                if not point % 4:
                    # Not all: without the record of what was written nothing is replaced.
                    for path in (world.folder.parent / "cache").glob("features.sqlite3*"):
                        path.unlink()
                pid = preloaded.start(variants[point % 2].split())
                if preloaded.wait(min(durations_s) * (point + 0.5) / world.n_kills) is None:
                    os.kill(pid, signal.SIGTERM if point % 3 == 2 else signal.SIGKILL)
                    row.n_refused += preloaded.wait(TIMEOUT_S) != 0
                row.n_tried += 1
                if "Traceback" in (said := preloaded.errors.read_text()):
                    row.problems["traceback"].append(f"point {point}: {said[-300:]}")
                _check_outputs(world, outputs, whole, f"point {point}", row)
                _check_others(world, before, outputs, f"point {point}", row)
        try:
            world.run(variants[-1])
        except subprocess.CalledProcessError as error:
            row.problems["traceback"].append(f"cannot be run again: {error.stderr[-300:]}")
        _check_outputs(world, outputs, whole[-1:], "the last run", row)
        _check_others(world, before, outputs, "the last run", row)
        # As the next run does that needs temporary files; this one may have needed none.
        remove_unfinished(world.temporary)
        remove_unfinished(world.folder)
        yield row


def _read_outputs(world: World, outputs: str) -> list[dict[str, bytes]]:
    """Return what each output of a command holds, but for what tells the time of a run."""
    read = []
    for output in outputs.split():
        path = world.folder / output
        if path.suffix == ".sqlite":
            with closing(sqlite3.connect(path)) as database:
                rows = database.execute("SELECT COUNT(*) FROM answers").fetchone()
                is_whole = database.execute("PRAGMA integrity_check").fetchone()
            read.append({"answers": repr((rows[0] % 50, is_whole)).encode()})
            continue
        end_moves(path)
        # What a kill has left below hidden names is for the next run to remove.
        files = [path] if path.is_file() else [*path.glob("[!.]*")]
        read.append({each.name: each.read_bytes() for each in files if each.name != "model.json"})
    return read


def _check_outputs(
    world: World, outputs: str, whole: list[list[dict[str, bytes]]], when: str, row: Row
) -> None:
    """Hold that each output is as one of the whole runs wrote it."""
    for number, found in enumerate(_read_outputs(world, outputs)):
        if found not in [each[number] for each in whole]:
            row.problems["wrong"].append(
                f"{when}: {outputs.split()[number]} is neither the old nor the new"
            )


def _check_others(world: World, before: dict, outputs: str, when: str, row: Row) -> None:
    """Hold that every other file is what it was, and that models can be loaded."""
    for path in world.lost(before):
        name = Path(path).parts[0].removesuffix("-wal").removesuffix("-shm")
        if name not in outputs.split():
            row.problems["lost"].append(f"{when}: {path} is gone or another")
    for model in ("m0", "m1"):
        try:
            load_model(world.folder / model)
        except TripletkitError as error:
            if (Path(model) / "model.json") in before:
                row.problems["lost"].append(f"{when}: {error}")


def overwrite_everything(world: World) -> Iterator[Row]:
    """Name every file of the world as the output of every command."""
    before = world.at_first
    targets = [path for path in before if len(path.parts) == 1 or path.parts[0] == "m0"]
    images = [path for path in before if path.parent == Path("images")]
    targets += random.Random(SEED).sample(images, 3)
    with world.entered():
        for command in OVERWRITING:
            words = [word for word in command.split() if word.startswith("-")]
            row = Row(f"over: {command.split()[0]} {words[-1]}")
            for target in targets:
                for force in ("", " --force"):
                    row.call(world.words(command.format(target) + force), f"{target}{force}")
                    lost = set(world.lost(before))
                    if lost - (_replaceable(command, target) if force else set()):
                        row.problems["lost"].append(f"{target}{force}: {sorted(lost)}")
                    row.problems["left"] += world.litter()
                    world.restore(before)
            yield row


def _replaceable(command: str, target: Path) -> set[str]:
    """Return what --force may replace: files of ours that have the very form of the output."""
    name = command.split()[0]
    if name == "train" and target == Path("m0"):
        return {"m0/model.json", "m0/head.weights.h5", "m0/history.csv"}
    forms = {
        "predict": {"answers.txt", "others.txt"},
        "triplets": {"train.txt", "test.txt", "truth.csv"},
        "mine": {"train.txt", "test.txt"},
    }
    return {str(target)} & forms.get(name, set())


def harm(world: World) -> Iterator[Row]:
    """Name what is the user's as what is written, added to or cleared."""
    rng = np.random.default_rng(0)
    names = [f"a{number}" for number in range(30)]
    vectors = rng.normal(size=(30, 12)).astype(np.float32)
    np.savez(world.folder / "f.npz", names=np.array(names), features=vectors)
    frame = pd.DataFrame(vectors, columns=[f"f{place}" for place in range(12)])
    frame.assign(name=names).to_parquet(world.folder / "f.parquet")
    (world.folder / "linked.npz").symlink_to("f.npz")
    (world.folder / "settings.txt").write_text("learning rate 3\nbatch size 16\n")
    rows = [" ".join(rng.choice(names, 3, replace=False)) + "\n" for _ in range(60)]
    (world.folder / "of_features.txt").write_text("".join(rows))
    for name in FOREIGN:
        path = world.folder / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"mine: {name}")
        os.utime(path, (0, 0))
    world.judge("judgements.sqlite")
    world.run("train of_features.txt --features f.npz --epochs 1 --no-refit -o given")
    before, row = world.snapshot(), Row("harm to what is the user's")
    with world.entered():
        for command in HARMING:
            for part in command.split(" && "):
                result = row.call(world.words(part), command)
            if (result.exit_code == 0) != ("cache" in command.split()):
                row.problems["wrong"].append(f"{command}: exit {result.exit_code}")
            new = set(world.snapshot()) - set(before)
            lost = world.lost(before) + [str(path) for path in new if path.parts[0] == "images"]
            if lost:
                row.problems["lost"].append(f"{command}: {lost}")
            row.problems["left"] += world.litter()
            world.restore(before)
    yield row


def deny(world: World) -> Iterator[Row]:
    """Let commands write where they cannot, and read from there."""
    out, cache = world.folder / "out", world.folder.parent / "cache"
    out.mkdir()
    before = world.snapshot()
    for place, line in PLACES.items():
        prefix = ["unshare", "--mount", "sh", "-ec", line, "sh"]
        if os.getuid() or not all(map(shutil.which, ("unshare", "setpriv", "prlimit"))):
            yield Row(f"{place}: not here")
            continue
        row = Row(place)
        with world.preloaded(*prefix) as preloaded:
            # The folder as the command sees it.
            seen = Path(f"/proc/{preloaded.pid}/root{out}")
            for command in [*DENIED, *READING]:
                preloaded.start(world.words(command))
                code = preloaded.wait(TIMEOUT_S)
                said = preloaded.errors.read_text()
                row.n_tried += 1
                row.n_refused += code != 0
                if "Traceback" in said or code not in (0, 1, 2):
                    row.problems["traceback"].append(f"{command}: {code}: {said[-300:]}")
                has_room = "no room" not in said and "disk I/O error" not in said
                if code and ("Error: " not in said or (command in READING and has_room)):
                    row.problems["wrong"].append(f"{command}: {said[-200:]}")
                left = list(seen.iterdir())
                # A study and an extraction are gone on with.
                if code and left and command.split()[0] not in ("collect", "extract"):
                    row.problems["left"].append(f"{command}: {sorted(map(str, left))}")
                for path in left:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        out.chmod(0o755)
        cache.chmod(0o755)
        if world.snapshot() != before:
            row.problems["lost"].append("files of the world are other than before")
        yield row


def mistake_labels(world: World) -> Iterator[Row]:
    """Give every file that is no good file of labels to every command that takes labels."""
    row, path = Row("files of labels"), world.folder.parent / "mistaken.csv"
    with world.entered():
        for what, content in LABELS.items():
            path.write_bytes(content)
            for command in LABELLED:
                row.call(world.words(command.format(path)), what)
    yield row


def tamper_with_record(world: World) -> Iterator[Row]:
    """Change values of model.json: the model is refused in words, or answers every question."""
    row, rng = Row("model.json"), random.Random(SEED)
    path = world.folder / "m0" / "model.json"
    whole = path.read_text(encoding="utf-8")
    values = [None, -1, 0, 1e308, float("nan"), 10**30, True, "", "x", "../..", [], {}, [[]]]
    with world.entered():
        for number in range(N_RECORDS):
            record, place = json.loads(whole), []
            parent, key = {"": record}, ""
            while not place or (rng.random() < 0.7 and isinstance(parent[key], dict | list)):
                inside = parent[key]
                if not inside:
                    break
                parent = inside
                key = rng.choice([*inside] if isinstance(inside, dict) else range(len(inside)))
                place.append(key)
            if number and rng.random() < 0.2:
                del parent[key]
            elif number:  # The first is as it was.
                parent[key] = rng.choice(values)
            path.write_text(json.dumps(record), encoding="utf-8")
            for call in ("predict test.txt --model m0 --format labels", "report m0 -o new.html"):
                result = row.call(call.split(), f"{number} {place}")
                is_answered = call[0] != "p" or len(result.stdout.split()) == 50
                if (result.exit_code and not number) or not (result.exit_code or is_answered):
                    row.problems["wrong"].append(f"{number} {place}: {result.output[:200]}")
            (world.folder / "new.html").unlink(missing_ok=True)
    yield row


def damage_databases(world: World) -> Iterator[Row]:
    """Damage databases of judgements, by bytes and by statements: read, or refused in words."""
    row, rng = Row("databases of judgements"), random.Random(SEED)
    world.judge("whole.sqlite")
    whole = (world.folder / "whole.sqlite").read_bytes()
    with closing(sqlite3.connect(world.folder / "whole.sqlite")) as database:
        columns = database.execute(
            "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c"
        ).fetchall()
    values = ["NULL", "-1", "9223372036854775807", "1e999", "''", "'evil'", "x'ff00ff'", "'[]'"]
    statements = ["", *DAMAGE]
    for table, column in columns:
        value, where = rng.choice(values), rng.choice(["", " WHERE rowid % 3 = 0"])
        statements.append(f"UPDATE OR IGNORE {table} SET {column} = {value}{where}")
    before = world.snapshot()
    path = world.folder / "damaged.sqlite"
    with world.entered():
        for number in range(2 * len(statements)):
            statement = statements[number // 2]
            path.write_bytes(mutate(whole, rng) if number % 2 else whole)
            if not number % 2:
                with closing(sqlite3.connect(path)) as database, suppress(sqlite3.Error):
                    database.executescript(f"PRAGMA ignore_check_constraints = ON; {statement}")
            for command in DATABASES:
                said = statement if not number % 2 else f"bytes {number}"
                started_s = time.monotonic()
                result = row.call(world.words(command.format(path.name)), said)
                if time.monotonic() - started_s > 60:
                    row.problems["wrong"].append(f"{command}: {said}: takes over a minute")
                if result.exit_code and not number and command.split()[0] != "score":
                    row.problems["wrong"].append(f"{command}: {result.output[-200:]}")
            row.problems["left"] += world.litter()
            world.restore(before)
    yield row


def plug_in(world: World) -> Iterator[Row]:
    """Install packages whose backbones cannot be registered: commands go on without, and say so."""
    row, folder = Row("plug-ins"), world.folder.parent / "plugged"
    (folder / "plugged-1.dist-info").mkdir(parents=True)
    (folder / "plugged-1.dist-info" / "METADATA").write_text("Name: plugged\nVersion: 1\n")
    (folder / "plugged-1.dist-info" / "entry_points.txt").write_text(
        "[tripletkit.backbones]\nplugged = plugged_badly:plug\n"
    )
    paths = os.pathsep.join([str(folder), *filter(None, [world.environment.get("PYTHONPATH")])])
    for what, source in PLUGINS.items():
        (folder / "plugged_badly.py").write_text(source)
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        for call in ("backbones", "embed images --backbone plugged -o new.csv"):
            done = world.run(call, check=False, PYTHONPATH=paths)
            row.n_tried += 1
            row.n_refused += done.returncode in (1, 2)
            if "Traceback" in done.stderr:
                row.problems["traceback"].append(f"{what}: {done.stderr[-300:]}")
            if (code := done.returncode) != (0 if call == "backbones" else 2):
                row.problems["wrong"].append(f"{what}: {call}: {code} {done.stderr[-200:]}")
    yield row


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


def _try(row: Row, call: Callable[[], str | None], what: str) -> None:
    """Call what returns what is wrong, if anything."""
    row.n_tried += 1
    try:
        if wrong := call():
            row.problems["wrong"].append(f"{what}: {wrong}")
    except TripletkitError:
        row.n_refused += 1
    except Exception as error:
        row.problems["traceback"].append(f"{what}: {error!r}")


def _read_triplets(data: bytes) -> str | None:
    """Read triplets: the same when written and read again, no more of them than lines."""
    triplets = read_triplets(io.BytesIO(data))
    written = io.StringIO()
    write_triplets(written, triplets.names, triplets.rows)
    again = read_triplets(io.BytesIO(written.getvalue().encode()))
    one, other = (np.array(t.names, dtype=object)[t.rows].tolist() for t in (triplets, again))
    if one != other:
        return "is another when it is written and read again"
    return "more rows than lines" if len(triplets) > len(data.splitlines()) else None


def _read_labels(data: bytes) -> str | None:
    """Read labels: each name and label stands in the text."""
    labels = read_labels(io.BytesIO(data))
    text = data.decode("utf-8").replace('""', '"')
    known = [*labels, *labels.values()]
    return next((f"{word!r} is not in it" for word in known if word not in text), None)


def _read_answers(data: bytes) -> str | None:
    """Read answers: 1 or 0, finite margins, the same when written and read again."""
    answers = read_answers(io.BytesIO(data))
    if not np.isin(answers.predictions, (0, 1)).all():
        return "predictions other than 0 and 1"
    if answers.margins is not None and np.isinf(answers.margins).any():
        return "margins without an end"
    form = "labels" if answers.margins is None or answers.triplets is None else "csv"
    written = io.StringIO()
    answers.write(written, form)
    again = read_answers(io.BytesIO(written.getvalue().encode()))
    return None if (again.predictions == answers.predictions).all() else "other answers"


def _read_truth(data: bytes) -> str | None:
    """Read truth: 1, 0 or undecided (-1), no more than lines."""
    truth = read_truth(io.BytesIO(data))
    if len(truth) > len(data.splitlines()):
        return "more rows than lines"
    return None if np.isin(truth.labels, (0, 1, -1)).all() else "labels other than these"


def damage_texts(world: World) -> Iterator[Row]:
    """Give damaged texts to every reader of texts."""
    row, rng = Row("damaged texts"), random.Random(SEED)
    readers = [_read_triplets, _read_labels, _read_answers, _read_truth]
    texts = [
        (world.folder / name).read_bytes()[:600]
        for name in ("train.txt", "labels.csv", "answers.txt", "truth.csv")
    ] + [b"a,b,c,prediction,margin\nx,y,z,1,0.5\nx,z,y,0,-0.5\n"]
    for number in range(N_TEXTS):
        data = mutate(rng.choice(texts), rng)
        reader = rng.choice(readers)
        _try(row, partial(reader, data), f"{reader.__name__} {number}")
    yield row


def damage_images(_: World) -> Iterator[Row]:
    """Give damaged images to the decoder; those whose tags are damaged only may be turned."""
    whole, tags = Row("damaged images"), Row("damaged EXIF")

    def read(name: str, content: bytes, of_whole: dict[str, set[bytes]]) -> str | None:
        pixels = np.asarray(read_image(Path(name), file=io.BytesIO(content)))
        if pixels.ndim != 3 or pixels.shape[2] != 3:
            return f"shape {pixels.shape}"
        is_known = pixels.tobytes() in of_whole.get(Path(name).suffix, {pixels.tobytes()})
        return None if is_known else "other pixels"

    for name, content in mutated_images(N_DAMAGED_IMAGES, SEED):
        _try(whole, partial(read, name, content, {}), name)
    yield whole
    turned = {}
    for name, content in images_with_mutated_exif(3, SEED):
        with Image.open(io.BytesIO(content)) as image:
            plain = np.asarray(image.convert("RGB"))
        turned[Path(name).suffix] = {
            np.rot90(half, times).tobytes() for half in (plain, plain[::-1]) for times in range(4)
        }
    for name, content in images_with_mutated_exif(N_TAGS, SEED):
        _try(tags, partial(read, name, content, turned), name)
    yield tags


def try_manifests(world: World) -> Iterator[Row]:
    """Give every awkward file of the development data to the commands that read such files."""
    if not SHARED.is_dir():
        yield Row("no development data")
        return
    images, model = SHARED / "images", world.folder / "m0"
    triplets = world.folder.parent / "one.txt"
    with world.entered():
        row = Row("images of the manifest")
        for entry in _manifest(SHARED / "manifest.csv"):
            name = entry["file"]
            quoted = '"' + name.replace('"', '""') + '"'
            triplets.write_text(f"{quoted} {' '.join(PARTNERS)}\n", encoding="utf-8")
            is_bad = entry["expected"] == "error"
            for arguments in (
                ["collage", triplets, images, "-o", "c.png"],
                ["predict", triplets, "--model", model, "--images", images],
                ["predict", triplets, "--model", model, "--images", images, "--frozen"],
                ["mine", "--triplets", triplets, images, "--backbone", "tiny", "-o", "mined.csv"],
                ["report", model, "--triplets", triplets, "--images", images, "-o", "r.html"],
            ):
                refused = _refuses(row, arguments, name)
                # `mine` refuses a triplet that names an image twice, as these two do here.
                is_repeated = arguments[0] == "mine" and name in PARTNERS
                if refused != (is_bad or is_repeated):
                    row.problems["wrong"].append(f"{arguments[0]} {name!a}: refused: {refused}")
            found = _refuses(row, ["audit", triplets, images, "--strict"], name)
            if is_bad and not found:
                row.problems["wrong"].append(f"audit {name!a}: nothing found")
        yield row
        row = Row("triplet files of the manifest")
        for entry in _manifest(SHARED / "triplets" / "manifest.csv"):
            path = SHARED / "triplets" / entry["file"]
            refusals = {
                arguments[0]: _refuses(row, list(arguments), entry["file"])
                for arguments in (
                    ["predict", path, "--model", model, "--images", images],
                    ["collage", path, images, "-o", "c.png"],
                    ["split", path, "-o", "parts", "--by", "random"],
                    ["controls", path, path],
                    ["mine", "--triplets", path, images, "--backbone", "tiny", "-o", "mined.csv"],
                    ["report", model, "--triplets", path, "--images", images, "-o", "r.html"],
                    ["train", path, images, "--backbone", "tiny", "--epochs", "1", "-o", "m"],
                    ["score", path],
                    ["judges", path],
                    ["audit", path, images],
                )
            }
            wrong = {"ok": refusals["predict"], "error": not refusals["predict"], "either": False}
            if wrong[entry["expected"]]:
                row.problems["wrong"].append(f"{entry['file']!a}: expected {entry['expected']}")
        yield row


def _manifest(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _refuses(row: Row, arguments: list[object], name: str) -> bool:
    """Call the command in an empty folder; return whether it refused."""
    with CliRunner().isolated_filesystem():
        return row.call(arguments, ascii(name)).exit_code != 0


PARTS: dict[str, Callable[[World], Iterator[Row]]] = {
    "overwrite": overwrite_everything,
    "harm": harm,
    "deny": deny,
    "labels": mistake_labels,
    "record": tamper_with_record,
    "databases": damage_databases,
    "plugins": plug_in,
    "texts": damage_texts,
    "images": damage_images,
    "manifests": try_manifests,
    "kill": kill_commands,
}


def run(parts: list[str], n_points: int = N_KILLS, *, is_shipped: bool = False) -> list[Row]:
    """Run parts of the campaign, print a row each and one of all, and return the rows."""
    print(HEADING)
    rows = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on damaged tags and columns that are not read
        world = World(Path(folder), n_points, is_shipped)
        for part in parts:
            for row in PARTS[part](world):
                row.problems["left"] += world.litter()
                print(row, flush=True)
                rows.append(row)
            world.restore(world.at_first)
    in_all = Row("in all", sum(row.n_tried for row in rows), sum(row.n_refused for row in rows))
    for kind, found in in_all.problems.items():
        found += [text for row in rows for text in row.problems[kind]]
    print(str(in_all).partition("\n")[0])
    return rows


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", PARTS)
def test_the_campaign_finds_nothing(part: str) -> None:
    assert [str(row) for row in run([part]) if any(row.problems.values())] == []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--points", type=int, default=N_KILLS, help="Kills of each command.")
    parser.add_argument("--shipped", action="store_true", help="With the default backbone.")
    chosen = parser.parse_args()
    found = run(chosen.parts or list(PARTS), chosen.points, is_shipped=chosen.shipped)
    sys.exit(any(any(row.problems.values()) for row in found))
