"""Equations as drawings inside the page: no script and no font is loaded from elsewhere.

Matplotlib's mathtext sets what it knows of TeX; its glyphs become the path of an SVG in the colour of the text around
it. An equation that it cannot set stays as its source.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextToPath

#: Units of a drawing per em of the text around it.
_EM = 100.0

#: What the notebooks use and mathtext lacks, as what it has. Brackets keep their usual size.
_KNOWN = (
    (re.compile(r"\\(?:big|Big|bigg|Bigg)[lrm]?(?![a-zA-Z])\s*"), ""),
    (re.compile(r"\\[lr]Vert(?![a-zA-Z])"), r"\\Vert "),
    (re.compile(r"\\[lr]vert(?![a-zA-Z])"), r"\\vert "),
    (re.compile(r"\\le(?![a-zA-Z])"), r"\\leq "),
    (re.compile(r"\\ge(?![a-zA-Z])"), r"\\geq "),
    (re.compile(r"\s+"), " "),
)

_COMMANDS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}


@cache
def drawn(tex: str, block: bool = False) -> str:
    """An equation, without its dollar signs, as inline SVG; ``block`` gives it a line of its own.

    Where mathtext cannot set it, the source as code.
    """
    try:
        vertices, codes, (width, height, depth) = _outlines(_adapted(tex.strip()))
    except (ValueError, RuntimeError):  # mathtext's words for what it does not know
        dollars = "$$" if block else "$"
        return f"<code>{escape(dollars + tex + dollars)}</code>"
    path = _path(vertices, codes, height)
    size = f"width:{width / _EM:.3f}em;height:{(height + depth) / _EM:.3f}em;vertical-align:{-depth / _EM:.3f}em"
    svg = (
        f'<svg class="equation" role="img" aria-label="{escape(tex.strip())}" style="{size}" '
        f'viewBox="0 0 {width:.0f} {height + depth:.0f}"><path fill="currentColor" d="{path}"/></svg>'
    )
    return f'<span class="equation">{svg}</span>' if block else svg


def _adapted(tex: str) -> str:
    for pattern, instead in _KNOWN:
        tex = pattern.sub(instead, tex)
    return _without_braces_below(tex)


def _without_braces_below(tex: str) -> str:
    r"""``\underbrace{a}_{b}`` as ``\underset{b}{a}``, from the inside out."""
    while (start := tex.rfind(r"\underbrace{")) >= 0:
        inner, rest = _group(tex[start + len(r"\underbrace") :])
        below, rest = _group(rest[1:]) if rest.startswith("_{") else ("", rest)
        annotated = rf"\underset{{{below}}}{{{inner}}}" if below else f"{{{inner}}}"
        tex = tex[:start] + annotated + rest
    return tex


def _group(tex: str) -> tuple[str, str]:
    """What stands in the braces with which ``tex`` begins, and what follows them."""
    depth = 0
    for place, letter in enumerate(tex):
        depth += (letter == "{") - (letter == "}")
        if depth == 0:
            return tex[1:place], tex[place + 1 :]
    raise ValueError(f"a brace is not closed: {tex}")


def _outlines(tex: str) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """The outlines of the glyphs with their codes, and width, height above and depth below the line."""
    font = FontProperties(size=_EM, math_fontfamily="stix")
    setter = TextToPath()
    scale = _EM / setter.FONT_SCALE
    vertices, codes = setter.get_text_path(font, f"${tex}$", ismath=True)
    width, height, depth = setter.get_text_width_height_descent(f"${tex}$", font, ismath=True)
    return np.asarray(vertices) * scale, np.asarray(codes), (width, height - depth, depth)


def _path(vertices: np.ndarray, codes: np.ndarray, height: float) -> str:
    """The path of an SVG, whose vertical axis points down."""
    parts = []
    for points, code in Path(vertices, codes).iter_segments(simplify=False, curves=True):
        flat = points.reshape(-1, 2) if code != Path.CLOSEPOLY else np.empty((0, 2))
        parts.append(_COMMANDS[code] + " ".join(f"{x:.1f} {height - y:.1f}" for x, y in flat))
    return "".join(parts)
