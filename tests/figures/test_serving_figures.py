"""Known rows of the serving study give known titles."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from harness.figures import FIGURES, Nothing
from harness.figures.serving_rows import served
from harness.results.schema import TABLES


def row(strategy: str, tenants: int, seconds: float | None, size: float = 1e9, **columns: Any) -> dict[str, Any]:
    usual = {
        "trial_id": "t", "model": "m", "strategy": strategy, "method": "lora", "tenants": tenants,
        "batch_size": tenants, "popularity": "distinct", "phase": "decode", "p50_s": seconds, "p95_s": seconds,
        "tokens_per_s": None if seconds is None else tenants / seconds, "memory_bytes": size, "disturbed": False,
    }  # fmt: skip
    return {**usual, **columns}


def table(*rows: dict[str, Any]) -> dict[str, pd.DataFrame]:
    return {"serving": pd.DataFrame(rows, columns=[column.name for column in TABLES["serving"].columns])}


def titles(name: str, tables: dict[str, pd.DataFrame]) -> list[str]:
    figure = FIGURES[name](tables)
    assert isinstance(figure, Figure), figure
    ours = [axes for axes in figure.axes if axes.get_facecolor() == (1, 1, 1, 1)]
    return [" ".join(axes.get_title(loc="left").split()) for axes in ours]


def test_one_request_for_each_tenant_counts_and_no_other_batch() -> None:
    rows = [row("a", 1, 0.1), row("a", 4, 0.2), row("b", 1, 0.1), row("b", 4, 0.4, 3e9)]
    other = [
        row("b", 4, 0.001, batch_size=64),
        row("b", 4, 0.001, phase="prefill"),
        row("b", 4, 0.001, popularity="zipf"),
    ]
    assert titles("latency_vs_tenants", table(*rows, *other)) == [
        "With 4 tenants, a is lowest (200 ms) and b is highest (400 ms)",
        "With 4 tenants, a is lowest (1 GB) and b is highest (3 GB)",
    ]


def test_several_trials_of_a_setting_give_their_median_and_a_disturbed_one_is_told() -> None:
    rows = [row("a", 4, seconds, trial_id=str(seconds), disturbed=seconds == 0.9) for seconds in (0.1, 0.3, 0.9)]
    (only,) = served(table(*rows), "decode").to_dict("records")
    assert (only["p50_s"], only["disturbed"]) == (0.3, True)


def test_what_did_not_run_has_a_size_and_no_time() -> None:
    rows = [row("a", 1, 0.1), row("a", 4, 0.2), row("b", 1, 0.1), row("b", 4, None, 9e9)]
    assert titles("latency_vs_tenants", table(*rows)) == [
        "With 4 tenants, every strategy needs 200 ms",
        "With 4 tenants, a is lowest (1 GB) and b is highest (9 GB)",
    ]


def test_the_base_alone_serves_nobody_and_does_not_lead() -> None:
    speeds = {"base alone": 0.1, "a": 0.2, "b": 0.5}
    rows = [row(name, count, count * slow, phase="whole") for name, slow in speeds.items() for count in (1, 4)]
    assert titles("throughput_vs_tenants", table(*rows)) == [
        "a is highest with 1 tenant (5 tokens/s), a is highest with 4 tenants (5 tokens/s)"
    ]


@pytest.mark.parametrize("name", ["latency_vs_tenants", "throughput_vs_tenants"])
def test_tables_without_a_study_say_so(name: str) -> None:
    for tables in ({}, table()):
        drawn = FIGURES[name](tables)
        assert isinstance(drawn, Nothing) and drawn.reason == "no serving study is among these tables"
