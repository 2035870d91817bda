"""Figures: right findings, legible labels, and a reason where there is nothing to show."""

from __future__ import annotations

import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_records import make_sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.figures import DESCRIPTIONS, FIGURES, save
from harness.figures.findings import cheapest_good, standing
from harness.figures.labels import spread
from harness.figures.panels import Tables, labelled, title_of
from harness.figures.style import (
    _KNOWN,
    bytes_text,
    count_text,
    look,
    percent_text,
    rate_text,
    seconds_text,
)
from harness.results import tables


def sweep(folder: Path, **kwargs: object) -> Tables:
    make_sweep(folder, **kwargs)
    tables.write(folder)
    return tables.read(folder)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("several")
    return sweep(folder, n_methods=7, curve_steps=8, tasks=["trec_class", "factual_summary"])


@pytest.mark.parametrize("name", FIGURES)
def test_a_panel_per_task_each_with_a_finding_and_labelled_axes(name: str, several: Tables) -> None:
    figure = FIGURES[name](several)
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert axes.get_title(loc="left")
        assert axes.get_xlabel()


def test_saved_as_png_and_svg_without_references(several: Tables, tmp_path: Path) -> None:
    png, svg = save(FIGURES["memory_by_method"](several), tmp_path, "memory_by_method")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<image" not in svg.read_text()


@pytest.mark.parametrize("name", ["score_vs_params", "score_vs_time"])
def test_labels_do_not_cover_each_other(name: str, several: Tables) -> None:
    for axes in FIGURES[name](several).axes:
        methods = set(several["trials"].method)
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text() in methods]
        assert len(boxes) == 6
        assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("sort", ["one method", "all failed", "nothing ran", "nothing measured"])
def test_poor_sweeps_give_a_reason_and_no_crash(name: str, sort: str, several: Tables) -> None:
    poor = dict(several)
    everything = several["trials"]
    match sort:
        case "one method":
            poor["trials"] = everything[everything.method == "lora"]
        case "all failed":
            poor["trials"] = everything.assign(status="oom")
        case "nothing ran":
            poor = {key: frame.iloc[:0] for key, frame in several.items()}
        case "nothing measured":
            measured = ["test_score", "valid_score", "peak_train_bytes", "train_tokens_per_s", "weights_bytes"]
            poor = {key: frame.iloc[:0] for key, frame in several.items()}
            poor["trials"] = everything.assign(**dict.fromkeys(measured, np.nan))
    said = title_of(FIGURES[name](poor))
    expected = {
        "one method": "lora",
        "all failed": f"no trial ended well ({len(everything)} oom)",
        "nothing ran": "no trial that ended",
        "nothing measured": "Nothing to show because",
    }
    if sort == "one method" and name == "learning_rates":
        assert "best at the edge" in said
    else:
        assert expected[sort] in said


def chosen(**columns: list[object]) -> pd.DataFrame:
    size = len(columns["method"])
    usual = {
        "test_score": [0.5] * size,
        "ci_low": [np.nan] * size,
        "ci_high": [np.nan] * size,
        "base_score": [0.2] * size,
        "higher_is_better": [True] * size,
        "trainable_params": [1.0] * size,
    }
    return labelled(pd.DataFrame({**usual, **columns}))


def test_the_finding_names_the_cheapest_good_method() -> None:
    frame = chosen(
        method=["full", "lora", "adapter", "prompt"],
        test_score=[0.80, 0.79, 0.80, 0.50],
        trainable_params=[1000.0, 7.0, 20.0, 1.0],
    )
    found = cheapest_good(frame, "trainable_params", "parameters")
    assert found == "lora reaches 99 % of full’s score with 0.7 % of its parameters"


@pytest.mark.parametrize(
    ("scores", "higher", "finding"),
    [
        ([0.8, 0.5], True, "full reaches 0.800; no method with less cost keeps 95 % of its gain"),
        ([0.8, 0.9], True, "lora matches full with 1 % of its cost"),
        ([0.100, 0.102], False, "lora comes close to full (0.102 against 0.100) with 1 % of its cost"),
        ([0.100, 0.150], False, "full reaches 0.100; no method with less cost keeps 95 % of its gain"),
    ],
)
def test_the_finding_says_what_the_scores_say(scores: list[float], higher: bool, finding: str) -> None:
    frame = chosen(
        method=["full", "lora"],
        test_score=scores,
        base_score=[0.2 if higher else 0.9] * 2,
        higher_is_better=[higher] * 2,
        trainable_params=[100.0, 1.0],
    )
    if not higher and scores[1] == 0.150:
        frame["base_score"] = np.nan
    assert cheapest_good(frame, "trainable_params", "cost") == finding


def test_the_best_is_not_ahead_of_those_within_its_interval() -> None:
    frame = chosen(
        method=["a", "b", "c"], test_score=[0.9, 0.88, 0.5], ci_low=[0.85, 0.84, 0.4], ci_high=[0.95, 0.9, 0.6]
    )
    assert standing(frame) == "a scores best: 0.900, not clearly ahead of b"
    assert standing(frame[frame.method != "b"]) == "a scores best: 0.900"


def test_labels_say_what_tells_rows_apart() -> None:
    frame = pd.DataFrame({"method": ["full", "lora", "lora"], "objective": ["sft"] * 3, "train_examples": [8, 8, 64]})
    assert labelled(frame).label.tolist() == ["full, 8 examples", "lora, 8 examples", "lora, 64 examples"]


def test_known_methods_look_different_and_every_name_has_a_fixed_look() -> None:
    assert len(set(_KNOWN.values())) == len(_KNOWN)
    assert look("some_new_method") == look("some_new_method")


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=10))
def test_spread_keeps_order_distance_and_bounds(wanted: list[float]) -> None:
    placed = spread(sorted(wanted), 10.0, 0.0, 100.0)
    assert all(b - a >= 10.0 - 1e-6 for a, b in pairwise(placed))
    assert min(placed) >= -1e-6
    assert max(placed) <= 100 + 1e-6


def test_spread_moves_nothing_that_has_room() -> None:
    assert spread([10.0, 30.0, 60.0], 10.0, 0.0, 100.0) == [10.0, 30.0, 60.0]
    assert spread([50.0, 50.0], 10.0, 0.0, 100.0) == [45.0, 55.0]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (bytes_text(0), "0 B"),
        (bytes_text(1_234_000_000), "1.23 GB"),
        (bytes_text(999.9e6), "1 GB"),
        (count_text(134_515_008), "135M"),
        (count_text(65_285_660_672), "65.3B"),
        (count_text(999), "999"),
        (seconds_text(0.0123), "12.3 ms"),
        (seconds_text(754), "12.6 min"),
        (percent_text(0.0068), "0.68 %"),
        (percent_text(0.997), "99.70 %"),
        (percent_text(1.0), "100 %"),
        (rate_text(0.0005), "5e-4"),
        (rate_text(0.00025), "2.5e-4"),
    ],
)
def test_numbers_carry_units(said: str, expected: str) -> None:
    assert said == expected


def test_every_figure_is_described_and_matplotlib_waits_for_the_first() -> None:
    assert list(FIGURES) == list(DESCRIPTIONS)
    code = "import sys, harness.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
