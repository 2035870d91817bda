"""``torch.compile``, layer by layer: equal layers share one graph, so depth costs no further compilation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit

from harness.execution import NotActive
from harness.measure.environment import synchronize
from harness.networks.tuned import Tuned
from harness.training.sharding import layer_classes


@dataclass(frozen=True)
class Compilation:
    """What was compiled before training."""

    seconds: float
    layers: int
    graphs: int
    """Graphs that were compiled for them."""


def graphs() -> int:
    """How many graphs this process has compiled."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


@contextlib.contextmanager
def compiled(tuned: Tuned, wanted: bool, step: Callable[[], torch.Tensor]) -> Iterator[Compilation | None]:
    """Within the block the layers of ``tuned`` are compiled, if that is ``wanted``; else gives None.

    ``step`` computes a loss. It is called twice, with its backward pass: the first call compiles, and its time beyond
    the second call is that of compilation. Shapes may vary: batches differ in length. Raises
    :class:`harness.execution.NotActive` where nothing can be compiled, and where a layer would run uncompiled later on:
    past a limit of graphs the compiler gives up in silence.
    """
    if not wanted:
        yield None
        return
    names = layer_classes(tuned.model)
    layers: list[Any] = [module for module in tuned.model.modules() if type(module).__name__ in names]
    torch.compiler.reset()  # graphs of earlier networks count towards the limit
    before = graphs()
    for layer in layers:
        layer.compile(dynamic=True)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        try:
            seconds = _compile_s(tuned, step)
            if graphs() == before:
                raise NotActive("execution.compile: no layer of this network was compiled")
            yield Compilation(seconds, len(layers), graphs() - before)
        except FailOnRecompileLimitHit as error:
            raise _not_compiled(error) from error
        finally:
            for layer in layers:
                layer._compiled_call_impl = None


def _compile_s(tuned: Tuned, step: Callable[[], torch.Tensor]) -> float:
    """Seconds that the first ``step`` takes beyond the second."""
    try:
        first, second = (_timed(tuned, step) for _ in range(2))
    except Exception as error:  # whatever the compiler raises
        raise _not_compiled(error) from error
    return max(first - second, 0.0)


def _not_compiled(error: Exception) -> NotActive:
    return NotActive(f"execution.compile: {type(error).__name__}: {str(error).splitlines()[0]}")


def _timed(tuned: Tuned, step: Callable[[], torch.Tensor]) -> float:
    """Seconds of a step without an update; gradients and the state of the random numbers are restored."""
    model: nn.Module = tuned.model
    devices = [tuned.base.device] if tuned.base.device.type == "cuda" else []
    model.train()
    with torch.random.fork_rng(devices=devices):
        synchronize(tuned.base.device)
        start = time.perf_counter()
        step().backward()
        synchronize(tuned.base.device)
        seconds = time.perf_counter() - start
    model.zero_grad(set_to_none=True)
    return seconds
