"""Encoders by name from the Hugging Face hub, kept in the hub's own cache.

Only a name that the user gave is looked up. What is in the cache is taken without the network; the
commit of the repository and the hash of the file become part of a model's record.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from tripletkit.errors import BackboneError, MissingExtraError, NetworkFileError, WeightsError
from tripletkit.features.image_processor import CONFIG_FILES
from tripletkit.features.onnx_files import SUFFIX, data_files
from tripletkit.features.weights_files import file_sha256

PREFIX = "hf:"
_NAME = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+?))?(?P<file>/[\w./-]+\.onnx)?"
)
# What files of the part that sees images are called, before their numbers are said.
_STEMS = ("vision_model", "image_encoder", "visual", "vision", "model", "encoder")
# How the numbers of a network are kept, the better first, and how a file's name ends then.
_PRECISIONS = {
    "fp32": ("", "_fp32"),
    "fp16": ("_fp16",),
    "int8": ("_int8", "_quantized", "_uint8"),
}

_log = logging.getLogger("tripletkit")


class _HubFile(NamedTuple):
    """An ONNX file of a repository at a commit."""

    repo: str  # OWNER/NAME
    commit: str
    file: str  # its path in the repository
    path: Path  # and in the cache

    @property
    def name(self) -> str:
        """What the encoder is called."""
        return f"{PREFIX}{self.repo}"

    @property
    def recorded(self) -> str:
        """What a model's record says of it, by which it is found again."""
        return f"{PREFIX}{self.repo}@{self.commit}/{self.file}"


def is_hub_name(name: str) -> bool:
    """Return whether the name of a backbone is of an encoder on the hub."""
    return name.startswith(PREFIX)


def check_hub_name(name: str) -> re.Match[str]:
    """Return the parts of a name."""
    if (found := _NAME.fullmatch(name)) is None:
        raise BackboneError(
            f"{name}: expected hf:OWNER/NAME, with @REVISION and /FILE.onnx behind it where they "
            "are to be said, such as hf:onnx-community/dinov2-small."
        )
    return found


def find_on_hub(name: str) -> _HubFile:
    """Return the ONNX file of a name, downloaded with what belongs to it if need be."""
    asked = check_hub_name(name)
    repo, revision, file = asked["repo"], asked["revision"] or "main", (asked["file"] or "")[1:]
    hub = _import_hub()
    kept = _find_kept(hub, repo, revision, file)
    found = kept or _download(hub, repo, revision, file)
    _check_hashes(found)
    if kept is None:
        size_mb = found.path.stat().st_size / 1e6
        _log.info("%s: %s of commit %s, %.0f MB.", name, found.file, found.commit[:12], size_mb)
    return found


def _find_kept(hub: ModuleType, repo: str, revision: str, file: str) -> _HubFile | None:
    """Return what the cache has, if no better file can be on the hub; it asks no network."""
    try:
        folder = Path(
            hub.snapshot_download(
                repo, revision=revision, local_files_only=True, allow_patterns=["*.onnx"]
            )
        )
    except (hub.errors.LocalEntryNotFoundError, hub.errors.HFValidationError):
        return None
    there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{SUFFIX}"))
    if not there or (file and file not in there):
        return None
    chosen = file or _choose_file(repo, there)
    is_best = bool(file) or _split(chosen)[1] == "fp32"
    if not is_best and not hub.constants.HF_HUB_OFFLINE:
        return None
    try:
        data_files(folder / chosen)
    except NetworkFileError:
        return None
    return _HubFile(repo, folder.name, chosen, folder / chosen)


def _download(hub: ModuleType, repo: str, revision: str, file: str) -> _HubFile:
    try:
        about = hub.HfApi().model_info(repo, revision=revision)
        files = [sibling.rfilename for sibling in about.siblings or ()]
        chosen = file or _choose_file(repo, files)
        if chosen not in files:
            raise BackboneError(
                f"{PREFIX}{repo}: expected the file {chosen}, there are "
                f"{', '.join(name for name in files if name.endswith(SUFFIX)) or 'no ONNX files'}."
            )

        folder = chosen.rpartition("/")[0]
        wanted = {name for config in CONFIG_FILES for name in (config, f"{folder}/{config}")}
        wanted |= {name for name in files if name.startswith(f"{chosen}_data")}
        wanted |= {f"{chosen}.data", f"{chosen.removesuffix(SUFFIX)}.data"}
        for name in sorted(wanted & set(files)):
            hub.hf_hub_download(repo, name, revision=about.sha)
        # It comes last, so that what is there of a killed download does not look whole. Asked for
        # by its branch or tag, so that the library notes which commit that was.
        path = Path(hub.hf_hub_download(repo, chosen, revision=revision))
        if about.sha not in path.parts:
            raise BackboneError(f"{PREFIX}{repo}: changed meanwhile. Run the command again.")
        return _HubFile(repo, about.sha, chosen, path)
    except BackboneError:
        raise
    # The library raises its own kinds, those of its connection, and OSError for a full disk.
    except Exception as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise BackboneError(
            f"{PREFIX}{repo}: cannot be had from the hub ({type(error).__name__}: {why}). Give an "
            "ONNX file that is at hand."
        ) from error


def _choose_file(repo: str, files: list[str]) -> str:
    """Return the ONNX file of the part that sees images, in the best precision that is there."""
    by_stem: dict[str, dict[str, str]] = {}
    for name in files:
        if name.endswith(SUFFIX):
            part, precision = _split(name)
            if precision:
                by_stem.setdefault(part, {}).setdefault(precision, name)
    stem = next((stem for stem in _STEMS if stem in by_stem), None)
    if stem is None and len(by_stem) == 1:
        (stem,) = by_stem
    if stem is None:
        networks = ", ".join(name for name in files if name.endswith(SUFFIX))
        raise BackboneError(
            f"{PREFIX}{repo}: expected an ONNX file of an encoder of images, there are "
            f"{networks or 'no ONNX files'}. "
            + (f"Say which: {PREFIX}{repo}/FILE.onnx." if networks else "Export one.")
        )
    return next(by_stem[stem][precision] for precision in _PRECISIONS if precision in by_stem[stem])


def _split(name: str) -> tuple[str, str]:
    """Return the stem of a file's name and its precision; none for others, such as four bits."""
    base = name.rpartition("/")[2].removesuffix(SUFFIX)
    for precision, ends in _PRECISIONS.items():
        for end in ends:
            if end and base.endswith(end):
                return base.removesuffix(end), precision
    is_other = re.search(r"_(q4|q4f16|bnb4|q8|q2|o[1-4]|fp8|bf16)$", base)
    return base, "" if is_other else "fp32"


def _check_hashes(found: _HubFile) -> None:
    """Compare large files with the hash that the cache calls them by; wrong ones are deleted."""
    for name in [found.path.name, *data_files(found.path)]:
        path = found.path.parent / name
        blob = path.resolve()
        if re.fullmatch(r"[0-9a-f]{64}", blob.name) and file_sha256(blob) != blob.name:
            path.unlink()
            blob.unlink(missing_ok=True)
            raise WeightsError(
                f"{found.name}: {name} is not what the hub says (its sha256 differs from "
                f"{blob.name[:12]}...) and was taken out of the cache. Run the command again."
            )


def _import_hub() -> ModuleType:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
        import huggingface_hub.errors
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise MissingExtraError(
            "Encoders from the hub need huggingface_hub, which is not installed. Run: "
            "pip install 'tripletkit[hub]', or give an ONNX file."
        ) from error
    disable_progress_bars()
    module: Any = huggingface_hub
    return module
