"""Sentences follow from rows, odd ones included."""

from __future__ import annotations

import pandas as pd
import pytest

from harness.serving.crossovers import sentences


def table(own: list[float], other: list[float | None], disturbed: bool | None = False) -> pd.DataFrame:
    rows = [
        {"trial_id": "t", "strategy": strategy, "tenants": count, "batch_size": count, "popularity": "distinct",
         "phase": "decode", "p50_s": time, "memory_bytes": None, "disturbed": disturbed}
        for strategy, times in (("batched LoRA", own), ("copies", other))
        for count, time in zip((1, 4, 16), times, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("own", "other", "said"),
    [
        (
            [0.2, 0.3, 0.4],
            [0.1, 0.35, 0.9],
            "From 4 tenants on, batched LoRA needs less time for a decoding step than copies (not with 1 tenant): "
            "400 ms against 900 ms with 16 tenants.",
        ),
        (
            [0.1, 0.3, 0.3],
            [0.2, 0.2, 0.2],
            "From 4 tenants on, copies needs less time for a decoding step than batched LoRA (not with 1 tenant): "
            "200 ms against 300 ms with 16 tenants.",
        ),
        (
            [0.1, 0.1, 0.1],
            [0.2, 0.2, 0.2],
            "batched LoRA needs less time for a decoding step than copies at all numbers measured (1 to 16 tenants; a "
            "crossing is not seen in this range): 100 ms against 200 ms with 16 tenants.",
        ),
        (
            [0.3, 0.3, 0.3],
            [0.2, 0.2, 0.2],
            "copies needs less time for a decoding step than batched LoRA at all numbers measured (1 to 16 tenants; a "
            "crossing is not seen in this range): 200 ms against 300 ms with 16 tenants.",
        ),
        (
            [0.1, 0.3, 0.1],
            [0.2, 0.2, 0.2],
            "From 16 tenants on, batched LoRA needs less time for a decoding step than copies (not with 4 tenants): "
            "100 ms against 200 ms with 16 tenants.",
        ),
        (
            [0.2, 0.2, 0.2],
            [0.2, 0.1, 0.2],
            "batched LoRA and copies need the same time for a decoding step at the last number, but not at all (1 to "
            "16 tenants): 200 ms against 200 ms with 16 tenants.",
        ),
        (
            [0.2, 0.2, 0.2],
            [0.2, 0.2, 0.2],
            "batched LoRA and copies need the same time for a decoding step (1 to 16 tenants): 200 ms against 200 ms "
            "with 16 tenants.",
        ),
        (
            [0.2, 0.3, 0.4],
            [0.1, None, None],
            "copies needs less time for a decoding step than batched LoRA at all numbers measured (1 tenant; there is "
            "no range to cross in): 100 ms against 200 ms with 1 tenant.",
        ),
    ],
    ids=["crosses", "crosses back", "always", "never", "twice", "ties at last", "equal", "did not run"],
)
def test_where_one_overtakes_the_other(own: list[float], other: list[float | None], said: str) -> None:
    assert list(sentences(table(own, other))) == [said]


def test_strategies_of_two_trials_are_not_compared() -> None:
    rows = table([0.1, 0.1, 0.1], [0.2, 0.2, 0.2])
    assert list(sentences(rows.assign(trial_id=rows.strategy))) == []


def test_a_disturbed_machine_is_said_last() -> None:
    assert list(sentences(table([1, 1, 1], [2, 2, 2], True)))[-1].startswith("Other work used the machine")


def test_no_rows_say_nothing() -> None:
    assert list(sentences(table([1, 1, 1], [2, 2, 2]).head(0))) == []


def test_bitdelta_is_held_against_copies_and_against_lora_in_time_and_memory() -> None:
    one = table([0.3, 0.3, 0.3], [0.1, 0.4, 0.9]).assign(memory_bytes=lambda rows: 1e9 * rows.p50_s)
    rows = pd.concat([one.replace({"batched LoRA": "batched BitDelta"}), one[one.strategy == "batched LoRA"]])
    said = [line for line in sentences(rows) if "BitDelta" in line]
    assert said == [
        "From 4 tenants on, batched BitDelta needs less time for a decoding step than copies (not with 1 tenant): "
        "300 ms against 900 ms with 16 tenants.",
        "From 4 tenants on, batched BitDelta needs less memory than copies (not with 1 tenant): 0.30 GB against 0.90 "
        "GB with 16 tenants.",
        "batched BitDelta and batched LoRA need the same time for a decoding step (1 to 16 tenants): 300 ms against "
        "300 ms with 16 tenants.",
        "batched BitDelta and batched LoRA need the same memory (1 to 16 tenants): 0.30 GB against 0.30 GB with 16 "
        "tenants.",
    ]
