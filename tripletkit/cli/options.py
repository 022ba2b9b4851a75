"""Options that several commands share, each written once."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

import tripletkit as tk
from tripletkit import defaults
from tripletkit.cli.commands import Decorator, first, say, section, told
from tripletkit.cli.parameters import (
    ADDED_TO,
    INPUT_FILE,
    INPUT_FOLDER,
    MODEL_FOLDER,
    NAMED_FILE,
    OUTPUT_FILE,
    WholeRange,
)
from tripletkit.errors import TripletkitError


def _group_options(*options: Decorator) -> Decorator:
    """Return one decorator that adds several options, in the order of the help."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def output_option(text: str, **attributes: Any) -> Decorator:
    """Return `-o`, a file that has to be named where attributes do not say otherwise."""
    usual: dict[str, Any] = {"type": OUTPUT_FILE, "required": True, "help": text}
    return click.option("-o", "--output", **usual | attributes)


seed_option = click.option(
    "--seed",
    type=WholeRange(0),
    default=defaults.SEED,
    help="Seed of all random choices. The same seed gives the same result.",
)


groups_option = click.option(
    "--groups",
    type=INPUT_FILE,
    help="CSV with the columns name and label: what images belong together, such as those of a "
    "photographer or a patient. They are held out as a whole.",
)


def votes_option(triplets: str) -> Decorator:
    """Return `--votes`; `triplets` is how the command calls the file that the votes are on."""
    return click.option(
        "--votes",
        type=INPUT_FILE,
        help=f"How many people said B and how many C, a row for each row of {triplets} in order: "
        "two numbers, or a,b,c,votes_b,votes_c.",
    )


# Encoders.


def _read_weights(
    context: click.Context, option: click.Parameter, given: Sequence[str]
) -> dict[str | None, Path]:
    """Return the files of `FILE`, or of `NAME=FILE` where NAME is a backbone, by name."""
    from tripletkit.features.backbones import BACKBONES
    from tripletkit.features.onnx_files import is_network_name

    weights: dict[str | None, Path] = {}
    for text in given:
        name, is_named, file = text.partition("=")
        is_backbone = bool(is_named) and (name in BACKBONES or is_network_name(name))
        backbone, file = (name, file) if is_backbone else (None, text)
        path = NAMED_FILE.convert(file, option, context)
        if backbone in weights:
            which = f" of {backbone}" if backbone else ""
            raise click.BadParameter(
                f"expected one weights file{which}, got {weights[backbone]} and {path}. "
                "Say which backbone each is for: NAME=FILE."
            )
        weights[backbone] = path
    return weights


def _read_names(check: str) -> Callable[..., list[str] | None]:
    """Return a callback that takes names between commas, and refuses what a function refuses.

    Args:
        check: `"module:function"` of the names, loaded on use.
    """

    def read(_context: click.Context, _option: click.Parameter, names: str | None) -> Any:
        from tripletkit.registry import load_object

        if names is None:
            return None
        chosen = [name.strip() for name in names.split(",")]
        try:
            load_object(check)(chosen)
        except TripletkitError as error:
            raise click.BadParameter(str(error)) from error
        return chosen

    return read


weights_option = click.option(
    "--weights",
    multiple=True,
    callback=_read_weights,
    metavar="[NAME=]FILE",
    help="Weights file of the backbone, instead of its own ImageNet weights; of several "
    "backbones NAME=FILE, once for each.",
)

features_option = click.option(
    "--features",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE",
    help="Vectors made elsewhere, instead of a backbone's features: .npz with the arrays names "
    "and features, or .parquet with a column name. IMAGES can be left out then.",
)


def backbone_option(help_text: str, **attributes: Any) -> Any:
    """Return the option `--backbone` of a command, for one name or several."""
    return click.option(
        "--backbone",
        callback=_read_names("tripletkit.features.encoder:check_backbone_names"),
        shell_complete=lambda *given: _complete_backbones(given[-1]),
        metavar="NAME|FILE.onnx|hf:OWNER/NAME[,...]",
        help=help_text,
        **attributes,
    )


def backbone_options(help_text: str, **attributes: Any) -> Decorator:
    """Return `--backbone` and how its features are taken: what `tripletkit.pretrained` takes."""
    return _group_options(
        backbone_option(help_text, **attributes),
        weights_option,
        click.option(
            "--views",
            callback=_read_names("tripletkit.features.extract:choose_views"),
            default=defaults.VIEWS,
            metavar="NAME[,NAME...]",
            help="Views of each image to average the features over (test-time augmentation): "
            "original; flip: with its mirror image; five-crop: corners and center; ten-crop: "
            "these and their mirror images. Each view costs a pass of the backbone, once.",
        ),
        click.option(
            "--depth",
            type=click.Choice(defaults.DEPTHS),
            default=defaults.DEPTH,
            help="Features of the backbone's end; of earlier stages, mean and deviation over "
            "their maps; or all of them, side by side.",
        ),
        click.option(
            "--preprocess",
            metavar="KEY=VALUE,...",
            help="What images go through before a --backbone FILE.onnx, such as size=224,"
            "resample=bicubic,mean=0.5,std=0.5,crop=224.  [default: preprocessor_config.json "
            "beside it]",
        ),
        click.option(
            "--backbone-output",
            metavar="NAME[:cls|:mean]",
            help="Output of a --backbone FILE.onnx to take as features, such as "
            "last_hidden_state:mean; needed where several could be meant.",
        ),
    )


def _complete_backbones(incomplete: str) -> list[str]:
    """Return what the last name of a list may become; files are left to the shell."""
    from tripletkit.features.backbones import AUTO, BACKBONES

    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in (AUTO, *BACKBONES) if name.startswith(last)]


# Models.


def model_options(
    default: str | None = defaults.MODEL_FOLDER, *, is_optional: bool = False
) -> Decorator:
    """Return the options that say what images are turned into vectors by, a command's `model`.

    Args:
        default: the model folder that is taken where nothing is named; None for the pretrained
            backbone.
        is_optional: nothing need be named, and then the command gets None.
    """
    of_model, of_backbone = "", ""
    if not is_optional:
        of_model = f"  [default: {default}]" if default else ""
        of_backbone = "" if default else f"  [default: {defaults.BACKBONE}]"
    options = section(
        "Model",
        click.option(
            "--model",
            type=MODEL_FOLDER,
            help=f"Model folder that `tripletkit train` wrote.{of_model}",
        ),
        click.option(
            "--frozen",
            is_flag=True,
            help="Take the frozen features that the model was trained on, without its head.",
        ),
        backbone_options(
            "Take the features of this backbone, or of several, without any model; `auto` as in "
            f"training.{of_backbone}"
        ),
        features_option,
    )

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(**given: Any) -> Any:
            fields = {name: given.pop(name) for name in _MODEL_FIELDS}
            return function(model=_open_model(default, is_optional, **fields), **given)

        # The store is the model's.
        run.taken_options = (*run.taken_options, "cache")  # type: ignore[attr-defined]
        return options(run)

    return add


_HOW = ("views", "depth", "preprocess", "backbone_output")
_MODEL_FIELDS = ("model", "frozen", "backbone", "weights", "features", *_HOW)


def _open_model(
    default: str | None,
    is_optional: bool,
    *,
    model: Path | None,
    frozen: bool,
    backbone: list[str] | None,
    weights: dict[str | None, Path],
    features: Path | None,
    **how: Any,
) -> tk.Model | None:
    cache = told("cache")
    if backbone is not None and model is not None:
        raise click.UsageError("--backbone needs no --model; give one of them.")
    if backbone is None and model is None:
        if is_optional and not (frozen or features or weights):
            return None
        if (default is None and not frozen) or (frozen and features is not None):
            backbone = [defaults.BACKBONE]
    if backbone is not None:
        return tk.pretrained(backbone, weights=weights, features=features, cache=cache, **how)
    context = click.get_current_context()
    for name in _HOW:
        if context.get_parameter_source(name) != click.core.ParameterSource.DEFAULT:
            flag = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{flag} needs --backbone; a model has its own from training.")
    path = model or Path(default or defaults.MODEL_FOLDER)
    opened = tk.load(path, weights=weights, features=features, cache=cache)
    return opened.frozen if frozen else opened


# What `tripletkit.load` takes.
trained_model_options = section(
    "Model",
    click.option(
        "--model",
        type=MODEL_FOLDER,
        default=defaults.MODEL_FOLDER,
        help="Model folder that `tripletkit train` wrote.",
    ),
    weights_option,
)


images_option = click.option(
    "--images", type=INPUT_FOLDER, help="Folder of the images.  [default: the one used in training]"
)


# What `tripletkit.report` and `tripletkit.plot` show of a model.
view_options = section(
    "Shown",
    click.option(
        "--triplets",
        type=INPUT_FILE,
        help="Triplets whose answers are known.  [default: those of the training]",
    ),
    click.option(
        "--truth",
        type=INPUT_FILE,
        help="Truth of --triplets, where their second and third images are in chance order.",
    ),
    images_option,
    click.option(
        "--labels",
        type=INPUT_FILE,
        help="CSV with the columns name and label, for the map and the confusion matrix.",
    ),
    click.option(
        "--projection",
        type=click.Choice(["pca", "umap"]),
        default="pca",
        help="How the map of embeddings is made; umap needs tripletkit[map].",
    ),
    weights_option,
    features_option,
)


# Trainings.


def settings_options(*flags: str) -> Decorator:
    """Return `-s` and `--settings`; a command gets all settings that are given, each by its name.

    Args:
        flags: settings that the command has flags of their own for.
    """

    def gather(given: dict[str, Any]) -> None:
        from tripletkit.model.settings import gather_settings

        flagged = {name: given.pop(name) for name in flags}
        given |= gather_settings(flagged, given.pop("settings"), given.pop("settings_file"))

    return _group_options(
        click.option(
            "-s",
            "settings",
            multiple=True,
            metavar="NAME=VALUE",
            help="Any other setting, such as -s margin=0.3; as often as needed. `tripletkit "
            "settings` lists them.",
            shell_complete=lambda *given: _complete_setting(given[-1]),
        ),
        click.option(
            "--settings",
            "settings_file",
            type=NAMED_FILE,
            help="Settings from a TOML file, or from the model.json of an older model; flags and "
            "-s come before these.",
        ),
        first(gather),
    )


class _NamedChoice(click.Choice):
    """One of a few names; the message about another tells the nearest one."""

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> str:
        from tripletkit.registry import describe_unknown

        if value not in self.choices:
            self.fail(describe_unknown(str(value), self.choices), param, context)
        return value


def choice_of(name: str) -> Decorator:
    """Return the flag of a setting that is one of a few names."""
    from tripletkit.model.settings import SETTINGS

    facts = SETTINGS[name]
    return click.option(
        f"--{name}",
        type=_NamedChoice(tuple(facts.choices)),
        metavar="NAME",
        help=f"{facts.help}  [default: {facts.default}]",
    )


def _complete_setting(incomplete: str) -> list[str]:
    from tripletkit.model.settings import SETTINGS

    return [f"{name}=" for name in SETTINGS if name.startswith(incomplete)]


# What `train` and `finetune` go on with and write beside the model.
running_options = _group_options(
    click.option(
        "--resume",
        is_flag=True,
        help="Go on with a training from pixels that was interrupted, from its last whole epoch.",
    ),
    click.option(
        "--tensorboard",
        type=ADDED_TO,
        metavar="DIR",
        help="Write each epoch's numbers as TensorBoard logs, too.",
    ),
)


def say_where(output: Path) -> None:
    """Say where a trained model is, and what to do with it."""
    where = click.format_filename(output)
    say(
        f"The model is in {where}. Next:\n  tripletkit predict test.txt --model {where} > preds.csv"
    )


def this_line() -> str:
    """Return the command line, for the record of a model."""
    return shlex.join(["tripletkit", *sys.argv[1:]])
