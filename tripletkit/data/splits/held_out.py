"""Which images are held out: named by a folder, a CSV, a triplet file or a list."""

from __future__ import annotations

from pathlib import Path

from tripletkit.data.folder import list_images
from tripletkit.data.labels import COLUMNS, find_label_heading, read_labels
from tripletkit.data.text_files import check_text, read_bytes
from tripletkit.data.triplet_files import scan_triplets
from tripletkit.errors import ImageNameError, TripletFileError


def read_held_out(source: Path, folder: Path) -> dict[str, str | None]:
    """Read the names of held-out images, with their labels where the source has them.

    Args:
        source: a folder inside `folder`, whose subfolders then are classes; a CSV with the
            columns name and label; a triplet file, all of whose images are meant; or a text
            of one name a line.
        folder: of the images, which names are relative to.
    Returns:
        Name -> label, or None, in the order of the source.
    Raises:
        ImageNameError: if the source is a folder elsewhere, or there is no name in it.
        TripletFileError, LabelFileError: if the file cannot be read as what it seems to be.
    """
    if source.is_dir():
        names = _names_below(source, folder)
    else:
        data, shown = read_bytes(source)
        text = check_text(data, shown).decode()
        names = _labelled_names(text, source) or _names_of_text(text, source)
    if not names:
        raise ImageNameError(f"{source}: expected names of held-out images, got none")
    return names


def _names_below(source: Path, folder: Path) -> dict[str, str | None]:
    try:
        inside = source.resolve().relative_to(folder.resolve())
    except ValueError:
        raise ImageNameError(
            f"{source}: expected a folder inside the image folder {folder}"
        ) from None
    return {
        (inside / name).as_posix(): name.partition("/")[0] if "/" in name else None
        for name in list_images(source)
    }


def _labelled_names(text: str, source: Path) -> dict[str, str | None]:
    """Return what a CSV of names and labels says; nothing of another file."""
    heading, _ = find_label_heading(text)
    return dict(read_labels(source)) if set(COLUMNS) <= set(heading) else {}


def _names_of_text(text: str, source: Path) -> dict[str, str | None]:
    """Return all names of triplets, or each line as a name where no line is a triplet."""
    scan = scan_triplets(source)
    if len(scan.triplets):
        return dict.fromkeys(scan.checked().names)
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    names = [_unquoted(line) for line in lines]
    if any(not name for name in names):
        raise TripletFileError(f"{source}: expected one name a line, got an empty one")
    return dict.fromkeys(names)


def _unquoted(line: str) -> str:
    if len(line) > 1 and line[0] == line[-1] == '"':
        return line[1:-1].replace('""', '"')
    return line
