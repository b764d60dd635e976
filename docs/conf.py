"""Configures Sphinx: MyST pages, an API reference from docstrings and a gallery of examples.

The build needs no network: names of other libraries are not resolved.
"""

import os
import sys
import tomllib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent / "examples")]  # families import one another
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the examples are too small for more

from example_page import with_links, write_scripts  # noqa: E402  (as below)
from peak_memory import PeakMemory  # noqa: E402
from reference import write_reference  # noqa: E402  (beside this file, which is not a package)

_OTHERS = (
    "abc|collections|importlib|jaxtyping|msgspec|nn|numpy|os|pathlib|tokenizers|torch|Image|Path|Tensor"
    "|PIL|Float"
)
"""Modules and names of other libraries, whose inventories are on the network."""
_OURS = (
    "AdapterSpec|Broken|DiffusionComponents|GenerateOptions|Generated|Output|Prompts|Seeds|Wearable"
    "|WeightedText|ChainRef|ClipTokenizer|Course|Declared|Distilled|Editable|Installed|ManifestFault"
    "|ModelSpec|Outcome|Past|Place|PreprocessorSpec|Published|Rejected|Stage|AdapterRecord|ArgumentRecord|ModelRecord|Origin|State"
    "|_Table|Pictures|Merging|Move|MultistepSampler|Scales|SigmaSampler|StrideSampler|TrainedSigmas|TwoPass"
)
"""Types that public signatures name and that are not public themselves; so are type variables."""

project = "Refiners"
author = "the authors of Refiners"
release = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["version"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["_build"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", rf"({_OTHERS})(\..*)?"),
    (
        "py:.*",
        r"(enum|threading|_thread)\..*|(dict|Mapping)\[\w+|typing\.(Annotated|Literal).*|tuple\[.*",
    ),
    ("py:.*", rf"(refiners\w*\.(\w+\.)*)?({_OURS}|[A-Z])"),
]

sphinx_gallery_conf = {
    "examples_dirs": "_build/examples",
    "gallery_dirs": "gallery",
    "subsection_order": ["*", "_build/examples/combinations", "_build/examples/families"],
    "filename_pattern": r"\.py$",
    "image_scrapers": ("scraper.save_pictures",),
    "reset_modules": (),
    "capture_repr": (),
    "download_all_examples": False,
    "show_memory": PeakMemory(),
    "write_computation_times": False,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "Refiners"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
}


def read_google(
    _app: Sphinx, kind: str, _name: str, value: object, _options: object, lines: list[str]
) -> None:
    """Turns the sections of a docstring into fields.

    Without a name napoleon leaves the colon alone in "Where it acts: a mask", the docstring of an
    attribute, where its extension would take the words before it for a type.
    """
    parsed = GoogleDocstring(lines, Config(napoleon_use_rtype=False), what=kind, obj=value)
    lines[:] = parsed.lines()


def link_examples(_app: Sphinx, page: str, source: list[str]) -> None:
    """Links the names in the tables of the guide to the examples that use them."""
    source[0] = with_links(page, source[0])


def write_pages(*_: object) -> None:
    """Writes the reference, and gathers the scripts of the gallery."""
    write_reference(DOCS / "reference")
    write_scripts(DOCS / "_build" / "examples", DOCS / "gallery" / "by-name.md")


def setup(app: Sphinx) -> None:
    """Writes the reference and the gallery before Sphinx looks for pages."""
    app.connect("config-inited", write_pages, priority=100)
    app.connect("source-read", link_examples)
    app.connect("autodoc-process-docstring", read_google)
