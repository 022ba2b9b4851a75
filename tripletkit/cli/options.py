"""Options that several commands share, each written once.

What every run can be told (`-q`, `--json`, `--force`, `--cache`, `--on-bad-image`,
`--follow-outside`) belongs to the program, and may stand anywhere on the line; a command says
with `takes` which of these it heeds, and others are refused.
"""

from __future__ import annotations

import functools
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from tripletkit import defaults
from tripletkit.errors import BackboneError, ViewError

if TYPE_CHECKING:
    from tripletkit.api.models import Model
    from tripletkit.data.images import Images


class InputPath(click.Path):
    """A file or folder that a command reads, so that it writes nothing over it or among images."""

    def __init__(self, **kinds: bool) -> None:
        super().__init__(exists=True, path_type=Path, **kinds)

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Any:
        from tripletkit.data.outputs import note_input

        path = super().convert(value, param, context)
        note_input(path)
        return path


INPUT_FILE = InputPath(dir_okay=False, allow_dash=True)
INPUT_FOLDER = InputPath(file_okay=False)
INPUT_PATH = InputPath(allow_dash=True)


class OutputPath(click.Path):
    """A place that a command writes to; every one goes through `tripletkit.data.outputs.Outputs`.

    A test looks for this type to find all outputs of all commands.
    """

    def __init__(self, *, is_folder: bool = False) -> None:
        super().__init__(file_okay=not is_folder, dir_okay=is_folder, path_type=Path)


OUTPUT_FILE = OutputPath()
OUTPUT_FOLDER = OutputPath(is_folder=True)
MODEL_FOLDER = click.Path(path_type=Path)

# More than there can be of anything that is counted, and what arrays of the library can hold.
MOST = 2**31 - 1


class WholeRange(click.IntRange):
    """A range of whole numbers with two ends, written in digits as any program reads them.

    Python takes `1_0` and digits of other scripts, too, and numbers that no array can hold.
    """

    def __init__(self, min: int, max: int = MOST) -> None:
        super().__init__(min=min, max=max)

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        _check_plain(self, value, param, context)
        number = click.INT.convert(value, param, context)
        if number > MOST:
            self.fail(f"{number} is more than {MOST:,}.", param, context)
        return super().convert(number, param, context)

    def _describe_range(self) -> str:
        """Leave out of the help what bounds every number."""
        return f"x>={self.min}" if self.max == MOST else super()._describe_range()


class FiniteRange(click.FloatRange):
    """A range of real numbers; NaN would pass any, infinity any that is open above."""

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> float:
        _check_plain(self, value, param, context)
        number = super().convert(value, param, context)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, context)
        return number


class NamedChoice(click.Choice):
    """One of a few names; the message about another tells the nearest one."""

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> str:
        from tripletkit.registry import describe_unknown

        if value not in self.choices:
            self.fail(describe_unknown(str(value), self.choices), param, context)
        return value


class Duration(click.ParamType):
    """Seconds, from a number and its unit such as `90s` or `2min`; seconds where none is given."""

    name = "time"
    _seconds = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}  # noqa: RUF012

    def convert(
        self, value: str | float, param: click.Parameter | None, context: click.Context | None
    ) -> float:
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", value.strip().lower())
        if found is None or found[2] not in self._seconds:
            self.fail(f"expected a time such as 90s, 2min or 1h, got {value!r}", param, context)
        return float(found[1]) * self._seconds[found[2]]


class CountOrShare(click.ParamType):
    """A count such as `500`, or a share such as `0.25` or `25%`."""

    name = "keep"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> float | int:
        from tripletkit.data.text_files import parse_number

        if isinstance(value, float | int):
            return value
        if value.isascii() and value.isdigit():
            keep = int(value)
        else:
            keep = parse_number(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        if not (1 <= keep <= MOST if isinstance(keep, int) else 0 < keep <= 1):
            self.fail(
                f"expected a count such as 500 or a share such as 0.25 or 25%, got {value}.",
                param,
                context,
            )
        return keep


def _check_plain(
    kind: click.ParamType, value: Any, param: click.Parameter | None, context: click.Context | None
) -> None:
    if isinstance(value, str) and not (value.isascii() and "_" not in value):
        kind.fail(f"{value!r} is not a number in plain digits.", param, context)


def group_options(*options: Callable[[Callable], Callable]) -> Callable[[Callable], Callable]:
    """Return one decorator that adds several options, in the order of the help."""

    def add(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def section(title: str, *options: Callable[[Callable], Callable]) -> Callable:
    """Return one decorator that adds options under a title of their own in the help."""

    def add(command: Callable) -> Callable:
        known = set(getattr(command, "__click_params__", []))
        command = group_options(*options)(command)
        for param in command.__click_params__:  # type: ignore[attr-defined]
            if param not in known and not hasattr(param, "section"):
                param.section = title
        return command

    return add


class Command(click.Command):
    """A command whose help shows its options in sections, and which options of a run it takes."""

    def invoke(self, context: click.Context) -> Any:
        refuse_untaken(context.find_root(), self)
        return super().invoke(context)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(context):
            record = param.get_help_record(context) if isinstance(param, click.Option) else None
            if record is not None:
                title = getattr(param, "section", "Options")
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
        flags = [max(RUN_OPTIONS[name].opts, key=len) for name in taken_by(self)]
        with formatter.section("Options of every run"):
            formatter.write_text(f"{', '.join(flags)}: see `tripletkit --help`.")


def command(name: str | None = None) -> Callable[[Callable], click.Command]:
    """Return the decorator of a command."""
    return click.command(name, cls=Command)


# What a run is told, by the name of the parameter that a command gets.
RUN_OPTIONS: dict[str, click.Option] = {
    "quiet": click.Option(
        ["-q", "--quiet"], is_flag=True, help="Say nothing but warnings, errors and the result."
    ),
    "as_json": click.Option(["as_json", "--json"], is_flag=True, help="Print the result as JSON."),
    "overwrite": click.Option(
        ["overwrite", "--force"],
        is_flag=True,
        help="Replace what is there, if it is what this command writes.",
    ),
    "cache": click.Option(
        ["--cache"],
        type=click.Path(file_okay=False, path_type=Path),
        envvar=defaults.CACHE_VARIABLE,
        show_envvar=True,
        metavar="DIR",
        help="Folder of the feature store.  [default: the user's cache folder]",
    ),
    "on_bad_image": click.Option(
        ["--on-bad-image"],
        type=click.Choice(["fail", "skip"]),
        default="fail",
        show_default=True,
        help="What to do when an image is missing or cannot be read.",
    ),
    "follow_outside": click.Option(
        ["--follow-outside"],
        is_flag=True,
        help="Allow names and links that lead out of the image folder.",
    ),
    "exclude": click.Option(
        ["--exclude"],
        multiple=True,
        metavar="JUDGE",
        help="Leave out this judge of a database of judgements. May be given several times.",
    ),
}


def takes(*names: str) -> Callable[[Callable], Callable]:
    """Return a decorator that gives a command options of the run.

    Args:
        names: of `RUN_OPTIONS`; or `"images"`, which makes of the parameter of that name and of
            what to do with bad images one `Images`.
    """
    policy = ("on_bad_image", "follow_outside")
    options = [option for name in names for option in (policy if name == "images" else (name,))]

    def add(function: Callable) -> Callable:
        @functools.wraps(function)
        def run(**given: Any) -> Any:
            of_run = click.get_current_context().find_root().params
            for name in names:
                if name == "images":
                    from tripletkit.data.images import open_images

                    given[name] = open_images(
                        given.get(name),
                        skip_bad=of_run["on_bad_image"] == "skip",
                        follow_outside=of_run["follow_outside"],
                    )
                elif name != "quiet":
                    given[name] = of_run[name]
            return function(**given)

        taken = getattr(function, "taken_options", ("quiet",))
        run.taken_options = (*taken, *options)  # type: ignore[attr-defined]
        return run

    return add


def taken_by(given: click.Command) -> Sequence[str]:
    """Return the options of a run that a command takes."""
    return getattr(given.callback, "taken_options", ("quiet",))


def refuse_untaken(context: click.Context, called: click.Command) -> None:
    """Refuse options of the run that a command would pass over.

    Raises:
        click.UsageError: naming one.
    """
    given = click.core.ParameterSource.COMMANDLINE
    for name, option in RUN_OPTIONS.items():
        is_given = context.get_parameter_source(name) == given
        if is_given and name not in taken_by(called) and name != "quiet":
            flag = max(option.opts, key=len)
            raise click.NoSuchOption(flag, f"No such option: {flag}")


def hoist_run_options(arguments: list[str]) -> list[str]:
    """Return arguments with the options of the run first, wherever they stand."""
    flags = {flag: option for option in RUN_OPTIONS.values() for flag in option.opts}
    first, rest = [], []
    words = map(str, arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
            break
        flag = word.partition("=")[0]
        if flag not in flags:
            rest.append(word)
            continue
        first.append(word)
        if not flags[flag].is_flag and "=" not in word:
            first += [value for value in [next(words, None)] if value is not None]
    return first + rest


seed_option = click.option(
    "--seed",
    type=WholeRange(0),
    default=defaults.SEED,
    show_default=True,
    help="Seed of all random choices. The same seed gives the same result.",
)


def input_source(path: Path | None) -> Path | BinaryIO | None:
    """Return what a reader takes: the path, or standard input for `-`.

    Raises:
        UsageError: if the program was started without standard input (`<&-`).
    """
    if str(path) != "-":
        return path
    if sys.stdin is None:
        raise click.UsageError("`-` stands for standard input, which is closed.")
    return sys.stdin.buffer


class _Columns(click.ParamType):
    """`anchor=head,positive=winner`."""

    name = "columns"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> dict[str, str]:
        if isinstance(value, dict):
            return value
        pairs = [part.partition("=") for part in value.split(",")]
        if not all(name.strip() and sign and text.strip() for name, sign, text in pairs):
            self.fail(f"expected such as anchor=head,positive=winner, got {value}", param, context)
        return {name.strip(): text.strip() for name, _, text in pairs}


def judgements_options(function: Callable) -> Callable:
    """Give a command what says how files of judgements are read, as its parameter `read`."""

    @functools.wraps(function)
    def run(**given: Any) -> Any:
        said = {name: given.pop(name) for name in ("columns", "names", "swap")}
        said["exclude"] = click.get_current_context().find_root().params["exclude"]
        n_read = 0

        def read(path: Path | None) -> Any:
            nonlocal n_read
            if path is None or not any(said.values()):
                return input_source(path)
            from tripletkit.data.judgements import is_judgements, open_judgements

            n_read += 1
            # Judges are those of the first file; the others may have none.
            other = {"exclude": ()} if n_read > 1 and not is_judgements(path) else {}
            return open_judgements(input_source(path), **said | other)

        return function(read=read, **given)

    taken = getattr(function, "taken_options", ("quiet",))
    run.taken_options = (*taken, "exclude")  # type: ignore[attr-defined]
    return section(
        "Files of judgements",
        click.option(
            "--columns",
            type=_Columns(),
            metavar="NAME=HEADING,...",
            help="Which columns hold what, where their headings do not say it: anchor, positive, "
            "negative, first, second, answer, votes_first, votes_second, share, image1 to image3, "
            "odd; by heading, or by place from 1. odd=last: the last of three images is the odd "
            "one in every row.",
        ),
        click.option(
            "--names",
            type=INPUT_FILE,
            metavar="FILE",
            help="List of names that numbers are places in, from 0: one a line, or a JSON list.",
        ),
        click.option(
            "--swap", is_flag=True, help="Take the other image for the nearer one in every row."
        ),
    )(run)


# Encoders.


class _Weights(click.ParamType):
    """`FILE`, or `NAME=FILE` where NAME is a backbone."""

    name = "weights"
    _file = InputPath(dir_okay=False)

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> tuple[str | None, Path]:
        from tripletkit.features.backbones import BACKBONES
        from tripletkit.features.onnx_files import is_network_file

        if isinstance(value, tuple):
            return value
        backbone, is_named, file = value.partition("=")
        if not is_named or not (backbone in BACKBONES or is_network_file(backbone)):
            backbone, file = None, value
        return backbone, self._file.convert(file, param, context)


def _gather_weights(
    _context: click.Context, _option: click.Parameter, given: Sequence[tuple[str | None, Path]]
) -> dict[str | None, Path]:
    weights: dict[str | None, Path] = {}
    for backbone, file in given:
        if backbone in weights:
            which = f"of {backbone} " if backbone else ""
            raise click.BadParameter(
                f"expected one weights file {which}, got {weights[backbone]} and {file}. "
                "Say which backbone each is for: NAME=FILE."
            )
        weights[backbone] = file
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
        except (BackboneError, ViewError) as error:
            raise click.BadParameter(str(error)) from error
        return chosen

    return read


weights_option = click.option(
    "--weights",
    type=_Weights(),
    multiple=True,
    callback=_gather_weights,
    metavar="[NAME=]FILE",
    help="Weights file of the backbone, instead of its own ImageNet weights; of several "
    "backbones NAME=FILE, once for each.",
)

features_option = click.option(
    "--features",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE",
    help="Vectors made elsewhere, instead of a backbone's features: .npz with the arrays names "
    "and features, or .parquet with a column name. train, embed and classify need no IMAGES then.",
)


def backbone_option(help_text: str, **attributes: Any) -> Any:
    """Return the option `--backbone` of a command, for one name or several."""
    return click.option(
        "--backbone",
        callback=_read_names("tripletkit.features.feature_parts:check_backbone_names"),
        shell_complete=lambda *given: _complete_backbones(given[-1]),
        metavar="NAME|FILE.onnx|hf:OWNER/NAME[,...]",
        help=help_text,
        **attributes,
    )


views_option = click.option(
    "--views",
    callback=_read_names("tripletkit.features.image_views:choose_views"),
    metavar="NAME[,NAME...]",
    help="Views of each image to average the features over (test-time augmentation): "
    "original; flip: with its mirror image; five-crop: corners and center; ten-crop: these and "
    f"their mirror images. Each view costs a pass of the backbone, once.  "
    f"[default: {defaults.VIEWS}]",
)


def backbone_options(help_text: str, **attributes: Any) -> Callable[[Callable], Callable]:
    """Return `--backbone` and how its features are taken: what `tripletkit.pretrained` takes."""
    return group_options(
        backbone_option(help_text, **attributes),
        weights_option,
        views_option,
        click.option(
            "--depth",
            type=click.Choice(defaults.DEPTHS),
            default=defaults.DEPTH,
            show_default=True,
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


ENCODER_FIELDS = ("weights", "views", "depth", "preprocess", "backbone_output", "features")


def take_encoder(given: dict[str, Any]) -> dict[str, Any]:
    """Take out of a command's parameters what says how features are made, for a public function.

    Raises:
        click.UsageError: if something is said of a backbone, and vectors are given.
    """
    context = click.get_current_context()
    fields = {name: given.pop(name) for name in ENCODER_FIELDS if name in given}
    if fields.get("features") is not None:
        usual = (None, click.core.ParameterSource.DEFAULT)
        chosen = [
            name
            for name in ("backbone", "views", "depth", "preprocess", "backbone_output")
            if context.get_parameter_source(name) not in usual
        ]
        if chosen or fields["weights"]:
            raise click.UsageError(
                "--features are taken as they are; leave out --backbone, --weights, --views and "
                "what else is about computing features."
            )
    if backbone := given.get("backbone"):
        check_weights(backbone, fields["weights"])
    fields["views"] = fields.get("views") or [defaults.VIEWS]
    return fields


def check_weights(backbones: Sequence[str], weights: dict[str | None, Path]) -> None:
    """Refuse weights that are for none of the backbones as a wrong call."""
    from tripletkit.features.feature_parts import assign_weights

    try:
        assign_weights(backbones, weights)
    except BackboneError as error:
        raise click.UsageError(str(error)) from error


def model_options(
    default: str | None = defaults.MODEL_FOLDER, *, is_optional: bool = False
) -> Callable[[Callable], Callable]:
    """Return the options that say what images are turned into vectors by.

    A command gets `open_model`, which opens what they name when other mistakes were looked for.

    Args:
        default: the model folder that is taken where nothing is named; None for the pretrained
            backbone.
        is_optional: nothing need be named, and then None is opened.
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

    def add(function: Callable) -> Callable:
        @functools.wraps(function)
        def run(**given: Any) -> Any:
            named = given.pop("model"), given.pop("frozen"), given.get("backbone")
            fields = take_encoder(given)
            given.pop("backbone")
            given["open_model"] = functools.partial(
                _open_model, *named, default, fields, is_optional=is_optional
            )
            return function(**given)

        return options(run)

    return add


def _open_model(
    folder: Path | None,
    frozen: bool,
    backbone: list[str] | None,
    default: str | None,
    fields: dict[str, Any],
    *,
    is_optional: bool,
) -> Any:
    """Return the model that the options name."""
    from tripletkit.api.models import load, pretrained

    cache = click.get_current_context().find_root().params["cache"]
    features = fields["features"]
    if backbone is not None and folder is not None:
        raise click.UsageError("--backbone needs no --model; give one of them.")
    if backbone is None and folder is None:
        if frozen and features is not None:
            backbone = [defaults.BACKBONE]
        elif is_optional and not (frozen or features or fields["weights"]):
            return None
        elif default is None and not frozen:
            backbone = [defaults.BACKBONE]
    if backbone is not None:
        check_weights(backbone, fields["weights"])
        return pretrained(backbone, cache=cache, **fields)
    if fields["views"] != [defaults.VIEWS]:
        raise click.UsageError("--views needs --backbone; a model has the views of its training.")
    path = folder or Path(default or defaults.MODEL_FOLDER)
    model = load(path, weights=fields["weights"], features=features, cache=cache)
    return model.frozen if frozen else model


def trained_model_options(help_text: str = "") -> Callable[[Callable], Callable]:
    """Return the options that name a trained model, which a command gets as `model`."""
    options = section(
        "Model",
        click.option(
            "--model",
            type=MODEL_FOLDER,
            default=defaults.MODEL_FOLDER,
            show_default=True,
            help=f"Model folder that `tripletkit train` wrote.{help_text}",
        ),
        weights_option,
    )

    def add(function: Callable) -> Callable:
        @functools.wraps(function)
        def run(*, model: Path, weights: dict[str | None, Path], **given: Any) -> Any:
            from tripletkit.api.models import load

            cache = click.get_current_context().find_root().params["cache"]
            return function(model=load(model, weights=weights, cache=cache), **given)

        return options(run)

    return add


def view_options(function: Callable) -> Callable:
    """Add what `tripletkit.report` and `tripletkit.plot` show of a model."""
    return section(
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
            show_default=True,
            help="How the map of embeddings is made; umap needs tripletkit[map].",
        ),
        weights_option,
        features_option,
    )(function)


images_option = click.option(
    "--images",
    type=INPUT_FOLDER,
    help="Folder of the images.  [default: the one used in training]",
)


def votes_options(triplets: str) -> Callable[[Callable], Callable]:
    """Return `--votes` and `--fourth-column`.

    Args:
        triplets: how the command calls the triplet file that the votes are on.
    """
    return group_options(
        click.option(
            "--votes",
            type=INPUT_FILE,
            help=f"How many people said B and how many C, a row for each row of {triplets} in "
            "order: two numbers, or a,b,c,votes_b,votes_c.",
        ),
        click.option(
            "--fourth-column",
            type=click.Choice(["share"]),
            help=f"{triplets} has a fourth column: the share of people who said B, 0 to 1.",
        ),
    )


def need_images(images: Images, model: Model) -> None:
    """Refuse a command without an image folder, unless features are given.

    Raises:
        click.UsageError: if it needs one.
    """
    if not images.has_files and model.encoder.given is None:
        raise click.UsageError("Missing argument 'IMAGES'.")
