"""What type checkers see of the public names. mypy checks this file; it is never run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import numpy as np
import pandas as pd

import tripletkit as tk


def models(folder: Path, frame: pd.DataFrame, rows: np.ndarray) -> None:
    for model in (
        tk.train(frame, folder, dim=10),
        tk.train(rows, str(folder), names=["a", "b", "c"], labels={"a": "x"}, votes=rows[:, 0]),
        tk.finetune(folder, blocks=2),
        tk.load(folder),
        tk.pretrained(["resnet50", "efficientnet-lite0"]).frozen,
    ):
        assert_type(model, tk.Model)
        assert_type(model.path, Path | None)
        assert_type(model.record.n_images, int)
        assert_type(model.history, pd.DataFrame)
        assert_type(model.embed([folder / "a.png", np.zeros((8, 8), np.uint8)]), tk.Embeddings)
        assert_type(model.neighbors("a.png", folder, k=3).to_frame(), pd.DataFrame)
        assert_type(tk.suggest(model, folder, 20, asked=[frame]), tk.Triplets)
        assert_type(tk.report([model, folder], triplets=frame), Path)
        assert_type(model.validation.trained.accuracy, float)


def scores(model: tk.Model, queries: Path) -> None:
    answers = model.answer(queries)
    assert_type(answers, tk.Answers)
    assert_type(answers.predictions, np.ndarray)
    assert_type(answers.margins, np.ndarray | None)
    assert_type(answers.to_frame(), pd.DataFrame)
    score = tk.score(answers, [1, 0, 1])
    assert_type(score.wilson.low, float)
    assert_type(score.interval.high, float)
    # What says why there is no interval is false.
    if score.image_interval:
        assert_type(score.image_interval.low, float)
    assert_type(tk.compare({"a": answers, "b": "b.csv"}, "truth.csv").pairs[0].difference, float)
    assert_type(tk.controls("train.txt", "val.txt")[0].accuracy, float)


def triplets(frame: pd.DataFrame) -> None:
    known = tk.Triplets.from_array(frame.to_numpy(), ["a", "b", "c"])
    assert_type(known, tk.Triplets)
    assert_type(tk.read_judgements("train.txt").triplets.rows, np.ndarray)
    assert_type(tk.read_judgements("train.txt").as_truth(), tk.Truth)
    train, val, cost = tk.split(known, by="component")
    assert_type(train, tk.Triplets)
    assert_type(val, tk.Triplets)
    assert_type(cost.n_train, int)
    assert_type(tk.sweep(known, "images", grid={"dim": [2, 4]}), pd.DataFrame)


def refused(model: tk.Model) -> None:
    model.answer(3)  # type: ignore[arg-type]
    tk.train("train.txt", "images", val_fraction="0.1")  # type: ignore[arg-type]
    tk.trian("train.txt", "images")  # type: ignore[attr-defined]
    tk.train("train.txt", "images", epoch=5)  # type: ignore[call-arg]
    tk.train("train.txt", "images", distance="l3")  # type: ignore[arg-type]
