"""TensorBoard logs: the numbers of history.csv, as TensorFlow reads them back."""

import pandas as pd
import pytest

from tripletkit import TripletkitError


@pytest.fixture
def train(tripletkit, tiny_backbone, toy_competition, tmp_path):
    def invoke(*arguments, **extra):
        known = ["train", toy_competition.train, toy_competition.images, "-o", tmp_path / "m"]
        return tripletkit(*known, "--backbone", "tiny", "--epochs", "3", *arguments, **extra)

    return invoke


def read_logs(folder):
    """Return {name: {epoch: value}} of the only log in a folder."""
    import tensorflow as tf

    (path,) = folder.iterdir()
    logs: dict[str, dict[int, float]] = {}
    for record in tf.data.TFRecordDataset(str(path)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            logs.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return logs


@pytest.mark.slow
def test_logs_hold_the_history(train, tmp_path):
    train("--no-refit", "--tensorboard", tmp_path / "logs" / "run1", code=0)
    logs = read_logs(tmp_path / "logs" / "run1")
    history = pd.read_csv(tmp_path / "m" / "history.csv").set_index("epoch")
    # There are no held-out draws.
    history = history.drop(columns="held_out_accuracy")
    assert set(logs) == {f"epoch_{column}" for column in history}
    for column in history:
        assert logs[f"epoch_{column}"] == pytest.approx(history[column].to_dict(), rel=1e-6)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    from tripletkit.training.epochs import log_epochs

    (tmp_path / "file").write_text("")
    log = log_epochs(tmp_path / "file" / "logs")
    with pytest.raises(TripletkitError, match="the TensorBoard logs cannot be written"):
        log.__enter__()
