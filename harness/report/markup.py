"""Text of others in Markdown and LaTeX: escaped, in one line, so that it shows as it is and steers nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness import plain


def markdown(text: object) -> str:
    """``text`` within a line of Markdown, or a cell of a table: no markup, no links, no HTML, no mention."""
    escaped = re.sub(r"([\\`*_\[\]|~>])", r"\\\1", plain.line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace("@", "&#64;")


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[str] = ()) -> str:
    """A table of finished cells; the columns ``numbers`` stand to the right."""
    right = set(numbers)
    lines = [heads, ["---:" if head in right else "---" for head in heads], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": r"$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "µ": r"\textmu{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def latex(text: object) -> str:
    """``text`` as LaTeX sets it, with T1 fonts and UTF-8."""
    return "".join(_LATEX.get(sign, sign) for sign in plain.line(text))


def latex_table(heads: Sequence[str], rows: Iterable[Sequence[str]], columns: str) -> str:
    """A ``tabular`` of finished cells between the rules of booktabs."""
    lines = [r"\toprule", " & ".join(heads) + r" \\", r"\midrule", *(" & ".join(row) + r" \\" for row in rows)]
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", *lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
