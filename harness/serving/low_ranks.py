r"""LoRA of all tenants on the rows of a mixed batch.

It goes two ways. *Gather*: every row gets its own pair of matrices, and two batched products serve them all (Punica's
BGMV; Chen et al. 2023, arXiv:2310.18547). *Runs*: rows of one tenant lie side by side and share a product (its SGMV); a
GPU that has grouped products multiplies all runs in one call. Ranks of different size are padded with zeros, which add
exactly nothing. Layers that read the same tensor, such as queries, keys and values, share the first product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.errors import InputError
from harness.serving.routing import Route
from harness.serving.stacks import Place, Stack, Stored, each_run
from harness.serving.tenant import LowRank

#: Where a row of a grouped product may begin.
ALIGNED_BYTES = 16


class Downs:
    """The first matrices of LoRA on layers that read the same tensor, side by side: one product serves all of them."""

    def __init__(self, ranks: Sequence[int], inputs: int, tenants: int, like: Tensor) -> None:
        """``ranks`` are those of the layers, in the order in which they run."""
        # Transposed: reading along the inputs, the product of a few tokens is up to twice as fast.
        self.stored = Stored(like.new_zeros(tenants, sum(ranks), inputs))
        self._latest: tuple[Route, Tensor, list[Tensor]] | None = None
        self._ranks = list(ranks)

    def of_layer(self, number: int) -> Tensor:
        """The matrices of one layer, (tenants, rank, inputs); a view."""
        return self.stored.tensors[0].split(self._ranks, 1)[number]

    def hidden(self, number: int, route: Route, inputs: Tensor) -> Tensor:
        """What a layer's first matrices make of ``inputs`` (rows, tokens, inputs): (touched, tokens, rank).

        The first layer that reads a tensor multiplies for all of them; the last one drops what they share.
        """
        latest = self._latest
        if latest is None or latest[0] is not route or latest[1] is not inputs:
            latest = (route, inputs, list(self._product(route, route.take(inputs)).split(self._ranks, -1)))
        self._latest = None if number == len(self._ranks) - 1 else latest
        return latest[2][number]

    def _product(self, route: Route, x: Tensor) -> Tensor:
        if not route.by_runs(x.shape[1]):
            return torch.bmm(x, self.stored.gathered(route)[0].mT)
        return products_of_runs(route, x, self.stored.tensors[0].mT)


class LowRanks(Stack[LowRank]):
    """LoRA."""

    def __init__(
        self, place: Place, parts: Sequence[LowRank | None], like: Tensor, downs: Downs | None = None, number: int = 0
    ) -> None:
        """``downs`` holds the first matrices, for this layer and others: it is the one at ``number``."""
        shape = next((part.down.shape[0], part.up.shape[1]) for part in parts if part is not None)
        self._downs = downs or Downs([largest_rank(parts)], shape[0], len(parts), like)
        self._number = number
        self.down = self._downs.of_layer(number)
        self.up = like.new_zeros(len(parts), self.down.shape[1], shape[1])
        super().__init__(place, self._downs.stored, Stored(self.up))
        for slot, part in enumerate(parts):
            self.put(slot, part)

    @classmethod
    def side_by_side(
        cls, place: Place, layers: Sequence[Sequence[LowRank | None]], like: Tensor
    ) -> list[Stack[LowRank]]:
        """Stacks that share the product with their first matrices."""
        inputs = next(part.down.shape[0] for part in layers[0] if part is not None)
        downs = Downs([largest_rank(parts) for parts in layers], inputs, len(layers[0]), like)
        return [cls(place, parts, like, downs, number) for number, parts in enumerate(layers)]

    def put(self, slot: int, part: LowRank | None) -> None:
        """Raises :class:`harness.errors.InputError` for a rank above the largest that the stack was made for."""
        for padded in (self.down, self.up):
            padded[slot].zero_()
        if part is None:
            return
        rank = part.down.shape[1]
        if rank > self.down.shape[1]:
            raise InputError(f"tenant: rank {rank} does not fit; valid: at most {self.down.shape[1]}")
        self.down[slot, :rank] = part.down.T
        self.up[slot, :rank] = part.up

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """The hook."""
        if (route := self.place.route) is None:
            return None
        hidden = self._downs.hidden(self._number, route, inputs[0])
        if route.by_runs(hidden.shape[1]):
            return route.add(output, products_of_runs(route, hidden, self.up))
        return route.add_product(output, hidden, self.stored[1].gathered(route)[0])


def largest_rank(parts: Sequence[LowRank | None]) -> int:
    """The rank that the others are padded to."""
    return max(int(part.down.shape[1]) for part in parts if part is not None)


def products_of_runs(route: Route, x: Tensor, matrices: Tensor) -> Tensor:
    """The product of each touched row of ``x`` (touched, tokens, width) with its tenant's matrix, run by run.

    ``matrices`` (tenants, width, outputs). One call where there are grouped products.
    """
    if not has_grouped_products(x, matrices):
        return each_run(route, x, lambda slot, own: own @ matrices[slot])
    touched, tokens, width = x.shape
    slots = torch.tensor([slot for slot, _, _ in route.runs], device=x.device)
    ends = torch.tensor([stop * tokens for _, _, stop in route.runs], device=x.device, dtype=torch.int32)
    flat = x.reshape(-1, width).contiguous()  # a part of what layers share has gaps between its rows
    return functional.grouped_mm(flat, matrices[slots], offs=ends).view(touched, tokens, -1)


def has_grouped_products(x: Tensor, matrices: Tensor) -> bool:
    """Whether one call multiplies groups of rows by a matrix each.

    That is so for bfloat16 on a GPU of capability 9 or higher, where rows of all matrices begin at multiples of 16
    bytes: for ranks that 8 divides.
    """
    return (
        x.is_cuda
        and x.dtype == torch.bfloat16
        and all(size * x.element_size() % ALIGNED_BYTES == 0 for size in matrices.shape[1:])
        and hasattr(functional, "grouped_mm")
        and torch.cuda.get_device_capability(x.device) >= (9, 0)
    )
