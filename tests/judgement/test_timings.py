"""Times that other work had a part in are in no comparison, and the reason is said."""

from __future__ import annotations

import pandas as pd
import pytest
from helpers.scored_tables import Cell, noisy, scored
from helpers.trials_table import trials

from harness.figures import FIGURES, Nothing
from harness.judgement.leads import of_trials
from harness.judgement.statistics import aggregate, select
from harness.judgement.timings import TIMES, undisturbed, why_untimed
from harness.results.control import controls
from harness.results.schema import LONG_TABLES

MEASURED = {"test_score": 0.5, "primary_metric": "accuracy", "peak_train_bytes": 10**9, **dict.fromkeys(TIMES, 2.0)}


def tables(*rows: dict[str, object]) -> dict[str, pd.DataFrame]:
    known = {"trials": trials(*({**MEASURED, **row} for row in rows))}
    empty = {
        name: pd.DataFrame(columns=[column.name for column in table.columns]) for name, table in LONG_TABLES.items()
    }
    return empty | known


@pytest.mark.parametrize(
    ("seen", "counts"),
    [
        ({}, True),
        ({"disturbed": False, "concurrent_trials": 0}, True),
        ({"disturbed": True}, False),
        ({"concurrent_trials": 1}, False),
        ({"disturbed": False, "concurrent_trials": 2}, False),
    ],
    ids=["unknown", "quiet", "disturbed", "beside another", "beside two"],
)
def test_the_times_of_such_rows_are_missing_and_the_rest_stays(seen: dict[str, object], counts: bool) -> None:
    table = tables({"trial_id": "a", **seen})
    (row,) = select(table["trials"]).to_dict("records")
    assert [row[name] == 2.0 for name in TIMES] == [counts] * len(TIMES)
    assert (row["peak_train_bytes"], row["test_score"]) == (10**9, 0.5)
    assert len(undisturbed(table["trials"])) == counts


def test_rows_with_fewer_threads_than_others_of_their_machine_do_not_count() -> None:
    found = [("a", 1, "here"), ("b", 2, "here"), ("c", 1, "there"), ("d", None, "here")]
    rows: list[dict[str, object]] = [{"trial_id": a, "processor_threads": n, "hostname": host} for a, n, host in found]
    frame = tables(*rows)["trials"]
    assert undisturbed(frame).trial_id.tolist() == ["b", "c", "d"]


def test_the_median_is_that_of_the_seeds_that_count() -> None:
    quick = {"trial_id": "a", "seed": 0, "chain_train_s": 1.0, "disturbed": False}
    slow = {"trial_id": "b", "seed": 1, "chain_train_s": 9.0, "disturbed": True}
    (row,) = aggregate(tables(quick, slow)).to_dict("records")
    assert (row["chain_train_s"], row["seeds"]) == (1.0, 2)


def test_a_recommendation_and_a_claim_leave_them_out() -> None:
    table = tables({"trial_id": "a", "seed": 0, "disturbed": True}, {"trial_id": "b", "seed": 1, "disturbed": False})
    assert of_trials("chain_train_s", table["trials"], table).index.tolist() == [1]
    assert of_trials("peak_train_bytes", table["trials"], table).index.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["training_speed", "decode_latency", "score_vs_time", "latency_vs_batch"])
def test_a_sweep_of_two_trials_at_a_time_draws_no_speed_and_says_why(name: str) -> None:
    drawn = FIGURES[name](tables({"trial_id": "a", "concurrent_trials": 1}, {"trial_id": "b", "concurrent_trials": 1}))
    assert isinstance(drawn, Nothing)
    assert drawn.reason == "other work had a part in every time that was measured (protocol, rule 6)"


def test_where_nothing_disturbed_the_reason_is_another() -> None:
    assert why_untimed(tables({"trial_id": "a"})["trials"], "not measured") == "not measured"
    assert why_untimed(tables({"trial_id": "a", "status": "failed"})["trials"], "not measured") == "not measured"


def test_a_latency_is_that_of_a_token_and_not_of_its_prompt() -> None:
    made = scored(Cell("lora", noisy(0.5, 1)))
    (trial,) = made["trials"].trial_id
    rows = [(trial, "plain", 1, 8, 8, phase, seconds) for phase, seconds in (("prefill", 9.0), ("decode", 0.5))]
    made["latency"] = pd.DataFrame(rows, columns=made["latency"].columns)
    assert of_trials("latency_s", made["trials"], made).tolist() == [0.5]


def test_times_of_prompts_of_another_length_are_no_control() -> None:
    rows = [
        {**row, "trial_id": str(number), "method": method}
        for number, method in enumerate(("baseline", "full"))
        for row in trials({"hostname": "here"}).to_dict("records")
    ]
    usual = {"variant": "plain", "batch_size": 1, "new_tokens": 16, "phase": "prefill", "p50_s": 0.01}
    of = [
        [{**usual, "trial_id": str(number), "prompt_tokens": size} for number, size in enumerate(sizes)]
        for sizes in ((64, 64), (64, 256))
    ]
    assert [len(controls(rows, one)) for one in of] == [1, 0]
