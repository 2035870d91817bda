"""Floating-point operations, counted as PyTorch runs them: matrix products and attention, 2 per multiply-add."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper

Shape = Sequence[int]


def _repeated(query: Shape, key: Shape, value: Shape) -> tuple[Shape, Shape, Shape]:
    """Shapes with a head of keys and values for each head of queries: a kernel reads grouped ones several times.

    torch 2.11 counts no others.
    """
    heads = query[1]
    return query, (key[0], heads, *key[2:]), (value[0], heads, *value[2:])


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(*_repeated(query, key, value)))


def _attention_backward(grad: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad, *_repeated(query, key, value)))


def _product_4bit(activations: Shape, _packed: Shape, shape: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(activations) * shape[0]


#: The kernels of attention, on CPU and on GPUs.
_KERNELS = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
#: What ``torch.utils.flop_counter`` does not know in each version, by the operation's name: attention, and
#: bitsandbytes' product with a packed weight.
_FORMULAS: Mapping[str, Callable[..., int]] = {
    **{f"aten._scaled_dot_product_{kernel}": _attention for kernel in _KERNELS},
    **{f"aten._scaled_dot_product_{kernel}_backward": _attention_backward for kernel in _KERNELS},
    "bitsandbytes.gemm_4bit": _product_4bit,
}
_WRAPPED = {name: shape_wrapper(formula) for name, formula in _FORMULAS.items()}


def flops_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """FLOPs of one operation of PyTorch's dispatcher; 0 for everything that is no matrix product."""
    packet = func._overloadpacket
    formula = _WRAPPED.get(str(packet)) or flop_registry.get(packet)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=out))


class FlopCounter(TorchDispatchMode):
    """``with FlopCounter() as counter:`` … ``counter.flops``. It slows what runs inside: never time that.

    The formulas are those of ``torch.utils.flop_counter``; its ``FlopCounterMode`` also follows modules, which costs
    more and fails on modules that are entered twice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.flops += flops_of(func, args, kwargs or {}, out)
        return out
