"""How Sphinx builds the site: from pages and notebooks as they are, without running them and without a network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "TuneBench"
root_doc = "index"
extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["docs/site/*"]

html_theme = "furo"
html_title = "TuneBench"
html_show_sphinx = False
html_copy_source = False
html_math_renderer = "mathml"

# Notebooks are shown as they are; what they need to run is not always here.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
#: Pygments has no colours for CSV.
suppress_warnings = ["misc.highlighting_failure"]

#: Docutils does not know TeX's sizes of brackets, and a browser stretches them by itself.
_SIZES = re.compile(r"\\[bB]ig[glr]*(?![A-Za-z])")

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True


def _mathml(self: Any, node: nodes.math | nodes.math_block) -> None:
    """An equation as MathML, which browsers draw by themselves. Raises where docutils does not know a command."""
    is_block = isinstance(node, nodes.math_block)
    markup = tex2mathml(_SIZES.sub("", node.astext()), as_block=is_block)
    self.body.append(f"<div class='math'>{markup}</div>" if is_block else markup)
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer of equations, and take the one away that would load a script."""
    app.add_html_math_renderer("mathml", (_mathml, None), (_mathml, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
