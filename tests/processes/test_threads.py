"""Processes that compute side by side share the processors."""

from __future__ import annotations

import os

import pytest

from harness.processes.threads import VARIABLE, processor_count, thread_share


@pytest.mark.parametrize(("processes", "each"), [(2, "4"), (3, "2"), (8, "1"), (20, "1")])
def test_each_gets_its_part_and_one_thread_at_least(processes: int, each: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert processor_count() == 8
    assert thread_share(processes) == {VARIABLE: each}


def test_one_process_and_what_somebody_has_set_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert thread_share(1) == {}
    monkeypatch.setenv(VARIABLE, "3")
    assert thread_share(2) == {}
