"""Floating-point operations, counted as PyTorch runs them: matrix products and attention, 2 per multiply-add.

What a backward pass computes again, because it was not kept, is counted apart: :func:`repeating` marks it.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
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


def _flex_backward(query: Shape, key: Shape, value: Shape, out: Shape, *_: Any, **__: Any) -> int:
    return _attention_backward(out, query, key, value)


def _product_added(_added: Shape, a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(a) * b[-1]


def _product_4bit(activations: Shape, _packed: Shape, shape: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(activations) * shape[0]


#: The kernels of attention, on CPU and on GPUs.
_KERNELS = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
#: What ``torch.utils.flop_counter`` does not know in each version, by the operation's name: attention, sums with a
#: product that is kept in another format (Liger's), and bitsandbytes' product with a packed weight.
_FORMULAS: Mapping[str, Callable[..., int]] = {
    **{f"aten._scaled_dot_product_{kernel}": _attention for kernel in _KERNELS},
    **{f"aten._scaled_dot_product_{kernel}_backward": _attention_backward for kernel in _KERNELS},
    "flex_attention": _attention,
    "flex_attention_backward": _flex_backward,
    "aten.addmm": _product_added,
    "aten.baddbmm": _product_added,
    "bitsandbytes.gemm_4bit": _product_4bit,
}
_WRAPPED = {name: shape_wrapper(formula) for name, formula in _FORMULAS.items()}


def flops_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """FLOPs of one operation of PyTorch's dispatcher; 0 for everything that is no matrix product."""
    packet = _packet(func)
    formula = _WRAPPED.get(str(packet)) or flop_registry.get(packet)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=out))


def _packet(func: Any) -> Any:
    """All overloads of an operation; one of a higher order, such as flex attention, has none."""
    return getattr(func, "_overloadpacket", func)


_BATCHED = frozenset(("aten.bmm", "aten.baddbmm"))


@dataclass(frozen=True, eq=False)
class _Repetition:
    """One block that is computed again."""

    kind: str


_REPEATED: ContextVar[_Repetition | None] = ContextVar("repeated", default=None)


def repeating(kind: str) -> tuple[Any, Any]:
    """The ``context_fn`` of ``torch.utils.checkpoint``: marks what it computes again as a block of ``kind``."""
    return contextlib.nullcontext(), _marked(kind)


@contextlib.contextmanager
def _marked(kind: str) -> Iterator[None]:
    token = _REPEATED.set(_Repetition(kind))
    try:
        yield
    finally:
        _REPEATED.reset(token)


class FlopCounter(TorchDispatchMode):
    """``with FlopCounter() as counter:`` … ``counter.flops``. It slows what runs inside: never time that.

    The formulas are those of ``torch.utils.flop_counter``; its ``FlopCounterMode`` also follows modules, which costs
    more and fails on modules that are entered twice.
    """

    #: Flex attention is one: it comes here as a whole.
    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.formats: Counter[str] = Counter()
        """Of ``flops``, those of operations on numbers of each format, such as 'float32'."""
        self.repeated_flops = 0
        """Those of ``flops`` that only repeat earlier ones."""
        self.attention: Counter[str] = Counter()
        """How often each operation ran that is attention as a whole; empty where attention is made of products."""
        self.attention_forward_flops = 0
        """Of the operations that are attention as a whole; the first time they run, as everything below."""
        self.attention_backward_flops = 0
        self.batched_flops = 0
        """Of products of many matrices at once: attention that is made of products."""
        self.pairs = 0
        """Pairs of a query and a key in the forward pass of fused attention, in all rows and layers."""
        self._repeated: set[_Repetition] = set()
        self._eager: Any = None

    def __enter__(self) -> FlopCounter:
        """From now on, what is compiled runs as it is written: a graph does not come here operation by operation."""
        self._eager = torch.compiler.set_stance("force_eager")
        self._eager.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Compiled again."""
        super().__exit__(*error)
        self._eager.__exit__(*error)

    @property
    def repeats(self) -> Counter[str]:
        """How many blocks of each kind were computed again."""
        return Counter(one.kind for one in self._repeated)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        flops = flops_of(func, args, kwargs or {}, out)
        self.flops += flops
        if flops:
            self.formats[str(args[0].dtype).removeprefix("torch.")] += flops
        name = str(_packet(func))
        is_attention = "attention" in name or "flash" in name
        if is_attention and "backward" not in name:
            self.attention[name.removeprefix("aten.").lstrip("_")] += 1
        if (repeated := _REPEATED.get()) is not None:
            self.repeated_flops += flops
            self._repeated.add(repeated)
        elif is_attention:
            self._add_attention(flops, "backward" in name, args)
        elif name in _BATCHED:
            self.batched_flops += flops
        return out

    def _add_attention(self, flops: int, backward: bool, args: Sequence[Any]) -> None:
        if backward:
            self.attention_backward_flops += flops
            return
        self.attention_forward_flops += flops
        if flops:
            query, key = args[:2]
            self.pairs += query.shape[0] * query.shape[-2] * key.shape[-2]
