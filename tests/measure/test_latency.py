"""Latency over a grid, and what is made of it."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch

from harness.measure.latency import Latency, bandwidth_utilisation, generation_latency, timed
from harness.methods import lora
from harness.models.load import load

CPU = torch.device("cpu")
ROW = Latency("plain", 4, 64, 16, "decode", p50_s=0.5, p95_s=0.75, tokens_per_s=8.0)


def test_both_phases_are_timed_at_every_size() -> None:
    base = load("tiny-llama", device="cpu")
    tuned = lora.apply(base, r=2)
    settings = {"variant": "unmerged", "new_tokens": 3, "repeats": 2}
    sizes = list(itertools.product((1, 3), (4, 8)))
    rows = [
        row
        for batch, prompt in sizes
        for row in generation_latency(tuned.model, CPU, 250, batch_size=batch, prompt_tokens=prompt, **settings)
    ]
    assert [(row.batch_size, row.prompt_tokens, row.phase) for row in rows] == [
        (*size, phase) for size in sizes for phase in ("prefill", "decode")
    ]
    for row in rows:
        assert (row.variant, row.new_tokens) == ("unmerged", 3)
        assert 0 < row.p50_s <= row.p95_s
        # Of two repeats the mean is the median, so the rate of prefill follows from it.
        if row.phase == "prefill":
            assert row.tokens_per_s == pytest.approx(row.batch_size * row.prompt_tokens / row.p50_s)


def test_decoding_reads_all_weights_once_a_step() -> None:
    # 2 GB in half a second are 4 GB/s, a fifth of 20.
    assert bandwidth_utilisation(ROW, 2 * 10**9, 20e9) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="not prefill"):
        bandwidth_utilisation(dataclasses.replace(ROW, phase="prefill"), 1, 1.0)


def test_an_act_is_timed_after_one_to_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.accumulate([0.0, 9.0, 0.0, 1.0, 0.0, 2.0, 0.0, 3.0])  # 9 s to warm up, then 1, 2 and 3
    monkeypatch.setattr("harness.measure.latency.time.perf_counter", lambda: next(clock))
    calls: list[None] = []
    found = timed(lambda: calls.append(None), CPU, repeats=3)
    assert len(calls) == 4
    assert (found.p50_s, found.p95_s) == (2.0, pytest.approx(2.9))
