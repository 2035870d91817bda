"""Selection on validation, intervals with known answers, the Pareto front."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_records import make_sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.results import stats, tables
from harness.results.schema import TRIALS


def trials(*rows: dict[str, object]) -> pd.DataFrame:
    """A trials table with sensible values for whatever a row leaves out."""
    usual = {
        "sweep": "s",
        "model": "m",
        "task": "t",
        "objective": "sft",
        "method": "lora",
        "method_args": "{}",
        "dtype": "float32",
        "learning_rate": 1e-3,
        "train_examples": 8,
        "batch_size": 8,
        "max_length": 64,
        "status": "ok",
        "seed": 0,
        "higher_is_better": True,
    }
    frame = pd.DataFrame([{**usual, **row} for row in rows], columns=[c.name for c in TRIALS.columns])
    floats = {c.name: "float64" for c in TRIALS.columns if c.kind == "float"}
    return frame.astype({**floats, "higher_is_better": "boolean"})


def test_the_setting_is_chosen_on_validation_whatever_the_test_says() -> None:
    found = stats.select(
        trials(
            {"trial_id": "a", "learning_rate": 1e-3, "valid_score": 0.8, "test_score": 0.1},
            {"trial_id": "b", "learning_rate": 1e-4, "valid_score": 0.7, "test_score": 0.9},
        )
    )
    assert found.trial_id.tolist() == ["a"]
    assert found.settings_tried.tolist() == [2]


def test_lower_is_better_turns_the_choice_round() -> None:
    rows = [{"trial_id": i, "learning_rate": lr, "valid_score": v, "higher_is_better": False} for i, lr, v in
            (("a", 1e-3, 0.8), ("b", 1e-4, 0.7))]  # fmt: skip
    assert stats.select(trials(*rows)).trial_id.tolist() == ["b"]


def test_a_setting_that_fails_on_a_seed_does_not_win_by_the_others() -> None:
    found = stats.select(
        trials(
            {"trial_id": "a0", "learning_rate": 1.0, "seed": 0, "valid_score": 0.9},
            {"trial_id": "a1", "learning_rate": 1.0, "seed": 1, "status": "diverged"},
            {"trial_id": "b0", "learning_rate": 0.1, "seed": 0, "valid_score": 0.5},
            {"trial_id": "b1", "learning_rate": 0.1, "seed": 1, "valid_score": 0.5},
        )
    )
    assert found.trial_id.tolist() == ["b0", "b1"]


def test_settings_that_failed_count_as_tried_and_skipped_ones_do_not() -> None:
    found = stats.select(
        trials(
            {"trial_id": "a", "learning_rate": 1e-3, "valid_score": 0.8},
            {"trial_id": "b", "learning_rate": 1e-1, "status": "diverged"},
            {"trial_id": "c", "learning_rate": 1e-9, "status": "skipped"},
        )
    )
    assert found.settings_tried.tolist() == [2]


def test_few_shot_stands_beside_zero_shot() -> None:
    rows = [
        {
            "method": "baseline",
            "learning_rate": None,
            "method_args": f'{{"shots": {n}}}',
            "valid_score": v,
            "test_score": v,
        }
        for n, v in ((0, 0.3), (4, 0.5))
    ]
    assert stats.aggregate(trials(*rows)).test_score.tolist() == [0.3, 0.5]


@pytest.mark.parametrize("frame", [trials(), trials({"status": "oom"}), trials({"status": "skipped"})])
def test_nothing_ended_well_gives_no_row(frame: pd.DataFrame) -> None:
    assert stats.aggregate(frame).empty
    assert stats.beats_baseline(frame).empty


def test_three_seeds_are_bootstrapped_between_their_extremes() -> None:
    # Of the 27 resamples of three values, one has the mean of thrice the least: 3.7 % > 2.5 %, so the bounds are
    # the extremes themselves.
    low, high, basis = stats.interval(pd.Series([0.1, 0.4, 0.5]), pd.Series([0.2, 0.2, 0.2]))
    assert (low, high) == pytest.approx((0.1, 0.5))
    assert basis == "bootstrap over 3 seeds"


def test_many_seeds_give_the_normal_interval_of_the_mean() -> None:
    scores = np.random.default_rng(1).normal(0.5, 0.1, 400)
    low, high, _ = stats.interval(pd.Series(scores), pd.Series(np.full(400, np.nan)))
    half = 1.96 * scores.std() / 20
    assert (low, high) == pytest.approx((scores.mean() - half, scores.mean() + half), abs=1e-3)


@pytest.mark.parametrize("scores", [[0.5], [0.4, 0.6], [0.5, 0.5, 0.5]], ids=["one", "two", "three equal"])
def test_seeds_that_say_nothing_leave_the_error_over_examples(scores: list[float]) -> None:
    low, high, basis = stats.interval(pd.Series(scores), pd.Series([0.05] * len(scores)))
    assert (low, high) == pytest.approx((0.5 - 0.098, 0.5 + 0.098), abs=1e-4)
    assert basis == "normal over test examples"


def test_an_unknown_interval_is_null() -> None:
    low, high, basis = stats.interval(pd.Series([0.5]), pd.Series([np.nan]))
    assert np.isnan([low, high]).all()
    assert basis == "none"


def test_the_bootstrap_is_the_same_every_time() -> None:
    scores, errors = pd.Series([0.1, 0.2, 0.4, 0.3]), pd.Series([np.nan] * 4)
    assert stats.interval(scores, errors) == stats.interval(scores, errors)


def test_beating_the_baseline_is_paired_over_seeds() -> None:
    rows = [{"seed": s, "test_score": t, "base_score": 0.3, "valid_score": 0.5} for s, t in enumerate((0.5, 0.6, 0.7))]
    found = stats.beats_baseline(trials(*rows)).iloc[0]
    assert found.difference == pytest.approx(0.3)
    assert found.difference_se == pytest.approx(0.1 / np.sqrt(3))
    assert found.basis == "paired over 3 seeds"
    assert found.beats  # 0.3 > 4.303 * 0.0577


def test_beating_the_baseline_needs_more_than_noise() -> None:
    rows = [{"seed": s, "test_score": t, "base_score": 0.3, "valid_score": 0.5} for s, t in enumerate((0.2, 0.4, 0.6))]
    assert not stats.beats_baseline(trials(*rows)).iloc[0].beats


def test_one_seed_is_compared_by_the_errors_over_examples() -> None:
    found = stats.beats_baseline(
        trials(
            {"method": "baseline", "learning_rate": None, "test_score": 0.5, "test_stderr": 0.03},
            {"test_score": 0.4, "base_score": 0.5, "test_stderr": 0.04, "higher_is_better": False},
        )
    ).iloc[0]
    assert found.difference == pytest.approx(0.1), "positive is better, also where lower scores are"
    assert found.difference_se == pytest.approx(0.05)
    assert found.z == pytest.approx(2.0)
    assert found.beats


def test_nothing_to_compare_with_is_unknown() -> None:
    assert pd.isna(stats.beats_baseline(trials({"test_score": 0.5})).iloc[0].beats)


POINTS = st.lists(st.tuples(*[st.none() | st.integers(0, 5)] * 2), max_size=25)


def dominates(a: tuple[float, float], b: tuple[float, float], sign: float) -> bool:
    """Whether ``a`` is at least as cheap and good as ``b``, and better in one."""
    return a[0] <= b[0] and sign * a[1] >= sign * b[1] and a != b


@settings(deadline=None)
@given(POINTS, st.booleans())
def test_the_pareto_front_is_what_nothing_dominates(points: list[tuple[int | None, int | None]], higher: bool) -> None:
    frame = pd.DataFrame(points, columns=["cost", "score"], dtype="float64")
    front = stats.pareto(frame, "cost", "score", higher)
    known = [(c, s) for c, s in points if c is not None and s is not None]
    sign = 1.0 if higher else -1.0
    for point, on_front in zip(points, front, strict=True):
        complete = None not in point
        assert on_front == (complete and not any(dominates(other, point, sign) for other in known))


def test_aggregate_of_a_whole_sweep(tmp_path: Path) -> None:
    make_sweep(tmp_path, n_methods=4, endings={"qlora": "oom"})
    tables.write(tmp_path)
    found = stats.aggregate(tables.read(tmp_path)["trials"])
    assert found.method.tolist() == ["baseline", "full", "lora"]
    assert found.settings_tried.tolist() == [1, 2, 2]
    assert (found.seeds == 3).all()
    assert ((found.ci_low <= found.test_score) & (found.test_score <= found.ci_high)).all()
