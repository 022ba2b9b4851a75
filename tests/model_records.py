"""Records of models for tests that need a model folder and no training."""

from __future__ import annotations

from dataclasses import replace

from tripletkit.model.record import FileRecord, InputsRecord, ModelRecord, SplitRecord, TimesRecord
from tripletkit.model.settings import Settings

SETTINGS = Settings(hidden=8, dim=3)


def make_record(source, settings=SETTINGS, **changes):
    """Return the record of a model that was trained on features of a source."""
    record = ModelRecord(
        created="2026-01-01T00:00:00+00:00",
        command="tripletkit train",
        versions={},
        settings=settings,
        features=dict(source.facts),
        n_features=source.n_features,
        backbone_reason="",
        weights_files=source.weights_files,
        images="/",
        inputs=InputsRecord(FileRecord("train.txt", None, "0" * 64)),
        split=SplitRecord("none", 1, 0, 0, 0, 0, 0),
        n_images=3,
        n_bad_images=0,
        best_epoch=1,
        times=TimesRecord(0.0, 0.0, 0.0),
    )
    return replace(record, **changes)
