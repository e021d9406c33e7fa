"""Sphinx's configuration. The site is built, and read, without a network."""

import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent)]

import megatron_nca  # noqa: E402

project = "megatron-nca"
release = version = megatron_nca.__version__
copyright = "the megatron-nca authors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
exclude_patterns = ["extensions"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# Blocks without a language are commands; output stands in blocks of their own, ```text.
highlight_language = "bash"
pygments_style, pygments_dark_style = "friendly", "native"

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
# The site can be built where neither is installed.
autodoc_mock_imports = [name for name in ("torch", "megatron") if find_spec(name) is None]
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"megatron-nca {release}"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["copy.js"]
html_show_sphinx = False
html_copy_source = False
