"""Every error that tripletkit raises on purpose, and every caution that it gives.

All errors descend from `TripletkitError`, so that a caller can catch the lot; each leaf also
inherits the builtin it specialises. The command line turns them into one message and exit
code 1, a `SettingsError` into exit code 2; anything else is a bug and keeps its traceback.
Cautions descend from `TripletkitWarning`, so that they can be silenced or turned into errors.

Messages name settings as Python has them, in backquotes: `` `skip_bad=True` ``. The command line
shows the flag in its place.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

MAX_SHOWN = 10
# A longer line of a message holds what a damaged file gave for a name.
_MAX_LINE = 1_000


def describe_problems(problems: Sequence[str], total: int | None = None) -> str:
    """Join the first ten problems, one a line, and say how many there are in all."""
    total = len(problems) if total is None else total
    shown = list(problems[:MAX_SHOWN])
    if total > len(shown):
        shown.append(f"... and {total - len(shown):,} more ({total:,} in all)")
    return "\n".join(shown)


def shorten_lines(text: str) -> str:
    """Leave out the middle of lines that nobody could read."""
    return "\n".join(
        line if len(line) <= _MAX_LINE else f"{line[: _MAX_LINE // 2]} ... {line[-200:]}"
        for line in text.split("\n")
    )


class TripletkitError(Exception):
    """The root of all errors that tripletkit raises on purpose."""

    def __str__(self) -> str:
        return shorten_lines(super().__str__())


class TripletFileError(TripletkitError, ValueError):
    """Triplets, or votes on them, cannot be read, or do not belong together."""


class AnswerFileError(TripletkitError, ValueError):
    """An answer file or a truth file cannot be read as one, or two do not belong together."""


class ImageNameError(TripletkitError, LookupError):
    """A name stands for no image, for several, or for one outside the image folder."""


class ImageReadError(TripletkitError, OSError):
    """An image file cannot be decoded."""


class BackboneError(TripletkitError, LookupError):
    """A backbone is not known, or cannot be had on this machine."""


class WeightsError(TripletkitError, ValueError):
    """A weights file is broken, or does not fit the model it is meant for."""


class NetworkFileError(TripletkitError, ValueError):
    """A network cannot be run or written as ONNX, or what it wants done to images is not clear."""


class FeatureFileError(TripletkitError, ValueError):
    """A file of features, or an index of them, is damaged, none, or lacks what is asked of it."""


class StoreError(TripletkitError, OSError):
    """The feature store cannot be opened, read or written."""


class ModelFolderError(TripletkitError, ValueError):
    """A model folder, or its checkpoint, is missing, incomplete, edited or of another format."""


class OutputError(TripletkitError, OSError):
    """An output cannot be written, or would overwrite something."""


class CollapseError(TripletkitError, RuntimeError):
    """Training ended with all embeddings alike, so the model could answer nothing."""


class LabelFileError(TripletkitError, ValueError):
    """Class labels cannot be read, or the classes are too few or too small for what is asked."""


class JudgementsError(TripletkitError, ValueError):
    """A database of judgements, or its study, is none, is in use, or holds something else."""


class MissingExtraError(TripletkitError, ImportError):
    """Something was asked for that needs an optional package, or Keras on TensorFlow."""


class SplitError(TripletkitError, ValueError):
    """A validation split cannot be made as asked."""


class SettingsError(TripletkitError, ValueError):
    """Settings do not go together, or one is not what it has to be.

    Attributes:
        field: the setting to change, as Python names it.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class TripletkitWarning(UserWarning):
    """The root of all cautions: the result stands, and should be read with this in mind."""


class LeakageWarning(TripletkitWarning):
    """Validation or test shares something with training, so that a score flatters."""


class WeakScoreWarning(TripletkitWarning):
    """A score is no better than what needs no training."""


class FewTripletsWarning(TripletkitWarning):
    """There are too few triplets for what was wanted of them."""


class DistributionShiftWarning(TripletkitWarning):
    """Images are unlike those of the training, so that its scores may not hold for them."""


class DataWarning(TripletkitWarning):
    """Part of the data is left out, is computed again, or may have been meant otherwise."""


def caution(message: str, category: type[TripletkitWarning]) -> None:
    """Warn at the line that called the library, however deep inside the reason is found."""
    level = depth = 1
    frame = sys._getframe().f_back
    while frame is not None:
        depth += 1
        if frame.f_globals.get("__name__", "").partition(".")[0] == "tripletkit":
            level = depth
        frame = frame.f_back
    warnings.warn(shorten_lines(message), category, stacklevel=level + 1)
