"""Every figure from made-up tables: nothing is cut or covered, and the bytes are the same again."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from helpers.figure_tables import figure_tables
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness.figures import FIGURES, Nothing, save_as

Tables = Mapping[str, pd.DataFrame]

#: What each figure shows; the others show one task and model.
TASKS = {
    "score_table": ("sst2", "boolq"),
    "score_vs_model_size": ("sst2",),
    "cost_by_model_size": ("sst2",),
    "estimated_memory": ("sst2",),
    "score_vs_examples": ("rte",),
    "examples_and_rank": ("rte",),
    "prefix_length": ("e2e_nlg",),
    "latency_vs_batch": ("xsum",),
    "decode_latency": ("xsum",),
    "answer_ratings": ("xsum",),
    "bitdelta_sizes": ("gsm8k",),
    "objective_ladder": ("hh",),
    "reward_vs_kl": ("hh",),
    "reward_accuracy": ("hh",),
}


@pytest.fixture(scope="module")
def everything() -> Tables:
    return figure_tables(seeds=2)


def tables_of(name: str, everything: Tables) -> Tables:
    """Few panels of the figure."""
    trials = everything["trials"]
    tasks = TASKS.get(name, ("sst2",))
    wanted = trials.task.isin(tasks) & ((trials.model == "base-1b") | (name in TASKS))
    return {**everything, "trials": trials[wanted].reset_index(drop=True)}


@dataclass(frozen=True)
class Drawn:
    """A figure and every text that is written in it."""

    figure: Figure
    texts: list[Text]


def draw(name: str, tables: Tables) -> Drawn | Nothing:
    """Draw, and note what the last layout wrote: ticks outside of the limits exist as well, and are not drawn."""
    written: dict[int, Text] = {}
    write, lay_out = Text.draw, Figure.draw_without_rendering

    def noted(text: Text, *args: Any, **kwargs: Any) -> None:
        written[id(text)] = text
        write(text, *args, **kwargs)

    def anew(figure: Figure) -> None:
        written.clear()
        lay_out(figure)

    with patch.object(Text, "draw", noted), patch.object(Figure, "draw_without_rendering", anew):
        figure = FIGURES[name](tables)
    if isinstance(figure, Nothing):
        return figure
    written |= {id(text): text for axes in figure.axes for text in axes.texts}  # those that wait for the layout
    return Drawn(figure, [text for text in written.values() if text.get_visible() and text.get_text().strip()])


def must_draw(name: str, tables: Tables) -> Drawn:
    drawn = draw(name, tables)
    assert isinstance(drawn, Drawn), drawn
    return drawn


def faults(drawn: Drawn) -> list[str]:
    """Texts that leave the figure, and pairs of texts that cover each other by more than a pixel each way."""
    boxes = [(text, Text.get_window_extent(text)) for text in drawn.texts]
    edge = drawn.figure.bbox
    cut = [
        f"cut off: {text.get_text()!r}"
        for text, box in boxes
        if box.x0 < -1 or box.y0 < -1 or box.x1 > edge.width + 1 or box.y1 > edge.height + 1
    ]
    covered = [
        f"{a.get_text()!r} covers {b.get_text()!r}"
        for (a, first), (b, second) in combinations(boxes, 2)
        if min(first.x1, second.x1) - max(first.x0, second.x0) > 1
        and min(first.y1, second.y1) - max(first.y0, second.y0) > 2
        and not are_parallel_and_apart(a, b, first.x1 - second.x1)
    ]
    return cut + covered


def are_parallel_and_apart(a: Text, b: Text, shift: float) -> bool:
    """Whether two texts stand aslant, side by side, with a line's height between them: their boxes do overlap."""
    slant = a.get_rotation()
    if slant != b.get_rotation() or slant % 90 == 0:
        return False
    figure: Any = a.get_figure(root=True)
    height = float(a.get_fontsize()) * figure.dpi / 72
    return bool(abs(shift) * math.sin(math.radians(slant)) >= height)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_or_covered(name: str, everything: Tables) -> None:
    first = must_draw(name, tables_of(name, everything))
    assert faults(first) == []
    assert all(axes.get_title(loc="left") for axes in first.figure.axes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["score_vs_params", "learning_rate_regret", "training_curves"])
def test_the_same_tables_give_the_same_bytes(name: str, everything: Tables, tmp_path: Path) -> None:
    figures = [must_draw(name, tables_of(name, everything)).figure for _ in range(2)]
    for kind in ("png", "svg"):
        one, other = (save_as(figure, tmp_path / str(n), name, kind, 40) for n, figure in enumerate(figures))
        assert one.read_bytes() == other.read_bytes(), kind


def odd(tables: Tables) -> Tables:
    """Long and strange names, negative scores with ties, one seed, and costs that half of the rows lack."""
    trials = tables["trials"]
    trials = trials[trials.seed == 0].reset_index(drop=True)
    names = {
        name: f"{name}_with_a_name_that_goes_on_and_on_$x^2$ <b>" for name in ("lora", "bitfit", "qlora", "prompt")
    }
    half = trials.index % 2 == 0
    changed = trials.assign(
        method=trials.method.replace(names),
        test_score=-0.5 + 0.1 * (trials.test_score > 0.7),
        valid_score=-0.5,
        base_score=np.nan,
        peak_train_bytes=trials.peak_train_bytes.where(half),
        chain_energy_j=np.nan,
    )
    return {**tables, "trials": changed}


#: Those with a way of drawing of their own.
ODD = [
    "score_by_method", "score_vs_params", "time_to_target", "score_by_bits",
    "forgetting_vs_score", "learning_rates", "learning_rate_regret", "training_curves", "memory_by_method",
    "estimated_memory", "training_speed", "storage_by_tasks", "reward_vs_kl", "reward_accuracy",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_odd_tables_draw_a_figure_without_faults_or_say_why_not(name: str, everything: Tables) -> None:
    drawn = draw(name, odd(tables_of(name, everything)))
    if isinstance(drawn, Drawn):
        assert faults(drawn) == []


def test_many_rows_leave_names_out_and_count_them(everything: Tables) -> None:
    trials = tables_of("score_vs_params", everything)["trials"]
    row = trials[(trials.method == "lora") & (trials.learning_rate == 5e-4)].head(1)
    noise = random.Random(1)  # noqa: S311
    many = pd.concat(
        [row.assign(trial_id=f"t{i}", method=f"method_{i}", test_score=0.5 + 0.01 * noise.random()) for i in range(60)],
        ignore_index=True,
    )
    drawn = must_draw("score_vs_params", {**everything, "trials": many})
    assert faults(drawn) == []
    written = [text.get_text() for text in drawn.texts]
    (left_out,) = [text for text in written if "have no room for a name" in text]
    assert int(left_out.split()[0]) + sum(re.fullmatch(r"method_\d+", text) is not None for text in written) == 60
