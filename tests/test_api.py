"""From Python the same things come out as from the command line, and nothing is printed."""

import inspect
import io
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tripletkit as tk
from tripletkit.model.settings import check_values

QUICK = {"backbone": "tiny", "epochs": 3, "dim": 4}


def quietly_train(*given, **settings) -> tk.Model:
    """Train for a moment; with so few triplets there is much to be warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tk.TripletkitWarning)
        return tk.train(*given, **QUICK, **settings)


@pytest.fixture
def model(toy_model: Path, tiny_backbone) -> tk.Model:
    return tk.load(toy_model)


@pytest.fixture
def run(tripletkit):
    """Run a command and return what it prints."""

    def run(*arguments: object) -> str:
        result = tripletkit(*arguments, catch_exceptions=False, code=0)
        return result.stdout

    return run


@pytest.fixture
def frame(toy_competition) -> pd.DataFrame:
    """The training triplets as a table, with a column that says nothing and names out of order."""
    columns = ["anchor", "positive", "negative"]
    table = pd.read_csv(toy_competition.train, sep=" ", names=columns, dtype=str)
    return table.assign(rater=7)[["negative", "rater", "anchor", "positive"]]


@pytest.mark.integration
def test_import_is_quick_and_loads_nothing():
    script = (
        "import os, sys, time; started_s = time.process_time()\n"
        "import tripletkit\n"
        "took_s = time.process_time() - started_s\n"
        "heavy = {'numpy', 'pandas', 'PIL', 'click', 'sklearn', 'keras', 'tensorflow'}\n"
        "print(took_s < 0.3, sorted(heavy & set(sys.modules)), 'KERAS_BACKEND' in os.environ)\n"
        "print(sorted(set(tripletkit.__all__) - set(dir(tripletkit))), tripletkit.__version__)\n"
        "tripletkit.read_judgements, tripletkit.score, tripletkit.load, tripletkit.train\n"
        "print(sorted({'click', 'keras', 'tensorflow'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout == f"True [] False\n[] {tk.__version__}\n[]\n"


def public_callables():
    """Yield (name, function) of all that can be called of what is public."""
    for name in tk.__all__:
        value = getattr(tk, name)
        if inspect.ismodule(value):
            continue
        if not inspect.isclass(value):
            yield name, value
            continue
        if issubclass(value, BaseException):
            continue
        for method, function in inspect.getmembers(value):
            # What scikit-learn and the tuple give is theirs to explain.
            home = getattr(inspect.unwrap(function), "__module__", "") or ""
            if not method.startswith("_") and callable(function) and home.startswith("tripletkit"):
                yield f"{name}.{method}", function


CALLABLES = [pytest.param(name, function, id=name) for name, function in public_callables()]


@pytest.mark.parametrize(("name", "function"), CALLABLES)
def test_public_functions_explain_what_they_take_and_give(name, function):
    doc = inspect.getdoc(function)
    assert doc, name
    parameters = [each for each in inspect.signature(function).parameters if each != "self"]
    kinds = ("Triplets.", "Judgements.", "Answers.", "Truth.", "Images.", "Embeddings.take")
    short = name.startswith(kinds) and not name.endswith("from_array")
    if short:
        return
    if parameters:
        explained = doc.partition("Args:")[2]
        if name == "report":  # says of each what it shows
            parameters.remove("view")
            parameters += ["triplets", "truth", "labels", "images", "features", "cache"]
        for parameter in parameters:
            assert re.search(rf"\b{parameter}\b", explained), f"{name}: {parameter}"
    if inspect.signature(function).return_annotation not in ("None", None):
        assert "Returns:" in doc or not parameters, name


@pytest.mark.slow
def test_all_ways_to_give_triplets_train_the_same_model(
    toy_competition, tiny_backbone, frame, tmp_path, run, capfd
):
    images = toy_competition.images
    run(
        *("train", toy_competition.train, images, "-o", tmp_path / "m", "--no-refit"),
        *("--backbone", "tiny", "--epochs", 3, "--dim", 4),
    )
    expected = run("predict", toy_competition.test, "--model", tmp_path / "m")
    triplets = tk.read_judgements(toy_competition.train).triplets
    names = sorted(triplets.names)
    rows = pd.Index(names).get_indexer(triplets.names)[triplets.rows]
    capfd.readouterr()
    for given, more in (
        (str(toy_competition.train), {}),
        # Names are numbered as they stand in a row, and what is drawn by chance goes by numbers.
        (frame[["anchor", "positive", "negative"]], {}),
        (triplets, {}),
        (rows, {"names": names}),
    ):
        model = quietly_train(given, images, refit=False, **more)
        text = io.StringIO(newline="")
        model.answer(toy_competition.test).write(text)
        assert text.getvalue() == expected
        assert model.path is None
    # Nothing was printed, neither by us nor by TensorFlow.
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_training_warns_and_records_what_it_was_given(toy_competition, tiny_backbone, frame):
    told = []
    with pytest.warns(tk.TripletkitWarning) as warned:
        model = tk.train(
            *(frame, toy_competition.images),
            **{"seed": 3, "val_fraction": 0.1, "on_epoch": lambda *each: told.append(each)},
            **QUICK,
        )
    cautions = [each for each in warned if issubclass(each.category, tk.TripletkitWarning)]
    assert {each.filename for each in cautions} == {__file__}
    few = [str(each.message) for each in cautions if each.category is tk.FewTripletsWarning]
    assert "too few to choose an epoch by" in few[0]
    assert model.record.inputs.triplets.name == "DataFrame"
    assert model.record.settings.seed == 3
    assert model.record.command.startswith("tripletkit.train(triplets=<DataFrame>, images=")
    assert model.validation.trained.n == model.record.split.n_val
    assert list(model.history["epoch"]) == [1, 2, 3]
    assert [n_epochs for _, n_epochs in told] == [3, 3, 3]
    assert [epoch.loss for epoch, _ in told] == pytest.approx(model.history["loss"])
    assert model.embed().vectors.shape == (60, 4)


@pytest.mark.slow
def test_votes_and_validation_are_taken_from_arrays(toy_competition, tiny_backbone, frame):
    truth = pd.read_csv(toy_competition.truth)["label"].to_numpy()
    votes = np.tile([[3, 1]], (len(frame), 1))
    model = quietly_train(
        frame,
        toy_competition.images,
        votes=votes,
        val=tk.read_judgements(toy_competition.test).triplets,
        val_truth=truth,
    )
    assert model.record.split.n_val == 200
    assert model.record.inputs.votes.taken_as == "weight"
    expected = tk.score(model.answer(toy_competition.test), truth).accuracy
    assert model.validation.trained.accuracy == expected


def test_settings_that_will_not_do_are_named(toy_competition):
    usual = {"triplets": toy_competition.train, "images": toy_competition.images}
    for arguments, field, message in (
        ({"marign": 0.3}, "marign", "margin"),
        ({"images": None}, "images", "folder of the images"),
        ({"triplets": None, "votes": [[1, 2]]}, "triplets", "give `triplets`"),
    ):
        with pytest.raises(tk.SettingsError, match=message) as caught:
            tk.train(**usual | arguments)
        assert caught.value.field == field


def test_values_that_are_none_of_those_possible_are_refused():
    names, vectors = [str(image) for image in range(20)], np.random.default_rng(0).random((20, 3))
    rows = np.array([[a, (a + 1) % 20, (a + 7) % 20] for a in range(20)])
    model, triplets = tk.pretrained(features=(names, vectors)), tk.Triplets.from_array(rows, names)
    given = {name: str(image % 4) for image, name in enumerate(names)}, None, model
    hardest = partial(tk.mine, None, None, model, triplets=triplets)
    votes = {"features": vectors, "names": names, "votes": np.ones((20, 2))}
    for function, wrong in (
        (partial(tk.mine, *given), {"per_image": (0, 2.5), "positive_quantiles": ([1, 0], (0, 9))}),
        (hardest, {"keep": (0, 0.0, 1.5, 5.0, True)}),
        (partial(tk.classify, *given), {"k": (0, "3"), "fraction": (0, 20)}),
        (partial(tk.draw_triplets, *given[:2]), {"count": (0, -1), "balance": ("clas",)}),
        (partial(model.neighbors, model.embed(), model.embed()), {"k": (0, 1.5)}),
        (partial(tk.suggest, model), {"n": (0,), "ask": ("x",)}),
        (partial(tk.collage, triplets, "."), {"n": (0, 1.5)}),
        (partial(tk.split, triplets), {"val_fraction": (0, 2), "folds": (0, 1), "seed": (-1,)}),
        (partial(tk.train, rows, **votes), {"votes_as": ("half",), "dim": (2.5, np.True_)}),
        (partial(tk.score, [1], [1]), {"ties": ("none",)}),
    ):
        for name, value in ((each, value) for each in wrong for value in wrong[each]):
            with pytest.raises(tk.SettingsError, match=f"`{name}`: expected .*, got") as caught:
                function(**{name: value})
            assert caught.value.field == name
    assert len(hardest(keep=np.int64(2)).table) == 2
    assert check_values({"dim": np.int64(2)}) == {"dim": 2}
    for what in (vectors, vectors.tolist()):
        with pytest.raises(tk.TripletkitError, match=r"got .* without names"):
            tk.pretrained(features=what)
        with pytest.raises(tk.TripletkitError, match="expected a file or a table, got"):
            tk.read_labels(what)
    assert tk.read_judgements(io.StringIO("é b c\n")).triplets.names[0] == "é"


@pytest.mark.slow
def test_groups_of_images_are_held_out_together(toy_competition, tiny_backbone):
    images = [f"p{n:02}.png" for n in range(60)]
    groups = pd.Series([f"person {n % 7}" for n in range(60)], images)
    known = tk.read_judgements(toy_competition.train).triplets
    apart = tk.split(known, groups=groups, val_fraction=0.4)
    for part in (apart, *tk.split(known, groups=groups, folds=3)):
        sides = [{groups[side.names[row]] for row in side.rows.ravel()} for side in part[:2]]
        assert not sides[0] & sides[1]
        assert len(part.val) > 5
    model = quietly_train(known, toy_competition.images, groups=groups)
    assert model.record.pooled.by == "given groups of images"
    assert model.record.inputs.groups.name == "the labels"
    apart = quietly_train(known, toy_competition.images, groups=groups, val_fraction=0.4)
    assert apart.record.split.n_val > 5
    for given in ({"groups": {"x": "y"}}, {"groups": groups, "split": "random"}):
        with pytest.raises(tk.TripletkitError, match="groups"):
            tk.train(known, toy_competition.images, **given)
    with pytest.raises(tk.SettingsError, match="only `by=image`"):
        tk.split(known, "component", groups=groups)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_nothing_is_replaced_but_what_has_the_form(model, toy_competition, tmp_path):
    """Python writes by the same output check as the commands."""
    answers, embeddings = model.answer(toy_competition.test), model.embed()
    writers = {
        "preds.csv": answers.write,
        "answers.txt": lambda path, **how: answers.write(path, "labels", **how),
        "e.npz": embeddings.write,
        "e.csv": embeddings.write,
        "e.parquet": embeddings.write,
        "report.html": lambda path, **how: tk.report(model, path, **how),
        "m": lambda path, **how: (model.save(path, **how), tk.load(path))[0],
    }
    for name, write in writers.items():
        path = tmp_path / name
        write(path)
        with pytest.raises(tk.TripletkitError, match=r"overwrite=True"):
            write(str(path))
        write(str(path), overwrite=True)
        theirs = tmp_path / f"theirs-{name}"
        theirs.write_text("theirs")
        for overwrite in (False, True):
            with pytest.raises(tk.TripletkitError, match=f"theirs-{name}"):
                write(theirs, overwrite=overwrite)
        assert theirs.read_text() == "theirs"
    names = {*writers, *(f"theirs-{name}" for name in writers)}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_no_model_is_written_where_it_would_harm_what_is_read(model, toy_model, toy_competition):
    inside = toy_competition.images / "m"
    for write in (
        lambda: model.save(inside),
        lambda: tk.train(toy_competition.train, toy_competition.images, output=inside),
        lambda: tk.finetune(toy_model, output=inside),
    ):
        with pytest.raises(tk.TripletkitError, match="lies in the folder"):
            write()
    with pytest.raises(tk.TripletkitError, match="is read, and would be overwritten"):
        tk.finetune(toy_model, output=toy_model, overwrite=True)
    assert not inside.exists()


def test_rows_with_an_image_that_is_gone_are_warned_of(model, toy_competition):
    queries = pd.DataFrame({"a": ["p00.png"], "b": ["gone.png"], "c": ["p01.png"]})
    with pytest.raises(tk.TripletkitError, match=r"DataFrame:0: there is no image .gone.png"):
        model.answer(queries)
    with pytest.warns(tk.DataWarning, match="1 of 1 rows have an image that cannot be used"):
        answers = model.answer(queries, tk.open_images(model.images, skip_bad=True))
    assert np.isnan(answers.margins).all()
    assert answers.predictions.tolist() == [0]


def test_embeddings_are_looked_up_by_name(model, tmp_path):
    embeddings = model.embed()
    assert np.asarray(embeddings).shape == (60, 10)
    assert embeddings.to_frame().loc["p07.png"].tolist() == embeddings.vectors[7].tolist()
    embeddings.write(tmp_path / "again.npz")
    assert np.load(tmp_path / "again.npz")["names"].tolist() == embeddings.names
    assert repr(embeddings) == "<Embeddings: 60 images, 10 numbers each, l2 distance>"
    assert embeddings["p07.png"].tolist() == embeddings.vectors[7].tolist()
    with pytest.raises(KeyError, match=r"did you mean 'p07\.png'"):
        embeddings["p07.pgn"]


def test_files_arrays_and_pil_images_give_the_same_embedding(model, toy_competition):
    path = toy_competition.images / "p05.png"
    with Image.open(path) as image:
        image.load()
    pixels = np.asarray(image.convert("RGB"))
    given = [path, pixels, image, str(path.parent / "p06.png")]
    found = model.embed(given)
    assert found.names == [str(path), "1", "2", str(path.parent / "p06.png")]
    np.testing.assert_array_equal(found.vectors[1], found.vectors[0])
    np.testing.assert_array_equal(found.vectors[2], found.vectors[0])
    assert not np.array_equal(found.vectors[3], found.vectors[0])
    for one in (path, pixels, image):
        np.testing.assert_array_equal(model.embed(one).vectors, found.vectors[:1])
    named = model.embed([pixels, image], names=["x", "y"])
    assert named.names == ["x", "y"]
    grey = model.embed(Image.new("L", (20, 20), 128)).vectors
    for shape in ((20, 20), (20, 20, 1)):
        np.testing.assert_array_equal(model.embed(np.full(shape, 128, np.uint8)).vectors, grey)
    (entry,) = (each for each in os.scandir(path.parent) if each.name == "p05.png")
    assert model.embed([entry]).names == [str(path)]


@pytest.mark.parametrize(
    ("images", "names", "message"),
    [
        ([np.zeros((4, 4, 3))], None, "image 0: expected a path, a PIL image.*float64"),
        (np.zeros((4, 4, 2), np.uint8), None, r"image 0: .*of the shape \(4, 4, 2\)"),
        (Image.new("I", (4, 4), 200), None, r"image\.convert\('L'\)"),
        (["nowhere.png"], None, "there is no image"),
        ([], None, "got none"),
        ([np.zeros((4, 4), np.uint8)] * 2, ["x", "x"], "a name of its own"),
        ([np.zeros((4, 4), np.uint8)], ["x", "y"], "each of 1 images, got 2"),
        ([Image.new("F", (4, 4))], None, "no defined white"),
        (np.zeros((3, 8, 9), np.uint8), None, r"transpose\(1, 2, 0\)"),
        ([np.zeros((4, 8, 9), np.uint8)], None, r"transpose\(1, 2, 0\)"),
        ([np.zeros((2, 8, 9, 3), np.uint8)], None, r"list\(array\)"),
        (np.full((8, 9, 3), 0.5, np.float32), None, r"astype\('uint8'\)"),
    ],
)
def test_what_is_no_image_is_refused(model, images, names, message):
    with pytest.raises(tk.TripletkitError, match=message):
        model.embed(images, names=names)


def test_neighbors_are_found_by_file_by_embedding_and_by_name(model, toy_competition):
    images = toy_competition.images
    table = model.neighbors([images / "p03.png", images / "p04.png"], k=3).to_frame()
    known = model.embed()
    again = model.neighbors(known, known, k=3).to_frame()
    assert len(again) == 180
    assert (again["query"] != again["name"]).all()
    assert again[again["query"] == "p03.png"]["name"].tolist() == table["name"][:3].tolist()
    named = model.neighbors("p03.png", known, k=3).to_frame()
    assert named.equals(again[again["query"] == "p03.png"].reset_index(drop=True))
    for queries in (pd.Series(["p03.png"]), np.array(["p03.png"])):
        assert model.neighbors(queries, known, k=3).to_frame().equals(named)
    for queries, given, message in (
        (known, {"collage": "c.png"}, "for images"),
        (replace(known, distance="l1"), {}, "`queries`: expected .* l2 distance, got 60 images"),
        (model.frozen.embed(), {}, "`queries`: expected vectors of 10 numbers each, l2 distance"),
    ):
        with pytest.raises(tk.SettingsError, match=message):
            model.neighbors(queries, known, **given)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_a_model_in_memory_is_saved_and_loaded(
    toy_competition, toy_model, tiny_backbone, frame, tmp_path, monkeypatch
):
    model = quietly_train(frame, toy_competition.images)
    margins = model.answer(toy_competition.test).margins
    place = tmp_path / "m"
    model.save(place)
    assert model.path == place
    # It knows what it learned from, though no file holds it.
    report = tk.report(model, tmp_path / "r.html", progress=False)
    assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    for again in (model, tk.load(place), tk.load(str(place))):
        np.testing.assert_array_equal(again.answer(toy_competition.test).margins, margins)
    with pytest.raises(tk.TripletkitError, match="holds a model already"):
        model.save(toy_model)
    names, history = {file.name for file in place.iterdir()}, model.history
    model.save(tmp_path / "m2")
    assert {file.name for file in (tmp_path / "m2").iterdir()} == names
    # It stays what it was where another is written, or nothing is left.
    monkeypatch.chdir(tmp_path)
    relative = tk.load("m2")
    monkeypatch.chdir("/")
    tk.load(toy_model).save(tmp_path / "m2", overwrite=True)
    shutil.rmtree(place)
    for again in (model, relative, moved := pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(again.answer(toy_competition.test).margins, margins)
        assert again.history.equals(history)
    assert (relative.path, moved.path) == (tmp_path / "m2", None)
    model.save(tmp_path / "m2", overwrite=True)
    assert tk.load(tmp_path / "m2").record.sha256 == model.record.sha256


def test_a_backbone_alone_answers_and_is_not_saved(toy_competition, tiny_backbone, tmp_path):
    backbone = tk.pretrained("tiny")
    assert backbone.path is None
    assert not backbone.is_trained
    for name in ("validation", "record", "history"):
        with pytest.raises(tk.TripletkitError, match="expected a trained model"):
            getattr(backbone, name)
    assert backbone.distance == "cosine"
    truth = toy_competition.truth
    answers = backbone.answer(toy_competition.test, toy_competition.images)
    assert tk.score(answers, truth).accuracy > 0.5
    assert backbone.embed(toy_competition.images).vectors.shape == (60, 24)
    with pytest.raises(tk.SettingsError, match="knows no images"):
        backbone.answer(toy_competition.test)
    with pytest.raises(tk.TripletkitError, match="a backbone alone is not fine-tuned"):
        tk.finetune(tk.pretrained("tiny"))
    with pytest.raises(tk.TripletkitError, match="a backbone alone is not saved"):
        backbone.save(tmp_path / "m")
    with pytest.raises(tk.TripletkitError, match="has no report"):
        tk.report(backbone, tmp_path / "r.html")


def test_a_model_shows_what_it_is(model, toy_model):
    assert repr(model).startswith(f"<tripletkit model {toy_model}, recipe mlp, backbone tiny")
    card = model._repr_html_()
    assert card.count("<img src='data:image/jpeg;base64,") == 6
    assert "title='p00.png'" in card
    assert f"{model.validation.trained.accuracy:.4f}" in card
    assert "distance cosine" in repr(tk.pretrained("tiny"))
    assert "<img" not in tk.pretrained("tiny")._repr_html_()


def test_answers_to_score_come_in_every_form(toy_competition, tmp_path):
    rng = np.random.default_rng(0)
    judgements = tk.read_judgements(toy_competition.test, truth=toy_competition.truth)
    triplets, truth = judgements.triplets, judgements.truth
    predictions = np.where(rng.random(200) < 0.8, truth.labels, 1 - truth.labels)
    (tmp_path / "a.txt").write_text("".join(f"{value}\n" for value in predictions))
    scores = [
        tk.score(answers, toy_competition.truth, triplets=triplets.to_frame())
        for answers in (predictions, predictions.astype(bool), [*predictions], tmp_path / "a.txt")
    ]
    found = scores[0]
    assert all(score.to_dict() == found.to_dict() for score in scores)
    assert found.accuracy == (predictions == truth.labels).mean()
    assert tk.score(predictions, truth).image_interval is None
    assert repr(found).startswith(f"<Score: accuracy {found.accuracy:.4f} (")
    # So few images leave only the interval by rows.
    assert f"{found.wilson.low:.3f} to {found.wilson.high:.3f}" in repr(found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tk.score([1, 5]), "expected 1 and 0"),
        (lambda: tk.score([1, 0], [1]), "got 2"),
        (lambda: tk.score([1, None], [1, 0]), "the answers: row 1: .*no decision"),
        (lambda: tk.compare({"a": [1, 0], "b": [1, None]}, [1, 0]), "b: row 1"),
        (lambda: tk.compare([[1, 0], [1, 1]], [1, 0]), "mapping of names to answers, got list"),
        (lambda: tk.score([1, 0], pd.array([True, None], "boolean"), unique=True), "triplets"),
        (lambda: tk.compare({"a": [1, 0]}, [1, 0]), "two or more answers"),
        (lambda: tk.compare({"a": [1, 0], "b": [1]}, [1, 0]), "got 1"),
        (lambda: tk.score([1, 0], unique=True), "needs to know the triplets"),
        (lambda: tk.controls(np.zeros((1, 3), int), []), "without `names`"),
    ],
)
def test_what_does_not_belong_together_is_refused(call, message):
    with pytest.raises(tk.TripletkitError, match=message):
        call()
