"""Figures: right findings, legible labels, and a reason where there is nothing to show."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers.fake_records import make_sweep
from helpers.trials_table import trials
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness.figures import DESCRIPTIONS, FIGURES, Nothing, save
from harness.figures.decode_latency import finding as latency_finding
from harness.figures.findings import answer, caution, cheapest_good, standings
from harness.figures.labels import beside_points, spread
from harness.figures.panels import Tables, title_of
from harness.figures.style import (
    _KNOWN,
    bytes_text,
    count_text,
    look,
    percent_text,
    rate_text,
    seconds_text,
)
from harness.judgement.labels import labelled
from harness.ledger.records import read_records
from harness.results import tables
from harness.results.baseline import SAME_QUESTIONS


def sweep(folder: Path, **kwargs: object) -> Tables:
    make_sweep(folder, **kwargs)
    tables.write(read_records(folder), folder)
    return tables.read(folder)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("several")
    return sweep(folder, n_methods=7, curve_steps=8, tasks=["trec_class", "factual_summary"])


#: The figures with a panel per task and model that a sweep without a series supports.
OF_ANY_SWEEP = [
    "score_by_method", "score_vs_params", "score_vs_memory", "score_vs_time", "memory_by_method", "training_speed",
    "decode_latency", "training_curves", "learning_rates", "time_to_target", "storage_by_tasks",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_ANY_SWEEP)
def test_a_panel_per_task_each_with_a_finding_and_labelled_axes(name: str, several: Tables) -> None:
    figure = FIGURES[name](several)
    assert isinstance(figure, Figure)
    ours = [axes for axes in figure.axes if axes.get_facecolor() == (1, 1, 1, 1)]
    assert len(ours) == 2
    for axes in ours:
        assert axes.get_title(loc="left")
        assert axes.get_xlabel()


@pytest.mark.slow
def test_saved_as_png_and_svg_without_references(several: Tables, tmp_path: Path) -> None:
    drawn: Any = FIGURES["memory_by_method"](several)
    png, svg = save(drawn, tmp_path, "memory_by_method")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<image" not in svg.read_text()


STRANGE = "a_$x^{2}$ $\\frac$ \x1b[2J\u202e <b>"
WRITTEN = "a_$x^{2}$ $\\frac$ \\u001b[2J\\u202e <b>"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["score_by_method", "score_vs_time", "training_curves"])
def test_names_are_text_and_no_mathematics(name: str, several: Tables) -> None:
    trials = several["trials"]
    frame = trials[trials.task == trials.task[0]].assign(task=STRANGE, model="$5 or $6")
    drawn: Any = FIGURES[name]({**several, "trials": frame})
    svg = io.StringIO()
    drawn.savefig(svg, format="svg")  # raises for mathematics that makes no sense
    ElementTree.fromstring(svg.getvalue())  # noqa: S314 - our own file
    texts = [text for text in drawn.findobj(Text) if text.get_text()]
    assert any(f"{WRITTEN} · $5 or $6" in text.get_text() for text in texts)
    for text in texts:
        assert not text.get_parse_math()
        assert "mathdefault" not in text.get_text()


def test_rates_that_were_tried_on_one_seed_are_compared_on_it() -> None:
    """The chosen rate of a search is the best on the first seed, whatever it scores on the others."""
    tried = [{"learning_rate": rate, "valid_score": score} for rate, score in ((1e-4, 0.6), (1e-3, 0.8), (1e-2, 0.7))]
    later = [{"learning_rate": 1e-3, "seed": seed, "valid_score": 0.1} for seed in (1, 2)]
    usual = {"primary_metric": "accuracy", "model": "m", "task": "t"}
    drawn: Any = FIGURES["learning_rates"]({"trials": trials(*({**usual, **row} for row in tried + later))})
    assert np.asarray(drawn.axes[0].lines[0].get_ydata()).tolist() == [0.6, 0.8, 0.7]
    assert title_of(drawn) == "Every method’s best learning rate lies inside the range that was tried"


def test_a_rate_that_diverged_was_tried_and_a_single_rate_has_no_range() -> None:
    usual = {"primary_metric": "accuracy", "model": "m", "task": "t"}
    rates = [{"learning_rate": rate, "valid_score": score} for rate, score in ((1e-4, 0.6), (1e-3, 0.8))]
    beyond = {"learning_rate": 1e-2, "valid_score": None, "status": "diverged", "device": "auto"}
    skipped = {"learning_rate": 1e-1, "valid_score": None, "status": "skipped", "device": "auto"}
    alone = {"method": "head", "learning_rate": 1.0, "valid_score": 0.5}
    at_edge, inside = (
        FIGURES["learning_rates"]({"trials": trials(*({**usual, **row} for row in rows))})
        for rows in ([*rates, alone, skipped], [*rates, alone, beyond])
    )
    assert title_of(at_edge).startswith("1 of 1 methods are best at the edge")
    said = "Of the one method with several rates, the best learning rate lies inside the range that was tried"
    assert title_of(inside) == said


@pytest.mark.slow
def test_ticks_of_learning_rates_are_rates(several: Tables) -> None:
    drawn: Any = FIGURES["learning_rates"](several)
    drawn.draw_without_rendering()
    shown = [text.get_text() for axes in drawn.axes for text in axes.get_xticklabels(which="both") if text.get_text()]
    assert {"1e-4", "1e-3"} <= set(shown)
    assert all(re.fullmatch(r"[1-9]e-\d", text) for text in shown)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["score_vs_params", "score_vs_time"])
def test_labels_do_not_cover_each_other(name: str, several: Tables) -> None:
    drawn: Any = FIGURES[name](several)
    for axes in drawn.axes:
        methods = set(several["trials"].method)
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text() in methods]
        assert len(boxes) == 6
        assert not [1 for a, b in combinations(boxes, 2) if a.overlaps(b)]


@pytest.mark.slow
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
            measured = [
                "test_score",
                "valid_score",
                "peak_train_bytes",
                "train_tokens_per_s",
                "weights_bytes",
                "checkpoint_bytes",
            ]
            poor = {key: frame.iloc[:0] for key, frame in several.items()}
            poor["trials"] = everything.assign(**dict.fromkeys(measured, np.nan))
    drawn = FIGURES[name](poor)
    if sort == "one method" and not isinstance(drawn, Nothing):
        assert "lora" in title_of(drawn) or "best at the edge" in title_of(drawn)
        return
    assert isinstance(drawn, Nothing)
    expected = {
        "all failed": f"no trial ended well ({len(everything)} oom)",
        "nothing ran": "the sweep has no trial that ended",
    }
    said = drawn.reason
    if name not in ALONE:
        assert said == expected.get(sort, said)
    assert said and said[0].islower() and not said.endswith(".")


#: These ask first for a table that a plain sweep does not have.
ALONE = {"latency_vs_tenants", "throughput_vs_tenants", "execution_factors", "execution_memory"}


def chosen(**columns: list[object]) -> pd.DataFrame:
    """Labelled rows as of ``aggregate``: 3 seeds, 100 test examples, standard errors of 0.01 each."""
    size = len(columns["method"])
    usual = {
        **{name: [None] * size for name in SAME_QUESTIONS},
        "task": ["t"] * size,
        "model": ["m"] * size,
        "objective": ["sft"] * size,
        "method_args": ["{}"] * size,
        "objective_args": ["{}"] * size,
        "trial_ids": [(str(place),) for place in range(size)],
        "has_examples": [False] * size,
        "primary_metric": ["rouge_l"] * size,
        "majority_score": [np.nan] * size,
        "seeds": [3] * size,
        "seed_stderr": [0.01] * size,
        "test_stderr": [0.01] * size,
        "test_examples": [100] * size,
        "test_score": [0.5] * size,
        "ci_low": [np.nan] * size,
        "ci_high": [np.nan] * size,
        "base_score": [0.2] * size,
        "higher_is_better": [True] * size,
        "trainable_params": [1.0] * size,
        "peak_train_bytes": [np.nan] * size,
        "chain_train_s": [np.nan] * size,
    }
    return labelled(pd.DataFrame({**usual, **columns}))


NO_TABLES = {"trials": pd.DataFrame(columns=["trial_id", "primary_metric", "test_score", "seed"])}


def standing(frame: pd.DataFrame) -> str:
    """The standing of rows of which only means and standard errors are known."""
    return standings(frame, NO_TABLES)


def brief(frame: pd.DataFrame) -> list[str]:
    (said,) = answer(frame, NO_TABLES).values()
    return said


def one_seed(**columns: list[object]) -> pd.DataFrame:
    size = len(columns["method"])
    return chosen(**{"seeds": [1] * size, "seed_stderr": [np.nan] * size, **columns})


def test_training_time_is_that_of_the_whole_chain() -> None:
    """BitDelta's own 26 s come on top of the 100 s of the fine-tune that it compresses."""
    frame = chosen(method=["full", "bitdelta"], chain_train_s=[100.0, 126.0], train_s=[100.0, 26.0])
    assert "full scores 0.500, and no method needs less training time" in brief(frame)


def test_the_finding_gives_the_scores_of_the_cheapest_good_method_and_of_full() -> None:
    frame = chosen(
        method=["full", "lora", "adapter", "prompt"],
        test_score=[0.80, 0.79, 0.80, 0.50],
        ci_low=[0.76, 0.75, 0.74, 0.46],
        ci_high=[0.84, 0.83, 0.86, 0.54],
        trainable_params=[1000.0, 7.0, 20.0, 1.0],
    )
    found = cheapest_good(frame, "trainable_params", "parameters")
    assert found == (
        "lora scores 0.790 [0.750, 0.830] with 0.7 % of full’s parameters; full scores 0.800 [0.760, 0.840]"
    )


@pytest.mark.parametrize(
    ("scores", "base", "higher", "finding"),
    [
        ([0.8, 0.5], 0.2, True, "full scores 0.800; of those with less cost, lora scores highest: 0.500"),
        ([0.8, 0.9], 0.2, True, "lora scores 0.900 with 1 % of full’s cost; full scores 0.800"),
        ([0.100, 0.102], 0.9, False, "lora scores 0.102 with 1 % of full’s cost; full scores 0.100"),
        ([0.100, 0.150], np.nan, False, "full scores 0.100; of those with less cost, lora scores lowest: 0.150"),
        ([-0.5, -0.9], np.nan, True, "full scores -0.500; of those with less cost, lora scores highest: -0.900"),
        ([-0.5, -0.5], np.nan, True, "lora scores -0.500 with 1 % of full’s cost; full scores -0.500"),
        ([0.2, 0.19], 0.3, True, "full scores 0.200; of those with less cost, lora scores highest: 0.190"),
    ],
)
def test_the_finding_says_what_the_scores_say(scores: list[float], base: float, higher: bool, finding: str) -> None:
    frame = chosen(
        method=["full", "lora"],
        test_score=scores,
        base_score=[base] * 2,
        higher_is_better=[higher] * 2,
        trainable_params=[100.0, 1.0],
    )
    assert cheapest_good(frame, "trainable_params", "cost") == finding


def test_a_share_of_a_cost_has_no_more_digits_than_a_measurement() -> None:
    frame = chosen(method=["full", "bitfit"], trainable_params=[10_000.0, 9_991.0])
    found = cheapest_good(frame, "trainable_params", "peak memory")
    assert found == "bitfit scores 0.500 with more than 99 % of full’s peak memory; full scores 0.500"
    equal = chosen(method=["full", "bitfit"], trainable_params=[5.0, 5.0])
    assert cheapest_good(equal, "trainable_params", "cost") == "full scores 0.500, and no method needs less cost"
    said = cheapest_good(equal, "trainable_params", "trainable parameters")
    assert said.endswith("no method needs fewer trainable parameters")


def test_better_is_what_the_difference_says_and_not_overlap() -> None:
    # Intervals half as wide again as the difference of b's mean: they overlap, and a is better all the same.
    frame = chosen(
        method=["a", "b", "c"],
        test_score=[0.90, 0.84, 0.5],
        seed_stderr=[0.001] * 3,
        test_stderr=[0.015] * 3,
        ci_low=[0.86, 0.80, 0.46],
        ci_high=[0.94, 0.88, 0.54],
    )
    assert standing(frame) == "a scores best: 0.900 [0.860, 0.940], better than both others"
    frame["seed_stderr"] = 0.02
    assert standing(frame) == (
        "a has the highest score, 0.900 [0.860, 0.940], better than c, but is not shown to be better than b"
    )


def test_one_seed_is_never_better() -> None:
    said = "a has the highest score, 0.900, but is not shown to be better than b (one seed)"
    assert standing(one_seed(method=["a", "b"], test_score=[0.9, 0.1])) == said
    mixed = chosen(method=["a", "b"], test_score=[0.9, 0.1], seeds=[3, 1], seed_stderr=[0.01, np.nan])
    assert standing(mixed) == said
    untrained = chosen(method=["a", "baseline"], test_score=[0.9, 0.1], seeds=[3, 1], seed_stderr=[0.01, np.nan])
    assert standing(untrained) == "a scores best: 0.900, better than the other"


@pytest.mark.parametrize(
    ("columns", "finding"),
    [
        (
            {"test_score": [0.5, 0.5]},
            "a has the highest score, 0.500, which another has too, but is not shown to be better than b",
        ),
        (
            {"test_score": [0.5, 0.5], "seed_stderr": [1e-4] * 2, "test_stderr": [1e-3] * 2},
            "a has the highest score, 0.500, which another has too, and is equivalent to b (apart by less than 0.01)",
        ),
        ({"test_score": [0.1, 0.9], "higher_is_better": [False] * 2}, "a scores best: 0.100, better than the other"),
        ({"test_score": [-0.1, -0.9]}, "a scores best: -0.100, better than the other"),
        (
            {"test_score": [0.9, 0.1], "seed_stderr": [0.0] * 2, "test_stderr": [np.nan] * 2},
            "a has the highest score, 0.900, but is not shown to be better than b",
        ),
        (
            {"test_score": [0.9, 0.1], "task_version": ["1", "2"]},
            "a scores 0.900; b scores 0.100",
        ),
        (
            {"test_score": [0.9, 0.1], "objective": ["reward", "dpo"]},
            "reward model a scores 0.900; b scores 0.100",
        ),
    ],
    ids=["a tie", "equivalent", "lower is better", "negative", "no known error", "other questions", "a reward model"],
)
def test_the_standing_of_odd_tables(columns: dict[str, list[object]], finding: str) -> None:
    assert standing(chosen(method=["a", "b"], **columns)) == finding


def test_the_answer_warns_of_one_seed_first() -> None:
    said = "ran on one seed, which says nothing about the spread between runs:"
    assert caution(chosen(method=["full", "baseline"], seeds=[3, 1])) is None
    assert caution(one_seed(method=["full", "lora", "baseline"])) == f"Every method {said} none is called better"
    assert caution(chosen(method=["full", "lora"], seeds=[3, 1])) == f"lora {said} it is not called better or worse"
    several = caution(chosen(method=["full", "lora", "head"], seeds=[3, 1, 1]))
    assert several == f"lora and head {said} none of these is called better or worse"
    two = chosen(method=["full", "lora"], seeds=[3, 1], task=["t", "u"])
    assert caution(two) == f"lora on u · m {said} it is not called better or worse"


def test_the_answer_gives_the_untrained_model_as_it_was_measured() -> None:
    frame = chosen(method=["full", "lora"], base_score=[0.2, 0.25])
    assert "the untrained model scores 0.200 to 0.250" in brief(frame)
    frame = chosen(method=["full", "lora"], base_score=[np.nan] * 2)
    assert "the untrained model was not scored, so no gain is known" in brief(frame)


def test_the_answer_tells_when_every_method_is_below_the_untrained_model() -> None:
    frame = chosen(method=["baseline", "full", "lora"], test_score=[0.5, 0.3, 0.49], seeds=[1, 3, 3])
    assert brief(frame)[0] == (
        "baseline has the highest score, 0.500, better than full, but is not shown to be better than lora"
    )
    assert (
        "the untrained model scores 0.500; every trained method scores below it; worse than it: full; "
        "not told apart from it: lora"
    ) in brief(frame)


def test_untrained_models_stand_beside_the_trained_ones_and_few_shot_is_named() -> None:
    frame = chosen(
        method=["baseline", "baseline", "quantized", "lora"],
        method_args=['{"shots": 0}', '{"shots": 4}', "{}", "{}"],
        test_score=[0.2, 0.5, 0.3, 0.4],
        seeds=[1, 3, 1, 3],
        trainable_params=[0.0, 0.0, 0.0, 5.0],
    )
    said = brief(frame)
    assert said[0] == "baseline, shots 4 scores best: 0.500, better than all 3 others"
    assert any("the untrained model scores 0.200; better than it: lora" in one for one in said)
    assert caution(frame) is None, "what does not train has no spread between runs"


def test_a_name_beside_a_point_covers_no_text_that_stands_there_already() -> None:
    figure, axes = plt.subplots()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    first = axes.text(5.1, 5, "first name here", va="center")
    figure.canvas.draw()
    beside_points(axes, [5], [5], ["second"])
    second = axes.texts[-1]
    assert second.get_text() == "second"
    assert not first.get_window_extent().overlaps(second.get_window_extent())
    plt.close(figure)


def test_labels_with_commas_are_told_apart_in_a_list() -> None:
    frame = chosen(method=["lora"] * 2 + ["head"], method_args=['{"r": 4}', '{"r": 8}', "{}"])
    assert standing(frame) == (
        "lora, r 4 has the highest score, 0.500, which 2 others have too, but is not shown to be better than "
        "lora, r 8; and head"
    )


def test_an_impossible_difference_is_not_named() -> None:
    frame = chosen(method=["full", "lora"], seeds=[2, 2], seed_stderr=[0.3] * 2, test_score=[0.52, 0.5])
    assert any("no possible difference would have been seen" in one for one in brief(frame))


def test_what_some_pairs_could_have_shown_is_not_denied_for_others() -> None:
    """Of three pairs, that of full and lora could show a difference; those with the unsteady one could not."""
    columns = {"test_score": [0.52, 0.51, 0.50], "seeds": [2] * 3}
    frame = chosen(method=["full", "lora", "bitfit"], seed_stderr=[0.001, 0.001, 0.9], **columns)
    (said,) = [one for one in brief(frame) if "undecided" in one]
    assert said.startswith("3 of 3 pairs are undecided; 1 of these would have shown a possible one, from 0.")
    frame = chosen(method=["full", "lora", "bitfit"], seed_stderr=[0.001] * 3, **columns)
    (said,) = [one for one in brief(frame) if "undecided" in one]
    assert said.startswith("3 of 3 pairs are undecided; at least half of these would have shown a difference of 0.")


def test_a_cost_that_is_not_known_is_none_that_is_lower() -> None:
    columns = {"test_score": [0.6, 0.5, 0.4], "peak_train_bytes": [3e9, np.nan, 5e9]}
    said = brief(chosen(method=["full", "lora", "bitfit"], **columns))
    assert any(one.endswith("and of the 2 of 3 methods whose peak memory can be compared none needs less peak memory")
               for one in said), said  # fmt: skip


def test_what_one_label_for_every_example_gets_is_said() -> None:
    columns = {"test_score": [0.6, 0.7], "ci_low": [0.55, 0.65], "ci_high": [0.65, 0.75], "majority_score": [0.6] * 2}
    said = "a model that reads nothing scores 0.600; the interval of {} lies above that"
    assert said.format("lora") in brief(chosen(method=["full", "lora"], **columns))
    columns["ci_low"] = [0.55, 0.59]
    assert said.format("no trained method") in brief(chosen(method=["full", "lora"], **columns))


def test_the_answer_says_what_could_have_been_seen_and_what_would_decide() -> None:
    frame = chosen(method=["full", "lora"], test_score=[0.52, 0.5], seed_stderr=[0.001] * 2)
    (said,) = [one for one in brief(frame) if "undecided" in one]
    # Half-width of the pair: t of about 198 degrees of freedom times 0.0141, and 0.84 times as much for the power.
    assert "the pair is undecided; a difference of 0.0" in said
    assert "(full and lora, 0.020 apart)" in said and "test examples" in said
    assert any(one.startswith("scores of single examples are missing of full and lora") for one in brief(frame))


def times(**columns: list[object]) -> pd.DataFrame:
    """Rows of the figure of latency, full fine-tuning and the untrained model with the same network."""
    size = len(columns["method"])
    usual = {
        "variant": ["plain"] * size,
        "dtype": ["float32"] * size,
        "device": ["cpu"] * size,
        "total_params": [100 + (name not in ("baseline", "full")) for name in columns["method"]],
        "weights_bytes": [400.0] * size,
    }
    frame = labelled(pd.DataFrame({**usual, **columns}))
    return frame if "high" in columns else frame.assign(high=1.1 * frame.value)


@pytest.mark.parametrize(
    ("columns", "finding"),
    [
        (
            {"method": ["baseline", "full"], "value": [0.010, 0.1129]},
            "These times do not show which is faster: the same network took 10 ms to 113 ms per token",
        ),
        (
            {"method": ["baseline", "full"], "value": [0.010, 0.012]},
            "All answer with the untrained model’s network: 10 ms to 12 ms per token",
        ),
        (
            {"method": ["baseline", "lora"], "value": [0.010, 0.011], "variant": ["plain", "merged"]},
            "All answer with the untrained model’s network: 10 ms to 11 ms per token",
        ),
        (
            {"method": ["baseline", "lora"], "value": [0.010, 0.020], "high": [0.011, 0.041]},
            "These times do not show which is faster: the 95th percentile of lora, 41 ms, is more than twice its "
            "median, 20 ms",
        ),
        (
            {"method": ["baseline", "full", "lora"], "value": [0.010, 0.012, 0.020]},
            "lora takes longest, 20 ms per token; the untrained model takes 10 ms",
        ),
        (
            {"method": ["baseline", "full", "lora"], "value": [0.0100, 0.0119, 0.0117]},
            "No added time stands out from the untrained model’s own spread: 10 ms to 11.9 ms per token",
        ),
        (
            {"method": ["full", "lora"], "value": [0.010, 0.020]},
            "From 10 ms (full) to 20 ms (lora) per token",
        ),
        (
            {"method": ["baseline", "quantised"], "value": [0.01, 0.03], "total_params": [100] * 2,
             "weights_bytes": [400.0, 110.0]},
            "quantised takes longest, 30 ms per token; the untrained model takes 10 ms",
        ),
    ],
)  # fmt: skip
def test_times_say_no_more_than_was_measured(columns: dict[str, list[object]], finding: str) -> None:
    assert latency_finding(times(**columns), "token").replace("lora, merged", "lora") == finding


def test_labels_say_what_tells_rows_apart() -> None:
    frame = pd.DataFrame({"method": ["full", "lora", "lora"], "objective": ["sft"] * 3, "train_examples": [8, 8, 64]})
    assert labelled(frame).label.tolist() == ["full, 8 examples", "lora, 8 examples", "lora, 64 examples"]


def test_a_notebook_is_told_only_where_the_objective_does_not_tell_it() -> None:
    of_sft, of_dpo = ("methods/lora", "sft"), ("objectives/dpo", "dpo")
    for places, expected in (
        ([of_sft, of_dpo], ["lora, sft", "lora, dpo"]),
        ([of_sft, ("mine/lora", "sft")], ["lora, methods/lora", "lora, mine/lora"]),
    ):
        notebooks, objectives = zip(*places, strict=True)
        frame = pd.DataFrame({"method": "lora", "notebook": notebooks, "objective": objectives})
        assert labelled(frame).label.tolist() == expected


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
