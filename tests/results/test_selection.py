"""Which setting of a cell counts, and what the rows of the trials table say of it."""

from __future__ import annotations

from typing import Any

from helpers.fake_records import records
from helpers.trials_table import trials
from hypothesis import given
from hypothesis import strategies as st

from harness.results.selection import Ending, best_setting
from harness.results.tables import check

SCORES = st.one_of(st.none(), st.floats(-1, 1, allow_nan=False))
RUNS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.sampled_from(["ok", "oom"]), SCORES))


def chosen(*runs: tuple[str, int, str, float | None], higher: bool = True) -> object:
    return best_setting((setting, seed, Ending(status, score, higher)) for setting, seed, status, score in runs)


def test_most_seeds_come_before_the_best_mean() -> None:
    assert chosen(("a", 0, "ok", 0.9), ("a", 1, "oom", None), ("b", 0, "ok", 0.1), ("b", 1, "ok", 0.1)) == "b"
    assert chosen(("a", 0, "ok", 0.9), ("a", 1, "ok", 0.1), ("b", 0, "ok", 0.6), ("b", 1, "ok", 0.6)) == "b"


def test_lower_is_better_where_the_metric_says_so() -> None:
    runs = (("a", 0, "ok", 0.9), ("b", 0, "ok", 0.1))
    assert (chosen(*runs), chosen(*runs, higher=False)) == ("a", "b")


def test_ties_and_what_was_not_scored_go_to_the_first() -> None:
    assert chosen(("b", 0, "ok", 0.5), ("a", 0, "ok", 0.5)) == "b"
    assert chosen(("b", 0, "ok", None), ("a", 0, "ok", None)) == "b"
    assert chosen(("b", 0, "ok", None), ("a", 0, "ok", -5.0)) == "a", "any score is more than none"
    assert chosen(("a", 0, "oom", 0.9)) is None


@given(RUNS)
def test_the_best_setting_is_one_that_no_other_beats(runs: list[tuple[str, int, str, float | None]]) -> None:
    def seeds(setting: object) -> int:
        return len({seed for name, seed, status, _ in runs if (name, status) == (setting, "ok")})

    best = chosen(*runs)
    assert (best is None) == all(status != "ok" for _, _, status, _ in runs)
    assert all(seeds(name) <= seeds(best) for name, *_ in runs)


def told(*rows: dict[str, Any]) -> list[tuple[bool, int]]:
    frame = trials(*rows)
    return list(zip(frame.selected.tolist(), frame.settings_tried.tolist(), strict=True))


def test_a_row_says_whether_its_setting_was_chosen_and_among_how_many() -> None:
    assert told(
        {"learning_rate": 1.0, "seed": 0, "valid_score": 0.9},
        {"learning_rate": 0.1, "seed": 0, "valid_score": 0.5},
        {"learning_rate": 9.0, "seed": 0, "status": "diverged"},
        {"learning_rate": 5.0, "seed": 0, "status": "skipped"},
        {"learning_rate": 1.0, "seed": 1, "valid_score": 0.1},
        {"learning_rate": 1.0, "seed": 2, "status": "oom", "device": "auto"},
        {"method": "head", "learning_rate": 1.0, "valid_score": 0.2},
        {"method": "full", "status": "failed"},
    ) == [(True, 3), (False, 3), (False, 3), (False, 3), (True, 3), (True, 3), (True, 1), (False, 1)]


def test_of_equal_settings_the_smallest_rate_counts_whatever_the_order() -> None:
    rows = [{"learning_rate": rate, "valid_score": 0.5} for rate in (0.1, 0.01, 1.0)]
    assert told(*rows) == [(False, 3), (True, 3), (False, 3)]
    assert told(*rows[::-1]) == [(False, 3), (True, 3), (False, 3)]


def test_a_record_alone_fits_into_the_tables() -> None:
    """The runner checks each record before there are others to compare it with."""
    for record in records(n_methods=3):
        check(record)
