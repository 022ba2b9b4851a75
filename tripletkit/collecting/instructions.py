"""Instructions for judges: Markdown to HTML that can do no harm."""

from __future__ import annotations

from pathlib import Path

from tripletkit.data.outputs import note_input
from tripletkit.errors import InstructionsError

MAX_BYTES = 100_000

DEFAULT = """\
You will see a large image and two smaller ones.

**Which of the two is more like the large one?** Choose the one that you find more alike at
first sight. There is no right or wrong answer.

If you really cannot tell, say so. Do not think long: a few seconds are enough.
"""

DEFAULT_GRID = """\
You will see one image at the top and several below it.

**Pick those that are most like the one at the top.** There is no right or wrong answer.

If you really cannot tell, say so. Do not think long: a few seconds are enough.
"""


def read_instructions(path: Path) -> str:
    """Read a Markdown file.

    Raises:
        InstructionsError: if it cannot be read, is not UTF-8 text, or is longer than a page.
    """
    note_input(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InstructionsError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise InstructionsError(
            f"{path}: expected at most {MAX_BYTES:,} bytes of instructions, got {len(data):,}"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InstructionsError(f"{path}: expected UTF-8 text: {error.reason}") from error


def render_markdown(text: str) -> str:
    """Return Markdown as HTML. HTML in the text is shown as it is written, images are left out.

    Example:
        >>> render_markdown("*Look* <script>")
        '<p><em>Look</em> &lt;script&gt;</p>\\n'
    """
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    return renderer.render(text)
