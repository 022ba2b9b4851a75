"""What about a hundred command lines say and write, recorded to be compared with other code's.

    python tests/golden_outputs.py OUTDIR                 # in full, for `diff -r` with another run
    python tests/golden_outputs.py OUTDIR --group model   # one part of it
    python tests/golden_outputs.py --update               # rounded, into tests/golden/

Two runs on one machine give the same bytes. `PYTHONPATH=...` says whose outputs are recorded.
Every command runs in a fork of its own, with the terminal's width, threads and folders fixed.
"""

import argparse
import atexit
import base64
import hashlib
import html
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from drawn import COLOURS, draw_images, draw_rows
from forked_commands import run_command
from PIL import Image

GOLDEN = Path(__file__).with_name("golden")
COMMANDS = Path(__file__).with_name("golden_commands.txt")
GROUPS = ("plain", "model", "training")
# Cases that are not in `GOLDEN`: one says what there is on a machine, and of the helps a few do.
NOT_KEPT = re.compile(r"backbones|help-(?!train|predict|score|collect).*")
N_IMAGES, N_TRAIN_IMAGES = 90, 60
NET = "--backbone efficientnet-lite0 --image-size 64"
ENVIRONMENT = {
    "COLUMNS": "80",
    "KERAS_BACKEND": "tensorflow",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
}
# What differs from run to run, from machine to machine or from version to version.
VOLATILE = re.compile(
    r"^(created|command|versions\b.*|times\b.*|images|sha256|.*\.path|.*_s|.*_bytes|path)$"
)
TIME = re.compile(r"\b\d+(?:\.\d+)? (?:s|ms|min|h)\b|\d{4}-\d\d-\d\d \d\d:\d\d UTC")
PROGRESS = re.compile(r": (begun .* ago|done .* on what follows|.* of .*, about .* left)\.$")
FLOAT = re.compile(r"\d+\.\d{5,}(?:e[-+]?\d+)?|\d+(?:\.\d+)?e[-+]?\d+")
DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
MAX_LINES = 30
# Of a record, what other cases show, or what is long.
DETAIL = re.compile(
    r"^(model = |format_version|settings|features|inputs|weights_files)"
    r"|\.(by_margin|by_anchor_frequency|baselines|of_draws|candidates)\b"
    r"|\.(n_|is_|share_of_ones|ties)"
)


class Case(NamedTuple):
    """A line of golden_commands.txt."""

    name: str
    group: str
    words: list[str]
    files: list[str]


# --- what is given ---


def draw_inputs() -> None:
    """Draw the images into the working folder, and write judgements of them, one in ten wrong."""
    rng = np.random.default_rng(3)
    names = draw_images(Path("images"), N_IMAGES, rng)
    labels = np.arange(N_IMAGES) % len(COLOURS)

    def questions(low: int, high: int, n_rows: int) -> list[list[str]]:
        return [[names[image] for image in row] for row in draw_rows(low, high, n_rows, rng, 0.1)]

    def write(path: str, lines: list[str]) -> None:
        Path(path).write_text("".join(f"{line}\n" for line in lines))

    train = questions(0, N_TRAIN_IMAGES, 600)
    write("train.txt", [" ".join(row) for row in train])
    for_c = rng.binomial(5, 0.2, 600)
    write("votes.csv", [f"{5 - count},{count}" for count in for_c])
    shares = [
        f"{' '.join(row)} {1 - count / 5:.1f}" for row, count in zip(train, for_c, strict=True)
    ]
    write("shares.txt", shares)
    truth = rng.integers(0, 2, 60)
    test = questions(N_TRAIN_IMAGES, N_IMAGES, 60)
    asked = [
        (a, b, c) if first else (a, c, b) for (a, b, c), first in zip(test, truth, strict=True)
    ]
    write("test.txt", [" ".join(row) for row in asked])
    write("truth.csv", ["label", *map(str, truth)])
    write(
        "test_votes.csv", [f"{count},{5 - count}" for count in rng.binomial(5, 0.2 + 0.6 * truth)]
    )
    write("other.txt", [str(answer) for answer in rng.integers(0, 2, 60)])
    rows = [f"{name},{COLOURS[label]}" for name, label in zip(names, labels, strict=True)]
    write("labels.csv", ["name,label", *rows])
    write("bad.txt", ["p00.png p06.png p01.png", "p00.png p06.png"])
    write("missing.txt", ["p00.png p06.png p01.png", "p00.png p0.png p01.png"])
    write("wild.txt", [" ".join(row) for row in [*train[:40], train[0], train[1][::-1]]])
    write("mine.toml", ["epochs = 3", "margin = 0.4", 'distance = "cosine"'])
    features = np.eye(len(COLOURS))[labels] + rng.normal(0, 0.5, (N_IMAGES, len(COLOURS)))
    np.savez("given.npz", names=np.array(names), features=features.astype(np.float32))


def answer_page(judge: str) -> None:
    """Answer a judge's page, one question in eight by chance, into the file that it would save."""
    page = Path(f"{judge}.html").read_text(encoding="utf-8")
    data, images = (
        json.loads(re.search(rf'id="{name}">(.*?)</script>', page, re.DOTALL)[1])
        for name in ("data", "images")
    )
    colours = []
    for uri in images:
        image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
        colours.append(np.asarray(image, float).mean((0, 1)))
    rng = np.random.default_rng(len(judge))
    answers = []
    for number, screen in enumerate(data["screens"]):
        left, right = (
            np.linalg.norm(colours[place] - colours[screen["anchor"]]) for place in screen["shown"]
        )
        side = "left" if left < right else "right"
        if rng.random() < 1 / 8:
            side = ("left", "right", "neither")[number % 3]
        answers.append(
            {
                "client_id": f"{judge}-{number:04}",
                "screen": screen["id"],
                "side": side,
                "places": [],
                "response_ms": 800.0 + 100 * (number % 7),
                "method": "offline",
                "at": "2026-03-01T12:00:00.000Z",
            }
        )
    kept = {key: data[key] for key in ("format", "database", "key", "judge")}
    Path(f"{judge}.json").write_text(json.dumps(kept | {"answers": answers}))
    print(len(images), "images;", *(f"{each['screen']}:{each['side']}" for each in answers))


# --- what is recorded ---


def sweep_settings() -> None:
    import tripletkit as tk

    grid = {"dim": [2, 8], "epochs": [2]}
    table = tk.sweep("train.txt", features="given.npz", grid=grid, hidden=16)
    print(table.to_csv(index=False))


def fit_estimator() -> None:
    import tripletkit as tk

    given = np.load("given.npz")
    places = {name: place for place, name in enumerate(given["names"])}
    lines = Path("train.txt").read_text().splitlines()
    rows = np.array([[places[name] for name in line.split()] for line in lines])
    model = tk.TripletEmbedding(hidden=16, dim=3, epochs=3).fit(given["features"], rows)
    print(np.array2string(model.transform(given["features"])[:12], floatmode="unique"))


def train_in_memory() -> None:
    import tripletkit as tk

    # Without the place in the code that warns.
    warnings.showwarning = lambda text, kind, *_, **__: print(f"{kind.__name__}: {text}")
    given = np.load("given.npz")
    triplets = tk.read_judgements("train.txt").triplets
    model = tk.train(triplets, features="given.npz", recipe="residual", epochs=2, unseen_classes=0)
    answers = model.answer("test.txt")
    answers.write("memory.csv")
    print(len(given["names"]), "features,", tk.score("memory.csv", "truth.csv").accuracy)


def read_cases() -> list[Case]:
    """Return the cases, with the help of every command, and of every command of a command."""
    from tripletkit.cli.main import tripletkit

    cases, group = [], ""
    for line in COMMANDS.read_text().splitlines():
        if line.startswith("["):
            group = line.strip("[]")
        elif line and not line.startswith("#"):
            name, _, rest = line.partition(": ")
            words, _, files = rest.partition(" > ")
            cases.append(Case(name, group, words.replace("NET", NET).split(), files.split()))

    def walk(command: Any, words: list[str]) -> Iterator[list[str]]:
        yield words
        for name, below in sorted(getattr(command, "commands", {}).items()):
            yield from walk(below, [*words, name])

    helps = walk(tripletkit, [])
    cases += (Case("-".join(["help", *words]), "plain", [*words, "--help"], []) for words in helps)
    return cases


# --- running ---


def run_in_fork(words: list[str], out: Path, err: Path) -> int:
    """Run a command or a function in a fork of this process, and return its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    # `collect` numbers images in an order that no seed of its own starts.
    shuffle = random.Random.shuffle
    random.Random.shuffle = lambda _, items: shuffle(random.Random(0), items)
    # A model's record has the command line that made it.
    sys.argv = ["tripletkit", *words]
    code = 0
    if words[0] != "python":
        code = run_command(words)
    else:
        try:
            globals()[words[1]](*words[2:])
        except BaseException:
            code = 1
            traceback.print_exc()
    # No ordinary end, which waits for threads that the fork does not have.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def import_once(with_networks: bool) -> None:
    """Import what every fork would import again."""
    from importlib import import_module

    import_module("tripletkit.cli.main")
    for name in ("pandas", "scipy.stats", "onnxruntime"):
        import_module(name)
    if with_networks:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        import_module("tensorflow")
        import_module("keras")
        os.dup2(kept, 2)


def record(group: str) -> Iterator[tuple[Case, str]]:
    """Run the cases of a group in a new folder; yield each with its outputs as one text."""
    os.environ.update(ENVIRONMENT)
    # No `TemporaryDirectory`, which every fork would remove at its end.
    work = Path(tempfile.mkdtemp(prefix="golden")).resolve()
    os.environ["TRIPLETKIT_CACHE"] = str(work / "cache")
    os.environ["KERAS_HOME"] = str(work / "keras")
    os.chdir(work)
    try:
        draw_inputs()
        import_once(group != "plain")
        for case in read_cases():
            if case.group in ("collect", group):
                code = run_in_fork(case.words, work / "stdout", work / "stderr")
                yield case, describe(case, code, work)
    finally:
        os.chdir("/")
        shutil.rmtree(work)


def describe(case: Case, code: int, work: Path) -> str:
    """Write what a case said and wrote as text, without paths and times of this run."""
    program = [] if case.words[0] == "python" else ["tripletkit"]
    parts = [f"$ {' '.join([*program, *case.words])}", f"exit {code}"]
    said = {name: (work / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")}
    if said["stdout"].startswith("{\n"):
        said["stdout"] = flatten(json.loads(said["stdout"]))
    for name, text in said.items():
        # How far a stage is, is said every half minute: by slow machines alone.
        lines = [line for line in text.splitlines() if not PROGRESS.search(line)]
        if lines:
            parts.append(
                "\n".join([f"--- {name}", *(TIME.sub("# s", line) for line in lines)]).rstrip()
            )
    for name in case.files:
        # A folder is a model.
        path = work / name
        paths = sorted(path.iterdir()) if name.endswith("/") and path.is_dir() else [path]
        for path in paths:
            parts.append(f"--- {path.relative_to(work)}\n{describe_file(path).rstrip()}")
    return "\n".join(parts).replace(str(work), "WORK") + "\n"


def describe_file(path: Path) -> str:
    if not path.is_file():
        return "none" if not path.exists() else "a folder"
    if path.suffix == ".json":
        return flatten(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".html":
        return TIME.sub("# s", read_page(path.read_text(encoding="utf-8")))
    if path.suffix == ".h5":
        return describe_weights(path)
    if path.suffix == ".npz":
        arrays = np.load(path)
        return "\n".join(f"{name} {describe_array(arrays[name])}" for name in arrays.files)
    if path.suffix == ".npy":
        return describe_array(np.load(path))
    return path.read_text(encoding="utf-8")


def describe_weights(path: Path) -> str:
    import h5py

    lines: list[str] = []

    def add(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            lines.append(f"{name} {describe_array(item[()])}")

    with h5py.File(path) as file:
        file.visititems(add)
    return "\n".join(lines)


def describe_array(values: Any) -> str:
    values = np.asarray(values)
    digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    return f"{values.dtype} {values.shape} {digest}"


def flatten(value: Any, place: str = "") -> str:
    """Write JSON as lines `place = value`, in its order, without what differs from run to run."""
    if VOLATILE.match(place):
        return ""
    if isinstance(value, dict) and value:
        below = [(f"{place}.{key}" if place else key, each) for key, each in value.items()]
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        below = [(f"{place}.{number}", each) for number, each in enumerate(value)]
    else:
        return f"{place} = {json.dumps(value, ensure_ascii=False)}\n"
    return "".join(flatten(each, name) for name, each in below)


def read_page(page: str) -> str:
    """Return the text of a page, without its figures, styles and scripts."""
    shown = re.sub(r"<(svg|style|script)\b.*?</\1>", "", page, flags=re.DOTALL)
    texts = (" ".join(html.unescape(each).split()) for each in re.split(r"<[^>]*>", shown))
    return "\n".join(filter(None, texts))


# --- the small form that is kept ---


def shorten(text: str) -> str:
    """Round numbers, leave digests out, and keep the beginning of every long part."""
    kept = []
    for part in re.split(r"^(?=--- )", text, flags=re.MULTILINE):
        head, _, body = part.partition("\n")
        if head.endswith((".h5", ".npy", ".npz")):
            continue
        lines = [line for line in body.splitlines() if not line.endswith("= null")]
        lines = [line for line in lines if not DIGEST.search(line)]
        if "\nbest_epoch = " in body:
            lines = [line for line in lines if not DETAIL.search(line)]
        is_long = len(lines) > MAX_LINES and head.endswith((".csv", ".txt"))
        if is_long:
            lines = [*lines[: MAX_LINES // 2], f"... {len(lines) - MAX_LINES // 2} lines more"]
        kept.append("\n".join([head, *lines, ""]))
    return FLOAT.sub(lambda found: f"{float(found[0]):.4f}", "".join(kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("outdir", nargs="?", type=Path, help="folder for a text for each case")
    parser.add_argument("--group", choices=GROUPS, help="one part, instead of all")
    parser.add_argument("--update", action="store_true", help="write tests/golden/ anew")
    given = parser.parse_args()
    if (given.outdir is None) != given.update:
        parser.error("expected OUTDIR or --update")
    folder = GOLDEN if given.update else given.outdir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    written = set()
    for group in [given.group] if given.group else GROUPS:
        for case, text in record(group):
            if given.update and NOT_KEPT.fullmatch(case.name):
                continue
            path = folder / f"{case.name}.txt"
            path.write_text(shorten(text) if given.update else text, encoding="utf-8")
            written.add(path)
    if given.update and given.group is None:
        for path in set(folder.glob("*.txt")) - written:
            path.unlink()
    import tripletkit

    print(f"{len(written)} outputs of {tripletkit.__file__} in {folder}")


if __name__ == "__main__":
    main()
