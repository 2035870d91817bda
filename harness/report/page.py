"""An executed notebook as one HTML page, with its style sheet and images inside and nothing from elsewhere."""

from __future__ import annotations

import secrets
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

from harness.report.equations import drawn

_HERE = Path(__file__).parent


def render(notebook: Any, title: str = "TuneBench report") -> str:
    """The HTML page of an executed notebook (an ``nbformat`` node). Code stays hidden until the reader asks for it."""
    return _page(notebook, title, code=False, headings=_headings(notebook))


def render_trial(path: Path, title: str) -> str | None:
    """The page of a trial's executed notebook, its code in sight; None if the file is not a notebook."""
    import nbformat

    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, nbformat.ValidationError):
        return None
    return _page(notebook, title, code=True, headings=[])


def _page(notebook: Any, title: str, code: bool, headings: list[tuple[str, str]]) -> str:
    visible = notebook.copy()
    visible.cells = [cell for cell in notebook.cells if not _is_plumbing(cell)]
    body, _ = _exporter().from_notebook_node(visible)
    return _template().render(
        title=title,
        nonce=secrets.token_urlsafe(16),
        body=body,
        code=code,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
        highlight=HtmlFormatter(style="friendly").get_style_defs(".highlight"),
        headings=headings,
    )


@cache
def _exporter() -> Any:
    """The body alone: the other templates load scripts from the network."""
    return _Body(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)


class _Equations(IPythonRenderer):
    """Markdown whose equations are drawings, where nbconvert leaves them to a script from the network."""

    def inline_math(self, body: str) -> str:
        return drawn(body)

    def block_math(self, body: str) -> str:
        return drawn(body, block=True)


class _Body(HTMLExporter):
    """The exporter of nbconvert, with :class:`_Equations`."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = _Equations(escape=False, attachments=attachments, anchor_link_text=self.anchor_link_text)
        html: str = MarkdownWithMath(renderer=renderer).render(source)
        return html


@cache
def _template() -> jinja2.Template:
    return jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE), autoescape=True).get_template("page.html.j2")


def _is_plumbing(cell: Any) -> bool:
    """Whether the cell holds the parameters, which are paths on the machine that wrote the page."""
    return bool({"parameters", "injected-parameters"} & set(cell.metadata.get("tags", ())))


def _headings(notebook: Any) -> list[tuple[str, str]]:
    """(anchor, text) of the second-level headings: the table of contents."""
    lines = [
        line[3:].strip()
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    return [(line.replace(" ", "-"), line) for line in lines]
