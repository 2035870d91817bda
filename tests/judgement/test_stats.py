"""Selection on validation, intervals with known answers, the Pareto front."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.fake_records import START, make_sweep
from helpers.scored_tables import Cell, scored
from helpers.trials_table import trials
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.execution import Execution
from harness.judgement import statistics as stats
from harness.judgement import verdicts
from harness.ledger.records import read_records
from harness.results import tables
from harness.results.record import Record
from harness.trial import PROTOCOL_VERSION, Budget, Trial


def aggregate(frame: pd.DataFrame) -> pd.DataFrame:
    return stats.aggregate({"trials": frame})


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
    assert aggregate(trials(*rows)).test_score.tolist() == [0.3, 0.5]


@pytest.mark.parametrize("frame", [trials(), trials({"status": "oom"}), trials({"status": "skipped"})])
def test_nothing_ended_well_gives_no_row(frame: pd.DataFrame) -> None:
    assert aggregate(frame).empty
    assert verdicts.beats_baseline({"trials": frame}).empty


def seeds_of(*scores: float, **columns: object) -> list[dict[str, object]]:
    usual = {"valid_score": 0.5, "test_stderr": 0.04, "test_examples": 101}
    return [{**usual, "seed": seed, "test_score": score, **columns} for seed, score in enumerate(scores)]


def test_without_scores_of_examples_an_interval_comes_from_standard_errors() -> None:
    # s²/n = 0.01 / 3, stderr² = 0.0016; t(2) = 4.302653, t(100) = 1.983972, weighted with the variances.
    variance = 0.01 / 3 + 0.0016
    half = (0.01 / 3 * 4.302653 + 0.0016 * 1.983972) / np.sqrt(variance)
    row = aggregate(trials(*seeds_of(0.4, 0.5, 0.6))).iloc[0]
    assert (row.ci_low, row.ci_high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    assert row.interval == "3 seeds and 101 examples, by standard errors"
    assert not row.has_examples


@pytest.mark.parametrize(
    ("rows", "basis"),
    [
        (seeds_of(0.4), "101 examples alone, of one seed, by standard errors"),
        (seeds_of(0.4, 0.5, test_stderr=None), "2 seeds alone; the error over the examples is not known"),
        (seeds_of(0.4, test_stderr=None), "none"),
        (seeds_of(1.0, 1.0, test_stderr=0.0), "none"),
    ],
)
def test_an_interval_says_what_it_covers(rows: list[dict[str, object]], basis: str) -> None:
    row = aggregate(trials(*rows)).iloc[0]
    assert row.interval == basis
    assert pd.isna(row.ci_low) == (basis == "none"), "no error that was seen is no certainty"


def test_a_row_with_every_answer_right_is_not_certain() -> None:
    (row,) = stats.aggregate(scored(Cell("lora", np.ones((3, 20))))).itertuples()
    assert (row.test_score, row.ci_high) == (1, 1) and row.ci_low == pytest.approx(0.05 ** (1 / 20))


def test_an_interval_stays_in_the_range_of_the_metric() -> None:
    row = aggregate(trials(*seeds_of(0.3, 0.9, primary_metric="accuracy"))).iloc[0]
    assert (row.ci_low, row.ci_high) == (0, 1)
    row = aggregate(trials(*seeds_of(0.3, 0.9, primary_metric="of_ones_own"))).iloc[0]
    assert row.ci_low < 0 and row.ci_high > 1


@pytest.mark.parametrize("column", ["objective_args", "method_args"])
def test_arguments_that_vary_are_rows_of_their_own(column: str) -> None:
    """Three losses of one seed are neither three seeds of one row nor one row that was chosen from three."""
    losses = [
        {column: f'{{"loss": "{name}"}}', "valid_score": v, "test_score": t, "test_stderr": 0.05}
        for name, v, t in (("sigmoid", 0.5, 0.41), ("ipo", 0.7, 0.6), ("hinge", 0.6, 0.62))
    ]
    found = aggregate(trials(*losses))
    assert found.test_score.tolist() == [0.41, 0.6, 0.62]
    assert found.seeds.tolist() == found.settings_tried.tolist() == [1, 1, 1]


def test_a_trial_that_did_not_run_still_counts_as_tried() -> None:
    rows = [
        {"requested_device": "auto", "valid_score": 0.5},
        {"requested_device": "auto", "device": "auto", "learning_rate": 1e-4, "status": "oom"},
    ]
    assert aggregate(trials(*rows)).settings_tried.tolist() == [2]


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
EXECUTIONS = [
    Execution(attention="eager"),
    Execution(packing=True),
    Execution(shared_prompts=True),
    Execution(loss="chunked"),
    Execution(gradient_checkpointing=True),
    Execution(accumulation=2),
    Execution(compile=True),
    Execution(optimizer="lion"),
]
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
    "method_version": st.text("bcd", min_size=1),
    "execution": st.sampled_from(EXECUTIONS),
}
BUDGETS: dict[str, st.SearchStrategy[object]] = {
    "train_examples": st.integers(257, 999),
    "batch_size": st.integers(9, 64),
    "epochs": st.integers(2, 9),
    "max_length": st.integers(129, 999),
    "eval_examples": st.none() | st.integers(51, 99),
    "max_new_tokens": st.none() | st.integers(9, 99),
    "probes": st.just(("retention",)),
    "latency_batches": st.sampled_from([(1, 4), (1, 16)]),
}


def test_every_field_of_a_trial_is_changed_below() -> None:
    # paths are where things lie: no part of what a trial is.
    assert set(CHANGES) == set(Trial.model_fields) - {"seed", "paths", "budget"}
    assert set(BUDGETS) == set(Budget.model_fields)
    assert {name for one in EXECUTIONS for name in one.asked} == set(Execution.model_fields)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CHANGES, *BUDGETS])
@settings(deadline=None, max_examples=7)
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
    assert aggregate(frame).seeds.tolist() in ([1], [1, 1])


@pytest.mark.parametrize("seed", [0, 1])
def test_seeds_are_counted_once_each(seed: int) -> None:
    usual = {"method_args": '{"r": 8}', "max_new_tokens": 8, "valid_score": 0.5, "test_score": 0.5}
    assert aggregate(trials(usual, {**usual, "seed": seed})).seeds.tolist() == [1 + seed]


def test_costs_are_medians_over_seeds_and_examples_are_counted_once() -> None:
    rows = [
        {"seed": seed, "valid_score": 0.5, "test_score": 0.5, "test_examples": 101, "train_s": seconds}
        for seed, seconds in enumerate((1.0, 2.0, 9.0))
    ]
    row = aggregate(trials(*rows)).iloc[0]
    assert (row.train_s, row.test_examples, row.seeds) == (2.0, 101, 3)


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
    found = stats.aggregate(tables.read(tmp_path))
    assert found.method.tolist() == ["baseline", "full", "lora"]
    assert found.settings_tried.tolist() == [1, 2, 2]
    assert (found.seeds == 3).all()
    assert ((found.ci_low <= found.test_score) & (found.test_score <= found.ci_high)).all()


def test_two_devices_that_one_name_led_to_are_two_rows() -> None:
    usual = {"requested_device": "auto", "test_score": 0.5, "valid_score": 0.5}
    frame = trials({**usual, "device": "cpu"}, {**usual, "device": "cuda:0", "seed": 1})
    assert aggregate(frame).seeds.tolist() == [1, 1]


def test_scores_of_a_row_are_means_over_its_seeds() -> None:
    by_seed = ((0.2, 0.1, 0.3), (0.4, 0.3, 0.4), (0.9, 0.5, 0.8))
    rows = [
        {"seed": seed, "test_score": 0.5, "valid_score": valid, "base_score": base, "majority_score": majority}
        for seed, (valid, base, majority) in enumerate(by_seed)
    ]
    row = stats.aggregate({"trials": trials(*rows)}).iloc[0]
    assert (row.valid_score, row.base_score, row.majority_score) == pytest.approx((0.5, 0.3, 0.5))


def test_standard_errors_of_seeds_are_averaged_as_variances() -> None:
    usual = {"valid_score": 0.5, "test_score": 0.5, "test_examples": 101}
    rows = [{"seed": seed, **usual, "test_stderr": error} for seed, error in enumerate((0.06, 0.02))]
    row = stats.aggregate({"trials": trials(*rows)}).iloc[0]
    assert row.test_stderr == pytest.approx(np.sqrt((0.06**2 + 0.02**2) / 2))
