"""What each way to train is worth: factors with their intervals, and what may be said of them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judgement.ways import Factor, added, left_out, sentence

NAMES = ("baseline", "+ packing", "+ accumulation 2", "all without packing")


def rows(speeds: list[list[float | None]], trial: str = "t") -> pd.DataFrame:
    """A row for each repeat and way, from tokens per second by repeat; the second way lacks accumulation alone."""
    return pd.DataFrame(
        [
            {
                "trial_id": trial, "repeat": repeat, "way": NAMES[way], "tokens_per_s": speed,
                "added": way if way < 3 else None,
                "without": {1: "accumulation 2", 3: "packing"}.get(way),
            }
            for repeat, several in enumerate(speeds)
            for way, speed in enumerate(several)
        ]
    ).astype({"tokens_per_s": "float64"})  # fmt: skip


def test_a_factor_is_the_geometric_mean_over_repeats_with_students_t() -> None:
    """Factors 2 and 8 have the mean 4; their logarithms spread by ln 2, and t of one degree is 12.706."""
    _, factor = added(rows([[10, 20], [5, 40]]))
    half = 12.7062 * math.log(2)
    assert factor.value == pytest.approx(4)
    assert (math.log(factor.low), math.log(factor.high)) == pytest.approx(
        (math.log(4) - half, math.log(4) + half), rel=1e-4
    )


def test_a_way_of_both_kinds_is_shown_as_both() -> None:
    table = rows([[10, 20, 40, 5]]).sample(frac=1, random_state=3)
    assert [(factor.label, factor.value) for factor in added(table)] == [
        ("baseline", 1), ("+ packing", 2), ("+ accumulation 2", 4),
    ]  # fmt: skip
    assert {(factor.label, factor.value) for factor in left_out(table)} == {
        ("all without accumulation 2", 2), ("all without packing", 0.5),
    }  # fmt: skip


def test_repeats_of_two_trials_are_repeats_and_each_has_its_own_baseline() -> None:
    both = pd.concat([rows([[10, 20]], "a"), rows([[1, 2]], "b")])
    _, factor = added(both)
    assert (factor.value, factor.low, factor.high) == pytest.approx((2, 2, 2))


def test_one_repeat_has_no_interval_and_what_was_not_active_no_factor() -> None:
    found = added(rows([[10, 20, None]]))
    assert [(factor.label, factor.value) for factor in found] == [("baseline", 1.0), ("+ packing", 2.0)]
    assert math.isnan(found[1].low) and math.isnan(found[1].high)
    assert not added(rows([[None, 20]])), "nothing to compare with"


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=6), st.floats(0.1, 10))
def test_a_machine_that_slows_down_changes_no_factor(drift: list[float], ratio: float) -> None:
    _, factor = added(rows([[100 * speed, 100 * speed * ratio] for speed in drift]))
    assert (factor.value, factor.low, factor.high) == pytest.approx((ratio,) * 3, rel=1e-6)


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (Factor("b", 1.5, 1.2, 1.9), "All together are faster: 1.50 times"),
        (Factor("b", 0.5, 0.2, 0.9), "All together are slower: 0.50 times"),
        (Factor("b", 1.5, 0.9, 1.9), "Whether all together are faster cannot be told: 1.50 times"),
        (Factor("b", 1.0, 1.0, 1.0), "Whether all together are faster cannot be told"),
        (Factor("b", 1.5, np.nan, np.nan), "one repeat tells no interval"),
    ],
)
def test_the_sentence_says_what_the_interval_allows(last: Factor, said: str) -> None:
    assert said in sentence([Factor("baseline", 1, 1, 1), last])
    assert sentence([last]) == "Nothing beside the baseline was active"
