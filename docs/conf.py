"""How Sphinx builds the site; `make docs`.

The source folder is the whole repository, so that links between the README, docs/ and experiments/ are checked and mean
the same on the site as in a clone.
"""

from importlib import metadata
from importlib.util import find_spec

project = "ssl_bench"
author = "The ssl_bench authors"
copyright = "2026, the ssl_bench authors; MIT licence"
release = metadata.version("ssl-bench")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/**.md",
    "docs/api/**.rst",
    "experiments/README.md",
    "experiments/*/README.md",
    "benchmarks/README.md",
]
exclude_patterns = [".*", "build", "data", "runs", "src", "tests", "**/records"]
suppress_warnings = ["ref.python"]  # two rooms have a Dataset, and annotations do not name the room
templates_path = ["docs/templates"]  # for autosummary, which starts from the source folder

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]

autosummary_generate = True
autosummary_ignore_module_all = True
autodoc_mock_imports = [] if find_spec("triton") else ["ssl_bench.augment.fused"]  # not made for every system
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
python_maximum_signature_line_length = 100
add_module_names = False

html_theme = "furo"
html_title = "ssl_bench"
html_static_path = ["static"]
html_css_files = ["width.css"]
html_extra_path = ["root"]
html_copy_source = False
