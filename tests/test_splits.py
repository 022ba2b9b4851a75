"""Splits: nothing in common that the policy forbids, nothing lost that it keeps, repeatable."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from drawn import class_triplets
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import read_triplets, read_truth

import tripletkit as tk
from tripletkit import ImageSplit, SettingsError, Triplets, defaults
from tripletkit.api import triplet_sets
from tripletkit.data.questions import PairGraph, Questions
from tripletkit.errors import OutputError, SplitError, TripletFileError

FILES = {"train.txt", "val.txt", "val_truth.csv", "val_triplets.txt", "split.json"}
pytestmark = pytest.mark.filterwarnings("ignore:a random split", "ignore:.*name one image twice")


def rows_of(part):
    """Return which rows of made triplets a part has."""
    return part.lines - 1


def make_triplets(rows, n_names=None):
    rows = np.asarray(rows, dtype=np.int32).reshape(-1, 3)
    names = [f"{name}.jpg" for name in range(n_names or rows.max() + 1)]
    return Triplets(names, rows, np.arange(1, len(rows) + 1), "made.txt")


def random_triplets(n_triplets=600, n_names=60, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.array([rng.permutation(n_names)[:3] for _ in range(n_triplets)])
    return make_triplets(np.concatenate([rows, rows[:20], rows[20:40][:, [0, 2, 1]]]), n_names)


def check_policy(split, triplets):
    sides = [split.train, split.val]
    train, val = map(rows_of, sides)
    assert len(train) + len(val) + split.cost.n_dropped == len(triplets)
    assert len(np.unique([*train, *val])) == len(train) + len(val)
    assert (np.diff(train) > 0).all() and (np.diff(val) > 0).all()
    questions = Questions.of(triplets.rows, len(triplets.names)).of_row
    assert not set(questions[train]) & set(questions[val])
    if split.by == "image":
        assert not np.intersect1d(split.train.rows, split.val.rows).size
        return
    assert not split.cost.n_dropped
    if split.by == "component":
        both = np.concatenate([split.train.rows, split.val.rows])
        graph = PairGraph.of(both, len(triplets.names))
        pairs = np.stack([graph.near, graph.far], axis=1)
        assert not np.intersect1d(pairs[: len(train)], pairs[len(train) :]).size


def many_components(n_components):
    """Return triplets in small components: a star of three pairs over four images each."""
    first = 4 * np.arange(n_components)[:, None]
    rows = first + np.array([0, 1, 2, 0, 2, 3, 0, 1, 3])
    return make_triplets(rows.reshape(-1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("by", defaults.SPLIT_POLICIES)
def test_splits_and_folds_keep_their_policy(by):
    triplets = many_components(150)
    for val_fraction in (0.1, 0.2, 0.5):
        once, again, other = (
            tk.split(triplets, by, val_fraction=val_fraction, seed=seed) for seed in (3, 3, 4)
        )
        check_policy(once, triplets)
        assert once.val.lines.tolist() == again.val.lines.tolist() != other.val.lines.tolist()
        if by != "image":
            assert len(once.val) / len(triplets) == pytest.approx(val_fraction, abs=0.01)
    folds = tk.split(triplets, by, folds=4, seed=1)
    assert len(folds) == 4
    for fold in folds:
        check_policy(fold, triplets)
    validated = np.concatenate([rows_of(fold.val) for fold in folds])
    assert len(np.unique(validated)) == len(validated)
    if by != "image":
        assert len(validated) == len(triplets)
    linked = random_triplets()
    if by != "component":
        check_policy(tk.split(linked, by, val_fraction=0.3), linked)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(defaults.SPLIT_POLICIES), st.floats(0.05, 0.95))
def test_split_keeps_its_policy_or_refuses(seed, by, val_fraction):
    rng = np.random.default_rng(seed)
    triplets = make_triplets(rng.integers(0, 12, (rng.integers(1, 40), 3)), 12)
    try:
        split = tk.split(triplets, by, val_fraction=val_fraction, seed=seed)
    except SplitError as error:
        assert "Try" in str(error)
    else:
        check_policy(split, triplets)
        assert len(split.train) and len(split.val)


def test_image_split_keeps_more_than_chance_at_the_same_price():
    triplets = random_triplets(3000, 100)
    split = tk.split(triplets, "image", val_fraction=0.2)
    places = np.arange(3)
    floor = np.prod((80 - places) / (100 - places)) * len(triplets)
    assert len(split.train) >= floor
    chance = np.prod((20 - places) / (100 - places)) * len(triplets)
    assert len(split.val) > 2 * chance
    assert len(np.unique(split.val.rows)) <= 20


def test_image_split_finds_groups_that_never_meet():
    rng = np.random.default_rng(0)
    clusters = [rng.permutation(10)[:3] + 10 * (i % 5) for i in range(2000)]
    split = tk.split(make_triplets(clusters), "image", val_fraction=0.2)
    assert not split.cost.n_dropped
    assert len(split.val) == 400


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_two_groups_are_enough_to_hold_one_out():
    triplets = make_triplets([[0, 1, 2], [1, 0, 2], [3, 4, 5], [4, 5, 3]])
    groups = {name: str(n // 3) for n, name in enumerate(triplets.names)}
    split = tk.split(triplets, "image", val_fraction=0.5, groups=groups)
    assert (len(split.train), len(split.val), split.cost.n_dropped) == (2, 2, 0)


def test_image_split_ignores_names_that_no_row_has():
    triplets = random_triplets(300, 30)
    padded = Triplets(
        [*triplets.names, *map(str, range(1000))], triplets.rows, triplets.lines, triplets.source
    )
    lines = [tk.split(each, "image", val_fraction=0.3).val.lines for each in (padded, triplets)]
    np.testing.assert_array_equal(*lines)


def test_component_split_gives_a_giant_component_to_training():
    small = many_components(20).rows
    giant = np.array([[1000, 1001 + i, 1002 + i] for i in range(500)])
    split = tk.split(make_triplets(np.concatenate([small, giant])), "component", val_fraction=0.2)
    assert set(rows_of(split.val)) == set(range(len(small)))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([[0, 1, 2], [0, 2, 3], [0, 3, 4]], {"by": "component"}, r"made\.txt.*none .*`by=image`"),
        ([[0, 1, 2], [0, 2, 3]], {"by": "image"}, r"3 and 1.*`by=component`"),
        ([[0, 1, 2], [0, 2, 3]], {"by": "image", "folds": 2}, r"2 and 2.*fewer folds"),
        # One anchor in every row: no two sides can both have a whole row.
        ([[0, i, i + 1] for i in range(1, 20)], {}, r"got none for .*`by=component`"),
        ([[0, 1, 2]] * 10, {"by": "week"}, 'image, component, random, got "week"'),
    ],
)
def test_what_cannot_be_split_is_refused_with_what_to_try(rows, options, message):
    with pytest.raises(SplitError, match=message):
        tk.split(make_triplets(rows), **options)


def test_price_by_hand():
    price = tk.split(many_components(100), "component", val_fraction=0.5).cost
    assert (price.n_train, price.n_val, price.n_dropped) == (150, 150, 0)
    assert (price.n_train_images, price.n_val_images, price.n_shared_images) == (200, 200, 0)
    # Wilson by its formula, p = 0.75, n = 150.
    z, p, n = 1.959964, 0.75, 150
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert price.half_width == pytest.approx(half, abs=1e-6)


def write(folder, val_fraction, **options):
    options |= {"val_fraction": val_fraction, "seed": 2, "output": folder}
    return tk.split(many_components(50), "component", **options)


def test_what_is_written_reads_back(tmp_path):
    split = write(tmp_path / "split", 0.4)
    assert {path.name for path in (tmp_path / "split").iterdir()} == FILES

    def named(triplets):
        return np.array(triplets.names)[triplets.rows]

    train, val, answered = (
        named(read_triplets(tmp_path / "split" / name))
        for name in ("train.txt", "val.txt", "val_triplets.txt")
    )
    np.testing.assert_array_equal(train, named(split.train))
    np.testing.assert_array_equal(answered, named(split.val))
    heading, *labels = (tmp_path / "split" / "val_truth.csv").read_text().splitlines()
    assert heading == "label"
    assert {"0", "1"} == set(labels)
    nearer = np.where(np.array(labels) == "1", val[:, 1], val[:, 2])
    np.testing.assert_array_equal(nearer, answered[:, 1])


def test_a_split_replaces_what_a_split_wrote_and_nothing_else(tmp_path):
    write(tmp_path, 0.4)
    split = write(tmp_path, 0.2, overwrite=True)
    assert len(read_triplets(tmp_path / "val.txt")) == len(split.val)
    (tmp_path / "val.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"val\.txt: is not a file that a split wrote"):
        write(tmp_path, 0.2, overwrite=True)


def run_killed(act, n_steps):
    """Run in a fork that is killed at its n-th renaming or link; return whether it was."""
    process = os.fork()
    if process == 0:
        left = [n_steps]

        def dying(original):
            def call(*args, **options):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*args, **options)

            return call

        for name in ("replace", "rename", "unlink"):
            setattr(Path, name, dying(getattr(Path, name)))
        shutil.rmtree = dying(shutil.rmtree)
        try:
            act()
        finally:
            os._exit(0 if left[0] >= 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0


@pytest.mark.parametrize(
    ("is_first", "has_other_file"), [(True, False), (True, True), (False, True)]
)
def test_a_split_that_is_killed_leaves_the_old_one_or_the_new(tmp_path, has_other_file, is_first):
    """Whoever reads after a kill at any moment, and the next split too."""
    sizes = {(len(each.train), len(each.val)) for each in (write(None, 0.4), write(None, 0.2))}
    was_killed, n_steps = True, 0
    while was_killed:
        folder = tmp_path / str(n_steps)
        if not is_first:
            write(folder, 0.4)
        if has_other_file:
            folder.mkdir(exist_ok=True)
            (folder / "notes.txt").write_text("mine")

        was_killed = run_killed(lambda at=folder: write(at, 0.2, overwrite=True), n_steps)
        if not is_first or (folder / "train.txt").exists() or not was_killed:
            found = [read_triplets(folder / name) for name in ("train.txt", "val.txt")]
            assert tuple(map(len, found)) in sizes
            assert not set(found[0].names) & set(found[1].names)
            assert len(read_truth(folder / "val_truth.csv")) == len(found[1])
        split = write(folder, 0.2, overwrite=True)
        assert len(read_triplets(folder / "val.txt")) == len(split.val)
        expected = FILES | ({"notes.txt"} if has_other_file else set())
        assert {path.name for path in folder.iterdir()} == expected
        n_steps += 1
    assert n_steps > 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_of_two_splits_at_once_the_later_is_told(tmp_path, monkeypatch):
    """The other takes the place after this one looked whether it is free."""
    folder, original = tmp_path / "s", triplet_sets.write_splits

    def write_later(*arguments):
        monkeypatch.undo()
        other = threading.Thread(target=write, args=(folder, 0.4))  # so another run
        other.start()
        other.join()
        original(*arguments)

    monkeypatch.setattr("tripletkit.api.triplet_sets.write_splits", write_later)
    with pytest.raises(OutputError, match="is there already"):
        write(folder, 0.2)
    assert len(read_triplets(folder / "val.txt")) == len(write(None, 0.4).val)


def test_a_split_that_fails_leaves_nothing_and_names_its_file(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=rf"^{tmp_path}/split/train\.txt: cannot be written"):
        write(tmp_path / "split", 0.4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.shared
def test_competition_file_by_component_keeps_everything(shared):
    triplets = read_triplets(shared / "food_triplets" / "train_triplets.txt")
    split = tk.split(triplets, "component", val_fraction=0.2)
    check_policy(split, triplets)
    assert len(split.val) / len(triplets) == pytest.approx(0.2, abs=0.001)


def test_a_split_by_image_takes_no_whole_class():
    labels = np.repeat(np.arange(5), 24)
    split = tk.split(make_triplets(class_triplets(labels, 3000)), "image", val_fraction=0.25)
    shares = np.bincount(labels[np.unique(split.val.rows)], minlength=5) / 24
    assert shares == pytest.approx(0.25, abs=0.05)


@pytest.fixture
def clustered_file(tmp_path):
    path = tmp_path / "clustered.txt"
    lines = [
        f"p{c}a p{c}b p{c}{x}\np{c}a p{c}{x} p{c}{y}\n" for c in range(50) for x, y in ("cd", "ef")
    ]
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize("options", ["image", "component", "random", "image --folds 3"])
def test_split_writes_files_that_read_back(tripletkit, clustered_file, tmp_path, options):
    folder = tmp_path / "made" / "split"
    before = clustered_file.read_bytes()
    arguments = ["split", clustered_file, "-o", folder, "--by", *options.split(), "--json"]
    result = tripletkit(*arguments, code=0)
    found = json.loads(result.stdout)
    assert found["by"] == options.split()[0]
    for number, price in enumerate(found.get("folds", [found]), 1):
        part = folder / (f"fold{number}" if "folds" in found else ".")
        assert len(read_triplets(part / "train.txt")) == price["n_train"]
        assert len(read_triplets(part / "val.txt")) == price["n_val"]
        assert len(read_truth(part / "val_truth.csv")) == price["n_val"]
        assert price["n_train"] + price["n_val"] + price["n_dropped"] == 200
    assert ("warning" in result.stderr) == (options == "random")
    assert clustered_file.read_bytes() == before


def test_split_reads_stdin_and_warns_of_degenerate_triplets(tripletkit, tmp_path):
    arguments = ["split", "-", "-o", str(tmp_path / "s"), "--by", "component"]
    result = tripletkit(
        *arguments, "--val-fraction", "0.5", input=b"a a b\nc d e\nf g h\ni j k\n", code=0
    )
    assert "warning: <stdin>: 1 triplets name one image twice" in result.stderr


@pytest.mark.parametrize(
    "options",
    [["--folds", "3", "--val-fraction", "0.2"], ["--val-fraction", "1"], ["--folds", "1"]],
)
def test_split_called_wrongly_exits_2(tripletkit, clustered_file, tmp_path, options):
    arguments = ["split", str(clustered_file), "-o", str(tmp_path / "s"), "--by", "image"]
    tripletkit(*arguments, *options, code=2)


def all_triplets(n_images: int) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[np.arange(n_images)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[(np.diff(np.sort(grid), axis=1) > 0).all(axis=1)]


@pytest.mark.slow
@given(st.integers(6, 16), st.integers(1, 25), st.floats(0.1, 0.9), st.integers(0, 99))
def test_image_splits_share_no_image_keep_all_others_and_take_turns(n, n_draws, share, seed):
    n_test = round(share * n)
    if min(n_test, n - n_test) < 3:
        return
    rows = all_triplets(n)
    n_times = np.zeros(n, int)
    splits = list(ImageSplit(n_draws, share, seed).split(rows))
    assert len(splits) == n_draws
    for train, test in splits:
        held_out = np.unique(rows[test])
        assert len(held_out) == n_test
        assert not np.intersect1d(rows[train], held_out).size
        # Every triplet of the images on either side is there.
        assert len(test) == n_test * (n_test - 1) * (n_test - 2)
        assert len(train) == (n - n_test) * (n - n_test - 1) * (n - n_test - 2)
        n_times[held_out] += 1
    assert np.ptp(n_times) <= 1


def test_draws_are_not_the_same_parts_again_and_again():
    # With a half held out, turns alone would give two halves for ever.
    rows = all_triplets(12)
    splits = ImageSplit(40, 0.5, 0).split(rows)
    assert len({tuple(np.unique(rows[test])) for _, test in splits}) > 30


def test_a_seed_gives_the_same_splits_and_none_gives_others():
    rows = all_triplets(9)
    first, again = (list(ImageSplit(3, random_state=4).split(rows)) for _ in range(2))
    for (train, test), (same_train, same_test) in zip(first, again, strict=True):
        np.testing.assert_array_equal(train, same_train)
        np.testing.assert_array_equal(test, same_test)
    drawn = [
        tuple(next(ImageSplit(1, random_state=state).split(rows))[1])
        for state in [None] * 4 + [np.random.RandomState(0)]
    ]
    assert len(set(drawn)) > 1
    state = np.random.RandomState(0)
    two = [tuple(next(ImageSplit(1, random_state=state).split(rows))[1]) for _ in range(2)]
    assert two[0] != two[1]


def test_triplets_are_taken_as_they_are_and_images_without_one_are_not_drawn():
    triplets = Triplets.from_array(all_triplets(9), [f"{n}.png" for n in range(20)])
    train, test = next(ImageSplit(1, 1 / 3, 0).split(triplets))
    assert (len(train), len(test)) == (120, 6)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (all_triplets(6)[:4], SplitError, "at least 3 images on each side"),
        (np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]] * 2), SplitError, "got none for"),
        (np.zeros((4, 2), int), TripletFileError, "shape"),
        (np.zeros((4, 3)), TripletFileError, "integer triplets"),
    ],
)
def test_image_split_refuses_what_it_cannot_split(rows, error, message):
    with pytest.raises(error, match=message):
        list(ImageSplit(20, random_state=0).split(rows))


def test_image_split_refuses_wrong_settings_by_name():
    for field, value in (("n_splits", 0), ("n_splits", 2.5), ("n_splits", "3"), ("test_size", 1.0)):
        with pytest.raises(SettingsError) as caught:
            ImageSplit(**{field: value})
        assert caught.value.field == field
