"""Writes docs/gallery.md and its pictures: every figure, from real tables where there are any.

python docs/gallery.py

Each figure is drawn from the first of :data:`FOLDERS` whose tables support it, else from made-up tables, and then the
page says so.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.figure_tables import figure_tables  # noqa: E402

from harness.cli.figures import with_judgements  # noqa: E402
from harness.figures import DESCRIPTIONS, FIGURES, Nothing, save_as  # noqa: E402
from harness.figures.panels import title_of  # noqa: E402

PICTURES = ROOT / "docs" / "gallery"
#: Committed tables, those with more to say of a figure first.
FOLDERS = (
    "results/cpu/quick",
    "results/cpu/all_methods",
    "results/serving",
    "results/cpu/execution",
    "results/cpu/learning_rate",
    "results/cpu/rank_budget",
    "results/cpu/prefix_length",
)
DOTS = 80
"""Dots per inch: enough to read, and small files."""

HEAD = """# The figures

Every figure is drawn from the tables of a sweep, and its titles are computed from the numbers. One command draws all
that the tables support, and says why it leaves out the others:

    tunebench figures results/quick

A panel on a tinted ground shows published numbers, with the uncertainty that its source gives; `results/reference/`
says where each was read. They come from other models, data and machines, and stand there to compare shapes, not values.
Figures marked *made-up numbers* show what the figure looks like, and nothing that was measured.

This page is written by `python docs/gallery.py`.
"""


def main() -> None:
    """Write the page and the pictures."""
    real = {Path(folder): with_judgements(ROOT / folder) for folder in FOLDERS}
    everything = figure_tables()
    parts = [HEAD]
    for name, description in DESCRIPTIONS.items():
        for folder, tables in (*real.items(), (None, _made_up(everything, name))):
            drawn = FIGURES[name](tables)
            if not isinstance(drawn, Nothing):
                _shrink(save_as(drawn, PICTURES, name, "png", DOTS))
                parts.append(_section(name, description, folder, title_of(drawn)))
                break
        else:
            raise SystemExit(f"{name}: neither the folders nor the made-up tables support it")
    (ROOT / "docs" / "gallery.md").write_text("\n".join(parts), encoding="utf-8")


def _made_up(everything: Mapping[str, pd.DataFrame], name: str) -> Mapping[str, pd.DataFrame]:
    """The made-up tables with a few panels of the figure."""
    trials = everything["trials"]
    repeated = trials.task.isin(["sst2", "boolq"]) & (trials.model != "base-1b") & (name not in _BY_SIZE)
    return {**everything, "trials": trials[~repeated]}


_BY_SIZE = ("score_vs_model_size", "cost_by_model_size")


def _shrink(path: Path) -> None:
    """Fewer colours than a photograph has: a third of the bytes."""
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


def _section(name: str, description: str, folder: Path | None, finding: str) -> str:
    source = "*Made-up numbers.*" if folder is None else f"From the sweep `{folder.name}`."
    command = f"tunebench figures {folder.as_posix() if folder else 'results/<your sweep>'} --only {name}"
    return f"## {name}\n\n{description} {source}\n\n    {command}\n\n![{finding}](gallery/{name}.png)\n"


if __name__ == "__main__":
    main()
