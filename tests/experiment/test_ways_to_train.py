"""The study of ways to train: which ways there are, how they are compared, and what may be said of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.execution import Execution
from harness.experiment import executions
from harness.experiment.executions import Ratio

FIELDS = {"packing": True, "accumulation": 2}


def rows(speeds: list[list[float | None]]) -> pd.DataFrame:
    """A row for each repeat and way, from tokens per second by repeat."""
    return pd.DataFrame(
        [
            {"repeat": repeat, "way": way, "tokens_per_s": speed}
            for repeat, several in enumerate(speeds)
            for way, speed in enumerate(several)
        ]
    ).astype({"tokens_per_s": "float64"})


def test_ways_are_added_one_by_one_and_taken_out_one_by_one() -> None:
    both = Execution(packing=True, accumulation=2)
    assert executions.plus_each(FIELDS) == {
        "baseline": Execution(),
        "+ packing": Execution(packing=True),
        "+ accumulation 2": both,
    }
    assert executions.minus_each({**FIELDS, "optimizer": "lion"}) == {
        "without packing": Execution(accumulation=2, optimizer="lion"),
        "without accumulation 2": Execution(packing=True, optimizer="lion"),
        "without optimizer lion": both,
    }


def test_a_factor_is_the_geometric_mean_over_repeats_with_students_t() -> None:
    """Factors 2 and 8 have the mean 4; their logarithms spread by ln 2, and t of one degree is 12.706."""
    (ratio,) = executions.ratios(rows([[10, 20], [5, 40]]), {"b": 1}, 0)
    half = 12.7062 * math.log(2)
    assert ratio.value == pytest.approx(4)
    assert (math.log(ratio.low), math.log(ratio.high)) == pytest.approx(
        (math.log(4) - half, math.log(4) + half), rel=1e-4
    )


def test_one_repeat_has_no_interval_and_what_was_not_active_no_factor() -> None:
    found = list(executions.ratios(rows([[10, 20, None]]), {"a": 0, "b": 1, "c": 2}, 0))
    assert [(ratio.label, ratio.value) for ratio in found] == [("a", 1.0), ("b", 2.0)]
    assert math.isnan(found[1].low) and math.isnan(found[1].high)
    assert not list(executions.ratios(rows([[None, 20]]), {"b": 1}, 0)), "nothing to compare with"


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=6), st.floats(0.1, 10))
def test_a_machine_that_slows_down_changes_no_factor(drift: list[float], factor: float) -> None:
    (ratio,) = executions.ratios(rows([[100 * speed, 100 * speed * factor] for speed in drift]), {"b": 1}, 0)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((factor,) * 3, rel=1e-6)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (Ratio("b", 1.5, 1.2, 1.9), "all together are faster: 1.50 times"),
        (Ratio("b", 0.5, 0.2, 0.9), "all together are slower: 0.50 times"),
        (Ratio("b", 1.5, 0.9, 1.9), "whether all together are faster cannot be told: 1.50 times"),
        (Ratio("b", 1.0, 1.0, 1.0), "whether all together are faster cannot be told"),
        (Ratio("b", 1.5, np.nan, np.nan), "one repeat tells no interval"),
    ],
)
def test_the_sentence_says_what_the_interval_allows(last: Ratio, said: str) -> None:
    assert said in executions.sentence([Ratio("baseline", 1, 1, 1), last])
    assert executions.sentence([last]) == "nothing beside the baseline was active"
