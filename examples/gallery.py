"""Draw the pictures of docs/gallery.md anew, by the commands that stand on that page.

    python examples/gallery.py

It takes some minutes; nothing but the pictures is kept.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).parents[1]
PAGE = TOP / "docs" / "gallery.md"


def main() -> None:
    """Run each command of the page in a folder of its own, and keep what the page shows."""
    text = PAGE.read_text(encoding="utf-8")
    pictures = re.findall(r"\(images/gallery/([^)]+)\)", text)
    with tempfile.TemporaryDirectory() as folder:
        run([str(TOP / "examples" / "write_digits.py"), "."], folder)
        for line in re.findall(r"^\$ tripletkit (.+)$", text, flags=re.MULTILINE):
            run(["-m", "tripletkit", *shlex.split(line)], folder)
        kept = PAGE.parent / "images" / "gallery"
        kept.mkdir(parents=True, exist_ok=True)
        for name in pictures:
            shutil.copyfile(Path(folder, name), kept / name)


def run(words: list[str], folder: str) -> None:
    """Run Python on `words` in `folder`."""
    subprocess.run([sys.executable, *words], cwd=folder, check=True)


if __name__ == "__main__":
    main()
