r"""One layer's changes of all tenants, stacked, and applied to the rows of a mixed batch in a few products.

Low-rank changes go two ways. *Gather*: every row gets its own pair of matrices, and two batched products serve them all
(Punica's BGMV; Chen et al. 2023, arXiv:2310.18547). *Runs*: rows of one tenant lie side by side and share a product
(its SGMV); a GPU that has grouped products multiplies all runs in one call. Ranks of different size are padded with
zeros, which add exactly nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.errors import InputError
from harness.methods.bitdelta import unpack_signs
from harness.serving.routing import Route
from harness.serving.tenant import Bottleneck, LowRank, OneBit, Shift

#: Unpacked signs that lie in memory at a time, in bytes.
BLOCK_BYTES = 2**22

_Part = TypeVar("_Part")


class Place:
    """The tenants of one kind, and the route of the batch that runs now; shared by the stacks of all layers."""

    def __init__(self, slots: dict[int, int]) -> None:
        self.slots = slots
        """Tenant -> place in the stacks."""
        self.route: Route | None = None


class Stack(Generic[_Part]):
    """The changes of one layer. A forward hook: reads the layer's inputs, adds to its outputs in place."""

    tensors: tuple[Tensor, ...]

    def __init__(self, place: Place) -> None:
        self.place = place
        self._gathered: tuple[tuple[int, ...], tuple[Tensor, ...]] | None = None

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


class LowRanks(Stack[LowRank]):
    """LoRA."""

    def __init__(self, place: Place, parts: Sequence[LowRank | None], like: Tensor) -> None:
        super().__init__(place)
        some = [part for part in parts if part is not None]
        rank = max(part.down.shape[1] for part in some)
        # Transposed: reading along the inputs, the product of a few tokens is up to twice as fast.
        self.down = like.new_zeros(len(parts), rank, some[0].down.shape[0])
        self.up = like.new_zeros(len(parts), rank, some[0].up.shape[1])
        self.tensors = (self.down, self.up)
        for slot, part in enumerate(parts):
            self.put(slot, part)

    def put(self, slot: int, part: LowRank | None) -> None:
        """Raises :class:`harness.errors.InputError` for a rank above the largest that the stack was made for."""
        for padded in self.tensors:
            padded[slot].zero_()
        if part is None:
            return
        rank = part.down.shape[1]
        if rank > self.down.shape[1]:
            raise InputError(f"tenant: rank {rank} does not fit; valid: at most {self.down.shape[1]}")
        self.down[slot, :rank] = part.down.T
        self.up[slot, :rank] = part.up

    def change(self, route: Route, _module: nn.Module, x: Tensor, _output: Tensor) -> Tensor:
        """(touched, tokens, outputs)"""
        if not route.by_runs(x.shape[1]):
            down, up = self.gathered(route)
            return torch.bmm(torch.bmm(x, down.mT), up)
        if has_grouped_products(x):
            return self._grouped(route, x)
        return each_run(route, x, lambda slot, own: own @ self.down[slot].T @ self.up[slot])

    def _grouped(self, route: Route, x: Tensor) -> Tensor:
        touched, tokens, width = x.shape
        slots = torch.tensor([slot for slot, _, _ in route.runs], device=x.device)
        ends = torch.tensor([stop * tokens for _, _, stop in route.runs], device=x.device, dtype=torch.int32)
        hidden = functional.grouped_mm(x.reshape(-1, width), self.down[slots].mT, offs=ends)
        return functional.grouped_mm(hidden, self.up[slots], offs=ends).view(touched, tokens, -1)


def has_grouped_products(x: Tensor) -> bool:
    """Whether one call multiplies groups of rows by a matrix each: bfloat16, on a GPU of capability 9 or higher."""
    return (
        x.is_cuda
        and x.dtype == torch.bfloat16
        and hasattr(functional, "grouped_mm")
        and torch.cuda.get_device_capability(x.device) >= (9, 0)
    )


def each_run(route: Route, x: Tensor, product: Callable[[int, Tensor], Tensor]) -> Tensor:
    """``product`` of slot and rows, for every run, put together again."""
    return torch.cat([product(slot, x[start:stop]) for slot, start, stop in route.runs])


class Bottlenecks(Stack[Bottleneck]):
    """Bottleneck adapters behind a layer."""

    def __init__(self, place: Place, parts: Sequence[Bottleneck | None], like: Tensor) -> None:
        super().__init__(place)
        some = [part for part in parts if part is not None]
        self.activation = some[0].activation
        if len({repr(part.activation) for part in some}) > 1:
            raise InputError("tenants: adapters with several activations; valid: one for all")
        units, width = max(part.down.shape[1] for part in some), some[0].down.shape[0]
        shapes = ((width, units), (units,), (units, width), (width,))
        self.tensors = tuple(like.new_zeros(len(parts), *shape) for shape in shapes)
        for slot, part in enumerate(parts):
            self.put(slot, part)

    def put(self, slot: int, part: Bottleneck | None) -> None:
        """Fewer units than the largest adapter's are padded: a unit without weights adds nothing."""
        for padded in self.tensors:
            padded[slot].zero_()
        if part is None:
            return
        down, down_bias, up, up_bias = self.tensors
        units = part.down.shape[1]
        down[slot, :, :units], down_bias[slot, :units] = part.down, part.down_bias
        up[slot, :units], up_bias[slot] = part.up, part.up_bias

    def change(self, route: Route, _module: nn.Module, _x: Tensor, output: Tensor) -> Tensor:
        """(touched, tokens, width)"""
        down, down_bias, up, up_bias = self.gathered(route)
        hidden = self.activation(torch.baddbmm(down_bias.unsqueeze(1), route.take(output), down))
        return torch.baddbmm(up_bias.unsqueeze(1), hidden, up)


class OneBits(Stack[OneBit]):
    """BitDelta: the signs stay packed, and are unpacked block by block for each product."""

    def __init__(self, place: Place, parts: Sequence[OneBit | None], like: Tensor) -> None:
        super().__init__(place)
        signs = next(part.signs for part in parts if part is not None)
        self.signs = torch.zeros(len(parts), *signs.shape, dtype=torch.uint8, device=like.device)
        self.alpha = like.new_zeros(len(parts))
        self.tensors = (self.signs, self.alpha)
        for slot, part in enumerate(parts):
            self.put(slot, part)

    def put(self, slot: int, part: OneBit | None) -> None:
        """Without a part the scale is 0."""
        self.alpha[slot].zero_()
        if part is not None:
            self.signs[slot], self.alpha[slot] = part.signs, part.alpha.to(self.alpha)

    def change(self, route: Route, _module: nn.Module, x: Tensor, _output: Tensor) -> Tensor:
        """(touched, tokens, outputs)"""
        return each_run(route, x, lambda slot, own: self.alpha[slot] * times_signs(own, self.signs[slot]))


def times_signs(x: Tensor, packed: Tensor, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """``x @ signs.T`` for packed signs (outputs, inputs / 8); ``block_bytes`` of them are unpacked at a time."""
    columns = x.shape[-1]
    rows = max(1, block_bytes // (columns * x.element_size()))
    blocks = [x @ unpack_signs(part, columns, x.dtype).T for part in packed.split(rows)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, -1)


class Shifts(Stack[Shift]):
    """Changed biases, and changed weights of norms."""

    def __init__(self, place: Place, parts: Sequence[Shift | None], like: Tensor) -> None:
        super().__init__(place)
        some = [vector for part in parts if part is not None for vector in (part.bias, part.weight)]
        width = next(vector.shape[0] for vector in some if vector is not None)
        self.scales = any(part is not None and part.weight is not None for part in parts)
        self.tensors = tuple(like.new_zeros(len(parts), width) for _ in range(1 + self.scales))
        for slot, part in enumerate(parts):
            self.put(slot, part)

    def put(self, slot: int, part: Shift | None) -> None:
        """What a part leaves out does not change."""
        vectors = (None, None) if part is None else (part.bias, part.weight)
        for stored, vector in zip(self.tensors, vectors, strict=False):
            stored[slot] = 0 if vector is None else vector

    def change(self, route: Route, module: nn.Module, x: Tensor, _output: Tensor) -> Tensor:
        """(touched, tokens, ..., outputs)"""
        between = (1,) * (x.dim() - 2)  # a norm of single heads sees one dimension more
        bias, *weight = (vector.view(len(vector), *between, -1) for vector in self.gathered(route))
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
