"""The figures of the execution study: each way in its row with its factor, nothing where nothing was measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.figure_tables import figure_tables
from matplotlib.figure import Figure

from harness.figures import FIGURES, Nothing
from harness.results.schema import TABLES


def ways(*rows: dict[str, Any]) -> dict[str, pd.DataFrame]:
    usual = {"trial_id": "t", "model": "m", "method": "lora", "repeat": 0, "disturbed": False}
    columns = [column.name for column in TABLES["ways"].columns]
    return {"ways": pd.DataFrame([{**usual, **row} for row in rows], columns=columns)}


def way(name: str, speed: float | None, kept: float | None = 1.0, **columns: Any) -> dict[str, Any]:
    return {"way": name, "tokens_per_s": speed, "activations_bytes": kept, **columns}


BASELINE = way("baseline", 100.0, 200.0, added=0)


def drawn(name: str, tables: dict[str, pd.DataFrame]) -> Figure:
    figure = FIGURES[name](tables)
    assert isinstance(figure, Figure), figure
    return figure


@pytest.mark.parametrize("repeats", [1, 3])
def test_rows_are_the_ways_from_top_to_bottom_with_their_factors(repeats: int) -> None:
    rows = [
        {**row, "tokens_per_s": row["tokens_per_s"] * (1 + repeat * step), "repeat": repeat}
        for repeat in range(repeats)
        for row, step in (
            (BASELINE, 0.0),
            (way("+ packing", 75.0, added=1), 0.1),
            (way("+ accumulation 2", 50.0, added=2), 0.0),
            (way("all without packing", 125.0, without="packing"), 0.1),
        )
    ]
    ours, theirs = drawn("execution_factors", ways(*rows)).axes
    names = {tick: text.get_text() for tick, text in zip(ours.get_yticks(), ours.get_yticklabels(), strict=True)}
    assert [names[tick] for tick in sorted(names, reverse=True)] == [
        "baseline", "+ packing", "+ accumulation 2", "all without packing",
    ]  # fmt: skip
    shown = {text.get_position()[1]: text.get_text() for text in ours.texts if text.get_text().count(".") == 1}
    first = {"1": ["1.00", "0.75", "0.50", "1.25"], "3": ["1.00", "0.82", "0.50", "1.37"]}[str(repeats)]
    assert [shown[tick] for tick in sorted(names, reverse=True)] == first
    intervals = [line for line in ours.lines if line.get_linewidth() == 6]
    assert len(intervals) == (0 if repeats == 1 else 4)
    assert [float(np.ptp(np.asarray(line.get_xdata()))) > 0 for line in intervals] in ([], [False, True, False, True])
    assert "published, not measured here" in " ".join(text.get_text() for text in theirs.texts)
    assert "liger" in [text.get_text() for text in theirs.get_yticklabels()]


def test_a_factor_is_never_taken_where_the_baseline_is_missing() -> None:
    none = FIGURES["execution_factors"](ways(way("baseline", None, added=0), way("+ packing", 75.0, added=1)))
    assert isinstance(none, Nothing) and none.reason == "no way but the usual one was active"
    for name in ("execution_factors", "execution_memory"):
        empty = FIGURES[name]({})
        assert isinstance(empty, Nothing) and empty.reason == "no execution study is among these tables"


def test_memory_and_speed_are_those_of_the_baseline() -> None:
    rows = [BASELINE, way("+ checkpointing", 50.0, 50.0, added=1), way("+ flash", None, None, added=2)]
    (axes,) = drawn("execution_memory", ways(*rows)).axes
    line = next(one for one in axes.lines if one.get_marker() == "o")
    assert np.asarray(line.get_xdata()).tolist() == [1.0, 0.5]
    assert np.asarray(line.get_ydata()).tolist() == [1.0, 0.25]
    assert "‘+ checkpointing’ keeps 25 %" in axes.get_title(loc="left").replace("\n", " ")


def test_no_way_keeps_less_and_the_figure_says_so() -> None:
    (axes,) = drawn("execution_memory", ways(BASELINE, way("+ packing", 50.0, 300.0, added=1))).axes
    assert axes.get_title(loc="left") == "No way keeps fewer activations than the baseline"


def test_a_busy_machine_is_said_beside_the_numbers() -> None:
    rows = [{**BASELINE, "disturbed": True}, way("+ packing", 75.0, added=1)]
    ours = drawn("execution_factors", ways(*rows)).axes[0]
    said = " ".join(" ".join(text.get_text().split()) for text in ours.texts)
    assert "others used the machine in 1 of 2 runs, in turn" in said


def test_the_factors_are_those_of_the_tables() -> None:
    tables = figure_tables(seeds=1)
    ours = drawn("execution_factors", {"ways": tables["ways"]}).axes[0]
    point = [line for line in ours.lines if line.get_marker() == "o"][1]
    speeds = tables["ways"].pivot_table(index="repeat", columns="way", values="tokens_per_s")
    by_hand = math.exp(np.log(speeds["+ packing"] / speeds["baseline"]).mean())
    assert float(np.asarray(point.get_xdata())[0]) == pytest.approx(by_hand)
