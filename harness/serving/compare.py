"""Strategies timed in turn on the same batches, because a machine's speed drifts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from harness.measure.energy import energy
from harness.measure.processors import disturbed, processors
from harness.serving.serve import Served, Strategy, serve

#: Phase -> what one of its times spans.
PHASES = {
    "prefill": "until every request has its first token",
    "decode": "until every request has one token more",
    "whole": "until every request has its last token",
    "swap": "to make the network ready for the next tenant",
}


@dataclass
class Timings:
    """What one strategy took for a batch, over several rounds."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {phase: [] for phase in PHASES})
    """Phase -> a time for each that was measured."""
    cache_bytes: int = 0
    virtual_cache_bytes: int = 0
    base_bytes: int = 0
    tenants_bytes: int = 0
    joules: list[float] = field(default_factory=list)
    """Of the whole machine or GPU, for each round; empty where no counter can be read."""
    shares: list[float | None] = field(default_factory=list)
    """Of the processors, for each round."""
    tokens: Tensor | None = None
    """Of the last round: (requests, new tokens)."""

    def add(self, served: Served) -> None:
        """One more round."""
        self.seconds["prefill"].append(served.prefill_s)
        self.seconds["decode"] += served.steps_s
        self.seconds["whole"].append(served.prefill_s + sum(served.steps_s))
        self.seconds["swap"] += served.swap_s
        self.cache_bytes, self.virtual_cache_bytes = served.cache_bytes, served.virtual_cache_bytes
        self.tenants_bytes, self.tokens = served.tenants_bytes, served.tokens

    def percentile(self, phase: str, percent: float) -> float | None:
        """Of the times of ``phase``; None where there is none."""
        times = self.seconds[phase]
        return float(np.percentile(times, percent)) if times else None

    def median(self, phase: str) -> float:
        """Of the times of ``phase``; raises ValueError where there is none."""
        value = self.percentile(phase, 50)
        if value is None:
            raise ValueError(f"no {phase} was timed")
        return value

    @property
    def median_joules(self) -> float | None:
        """Of a round; None where no counter can be read."""
        return float(np.median(self.joules)) if self.joules else None

    @property
    def disturbed(self) -> bool | None:
        """Whether others had the processors in one of the rounds (protocol, rule 6)."""
        return disturbed(*self.shares)


def compare(
    strategies: Sequence[Strategy],
    tenants: Sequence[int],
    ids: Tensor,
    *,
    new_tokens: int,
    rounds: int,
) -> dict[str, Timings]:
    """Name -> times of every strategy for the requests ``ids`` (rows, tokens) of ``tenants``.

    A first round of two tokens warms up and does not count. Raises ValueError for two strategies of one name.
    """
    timings = {strategy.name: Timings() for strategy in strategies}
    if len(timings) < len(strategies):
        raise ValueError("two strategies have one name")
    for number in range(rounds + 1):
        for strategy in strategies:
            timing = timings[strategy.name]
            with processors() as got, energy(ids.device) as used:
                served = serve(strategy, tenants, ids, new_tokens if number else min(2, new_tokens))
            if number:
                timing.add(served)
                timing.shares.append(got.share)
                timing.joules += [] if used.joules is None else [used.joules]
                timing.base_bytes = strategy.base_bytes
    return timings


def random_prompts(requests: int, tokens: int, vocabulary: int, device: torch.device) -> Tensor:
    """Prompts (requests, tokens) of random tokens: the time of a dense model does not depend on which it reads."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(10, vocabulary, (requests, tokens), generator=generator).to(device)
