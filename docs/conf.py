"""How Sphinx builds the site: `python -m sphinx -W -b html docs OUT`."""

import os
import pathlib
import sys

# This checkout, whatever else may be installed, and `architecture.py` beside this file.
sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import architecture
import settings

import vaejax

project = "vaejax"
author = "the vaejax authors"
release = version = vaejax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["notes", "_generated"]
# Docstrings write code between single backticks.
default_role = "code"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Fields of data classes are told in their docstrings, not listed a second time.
napoleon_use_ivar = True

viewcode_follow_imported_members = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_preserve_defaults = True
add_module_names = False

# Every cross-reference must resolve, but those to types of other projects, which are not here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!vaejax\b).*")]

html_theme = "furo"
html_title = "vaejax"
html_show_sphinx = False


def _generate(app) -> None:
    """Writes what is generated from the code: the drawing of the subpackages, and tables."""
    generated = pathlib.Path(app.srcdir) / "_generated"
    generated.mkdir(exist_ok=True)
    (generated / "subpackages.svg").write_text(architecture.drawing())
    (generated / "subpackages.txt").write_text(architecture.table())
    (generated / "settings.txt").write_text(settings.tables())


def _link_pages(app, relative_path, parent, content: list[str]) -> None:
    """Has files of the repository that are pages here link to each other as pages."""
    content[0] = content[0].replace("(../launch/README.md", "(launching.md")


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", _generate)
    app.connect("include-read", _link_pages)
