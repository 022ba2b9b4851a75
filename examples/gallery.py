"""Draw the pictures of docs/gallery.md anew, and write docs/notebook.md with what its cells show.

    python examples/gallery.py

It takes some minutes, and for the notebook needs nbclient and ipykernel; nothing but the pages and
their pictures is kept.
"""

from __future__ import annotations

import base64
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOP = Path(__file__).parents[1]
PAGE = TOP / "docs" / "gallery.md"
NOTEBOOK = TOP / "examples" / "notebook.ipynb"
# How a cell's result is shown on a page, the best form first.
FORMS = ("text/html", "image/png", "text/plain")


def main() -> None:
    """Run each command of the page in a folder of its own, and keep what the page shows."""
    text = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        run([str(TOP / "examples" / "write_digits.py"), "."], folder)
        for line in re.findall(r"^\$ tripletkit (.+)$", text, flags=re.MULTILINE):
            run(["-m", "tripletkit", *shlex.split(line)], folder)
        kept = PAGE.parent / "images" / "gallery"
        for name in re.findall(r"\(images/gallery/([^)]+)\)", text):
            shutil.copyfile(Path(folder, name), kept / name)
    with tempfile.TemporaryDirectory() as folder:
        run([str(TOP / "examples" / "write_digits.py"), "digits"], folder)
        write_notebook(Path(folder))


def run(words: list[str], folder: str) -> None:
    """Run Python on `words` in `folder`."""
    subprocess.run([sys.executable, *words], cwd=folder, check=True)


def write_notebook(folder: Path) -> None:
    """Run the notebook in a folder, and write it with its results as a page."""
    import nbclient
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": folder}}).execute()
    parts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts += ["<!-- not run: the notebook is run by a test of its own -->", "```python"]
        # The last semicolon says to a notebook alone that the value is not shown.
        parts[-1] += "\n" + cell.source.rstrip(";") + "\n```"
        parts += [show(output.data, number) for output in cell.outputs if "data" in output]
    text = "\n\n".join(parts).replace("-->\n\n```", "-->\n```")
    (PAGE.parent / "notebook.md").write_text(f"{text}\n", encoding="utf-8")


def show(result: dict[str, Any], number: int) -> str:
    """Return a result as Markdown, with a file for a picture."""
    form = next(form for form in FORMS if form in result)
    if form == "text/html":
        return f'```{{raw}} html\n<div class="result">\n{result[form].strip()}\n</div>\n```'
    if form == "text/plain":
        return f"```text\n{result[form]}\n```"
    path = PAGE.parent / "images" / f"notebook-{number}.png"
    path.write_bytes(base64.b64decode(result[form]))
    return f"![What the cell draws](images/{path.name})"


if __name__ == "__main__":
    main()
