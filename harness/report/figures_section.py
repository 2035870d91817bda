"""Several figures in one section of the report."""

from __future__ import annotations

from pathlib import Path

from harness.figures import FIGURES, Nothing
from harness.report.sections import Html, escape, figure
from harness.results.files import Tables


def figures(tables: Tables, out_dir: str | Path, *names: str) -> Html:
    """The figures of that name, as :func:`harness.report.sections.figure` shows each; what shows nothing is left out.

    Where all of them are left out, the section gives the reason of the first.
    """
    text = "".join(figure(name, tables, out_dir).text for name in names)
    if text:
        return Html(text)
    first = FIGURES[names[0]](tables)
    return Html(f"<p>Nothing to show because {escape(first.reason)}.</p>" if isinstance(first, Nothing) else "")
