"""Splits: nothing in common that the policy forbids, nothing lost that it keeps, repeatable."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opened import read_triplets, read_truth

from tripletkit import Triplets, defaults
from tripletkit.data.outputs import Outputs, open_output
from tripletkit.data.questions import group_questions, make_pair_graph
from tripletkit.data.splits.policies import (
    fold_triplets,
    split_triplets,
)
from tripletkit.data.splits.split_files import (
    RECORD_FILE,
    SPLIT_FILES,
    check_split_folder,
    price_split,
    write_splits,
)
from tripletkit.errors import OutputError, SplitError


def make_triplets(rows, n_names=None):
    rows = np.asarray(rows, dtype=np.int32).reshape(-1, 3)
    names = [f"{name}.jpg" for name in range(n_names or rows.max() + 1)]
    return Triplets(names, rows, np.arange(1, len(rows) + 1), "made.txt")


def random_triplets(n_triplets=600, n_names=60, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.array([rng.permutation(n_names)[:3] for _ in range(n_triplets)])
    return make_triplets(np.concatenate([rows, rows[:20], rows[20:40][:, [0, 2, 1]]]), n_names)


def check_partition(split, triplets):
    parts = [split.train_rows, split.val_rows, split.dropped_rows]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(triplets)))
    assert all((np.diff(part) > 0).all() for part in parts)
    questions = group_questions(triplets.rows, len(triplets.names)).of_row
    assert not set(questions[split.train_rows]) & set(questions[split.val_rows])


def check_policy(split, triplets, by):
    check_partition(split, triplets)
    train, val = triplets.rows[split.train_rows], triplets.rows[split.val_rows]
    if by == "image":
        assert not np.intersect1d(train, val).size
    else:
        assert not split.dropped_rows.size
    if by == "component":
        graph = make_pair_graph(np.concatenate([train, val]), len(triplets.names))
        pairs = np.stack([graph.near, graph.far], axis=1)
        assert not np.intersect1d(pairs[: len(train)], pairs[len(train) :]).size


def many_components(n_components=300):
    """Return triplets in small components: a star of three pairs over four images each."""
    first = 4 * np.arange(n_components)[:, None]
    rows = first + np.array([0, 1, 2, 0, 2, 3, 0, 1, 3])
    return make_triplets(rows.reshape(-1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("by", defaults.SPLIT_POLICIES)
@pytest.mark.parametrize("val_fraction", [0.1, 0.2, 0.5])
def test_split_keeps_its_policy(by, val_fraction):
    triplets = many_components()
    split = split_triplets(triplets, by, val_fraction, seed=3)
    check_policy(split, triplets, by)
    if by != "image":
        assert len(split.val_rows) / len(triplets) == pytest.approx(val_fraction, abs=0.01)


@pytest.mark.parametrize("by", ["image", "random"])
def test_split_of_linked_triplets_keeps_its_policy(by):
    triplets = random_triplets()
    check_policy(split_triplets(triplets, by, 0.3, seed=0), triplets, by)


@pytest.mark.slow
@pytest.mark.parametrize("by", defaults.SPLIT_POLICIES)
def test_folds_keep_the_policy_and_validate_each_row_at_most_once(by):
    triplets = many_components()
    splits = fold_triplets(triplets, by, 4, seed=1)
    assert len(splits) == 4
    for split in splits:
        check_policy(split, triplets, by)
    validated = np.concatenate([split.val_rows for split in splits])
    assert len(np.unique(validated)) == len(validated)
    if by != "image":
        assert len(validated) == len(triplets)


@pytest.mark.slow
@pytest.mark.parametrize("by", defaults.SPLIT_POLICIES)
def test_same_seed_gives_the_same_split_and_another_seed_another(by):
    triplets = many_components()
    once, again, other = (
        split_triplets(triplets, by, 0.25, seed).val_rows.tolist() for seed in (5, 5, 6)
    )
    assert once == again != other


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(defaults.SPLIT_POLICIES), st.floats(0.05, 0.95))
def test_split_keeps_its_policy_or_refuses(seed, by, val_fraction):
    rng = np.random.default_rng(seed)
    triplets = make_triplets(rng.integers(0, 12, (rng.integers(1, 40), 3)), 12)
    try:
        split = split_triplets(triplets, by, val_fraction, seed)
    except SplitError as error:
        assert "Try" in str(error)
    else:
        check_policy(split, triplets, by)
        assert len(split.train_rows) and len(split.val_rows)


def test_image_split_keeps_more_than_chance_at_the_same_price():
    triplets = random_triplets(3000, 100)
    split = split_triplets(triplets, "image", 0.2, seed=0)
    places = np.arange(3)
    floor = np.prod((80 - places) / (100 - places)) * len(triplets)
    assert len(split.train_rows) >= floor
    chance = np.prod((20 - places) / (100 - places)) * len(triplets)
    assert len(split.val_rows) > 2 * chance
    assert len(np.unique(triplets.rows[split.val_rows])) <= 20


def test_image_split_finds_groups_that_never_meet():
    rng = np.random.default_rng(0)
    clusters = [rng.permutation(10)[:3] + 10 * (i % 5) for i in range(2000)]
    split = split_triplets(make_triplets(clusters), "image", 0.2, seed=0)
    assert not split.dropped_rows.size
    assert len(split.val_rows) == 400


def test_image_split_ignores_names_that_no_row_has():
    triplets = random_triplets(300, 30)
    padded = Triplets(
        [*triplets.names, *map(str, range(1000))], triplets.rows, triplets.lines, triplets.source
    )
    split = split_triplets(padded, "image", 0.3, seed=0)
    assert split.val_rows.tolist() == split_triplets(triplets, "image", 0.3, 0).val_rows.tolist()


def test_component_split_gives_a_giant_component_to_training():
    small = many_components(20).rows
    giant = np.array([[1000, 1001 + i, 1002 + i] for i in range(500)])
    triplets = make_triplets(np.concatenate([small, giant]))
    split = split_triplets(triplets, "component", 0.2, seed=0)
    assert set(split.val_rows) == set(range(len(small)))


def test_split_refuses_one_component_and_says_what_to_try():
    triplets = make_triplets([[0, 1, 2], [0, 2, 3], [0, 3, 4]])
    with pytest.raises(SplitError, match=r"made\.txt.*none for validation.*`by=image`"):
        split_triplets(triplets, "component", 0.2, seed=0)


def test_split_refuses_an_image_split_of_few_images():
    triplets = make_triplets([[0, 1, 2], [0, 2, 3]])
    with pytest.raises(SplitError, match=r"3 and 1.*`by=component`"):
        split_triplets(triplets, "image", 0.2, seed=0)
    with pytest.raises(SplitError, match=r"2 and 2.*fewer folds"):
        fold_triplets(triplets, "image", 2, seed=0)


def test_split_refuses_an_image_split_without_validation_triplets():
    # One anchor in every row: no two sides can both have a whole row.
    triplets = make_triplets([[0, i, i + 1] for i in range(1, 20)])
    with pytest.raises(SplitError, match=r"got none for .*`by=component`"):
        split_triplets(triplets, "image", 0.2, seed=0)


def test_split_refuses_a_policy_that_is_not_known():
    with pytest.raises(SplitError, match='image, component, random, got "week"'):
        split_triplets(random_triplets(10), "week", 0.2, seed=0)


def test_price_by_hand():
    triplets = many_components(100)
    split = split_triplets(triplets, "component", 0.5, seed=0)
    price = price_split(triplets, split)
    assert (price.n_train, price.n_val, price.n_dropped) == (150, 150, 0)
    assert (price.n_train_images, price.n_val_images, price.n_shared_images) == (200, 200, 0)
    # Wilson by its formula, p = 0.75, n = 150.
    z, p, n = 1.959964, 0.75, 150
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert price.half_width == pytest.approx(half, abs=1e-6)


def test_write_splits_reads_back(tmp_path):
    triplets = many_components(50)
    split = split_triplets(triplets, "component", 0.4, seed=2)
    write_splits(tmp_path / "split", triplets, [split], seed=2)
    assert sorted(path.name for path in (tmp_path / "split").iterdir()) == sorted(
        [*SPLIT_FILES, "split.json"]
    )

    def named(file_name):
        read = read_triplets(tmp_path / "split" / file_name)
        return np.array(read.names)[read.rows]

    names = np.array(triplets.names)
    np.testing.assert_array_equal(named("train.txt"), names[triplets.rows[split.train_rows]])
    answered = names[triplets.rows[split.val_rows]]
    np.testing.assert_array_equal(named("val_triplets.txt"), answered)
    heading, *labels = (tmp_path / "split" / "val_truth.csv").read_text().splitlines()
    assert heading == "label"
    assert {"0", "1"} == set(labels)
    asked = named("val.txt")
    nearer = np.where(np.array(labels) == "1", asked[:, 1], asked[:, 2])
    np.testing.assert_array_equal(nearer, answered[:, 1])


def test_a_split_replaces_what_a_split_wrote_and_nothing_else(tmp_path):
    triplets = many_components(50)
    splits = [split_triplets(triplets, "component", share, seed=2) for share in (0.4, 0.2)]
    write_splits(tmp_path, triplets, splits[:1], seed=2)
    outputs = Outputs(overwrite=True)
    check_split_folder(tmp_path, 1, outputs)
    write_splits(tmp_path, triplets, splits[1:], 2, outputs)
    assert len(read_triplets(tmp_path / "val.txt")) == len(splits[1].val_rows)
    (tmp_path / "val.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"val\.txt: is not a file that a split wrote"):
        check_split_folder(tmp_path, 1, Outputs(overwrite=True))


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


@pytest.mark.parametrize("has_other_file", [False, True])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_split_that_is_killed_leaves_the_old_one_or_the_new(tmp_path, has_other_file, is_first):
    """Whoever reads after a kill at any moment, and the next split too."""
    triplets = many_components(50)
    splits = [split_triplets(triplets, "component", share, seed=2) for share in (0.4, 0.2)]
    sizes = {tuple(map(len, (split.train_rows, split.val_rows))) for split in splits}
    was_killed, n_steps = True, 0
    while was_killed:
        folder = tmp_path / str(n_steps)
        if not is_first:
            write_splits(folder, triplets, splits[:1], seed=2)
        if has_other_file:
            folder.mkdir(exist_ok=True)
            (folder / "notes.txt").write_text("mine")

        def write(folder=folder):
            outputs = Outputs(overwrite=True)
            check_split_folder(folder, 1, outputs)
            write_splits(folder, triplets, splits[1:], 2, outputs)

        was_killed = run_killed(write, n_steps)
        if not is_first or (folder / "train.txt").exists() or not was_killed:
            found = [read_triplets(folder / name) for name in ("train.txt", "val.txt")]
            assert tuple(map(len, found)) in sizes
            assert not set(found[0].names) & set(found[1].names)
            assert len(read_truth(folder / "val_truth.csv")) == len(found[1])
        write()
        assert len(read_triplets(folder / "val.txt")) == len(splits[1].val_rows)
        expected = {*SPLIT_FILES, RECORD_FILE, *(["notes.txt"] if has_other_file else [])}
        assert {path.name for path in folder.iterdir()} == expected
        n_steps += 1
    assert n_steps > 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_of_two_splits_at_once_the_later_is_told(tmp_path):
    triplets = many_components(50)
    splits = [split_triplets(triplets, "component", share, seed=2) for share in (0.4, 0.2)]
    outputs = Outputs()
    check_split_folder(tmp_path / "s", 1, outputs)
    write_splits(tmp_path / "s", triplets, splits[:1], seed=2)
    with pytest.raises(OutputError, match="is there already"):
        write_splits(tmp_path / "s", triplets, splits[1:], 2, outputs)
    assert len(read_triplets(tmp_path / "s" / "val.txt")) == len(splits[0].val_rows)


def test_write_splits_leaves_nothing_when_it_fails(tmp_path, monkeypatch):
    triplets = many_components(50)
    split = split_triplets(triplets, "component", 0.4, seed=2)

    def failing(path, *args):
        if path.name == "val_truth.csv":
            raise OutputError("disk full")
        return open_output(path, *args)

    monkeypatch.setattr("tripletkit.data.splits.split_files.open_output", failing)
    with pytest.raises(OutputError, match="disk full"):
        write_splits(tmp_path / "split", triplets, [split], seed=2)
    assert not (tmp_path / "split").exists()


@pytest.mark.shared
def test_competition_file_by_component_keeps_everything(shared):
    triplets = read_triplets(shared / "food_triplets" / "train_triplets.txt")
    split = split_triplets(triplets, "component", 0.2, seed=0)
    check_policy(split, triplets, "component")
    assert len(split.val_rows) / len(triplets) == pytest.approx(0.2, abs=0.001)


def test_a_split_by_image_takes_no_whole_class():
    labels = np.repeat(np.arange(5), 24)
    rng = np.random.default_rng(0)
    rows = []
    while len(rows) < 3000:
        row = rng.permutation(120)[:3]
        if labels[row[0]] == labels[row[1]] != labels[row[2]]:
            rows.append(row)
    names = [f"{number:03}" for number in range(120)]
    triplets = Triplets(names, np.array(rows), np.arange(1, 3001), "made.txt")
    split = split_triplets(triplets, "image", 0.25, seed=0)
    val = np.unique(np.array(rows)[split.val_rows])
    shares = np.bincount(labels[val], minlength=5) / 24
    assert shares == pytest.approx(0.25, abs=0.05)
