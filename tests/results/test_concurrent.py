"""How many trials ran beside each, from the records alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.results.concurrent import fill_concurrent_trials

START = datetime(2025, 1, 1, tzinfo=UTC)


def row(start_s: float, duration_s: float | None, hostname: str | None = "here", attempt: int = 1) -> dict[str, Any]:
    started = START + timedelta(seconds=start_s)
    return {"started_at": started, "duration_s": duration_s, "hostname": hostname, "attempt": attempt}


def counts(*rows: dict[str, Any]) -> list[int | None]:
    fill_concurrent_trials(rows)
    return [each["concurrent_trials"] for each in rows]


def test_one_after_the_other_is_not_beside() -> None:
    assert counts(row(0, 10), row(10, 10), row(20, 0)) == [0, 0, 0]


def test_the_most_at_one_moment_count() -> None:
    # The second and third run beside the first, never at once; the fourth and fifth overlap the third at once.
    assert counts(row(0, 10), row(1, 2), row(5, 20), row(12, 3), row(13, 4)) == [1, 1, 2, 2, 2]


def test_another_machine_is_not_beside_and_what_did_not_run_has_no_count() -> None:
    assert counts(row(0, 10), row(0, 10, "there"), row(0, None, attempt=0), row(0, 10, None), row(0, None)) == [
        0, 0, None, None, None,
    ]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), min_size=1, max_size=12))
def test_it_is_the_most_of_any_moment(spans: list[tuple[int, int]]) -> None:
    expected = [
        max(sum(s <= moment < s + d for s, d in spans) - 1 for moment in range(start, start + duration))
        for start, duration in spans
    ]
    assert counts(*(row(*span) for span in spans)) == expected
