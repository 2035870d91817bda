"""Latency: the prompt and every further token apart, on the path that a user takes (``generate``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import StoppingCriteria, StoppingCriteriaList

from harness.measure.environment import synchronize


@dataclass(frozen=True)
class Latency:
    """One phase at one setting: a row of the ``latency`` table."""

    variant: str
    batch_size: int
    prompt_tokens: int
    new_tokens: int
    phase: str
    """prefill, decode or predict"""
    p50_s: float
    p95_s: float
    tokens_per_s: float


class Latencies(list[Latency]):
    """Rows of latency that show themselves as a table in milliseconds; a setting that varies among them is named."""

    def __repr__(self) -> str:
        batches, prompts = ({getattr(row, name) for row in self} for name in ("batch_size", "prompt_tokens"))
        lines = [("", "p50", "p95")]
        for row in self:
            name = f"{row.variant} {row.phase}"
            name += f", batch {row.batch_size}" if len(batches) > 1 else ""
            name += f", prompt {row.prompt_tokens}" if len(prompts) > 1 else ""
            lines.append((name, f"{row.p50_s * 1000:.1f} ms", f"{row.p95_s * 1000:.1f} ms"))
        first, second, third = (max(len(line[column]) for line in lines) for column in range(3))
        return "\n".join(f"{a:<{first}}  {b:>{second}}  {c:>{third}}" for a, b, c in lines)


class _Clock(StoppingCriteria):
    """Called by ``generate`` after each token; never stops it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.ticks: list[float] = []

    def __deepcopy__(self, memo: object) -> _Clock:
        """Itself: PEFT copies what it is given before it generates behind the prompt of an encoder-decoder."""
        return self

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        synchronize(self._device)
        self.ticks.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def _row(variant: str, batch: int, prompt: int, new: int, phase: str, seconds: list[float], tokens: int) -> Latency:
    return Latency(
        variant=variant,
        batch_size=batch,
        prompt_tokens=prompt,
        new_tokens=new,
        phase=phase,
        p50_s=float(np.percentile(seconds, 50)),
        p95_s=float(np.percentile(seconds, 95)),
        tokens_per_s=float(tokens * len(seconds) / np.sum(seconds)),
    )


@torch.no_grad()
def generation_latency(
    model: nn.Module,
    device: torch.device,
    vocab_size: int,
    *,
    variant: str = "plain",
    batch_size: int = 1,
    prompt_tokens: int = 64,
    new_tokens: int = 16,
    repeats: int = 3,
) -> list[Latency]:
    """Prefill (up to the first new token) and decode (each further token) of greedy generation with the KV cache.

    Random prompts: the time of a dense model does not depend on which tokens it reads. A first run of two tokens, one
    for each phase, warms up and is left out.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, vocab_size, (batch_size, prompt_tokens), generator=generator).to(device)
    prefill: list[float] = []
    decode: list[float] = []
    for repeat in range(repeats + 1):
        length = new_tokens if repeat else min(2, new_tokens)
        clock = _Clock(device)
        synchronize(device)
        start = time.perf_counter()
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=length,
            max_new_tokens=length,
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        if repeat:
            prefill.append(clock.ticks[0] - start)
            decode.extend(np.diff(clock.ticks).tolist())
    return [
        _row(variant, batch_size, prompt_tokens, new_tokens, "prefill", prefill, batch_size * prompt_tokens),
        _row(variant, batch_size, prompt_tokens, new_tokens, "decode", decode, batch_size),
    ]


@torch.no_grad()
def prediction_latency(
    model: nn.Module,
    device: torch.device,
    vocab_size: int,
    *,
    variant: str = "plain",
    batch_size: int = 1,
    prompt_tokens: int = 32,
    repeats: int = 20,
) -> list[Latency]:
    """One forward pass of a classifier; three warm-up runs are left out."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(10, vocab_size, (batch_size, prompt_tokens), generator=generator).to(device)
    seconds = []
    for repeat in range(repeats + 3):
        synchronize(device)
        start = time.perf_counter()
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
        synchronize(device)
        if repeat >= 3:
            seconds.append(time.perf_counter() - start)
    return [_row(variant, batch_size, prompt_tokens, 0, "predict", seconds, batch_size * prompt_tokens)]


def bandwidth_utilisation(row: Latency, weights_bytes: int, peak_bytes_per_s: float) -> float:
    """Share of the memory bandwidth that decoding uses: every new token of a batch reads all weights once.

    The cache of keys and values is left out. Raises ValueError for a row of another phase.
    """
    if row.phase != "decode":
        raise ValueError(f"bandwidth_utilisation: a decode row is needed, not {row.phase}")
    return weights_bytes / row.p50_s / peak_bytes_per_s


@dataclass(frozen=True)
class Timed:
    """Seconds of a repeated act."""

    p50_s: float
    p95_s: float


def timed(act: Callable[[], object], device: torch.device, repeats: int = 5) -> Timed:
    """Time ``act``, such as loading an adapter, ``repeats`` times after one to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        synchronize(device)
        start = time.perf_counter()
        act()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return Timed(float(np.percentile(seconds[1:], 50)), float(np.percentile(seconds[1:], 95)))
