"""Optimisers by the names of an execution: what transformers calls them, and which one a run has got."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import torch

from harness.execution import Execution, NotActive
from harness.measure.memory import optimizer_bytes
from harness.networks.tuned import Tuned

#: The one that methods have if they do not name their own.
USUAL = "adamw_torch_fused"

_TRANSFORMERS: Mapping[str, str] = {
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "lion": "lion_32bit",
}


def choose(tuned: Tuned, execution: Execution) -> str:
    """transformers' name of the optimiser (``TrainingArguments.optim``) for ``tuned``.

    Raises :class:`harness.execution.NotActive` if the method has one of its own, or a package is missing.
    """
    name = execution.optimizer
    if name not in execution.asked.values():
        return tuned.optimizer
    if tuned.optimizer != USUAL:
        raise NotActive(f"execution.optimizer: '{tuned.method}' trains with an optimiser of its own, {tuned.optimizer}")
    if name != "adafactor" and importlib.util.find_spec("bitsandbytes") is None:
        raise NotActive(f"execution.optimizer: {name} needs the package bitsandbytes, which is not installed")
    return _TRANSFORMERS[name]


def active(optimizer: Any) -> str:
    """The name of an optimiser that has taken a step, by its class and by the format and place of its states."""
    inner = getattr(optimizer, "optimizer", optimizer)
    name = type(inner).__name__.lower()
    # bitsandbytes leaves small tensors and embeddings in 32 bits: what counts is most of the parameters.
    in_8_bits = _elements(inner, lambda state: state.dtype == torch.uint8)
    if in_8_bits and 2 * in_8_bits >= _elements(inner, lambda _: True):
        name = f"{name}_8bit"
    # It pages on GPUs alone, and only warns elsewhere.
    if _elements(inner, lambda state: getattr(state, "is_paged", False)):
        name = f"paged_{name}"
    return name


def _elements(optimizer: Any, kind: Callable[[torch.Tensor], bool]) -> int:
    """How many parameters have a state of this kind."""
    states = {p: [v for v in of_one.values() if isinstance(v, torch.Tensor)] for p, of_one in optimizer.state.items()}
    return sum(p.numel() for p, several in states.items() if any(map(kind, several)))


def evidence(optimizer: Any) -> str:
    """The class of an optimiser, and how many bytes of states it has for each parameter that it trains."""
    inner = getattr(optimizer, "optimizer", optimizer)
    trained = sum(p.numel() for group in inner.param_groups for p in group["params"] if p in inner.state)
    kind, size = type(inner), optimizer_bytes(inner) / max(trained, 1)
    return f"{kind.__module__.split('.')[0]} {kind.__name__}, {size:.2f} bytes of state per parameter"
