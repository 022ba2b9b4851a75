"""Settings of Sphinx: pages in Markdown, built without a network."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from generated_text import fill_in

project = "tripletkit"
author = "the authors of tripletkit"
copyright = author
release = version = installed_version("tripletkit")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = "tripletkit"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sphinx = False
html_copy_source = False
# Two hyphens of an option stay two hyphens.
smartquotes = False

# What is copied are the commands alone: neither the prompt nor what the command printed.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_line_continuation_character = "\\"

autodoc_member_order = "bysource"
# Defaults as they are written in the code, not as their values print.
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
# Attributes that are properties too are listed once.
napoleon_use_ivar = True


def spell_code(
    _app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Write code in docstrings as reStructuredText wants it; they have it in single backquotes."""
    for number, line in enumerate(lines):
        lines[number] = re.sub(r"(?<![`:])`([^`]+)`(?!`)(\w*)", _as_literal, line)


def _as_literal(found: re.Match[str]) -> str:
    return f"``{found[1]}``" + (f"\\ {found[2]}" if found[2] else "")


def skip_borrowed(
    _app: object, _what: str, name: str, _object: object, skip: bool, _options: object
) -> bool:
    """Leave out what scikit-learn gives all estimators, whose text refers to its own pages."""
    return skip or (name.startswith("set_") and name.endswith("_request"))


def setup(app: Any) -> None:
    """Fill in what is made from the code: commands, settings, losses, records."""
    app.connect("source-read", lambda _app, _page, source: fill_in(source))
    # Before napoleon, which goes through the lines at the usual priority, 500.
    app.connect("autodoc-process-docstring", spell_code, priority=400)
    app.connect("autodoc-skip-member", skip_borrowed)
