"""Settings of Sphinx: pages in Markdown, built without a network."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from generated_text import fill_in

project = "tripletkit"
author = "the authors of tripletkit"
copyright = author
release = version = installed_version("tripletkit")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# The changelog is at the top of the repository; its page includes it.
exclude_patterns = ["_build", "README.md"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = "tripletkit"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sphinx = False
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "inherited-members": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes are listed by autodoc; a second list of the same names would be ambiguous.
napoleon_use_ivar = True


def setup(app: object) -> None:
    """Fill in what is made from the code: commands, settings, losses, records."""
    app.connect("source-read", lambda _app, _page, source: fill_in(source))
