"""Measure tripletkit beside the plain Keras way, in one run, on this machine.

    python examples/benchmark_speed.py [extraction] [head] [whole] [predict] [start]

prints a table of what was measured; all parts without arguments (about 4 minutes on 2 cores).
Take the ratios: absolute speeds are the machine's. ResNet50 has random weights here, which
cost the same time as trained ones, so that nothing is downloaded. Images are crops of
scikit-learn's two sample photos.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

import tripletkit as tk
from tripletkit import defaults
from tripletkit.data.triplets import write_triplets
from tripletkit.evaluation.answers import Answers
from tripletkit.evaluation.distances import triplet_margins
from tripletkit.features.backbones import get_backbone
from tripletkit.features.encoder import Encoder
from tripletkit.features.extract import extract_features
from tripletkit.features.feature_parts import FeaturePart
from tripletkit.features.keras_backbones import build_backbone
from tripletkit.features.onnx_engine import make_onnx_function, open_session
from tripletkit.features.onnx_writer import make_onnx_model
from tripletkit.features.store import FeatureSpace, FeatureStore
from tripletkit.losses.functions import DISTANCES
from tripletkit.losses.loss_registry import get_loss
from tripletkit.model.export import _build_triplet_network, _join_encoder
from tripletkit.model.heads import build_body
from tripletkit.model.model_folder import save_model
from tripletkit.model.record import (
    FileRecord,
    InputsRecord,
    ModelRecord,
    SplitRecord,
    TimesRecord,
)
from tripletkit.model.settings import Settings
from tripletkit.training.trainer import Examples, make_trainer

BACKBONE = get_backbone("resnet50")
KERAS_BATCH_SIZE = 128
N_FEATURES = BACKBONE.n_features
rng = np.random.default_rng(0)


def write_photos(folder: Path, n_photos: int) -> list[Path]:
    """Write 500 x 375 JPEG crops, each at its own place and size of a real photo."""
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    paths = []
    for number in range(n_photos):
        photo = photos[number % len(photos)]
        width = int(rng.integers(300, photo.width))
        height = width * 3 // 4
        left = int(rng.integers(0, photo.width - width))
        top = int(rng.integers(0, max(1, photo.height - height)))
        crop = photo.crop((left, top, left + width, top + height)).resize((500, 375))
        paths.append(folder / f"{number:05d}.jpg")
        crop.save(paths[-1], quality=90)
    return paths


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def show(what: str, value: str, ratio: str = "") -> None:
    """Print a row of the table."""
    print(f"{what:<66}{value:>22}{ratio:>10}", flush=True)


def extraction(folder: Path, n_photos: int = 384) -> None:
    """Files on disk to rows in the store, against `predict` on arrays in memory."""
    model = build_backbone(BACKBONE, None)
    paths = write_photos(folder, n_photos)
    session = open_session(make_onnx_model(model).SerializeToString())
    compute = make_onnx_function(session, BACKBONE.preprocessing)
    arrays = rng.uniform(-120, 120, (128, 224, 224, 3)).astype(np.float32)
    model.predict(arrays[:32], batch_size=32, verbose=0)

    def extract(turn: int) -> None:
        space = FeatureSpace({**BACKBONE.facts(), "turn": turn}, N_FEATURES)
        with FeatureStore(folder / f"store{turn}") as store:
            extract_features(paths, BACKBONE, [space], store, compute)

    def predict_plainly() -> None:
        model.predict(arrays, batch_size=32, verbose=0)

    plain, ours = 0.0, 0.0
    for turn in range(2):
        plain = max(plain, len(arrays) / seconds(predict_plainly))
        ours = max(ours, n_photos / seconds(lambda turn=turn: extract(turn)))
    show("Keras predict, ResNet50, batch 32, arrays in memory", f"{plain:.1f} images/s")
    show(
        "tripletkit, files on disk to rows in the store",
        f"{ours:.1f} images/s",
        f"{ours / plain:.1f} x",
    )


def keras_triplet_loss(_unused: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    """The same loss for `fit`, on the three embeddings side by side."""
    anchor, positive, negative = tf.split(embeddings, 3, axis=-1)
    return get_loss("triplet").of_distances(defaults.MARGIN)(
        DISTANCES["l2"](anchor, positive), DISTANCES["l2"](anchor, negative)
    )


def head(n_images: int = 10_000, n_triplets: int = 60_000) -> None:
    """Training on rows of one matrix, against `fit` on gathered arrays and on tf.data."""
    features = np.maximum(rng.normal(size=(n_images, N_FEATURES)), 0).astype(np.float32)
    rows = rng.integers(0, n_images, (n_triplets, 3)).astype(np.int32)
    shared = build_body(N_FEATURES, Settings())
    inputs = [keras.Input((N_FEATURES,)) for _ in range(3)]
    network = keras.Model(inputs, keras.layers.Concatenate()([shared(each) for each in inputs]))
    network.compile(keras.optimizers.Adam(defaults.LEARNING_RATE), keras_triplet_loss)
    unused = np.zeros(n_triplets, np.float32)

    def fit(n: int) -> float:
        gathered = [features[rows[:n, slot]] for slot in range(3)]
        return seconds(
            lambda: network.fit(gathered, unused[:n], batch_size=KERAS_BATCH_SIZE, verbose=0)
        )

    fit(1024)
    plain = n_triplets / fit(n_triplets)
    matrix = tf.constant(features)

    def gather(batch: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
        return tuple(tf.gather(matrix, batch[:, slot]) for slot in range(3)), batch[:, 0]

    pipeline = tf.data.Dataset.from_tensor_slices(rows).batch(defaults.BATCH_SIZE)
    pipeline = pipeline.map(gather, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
    network.fit(pipeline.take(4), verbose=0)
    piped = n_triplets / seconds(lambda: network.fit(pipeline, verbose=0))
    ends_s: list[float] = []
    trainer = make_trainer(Examples(features, rows), Settings(epochs=4))
    trainer.fit(lambda *_: ends_s.append(time.perf_counter()))
    # The first epoch includes compiling.
    ours = n_triplets / np.diff(ends_s).min()
    show(
        f"Keras fit on three gathered arrays, batch {KERAS_BATCH_SIZE}", f"{plain:,.0f} triplets/s"
    )
    show(
        f"Keras fit on tf.data that gathers rows of one matrix, batch {defaults.BATCH_SIZE}",
        f"{piped:,.0f} triplets/s",
        f"{piped / plain:.1f} x",
    )
    show(
        f"tripletkit, rows of one matrix, batch {defaults.BATCH_SIZE}",
        f"{ours:,.0f} triplets/s",
        f"{ours / plain:.1f} x",
    )


def whole(folder: Path, n_photos: int = 700, n_triplets: int = 20_000, n_epochs: int = 10) -> None:
    """All of training, against the three-input model on images (some steps, extrapolated)."""
    model = build_backbone(BACKBONE, None)
    paths = write_photos(folder, n_photos)
    rows = rng.integers(0, n_photos, (n_triplets, 3)).astype(np.int32)
    space = FeatureSpace(BACKBONE.facts(), N_FEATURES)

    def ours() -> None:
        session = open_session(make_onnx_model(model).SerializeToString())
        compute = make_onnx_function(session, BACKBONE.preprocessing)
        with FeatureStore(folder / "store") as store:
            found = extract_features(paths, BACKBONE, [space], store, compute)
        make_trainer(Examples(found.features, rows), Settings(epochs=n_epochs)).fit()

    ours_s = seconds(ours)
    untrained = build_body(N_FEATURES, Settings())
    encoder = Encoder((FeaturePart(BACKBONE, BACKBONE.facts(), BACKBONE.find_weights),))
    network = _build_triplet_network(_join_encoder(encoder, [(BACKBONE, model)], untrained))
    network.compile(keras.optimizers.Adam(defaults.LEARNING_RATE), keras_triplet_loss)
    batch_size, n_steps = 32, 4
    n = batch_size * n_steps
    pixels = [rng.integers(0, 256, (n, 224, 224, 3), dtype=np.uint8) for _ in range(3)]

    def fit(n_rows: int) -> None:
        part = [array[:n_rows] for array in pixels]
        network.fit(part, np.zeros(n_rows), batch_size=batch_size, verbose=0)

    fit(batch_size)
    plain_s = seconds(lambda: fit(n)) / n * n_triplets * n_epochs
    what = f"{n_triplets:,} triplets, {n_photos} photos, {n_epochs} epochs"
    show(f"Keras fit on images, {what}: {n_steps} steps, scaled up", f"{plain_s / 3600:.1f} h")
    show(f"tripletkit, {what}: all of it", f"{ours_s:.0f} s", f"{plain_s / ours_s:,.0f} x")


def write_random_model(folder: Path, space: FeatureSpace, images: Path) -> None:
    """Write a model folder with an untrained head."""
    settings = Settings()
    untrained = build_body(N_FEATURES, settings)
    record = ModelRecord(
        created="",
        command="",
        versions={},
        settings=settings,
        features=space.facts,
        n_features=N_FEATURES,
        backbone_reason="",
        weights_files=[None],
        images=str(images),
        inputs=InputsRecord(FileRecord("train.txt", None, "")),
        split=SplitRecord("none", 1, 0, 0, 0, 0, 0),
        n_images=0,
        n_bad_images=0,
        best_epoch=0,
        times=TimesRecord(0.0, 0.0, 0.0),
    )
    save_model(folder, untrained, [], record)


def predict(folder: Path, n_images: int = 5_000, n_triplets: int = 59_544) -> None:
    """The competition's size from the command line, and five million rows in memory."""
    images = folder / "images"
    images.mkdir()
    names = [f"{number:05d}.png" for number in range(n_images)]
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(images / name)
    space = FeatureSpace({**BACKBONE.facts(), "weights_sha256": "0" * 64}, N_FEATURES)

    def random_features(pixels: np.ndarray) -> np.ndarray:
        return rng.normal(size=(len(pixels), N_FEATURES)).astype(np.float32)

    with FeatureStore(folder / "store") as store:
        paths = [images / name for name in names]
        extract_features(paths, BACKBONE, [space], store, random_features)
    write_random_model(folder / "model", space, images)
    rows = rng.integers(0, n_images, (n_triplets, 3)).astype(np.int32)
    write_triplets(folder / "test.txt", names, rows)
    command = [
        *(sys.executable, "-m", "tripletkit", "predict", str(folder / "test.txt")),
        *("--model", str(folder / "model"), "--cache", str(folder / "store"), "--quiet"),
        *("-o", str(folder / "preds.csv")),
    ]
    # A small process between, because a child's peak begins with the size of its parent.
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6)"
    )
    started_s = time.perf_counter()
    measured = subprocess.run(
        [sys.executable, "-c", measure, *command], check=True, stdout=subprocess.PIPE, text=True
    )
    took_s = time.perf_counter() - started_s
    peak_gb = float(measured.stdout)
    show(
        f"predict, {n_triplets:,} lines over {n_images:,} images, features stored",
        f"{took_s:.1f} s, {peak_gb:.2f} GB",
    )
    truth = folder / "truth.csv"
    truth.write_text("label\n" + "1\n" * n_triplets)
    command = [sys.executable, "-m", "tripletkit", "score", str(folder / "preds.csv"), str(truth)]
    took_s = seconds(lambda: subprocess.run(command, check=True, capture_output=True))
    show(f"score, {n_triplets:,} rows with both intervals", f"{took_s:.2f} s")

    n_many = 5_000_000
    embeddings = rng.normal(size=(n_images, defaults.DIM)).astype(np.float32)
    many = rng.integers(0, n_images, (n_many, 3)).astype(np.int32)
    write_triplets(folder / "many.txt", names, many)
    started_s = time.perf_counter()
    queries = tk.read_judgements(folder / "many.txt").triplets
    read_s = time.perf_counter() - started_s
    started_s = time.perf_counter()
    margins = triplet_margins(embeddings, queries.rows, defaults.DISTANCE)
    answers = Answers.from_margins(margins, queries, queries.source)
    answered_s = time.perf_counter() - started_s
    write = seconds(lambda: answers.write(folder / "many.csv", overwrite=True))
    show("read 5 million triplets", f"{n_many / read_s / 1e6:.1f} million/s")
    show("answer 5 million triplets", f"{n_many / answered_s / 1e6:.1f} million/s")
    show("answer and write them as CSV", f"{n_many / (answered_s + write) / 1e6:.1f} million/s")


def start() -> None:
    """How long the command line takes to say hello."""
    command = [sys.executable, "-m", "tripletkit", "--help"]
    took = [
        seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(5)
    ]
    show("tripletkit --help, best of 5", f"{min(took):.2f} s")


PARTS: dict[str, Callable[[Path], None]] = {
    "extraction": extraction,
    "head": lambda _: head(),
    "whole": whole,
    "predict": predict,
    "start": lambda _: start(),
}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        if name not in PARTS:
            sys.exit(f"expected one of {', '.join(PARTS)}, got {name}")
        with tempfile.TemporaryDirectory() as temporary:
            PARTS[name](Path(temporary))
