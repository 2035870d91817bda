"""Published numbers beside our own: in panels of their own, with their own uncertainty.

The numbers are those of ``results/reference/``; its README says where each was read, and how surely.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from harness.figures.style import MUTED, Look, look

#: Source, as in the files -> how a panel names it.
CITED = {
    "biderman2024lora": "Biderman et al. 2024",
    "chen2023punica": "Chen et al. 2023",
    "dettmers2023qlora": "Dettmers et al. 2023",
    "hu2021lora": "Hu et al. 2021",
    "lester2021prompt": "Lester et al. 2021",
    "li2021prefix": "Li & Liang 2021",
    "liu2024bitdelta": "Liu et al. 2024",
    "ouyang2022instructgpt": "Ouyang et al. 2022",
    "rafailov2023dpo": "Rafailov et al. 2023",
    "sheng2023slora": "Sheng et al. 2023",
    "soup_h100": "Soup, issues 78 and 378",
    "tinker_sft_sweep": "Thinking Machines 2025",
    "yuan2023rrhf": "Yuan et al. 2023",
    "zaken2021bitfit": "Ben Zaken et al. 2021",
    "zhao2023survey": "Zhao et al. 2023",
}

_FILES = Path(__file__).resolve().parents[1] / "assets" / "reference"
_CHECKOUT = Path(__file__).resolve().parents[2] / "results" / "reference"


def folder() -> Path:
    """The files: those of the checkout, or those in the wheel."""
    return _FILES if _FILES.is_dir() else _CHECKOUT


@cache
def _file(name: str) -> pd.DataFrame:
    return pd.read_csv(folder() / f"{name}.csv")


def read(name: str, **equal: str) -> pd.DataFrame:
    """The rows of ``name``.csv that have these values, with ``error``: the source's own spread, or that of reading it.

    ``error`` is the column ``std`` where the source gives one, and else what the note says of a digitised value
    ('+-0.3', or '+-4 %' of it); NaN where neither is known.
    """
    frame = _file(name)
    for column, value in equal.items():
        frame = frame[frame[column] == value]
    read_off = frame.note.astype("string").str.extract(r"\+-\s*([\d.]+)(\s*%)?")
    size = read_off[0].str.rstrip(".").astype(float)
    size = size.where(read_off[1].isna(), size / 100 * frame.value)
    return frame.assign(error=frame["std"].fillna(size) if "std" in frame else size).reset_index(drop=True)


def where(frame: pd.DataFrame, what: str) -> str:
    """The line under the finding of a panel: what it shows, and of which source."""
    return f"{what} ({CITED[frame.source.iloc[0]]})"


def look_like(method: str) -> Look:
    """The look of the method that the first words of ``method`` name, such as lora for 'lora_r16'; else grey."""
    words = method.split("_")
    for count in range(len(words), 0, -1):
        name = _ALSO.get(name := "_".join(words[:count]), name)
        if name in _LOOKED_UP:
            return look(name)
    return Look(MUTED, "o")


_ALSO = {"model": "full", "naive": "full", "infix": "p_tuning", "embedding": "prompt", "s": "lora", "base": "baseline"}
_LOOKED_UP = ("full", "lora", "qlora", "bitfit", "adapter", "prompt", "prefix", "bitdelta", "p_tuning", "baseline")


def bars(axes: Axes, xs: pd.Series, ys: pd.Series, errors: pd.Series, horizontal: bool = False) -> None:
    """The uncertainty of published values, where it is known."""
    known = errors.notna()
    wide, tall = (errors[known], None) if horizontal else (None, errors[known])
    axes.errorbar(xs[known], ys[known], tall, wide, fmt="none", ecolor=MUTED, elinewidth=1, capsize=2.5, zorder=2.5)
