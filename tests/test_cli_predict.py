"""`tripletkit predict`: one answer a row, the same whatever rows stand beside it."""

import csv
import io
import os
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest


@pytest.fixture
def predict(tripletkit, tiny_backbone, toy_model, toy_competition):
    def predict(*options, triplets=toy_competition.test, model=toy_model, **extra):
        return tripletkit("predict", triplets, "--model", model, *options, **extra)

    return predict


@pytest.fixture
def write(tmp_path):
    def write(text, name="t.txt"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_predict_answers_every_row_in_order(predict, tripletkit, toy_competition, tmp_path):
    result = predict(code=0)
    lines = result.stdout.splitlines()
    assert lines[0] == "a,b,c,prediction,margin"
    rows = rows_of(result.stdout)
    queries = [line.split() for line in toy_competition.test.read_text().splitlines()]
    assert [[row["a"], row["b"], row["c"]] for row in rows] == queries
    for row in rows:
        assert row["prediction"] == str(int(float(row["margin"]) > 0))
    truth = toy_competition.truth.read_text().split()[1:]
    right = [row["prediction"] == label for row, label in zip(rows, truth, strict=True)]
    assert np.mean(right) > 0.9
    assert "Answered 200 questions over 18 images.\n" in result.stderr
    labels = predict("--format", "labels", "-q")
    assert labels.stdout == "".join(f"{row['prediction']}\n" for row in rows)
    # At the stated rate of false alarms, these few images seem to be of another kind.
    assert labels.stderr.startswith("warning: The 18 images are less like")
    assert labels.stderr.count("\n") == 1


def test_predict_writes_and_reads_the_same_in_files_and_pipes(predict, toy_competition, tmp_path):
    expected = predict().stdout
    path = tmp_path / "preds.csv"
    path.write_text("1\n0\n")
    result = predict("-o", path)
    assert (result.exit_code, result.stdout, path.read_text()) == (1, "", "1\n0\n")
    assert predict("-o", path, "--force").exit_code == 1  # nobody can tell whose it is
    path.unlink()
    for options in ([], ["--force"]):
        assert predict("-o", path, *options, code=0).stdout == ""
    assert path.read_bytes().decode() == expected
    assert predict("-o", "-").stdout == expected
    asked = toy_competition.test.read_bytes()
    assert predict(triplets="-", input=asked).stdout == expected
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_other_rows_and_their_order_change_no_answer(predict, toy_competition, write, tmp_path):
    lines = toy_competition.test.read_text().splitlines(keepends=True)
    whole = predict().stdout.splitlines()[1:]
    backwards = predict("--cache", tmp_path / "other", triplets=write("".join(lines[::-1])))
    assert backwards.stdout.splitlines()[1:] == whole[::-1]
    one = predict("--cache", tmp_path / "third", triplets=write(lines[7]))
    assert one.stdout.splitlines()[1:] == [whole[7]]


def test_swapped_questions_get_swapped_answers(predict, write):
    result = predict(triplets=write("p42 p48 p43\np42 p43 p48\np42 p43 p43\n"))
    margins = [float(row["margin"]) for row in rows_of(result.stdout)]
    assert margins[0] == -margins[1] != 0
    assert margins[2] == 0
    assert rows_of(result.stdout)[2]["prediction"] == "0"
    assert "warning: 1 of 3 rows are ties" in result.stderr


def test_bad_images_fail_or_answer_zero(predict, toy_competition, write, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(toy_competition.images, images)
    (images / "p43.png").write_bytes(b"no image")
    triplets = write("p42 p48 p44\np42 p48 p43\np42 nobody p44\n")
    missing = predict("--images", images, triplets=triplets)
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert 't.txt:3: there is no image "nobody"' in missing.stderr
    skipped = predict("--images", images, "--on-bad-image", "skip", triplets=triplets, code=0)
    rows = rows_of(skipped.stdout)
    assert [row["margin"] == "" for row in rows] == [False, True, True]
    assert [row["prediction"] for row in rows[1:]] == ["0", "0"]
    assert "warning: 2 images are left out:" in skipped.stderr
    assert "warning: 2 of 3 rows have an image that cannot be used" in skipped.stderr
    labels = predict(
        "--images", images, "--on-bad-image", "skip", "--format", "labels", triplets=triplets
    )
    assert labels.stdout.splitlines()[1:] == ["0", "0"]


def test_images_that_moved_are_asked_for(predict, toy_competition):
    hidden = toy_competition.images.with_name("hidden")
    expected = predict().stdout
    toy_competition.images.rename(hidden)
    try:
        result = predict()
        moved = predict("--images", hidden)
    finally:
        hidden.rename(toy_competition.images)
    assert result.exit_code == 1
    assert f"{toy_competition.images}: the folder of images" in result.stderr
    assert "--images DIR" in result.stderr
    assert moved.stdout == expected
    assert "Features: 0 images computed, 18 from the store.\n" in moved.stderr


def test_answers_from_the_store_need_no_weights(predict, monkeypatch, tmp_path):
    expected = predict().stdout
    monkeypatch.setenv("TINY_WEIGHTS", str(tmp_path / "gone.h5"))
    assert predict().stdout == expected
    cold = predict("--cache", tmp_path / "cold")
    assert (cold.exit_code, cold.stdout) == (1, "")
    assert "gone.h5: cannot be read" in cold.stderr


def test_other_weights_are_refused(predict, write, tmp_path):
    other = write("other", "other.h5")
    result = predict("--weights", other)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "expected the weights that" in result.stderr


def test_predict_checks_before_anything_slow(predict, write, tmp_path, monkeypatch):
    late = "tripletkit.features.feature_parts._load"
    monkeypatch.setattr(late, lambda *_: pytest.fail("late"))
    for options, extra, message in (
        ([], {"model": tmp_path / "none"}, "expected a model folder with model.json"),
        ([], {"model": write("", "file")}, "expected a model folder with model.json"),
        (["-o", tmp_path / "none" / "p.csv"], {}, "does not exist; make it first"),
        (
            [],
            {"triplets": write("p42 p43\n", "short.txt")},
            "short.txt:1: expected 3 image names, got 2",
        ),
        ([], {"triplets": write("p42 p43 nobody\n")}, 't.txt:1: there is no image "nobody"'),
    ):
        result = predict(*options, **extra)
        assert (result.exit_code, result.stdout) == (1, "")
        assert message in result.stderr


def test_predict_to_a_device_does_not_replace_it(predict, tmp_path):
    pipe = tmp_path / "link"
    pipe.symlink_to(os.devnull)
    assert predict("-o", pipe).exit_code == 0
    assert not pipe.is_file()
    assert pipe.is_symlink()


def test_a_closed_pipe_ends_quietly(start_tripletkit, toy_model, write):
    # More rows than any pipe holds.
    triplets = write("p42.png p48.png p43.png\n" * 50_000, "many.txt")
    process = start_tripletkit("predict", triplets, "--model", toy_model)
    first = process.stdout.readline()
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    process.wait(60)
    assert first == "a,b,c,prediction,margin\n"
    assert not re.search("Traceback|Error|Exception", stderr)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_output_is_reported(start_tripletkit, toy_model, toy_competition):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        words = ["predict", toy_competition.test, "--model", toy_model]
        process = start_tripletkit(*words, stdout=full)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 1
    assert stderr.endswith("Error: the output cannot be written: No space left on device\n")
    assert "Traceback" not in stderr


def test_stdout_holds_answers_only(start_tripletkit, toy_model, toy_competition, tmp_path):
    # With a store of its own, so that TensorFlow is loaded.
    process = start_tripletkit(
        "predict", toy_competition.test, "--model", toy_model, "--cache", tmp_path / "cold",
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    talk = [line for line in output.splitlines() if not line.startswith(("p", "a,b,c"))]
    # Not a word of TensorFlow's.
    assert talk.pop(1).startswith("warning: The 18 images are less like")
    assert talk == [
        "Features: 18 images computed, 0 from the store.",
        "Answered 200 questions over 18 images.",
    ]


def test_ctrl_c_leaves_no_half_file(start_tripletkit, toy_model, toy_competition, tmp_path):
    process = start_tripletkit(
        "predict", toy_competition.test, "--model", toy_model, "-o", tmp_path / "p.csv",
        trap=f"tripletkit.features.store:FeatureStore.write/{int(signal.SIGINT)}/1",
    )  # fmt: skip
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 130
    assert stderr == "\nInterrupted.\n"
    assert list(tmp_path.iterdir()) == []
