"""The regression gate: quiet on two runs of the same code, and it catches what got worse."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.runs import METHODS, run
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.judgement import changes
from harness.judgement.changes import Change
from harness.judgement.gate import Check, Gate, Outcome, _with_its_own_say, gate
from harness.judgement.intervals import Interval, Part
from harness.judgement.tolerances import COSTS, NAMES, SCORE


def failing(answer: Gate) -> list[tuple[str, str, str]]:
    """(method, quantity, outcome) of what makes the gate fail."""
    assert answer.passes == (not answer.of(Outcome.REGRESSED, Outcome.DISAPPEARED))
    return [
        (answer.cells.method[check.cell], check.quantity, check.outcome.value)
        for check in answer.of(Outcome.REGRESSED, Outcome.DISAPPEARED)
    ]


def only(answer: Gate, method: str, quantity: str) -> Check:
    (check,) = [
        check for check in answer.checks if (answer.cells.method[check.cell], check.quantity) == (method, quantity)
    ]
    return check


@pytest.mark.slow
def test_it_is_quiet_on_two_runs_of_the_same_code() -> None:
    runs = [run(seed, METHODS[:2], examples=20) for seed in range(21)]
    pairs = list(combinations(runs, 2))[:200]
    assert len(pairs) == 200
    alarms = [failing(gate(*pair)) for pair in pairs]
    assert sum(map(bool, alarms)) <= 10, alarms


def test_a_row_from_before_there_was_an_argument_has_its_usual_value() -> None:
    """LoRA's rank is 8 where a notebook says nothing else."""

    def ranked(arguments: str) -> dict[str, pd.DataFrame]:
        tables = run(1)
        lora = tables["trials"].method == "lora"
        tables["trials"].loc[lora, ["notebook", "method_args"]] = "methods/lora", arguments
        return tables

    before, after = ranked('{"alpha": 99}'), ranked('{"alpha": 99, "r": 8}')
    for answer in (gate(before, after), gate(after, before)):
        assert not failing(answer)
        assert set(answer.cells.method_args[answer.cells.method == "lora"]) == {'{"alpha": 99, "r": 8}'}
    assert ("lora", "ending", "disappeared") in failing(gate(before, ranked('{"alpha": 99, "r": 4}')))
    assert ("lora", "ending", "disappeared") in failing(gate(before, ranked('{"alpha": 99, "unheard_of": 1}')))


def test_the_same_tables_differ_in_nothing() -> None:
    tables = run(1)
    answer = gate(tables, tables)
    assert answer.passes and answer.notes == ()
    assert {check.outcome for check in answer.checks} == {Outcome.STEADY}
    assert len(answer.checks) == len(METHODS) * len(NAMES)
    assert {check.change.estimate for check in answer.checks if check.quantity != "ending"} == {0.0}


@pytest.mark.parametrize(
    ("change", "quantity"),
    [
        ({"peak_train_bytes": 1.10}, "peak memory"),
        ({"peak_inference_bytes": 1.10}, "peak memory of inference"),
        ({"activations_bytes": 1.25}, "counted memory"),
        ({"train_step_s_median": 1.3}, "step time"),
        ({"prefill_s_p50": 1.5}, "latency of a prompt"),
        ({"decode_s_per_token_p50": 1.5}, "latency of a token"),
        ({"checkpoint_bytes": 1.02}, "checkpoint size"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_cost_that_grew_is_caught_and_nothing_else(change: dict[str, float], quantity: str) -> None:
    answer = gate(run(1), run(2, change=change))
    assert failing(answer) == [("lora", quantity, "regressed")]
    ((_, factor),) = change.items()
    # 20 of the 150 MB that are counted are activations.
    grown = 0.25 * 20 / 150 if quantity == "counted memory" else factor - 1
    assert only(answer, "lora", quantity).change.estimate == pytest.approx(grown, rel=0.25)


def test_one_seed_is_enough_for_a_tenth_more_memory() -> None:
    assert failing(gate(run(1, seeds=1), run(2, seeds=1, change={"peak_train_bytes": 1.10}))) == [
        ("lora", "peak memory", "regressed")
    ]


def test_one_seed_is_not_enough_for_a_change_that_noise_makes_too() -> None:
    quiet: dict[str, Any] = {"seeds": 1, "noise": 0.0}
    answer = gate(run(1, **quiet), run(1, **quiet, change={"peak_train_bytes": 1.06}))
    assert answer.passes
    # Of two runs with 1.5 % each.
    span = only(answer, "lora", "peak memory").change
    assert span.high == pytest.approx(1.06 * math.exp(1.96 * math.sqrt(2) * 0.015) - 1, abs=1e-4)


def test_p_is_corrected_for_everything_that_was_tested() -> None:
    quiet: dict[str, Any] = {"seeds": 1, "noise": 0.0}
    two, four = (
        only(gate(run(1, m, **quiet), run(1, m, **quiet, change={"peak_train_bytes": 1.08})), "lora", "peak memory")
        for m in (METHODS[:2], METHODS)
    )
    assert two.p is not None and four.p == pytest.approx(2 * two.p)


def test_two_points_beyond_noise_are_caught_and_one_within_the_tolerance_is_not() -> None:
    assert failing(gate(run(1, noise=0.1), run(2, noise=0.1, change={"test_score": -0.02}))) == [
        ("lora", "score", "regressed")
    ]
    within = gate(run(1, noise=0.0), run(1, noise=0.0, change={"test_score": -0.0099}))
    assert within.passes and only(within, "lora", SCORE).change.estimate == pytest.approx(-0.0099)
    assert failing(gate(run(1, noise=0.0), run(1, noise=0.0, change={"test_score": -0.0101}))) == [
        ("lora", "score", "regressed")
    ]


def test_two_points_within_noise_are_not() -> None:
    answer = gate(run(1), run(2, change={"test_score": -0.02}))
    assert answer.passes
    check = only(answer, "lora", SCORE)
    assert check.change.low is not None and check.change.high is not None
    assert check.change.low < -0.02 < check.change.high


def test_one_seed_of_a_score_stands_for_a_spread_that_is_said() -> None:
    def said(points: float) -> Check:
        return only(
            gate(run(1, seeds=1, noise=0.0), run(1, seeds=1, noise=0.0, change={"test_score": points})), "lora", SCORE
        )

    small, large = said(-0.05), said(-0.2)
    assert (small.outcome, large.outcome) == (Outcome.STEADY, Outcome.REGRESSED)
    assert small.reason == "one seed: its spread between runs is assumed"
    # Two runs of 0.02 each, at 95 %.
    assert small.change.high == pytest.approx(-0.05 + 1.96 * math.sqrt(2) * 0.02, abs=1e-4)


def test_lower_is_better_turns_it_round() -> None:
    quiet: dict[str, Any] = {"noise": 0.0, "change": {"test_score": -0.05, "higher_is_better": False}}
    assert only(gate(run(1, noise=0.0), run(1, **quiet)), "lora", SCORE).outcome is Outcome.IMPROVED
    quiet["change"] = {"test_score": 0.05, "higher_is_better": False}
    assert failing(gate(run(1, noise=0.0), run(1, **quiet))) == [("lora", "score", "regressed")]


def test_a_missing_method_disappeared_and_an_additional_one_is_new() -> None:
    assert failing(gate(run(1), run(1, METHODS[:3]))) == [("head", "ending", "disappeared")]
    more = gate(run(1, METHODS[:3]), run(1))
    assert more.passes
    assert [(more.cells.method[check.cell], check.reason) for check in more.of(Outcome.NEW)] == [
        ("head", "only in the candidate; ok (seed 0, 1, 2)")
    ]


def test_a_score_that_is_not_there_any_more_disappeared() -> None:
    assert failing(gate(run(1), run(1, change={"test_score": None}))) == [("lora", "score", "disappeared")]


def test_an_ending_is_a_fact() -> None:
    broken = run(1)
    rows = broken["trials"]
    bad = (rows.method == "lora") & (rows.seed == 1)
    broken["trials"] = rows.assign(
        status=rows.status.where(~bad, "oom"), reason=pd.Series(None, rows.index, dtype=object).where(~bad, "too large")
    )
    answer = gate(run(1), broken)
    assert failing(answer) == [("lora", "ending", "regressed")]
    assert only(answer, "lora", "ending").reason == "ended well before, now oom (seed 1): too large"
    assert only(answer, "lora", SCORE).change.seeds == 2
    assert only(gate(broken, run(1)), "lora", "ending").outcome is Outcome.IMPROVED


def test_a_seed_that_did_not_run_is_said_and_fails_nothing() -> None:
    answer = gate(run(1, seeds=3), run(1, seeds=2))
    assert answer.passes
    assert {check.reason for check in answer.of(Outcome.UNJUDGED)} == {"the candidate has no trial of seed 2"}


def test_times_that_were_disturbed_or_of_another_machine_are_not_judged() -> None:
    slow = {"train_step_s_median": 3.0, "prefill_s_p50": 3.0, "decode_s_per_token_p50": 3.0}
    timed = {cost.name for cost in COSTS if cost.timed}
    shared = "other work disturbed it"
    untrusted = "networks that must answer equally fast did not: no time of that run is to be trusted"
    reasons = (("disturbed", True, shared), ("concurrent_trials", 2, shared), ("control_ratio", 1.3, untrusted))
    for column, value, reason in reasons:
        candidate = run(2, change=slow)
        candidate["trials"][column] = value
        answer = gate(run(1), candidate)
        assert answer.passes
        unjudged = {(check.quantity, check.reason) for check in answer.of(Outcome.UNJUDGED)}
        assert unjudged == {(name, reason) for name in timed}
    for column, there, here in (("processor", "A", "B"), ("processor_threads", 1, 2)):
        baseline, candidate = run(1), run(2, change=slow)
        baseline["trials"][column], candidate["trials"][column] = there, here
        answer = gate(baseline, candidate)
        assert answer.passes
        assert {check.quantity for check in answer.of(Outcome.UNJUDGED)} == timed
        moved = f"{column} {there}, now {here}"
        assert only(answer, "lora", "step time").reason == f"measured on another machine: {moved}"
        assert answer.notes == (moved,)
    assert not gate(run(1), candidate).passes, "older tables do not know their threads"


@pytest.mark.parametrize("watched", [False, True])
def test_a_slower_machine_is_no_regression_unless_it_is_known_to_be_undisturbed(watched: bool) -> None:
    old, new = run(1), run(2)
    new["trials"]["train_step_s_median"] *= 1.6
    for tables in (old, new):
        tables["trials"]["disturbed"] = False if watched else None
    answer = gate(old, new)
    assert failing(answer) == [(method, "step time", "regressed") for method in METHODS if watched]
    reason = "" if watched else "whether other work disturbed it is not known, and other times moved too"
    assert only(answer, "lora", "step time").reason == reason


def test_one_time_alone_says_nothing_and_many_show_how_restless_the_machine_was() -> None:
    one = gate(run(1, seeds=1), run(2, seeds=1, change={"train_step_s_median": 2.0}))
    assert only(one, "lora", "step time").reason == "one trial says nothing of how its times vary"
    names = [f"m{n}" for n in range(9)]
    many = gate(run(1, names, 1), run(2, names, 1, change={"train_step_s_median": 2.0}, of="m3"))
    assert failing(many) == [("m3", "step time", "regressed")]
    restless = run(2, names, 1)
    shaken = np.random.default_rng(5).lognormal(0, 0.5, len(names))
    restless["trials"]["train_step_s_median"] *= shaken
    assert gate(run(1, names, 1), restless).passes


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"task_version": "2"}, "not comparable: task_version none, now 2"),
        ({"protocol_version": 4}, "not comparable: protocol_version 1, now 4"),
        ({"primary_metric": "f1"}, "scored by different metrics: accuracy, f1"),
        ({"checkpoint_bytes": math.nan}, "not measured by the candidate"),
    ],
)
def test_what_cannot_be_compared_says_why(change: dict[str, Any], reason: str) -> None:
    answer = gate(run(1), run(2, change={name: str(v) if name == "task_version" else v for name, v in change.items()}))
    assert answer.passes
    assert [check.reason for check in answer.of(Outcome.UNJUDGED)] == [reason]


def test_no_example_in_common_is_not_judged_and_some_are_compared_alone() -> None:
    other = run(2)
    other["example_scores"]["example"] = "x" + other["example_scores"].example
    assert only(gate(run(1), other), "full", SCORE).reason == "no test example in common"
    assert only(gate(run(1, examples=40), run(2)), "full", SCORE).change.examples == 40


def test_without_scores_of_examples_the_seeds_decide() -> None:
    old, new = run(1, noise=0.1), run(2, noise=0.1, change={"test_score": -0.1})
    for tables in (old, new):
        tables["example_scores"] = tables["example_scores"].head(0)
    answer = gate(old, new)
    assert failing(answer) == [("lora", "score", "regressed")]
    assert only(answer, "lora", SCORE).change.basis == "3 seeds"


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 99),
    st.integers(1, 3),
    st.floats(-0.4, 0.4),
    st.floats(0.3, 3.0),
    st.sampled_from([cost.columns[0] for cost in COSTS]),
)
def test_what_one_way_got_worse_got_better_the_other_way(
    seed: int, seeds: int, points: float, factor: float, column: str
) -> None:
    old, new = (
        run(seed, METHODS[:2], seeds, 20),
        run(99 - seed, METHODS[:2], seeds, 20, {"test_score": points, column: factor}),
    )
    there, back = gate(old, new), gate(new, old)
    turned = {Outcome.REGRESSED: Outcome.IMPROVED, Outcome.IMPROVED: Outcome.REGRESSED}
    assert [turned.get(check.outcome, check.outcome) for check in there.checks] == [c.outcome for c in back.checks]
    for check in there.of(Outcome.REGRESSED):
        worse = check.change.estimate or 0.0
        assert worse < -0.01 if check.quantity == SCORE else worse > 0.01
        assert check.p is not None and check.p <= 0.05


def test_an_accelerator_counts_its_bytes_more_exactly() -> None:
    (peak,) = [cost for cost in COSTS if cost.name == "peak memory"]
    assert [peak.spread_on(device) for device in ("cpu", "cuda")] == [0.015, 0.005]


def test_the_scatter_is_that_of_a_normal_distribution() -> None:
    assert changes._scatter([0.0, 1.0, 2.0, 3.0, 10.0]) == pytest.approx(1.4826**2)
    assert changes._extent("perplexity", 50.0) == (50.0, 50.0)


def test_a_cells_own_doubt_counts() -> None:
    change = Change(0, SCORE, spread=Part(1.0, 2), difference=Interval(0.1, 0.0, 0.2, 0.4, "x"))
    assert _with_its_own_say(change, 0.01) == 0.4
