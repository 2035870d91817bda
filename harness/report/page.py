"""An executed notebook as one HTML page, with its style sheet and images inside and nothing from elsewhere."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import jinja2
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

_HERE = Path(__file__).parent


def render(notebook: Any, title: str = "TuneBench report") -> str:
    """The HTML page of an executed notebook (an ``nbformat`` node). Code stays hidden until the reader asks for it."""
    exporter = HTMLExporter(
        template_name="basic",  # the body alone: the other templates load scripts from the network
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    visible = notebook.copy()
    visible.cells = [cell for cell in notebook.cells if not _is_plumbing(cell)]
    body, _ = exporter.from_notebook_node(visible)
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE), autoescape=True)
    return environment.get_template("page.html.j2").render(
        title=title,
        nonce=secrets.token_urlsafe(16),
        body=body,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        highlight=HtmlFormatter(style="friendly").get_style_defs(".highlight"),
        headings=_headings(notebook),
    )


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
