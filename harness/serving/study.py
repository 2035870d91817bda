"""What each way to serve many tuned models costs: rows of the table ``serving``, all strategies measured in turn."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import torch
from pydantic import Field

from harness.arguments import Count, Counts, Folder, Natural, Once, Positive
from harness.errors import InputError, unknown
from harness.measure.latency import Timed, timed
from harness.measure.memory import weights_bytes
from harness.models.load import Base
from harness.serving.compare import Timings, compare, random_prompts
from harness.serving.requests import Popularity, tenants_of
from harness.serving.serve import OneByOne, Strategy
from harness.serving.strategies import (
    BaseAlone,
    Batched,
    Copies,
    OneAdapter,
    PeftMixed,
    Swapped,
    merge,
    peft_model,
)
from harness.serving.workshop import Workshop

#: Copies of a whole model may take this share of the memory that is free.
COPIES_SHARE = 0.5


class TooLarge(Exception):
    """A strategy does not fit into the memory that is free."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are for it")
        self.needed = needed


Name = Literal[
    "base alone", "copies", "merged, swapped", "unmerged, one at a time", "PEFT's mixed batch", "batched LoRA",
    "batched LoRA, int8 base", "batched LoRA, NF4 base", "batched adapters", "batched prefixes", "batched prompts",
    "batched BitDelta", "batched, methods mixed",
]  # fmt: skip
Names = Annotated[list[Name], Field(min_length=1), Once]
#: From the workshop and a number of tenants to the strategy under its name in the table.
Build = Callable[[Workshop, int, str], Strategy]


def _copies(workshop: Workshop, tenants: int, name: str) -> Strategy:
    needed, free = tenants * weights_bytes(workshop.network), int(COPIES_SHARE * free_bytes(workshop.base.device))
    if needed > free:
        raise TooLarge(needed, free)
    own = workshop.tenants("lora", tenants)
    return Copies([merge(copy.deepcopy(workshop.network), tenant) for tenant in own], name)


def _batched(*kinds: str, scheme: str | None = None) -> Build:
    """One pass for tenants of these methods in turn, on a base in ``scheme``; None: as it is."""

    def build(workshop: Workshop, tenants: int, name: str) -> Strategy:
        own = [workshop.tenants(kinds[place % len(kinds)], tenants)[place] for place in range(tenants)]
        return Batched(workshop.held(scheme), own, name)

    return build


#: Name -> how to build it, in the order in which they run.
STRATEGIES: Mapping[Name, Build] = {
    "base alone": lambda workshop, _tenants, name: BaseAlone(workshop.network, name),
    "copies": _copies,
    "merged, swapped": lambda w, n, name: Swapped(copy.deepcopy(w.network), w.tenants("lora", n), name),
    "unmerged, one at a time": lambda w, n, name: OneAdapter(peft_model(w.network, w.tenants("lora", n)), name),
    "PEFT's mixed batch": lambda w, n, name: PeftMixed(peft_model(w.network, w.tenants("lora", n)), name),
    "batched LoRA": _batched("lora"),
    "batched LoRA, int8 base": _batched("lora", scheme="int8"),
    "batched LoRA, NF4 base": _batched("lora", scheme="nf4"),
    "batched adapters": _batched("adapter"),
    "batched prefixes": _batched("prefix"),
    "batched prompts": _batched("prompt"),
    "batched BitDelta": _batched("bitdelta"),
    "batched, methods mixed": _batched("lora", "adapter", "prefix", "prompt"),
}


def study(
    base: Base,
    strategies: Names | None = None,
    tenants: Counts | None = None,
    requests: list[Count] | None = None,
    popularity: Literal["distinct", "uniform", "zipf", "identical"] = "distinct",
    prompt_tokens: Count = 16,
    new_tokens: Count = 8,
    rounds: Count = 2,
    r: Count = 8,
    virtual_tokens: Count = 16,
    bottleneck: Count = 16,
    trained: Folder | None = None,
    scale: Positive = 0.02,
    seed: Natural = 0,
) -> Iterator[dict[str, Any]]:
    """Rows of the table ``serving``, without ``trial_id``, batch after batch.

    ``strategies`` are names of :data:`STRATEGIES`, by default all. ``requests`` are sizes of batches; by default every
    tenant asks once. ``trained`` is a folder with checkpoints of trials: these serve as tenants as far as they go, and
    the others are made up with random numbers of the standard deviation ``scale``. Raises
    :class:`harness.errors.InputError` for an unknown strategy, and for a model that does not generate.
    """
    names = list(STRATEGIES) if strategies is None else strategies
    for name in names:
        if name not in STRATEGIES:
            raise unknown("strategies", name, STRATEGIES)
    if base.kind != "decoder":
        raise InputError(f"serving: '{base.spec.name}' is {base.kind}; valid: a decoder")
    sizes = {"r": r, "num_virtual_tokens": virtual_tokens, "bottleneck": bottleneck}
    workshop = Workshop(base, sizes, Path(trained) if trained else None, scale)
    for count in tenants or [1, 4, 16]:
        built: dict[str, Strategy] = {}
        absent: dict[str, TooLarge] = {}
        for name in names:
            try:
                built[name] = STRATEGIES[name](workshop, count, name)
            except TooLarge as error:
                absent[name] = error
        loads = {name: _load(strategy, workshop.base.device) for name, strategy in built.items()}
        for number in requests or [count]:
            batch = Batch(count, tenants_of(popularity, count, number, seed), popularity, prompt_tokens, new_tokens)
            yield from _of_batch(workshop, batch, built, loads, absent, rounds)


@dataclass(frozen=True)
class Batch:
    """One batch of requests."""

    tenants: int
    """That are ready."""
    asked: Sequence[int]
    """The tenant of each request."""
    popularity: Popularity
    prompt_tokens: int
    new_tokens: int

    def tokens(self, phase: str) -> int | None:
        """Of all requests that one time of ``phase`` is for; None where it is for no token."""
        each = {"prefill": self.prompt_tokens, "decode": 1, "whole": self.new_tokens}.get(phase)
        return None if each is None else each * len(self.asked)

    def columns(self) -> dict[str, Any]:
        """What all rows of the batch have."""
        return {
            "tenants": self.tenants,
            "batch_size": len(self.asked),
            "popularity": self.popularity,
            "batch_tenants": len(set(self.asked)),
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
        }


def _of_batch(
    workshop: Workshop,
    batch: Batch,
    built: Mapping[str, Strategy],
    loads: Mapping[str, Timed | None],
    absent: Mapping[str, TooLarge],
    rounds: int,
) -> Iterator[dict[str, Any]]:
    base = workshop.base
    ids = random_prompts(len(batch.asked), batch.prompt_tokens, base.tokenizer.vocab_size, base.device)
    timings = compare([*built.values()], batch.asked, ids, new_tokens=batch.new_tokens, rounds=rounds)
    for name, timing in timings.items():
        strategy = built[name]
        about = {
            "model": base.spec.name, "strategy": name, "method": strategy.method, **batch.columns(),
            "tenants_from": None if strategy.method == "baseline" else workshop.origin(strategy.method),
        }  # fmt: skip
        swaps = isinstance(strategy, OneByOne)
        yield from (about | row for row in _phases(batch, timing, loads[name], swaps))
    for name, error in absent.items():
        yield {
            "model": base.spec.name, "strategy": name, "method": "full", **batch.columns(), "phase": "decode",
            "base_bytes": 0, "tenants_bytes": error.needed, "reason": str(error),
        }  # fmt: skip


def _phases(batch: Batch, timing: Timings, load: Timed | None, swaps: bool) -> Iterator[dict[str, Any]]:
    memory = {
        "base_bytes": timing.base_bytes,
        "tenants_bytes": timing.tenants_bytes,
        "cache_bytes": timing.cache_bytes,
        "virtual_cache_bytes": timing.virtual_cache_bytes,
        "memory_bytes": timing.base_bytes + timing.tenants_bytes + timing.cache_bytes,
        "disturbed": timing.disturbed,
    }
    for phase, times in timing.seconds.items():
        if not times or (phase == "swap" and not swaps):
            continue
        tokens = batch.tokens(phase)
        yield {
            "phase": phase,
            "p50_s": timing.percentile(phase, 50),
            "p95_s": timing.percentile(phase, 95),
            "tokens_per_s": None if tokens is None else tokens * len(times) / sum(times),
            "energy_j": timing.median_joules if phase == "whole" else None,
            **memory,
        }
    if load is not None:
        yield {"phase": "load", "p50_s": load.p50_s, "p95_s": load.p95_s, **memory}


def _load(strategy: Strategy, device: torch.device) -> Timed | None:
    """The time to bring a tenant from disk into its place; None for the base."""
    with tempfile.TemporaryDirectory() as folder:
        act = strategy.loading(Path(folder))
        return None if act is None else timed(act, device, repeats=3)


def free_bytes(device: torch.device) -> int:
    """Memory that is free now, of the GPU or of the machine."""
    return int(torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available)
