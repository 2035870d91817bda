"""Which implementation of attention a network uses, by transformers' names."""

from __future__ import annotations

from typing import Any

from harness.execution import NotActive


def use(model: Any, name: str) -> None:
    """Let ``model`` compute attention as ``name`` does. Raises :class:`NotActive` where that cannot be."""
    if name == "flex_attention" and model.device.type == "cpu":
        raise NotActive("execution.attention: flex_attention cannot run here: on a CPU it has no backward pass")
    try:
        model.set_attn_implementation(name)
    except (ValueError, ImportError) as error:
        raise NotActive(f"execution.attention: {name} cannot run here: {str(error).splitlines()[0]}") from error
    if (seen := in_use(model)) != name:
        raise NotActive(f"execution.attention: {name} was asked for, and {type(model).__name__} keeps {seen}")


def in_use(model: Any) -> str:
    """The name of the implementation that ``model`` uses."""
    return str(model.config._attn_implementation)
