"""Selection on validation, intervals with known answers, the Pareto front."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from harness.judgement.uncertainty import difference, mean
from helpers.fake_records import START, make_sweep
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.judgement import statistics as stats
from harness.ledger.records import read_records
from harness.results import tables
from harness.results.record import Record
from harness.results.schema import TRIALS
from harness.trial import PROTOCOL_VERSION, Budget, Trial


def trials(*rows: dict[str, object]) -> pd.DataFrame:
    """A trials table with sensible values for whatever a row leaves out."""
    usual = {
        "sweep": "s",
        "model": "m",
        "task": "t",
        "objective": "sft",
        "method": "lora",
        "notebook": "methods/lora",
        "method_args": "{}",
        "objective_args": "{}",
        "parent_settings": "{}",
        "epochs": 1,
        "device": "cpu",
        "requested_device": "cpu",
        "protocol_version": 1,
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


def interval(scores: list[float], stderr: float = np.nan, examples: float = np.nan) -> tuple[float, float, str]:
    found = mean(scores, [stderr] * len(scores), examples)
    return *found.bounds, found.basis


def test_seeds_and_examples_both_count() -> None:
    # s²/n = 0.01 / 3, stderr² = 0.0016; t(2) = 4.302653, t(499) = 1.964729, weighted with the variances.
    variance = 0.01 / 3 + 0.0016
    t = (0.01 / 3 * 4.302653 + 0.0016 * 1.964729) / variance
    low, high, basis = interval([0.4, 0.5, 0.6], 0.04, 500)
    assert (low, high) == pytest.approx((0.5 - t * np.sqrt(variance), 0.5 + t * np.sqrt(variance)), abs=1e-6)
    assert basis == "over 3 seeds and 500 test examples, Student's t"


def test_two_seeds_use_the_same_formula() -> None:
    low, high, basis = interval([0.4, 0.6], 0.0, 500)
    assert (low, high) == pytest.approx((0.5 - 12.706205 * 0.1, 0.5 + 12.706205 * 0.1))
    assert basis == "over 2 seeds and 500 test examples, Student's t"


def test_one_seed_knows_only_the_test_examples() -> None:
    low, high, basis = interval([0.5], 0.05, 26)
    assert (low, high) == pytest.approx((0.5 - 2.059539 * 0.05, 0.5 + 2.059539 * 0.05))
    assert basis == "over 26 test examples alone, Student's t"


def test_seeds_alone_say_so() -> None:
    low, high, basis = interval([0.1, 0.4, 0.5])
    half = 4.302653 * np.std([0.1, 0.4, 0.5], ddof=1) / np.sqrt(3)
    assert (low, high) == pytest.approx((1 / 3 - half, 1 / 3 + half))
    assert basis == "over 3 seeds, Student's t; the error over the test examples is not known"


@pytest.mark.parametrize("stderr", [np.nan, 0.0], ids=["unknown", "every example scored the same"])
def test_no_known_error_is_no_interval(stderr: float) -> None:
    low, high, basis = interval([0.5], stderr, 26)
    assert np.isnan([low, high]).all()
    assert basis == "none"


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("of_seeds", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(("of_examples", "noise"), [(0.3, 0.0), (0.3, 0.2), (0.1, 0.3)])
@pytest.mark.parametrize("examples", [71, 500])
def test_the_interval_covers_what_it_says(
    seeds: int, of_seeds: float, of_examples: float, noise: float, examples: int
) -> None:
    """Crossed effects: score of seed and example = mean + seed's effect + example's effect + noise."""
    random = np.random.default_rng(seeds)
    runs, hits = 1500, 0
    for _ in range(runs):
        table = random.normal(0, of_seeds, (seeds, 1)) + random.normal(0, of_examples, examples)
        table += random.normal(0, noise, table.shape)
        low, high = mean(table.mean(1), table.std(1, ddof=1) / np.sqrt(examples), examples).bounds
        hits += low <= 0 <= high
    # 95 % seen in 1,500 runs lies above 93.3 % in 998 of 1,000 repetitions.
    assert hits / runs >= 0.93


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("of_a", "of_b"), [(0.05, 0.05), (0.1, 0.0), (0.0, 0.0)])
def test_two_equal_methods_are_rarely_called_different(seeds: int, of_a: float, of_b: float) -> None:
    random = np.random.default_rng(seeds)
    runs, called = 1500, 0
    for _ in range(runs):
        shared = random.normal(0, 0.2, 200)
        means = []
        for of_seeds in (of_a, of_b):
            table = random.normal(0, of_seeds, (seeds, 1)) + shared + random.normal(0, 0.2, (seeds, 200))
            means.append(mean(table.mean(1), table.std(1, ddof=1) / np.sqrt(200), 200))
        apart = difference(*means)
        called += abs(apart.value) > apart.half_width
    assert called / runs <= 0.07


def test_a_difference_adds_the_errors_in_quadrature() -> None:
    a, b = mean([0.5, 0.6, 0.7], [0.03] * 3, 100), mean([0.3, 0.4, 0.5], [0.04] * 3, 100)
    found = difference(a, b)
    assert found.value == pytest.approx(0.2)
    assert found.stderr == pytest.approx(np.sqrt(2 * 0.01 / 3 + 0.0025))
    # Welch-Satterthwaite: 4 degrees of freedom over seeds; over examples 0.0025² / ((0.0009² + 0.0016²) / 99) = 183.6.
    seeds, examples = 2 * 0.01 / 3, 0.0025
    t = (seeds * 2.776445 + examples * 1.972983) / (seeds + examples)
    assert found.half_width == pytest.approx(t * found.stderr, rel=1e-4)
    assert not found.above_zero


BASE = {
    "method": "baseline",
    "learning_rate": None,
    "test_score": 0.3,
    "test_stderr": 0.03,
    "test_examples": 101,
}


def seeds_of(*scores: float, **columns: object) -> list[dict[str, object]]:
    usual = {"base_score": 0.3, "valid_score": 0.5, "test_stderr": 0.04, "test_examples": 101}
    return [{**usual, "seed": seed, "test_score": score, **columns} for seed, score in enumerate(scores)]


def test_beating_the_baseline_counts_seeds_examples_and_the_baselines_error() -> None:
    found = stats.beats_baseline(trials(BASE, *seeds_of(0.6, 0.7, 0.8))).iloc[0]
    assert found.difference == pytest.approx(0.4)
    assert found.difference_se == pytest.approx(np.sqrt(0.01 / 3 + 0.05**2))
    assert found.z == pytest.approx(0.4 / found.difference_se)
    assert found.basis == "over 3 seeds and 101 test examples, Student's t; the untrained model's error added"
    assert found.beats


def test_beating_the_baseline_needs_more_than_the_spread_over_seeds() -> None:
    # Seeds alone: 0.25 > 4.303 * 0.1 / sqrt(3) = 0.248; with the examples, 0.25 < 0.252.
    assert not stats.beats_baseline(trials(BASE, *seeds_of(0.4, 0.5, 0.6))).iloc[0].beats
    sure = seeds_of(0.45, 0.55, 0.65, test_stderr=0.0)
    assert stats.beats_baseline(trials({**BASE, "test_stderr": 0.0}, *sure)).iloc[0].beats
    assert not stats.beats_baseline(trials(BASE, *seeds_of(0.45, 0.55, 0.65))).iloc[0].beats


def test_one_seed_beats_nothing() -> None:
    lower = {"higher_is_better": False, "base_score": 0.5}
    rows = [{**BASE, "test_score": 0.5}, *seeds_of(0.1, **lower)]
    found = stats.beats_baseline(trials(*rows)).iloc[0]
    assert found.difference == pytest.approx(0.4), "positive is better, also where lower scores are"
    assert found.difference_se == pytest.approx(0.05)
    assert found.z == pytest.approx(8.0)
    assert pd.isna(found.beats)
    two = stats.beats_baseline(trials({**BASE, "test_score": 0.5}, *seeds_of(0.1, 0.1, **lower))).iloc[0]
    assert two.beats


@pytest.mark.parametrize(
    "other", [{"task_version": "2"}, {"eval_examples": 10}, {"model_revision": "r"}, {"method_args": '{"shots": 4}'}]
)
def test_the_error_of_another_baseline_is_not_taken(other: dict[str, object]) -> None:
    rows = [BASE, {**BASE, "test_stderr": 0.3, **other}, *seeds_of(0.6, 0.7, 0.8)]
    assert stats.beats_baseline(trials(*rows)).iloc[0].difference_se == pytest.approx(np.sqrt(0.01 / 3 + 0.05**2))


def test_three_losses_of_one_seed_are_one_seed() -> None:
    losses = [
        {"objective_args": f'{{"loss": "{name}"}}', "valid_score": v, "test_score": t, "test_stderr": 0.05}
        for name, v, t in (("sigmoid", 0.5, 0.41), ("ipo", 0.7, 0.6), ("hinge", 0.6, 0.62))
    ]
    found = stats.aggregate(trials(*losses))
    assert len(found) == 1
    assert found[["test_score", "seeds", "settings_tried"]].iloc[0].tolist() == [0.6, 1, 3]
    assert found.objective_args[0] == '{"loss": "ipo"}'


def test_a_trial_that_did_not_run_still_counts_as_tried() -> None:
    rows = [
        {"requested_device": "auto", "valid_score": 0.5},
        {"requested_device": "auto", "device": "auto", "learning_rate": 1e-4, "status": "oom"},
    ]
    assert stats.aggregate(trials(*rows)).settings_tried.tolist() == [2]


SPEC = Trial(
    notebook="methods/lora",
    method="lora",
    method_args={"r": 8},
    objective="dpo",
    objective_args={"beta": 0.1},
    model="m",
    task="t",
    seed=0,
    learning_rate=1e-3,
    budget=Budget(max_new_tokens=8, eval_examples=50),
    device="cpu",
    parents={"sft": "0123456789ab"},
    model_revision="a",
    task_version="1",
)
CHANGES: dict[str, st.SearchStrategy[object]] = {
    "notebook": st.sampled_from(["methods/x", "objectives/y"]),
    "method": st.sampled_from(["full", "baseline"]),
    "method_args": st.dictionaries(st.sampled_from(["r", "alpha"]), st.integers(9, 64), min_size=1),
    "objective": st.sampled_from(["sft", "kto"]),
    "objective_args": st.dictionaries(st.sampled_from(["beta", "loss"]), st.floats(0.2, 1), max_size=2),
    "model": st.just("n"),
    "task": st.just("u"),
    "learning_rate": st.none() | st.floats(1e-6, 9e-4),
    "dtype": st.sampled_from(["bfloat16", "float16"]),
    "device": st.sampled_from(["auto", "cuda", "cuda:1"]),
    "parents": st.dictionaries(st.just("sft"), st.tuples(st.text("0123456789abcdef", min_size=11, max_size=11))),
    "protocol_version": st.integers(PROTOCOL_VERSION + 1, 99),
    "model_revision": st.none() | st.text("bcd", min_size=1),
    "task_version": st.none() | st.sampled_from(["2", "1+abc"]),
}
BUDGETS: dict[str, st.SearchStrategy[object]] = {
    "train_examples": st.integers(257, 999),
    "batch_size": st.integers(9, 64),
    "epochs": st.integers(2, 9),
    "max_length": st.integers(129, 999),
    "eval_examples": st.none() | st.integers(51, 99),
    "max_new_tokens": st.none() | st.integers(9, 99),
}


def test_every_field_of_a_trial_is_changed_below() -> None:
    # paths are where things lie: no part of what a trial is.
    assert set(CHANGES) == set(Trial.model_fields) - {"seed", "paths", "budget"}
    assert set(BUDGETS) == set(Budget.model_fields)


@pytest.mark.parametrize("name", [*CHANGES, *BUDGETS])
@settings(deadline=None, max_examples=5)
@given(st.data(), st.integers(0, 1))
def test_trials_that_differ_in_one_field_are_never_two_seeds_of_one(name: str, data: st.DataObject, seed: int) -> None:
    if name in BUDGETS:
        change = {"budget": SPEC.budget.model_copy(update={name: data.draw(BUDGETS[name])})}
    else:
        change = {name: data.draw(CHANGES[name])}
    other = SPEC.model_copy(update={**change, "seed": seed})
    rows = []
    for trial in (SPEC, other):
        record = Record(trial_id=trial.trial_id, sweep="s", trial=trial, status="ok", started_at=START)
        # Whatever was asked for, this is where both ran.
        rows.append({**tables._row(record), "device": "cpu", "test_score": 0.5, "valid_score": 0.5})
    frame = trials(*rows)
    assert stats.aggregate(frame).seeds.tolist() in ([1], [1, 1])


@pytest.mark.parametrize("seed", [0, 1])
def test_seeds_are_counted_once_each(seed: int) -> None:
    usual = {"method_args": '{"r": 8}', "max_new_tokens": 8, "valid_score": 0.5, "test_score": 0.5}
    assert stats.aggregate(trials(usual, {**usual, "seed": seed})).seeds.tolist() == [1 + seed]


def test_costs_are_medians_over_seeds_and_examples_are_counted_once() -> None:
    rows = [
        {"seed": seed, "valid_score": 0.5, "test_score": 0.5, "test_examples": 101, "train_s": seconds}
        for seed, seconds in enumerate((1.0, 2.0, 9.0))
    ]
    row = stats.aggregate(trials(*rows)).iloc[0]
    assert (row.train_s, row.test_examples, row.seeds) == (2.0, 101, 3)


def test_the_error_of_a_baseline_that_failed_is_not_taken() -> None:
    broken = {**BASE, "status": "failed", "test_stderr": 0.3, "seed": 1}
    frame = trials(BASE, broken, *seeds_of(0.6, 0.7, 0.8))
    assert stats.beats_baseline(frame).iloc[0].difference_se == pytest.approx(np.sqrt(0.01 / 3 + 0.05**2))


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
    tables.write(read_records(tmp_path), tmp_path)
    found = stats.aggregate(tables.read(tmp_path)["trials"])
    assert found.method.tolist() == ["baseline", "full", "lora"]
    assert found.settings_tried.tolist() == [1, 2, 2]
    assert (found.seeds == 3).all()
    assert ((found.ci_low <= found.test_score) & (found.test_score <= found.ci_high)).all()


def test_two_devices_that_one_name_led_to_are_two_rows() -> None:
    usual = {"requested_device": "auto", "test_score": 0.5, "valid_score": 0.5}
    frame = trials({**usual, "device": "cpu"}, {**usual, "device": "cuda:0", "seed": 1})
    assert stats.aggregate(frame).seeds.tolist() == [1, 1]
