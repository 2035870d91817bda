"""Equations on pages are drawings: whole, in the colour of the text, and from nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from harness import notebooks
from harness.report.equations import drawn
from harness.report.page import render_trial

TEX = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)


def cells() -> list[str]:
    """The texts of all notebooks."""
    paths = sorted(notebooks.root().rglob("*.ipynb"))
    return [
        str(cell.source)
        for path in paths
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
    ]


@pytest.mark.slow
def test_every_equation_of_the_notebooks_is_drawn() -> None:
    equations = [(match[1] or match[2], bool(match[1])) for text in cells() for match in TEX.finditer(text)]
    assert len(equations) > 100
    assert [tex for tex, block in equations if "<code>" in drawn(tex, block)] == []


def test_an_equation_has_its_size_its_words_and_the_colour_around_it() -> None:
    svg = drawn("x_1 < y")
    assert 'aria-label="x_1 &lt; y"' in svg and 'fill="currentColor"' in svg
    found = re.search(r"width:([\d.]+)em;height:([\d.]+)em;vertical-align:-([\d.]+)em", svg)
    assert found is not None
    width, height, depth = map(float, found.groups())
    assert 1.5 < width < 4 and 0.5 < height < 1.2 and 0.1 < depth < 0.5, "an index goes below the line"
    numbers = [float(one) for one in re.findall(r"-?\d+\.\d", svg.partition(' d="')[2])]
    xs, ys = numbers[::2], numbers[1::2]
    assert min(xs) >= -5 and max(xs) <= 100 * width + 5, "but for the slant of a letter, nothing is cut"
    assert min(ys) >= -2 and max(ys) <= 100 * height + 2


@pytest.mark.parametrize(
    ("tex", "same"),
    [
        (r"\big(a\Big)", "(a)"),
        (r"\lVert a \rVert", r"\Vert a \Vert"),
        (r"a \le b", r"a \leq b"),
        (r"\left(a\right)", "(a)"),
        (r"\underbrace{a_{1}}_{\text{b}}", r"\underset{\text{b}}{a_{1}}"),
        (r"\underbrace{a}", "a"),
    ],
)
def test_what_mathtext_lacks_is_set_as_what_it_has(tex: str, same: str) -> None:
    path = re.compile(r' d="([^"]*)"')
    (one,), (other,) = path.findall(drawn(tex)), path.findall(drawn(same))
    assert one == other


def test_what_cannot_be_set_stays_as_its_source() -> None:
    assert drawn(r"\undefined{<b>}") == r"<code>$\undefined{&lt;b&gt;}$</code>"
    assert drawn("{", block=True) == "<code>$${$$</code>"


def test_the_page_of_a_notebook_holds_no_tex_and_loads_nothing(tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook()
    text = "Learn $B A$ of rank $r$:\n\n$$h = W_0\\,x + \\frac{\\alpha}{r}\\,B A\\,x$$\n\nIt costs \\$5; `$x$` is code."
    book.cells = [nbformat.v4.new_markdown_cell(text)]
    nbformat.write(book, path := tmp_path / "notebook.ipynb")
    page = render_trial(path, "one")
    assert page is not None
    body = page.partition("<main>")[2].partition("</main>")[0]
    assert body.count("<svg") == 3 and body.count('<span class="equation">') == 1
    assert "$h" not in body and "<code>$x$</code>" in body
    assert re.findall(r'(?:src|href)="(?!#|\.\./)[^"]*"', body) == []
