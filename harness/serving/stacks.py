"""One layer's changes of all tenants, stacked, and applied to the rows of a mixed batch in a few products.

LoRA's stacks are in :mod:`harness.serving.low_ranks`.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from harness.errors import InputError
from harness.methods.bitdelta import unpack_signs
from harness.serving.routing import Route
from harness.serving.tenant import Bottleneck, OneBit, Shift

#: Unpacked signs that lie in memory at a time, in bytes.
BLOCK_BYTES = 2**22

_Part = TypeVar("_Part")


class Place:
    """The tenants of one kind, and the route of the batch that runs now; shared by the stacks of all layers."""

    def __init__(self, slots: dict[int, int]) -> None:
        self.slots = slots
        """Tenant -> place in the stacks."""
        self.route: Route | None = None


class Stored:
    """Tensors with a slot for each tenant, and those of the rows of a batch."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors
        self._gathered: tuple[tuple[int, ...], tuple[Tensor, ...]] | None = None

    def gathered(self, route: Route) -> tuple[Tensor, ...]:
        """The tensors of each touched row; taken once for a batch, since its rows stay together for many steps."""
        if route.slots == tuple(range(len(self.tensors[0]))):
            return self.tensors
        if self._gathered is None or self._gathered[0] != route.slots:
            self._gathered = (route.slots, tuple(t.index_select(0, route.index) for t in self.tensors))
        return self._gathered[1]

    def held(self) -> tuple[Tensor, ...]:
        """All tensors that it keeps in memory now."""
        return self.tensors + (() if self._gathered is None else self._gathered[1])

    def forget(self) -> None:
        """Drop what was gathered for a batch."""
        self._gathered = None


class Stack(Generic[_Part]):
    """The changes of one layer. A forward hook: reads the layer's inputs, adds to its outputs in place."""

    def __init__(self, place: Place, *stored: Stored) -> None:
        self.place, self.stored = place, stored

    @classmethod
    def side_by_side(cls, place: Place, layers: Sequence[Sequence[_Part | None]], like: Tensor) -> list[Stack[_Part]]:
        """The stacks of layers that read the same tensor, from what each tenant changes in each of them."""
        make: Any = cls
        return [make(place, parts, like) for parts in layers]

    def put(self, slot: int, part: _Part | None) -> None:
        """Store a tenant's change; None: this layer of it is the base's."""
        raise NotImplementedError

    def change(self, route: Route, module: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        """What to add to the touched rows; ``x`` are their inputs, ``output`` the outputs of all rows."""
        raise NotImplementedError

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """The hook."""
        if (route := self.place.route) is None:
            return None
        return route.add(output, self.change(route, module, route.take(inputs[0]), output))

    def held(self) -> Iterator[Tensor]:
        """All tensors that it keeps in memory now."""
        for stored in self.stored:
            yield from stored.held()

    def forget(self) -> None:
        """Drop what was gathered for a batch."""
        for stored in self.stored:
            stored.forget()


def each_run(route: Route, x: Tensor, product: Callable[[int, Tensor], Tensor]) -> Tensor:
    """``product`` of slot and rows, for every run, put together again."""
    return torch.cat([product(slot, x[start:stop]) for slot, start, stop in route.runs])


class Bottlenecks(Stack[Bottleneck]):
    """Bottleneck adapters behind a layer."""

    def __init__(self, place: Place, parts: Sequence[Bottleneck | None], like: Tensor) -> None:
        some = [part for part in parts if part is not None]
        self.activation = some[0].activation
        if len({repr(part.activation) for part in some}) > 1:
            raise InputError("tenants: adapters with several activations; valid: one for all")
        units, width = max(part.down.shape[1] for part in some), some[0].down.shape[0]
        shapes = ((width, units), (units,), (units, width), (width,))
        super().__init__(place, Stored(*(like.new_zeros(len(parts), *shape) for shape in shapes)))
        for slot, part in enumerate(parts):
            self.put(slot, part)

    def put(self, slot: int, part: Bottleneck | None) -> None:
        """Fewer units than the largest adapter's are padded: a unit without weights adds nothing."""
        down, down_bias, up, up_bias = tensors = self.stored[0].tensors
        for padded in tensors:
            padded[slot].zero_()
        if part is None:
            return
        units = part.down.shape[1]
        down[slot, :, :units], down_bias[slot, :units] = part.down, part.down_bias
        up[slot, :units], up_bias[slot] = part.up, part.up_bias

    def change(self, route: Route, _module: nn.Module, _x: Tensor, output: Tensor) -> Tensor:
        """(touched, tokens, width)"""
        down, down_bias, up, up_bias = self.stored[0].gathered(route)
        hidden = self.activation(torch.baddbmm(down_bias.unsqueeze(1), route.take(output), down))
        return torch.baddbmm(up_bias.unsqueeze(1), hidden, up)


class OneBits(Stack[OneBit]):
    """BitDelta: the signs stay packed. A GPU multiplies by them as they are; elsewhere blocks are unpacked in turn."""

    def __init__(self, place: Place, parts: Sequence[OneBit | None], like: Tensor) -> None:
        signs = next(part.signs for part in parts if part is not None)
        self.signs = torch.zeros(len(parts), *signs.shape, dtype=torch.uint8, device=like.device)
        self.alpha = like.new_zeros(len(parts))
        super().__init__(place, Stored(self.signs, self.alpha))
        for slot, part in enumerate(parts):
            self.put(slot, part)

    def put(self, slot: int, part: OneBit | None) -> None:
        """Without a part the scale is 0."""
        self.alpha[slot].zero_()
        if part is not None:
            self.signs[slot], self.alpha[slot] = part.signs, part.alpha.to(self.alpha)

    def change(self, route: Route, _module: nn.Module, x: Tensor, _output: Tensor) -> Tensor:
        """(touched, tokens, outputs)"""
        if has_sign_kernel(x):
            from harness.serving import packed_signs

            return packed_signs.products(x, self.signs, route.index, self.alpha)
        return each_run(route, x, lambda slot, own: self.alpha[slot] * times_signs(own, self.signs[slot]))


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def has_sign_kernel(x: Tensor) -> bool:
    """Whether packed signs are multiplied by a kernel of their own: on an NVIDIA GPU, where Triton is installed."""
    return x.is_cuda and torch.version.cuda is not None and _has_triton()


def times_signs(x: Tensor, packed: Tensor, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """``x @ signs.T`` for packed signs (outputs, inputs / 8); ``block_bytes`` of them are unpacked at a time."""
    columns = x.shape[-1]
    rows = max(1, block_bytes // (columns * x.element_size()))
    blocks = [x @ unpack_signs(part, columns, x.dtype).T for part in packed.split(rows)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, -1)


class Shifts(Stack[Shift]):
    """Changed biases, and changed weights of norms."""

    def __init__(self, place: Place, parts: Sequence[Shift | None], like: Tensor) -> None:
        some = [vector for part in parts if part is not None for vector in (part.bias, part.weight)]
        width = next(vector.shape[0] for vector in some if vector is not None)
        scales = any(part is not None and part.weight is not None for part in parts)
        super().__init__(place, Stored(*(like.new_zeros(len(parts), width) for _ in range(1 + scales))))
        for slot, part in enumerate(parts):
            self.put(slot, part)

    def put(self, slot: int, part: Shift | None) -> None:
        """What a part leaves out does not change."""
        vectors = (None, None) if part is None else (part.bias, part.weight)
        for stored, vector in zip(self.stored[0].tensors, vectors, strict=False):
            stored[slot] = 0 if vector is None else vector

    def change(self, route: Route, module: nn.Module, x: Tensor, _output: Tensor) -> Tensor:
        """(touched, tokens, ..., outputs)"""
        between = (1,) * (x.dim() - 2)  # a norm of single heads sees one dimension more
        bias, *weight = (vector.view(len(vector), *between, -1) for vector in self.stored[0].gathered(route))
        if not weight:
            return bias.expand(*x.shape[:-1], -1)
        return bias + weight[0] * normalised(module, x)


def normalised(norm: nn.Module, x: Tensor) -> Tensor:
    """What ``norm`` multiplies by its weight: its outputs are linear in the weight, whatever its family adds to it."""
    return _weighted(norm, 1.0, x) - _weighted(norm, 0.0, x)


def _weighted(norm: nn.Module, weight: float, x: Tensor) -> Tensor:
    """The outputs with this number for the weight and no bias, on a copy without hooks."""
    bare = copy.copy(norm)
    bare._parameters = {
        name: None if p is None else torch.full_like(p, weight if name == "weight" else 0.0)
        for name, p in norm._parameters.items()
    }
    outputs: Tensor = bare.forward(x)
    return outputs
